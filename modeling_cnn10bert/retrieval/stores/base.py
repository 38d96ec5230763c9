"""Interface and common code of the stores of embeddings, `LanceStore` and `MilvusStore`."""

import abc
import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..records import EmbeddedFile, FileRecord, Hit, IndexInfo, SearchFilter
from .paths import encode_path
from .rows import checked_files, checked_query, checked_records, chunked, index_errors, record_of

FIRST_LIMIT = 3  # windows in the first lookup, per recording wanted
MOST_TIES = 64  # times the number asked for; among more equal hits, the store chooses


class VectorStore(abc.ABC):
    """
    Store of the embeddings of recordings' windows on disk.

    Writes are atomic per recording: a reader, in this process or another, always sees all windows of one version of a
    recording or none, even after a kill. Several writers may work at the same time.

    A subclass has one row per window and implements the methods at the end of this class with its library. A
    condition is text in the language of the library; an empty one admits every row.

    Attributes:
        info: settings that were fixed when the index was made.
        location: location of the index, as shown in error messages.
        condition: a filter -> the condition for it.
        among: encoded paths -> the condition that admits their rows.
        paths_in_a_query: maximum number of paths in one condition.
        advice: "read" or "written" -> what the user should do if that fails.
    """

    info: IndexInfo
    location: str
    condition: Callable[[SearchFilter | None], str]
    among: Callable[[Iterable[str]], str]
    paths_in_a_query: int
    advice: Mapping[str, str]
    _lock: contextlib.AbstractContextManager = contextlib.nullcontext()  # held by one writer at a time

    def files(self) -> dict[str, FileRecord]:
        """Return path -> record of every recording in the index."""
        with self._errors("read"):
            return {record.path: record for record in map(record_of, self._first_rows())}

    def put(self, files: Sequence[EmbeddedFile]) -> None:
        """Add recordings; one with the same path is replaced.

        Raises:
            RetrievalError: the index cannot be written, for example because the disk is full; its contents stay.
        """
        files = checked_files(files, self.info, self.location)
        if files:
            with self._errors("written"), self._lock:
                self._write(files)

    def remove(self, paths: Iterable[str]) -> None:
        """Delete recordings; unknown paths are ignored."""
        paths = [encode_path(path) for path in paths]
        if paths:
            with self._errors("written"), self._lock:
                self._delete(paths)

    def relabel(self, records: Mapping[str, FileRecord]) -> None:
        """Replace records, given as path in the index -> new record; embeddings stay, the path may change."""
        records = checked_records(records)
        with self._errors("written"), self._lock:
            files = list(self.embedded(records))
            renamed = [dataclasses.replace(file, record=records[file.record.path]) for file in files]
            if renamed:
                self._write(renamed, [encode_path(file.record.path) for file in files])

    def embedded(self, paths: Iterable[str] | None = None) -> Iterator[EmbeddedFile]:
        """Yield the recordings at these paths, by default all, with embeddings; windows in order, files in any."""
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
        """Find the windows with the largest inner product with `query` [D], best first; also tell if these are all."""
        query = checked_query(query, self.info, self.location)
        condition = self.condition(where)
        count = limit + 1  # one more tells whether there are more
        with self._errors("read"):
            while True:
                hits, all_found = self._find(query, count, condition)
                # A library returns any of several equal hits, so look further until all equals of the last are there.
                cut_between_equals = len(hits) > limit > 0 and hits[limit - 1].score == hits[-1].score
                if all_found or not cut_between_equals or count > MOST_TIES * limit:
                    return hits[:limit], all_found and len(hits) <= limit
                count *= 2

    def search(self, query: np.ndarray, k: int, where: SearchFilter | None = None) -> list[Hit]:
        """Find the `k` recordings whose best window has the largest inner product with `query` [D], best first.

        A recording has one hit, at its best window. Fewer than `k` are returned only if the filter admits no more.
        """
        k = min(int(k), len(self))  # stores have a limit
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
        """Make searches fast after writing: compact, and build or update a vector index if it pays off."""
        with self._errors("written"), self._lock:
            self._optimize()

    def __len__(self) -> int:
        """Return the number of windows in the index."""
        return self.count()

    def count(self, where: SearchFilter | None = None) -> int:
        """Return the number of windows that a filter admits."""
        with self._errors("read"):
            return self._count(self.condition(where))

    def delete_if_empty(self) -> None:
        """Delete the index from its location if there is nothing in it. It cannot be used afterwards.

        Raises:
            RetrievalError: the index cannot be deleted.
        """
        with self._errors("written"):
            self._delete_if_empty()

    @abc.abstractmethod
    def close(self) -> None:
        """Close files and connections."""

    def __enter__(self) -> "VectorStore":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _errors(self, done: str) -> contextlib.AbstractContextManager[None]:
        return index_errors(self.location, done, self.advice[done], self._reason)

    # ----------------------------------------------------------------------------------- implemented by subclasses

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
    def _delete_if_empty(self) -> None:
        """Delete the index if it has no rows."""

    @abc.abstractmethod
    def _write(self, files: Sequence[EmbeddedFile], old_paths: Sequence[str] = ()) -> None:
        """Write recordings, replacing those at their paths, and delete those at the encoded `old_paths`."""

    @abc.abstractmethod
    def _delete(self, paths: Sequence[str]) -> None:
        """Delete the rows of these encoded paths."""

    @abc.abstractmethod
    def _optimize(self) -> None:
        """Implement `optimize`."""

    def _reason(self, error: Exception) -> str:
        """Return the library's message."""
        return str(error)
