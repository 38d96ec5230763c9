"""
Find near duplicates in an index: copies, other formats of a recording, copies at another level and trimmed versions.

Recordings that share a word of their audio fingerprints are candidates, and the alignment of the fingerprints decides
(`alignment.py`). Embeddings are not used: different recordings of rain are as close by them as copies are.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from tqdm.auto import tqdm

from ..data.audio_io import load_audio
from ..errors import AudioError, RetrievalError
from .alignment import SAMPLING_RATE, Fingerprint, align, fingerprint
from .records import FileRecord
from .stores import VectorStore

THRESHOLD = 0.5  # finds copies, and joins no different recordings (docs/notes.md)
MAX_SHIFT = 0.5  # near duplicates may differ by so many seconds in duration and in where they begin,
MAX_STRETCH = 0.05  # or by this share of the duration, if that is more


@dataclasses.dataclass(frozen=True)
class DuplicateGroup:
    """
    A group of near duplicates.

    Attributes:
        files: at least two. The first is the longest, and each was compared with it.
        identical: whether all have the same bytes.
        similarity: the lowest similarity of the first and another one (see `align`); 1 for identical ones.
    """

    files: tuple[FileRecord, ...]
    identical: bool
    similarity: float


def find_near_duplicates(
    store: VectorStore, threshold: float = THRESHOLD, progress: bool = False, notes: list[str] | None = None
) -> list[DuplicateGroup]:
    """
    Find groups of recordings with the same bytes, or with similar durations and fingerprints.

    Every recording is decoded once, so the time grows with the hours of sound. A group is a recording with those close
    to it, so that no chain of pairs joins different ones. The longest recordings are the first to gather a group, and
    no recording is in two. A group is a suggestion: listen before you delete.

    Args:
        store: the index.
        threshold: minimum similarity of two near duplicates, as of `align`; 1 or more for the same bytes only.
        progress: whether to show a progress bar in a terminal.
        notes: a list that receives a line for each recording that cannot be read now. Only its bytes are compared.

    Returns:
        The groups, the largest first.

    Raises:
        RetrievalError: the threshold is not a number, or so low that different recordings reach it.
    """
    if math.isnan(threshold) or threshold <= 0:
        raise RetrievalError(
            f"threshold: found {threshold}, expected a similarity above 0 (different recordings) and up to 1"
        )
    copies = collections.defaultdict(list)  # content hash -> records with these bytes, the longest recording first
    for record in sorted(store.files().values(), key=_longest_first):
        copies[record.content_hash].append(record)
    close: dict[str, dict[str, float]] = collections.defaultdict(dict)  # content hash -> content hash -> similarity
    if threshold < 1:
        fingerprints = _fingerprints(copies, progress, notes)
        hashes = list(fingerprints)
        lengths = np.array([_length(copies[content][0]) for content in hashes])
        for first, second in _candidates(list(fingerprints.values()), lengths):
            one, other = hashes[first], hashes[second]
            max_shift = float(_max_shift(lengths[first]))
            if lengths[first] - lengths[second] > max_shift:
                continue
            similarity, _ = align(fingerprints[one], fingerprints[other], max_shift)
            if similarity >= threshold:
                close[one][other] = close[other][one] = similarity
    found, grouped = [], set()
    for center, same in copies.items():
        if center in grouped:
            continue
        members = {content: close[center][content] for content in close[center] if content not in grouped}
        grouped |= {center, *members}
        rest = [record for content in members for record in copies[content]]
        files = (*same, *sorted(rest, key=_longest_first))
        if len(files) > 1:
            found.append(DuplicateGroup(files, not members, min(members.values(), default=1.0)))
    return sorted(found, key=lambda group: (-len(group.files), -group.similarity, group.files[0].path))


def _length(record: FileRecord) -> float:
    """Return the duration in seconds, 0 for one that is no number."""
    return record.duration if math.isfinite(record.duration) else 0.0


def _longest_first(record: FileRecord) -> tuple[float, str]:
    return -_length(record), record.path


def _max_shift(length: float | np.ndarray) -> np.ndarray:
    return np.maximum(MAX_SHIFT, MAX_STRETCH * length)


def _fingerprints(
    copies: Mapping[str, Sequence[FileRecord]], progress: bool, notes: list[str] | None
) -> dict[str, Fingerprint]:
    """Return content hash -> fingerprint, in the same order, of the recordings that can be read."""
    found = {}
    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())  # decoding and transforms release Python's lock
    try:
        jobs = {content: pool.submit(_fingerprint_of_any, same) for content, same in copies.items()}
        bar = tqdm(jobs.items(), desc="Comparing", unit=" files", disable=None if progress else True)
        for content, job in bar:
            try:
                found[content] = job.result()
            except AudioError as error:
                if notes is not None:
                    notes.append(str(error))
    finally:
        pool.shutdown(cancel_futures=True)
    return found


def _fingerprint_of_any(same: Sequence[FileRecord]) -> Fingerprint:
    """Read the first recording with the same bytes that can be read, or raise the `AudioError` of the last one."""
    for record in same[:-1]:
        with contextlib.suppress(AudioError):
            return fingerprint(load_audio(record.path, SAMPLING_RATE))
    return fingerprint(load_audio(same[-1].path, SAMPLING_RATE))


def _candidates(fingerprints: Sequence[Fingerprint], lengths: np.ndarray) -> Iterator[tuple[int, int]]:
    """
    Yield the pairs of numbers of fingerprints that share words, the smaller number first.

    Of the fingerprints with one word and similar lengths, only the longest is paired with the others, so that many
    copies of a recording give few pairs.

    Args:
        fingerprints: [N], the longest recording first.
        lengths: [N] in seconds.
    """
    distinct = [np.unique(one.words[one.sounding]) for one in fingerprints]
    words = np.concatenate([np.zeros(0, np.uint32), *distinct])
    numbers = np.repeat(np.arange(len(distinct)), [one.size for one in distinct])
    order = np.argsort(words, kind="stable")
    words, numbers = words[order], numbers[order]
    # The rows where a group begins: one of another word, or of recordings that are much shorter than the one before.
    lengths = lengths[numbers]
    is_first = np.ones(words.size, bool)
    is_first[1:] = (words[1:] != words[:-1]) | (lengths[:-1] - lengths[1:] > _max_shift(lengths[:-1]))
    firsts = numbers[np.maximum.accumulate(np.where(is_first, np.arange(words.size), 0))]
    pairs = np.unique(np.stack([firsts, numbers], axis=1)[~is_first], axis=0)
    yield from ((int(first), int(second)) for first, second in pairs)
