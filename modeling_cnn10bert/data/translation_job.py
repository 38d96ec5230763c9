"""Work in progress on a folder: it survives a kill at any moment, and what the folder held is never at risk.

It lives beside the folder, in a hidden one:

    progress-*.jsonl    finished pieces of the work, a line each
    unfinished          the new folder while it is written
    new, old            the new folder and the old one while they change places
"""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError
from ..files import locked_folder


class Workshop:
    """The hidden folder beside another one. One run at a time has it; it goes when nothing in it is needed."""

    def __init__(self, target: Path, folder: Path):
        self.target = target
        self.folder = folder

    @classmethod
    @contextlib.contextmanager
    def beside(cls, target: Path, purpose: str) -> Iterator["Workshop"]:
        """
        Opens the workshop of a folder, and repairs what a killed run left.

        Args:
            target: the folder that is worked on, resolved.
            purpose: ends the workshop's name.

        Raises:
            DataError: there is no such folder, another run is at work on it, or there are two of it.
        """
        workshop = cls(target, target.with_name(f".{target.name}-{purpose}"))
        if target.is_dir():
            workshop.folder.mkdir(exist_ok=True)
        elif not workshop.folder.is_dir():
            raise DataError(f"{target}: found no such folder, expected a prepared data set; check the path")
        with locked_folder(workshop.folder) as locked:
            try:
                if locked is False:
                    raise DataError(f"{target}: found another run at work on it, expected none; wait for it")
                workshop._repair()
                yield workshop
            finally:
                with contextlib.suppress(OSError):  # not empty: there is something to go on with
                    workshop.folder.rmdir()

    def empty(self, name: str) -> Path:
        """A path in the workshop at which nothing is."""
        path = self.folder / name
        if path.exists():
            shutil.rmtree(path)
        return path

    def exchange(self, finished: Path) -> None:
        """Puts a finished folder of the workshop into the place of the target, by renames only.

        Whatever moment a kill chooses, `_repair` knows which it was: the target leaves its place only when the new
        folder stands complete under the name `new`, and is deleted only when that has arrived.
        """
        new, old = self.empty("new"), self.folder / "old"
        finished.rename(new)
        self.target.rename(old)
        new.rename(self.target)
        self._discard(old)

    def _repair(self) -> None:
        new, old = self.folder / "new", self.folder / "old"
        if old.exists() and new.exists():  # killed between the two renames
            if self.target.exists():
                raise DataError(
                    f"{self.target}: found it, and at {old} the one that an interrupted run was about to replace, "
                    f"expected one of them; move one away and delete {new}"
                )
            new.rename(self.target)
        elif old.exists() and not self.target.exists():
            old.rename(self.target)
        if old.exists():
            self._discard(old)
        for name in ("new", "unfinished", "discarded"):
            self.empty(name)

    def _discard(self, old: Path) -> None:
        shutil.rmtree(old.rename(self.empty("discarded")))  # renamed first: what is called old is always whole


class Progress:
    """
    A file of JSON lines, one a finished piece of work, written out one by one; a line that a kill broke off is cut.

    Attributes:
        done: piece -> its results.
    """

    def __init__(self, path: Path):
        self.done: dict[int, list[str]] = {}
        content = path.read_bytes() if path.is_file() else b""
        end = 0
        for line in content.splitlines(keepends=True):  # all is ASCII
            row = self._row(line)
            if row is None:
                break
            self.done[row["piece"]] = row["results"]
            end += len(line)
        self._file = path.open("ab")
        self._file.truncate(end)

    @staticmethod
    def _row(line: bytes) -> dict | None:
        """What a whole line holds."""
        try:
            row = json.loads(line) if line.endswith(b"\n") else None
        except (ValueError, RecursionError):
            return None
        return row if isinstance(row, dict) and {"piece", "results"} <= row.keys() else None

    def append(self, piece: int, results: list[str]) -> None:
        self.done[piece] = results
        self._file.write(json.dumps({"piece": piece, "results": results}).encode("ascii") + b"\n")
        self._file.flush()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()
