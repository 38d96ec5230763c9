"""What `datasets` calls for a batch of rows: look the recordings up, decode them, augment them."""

from collections.abc import Callable

import datasets
import numpy as np
import torch

from ..feature_extraction_cnn10bert import CNN10FeatureExtractor
from .features import decode_log_mel, decode_row_audio
from .pairs import SharedEpoch, caption_key

AugmentAudio = Callable[[list[torch.Tensor], list[np.random.Generator]], list[torch.Tensor]]
AugmentText = Callable[[str, list[str], np.random.Generator], str]
AUDIO, TEXT = 0, 1  # streams of random numbers: what one augmentation draws never shifts the draws of the other


def recording_numbers(recordings: datasets.Dataset) -> np.ndarray:
    """[N] a number for each row of a recordings table, equal where the recording id is."""
    return np.unique(recordings["recording_id"][:], return_inverse=True)[1]


class LogMelReader:
    """
    Rows of a recordings table become log-mels: decoded from the cache, or computed where the table has `audio` instead.

    Args:
        recordings: the recordings table.
        feature_extractor: computed what is cached, and computes what is not.
    """

    def __init__(self, recordings: datasets.Dataset, feature_extractor: CNN10FeatureExtractor):
        self.column = "log_mel" if "log_mel" in recordings.column_names else "audio"
        self.feature_extractor = feature_extractor

    def __call__(self, rows: dict[str, list]) -> list[torch.Tensor]:
        """Columns of the table -> [T_i, n_mels] in dB of each row."""
        if self.column == "log_mel":
            return [decode_log_mel(encoded, self.feature_extractor.feature_size) for encoded in rows["log_mel"]]
        waveforms = (decode_row_audio(audio, self.feature_extractor.sampling_rate) for audio in rows["audio"])
        return [self.feature_extractor.log_mel(waveform) for waveform in waveforms]


class RecordingTransform:
    """Evaluation: rows of a recordings table become log-mels with all their captions. Nothing is random."""

    def __init__(self, recordings: datasets.Dataset, feature_extractor: CNN10FeatureExtractor):
        self.read = LogMelReader(recordings, feature_extractor)
        self.numbers = dict(zip(recordings["file_name"][:], recording_numbers(recordings).tolist(), strict=True))

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        return {
            "log_mel": self.read(rows),
            "captions": rows["captions"],
            "caption_keys": [[caption_key(caption) for caption in captions] for captions in rows["captions"]],
            "recording_id": [self.numbers[name] for name in rows["file_name"]],
        }


class PairTransform:
    """
    Training: pairs become augmented log-mels, each with its caption.

    With `captions_per_recording` of k, every k pairs in a row, which a `PairSampler` takes from one recording, become
    one log-mel with k captions; it is augmented as that of the first pair.

    `caption_keys` are those of the captions before augmentation.

    Every draw is keyed by (seed, epoch, row id, audio or text): it is the same whatever the number of workers or
    processes, whatever else is in the batch, and after a resume; and a new one every epoch.

    Args:
        recordings: the recordings table.
        feature_extractor: computed its log-mels, or computes them where it has none.
        augment_audio: called with the log-mels of the batch and a generator for each, or `None`.
        augment_text: called with each caption, its back-translations and its generator, or `None`.
        seed: of all draws.
        epoch: which epoch it is.
        captions_per_recording: pairs that share a log-mel.
    """

    def __init__(
        self,
        recordings: datasets.Dataset,
        feature_extractor: CNN10FeatureExtractor,
        augment_audio: AugmentAudio | None,
        augment_text: AugmentText | None,
        seed: int,
        epoch: SharedEpoch,
        captions_per_recording: int = 1,
    ):
        self.read = LogMelReader(recordings, feature_extractor)
        self.log_mels = recordings.select_columns([self.read.column])
        self.numbers = recording_numbers(recordings)
        self.augment_audio = augment_audio
        self.augment_text = augment_text
        self.seed = seed
        self.epoch = epoch
        self.captions_per_recording = captions_per_recording

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        k = self.captions_per_recording
        recordings = rows["recording"][::k]
        log_mels = self.read(self.log_mels[recordings])
        captions = rows["caption"]
        keys = [caption_key(caption) for caption in captions]
        if self.augment_audio is not None:
            log_mels = self.augment_audio(log_mels, self._generators(rows["row_id"][::k], AUDIO))
        if self.augment_text is not None:
            variants = rows.get("back_translations") or [[]] * len(captions)
            generators = self._generators(rows["row_id"], TEXT)
            captions = [self.augment_text(*given) for given in zip(captions, variants, generators, strict=True)]
        return {
            "log_mel": log_mels,
            "captions": [captions[first : first + k] for first in range(0, len(captions), k)],
            "caption_keys": [keys[first : first + k] for first in range(0, len(keys), k)],
            "recording_id": [int(self.numbers[row]) for row in recordings],
        }

    def _generators(self, row_ids: list[int], stream: int) -> list[np.random.Generator]:
        epoch = self.epoch.get()
        return [np.random.default_rng([self.seed, epoch, row, stream]) for row in row_ids]
