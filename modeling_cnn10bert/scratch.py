"""Unfinished files and folders: deleted at the end, and where a process was killed, by the next one."""

import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

UNFINISHED = ".unfinished-"  # in the names of scratch folders beside what is written


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
    _delete_stale(parent, prefix)
    # It gets the prefix when it is locked, or another process could take it for a stale one.
    unlocked = pathlib.Path(tempfile.mkdtemp(prefix=f".new-{prefix}", dir=parent))
    descriptor = os.open(unlocked, os.O_RDONLY)
    folder = parent / f"{prefix}{unlocked.name.removeprefix(f'.new-{prefix}')}"
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(unlocked, folder)
        yield folder
    finally:
        for path in (unlocked, folder):
            shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


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
    with scratch_folder(path.parent, f".{path.name}{UNFINISHED}") as scratch:
        unfinished, replaced = scratch / path.name, scratch / "replaced"
        yield unfinished
        if unfinished.is_dir() and path.is_dir():  # no file replaces a folder
            os.replace(path, replaced)
        try:
            os.replace(unfinished, path)
        except OSError:
            if replaced.exists():
                os.replace(replaced, path)
            raise


def _delete_stale(parent: pathlib.Path, prefix: str) -> None:
    for path in parent.iterdir():
        if not path.name.startswith(prefix):
            continue
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # gone, or of another user
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except OSError:  # in use, or there are no locks
            pass
        finally:
            os.close(descriptor)
