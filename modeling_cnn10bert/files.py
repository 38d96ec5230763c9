"""Write files and folders as a whole, refuse names that libraries misread, and recognize a full disk."""

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

UNFINISHED = ".unfinished-"  # in the names of scratch folders, which are next to what is written
# `datasets` reads `a::b` as a chain of file systems, and `a://b` as a protocol. Everything else that writes
# takes `a::b` as an ordinary name.
ADDRESS, CHAIN = "://", "::"

# Codes of a full disk, and words of libraries that write without Python: safetensors names the code, torch.save none.
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SIGNS_OF_A_FULL_DISK = (
    *(f"(os error {code})" for code in FULL_DISK),
    *(os.strerror(code) for code in FULL_DISK),
    "PytorchStreamWriter failed writing",
    "inline_container.cc",
    "iostream error",
)


def is_full_disk(error: BaseException | None) -> bool:
    """Tell whether an error, or one of its causes, says that a file could not be written for lack of space."""
    while error is not None:
        if getattr(error, "errno", None) in FULL_DISK or any(sign in str(error) for sign in SIGNS_OF_A_FULL_DISK):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_path(name: str | os.PathLike) -> bool:
    """Tell whether a name such as `runs/demo` can only be a local folder, not a repository on the Hub.

    It can if no repository may have that name, or if its parent folder exists here.
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
    Refuse a folder whose name would be read as an address.

    Args:
        path: path of the folder, which need not exist.
        field: where the user gave it, such as `--cache_dir` or `OUT`.
        error: makes the error from its message.
        marks: texts that the name must not hold; `(ADDRESS,)` where `datasets` does not read or write the folder.

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
    Lock a folder during the block, or for as long as a process that is forked in the block lives.

    The lock is a flock on the folder itself, because a lock of filelock would add a file to the folder.

    Yields:
        `True` if this process holds the lock, `False` if another one does, `None` if the file system has no locks.
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
    Make a folder for the duration of the block, after deleting those of the same prefix whose processes are gone.

    It is locked as long as this process or one that it forked lives. On a file system without locks, old folders are
    kept, because they may be in use.

    Args:
        parent: folder to make it in; missing parents are made too.
        prefix: start of its name.
    """
    parent = pathlib.Path(parent)
    parent.mkdir(parents=True, exist_ok=True)
    for path in parent.iterdir():
        if path.name.startswith(prefix):
            with contextlib.suppress(OSError), locked_folder(path) as locked:  # OSError: gone, or of another user
                if locked:
                    shutil.rmtree(path, ignore_errors=True)
    # It gets the prefix only once it is locked. Before that, another process could take it for a stale one.
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
    Finish a replacement of a folder by `replaced_whole` that was killed between its two renames.

    Raises:
        DataError: a new folder exists at the path.
    """
    path = pathlib.Path(path)
    for replaced in path.parent.glob(f".{glob.escape(path.name)}{UNFINISHED}*/replaced"):
        new = replaced.with_name(path.name)
        with contextlib.suppress(OSError), locked_folder(replaced.parent) as locked:  # OSError: as in `scratch_folder`
            if locked is False or not new.exists():  # in use, or already in place
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
    Write a file or folder that replaces the one at `path` when the block ends without an error.

    A reader never sees half of it. It is written in a `scratch_folder` in the same parent, so that renaming stays
    within one file system. The next write deletes what a killed writer left. A folder that is replaced is kept there
    until the new one is in place.

    Args:
        path: path to replace or to create.

    Yields:
        The path to write to, which does not exist yet.
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
    """Write a file as a whole or not at all. A reader never sees half of it, and a kill leaves the old one."""
    with replaced_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
