"""What `datasets` calls for a batch of rows: look the recordings up, decode them, augment them."""

from collections.abc import Callable

import datasets
import numpy as np
import torch

from ..feature_extraction_cnn10bert import CNN10FeatureExtractor
from .feature_cache import decode_log_mel
from .pairs import SharedEpoch
from .recordings_table import log_mel_of_audio

Augment = Callable[[list[torch.Tensor], list[np.random.Generator]], list[torch.Tensor]]


def recording_numbers(recordings: datasets.Dataset) -> np.ndarray:
    """[N] a number for each row of a recordings table, equal where the recording id is."""
    return np.unique(recordings["recording_id"][:], return_inverse=True)[1]


class LogMelReader:
    """
    Rows of a recordings table become log-mels: decoded from the cache, or computed where the table has `audio` instead.

    Args:
        recordings: the recordings table.
        n_mels: mel bins of its log-mels.
        feature_extractor: computes what is not cached.
    """

    def __init__(self, recordings: datasets.Dataset, n_mels: int, feature_extractor: CNN10FeatureExtractor | None):
        self.column = "log_mel" if "log_mel" in recordings.column_names else "audio"
        self.n_mels = n_mels
        self.feature_extractor = feature_extractor

    def __call__(self, rows: dict[str, list]) -> list[torch.Tensor]:
        """Columns of the table -> [T_i, n_mels] in dB of each row."""
        if self.column == "log_mel":
            return [decode_log_mel(encoded, self.n_mels) for encoded in rows["log_mel"]]
        return [log_mel_of_audio(audio, self.feature_extractor) for audio in rows["audio"]]


class RecordingTransform:
    """Evaluation: rows of a recordings table become log-mels with all their captions. Nothing is random."""

    def __init__(
        self, recordings: datasets.Dataset, n_mels: int, feature_extractor: CNN10FeatureExtractor | None = None
    ):
        self.read = LogMelReader(recordings, n_mels, feature_extractor)
        self.numbers = dict(zip(recordings["file_name"][:], recording_numbers(recordings).tolist(), strict=True))

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        return {
            "log_mel": self.read(rows),
            "captions": rows["captions"],
            "recording_id": [self.numbers[name] for name in rows["file_name"]],
        }


class PairTransform:
    """
    Training: pairs become augmented log-mels, each with its one caption.

    Every draw is keyed by (seed, epoch, row id): it is the same whatever the number of workers or processes, whatever
    else is in the batch, and after a resume; and a new one every epoch.

    Args:
        recordings: the recordings table.
        n_mels: mel bins of its log-mels.
        augment: called with the log-mels of the batch and a generator for each, or `None`.
        seed: of all draws.
        epoch: which epoch it is.
        feature_extractor: computes the log-mels that the table has not.
    """

    def __init__(
        self,
        recordings: datasets.Dataset,
        n_mels: int,
        augment: Augment | None,
        seed: int,
        epoch: SharedEpoch,
        feature_extractor: CNN10FeatureExtractor | None = None,
    ):
        self.read = LogMelReader(recordings, n_mels, feature_extractor)
        self.log_mels = recordings.select_columns([self.read.column])
        self.numbers = recording_numbers(recordings)
        self.augment = augment
        self.seed = seed
        self.epoch = epoch

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        log_mels = self.read(self.log_mels[rows["recording"]])
        if self.augment is not None:
            key = [self.seed, self.epoch.get()]
            log_mels = self.augment(log_mels, [np.random.default_rng([*key, row]) for row in rows["row_id"]])
        return {
            "log_mel": log_mels,
            "captions": [[caption] for caption in rows["caption"]],
            "recording_id": [int(self.numbers[row]) for row in rows["recording"]],
        }
