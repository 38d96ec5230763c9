"""Recordings: decoding, resampling and encoding. The one file of the package that does them, so that a successor is one
change."""

import contextlib
import io
import os
import pathlib
import tempfile
from collections.abc import Iterator

import numpy as np
import soundfile
import soxr

from . import ffmpeg

LARGEST_RATIO = 100  # of two sampling rates; a damaged header's 1 Hz would make nine hours of a second
BLOCK_VALUES = 1 << 20  # decoded at once, over all channels: memory does not grow with a recording


class AudioError(ValueError):
    """A recording cannot be used; the message names the file, what was found, what was expected and what to do."""


def load_audio(path: str | os.PathLike, sampling_rate: int, notes: list[str] | None = None) -> np.ndarray:
    """Reads a recording as one channel at the asked sampling rate.

    Decodes what libsndfile decodes (wav, flac, ogg, opus, mp3, aiff, ...) and, where an `ffmpeg` is installed, what
    that does (m4a, wma, webm, ...), averages the channels, resamples where the rates differ.

    Args:
        path: the recording.
        sampling_rate: the rate to return, in Hz.
        notes: takes a line, without the file's name, for each thing that a user should know of a recording that was
            read all the same, such as that the file is cut off.

    Returns:
        Waveform [samples], float32; full scale of integer formats is 1. No gain is applied.

    Raises:
        AudioError: the file is missing, undecodable, empty, or holds NaN or infinite samples.
    """
    return np.concatenate(list(audio_blocks(path, sampling_rate, notes)))


def audio_blocks(path: str | os.PathLike, sampling_rate: int, notes: list[str] | None = None) -> Iterator[np.ndarray]:
    """`load_audio` of a recording of any length, in blocks of some seconds that joined are what it returns; `notes` are
    complete after the last block.

    Raises:
        AudioError: as `load_audio`; where samples are NaN or infinite, after the blocks before them.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "a device, pipe or socket" if path.exists() else "no such file"
        raise AudioError(
            f"{printable(path)}: found {found}, expected a recording; check the path, or fetch the recordings again"
        )
    with _open(path, path, path.stat().st_size) as (rate, blocks):
        yield from _mono_blocks(rate, blocks, path, sampling_rate)


def decode_audio(encoded: bytes, sampling_rate: int, name: str, notes: list[str] | None = None) -> np.ndarray:
    """`load_audio` of a recording in memory, whose file name `name` is for error messages."""
    path = pathlib.PurePath(name)
    with _open(io.BytesIO(encoded), path, len(encoded)) as (rate, blocks):
        return np.concatenate(list(_mono_blocks(rate, blocks, path, sampling_rate)))


def printable(path: str | os.PathLike) -> str:
    """A path as it can be printed and encoded: bytes of a name that are no UTF-8 become `\\xff`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


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


def _mono_blocks(
    found_rate: int, blocks: Iterator[np.ndarray], path: pathlib.PurePath, sampling_rate: int
) -> Iterator[np.ndarray]:
    """Blocks [samples, channels] -> [samples] float32 at `sampling_rate`; at least one of them, none empty."""
    if not sampling_rate / LARGEST_RATIO <= found_rate <= sampling_rate * LARGEST_RATIO:
        raise AudioError(
            f"{printable(path)}: found a sampling rate of {found_rate} Hz, expected one within a factor of "
            f"{LARGEST_RATIO} of {sampling_rate} Hz; its header is damaged: fetch or export it again, or leave it out"
        )
    resampler = None if found_rate == sampling_rate else _Resampler(found_rate, sampling_rate)
    found = bad = given = 0
    for channels in blocks:
        waveform = channels[:, 0] if channels.shape[1] == 1 else channels.mean(axis=1)
        found += waveform.size
        bad += np.count_nonzero(~np.isfinite(waveform))
        if bad:
            continue  # of what follows, only the bad samples are counted
        if resampler:
            waveform = resampler.push(waveform)
        given += waveform.size
        if waveform.size:
            yield waveform
    if bad:
        raise AudioError(
            f"{printable(path)}: found {bad} of {found} samples NaN or infinite, expected finite numbers; "
            "export the file again (16-bit PCM cannot hold such values), or leave it out"
        )
    rest = resampler.flush() if resampler and found else np.zeros(0, np.float32)
    if given + rest.size == 0:
        raise AudioError(
            f"{printable(path)}: found 0 samples, expected a recording; fetch or export it again, or leave it out"
        )
    if rest.size:
        yield rest


