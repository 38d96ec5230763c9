"""What a source of recordings lists, and how one recording becomes a row of a prepared data set."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

import datasets
import numpy as np

from .audio_io import AudioError, decode_audio, encode_audio, load_audio

SAMPLING_RATE = 32_000  # Hz, of every prepared recording
FORMAT = 1  # raise it when the meaning of a prepared row changes, so that no older one is taken for whole
SILENCE = 1e-4  # -80 dB of full scale: nothing above it, and a recording is silent
MIN_SECONDS = 0.15  # 16 frames at hop 320: the feature extractor fills up what is shorter

# `datasets.Audio` stores the same, but its decoding needs torchcodec.
AUDIO_FEATURE = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
ROW_FEATURES = {
    "file_name": datasets.Value("string"),
    "recording_id": datasets.Value("string"),  # unique over the splits
    "audio": AUDIO_FEATURE,  # one channel at SAMPLING_RATE
    "duration": datasets.Value("float32"),  # seconds
}


class PreparationError(ValueError):
    """A data set cannot be prepared; the message says what was found, what was expected and what to do."""


@dataclasses.dataclass(frozen=True)
class StoredAudio:
    """The recording in a column of a data set: `{"bytes", "path"}`, or a path."""

    dataset: datasets.Dataset
    row: int
    column: str

    def load(self, name: str, sampling_rate: int = SAMPLING_RATE) -> np.ndarray:
        value = self.dataset[self.row][self.column]
        if isinstance(value, str):
            return load_audio(value, sampling_rate)
        if value is None or (value["bytes"] is None and value["path"] is None):
            raise AudioError(f"{name}: found neither bytes nor a path, expected a recording; leave it out")
        if value["bytes"] is None:
            return load_audio(value["path"], sampling_rate)
        return decode_audio(value["bytes"], sampling_rate, name)

    def stamp(self) -> tuple:
        return (self.dataset._fingerprint, self.row, self.column)


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """
    One recording of a source.

    Attributes:
        file_name: unique within its split.
        audio: where the recording is; `None` where it is not at hand.
        columns: what else the row holds, such as captions and metadata.
        absence: why `audio` is `None`: what was looked for, and where.
    """

    file_name: str
    audio: pathlib.Path | StoredAudio | None
    columns: Mapping[str, Any]
    absence: str = ""

    def stamp(self) -> str:
        """Changes with anything the row depends on; of a recording, its name, size and time of modification."""
        source: tuple = ("absent",)
        if isinstance(self.audio, StoredAudio):
            source = self.audio.stamp()
        elif self.audio is not None and self.audio.is_file():
            stat = self.audio.stat()
            source = (self.audio.name, stat.st_size, stat.st_mtime_ns)
        content = (FORMAT, SAMPLING_RATE, self.file_name, sorted(self.columns.items()), source)
        return hashlib.sha256(repr(content).encode()).hexdigest()[:24]


def prepare_entry(entry: Entry, split: str) -> tuple[dict[str, Any], str]:
    """
    One row of `ROW_FEATURES` and the entry's columns, and a warning, empty where there is nothing to warn of.

    Raises:
        AudioError: the recording is absent or cannot be used.
    """
    if entry.audio is None:
        raise AudioError(entry.absence)
    stored = isinstance(entry.audio, StoredAudio)
    waveform = entry.audio.load(entry.file_name) if stored else load_audio(entry.audio, SAMPLING_RATE)
    row = {
        "file_name": entry.file_name,
        "recording_id": f"{split}/{entry.file_name}",
        "audio": {"bytes": encode_audio(waveform, SAMPLING_RATE), "path": entry.file_name},
        "duration": len(waveform) / SAMPLING_RATE,
        **entry.columns,
    }
    return row, _warning(waveform)


def _warning(waveform: np.ndarray) -> str:
    warnings = []
    if (peak := np.abs(waveform).max()) < SILENCE:
        warnings.append(f"silent: no sample above {peak:.1g} of full scale")
    if (seconds := len(waveform) / SAMPLING_RATE) < MIN_SECONDS:
        warnings.append(f"very short: {seconds:.3f} s, less than the {MIN_SECONDS} s that the model needs at least")
    return "; ".join(warnings)
