"""Find near duplicates in an index: copies, other formats of a recording, and trimmed versions."""

import collections
import dataclasses
import math
from collections.abc import Iterable, Iterator

import numpy as np

from ..errors import RetrievalError
from .records import EmbeddedFile, FileRecord, SearchFilter
from .stores import VectorStore

THRESHOLD = 0.998  # finds other formats of a recording, and rarely errs (docs/notes.md)
MAX_SHIFT = 0.5  # near duplicates may differ by so many seconds in duration and in the position of their windows,
MAX_STRETCH = 0.05  # or by this share of the duration, if that is more
FIRST_LIMIT = 16  # windows in the first lookup of each recording


@dataclasses.dataclass(frozen=True)
class DuplicateGroup:
    """
    A group of near duplicates.

    Attributes:
        files: at least two, the longest first, then by path.
        identical: whether all have the same bytes.
        similarity: the lowest cosine among the pairs that hold the group together; 1 for identical ones.
    """

    files: tuple[FileRecord, ...]
    identical: bool
    similarity: float


def find_near_duplicates(store: VectorStore, threshold: float = THRESHOLD) -> list[DuplicateGroup]:
    """
    Find groups of recordings with the same bytes, or with similar durations and embeddings.

    The first window of each recording is searched for in the store, so the time grows with the number of recordings
    and not with its square. All windows of a pair must be as close as their first ones. A group is a connected
    component of such pairs, so two of its members may be less similar. It is a suggestion: listen before you delete.

    Args:
        store: the index.
        threshold: minimum cosine of two near duplicates; 1 or more for the same bytes only.

    Returns:
        The groups, the largest first.

    Raises:
        RetrievalError: the threshold is not a number.
    """
    if math.isnan(threshold):
        raise RetrievalError(f"threshold: found {threshold}, expected a cosine, a number from -1 to 1")
    records = store.files()
    groups = _Groups()
    for paths in _same_bytes(records.values()):
        for path in paths[1:]:
            groups.join(paths[0], path, 1.0)
    if threshold < 1:
        for one, other, similarity in _close_pairs(store, records, threshold):
            groups.join(one, other, similarity)
    found = []
    for paths, similarity in groups.members():
        files = sorted((records[path] for path in paths), key=lambda record: (-record.duration, record.path))
        identical = len({record.content_hash for record in files}) == 1
        found.append(DuplicateGroup(tuple(files), identical, similarity))
    return sorted(found, key=lambda group: (-len(group.files), -group.similarity, group.files[0].path))


def _same_bytes(records: Iterable[FileRecord]) -> list[list[str]]:
    paths = collections.defaultdict(list)
    for record in records:
        paths[record.content_hash].append(record.path)
    return [sorted(same) for same in paths.values() if len(same) > 1]


def _close_pairs(
    store: VectorStore, records: dict[str, FileRecord], threshold: float
) -> Iterator[tuple[str, str, float]]:
    """Yield path, path and similarity of near duplicates; only one of several identical recordings is compared."""
    copies = {path for same in _same_bytes(records.values()) for path in same[1:]}
    for file in store.embedded():
        path = file.record.path
        if path not in records or path in copies or not len(file.embeds) or not math.isfinite(file.record.duration):
            continue
        found = [other for other in _candidates(store, file, threshold) if other in records and other not in copies]
        # Only an exact search is certain to find a pair from both sides, so pairs are looked at twice.
        for other in store.embedded(found) if found else ():
            # The lowest cosine of windows at the same position; the longer recording may have one window more.
            count = min(len(file.embeds), len(other.embeds))
            if max(len(file.embeds), len(other.embeds)) > count + 1:
                continue
            similarity = float(np.einsum("wd,wd->w", file.embeds[:count], other.embeds[:count]).min())
            if similarity >= threshold:
                yield path, other.record.path, similarity


def _candidates(store: VectorStore, file: EmbeddedFile, threshold: float) -> set[str]:
    """Return the paths of recordings with a similar duration and beginning."""
    shift = max(MAX_SHIFT, MAX_STRETCH * file.record.duration)
    where = SearchFilter(min_duration=file.record.duration - shift, max_duration=file.record.duration + shift)
    limit = FIRST_LIMIT
    while True:
        hits, complete = store.search_windows(file.embeds[0], limit, where)
        if complete or not hits or hits[-1].score < threshold:
            break
        limit *= 4
    close = {hit.record.path for hit in hits if hit.score >= threshold and hit.start <= shift}
    return close - {file.record.path}


class _Groups:
    """Connected components of paths."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}
        self._similarity: dict[str, float] = {}  # root of a component -> its similarity

    def join(self, one: str, other: str, similarity: float) -> None:
        first, second = self._root(one), self._root(other)
        lowest = min(self._similarity.pop(first, 1.0), self._similarity.pop(second, 1.0))
        self._parent[second] = first
        # A pair within one component does not change its similarity; a pair that joins two does.
        self._similarity[first] = lowest if first == second else min(lowest, similarity)

    def members(self) -> list[tuple[list[str], float]]:
        components = collections.defaultdict(list)
        for path in self._parent:
            components[self._root(path)].append(path)
        return [(paths, self._similarity[root]) for root, paths in components.items()]

    def _root(self, path: str) -> str:
        self._parent.setdefault(path, path)
        while self._parent[path] != path:
            self._parent[path] = path = self._parent[self._parent[path]]
        return path
