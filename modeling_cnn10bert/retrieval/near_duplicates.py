"""Recordings of an index that are the same, or nearly: copies, other formats of one recording, trimmed ones."""

import collections
import dataclasses
import math
from collections.abc import Iterable, Iterator

import numpy as np

from ..errors import RetrievalError
from .records import EmbeddedFile, FileRecord, SearchFilter
from .stores import VectorStore

THRESHOLD = 0.998  # finds other formats of a recording, and rarely errs (docs/notes.md)
MAX_SHIFT = 0.5  # seconds by which the durations of near duplicates may differ, and their windows be shifted;
MAX_STRETCH = 0.05  # or this share of the duration, if that is more
FIRST_LIMIT = 16  # windows looked up at first for each recording


@dataclasses.dataclass(frozen=True)
class DuplicateGroup:
    """
    Recordings of which one might be enough.

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
    Groups of recordings with the same bytes, or of about the same duration and with nearly the same embeddings.

    Each recording's first window is searched for in the store, so that the time grows with the number of recordings
    and not with its square; of a pair that is found, every window must be as close to the other's. A group holds what
    is joined by such pairs, whose ends may be less close to each other. It is a suggestion: listen before you delete.

    Args:
        store: the index.
        threshold: least cosine of two near duplicates; 1 or more for the same bytes only.

    Returns:
        The groups, the largest first.

    Raises:
        RetrievalError: the threshold is no number.
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
    """Path, path and similarity of near duplicates; of recordings with the same bytes only one is compared."""
    copies = {path for same in _same_bytes(records.values()) for path in same[1:]}
    for file in store.embedded():
        path = file.record.path
        if path not in records or path in copies or not len(file.embeds) or not math.isfinite(file.record.duration):
            continue
        found = [other for other in _candidates(store, file, threshold) if other in records and other not in copies]
        # A pair is met from both sides, but only an exact search finds it from both: it is looked at twice.
        for other in store.embedded(found) if found else ():
            # The lowest cosine of windows at the same place; of the longer one, a last window may be without partner.
            count = min(len(file.embeds), len(other.embeds))
            if max(len(file.embeds), len(other.embeds)) > count + 1:
                continue
            similarity = float(np.einsum("wd,wd->w", file.embeds[:count], other.embeds[:count]).min())
            if similarity >= threshold:
                yield path, other.record.path, similarity


def _candidates(store: VectorStore, file: EmbeddedFile, threshold: float) -> set[str]:
    """Paths of other recordings of about its duration whose beginning is close to its beginning."""
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
        self._similarity: dict[str, float] = {}  # of a component, by its root

    def join(self, one: str, other: str, similarity: float) -> None:
        first, second = self._root(one), self._root(other)
        lowest = min(self._similarity.pop(first, 1.0), self._similarity.pop(second, 1.0))
        self._parent[second] = first
        # A pair within a component does not loosen it: the first that joined them does.
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
