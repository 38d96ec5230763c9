"""Find the passages of recordings that match a text, with times finer than the windows of an index."""

import dataclasses
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm.auto import tqdm

from ..data.audio_io import printable
from ..errors import AudioError, RetrievalError
from ..files import replaced_whole
from .records import FileRecord, Hit, ModelIdentity, file_stamp
from .windows import read_windows

# Chosen on mixtures of known onsets; docs/results.md tells how.
CONTEXT_SECONDS = 3.0  # that are pooled around a frame
HEIGHT = 0.2  # of a passage's lowest frame between the median of the recording's scores and their maximum
LARGEST_GAP = 1.5  # seconds below that height within a passage

CHUNK_SECONDS = 60.0  # of a recording that are embedded at once
# Frames on either side that a frame of CNN10 depends on: 38 spectra, of which 16 make a frame.
RECEPTIVE_FRAMES = 3


class FrameEmbedder(Protocol):
    """
    A model that embeds the frames of recordings, such as `TorchEmbedder` of a `CNN10BertModel`.

    Attributes:
        identity: identifies the model.
        sampling_rate: of the waveforms, in Hz.
        frame_samples: samples from one frame to the next.
    """

    identity: ModelIdentity
    sampling_rate: int
    frame_samples: int

    def embed_frames(self, waveform: np.ndarray, context_frames: int = 1) -> np.ndarray:
        """Embed each frame of a mono waveform [samples] float32 -> [T, D] float32, L2-normalized."""


