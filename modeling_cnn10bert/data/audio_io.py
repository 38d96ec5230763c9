"""Recordings: decoding, resampling and encoding. The one file of the package that does them, so that a successor is one
change."""

import io
import os
import pathlib

import numpy as np
import soundfile
import soxr

LARGEST_RATIO = 100  # of two sampling rates; a damaged header's 1 Hz would make nine hours of a second


class AudioError(ValueError):
    """A recording cannot be used; the message names the file, what was found, what was expected and what to do."""


def load_audio(path: str | os.PathLike, sampling_rate: int) -> np.ndarray:
    """Reads a recording as one channel at the asked sampling rate.

    Decodes what libsndfile decodes (wav, flac, ogg, mp3, ...), averages the channels, resamples where the rates
    differ.

    Args:
        path: the recording.
        sampling_rate: the rate to return, in Hz.

    Returns:
        Waveform [samples], float32; full scale of integer formats is 1. No gain is applied.

    Raises:
        AudioError: the file is missing, undecodable, empty, or holds NaN or infinite samples.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise AudioError(f"{path}: found {found}, expected a recording; check the path, or fetch the recordings again")
    return _load(path, path, path.stat().st_size, sampling_rate)


def decode_audio(encoded: bytes, sampling_rate: int, name: str) -> np.ndarray:
    """`load_audio` of a recording in memory, whose file name `name` is for error messages."""
    return _load(io.BytesIO(encoded), pathlib.PurePath(name), len(encoded), sampling_rate)


def encode_audio(waveform: np.ndarray, sampling_rate: int) -> bytes:
    """Waveform [samples] float32 -> a FLAC file of 24 bits, or a wav file of floats where a sample exceeds full scale.

    24 bits, because 16 add noise of about -90 dB to a mel bin. On 23 real recordings 16 bits move cells of the log-mel
    above -60 dB by up to 0.54 dB and 24 bits by up to 0.0022 dB, where half a step of the feature cache is 0.0025 dB;
    they take 1.4 instead of 0.7 bytes a sample. Resampling overshoots a recording at full scale, and FLAC would clip
    that.
    """
    encoded = io.BytesIO()
    if np.abs(waveform).max(initial=0.0) < 1.0:
        soundfile.write(encoded, waveform, sampling_rate, format="FLAC", subtype="PCM_24")
    else:
        soundfile.write(encoded, waveform, sampling_rate, format="WAV", subtype="FLOAT")
    return encoded.getvalue()


def _load(source, path: pathlib.PurePath, size: int, sampling_rate: int) -> np.ndarray:
    """What soundfile reads -> waveform; `path` and `size` in bytes are for error messages."""
    waveform, found_rate = _decode(source, path, size)
    bad = np.count_nonzero(~np.isfinite(waveform))
    if bad:
        raise AudioError(
            f"{path}: found {bad} of {waveform.size} samples NaN or infinite, expected finite numbers; "
            "export the file again (16-bit PCM cannot hold such values), or leave it out"
        )
    if not sampling_rate / LARGEST_RATIO <= found_rate <= sampling_rate * LARGEST_RATIO:
        raise AudioError(
            f"{path}: found a sampling rate of {found_rate} Hz, expected one within a factor of "
            f"{LARGEST_RATIO} of {sampling_rate} Hz; its header is damaged: fetch or export it again, or leave it out"
        )
    if found_rate != sampling_rate and waveform.size:
        waveform = _resample(waveform, found_rate, sampling_rate)
    if waveform.size == 0:
        raise AudioError(f"{path}: found 0 samples, expected a recording; fetch or export it again, or leave it out")
    return waveform


def _decode(source, path: pathlib.PurePath, size: int) -> tuple[np.ndarray, int]:
    """What soundfile reads -> (mono waveform [samples] float32, its own sampling rate in Hz)."""
    try:
        channels, rate = soundfile.read(source, dtype="float32", always_2d=True)  # [samples, channels]
    # TypeError: headerless .raw; MemoryError: a damaged header that promises terabytes
    except (soundfile.SoundFileError, OSError, TypeError, ValueError, MemoryError) as error:
        raise AudioError(
            f"{path}: found {size} bytes that do not decode ({error}), expected wav, flac, ogg or mp3; "
            f"fetch the file again, or convert it: ffmpeg -i {path.name!r} {path.stem + '.flac'!r}"
        ) from error
    return channels.mean(axis=1), rate


def _resample(waveform: np.ndarray, old_rate: int, new_rate: int) -> np.ndarray:
    """Band-limited resampling of [samples] float32; n samples become round(n * new_rate / old_rate)."""
    # soxr and not torchaudio's sinc_interp_kaiser at its "kaiser_best" values. To 32 kHz, one core, 20 s of noise; the
    # error is that of a 1 kHz sine against the sine sampled at 32 kHz, the alias what a 17 kHz sine leaves:
    #   from      soxr VHQ: time, error, alias, gain at 15 kHz   torchaudio: the same
    #   44.1 kHz  23 ms, -151 dB, -155 dB, -0.3 dB               16 ms, -122 dB, -145 dB, -3.0 dB
    #   48 kHz    13 ms, -152 dB, -157 dB, -0.3 dB               45 ms, -134 dB, -145 dB, -3.0 dB
    #   192 kHz   24 ms, -152 dB, -162 dB, -0.3 dB               318 ms, -131 dB, -150 dB, -3.0 dB
    # And torchaudio's filter grows with the rates divided by their greatest common divisor: from 47,999 Hz, a machine
    # of 24 GB ran out of memory.
    return soxr.resample(waveform, old_rate, new_rate, quality="VHQ")
