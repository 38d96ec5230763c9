"""Download published files, with resuming and verification, and extract 7z archives without trusting them.

The loop over requests is our own, because pooch downloads in one piece: after 6 of Clotho's 7 GB, it would start again.
"""

import dataclasses
import errno
import hashlib
import pathlib
import re
import shutil
import time

import py7zr
import requests
from py7zr.callbacks import ExtractCallback
from tqdm import tqdm

from ..errors import DataError
from .prepare import one_line_when_full

CHUNK = 1 << 20  # bytes
ATTEMPTS = 5  # without a byte of progress
TIMEOUT = (10, 60)  # seconds to connect, and between two pieces of data
PAUSE = 2.0  # seconds before the second attempt, doubled before each further one
# Errors of the system for an entry that is a file below another file, or has a name that is too long.
ERRORS_OF_NAMES = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)


# ------------------------------------------------------------------------------------------------------- downloads


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """File of known content: its local name, its address, and the MD5 or SHA-512 that its publisher gives."""

    name: str
    url: str
    checksum: str


def download(file: RemoteFile, folder: pathlib.Path) -> pathlib.Path:
    """
    Download a file to a folder that lacks it, and verify it. Until it is complete, it is named `<name>.part`.

    Returns:
        The path of the file.

    Raises:
        DataError: the server has no such file or cannot be reached, the disk is full (the part stays), or the
            content is not the published one (the part is deleted).
    """
    path, part = folder / file.name, folder / f"{file.name}.part"
    if path.is_file():
        verify(path, file.checksum)
        return path
    folder.mkdir(parents=True, exist_ok=True)
    failures, size = 0, _size(part)
    while True:
        try:
            with one_line_when_full(folder):
                _fetch(file.url, part)
            break
        except requests.RequestException as error:
            before, size = size, _size(part)
            failures = 1 if size > before else failures + 1
            if failures == ATTEMPTS:
                raise DataError(
                    f"{file.url}: {error} ({ATTEMPTS} attempts; {size} bytes are kept in {part}); run the command "
                    "again when the server can be reached: it continues from there"
                ) from error
        time.sleep(PAUSE * 2 ** (failures - 1))
    try:
        verify(part, file.checksum)
    except DataError as error:
        part.unlink()
        raise DataError(f"{file.url}: {error}; what was downloaded is deleted") from error
    part.replace(path)
    return path


def verify(path: pathlib.Path, checksum: str) -> None:
    """
    Compare the content of a file with what was published.

    Args:
        path: the file.
        checksum: its MD5 or SHA-512, in hexadecimal; their lengths differ.

    Raises:
        DataError: the file has another checksum.
    """
    algorithm = "sha512" if len(checksum) == 128 else "md5"
    digest = hashlib.new(algorithm, usedforsecurity=False)
    size = path.stat().st_size
    with path.open("rb") as file, _bar(f"Verifying {path.name}", size, disable=size < 1e9 or None) as bar:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    if digest.hexdigest() != checksum:
        raise DataError(
            f"{path}: found the {algorithm.upper()} {digest.hexdigest()} of {size} bytes, expected {checksum}; delete "
            "the file and run the command again"
        )


def _fetch(url: str, part: pathlib.Path) -> None:
    """Download the rest of `part`; a `requests.RequestException` is a failure that may pass."""
    start = _size(part)
    headers = {"Accept-Encoding": "identity"}  # a range of compressed bytes is no range of the file
    if start:
        headers["Range"] = f"bytes={start}-"
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        total = response.headers.get("Content-Range", "/").rpartition("/")[2]
        if response.status_code == 200:  # it sends the file from its beginning
            start, total = 0, response.headers.get("Content-Length", "")
        if response.status_code == 416:  # nothing follows `start`: the part is whole, or longer than the file
            if total != str(start):
                part.unlink()
                raise requests.RequestException(f"found {start} bytes in {part}, more than the server has")
            return
        if response.status_code >= 500 or response.status_code == 429:
            raise requests.RequestException(f"the server answered {response.status_code} {response.reason}")
        if not response.ok:
            raise DataError(
                f"{url}: the server answered {response.status_code} {response.reason}, expected the file; check the "
                "address"
            )
        size = int(total) if total.isdigit() else None  # not every server tells it
        with part.open("ab" if start else "wb") as file, _bar(f"Downloading {part.stem}", size, initial=start) as bar:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if size is not None and _size(part) < size:
        raise requests.RequestException(f"the connection ended after {_size(part)} of {size} bytes")


def _size(path: pathlib.Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _bar(description: str, total: int | None, initial: int = 0, disable: bool | None = None) -> tqdm:
    return tqdm(desc=description, total=total, initial=initial, disable=disable, unit="B", unit_scale=True)


# -------------------------------------------------------------------------------------------------------- archives


def extract(archive: pathlib.Path, folder: pathlib.Path) -> None:
    """
    Extract the folder of the same name in a 7z archive to `folder`, unless it exists; as a whole or not at all.

    Raises:
        DataError: the archive is truncated or damaged, has an entry that is no plain file or would leave the
            folder, has no such folder, or the disk is full.
    """
    if folder.is_dir():
        return
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        with one_line_when_full(folder.parent), py7zr.SevenZipFile(archive) as file:
            _check_entries(archive, file, folder)
            with _bar(f"Extracting {archive.name}", file.archiveinfo().uncompressed) as bar:
                file.extractall(unfinished, callback=_Progress(bar))
        (unfinished / folder.name).rename(folder)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # py7zr raises errors of a dozen libraries for a damaged archive
        if isinstance(error, OSError) and error.errno not in (None, *ERRORS_OF_NAMES):  # of the disk
            raise
        reason = f"{type(error).__name__}: {error}"[:300]
        raise DataError(
            f"{archive}: found {archive.stat().st_size} bytes that do not extract ({reason}), expected a whole 7z "
            "archive; delete the file and run the command again"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _check_entries(archive: pathlib.Path, file: py7zr.SevenZipFile, folder: pathlib.Path) -> None:
    """Check the entries of an archive before anything is written."""
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
    if not any(pathlib.PurePosixPath(entry.filename).parts[:1] == (folder.name,) for entry in entries):
        raise DataError(
            f"{archive}: found {len(entries)} entries and no folder {folder.name}, expected the recordings there; "
            "check that it is the right archive"
        )
    # A small archive may hold any number of zeros.
    size, free = sum(entry.uncompressed for entry in entries), shutil.disk_usage(folder.parent).free
    if size > free:
        raise DataError(
            f"{archive}: no space left on the disk for what is in it (found {size / 1e6:.0f} MB, and "
            f"{free / 1e6:.0f} MB free); free some, or fetch the archive from its publisher"
        )


class _Progress(ExtractCallback):
    """Advance a progress bar with every extracted file."""

    def __init__(self, bar: tqdm):
        self.bar = bar

    def report_end(self, processing_file_path: str, wrote_bytes: str) -> None:
        self.bar.update(int(wrote_bytes))

    # The other events are abstract in py7zr and need no action.
    def report_start_preparation(self) -> None: ...
    def report_start(self, processing_file_path: str, processing_bytes: str) -> None: ...
    def report_update(self, decompressed_bytes: str) -> None: ...
    def report_warning(self, message: str) -> None: ...
    def report_postprocess(self) -> None: ...
