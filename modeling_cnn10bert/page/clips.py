"""Read a part of a recording, and encode it as a clip for browsers."""

import contextlib
import dataclasses
import io
import os

import numpy as np
import soundfile

from ..data.audio_io import SHORTEST_LOSS, Mixer, audio_blocks, printable
from ..errors import AudioError

FALLBACK_RATE = 32_000  # Hz, for files that only FFmpeg decodes
LONGEST = 120.0  # seconds of a clip, for any window length
MOST_VALUES = 1 << 24  # of a clip over all channels: 64 MB, and a few times that during encoding
HIGHEST_RATE = 192_000  # Hz; browsers play no higher rate, and FLAC ends at 655,350


@dataclasses.dataclass(frozen=True)
class Span:
    """
    A part of a recording.

    Attributes:
        path: path of the recording.
        start, end: in seconds.
    """

    path: str
    start: float
    end: float


def read_span(span: Span) -> tuple[np.ndarray, int]:
    """
    Read the samples [frames, channels] float32 of a part of a recording, and their rate in Hz.

    libsndfile seeks to the part. A file that it cannot read, or that has too many values, is decoded from the beginning
    to one channel.

    Raises:
        AudioError: the recording is gone, cannot be decoded, or ends before the part begins.
    """
    end = min(span.end, span.start + LONGEST)
    try:
        with soundfile.SoundFile(os.fsencode(span.path)) as file:
            rate = file.samplerate
            wanted = max(1, round((end - span.start) * rate))
            if wanted * file.channels > MOST_VALUES or rate > HIGHEST_RATE:
                raise ValueError("too much to be read at once")
            file.seek(min(round(span.start * rate), file.frames))
            samples = file.read(wanted, dtype="float32", always_2d=True)
        if wanted - len(samples) > SHORTEST_LOSS * rate:  # libsndfile does not read the file to its end
            samples, rate = _decode(span.path, span.start, end), FALLBACK_RATE
    except (soundfile.SoundFileError, OSError, TypeError, ValueError):
        samples, rate = _decode(span.path, span.start, end), FALLBACK_RATE  # raises with the reason, if it fails too
    if not len(samples):
        raise AudioError(f"{printable(span.path)}: found nothing from {span.start:g} s on; index the recording again")
    return np.nan_to_num(samples), rate


def _decode(path: str, start: float, end: float) -> np.ndarray:
    first, last, seen, parts = round(start * FALLBACK_RATE), round(end * FALLBACK_RATE), 0, []
    with contextlib.closing(audio_blocks(path, FALLBACK_RATE)) as blocks:
        for block in blocks:
            parts.append(block[max(0, first - seen) : max(0, last - seen)])
            seen += len(block)
            if seen >= last:
                break
    return np.concatenate(parts)[:, None]


def encode_clip(samples: np.ndarray, rate: int) -> bytes:
    """Encode samples [frames, channels] as a FLAC file of 16 bits and at most two channels."""
    channels = samples if samples.shape[1] <= 2 else Mixer().mix(samples, rate)[:, None]
    encoded = io.BytesIO()
    soundfile.write(encoded, np.clip(channels, -1, 1), rate, format="FLAC", subtype="PCM_16")
    return encoded.getvalue()
