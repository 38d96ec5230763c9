"""Entries of a source of recordings, each of which becomes a row of a prepared data set."""

import dataclasses
import hashlib
import io
import pathlib
from collections.abc import Mapping
from typing import Any

import datasets
import numpy as np
import soundfile

from ..errors import AudioError
from .audio_io import decode_audio, encode_audio, load_audio

SAMPLING_RATE = 32_000  # Hz, of every prepared recording
FORMAT = 1  # raise it when the meaning of a prepared row changes, so that no older one is taken for whole
SILENCE = 1e-4  # -80 dB of full scale; a recording with nothing above it is silent
MIN_SECONDS = 0.15  # 16 frames at hop 320: the feature extractor pads shorter recordings

CAPTIONS = datasets.List(datasets.Value("string"))
# How a recording is stored. Earlier versions declared it as just this, not as `Audio`, whose decoding needs torchcodec.
STORED_AUDIO = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
ROW_FEATURES = {
    "file_name": datasets.Value("string"),
    "recording_id": datasets.Value("string"),  # unique over the splits
    "audio": datasets.Audio(sampling_rate=SAMPLING_RATE),  # one channel
    "duration": datasets.Value("float32"),  # seconds
}


@dataclasses.dataclass(frozen=True)
class StoredAudio:
    """A recording in a column of a data set: `{"bytes", "path"}`, `{"array", "sampling_rate"}`, bytes, or a path."""

    dataset: datasets.Dataset
    row: int
    column: str

    def load(self, name: str, sampling_rate: int = SAMPLING_RATE, notes: list[str] | None = None) -> np.ndarray:
        """Decode the recording as `load_audio` does, with its arguments; `name` is for errors."""
        value = self.dataset[self.row][self.column]
        value = value if isinstance(value, dict) else {"path" if isinstance(value, str) else "bytes": value}
        if value.get("bytes") is not None:
            return decode_audio(value["bytes"], sampling_rate, name, notes)
        if value.get("array") is not None:
            return decode_audio(_wav_of(value["array"], value.get("sampling_rate"), name), sampling_rate, name, notes)
        if value.get("path") is not None:
            return load_audio(value["path"], sampling_rate, notes)
        raise AudioError(f"{name}: found neither bytes nor a path, expected a recording; leave it out")


def _wav_of(array: Any, rate: Any, name: str) -> bytes:
    """
    Write samples as a wav file of floats, which is then decoded like every recording.

    Args:
        array: [samples] or [channels, samples] or [samples, channels]. Whole numbers are taken as 16-bit samples.
        rate: in Hz.
        name: of the recording, for errors.

    Raises:
        AudioError: they are not samples with their rate.
    """
    try:
        samples = np.asarray(array)
        scale = 2**15 if np.issubdtype(samples.dtype, np.integer) else 1
        samples = (samples / scale).astype(np.float32)
    except (TypeError, ValueError) as error:
        raise AudioError(f"{name}: found samples that are no numbers ({error}); leave the recording out") from error
    if samples.ndim == 2 and samples.shape[0] < samples.shape[1]:
        samples = samples.T
    if samples.ndim not in (1, 2) or not samples.size or not isinstance(rate, int | float) or rate < 1:
        raise AudioError(
            f"{name}: found an array of shape {samples.shape} at a sampling rate of {rate!r}, expected samples and "
            "their rate in Hz; leave the recording out"
        )
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, int(rate), format="WAV", subtype="FLOAT")
    return encoded.getvalue()


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """
    One recording of a source.

    Attributes:
        file_name: unique within its split.
        audio: where the recording is; `None` where it is missing.
        columns: other columns of the row, such as captions and metadata.
        absence: why `audio` is `None`: what was looked for, and where.
        remark: note on a recording that is used, such as a caption that is left out.
    """

    file_name: str
    audio: pathlib.Path | StoredAudio | None
    columns: Mapping[str, Any]
    absence: str = ""
    remark: str = ""

    def stamp(self) -> str:
        """Digest what the row depends on; of a recording, its name, size and time of modification."""
        source: tuple = ("absent",)
        if isinstance(self.audio, StoredAudio):
            source = (self.audio.dataset._fingerprint, self.audio.row, self.audio.column)
        elif self.audio is not None and self.audio.is_file():
            stat = self.audio.stat()
            source = (self.audio.name, stat.st_size, stat.st_mtime_ns)
        content = (FORMAT, SAMPLING_RATE, self.file_name, sorted(self.columns.items()), source)
        return hashlib.sha256(repr(content).encode()).hexdigest()[:24]


# Content of a source: split -> entries, and the features of their columns.
Source = tuple[dict[str, list[Entry]], datasets.Features]


def prepare_entry(entry: Entry, split: str) -> tuple[dict[str, Any], str]:
    """
    Make a row of `ROW_FEATURES` and the entry's columns, and a warning, empty where there is nothing to warn of.

    Raises:
        AudioError: the recording is absent or cannot be used.
    """
    if entry.audio is None:
        raise AudioError(entry.absence)
    notes = [entry.remark] if entry.remark else []
    if isinstance(entry.audio, StoredAudio):
        waveform = entry.audio.load(entry.file_name, notes=notes)
    else:
        waveform = load_audio(entry.audio, SAMPLING_RATE, notes)
    row = {
        "file_name": entry.file_name,
        "recording_id": f"{split}/{entry.file_name}",
        "audio": {"bytes": encode_audio(waveform, SAMPLING_RATE), "path": entry.file_name},
        "duration": len(waveform) / SAMPLING_RATE,
        **entry.columns,
    }
    if (peak := np.abs(waveform).max()) < SILENCE:
        notes.append(f"silent: no sample above {peak:.1g} of full scale")
    if (seconds := len(waveform) / SAMPLING_RATE) < MIN_SECONDS:
        notes.append(f"very short: {seconds:.3f} s, less than the {MIN_SECONDS} s that the model needs at least")
    return row, "; ".join(notes)
