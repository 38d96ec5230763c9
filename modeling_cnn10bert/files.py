"""Files and folders: written whole, names that libraries would read as something else, and disks that are full."""

import contextlib
import errno
import fcntl
import glob
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence

from .errors import DataError
from .masking import without_secrets

UNFINISHED = ".unfinished-"  # in the names of scratch folders beside what is written
# `datasets` reads `a::b` as a chain of file systems, and `a://b` as a protocol. What else writes takes the first as a
# name like any other.
ADDRESS, CHAIN = "://", "::"

# By these codes, and by these words where a library writes without Python: safetensors names the code, torch.save none.
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SIGNS_OF_A_FULL_DISK = (
    *(f"(os error {code})" for code in FULL_DISK),
    *(os.strerror(code) for code in FULL_DISK),
    "PytorchStreamWriter failed writing",
    "inline_container.cc",
    "iostream error",
)


def is_full_disk(error: BaseException | None) -> bool:
    """Tell whether an error, or one of which it came, says that a file could not be written for lack of space."""
    while error is not None:
        if getattr(error, "errno", None) in FULL_DISK or any(sign in str(error) for sign in SIGNS_OF_A_FULL_DISK):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_path(name: str | os.PathLike) -> bool:
    """Tell whether what may be a folder here or a repository on the Hub, such as `runs/demo`, can only be the former.

    It can if no repository has such a name, or if the folder that it would lie in is here.
    """
    name = os.fspath(name)
    parent = os.path.dirname(name)
    odd = os.path.isabs(name) or name.startswith((".", "~")) or "\\" in name or name.count("/") > 1
    return odd or (parent != "" and os.path.isdir(parent))


def check_local_folder(
    path: str | os.PathLike,
    field: str,
    error: Callable[[str], Exception] = ValueError,
    marks: Sequence[str] = (ADDRESS, CHAIN),
) -> None:
    """
    Refuse a folder whose name is read as an address.

    Args:
        path: of the folder, there or not.
        field: where the user wrote it, such as `--cache_dir` or `OUT`.
        error: makes the error from its message.
        marks: what the name must not hold; `(ADDRESS,)` where `datasets` does not read or write the folder.

    Raises:
        ValueError: the path holds such a mark; or what `error` makes.
    """
    name, shown = os.fspath(path), without_secrets(path)
    for mark in marks:
        if mark in name:
            raise error(
                f"{field} {shown}: found {mark!r} in the name of a folder, which is read as an address and not as a "
                "name, expected a local folder without it; give the folder, or the one above it, another name"
            )


@contextlib.contextmanager
def locked_folder(folder: str | os.PathLike) -> Iterator[bool | None]:
    """
    Lock a folder for the time of a block, or as long as a process lives that this one forks in it.

    The lock is on the folder itself, by flock: filelock's would be a file in it, where none is to be.

    Yields:
        Whether it is locked, not by another process; `None` where the file system has no locks.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except BlockingIOError:
            locked = False
        except OSError:
            locked = None
        yield locked
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def scratch_folder(parent: str | os.PathLike, prefix: str) -> Iterator[pathlib.Path]:
    """
    Make a folder for the time of a block, after deleting those of the same prefix whose processes are gone.

    It is locked as long as this process or one that it forked lives. Where the file system has no locks, nobody can
    tell whose folders are in use, and they stay.

    Args:
        parent: where it is made, and its own parents.
        prefix: of its name.
    """
    parent = pathlib.Path(parent)
    parent.mkdir(parents=True, exist_ok=True)
    for path in parent.iterdir():
        if path.name.startswith(prefix):
            with contextlib.suppress(OSError), locked_folder(path) as locked:  # OSError: gone, or of another user
                if locked:
                    shutil.rmtree(path, ignore_errors=True)
    # It gets the prefix when it is locked, or another process could take it for a stale one.
    unlocked = pathlib.Path(tempfile.mkdtemp(prefix=f".new-{prefix}", dir=parent))
    folder = parent / f"{prefix}{unlocked.name.removeprefix(f'.new-{prefix}')}"
    with locked_folder(unlocked):
        try:
            os.rename(unlocked, folder)
            yield folder
        finally:
            for path in (unlocked, folder):
                shutil.rmtree(path, ignore_errors=True)


def finish_replacement(path: str | os.PathLike) -> None:
    """
    Finish what `replaced_whole` was doing with a folder when a kill came between its two renames.

    Raises:
        DataError: there is a folder at the path again.
    """
    path = pathlib.Path(path)
    for replaced in path.parent.glob(f".{glob.escape(path.name)}{UNFINISHED}*/replaced"):
        new = replaced.with_name(path.name)
        with contextlib.suppress(OSError), locked_folder(replaced.parent) as locked:  # OSError: as in `scratch_folder`
            if locked is False or not new.exists():  # at work; or it has arrived
                continue
            if path.exists():
                raise DataError(
                    f"{path}: found it, and at {replaced} the one that an interrupted run was about to replace, "
                    f"expected one of them; move one away and delete {new}"
                )
            os.rename(new, path)


@contextlib.contextmanager
def replaced_whole(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """
    Make a file or folder that takes the place of another one when the block ends without an error.

    A reader never meets half of it. It is written in a `scratch_folder` beside its place, so that the renaming stays
    within one file system, and what a killed writer left goes with the next one. A folder that is replaced waits there
    until the new one has arrived.

    Args:
        path: to replace, or to write where there is nothing.

    Yields:
        The path to write to, at which nothing is.
    """
    path = pathlib.Path(path)
    finish_replacement(path)
    with scratch_folder(path.parent, f".{path.name}{UNFINISHED}") as scratch:
        unfinished, replaced = scratch / path.name, scratch / "replaced"
        yield unfinished
        try:
            if unfinished.is_dir() and path.is_dir():  # no file replaces a folder
                os.replace(path, replaced)
            os.replace(unfinished, path)
        except BaseException:  # a Ctrl-C too
            if replaced.exists() and not path.exists():
                os.replace(replaced, path)
            raise


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a file whole or not at all: a reader never meets half of it, and a kill leaves the old one."""
    with replaced_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
