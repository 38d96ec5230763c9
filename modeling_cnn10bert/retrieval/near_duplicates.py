"""Find near duplicates in an index: copies, other formats of a recording, and trimmed versions."""

import collections
import dataclasses
import math
from collections.abc import Iterator

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
        files: at least two, the longest first, then by path. Each was compared with the first.
        identical: whether all have the same bytes.
        similarity: the lowest cosine of the first and another one; 1 for identical ones.
    """

    files: tuple[FileRecord, ...]
    identical: bool
    similarity: float


def find_near_duplicates(store: VectorStore, threshold: float = THRESHOLD) -> list[DuplicateGroup]:
    """
    Find groups of recordings with the same bytes, or with similar durations and embeddings.

    The first window of each recording is searched for in the store, so the time grows with the number of recordings
    and not with its square. All windows of a pair must be as close as their first ones. A group is a recording with
    those close to it, so that no chain of pairs joins different ones. The longest recordings are the first to gather
    a group, and no recording is in two. A group is a suggestion: listen before you delete.

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
    order = sorted(records.values(), key=lambda record: (-record.duration, record.path))
    copies = collections.defaultdict(list)  # content hash -> records with these bytes
    for record in order:
        copies[record.content_hash].append(record)
    close: dict[str, dict[str, float]] = collections.defaultdict(dict)  # path -> path -> similarity
    if threshold < 1:
        distinct = {same[0].path: same[0] for same in copies.values()}
        for one, other, similarity in _close_pairs(store, distinct, threshold):
            close[one][other] = close[other][one] = similarity
    found, grouped = [], set()
    for center in order:
        if center.content_hash in grouped:
            continue
        members = {
            records[path].content_hash: similarity
            for path, similarity in close[center.path].items()
            if records[path].content_hash not in grouped
        }
        grouped |= {center.content_hash, *members}
        rest = [record for digest in members for record in copies[digest]]
        files = sorted(copies[center.content_hash] + rest, key=lambda record: (-record.duration, record.path))
        if len(files) > 1:
            found.append(DuplicateGroup(tuple(files), not members, min(members.values(), default=1.0)))
    return sorted(found, key=lambda group: (-len(group.files), -group.similarity, group.files[0].path))


def _close_pairs(
    store: VectorStore, records: dict[str, FileRecord], threshold: float
) -> Iterator[tuple[str, str, float]]:
    """Yield path, path and similarity of near duplicates among these recordings."""
    for file in store.embedded():
        path = file.record.path
        if path not in records or not len(file.embeds) or not math.isfinite(file.record.duration):
            continue
        found = [other for other in _candidates(store, file, threshold) if other in records]
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
