"""Cut recordings into windows of one length, which are embedded."""

import contextlib
import hashlib
import math
import os
from collections.abc import Generator

import numpy as np

from ..data.audio_io import audio_blocks
from ..errors import RetrievalError

HASH_BYTES = 16
CHUNK_BYTES = 1 << 20
MAX_GAIN = 10 ** (60 / 20)  # noise below -60 dB of full scale stays quieter than a recording


def window_spans(duration: float, window: float, overlap: float) -> list[tuple[float, float]]:
    """
    Return the start and end of each window of a recording.

    All windows have length `window` and share `overlap` with their neighbors. The last one ends with the recording and
    may share more. A recording no longer than `window` is one window.

    Args:
        duration: duration of the recording, in seconds.
        window, overlap: in seconds.

    Raises:
        RetrievalError: `overlap` is negative or not shorter than `window`.
    """
    check_windows(window, overlap)
    if duration <= window:
        return [(0.0, duration)]
    step = window - overlap
    # 1e-9: rounding must not add a window to a recording that ends with one.
    before_last = math.ceil((duration - window) / step - 1e-9)
    return [(k * step, k * step + window) for k in range(before_last)] + [(duration - window, duration)]


def normalize_level(waveform: np.ndarray) -> np.ndarray:
    """
    Scale a waveform [samples] so that its peak is 1, with a gain of at most 60 dB; silence stays as it is.

    A search then does not depend on the level of a recording (docs/notes.md).
    """
    peak = float(np.abs(waveform).max(initial=0.0))
    return waveform if peak == 0 else waveform * np.float32(min(1 / peak, MAX_GAIN))


def read_windows(
    path: str | os.PathLike,
    sampling_rate: int,
    window: float,
    overlap: float,
    notes: list[str] | None = None,
    level_normalized: bool = False,
) -> Generator[tuple[float, float, np.ndarray], None, None]:
    """
    Yield the windows of a recording while it is decoded, so that memory does not grow with its length.

    Args:
        path: the recording.
        sampling_rate: sampling rate of the waveforms, in Hz.
        window, overlap: in seconds, see `window_spans`; rounded to whole samples.
        notes: see `load_audio`; complete after the last window.
        level_normalized: whether each window is scaled by `normalize_level`.

    Yields:
        Start and end in seconds, and the waveform [samples] float32. The last end is the recording's duration. Unless
        it is scaled, the only window of a short recording equals the output of `load_audio`.

    Raises:
        RetrievalError: `overlap` is negative or not shorter than `window`.
        AudioError: as in `load_audio`, possibly after some windows were yielded.
    """
    check_windows(window, overlap)
    length = max(1, round(window * sampling_rate))
    step = max(1, length - round(overlap * sampling_rate))
    kept = np.zeros(0, np.float32)  # the samples up to `seen`, starting at the next window or the last `length`
    seen = start = 0  # number of decoded samples, and start of the next window
    fresh: list[np.ndarray] = []
    with contextlib.closing(audio_blocks(path, sampling_rate, notes)) as blocks:  # type: ignore[type-var]
        for block in blocks:
            fresh.append(block)
            seen += block.size
            if seen < start + length:
                continue
            kept, fresh = np.concatenate([kept, *fresh]), []
            first = seen - kept.size
            while seen >= start + length:
                waveform = kept[start - first : start - first + length].copy()  # so that the rest can be freed
                waveform = normalize_level(waveform) if level_normalized else waveform
                yield start / sampling_rate, (start + length) / sampling_rate, waveform
                start += step
            kept = kept[max(0, kept.size - length) :].copy()
    last_end = start - step + length if start else 0
    if seen > last_end:  # otherwise the last window ended with the recording
        kept = np.concatenate([kept, *fresh])
        waveform = kept[-min(length, seen) :].copy()
        waveform = normalize_level(waveform) if level_normalized else waveform
        yield max(0, seen - length) / sampling_rate, seen / sampling_rate, waveform


def content_hash(path: str | os.PathLike) -> str:
    """Return a digest of a file's bytes: 16 bytes of BLAKE2b as hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def check_windows(window: float, overlap: float) -> None:
    if not 0 <= overlap < window < math.inf:
        raise RetrievalError(
            f"found windows of {window:g} s that overlap by {overlap:g} s, expected an overlap of at least 0 and "
            "shorter than a window, which must have a finite length"
        )
