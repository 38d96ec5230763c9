"""What `datasets` calls for a batch of rows: look the recordings up, decode them, augment them."""

from collections.abc import Callable

import datasets
import numpy as np
import torch

from .feature_cache import decode_log_mel
from .pairs import SharedEpoch

AugmentAudio = Callable[[list[torch.Tensor], list[np.random.Generator]], list[torch.Tensor]]
AugmentText = Callable[[str, list[str], np.random.Generator], str]
AUDIO, TEXT = 0, 1  # streams of random numbers: what one augmentation draws never shifts the draws of the other


def recording_numbers(recordings: datasets.Dataset) -> np.ndarray:
    """[N] a number for each row of a recordings table, equal where the recording id is."""
    return np.unique(recordings["recording_id"][:], return_inverse=True)[1]


class RecordingTransform:
    """Evaluation: rows of a recordings table become log-mels with all their captions. Nothing is random."""

    def __init__(self, recordings: datasets.Dataset, n_mels: int):
        self.numbers = dict(zip(recordings["file_name"][:], recording_numbers(recordings).tolist(), strict=True))
        self.n_mels = n_mels

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        return {
            "log_mel": [decode_log_mel(encoded, self.n_mels) for encoded in rows["log_mel"]],
            "captions": rows["captions"],
            "recording_id": [self.numbers[name] for name in rows["file_name"]],
        }


class PairTransform:
    """
    Training: pairs become augmented log-mels, each with its one caption.

    Every draw is keyed by (seed, epoch, row id, audio or text): it is the same whatever the number of workers or
    processes, whatever else is in the batch, and after a resume; and a new one every epoch.

    Args:
        recordings: the recordings table.
        n_mels: mel bins of its log-mels.
        augment_audio: called with the log-mels of the batch and a generator for each, or `None`.
        augment_text: called with each caption, its back-translations and its generator, or `None`.
        seed: of all draws.
        epoch: which epoch it is.
    """

    def __init__(
        self,
        recordings: datasets.Dataset,
        n_mels: int,
        augment_audio: AugmentAudio | None,
        augment_text: AugmentText | None,
        seed: int,
        epoch: SharedEpoch,
    ):
        self.log_mels = recordings.select_columns(["log_mel"])
        self.numbers = recording_numbers(recordings)
        self.n_mels = n_mels
        self.augment_audio = augment_audio
        self.augment_text = augment_text
        self.seed = seed
        self.epoch = epoch

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        log_mels = [decode_log_mel(encoded, self.n_mels) for encoded in self.log_mels[rows["recording"]]["log_mel"]]
        captions = rows["caption"]
        if self.augment_audio is not None:
            log_mels = self.augment_audio(log_mels, self._generators(rows["row_id"], AUDIO))
        if self.augment_text is not None:
            variants = rows.get("back_translations") or [[]] * len(captions)
            generators = self._generators(rows["row_id"], TEXT)
            captions = [self.augment_text(*given) for given in zip(captions, variants, generators, strict=True)]
        return {
            "log_mel": log_mels,
            "captions": [[caption] for caption in captions],
            "recording_id": [int(self.numbers[row]) for row in rows["recording"]],
        }

    def _generators(self, row_ids: list[int], stream: int) -> list[np.random.Generator]:
        epoch = self.epoch.get()
        return [np.random.default_rng([self.seed, epoch, row, stream]) for row in row_ids]