@contextlib.contextmanager
def _open(source, path: pathlib.PurePath, size: int) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    """A path or a file in memory -> its own sampling rate in Hz, and blocks [samples, channels] float32 of it.

    `path` and `size` in bytes are for error messages.
    """
    with contextlib.ExitStack() as stack:
        try:
            try:
                file = soundfile.SoundFile(_for_libsndfile(source))
            # TypeError: headerless .raw
            except (soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
                opened = stack.enter_context(_open_with_ffmpeg(source, _reason(error)))
            else:
                opened = file.samplerate, _libsndfile_blocks(stack.enter_context(file))
            yield opened
        except (soundfile.SoundFileError, ffmpeg.FFmpegError, OSError, MemoryError) as error:
            raise AudioError(
                f"{printable(path)}: found {size} bytes that do not decode ({_reason(error)}), expected wav, flac, ogg "
                "or mp3, or with an installed ffmpeg also m4a, wma or webm; fetch the file again, or convert it: "
                f"ffmpeg -i {printable(path.name)!r} {printable(path.stem + '.flac')!r}"
            ) from error


def _libsndfile_blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """[samples, channels] float32; however many a damaged header promises, no more memory than a block's is taken."""
    frames = max(1, BLOCK_VALUES // file.channels)
    while len(block := file.read(frames, dtype="float32", always_2d=True)):
        yield block


@contextlib.contextmanager
def _open_with_ffmpeg(source, reason: str) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    """What libsndfile does not open, for this reason; ffmpeg must seek in it, so bytes in memory become a file."""
    with contextlib.ExitStack() as stack:
        if isinstance(source, io.BytesIO):
            copy = stack.enter_context(tempfile.NamedTemporaryFile())
            copy.write(source.getvalue())
            copy.flush()
            source = copy.name
        try:
            opened = stack.enter_context(ffmpeg.open_stream(source))
        except ffmpeg.FFmpegError as error:
            raise ffmpeg.FFmpegError(f"libsndfile: {reason}; {error}") from error
        yield opened


def _for_libsndfile(source):
    """A path as bytes, since soundfile encodes strictly and a name may be no UTF-8; Windows has no such names."""
    return os.fsencode(source) if isinstance(source, pathlib.Path) and os.name != "nt" else source


def _reason(error: Exception) -> str:
    """What happened, without the name of the file."""
    return error.error_string.rstrip(".") if isinstance(error, soundfile.LibsndfileError) else str(error)


class _Resampler:
    """Band-limited resampling of [samples] float32 block by block, the same to the last bit as `soxr.resample` of the
    whole; n samples become round(n * new_rate / old_rate)."""

    # soxr and not torchaudio's sinc_interp_kaiser at its "kaiser_best" values. To 32 kHz, one core, 20 s of noise; the
    # error is that of a 1 kHz sine against the sine sampled at 32 kHz, the alias what a 17 kHz sine leaves:
    #   from      soxr VHQ: time, error, alias, gain at 15 kHz   torchaudio: the same
    #   44.1 kHz  23 ms, -151 dB, -155 dB, -0.3 dB               16 ms, -122 dB, -145 dB, -3.0 dB
    #   48 kHz    13 ms, -152 dB, -157 dB, -0.3 dB               45 ms, -134 dB, -145 dB, -3.0 dB
    #   192 kHz   24 ms, -152 dB, -162 dB, -0.3 dB               318 ms, -131 dB, -150 dB, -3.0 dB
    # And torchaudio's filter grows with the rates divided by their greatest common divisor: from 47,999 Hz, a machine
    # of 24 GB ran out of memory.

    def __init__(self, old_rate: int, new_rate: int):
        self.stream = soxr.ResampleStream(old_rate, new_rate, 1, dtype="float32", quality="VHQ")

    def push(self, waveform: np.ndarray) -> np.ndarray:
        return self.stream.resample_chunk(waveform)

    def flush(self) -> np.ndarray:
        """What the filter still holds."""
        return self.stream.resample_chunk(np.zeros(0, np.float32), last=True)
