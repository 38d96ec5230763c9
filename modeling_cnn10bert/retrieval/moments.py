"""Find the passages of recordings that match a text, with a start and an end that are finer than the index's windows."""

import dataclasses
import os
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from .records import FileRecord
from .windows import read_windows

CHUNK_SECONDS = 60.0  # of a recording that are embedded at once
# Frames on either side that a frame of CNN10 depends on: 38 spectra, of which 16 make a frame.
RECEPTIVE_FRAMES = 3


class FrameEmbedder(Protocol):
    """
    A model that embeds the frames of recordings, such as `TorchEmbedder` of a `CNN10BertModel`.

    Attributes:
        sampling_rate: of the waveforms, in Hz.
        frame_samples: samples from one frame to the next.
    """

    sampling_rate: int
    frame_samples: int

    def embed_frames(self, waveform: np.ndarray, context_frames: int = 1) -> np.ndarray:
        """Embed each frame of a mono waveform [samples] float32 -> [T, D] float32, L2-normalized."""


@dataclasses.dataclass(frozen=True)
class Moment:
    """
    A passage of a recording that matches a text.

    Attributes:
        record: the recording.
        score: mean cosine similarity of the text and the frames of the passage.
        start, end: of the passage, in seconds.
        embed: [D] float32, L2-normalized mean embedding of its frames.
    """

    record: FileRecord
    score: float
    start: float
    end: float
    embed: np.ndarray = dataclasses.field(repr=False, compare=False)

    @property
    def file(self) -> str:
        return self.record.path


def embed_frames(path: str | os.PathLike, embedder: FrameEmbedder, context_frames: int = 1) -> np.ndarray:
    """
    Embed each frame of a recording -> [T, D] float32, L2-normalized; memory for the sound does not grow with its length.

    Args:
        path: the recording.
        embedder: the model.
        context_frames: see `CNN10BertModel.get_audio_frame_features`.

    Raises:
        AudioError: the recording cannot be used.
        RetrievalError: the model has no embeddings of frames.
    """
    size, rate = embedder.frame_samples, embedder.sampling_rate
    margin = RECEPTIVE_FRAMES + context_frames // 2
    core = max(1, round(CHUNK_SECONDS * rate / size))
    length, overlap = (core + 2 * margin) * size / rate, 2 * margin * size / rate
    parts: list[tuple[int, int, np.ndarray]] = []  # first frame, first frame that depends on nothing before, embeddings
    for start, _, waveform in read_windows(path, rate, length, overlap):
        # The last chunk ends with the recording, so it may begin within a frame.
        sample = round(start * rate)
        first = -(-sample // size)
        embeds = embedder.embed_frames(waveform[first * size - sample :], context_frames)
        parts.append((first, first + margin if first else 0, embeds))
    ends = [sound for _, sound, _ in parts[1:]] + [parts[-1][0] + len(parts[-1][2])]
    return np.concatenate([embeds[sound - first : end - first] for (first, sound, embeds), end in zip(parts, ends)])
