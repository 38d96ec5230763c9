"""What every store of embeddings offers, and what both kinds, `LanceStore` and `MilvusStore`, do in the same way."""

import abc
import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..records import EmbeddedFile, FileRecord, Hit, IndexInfo, SearchFilter
from .paths import encode_path
from .rows import checked_files, checked_query, checked_records, chunked, index_errors, record_of

FIRST_LIMIT = 3  # windows looked up at first for each recording that is wanted
MOST_TIES = 64  # times what is asked for: where more are equal, the store chooses among them


class VectorStore(abc.ABC):
    """
    Embeddings of the windows of recordings, on disk.

    Every method that writes leaves each recording whole: a reader, in this process or another, at any moment and after
    a kill, sees all windows of a recording in one version or none of them. Several writers may work at the same time.

    A kind of store has one row per window, and adds what its library does: the methods that end this class. A
    condition is text in the language of the library, empty where every row is wanted.

    Attributes:
        info: what was fixed when the index was made.
        location: of the index, as error messages name it.
        condition: a filter -> the condition for it.
        among: encoded paths -> the condition that admits their rows.
        paths_in_a_query: most paths that one condition names.
        advice: "read" and "written" -> what the user should do where that fails.
    """

    info: IndexInfo
    location: str
    condition: Callable[[SearchFilter | None], str]
    among: Callable[[Iterable[str]], str]
    paths_in_a_query: int
    advice: Mapping[str, str]
    _lock: contextlib.AbstractContextManager = contextlib.nullcontext()  # which writers take turns to hold

    def files(self) -> dict[str, FileRecord]:
        """Path -> recording, of all that is in the index."""
        with self._errors("read"):
            return {record.path: record for record in map(record_of, self._first_rows())}

    def put(self, files: Sequence[EmbeddedFile]) -> None:
        """Adds recordings; one whose path is there already is replaced.

        Raises:
            RetrievalError: it cannot be written, such as where the disk is full; what was in the index stays.
        """
        files = checked_files(files, self.info, self.location)
        if files:
            with self._errors("written"), self._lock:
                self._write(files)

    def remove(self, paths: Iterable[str]) -> None:
        """Deletes recordings; paths that are not there are ignored."""
        paths = [encode_path(path) for path in paths]
        if paths:
            with self._errors("written"), self._lock:
                self._delete(paths)

    def relabel(self, records: Mapping[str, FileRecord]) -> None:
        """Path in the index -> what is known of that recording now; its embeddings stay, its path may be new."""
        records = checked_records(records)
        with self._errors("written"), self._lock:
            files = list(self.embedded(records))
            renamed = [dataclasses.replace(file, record=records[file.record.path]) for file in files]
            if renamed:
                self._write(renamed, [encode_path(file.record.path) for file in files])

    def embedded(self, paths: Iterable[str] | None = None) -> Iterator[EmbeddedFile]:
        """The recordings of these paths, by default all, with their embeddings; windows in order, files in any."""
        with self._errors("read"):
            yield from self._embedded(None if paths is None else list(dict.fromkeys(paths)))

    def _embedded(self, paths: Sequence[str] | None) -> Iterator[EmbeddedFile]:
        if paths is None:
            yield from self._embedded_where("")
        else:
            for chunk in chunked(map(encode_path, paths), self.paths_in_a_query):
                yield from self._embedded_where(self.among(chunk))

    def search_windows(
        self, query: np.ndarray, limit: int, where: SearchFilter | None = None
    ) -> tuple[list[Hit], bool]:
        """The windows with the largest inner product with `query` [D], best first, and whether there are no more."""
        query = checked_query(query, self.info, self.location)
        condition = self.condition(where)
        count = limit + 1  # one more tells whether there are more
        with self._errors("read"):
            while True:
                hits, all_found = self._find(query, count, condition)
                # Of equal hits a library returns any: look further, until all that equal the last one are there.
                cut_between_equals = len(hits) > limit > 0 and hits[limit - 1].score == hits[-1].score
                if all_found or not cut_between_equals or count > MOST_TIES * limit:
                    return hits[:limit], all_found and len(hits) <= limit
                count *= 2

    def search(self, query: np.ndarray, k: int, where: SearchFilter | None = None) -> list[Hit]:
        """The `k` recordings whose best window has the largest inner product with `query` [D], best first.

        A recording has one hit, at its best window. Fewer than `k` come back only where the filter admits no more.
        """
        k = min(int(k), len(self))  # no store counts to any number
        if not k:
            return []
        limit = FIRST_LIMIT * k
        while True:
            windows, complete = self.search_windows(query, limit, where)
            best: dict[str, Hit] = {}
            for hit in windows:
                best.setdefault(hit.record.path, hit)
            if len(best) >= k or complete:
                return list(best.values())[:k]
            limit *= 4

    def optimize(self) -> None:
        """Makes searching fast after writing: compacts, and builds or renews the index where one is worth its while."""
        with self._errors("written"), self._lock:
            self._optimize()

    def __len__(self) -> int:
        """Windows in the index."""
        with self._errors("read"):
            return self._count("")

    @abc.abstractmethod
    def close(self) -> None:
        """Lets go of files and connections."""

    def __enter__(self) -> "VectorStore":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _errors(self, done: str) -> contextlib.AbstractContextManager[None]:
        return index_errors(self.location, done, self.advice[done], self._reason)

    # ------------------------------------------------------------------------------------ what a kind of store adds

    @abc.abstractmethod
    def _first_rows(self) -> Iterable[Mapping[str, Any]]:
        """Read the first row of each recording, without its embedding."""

    @abc.abstractmethod
    def _embedded_where(self, condition: str) -> Iterator[EmbeddedFile]:
        """Read the recordings whose rows a condition on their paths admits."""

    @abc.abstractmethod
    def _find(self, query: np.ndarray, count: int, condition: str) -> tuple[list[Hit], bool]:
        """Find the best hits among the best `count` rows, and say whether there are no more rows."""

    @abc.abstractmethod
    def _count(self, condition: str) -> int:
        """Count the rows that a condition admits."""

    @abc.abstractmethod
    def _write(self, files: Sequence[EmbeddedFile], old_paths: Sequence[str] = ()) -> None:
        """Write recordings in the place of those of their paths, and delete those of the encoded `old_paths`."""

    @abc.abstractmethod
    def _delete(self, paths: Sequence[str]) -> None:
        """Delete the rows of these encoded paths."""

    @abc.abstractmethod
    def _optimize(self) -> None:
        """Do what `optimize` promises."""

    def _reason(self, error: Exception) -> str:
        """Give the words of the library."""
        return str(error)
