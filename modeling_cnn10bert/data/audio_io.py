"""Reading recordings. The one file of the package that touches torchaudio, so that a successor is one change."""

import functools
import os
import pathlib

import numpy as np
import soundfile


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
    waveform, found_rate = _decode(path)
    if waveform.size == 0:
        raise AudioError(f"{path}: found 0 samples, expected a recording; fetch or export it again, or leave it out")
    bad = np.count_nonzero(~np.isfinite(waveform))
    if bad:
        raise AudioError(
            f"{path}: found {bad} of {waveform.size} samples NaN or infinite, expected finite numbers; "
            "export the file again (16-bit PCM cannot hold such values), or leave it out"
        )
    return waveform if found_rate == sampling_rate else _resample(waveform, found_rate, sampling_rate)


def _decode(path: pathlib.Path) -> tuple[np.ndarray, int]:
    """File -> (mono waveform [samples] float32, its own sampling rate in Hz)."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise AudioError(f"{path}: found {found}, expected a recording; check the path, or fetch the recordings again")
    try:
        channels, rate = soundfile.read(path, dtype="float32", always_2d=True)  # [samples, channels]
    except (soundfile.SoundFileError, OSError, TypeError) as error:  # TypeError: headerless .raw
        raise AudioError(
            f"{path}: found {path.stat().st_size} bytes that do not decode ({error}), expected wav, flac, ogg or mp3; "
            f"fetch the file again, or convert it: ffmpeg -i {path.name!r} {path.stem + '.flac'!r}"
        ) from error
    return channels.mean(axis=1), rate


def _resample(waveform: np.ndarray, old_rate: int, new_rate: int) -> np.ndarray:
    """Band-limited resampling of [samples] float32; n samples become ceil(n * new_rate / old_rate)."""
    import torch  # it and torchaudio take seconds, and recordings already at the right rate need neither

    with torch.inference_mode():
        return _resampler(old_rate, new_rate)(torch.from_numpy(waveform)).numpy()


@functools.lru_cache(maxsize=8)  # computing the filter takes three times as long as resampling a clip of 5 s with it
def _resampler(old_rate: int, new_rate: int):
    import torchaudio.transforms

    # resampy's "kaiser_best" filter, long librosa's default, with the values that torchaudio's tutorial on resampling
    # gives for it. The pass band reaches 95 % of the lower Nyquist frequency; torchaudio's default (width 6, Hann)
    # dulls the top.
    return torchaudio.transforms.Resample(
        old_rate,
        new_rate,
        resampling_method="sinc_interp_kaiser",
        lowpass_filter_width=64,
        rolloff=0.9475937167399596,
        beta=14.769656459379492,
    )
