"""Training rows: pairs of a caption and a recording, and the sampler that orders them."""

import hashlib
from collections.abc import Iterator, Sequence

import datasets
import numpy as np
import torch
from torch.utils.data import Sampler

from ..augmentation.back_translation import BACK_TRANSLATION_COLUMN, back_translation_languages
from ..processing_cnn10bert import caption_words


class SharedEpoch:
    """The number of the current epoch, in memory that persistent data loader workers share with the trainer.

    An attribute that changes in the parent process never arrives in a worker.
    """

    def __init__(self):
        self._value = torch.zeros((), dtype=torch.int64).share_memory_()

    def set(self, epoch: int) -> None:
        self._value.fill_(epoch)

    def get(self) -> int:
        return int(self._value)


def caption_key(caption: str) -> int:
    """Return a signed 64-bit number that captions of the same words share, whatever their case and punctuation."""
    digest = hashlib.blake2b(" ".join(caption_words(caption)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def pair_rows(recordings: datasets.Dataset) -> datasets.Dataset:
    """
    One row a caption of a recordings table: `caption`, `recording` (row of the table), `length` (frames), `row_id`.

    Where the table has back-translations, `back_translations` holds those of the caption, one a language, the languages
    sorted; `None` for a recording that was added since they were made. Nothing of the recording is copied: the
    transform looks it up.
    """
    captions, rows, lengths = [], [], []
    columns = recordings.select_columns(["captions", "length"]).to_dict()
    for row, (texts, length) in enumerate(zip(columns["captions"], columns["length"], strict=True)):
        captions += texts
        rows += [row] * len(texts)
        lengths += [length] * len(texts)
    pairs = {"caption": captions, "recording": rows, "length": lengths, "row_id": range(len(captions))}
    if languages := back_translation_languages(recordings.column_names):
        names = [BACK_TRANSLATION_COLUMN.format(language=language) for language in languages]
        pairs["back_translations"] = _variants(recordings.select_columns(["captions", *names]).to_dict(), names)
    return datasets.Dataset.from_dict(pairs)


def _variants(columns: dict[str, list], names: list[str]) -> list[list[str | None]]:
    """For each caption of each recording, the text of each of the columns `names`."""
    flat: list[list[str | None]] = []
    for name in names:
        flat.append([])
        for row, (texts, captions) in enumerate(zip(columns[name], columns["captions"], strict=True)):
            if texts is not None and len(texts) != len(captions):
                raise ValueError(
                    f"row {row}: {name}: found {len(texts)} texts, expected {len(captions)}, one for each caption; "
                    "delete the column and run scripts/back_translate.py again"
                )
            flat[-1] += [None] * len(captions) if texts is None else texts
    return [list(texts) for texts in zip(*flat, strict=True)]


class PairSampler(Sampler[int]):
    """
    A random permutation of the pairs for every epoch, keyed by (seed, epoch): a resumed run goes on in the same order.

    With `group_by_length` the permutation is cut into pieces of `GROUP` batches, each sorted by length, so that the
    clips of a batch are of similar length and little is padded; the batches of a piece are shuffled again.

    With `captions_per_recording` of k, every k pairs in a row are of one recording, so that one pass through the audio
    network serves them all. Which captions come together is drawn anew every epoch.

    Only whole batches are drawn, and only k captions together: what is left over waits for another epoch.

    Args:
        lengths: [N] frames of each pair's recording, read before any transform runs.
        batch_size: pairs of one optimiser step, over all processes; a multiple of `captions_per_recording`.
        seed: of the permutations.
        epoch: which epoch it is.
        group_by_length: whether to batch clips of similar length.
        recordings: [N] number of each pair's recording; without it, no two pairs share one.
        captions_per_recording: pairs of one recording that come together.

    Raises:
        ValueError: fewer pairs to draw than a batch.
    """

    GROUP = 50

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        seed: int,
        epoch: SharedEpoch,
        group_by_length: bool = False,
        recordings: Sequence[int] | None = None,
        captions_per_recording: int = 1,
    ):
        self.lengths = np.asarray(lengths)
        self.recordings = np.arange(len(self.lengths)) if recordings is None else np.asarray(recordings)
        self.captions_per_recording = captions_per_recording
        together = np.bincount(self.recordings) // captions_per_recording * captions_per_recording
        self.num_batches = int(together.sum()) // batch_size
        if self.num_batches == 0:
            raise ValueError(f"found {together.sum()} training examples, expected at least one batch of {batch_size}")
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = epoch
        self.group_by_length = group_by_length

    def __len__(self) -> int:
        return self.num_batches * self.batch_size

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch.get()])
        units = self._units(rng)
        order = units[rng.permutation(len(units))].reshape(-1)[: len(self)]
        if self.group_by_length:
            order = self._grouped(order, rng)
        return iter(order.tolist())

    def _units(self, rng: np.random.Generator) -> np.ndarray:
        """[n, k] pairs, each row of one recording."""
        k = self.captions_per_recording
        if k == 1:
            return np.arange(len(self.lengths))[:, None]
        pairs = rng.permutation(len(self.lengths))
        pairs = pairs[np.argsort(self.recordings[pairs], kind="stable")]  # by recording, at random within each
        counts = np.bincount(self.recordings)
        position = np.arange(len(pairs)) - np.repeat(counts.cumsum() - counts, counts)
        return pairs[position < np.repeat(counts // k * k, counts)].reshape(-1, k)

    def _grouped(self, order: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        batches = []
        for start in range(0, len(order), self.GROUP * self.batch_size):
            units = order[start : start + self.GROUP * self.batch_size].reshape(-1, self.captions_per_recording)
            units = units[np.argsort(self.lengths[units[:, 0]], kind="stable")].reshape(-1, self.batch_size)
            batches.append(units[rng.permutation(len(units))].reshape(-1))
        return np.concatenate(batches)
