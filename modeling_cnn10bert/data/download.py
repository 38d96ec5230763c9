"""Downloads that survive: resumed where they broke off, verified before they get their name."""

import dataclasses
import hashlib
import pathlib
import re
import time

import requests
from tqdm import tqdm

from ..errors import DataError
from .prepare import one_line_when_full

CHUNK = 1 << 20  # bytes
ATTEMPTS = 5  # without a byte of progress
TIMEOUT = (10, 60)  # seconds to connect, and between two pieces of data
PAUSE = 2.0  # seconds before the second attempt, doubled before each further one


class _Interrupted(Exception):
    """The server or the connection failed in a way that may pass."""


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A file of a known content: its name here, where it is, and the MD5 that its publisher gives."""

    name: str
    url: str
    md5: str


def download(file: RemoteFile, folder: pathlib.Path) -> pathlib.Path:
    """
    The file in `folder`, downloaded if it is not there. What arrives is kept as `<name>.part` until it is whole.

    Raises:
        DataError: the server has no such file or cannot be reached, the disk is full (the part stays), or the
            content is not the published one (the part is deleted).
    """
    path, part = folder / file.name, folder / f"{file.name}.part"
    if path.is_file():
        verify(path, file.md5)
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with one_line_when_full(folder):
        _fetch_with_patience(file.url, part)
    try:
        verify(part, file.md5)
    except DataError as error:
        part.unlink()
        raise DataError(f"{file.url}: {error}; what was downloaded is deleted") from error
    part.replace(path)
    return path


def verify(path: pathlib.Path, md5: str) -> None:
    """
    Raises:
        DataError: the file has another MD5.
    """
    digest = hashlib.md5(usedforsecurity=False)
    size = path.stat().st_size
    with (
        path.open("rb") as file,
        tqdm(total=size, desc=f"Verifying {path.name}", unit="B", unit_scale=True, disable=size < 1e9 or None) as bar,
    ):
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    if digest.hexdigest() != md5:
        raise DataError(
            f"{path}: found the MD5 {digest.hexdigest()} of {size} bytes, expected {md5}; delete the file and run the "
            "command again"
        )


def _fetch_with_patience(url: str, part: pathlib.Path) -> None:
    """Downloads to `part`, going on with what it holds, and again where the connection breaks off."""
    failures = 0
    while True:
        before = part.stat().st_size if part.is_file() else 0
        try:
            return _fetch(url, part, before)
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
            _Interrupted,
        ) as e:
            error = e
        after = part.stat().st_size if part.is_file() else 0
        failures = 1 if after > before else failures + 1
        if failures == ATTEMPTS:
            raise DataError(
                f"{url}: {error} ({ATTEMPTS} attempts; {after} bytes are kept in {part}); run the command again when "
                "the server can be reached: it goes on from there"
            ) from error
        time.sleep(PAUSE * 2 ** (failures - 1))


def _fetch(url: str, part: pathlib.Path, start: int) -> None:
    """One attempt, from byte `start` on where the server can do that."""
    headers = {"Range": f"bytes={start}-"} if start else {}
    headers["Accept-Encoding"] = "identity"  # a range of compressed bytes is no range of the file
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:  # nothing behind `start`: whole, unless it is longer than the file
            if _total(response) != start:
                part.unlink()
                raise _Interrupted(f"found {start} bytes in {part}, more than the server has; starting again")
            return
        if response.status_code >= 500 or response.status_code == 429:
            raise _Interrupted(f"the server answered {response.status_code} {response.reason}")
        if not response.ok:
            raise DataError(
                f"{url}: the server answered {response.status_code} {response.reason}, expected the file; check the "
                "address"
            )
        if response.status_code != 206:  # it sends the file from its beginning
            start = 0
        total = _total(response)
        with (
            part.open("ab" if start else "wb") as file,
            tqdm(
                total=total, initial=start, desc=f"Downloading {part.stem}", unit="B", unit_scale=True, disable=None
            ) as bar,
        ):
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
        if total is not None and part.stat().st_size < total:
            raise _Interrupted(f"the connection ended after {part.stat().st_size} of {total} bytes")


def _total(response: requests.Response) -> int | None:
    """Size of the whole file in bytes, where the server tells it."""
    if found := re.search(r"/(\d+)$", response.headers.get("Content-Range", "")):
        return int(found[1])
    length = response.headers.get("Content-Length")
    return int(length) if length and response.status_code == 200 else None
