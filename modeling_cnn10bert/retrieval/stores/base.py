"""What every store of embeddings offers; `LanceStore` and `MilvusStore` are its two kinds."""

import abc
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from ..records import EmbeddedFile, FileRecord, Hit, IndexInfo, SearchFilter

FIRST_LIMIT = 3  # windows looked up at first for each recording that is wanted


class VectorStore(abc.ABC):
    """
    Embeddings of the windows of recordings, on disk.

    Every method that writes leaves each recording whole: a reader, in this process or another, at any moment and after
    a kill, sees all windows of a recording in one version or none of them. Several writers may work at the same time.

    Attributes:
        info: what was fixed when the index was made.
    """

    info: IndexInfo

    @abc.abstractmethod
    def files(self) -> dict[str, FileRecord]:
        """Path -> recording, of all that is in the index."""

    @abc.abstractmethod
    def put(self, files: Sequence[EmbeddedFile]) -> None:
        """Adds recordings; one whose path is there already is replaced.

        Raises:
            RetrievalError: it cannot be written, such as where the disk is full; what was in the index stays.
        """

    @abc.abstractmethod
    def remove(self, paths: Iterable[str]) -> None:
        """Deletes recordings; paths that are not there are ignored."""

    @abc.abstractmethod
    def relabel(self, records: Mapping[str, FileRecord]) -> None:
        """Path in the index -> what is known of that recording now; its embeddings stay, its path may be new."""

    @abc.abstractmethod
    def embedded(self, paths: Iterable[str] | None = None) -> Iterator[EmbeddedFile]:
        """The recordings of these paths, by default all, with their embeddings; windows in order, files in any."""

    @abc.abstractmethod
    def search_windows(
        self, query: np.ndarray, limit: int, where: SearchFilter | None = None
    ) -> tuple[list[Hit], bool]:
        """The windows with the largest inner product with `query` [D], best first, and whether there are no more."""

    @abc.abstractmethod
    def optimize(self) -> None:
        """Makes searching fast after writing: compacts, and builds or renews the index where one is worth its while."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """Windows in the index."""

    @abc.abstractmethod
    def close(self) -> None:
        """Lets go of files and connections."""

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

    def __enter__(self) -> "VectorStore":
        return self

    def __exit__(self, *_) -> None:
        self.close()
