"""Hard negatives: recordings that are easily taken for another one, for batches that hold both (see `PairSampler`).

Random negatives of a small batch rarely have the sounds of a recording in another order, so the model never has to
hear it. The events of soundscapes tell which recordings differ in it; for other recordings their captions do.
"""

import collections
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import datasets
import numpy as np
import torch

from ..processing_cnn10bert import caption_words
from .pairs import caption_key
from .recipes.soundscapes import Scene, sound_of

REARRANGED_SHARE = 0.6  # of the draws, where there are both kinds of hard negatives
NEAREST = 10  # recordings by their captions, among which a hard negative is drawn


@dataclass
class HardNegatives:
    """
    Hold the hard negatives of every recording of a table.

    Args:
        groups: [N] group of each recording. Recordings of a group have the same hard negatives.
        rearranged: for each group, the recordings of the same sounds in another arrangement.
        similar: for each group, the recordings that share all but one of the sounds, or that have similar captions.
    """

    groups: np.ndarray
    rearranged: Sequence[np.ndarray]
    similar: Sequence[np.ndarray]

    def draw(self, recording: int, rng: np.random.Generator) -> int | None:
        """Draw a hard negative of a recording; return its row in the table, or `None` if there is none."""
        rearranged, similar = self.rearranged[self.groups[recording]], self.similar[self.groups[recording]]
        takes_rearranged = rng.random() < REARRANGED_SHARE
        rows = rearranged if len(rearranged) and (takes_rearranged or not len(similar)) else similar
        return int(rows[rng.integers(len(rows))]) if len(rows) else None


def arrangement(scene: Scene) -> tuple[tuple[str, str, bool], ...]:
    """
    Describe which of a scene's sounds come before which others.

    Returns:
        For every two events, in the order of their onsets, their sounds and whether the first ends before the second
        begins. Scenes of the same sounds and arrangement fit the same captions.
    """
    events = sorted(scene.events, key=lambda event: event.onset)
    pairs = []
    for position, first in enumerate(events):
        for second in events[position + 1 :]:
            ends_before = first.onset + (first.end - first.start) <= second.onset
            sounds = sound_of(first.source), sound_of(second.source)
            pairs.append((*(sounds if ends_before else sorted(sounds)), ends_before))
    return tuple(sorted(pairs))


def hard_negatives_of_scenes(scenes: Sequence[Scene], recordings: datasets.Dataset) -> HardNegatives:
    """
    Find the hard negatives of soundscapes by their events.

    Args:
        scenes: of the training manifest.
        recordings: their recordings table; all renderings of a scene have its id.
    """
    rows_of_scene = collections.defaultdict(list)
    for row, name in enumerate(recordings["recording_id"][:]):
        rows_of_scene[name].append(row)
    # Scenes are grouped by their sounds (with repetitions) and their arrangement.
    rows: dict[tuple[str, ...], dict[tuple, list[int]]] = {}
    for scene in scenes:
        sounds = tuple(sorted(sound_of(event.source) for event in scene.events))
        rows.setdefault(sounds, {}).setdefault(arrangement(scene), []).extend(rows_of_scene[scene.id])

    groups = np.zeros(len(recordings), dtype=np.int64)
    rearranged: list[np.ndarray] = []
    similar: list[np.ndarray] = []
    for sounds, arrangements in rows.items():
        others = [other for other in rows if _differ_in_one(sounds, other)]
        of_others = _joined(members for other in others for members in rows[other].values())
        for kind, members in arrangements.items():
            groups[members] = len(similar)
            rearranged.append(_joined(others for other, others in arrangements.items() if other != kind))
            similar.append(of_others)
    return HardNegatives(groups, rearranged, similar)


def _joined(lists: Iterable[list[int]]) -> np.ndarray:
    return np.array([row for rows in lists for row in rows], dtype=np.int64)


def _differ_in_one(sounds: Sequence[str], others: Sequence[str]) -> bool:
    """Tell whether two lists of sounds share some, and all but one of the longer list."""
    shared = (collections.Counter(sounds) & collections.Counter(others)).total()
    return shared > 0 and max(len(sounds), len(others)) - shared == 1


def hard_negatives_of_captions(recordings: datasets.Dataset) -> HardNegatives:
    """
    Find the hard negatives of recordings by their captions: the `NEAREST` others by the cosine of their words.

    The words of all captions of a recording count together, weighted by TF-IDF. Recordings that share a caption, word
    by word, are not hard negatives of each other, since each caption fits both.
    """
    captions, names = recordings["captions"][:], np.array(recordings["recording_id"][:])
    words = [collections.Counter(word for text in texts for word in caption_words(text)) for texts in captions]
    document_counts = collections.Counter(word for counts in words for word in counts)
    columns = {word: column for column, word in enumerate(sorted(document_counts))}
    vectors = torch.zeros(len(words), len(columns))
    for row, counts in enumerate(words):
        for word, count in counts.items():
            vectors[row, columns[word]] = count * math.log(len(words) / document_counts[word])
    vectors = torch.nn.functional.normalize(vectors, dim=1)

    recordings_of_caption = collections.defaultdict(set)
    for row, texts in enumerate(captions):
        for text in texts:
            recordings_of_caption[caption_key(text)].add(row)
    similar = []
    for row, texts in enumerate(captions):
        similarities = vectors @ vectors[row]
        same = set().union(*(recordings_of_caption[caption_key(text)] for text in texts))
        similarities[[*same, *np.flatnonzero(names == names[row])]] = -1
        nearest = similarities.topk(min(NEAREST, len(words)))
        similar.append(nearest.indices[nearest.values > 0].numpy())
    none = np.array([], dtype=np.int64)
    return HardNegatives(np.arange(len(words)), [none] * len(words), similar)
