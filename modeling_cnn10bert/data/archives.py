"""Extraction of 7z archives that nobody needs to trust: nothing leaves the folder, and it is whole or not there."""

import contextlib
import errno
import pathlib
import re
import shutil
from collections.abc import Iterator

import py7zr
from py7zr.callbacks import ExtractCallback
from tqdm import tqdm

from ..errors import DataError
from .prepare import one_line_when_full

# By these the system refuses an entry that is a file below another file, or has a name that is too long.
ERRORS_OF_NAMES = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)


def extract(archive: pathlib.Path, folder: pathlib.Path) -> None:
    """
    Extracts the folder of that name in the archive to `folder`, where it is not there already.

    Raises:
        DataError: the archive is truncated or damaged, has an entry that is no plain file or would leave the
            folder, has no such folder, or the disk is full.
    """
    if folder.is_dir():
        return
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with one_line_when_full(folder.parent), _readable(archive), py7zr.SevenZipFile(archive) as file:
            _check_entries(archive, file, folder.name)
            _check_space(archive, file, folder.parent)
            unfinished.mkdir()
            with tqdm(
                total=file.archiveinfo().uncompressed,
                desc=f"Extracting {archive.name}",
                unit="B",
                unit_scale=True,
                disable=None,
            ) as bar:
                file.extractall(unfinished, callback=_Progress(bar))
        (unfinished / folder.name).rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextlib.contextmanager
def _readable(archive: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except (DataError, MemoryError):
        raise
    except OSError as error:
        if error.errno is not None and error.errno not in ERRORS_OF_NAMES:  # of the disk, not of the archive
            raise
        raise _damaged(archive, error) from error
    except Exception as error:  # py7zr gives a damaged archive's errors as those of a dozen libraries
        raise _damaged(archive, error) from error


def _damaged(archive: pathlib.Path, error: Exception) -> DataError:
    reason = f"{type(error).__name__}: {error}"[:300]
    return DataError(
        f"{archive}: found {archive.stat().st_size} bytes that do not extract ({reason}), expected a whole 7z "
        "archive; delete the file and run the command again"
    )


def _check_entries(archive: pathlib.Path, file: py7zr.SevenZipFile, name: str) -> None:
    """
    Raises:
        DataError: an entry would be written elsewhere, is a link, or none is in the folder `name`.
    """
    entries = file.list()
    for entry in entries:
        parts = re.split(r"[\\/]", entry.filename)
        outside = ".." in parts or parts[0] == "" or re.match("[A-Za-z]:", entry.filename)
        if outside or not (entry.is_file or entry.is_directory):
            what = "a path that leaves the folder" if outside else "no plain file"
            raise DataError(
                f"{archive}: found the entry {entry.filename!r}, which is {what}; nothing was extracted; fetch the "
                "archive from its publisher"
            )
    if not any(pathlib.PurePosixPath(entry.filename).parts[:1] == (name,) for entry in entries):
        raise DataError(
            f"{archive}: found {len(entries)} entries and no folder {name}, expected the recordings there; check "
            "that it is the right archive"
        )


def _check_space(archive: pathlib.Path, file: py7zr.SevenZipFile, folder: pathlib.Path) -> None:
    """
    Raises:
        DataError: the entries are larger than what is free: a small archive may hold any number of zeros.
    """
    size, free = sum(entry.uncompressed for entry in file.list()), shutil.disk_usage(folder).free
    if size > free:
        raise DataError(
            f"{archive}: no space left on the disk for what is in it (found {size / 1e6:.0f} MB, and "
            f"{free / 1e6:.0f} MB free); free some, or fetch the archive from its publisher"
        )


class _Progress(ExtractCallback):
    """Moves a progress bar on with every extracted file."""

    def __init__(self, bar: tqdm):
        self.bar = bar

    def report_start_preparation(self):
        pass

    def report_start(self, processing_file_path, processing_bytes):
        pass

    def report_update(self, decompressed_bytes):
        pass

    def report_end(self, processing_file_path, wrote_bytes):
        self.bar.update(int(wrote_bytes))

    def report_warning(self, message):
        pass

    def report_postprocess(self):
        pass