def embed_frames(
    path: str | os.PathLike, embedder: FrameEmbedder, context_frames: int = 1, level_normalized: bool = False
) -> tuple[np.ndarray, float]:
    """
    Embed each frame of a recording -> [T, D] float32, L2-normalized, and return its duration in seconds as well.

    Args:
        path: the recording.
        embedder: the model.
        context_frames: see `CNN10BertModel.get_audio_frame_features`.
        level_normalized: whether each minute is scaled by `windows.normalize_level`.

    Raises:
        AudioError: the recording cannot be used.
        RetrievalError: the model has no embeddings of frames.
    """
    size, rate = embedder.frame_samples, embedder.sampling_rate
    margin = RECEPTIVE_FRAMES + context_frames // 2
    core = max(1, round(CHUNK_SECONDS * rate / size))
    length, overlap = (core + 2 * margin) * size / rate, 2 * margin * size / rate
    parts: list[tuple[int, int, np.ndarray]] = []  # first frame, first frame that depends on nothing before, embeddings
    seconds = 0.0
    for start, end, waveform in read_windows(path, rate, length, overlap, None, level_normalized):
        seconds = end
        # The last chunk ends with the recording, so it may begin within a frame.
        sample = round(start * rate)
        first = -(-sample // size)
        embeds = embedder.embed_frames(waveform[first * size - sample :], context_frames)
        parts.append((first, first + margin if first else 0, embeds))
    ends = [sound for _, sound, _ in parts[1:]] + [parts[-1][0] + len(parts[-1][2])]
    kept = (embeds[sound - first : end - first] for (first, sound, embeds), end in zip(parts, ends, strict=True))
    return np.concatenate(list(kept)), seconds


def as_frame_embedder(embedder: Any) -> FrameEmbedder:
    """
    Return an embedder that embeds frames too.

    Raises:
        RetrievalError: the model has no embeddings of frames.
    """
    if not hasattr(embedder, "embed_frames"):
        raise RetrievalError(
            f"{embedder.identity.name} embeds whole recordings only, as every ONNX export does; expected a model that "
            "embeds frames: name the one that was exported"
        )
    embedder.frame_samples  # noqa: B018 (raises for models of other kinds)
    return embedder


def context_frames(embedder: FrameEmbedder) -> int:
    """Return the odd number of frames that is nearest to `CONTEXT_SECONDS`."""
    return 2 * round((CONTEXT_SECONDS * embedder.sampling_rate / embedder.frame_samples - 1) / 2) + 1


@dataclasses.dataclass(frozen=True)
class Passage:
    """
    Neighboring frames whose scores stand out from their recording.

    Attributes:
        start, end: in seconds.
        best: the frame with the highest score.
        area: sum of its scores above the threshold, by which the passages of one recording compare.
    """

    start: float
    end: float
    best: int
    area: float


def find_passages(scores: np.ndarray, frame_seconds: float, duration: float) -> list[Passage]:
    """
    Find where the scores of a recording stand out, the largest area first.

    A passage is where the scores, interpolated between the centers of frames, are above a threshold. The threshold is
    between the median of the recording and its maximum, so it adapts to the background. Passages that are less than
    `LARGEST_GAP` apart are one.

    Args:
        scores: [T] cosine similarities of the frames to a text.
        frame_seconds: from one frame to the next.
        duration: of the recording, in seconds.
    """
    background = float(np.median(scores))
    threshold = background + HEIGHT * (float(scores.max()) - background)
    above = scores > threshold
    if not above.any():  # all scores are equal
        return [Passage(0.0, duration, 0, 0.0)]
    # First frame, and frame after the last one, of each run.
    edges = np.flatnonzero(np.diff(np.concatenate([[False], above, [False]]).astype(int))).reshape(-1, 2).tolist()

    def crossing(frame: int) -> float:
        """Return where the scores cross the threshold between a frame and the one before it."""
        if frame == 0 or frame == len(scores):
            return 0.0 if frame == 0 else duration
        before, after = scores[frame - 1], scores[frame]
        return min(duration, float(frame - 0.5 + (threshold - before) / (after - before)) * frame_seconds)

    runs: list[tuple[float, float, int, int]] = []
    for first, last in edges:
        start, end = crossing(first), crossing(last)
        if runs and start - runs[-1][1] < LARGEST_GAP:
            start, _, first, _ = runs.pop()
        runs.append((start, end, first, last))
    passages = [
        Passage(
            start,
            end,
            first + int(scores[first:last].argmax()),
            float((scores[first:last] - threshold).clip(min=0).sum()),
        )
        for start, end, first, last in runs
    ]
    return sorted(passages, key=lambda passage: -passage.area)


def moments_of(
    query: np.ndarray,
    records: Iterable[FileRecord],
    embedder: FrameEmbedder,
    cache: Path,
    progress: bool = True,
    level_normalized: bool = False,
) -> list[Hit]:
    """
    Find the moments of recordings, best first.

    Frames are embedded once and kept in `cache`, one file per content of a recording, so that an interrupted or second
    search is fast. Recordings that cannot be read or that changed since they were indexed are left out, with a warning.

    Args:
        query: [D], L2-normalized.
        records: the recordings of an index.
        embedder: the model of the index.
        cache: folder for the embeddings of frames; created if needed.
        progress: whether to show a progress bar on a terminal.
        level_normalized: see `embed_frames`.

    Raises:
        RetrievalError: the model has no embeddings of frames, or `cache` cannot be written.
    """
    context = context_frames(embedder)
    folder = cache / f"{embedder.identity.fingerprint[:16]}-{context}{'-level' if level_normalized else ''}"
    seconds = embedder.frame_samples / embedder.sampling_rate
    found, faults = [], []
    for record in tqdm(list(records), desc="Moments", unit=" files", disable=None if progress else True):
        try:
            embeds = _cached_frames(record, embedder, context, level_normalized, folder)
        except (AudioError, FileNotFoundError) as error:
            faults.append(f"{printable(record.path)}: {error}")
            continue
        scores = embeds.astype(np.float32) @ query
        for passage in find_passages(scores, seconds, record.duration):
            embed = embeds[passage.best].astype(np.float32)
            found.append(Hit(record, float(scores[passage.best]), passage.start, passage.end, embed))
    if faults:
        warnings.warn(f"{len(faults)} recordings were left out, such as {faults[0]}", MomentsWarning, stacklevel=2)
    return sorted(found, key=lambda moment: -moment.score)


class MomentsWarning(UserWarning):
    """A warning about recordings in which no moments could be looked for."""


def _cached_frames(
    record: FileRecord, embedder: FrameEmbedder, context: int, level_normalized: bool, folder: Path
) -> np.ndarray:
    """Return the embeddings [T, D] float16 of the frames of a recording from the cache, or add them to it."""
    path = folder / f"{record.content_hash}.npy"
    try:
        return np.load(path)
    except (FileNotFoundError, ValueError, EOFError):  # not there, or damaged
        pass
    if file_stamp(os.stat(record.path)) != (record.size, record.modified_ns):
        raise AudioError("changed since it was indexed; index it again")
    embeds = embed_frames(record.path, embedder, context, level_normalized)[0].astype(np.float16)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replaced_whole(path) as unfinished, unfinished.open("wb") as file:
            np.save(file, embeds)
    except OSError as error:
        raise RetrievalError(
            f"{folder}: cannot be written ({error}); free some space, or check your rights there"
        ) from error
    return embeds


def cache_folder(location: str) -> Path:
    """Return where the embeddings of frames of an index are kept: next to it, or in the user's cache for a server's."""
    if location.startswith(("http://", "https://")):
        return Path.home() / ".cache" / "cnn10bert" / "frames"
    return Path(f"{os.path.abspath(location)}.frames")
