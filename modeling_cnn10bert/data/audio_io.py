"""Decode, resample and encode recordings. Only this file does, so that replacing a library is one change."""

import contextlib
import dataclasses
import io
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from ..errors import AudioError, UnreadableError
from . import ffmpeg
from .audio_length import Part, measure

LARGEST_RATIO = 100  # of two sampling rates; a damaged header's 1 Hz would turn a second into nine hours
LARGEST_SAMPLE = 100.0  # 40 dB over full scale, which no recording reaches; integers stored as floats do
BLOCK_VALUES = 1 << 20  # decoded at once, over all channels: memory does not grow with a recording
SMALL_PIECE = 1024  # samples, read at once where a block does not decode
SYSTEM_ERROR = 2  # libsndfile's code for a failed system call
# Encoders of mp3 and opus add samples that decoders drop, at most some frames. A smaller loss is ignored.
FRAMES_OF_CODECS = 4 * 1152
LOWEST_RATE_OF_CODECS = 8000  # Hz
SHORTEST_LOSS = 0.1  # seconds
SHORTEST_LOSS_BY_FFMPEG = 0.25  # its durations come from containers and are rounded
KEPT_ENERGY = 0.1  # relative to channels that have nothing in common; with less, channels cancel
ALMOST_AS_LOUD = 0.4  # of the energy of the loudest channel
SHORTEST_PIECE = 0.1  # seconds; a shorter piece is not judged


def load_audio(path: str | os.PathLike, sampling_rate: int, notes: list[str] | None = None) -> np.ndarray:
    """Read a recording as one channel at the given sampling rate.

    Decodes the formats of libsndfile (wav, flac, ogg, opus, mp3, aiff, ...) and, where `ffmpeg` is installed, its
    formats (m4a, wma, webm, ...). Averages the channels and resamples where the rates differ. All recordings in one
    file are read, as in joined mp3s. A file that is cut off or damaged is read as far as possible; `ffmpeg` continues
    where libsndfile stops. Where the channels cancel each other, the louder one is taken (see `Mixer`).

    Args:
        path: the recording.
        sampling_rate: the rate to return, in Hz.
        notes: list that gets one line, without the file's name, for each problem that a user should know of although
            the recording was read, such as that the file is cut off.

    Returns:
        Waveform [samples], float32; full scale of integer formats is 1. No gain is applied.

    Raises:
        AudioError: the file is missing, undecodable, empty, or holds samples that are NaN, infinite or far beyond full
            scale.
        UnreadableError: the system cannot read it now.
    """
    return np.concatenate(list(audio_blocks(path, sampling_rate, notes)))


def audio_blocks(path: str | os.PathLike, sampling_rate: int, notes: list[str] | None = None) -> Iterator[np.ndarray]:
    """Read a recording of any length in blocks of some seconds, which `load_audio` joins. `notes` are complete after
    the last block.

    Raises:
        AudioError: as in `load_audio`; for unusable samples, after the blocks before them.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "a device, pipe or socket" if path.exists() else "no such file"
        raise AudioError(
            f"{printable(path)}: found {found}, expected a recording; check the path, or fetch the recordings again"
        )
    yield from _mono_blocks(path, path, sampling_rate, notes)


def decode_audio(encoded: bytes, sampling_rate: int, name: str, notes: list[str] | None = None) -> np.ndarray:
    """Read a recording in memory as `load_audio` does; `name` is its file name in error messages."""
    return np.concatenate(list(_mono_blocks(io.BytesIO(encoded), pathlib.PurePath(name), sampling_rate, notes)))


def printable(path: str | os.PathLike) -> str:
    """Return a path as it can be printed and encoded: bytes of a name that are not UTF-8 become `\\xff`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def encode_audio(waveform: np.ndarray, sampling_rate: int) -> bytes:
    """Encode a waveform [samples] float32 as FLAC of 24 bits, or as a wav file of floats where it exceeds full scale.

    24 bits, because with 16 the log-mel differs by more than a step of the feature cache (docs/notes.md).
    """
    encoded = io.BytesIO()
    if np.abs(waveform).max(initial=0.0) < 1.0:
        soundfile.write(encoded, waveform, sampling_rate, format="FLAC", subtype="PCM_24")
        return encoded.getvalue()
    soundfile.write(encoded, waveform, sampling_rate, format="WAV", subtype="FLOAT")
    content = bytearray(encoded.getvalue())
    # libsndfile writes the time of day into the chunk PEAK, after its size and version. Without it, equal sounds have
    # equal bytes, which is how copies are found and preparations are compared.
    peak = content.find(b"PEAK", 0, content.find(b"data"))
    if peak >= 0:
        content[peak + 12 : peak + 16] = bytes(4)
    return bytes(content)


def _mono_blocks(
    source: pathlib.Path | io.BytesIO, path: pathlib.PurePath, sampling_rate: int, notes: list[str] | None
) -> Iterator[np.ndarray]:
    """Read a path or a file in memory as [samples] float32 at `sampling_rate`: at least one block, none empty.

    `path` is for error messages.
    """
    tally = _Tally()
    try:
        with _opened(source) as file:
            parts = measure(file)
        for part in parts:
            part_source = source
            if len(parts) > 1:  # decoders end after the first of several, so each is decoded as a file of its own
                with _opened(source) as file:
                    file.seek(part.start)
                    part_source = io.BytesIO(file.read(part.end - part.start))
            try:
                yield from _mono_blocks_of_part(part_source, part, path, sampling_rate, tally)
            except ffmpeg.FFmpegError as error:  # nothing of the part decodes
                if not tally.samples:
                    raise _undecodable(path, parts[-1].end, error) from error
                tally.end_part(part, 0.0, 0.0, _Decoding(_reason(error)))
    except (OSError, MemoryError) as error:
        raise UnreadableError(
            f"{printable(path)}: found a file that the system does not read now ({_reason(error)}), expected one that "
            "can be read; try again, and check the drive, the memory and the limit of open files"
        ) from error
    if tally.bad:
        raise AudioError(
            f"{printable(path)}: found {tally.bad} of {tally.samples} samples NaN or infinite, expected finite "
            "numbers; export the file again (16-bit PCM cannot hold such values), or leave it out"
        )
    if tally.peak > LARGEST_SAMPLE:
        raise AudioError(
            f"{printable(path)}: found samples up to {tally.peak:.3g}, expected about -1 to 1 and none beyond "
            f"{LARGEST_SAMPLE:g}; if they are integers that were stored as floats, divide them by 2**31 (of 32 bits) "
            "or 2**15 (of 16 bits), or export the file again as 16-bit PCM"
        )
    if not tally.given:
        raise AudioError(
            f"{printable(path)}: found 0 samples, expected a recording; fetch or export it again, or leave it out"
        )
    if notes is not None:
        notes += tally.notes()


def _mono_blocks_of_part(
    source: pathlib.Path | io.BytesIO, part: Part, path: pathlib.PurePath, sampling_rate: int, tally: "_Tally"
) -> Iterator[np.ndarray]:
    """Mix and resample a part. Unusable samples are counted, and nothing is yielded from the first one on."""
    decoding, mixer, resampler, seconds = _Decoding(), Mixer(), None, 0.0
    for rate, channels in decoding.blocks(source, part):
        if not sampling_rate / LARGEST_RATIO <= rate <= sampling_rate * LARGEST_RATIO:
            raise AudioError(
                f"{printable(path)}: found a sampling rate of {rate} Hz, expected one within a factor of "
                f"{LARGEST_RATIO} of {sampling_rate} Hz; its header is damaged: fetch or export it again, or "
                "leave it out"
            )
        if resampler is None and rate != sampling_rate:
            resampler = _resampler(rate, sampling_rate)
        waveform = mixer.mix(channels, rate)
        seconds += len(waveform) / rate
        tally.count(channels, waveform)
        if tally.bad or tally.peak > LARGEST_SAMPLE:
            continue
        if resampler:
            waveform = resampler.resample_chunk(waveform)
        if waveform.size:
            tally.given += waveform.size
            yield waveform
    tally.end_part(part, seconds, mixer.cancelled, decoding)
    if resampler and seconds and not tally.bad and tally.peak <= LARGEST_SAMPLE:
        rest = resampler.resample_chunk(np.zeros(0, np.float32), last=True)  # what the filter still holds
        if rest.size:
            tally.given += rest.size
            yield rest


@dataclasses.dataclass
class _Tally:
    """
    Count what was found in a recording so far.

    Attributes:
        samples: decoded samples, of which `bad` are NaN or infinite.
        peak: the largest magnitude in any channel.
        given: samples that were yielded.
        seconds, expected: seconds of sound that were read, and that should have been.
        cancelled: seconds in which the channels cancelled each other.
        cut: whether bytes are missing at the end of the file; `open_end`: whether only the mark of the end is.
        left: whether sound that is in the file was not decoded.
        faults: messages of the decoders, each only once.
    """

    samples: int = 0
    bad: int = 0
    peak: float = 0.0
    given: int = 0
    seconds: float = 0.0
    expected: float = 0.0
    cancelled: float = 0.0
    cut: bool = False
    open_end: bool = False
    left: bool = False
    faults: dict[str, None] = dataclasses.field(default_factory=dict)

    def count(self, channels: np.ndarray, waveform: np.ndarray) -> None:
        self.samples += waveform.size
        self.bad += int(np.count_nonzero(~np.isfinite(waveform)))
        if channels.size and not self.bad:
            self.peak = max(self.peak, float(channels.max()), -float(channels.min()))

    def end_part(self, part: Part, seconds: float, cancelled: float, decoding: "_Decoding") -> None:
        lengths = [seconds / part.share if part.share else 0.0, part.promised, part.seconds, decoding.duration]
        expected = max(length for length in lengths if length is not None)
        is_short = expected > seconds + decoding.tolerance
        self.seconds += seconds
        self.expected += expected if is_short else seconds
        self.cancelled += cancelled
        is_missing = part.seconds is not None and part.seconds < expected - decoding.tolerance
        self.cut = self.cut or is_short and (part.share < 1 or part.cut or is_missing)
        self.left = self.left or is_short and part.seconds == expected
        self.open_end = self.open_end or part.cut
        if decoding.fault:
            self.faults[decoding.fault] = None

    def notes(self) -> list[str]:
        notes = []
        reasons = f" ({', '.join(self.faults)})" if self.faults else ""
        if self.expected > self.seconds:
            why = "the file is cut off" if self.cut else "the file is cut off or damaged"
            if self.left and not self.cut:
                why = "the rest does not decode"
            notes.append(
                f"{self.seconds:.1f} of {self.expected:.1f} s of sound were read, as {why}{reasons}; fetch or export "
                "it again"
            )
        elif self.faults:
            notes.append(
                f"a part of the file does not decode{reasons}; {self.seconds:.1f} s of sound were read from it"
            )
        elif self.open_end:
            notes.append(
                f"the file ends after {self.seconds:.1f} s without the mark of its end, so it may be cut off; fetch it "
                "again if it should be longer"
            )
        if self.cancelled:
            notes.append(
                f"in {self.cancelled:.1f} of {self.seconds:.1f} s the channels cancel each other (one is the other "
                "upside down); the louder channel was used there instead of their average"
            )
        return notes


def _opened(source: pathlib.Path | io.BytesIO) -> contextlib.AbstractContextManager[BinaryIO]:
    return contextlib.nullcontext(source) if isinstance(source, io.BytesIO) else open(source, "rb")


def _undecodable(path: pathlib.PurePath, size: int, error: Exception) -> AudioError:
    if ffmpeg.is_installed():
        advice = "fetch or export the file again"
    else:  # another name, because ffmpeg does not write to its input
        ending = ".wav" if path.suffix.lower() == ".flac" else ".flac"
        convert = f"ffmpeg -i {printable(path.name)!r} {printable(path.stem + ending)!r}"
        advice = f"install ffmpeg, fetch the file again, or convert it where there is one: {convert}"
    return AudioError(
        f"{printable(path)}: found {size} bytes that do not decode ({_reason(error)}), expected wav, flac, ogg or mp3, "
        f"or with an installed ffmpeg also m4a, wma or webm; {advice}"
    )


# ----------------------------------------------------------------------------------------------------------- decoding


class _Decoding:
    """
    Decode a recording with libsndfile and, where that ends early, continue with an installed ffmpeg.

    Attributes:
        duration: seconds of sound that the file announces to ffmpeg, `None` if it announces none.
        tolerance: seconds by which lengths of healthy files differ from what is announced.
        fault: message of a decoder about damage.
    """

    def __init__(self, fault: str | None = None):
        self.duration: float | None = None
        self.tolerance = SHORTEST_LOSS
        self.fault = fault

    def blocks(self, source: pathlib.Path | io.BytesIO, part: Part) -> Iterator[tuple[int, np.ndarray]]:
        """
        Yield the sampling rate in Hz with each block [samples, channels] float32.

        Memory is limited to that of a block, however many channels or samples a damaged header promises.

        Raises:
            ffmpeg.FFmpegError: nothing decodes.
            OSError, MemoryError: the system lacks the resources for reading.
        """
        seen, rate, error = 0, 0, None
        try:
            with _open_with_libsndfile(source) as file:
                rate = file.samplerate
                while len(block := _read_block(file)):
                    seen += len(block)
                    yield rate, block
        except (soundfile.SoundFileError, TypeError, ValueError) as found:  # TypeError: headerless .raw
            error = found
        if seen:
            self.tolerance = max(SHORTEST_LOSS, FRAMES_OF_CODECS / max(rate, LOWEST_RATE_OF_CODECS))
        wanted = part.promised if part.seconds is None else part.seconds
        is_all = wanted is None or part.share < 1 or seen >= (wanted - self.tolerance) * rate
        if error is None and is_all and (seen or wanted == 0.0):
            return
        given = False
        try:
            with _open_with_ffmpeg(source, rate if seen else None) as stream:
                to_skip = seen  # what libsndfile gave
                for block in stream.blocks():
                    fresh = block[to_skip:]
                    to_skip = max(0, to_skip - len(block))
                    if len(fresh):
                        given = True
                        yield stream.rate, fresh
                self.fault = _reason(error) if error is not None and seen else stream.fault
                if not seen:
                    self.duration, self.tolerance = stream.duration, SHORTEST_LOSS_BY_FFMPEG
        except ffmpeg.FFmpegError as found:
            if isinstance(error, soundfile.LibsndfileError) and error.code == SYSTEM_ERROR:
                raise OSError(_reason(error)) from error  # a lack of file handles or a broken drive
            if given:
                self.fault = str(found)
                return
            reason = f"libsndfile finds no {'more ' if seen else ''}sound"
            if error is not None:
                reason = f"libsndfile: {_reason(error)}"
                for block in _up_to_damage(source, seen) if rate else ():
                    given = True
                    yield rate, block
            self.fault = f"{reason}; {found}"
            if not seen and not given:
                raise ffmpeg.FFmpegError(self.fault) from found


def _open_with_libsndfile(source: pathlib.Path | io.BytesIO) -> soundfile.SoundFile:
    if isinstance(source, io.BytesIO):
        source.seek(0)
        return soundfile.SoundFile(source)
    # As bytes, since soundfile encodes strictly and a name may be no UTF-8; Windows has no such names.
    return soundfile.SoundFile(source if os.name == "nt" else os.fsencode(source))


def _read_block(file: soundfile.SoundFile) -> np.ndarray:
    return file.read(max(1, BLOCK_VALUES // file.channels), dtype="float32", always_2d=True)


def _up_to_damage(source: pathlib.Path | io.BytesIO, seen: int) -> Iterator[np.ndarray]:
    """Read again from the sample where a block failed, in small pieces up to the damaged one."""
    try:
        with _open_with_libsndfile(source) as file:
            while seen:
                seen -= len(_read_block(file))
            while len(block := file.read(SMALL_PIECE, dtype="float32", always_2d=True)):
                yield block
    except soundfile.SoundFileError:
        return


@contextlib.contextmanager
def _open_with_ffmpeg(source: pathlib.Path | io.BytesIO, rate: int | None) -> Iterator[ffmpeg.Stream]:
    """Open with ffmpeg. It must seek, so bytes in memory are written to a file."""
    if not isinstance(source, io.BytesIO):
        with ffmpeg.open_stream(source, rate) as stream:
            yield stream
        return
    ffmpeg.find_program()  # before anything is written for it
    with tempfile.NamedTemporaryFile() as copy:
        copy.write(source.getvalue())
        copy.flush()
        with ffmpeg.open_stream(copy.name, rate) as stream:
            yield stream


def _reason(error: Exception) -> str:
    """Return the reason of an error, without the file's name."""
    if isinstance(error, soundfile.LibsndfileError):
        return error.error_string.rstrip(".")
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


# ------------------------------------------------------------------------------------------------ mixing, resampling


class Mixer:
    """
    Average the channels of a recording, block by block.

    Where channels cancel each other, for example because a cable swapped the poles of one, the average is silence.
    There, the channel that is the loudest so far is taken. This is judged for each second: the average of N channels
    that have nothing in common keeps sum(E_c) / N^2 of their energies E_c, and channels cancel where it keeps less than
    `KEPT_ENERGY` of that. Energies exclude the mean, so that a DC offset hides nothing.

    Attributes:
        cancelled: seconds in which channels cancelled each other.
    """

    def __init__(self) -> None:
        self.cancelled = 0.0
        self._energy: np.ndarray | None = None  # of each channel so far
        self._chosen: int | None = None  # in the last piece, the channel instead of the average

    def mix(self, channels: np.ndarray, rate: int) -> np.ndarray:
        """Mix a block [samples, channels] float32 at `rate` Hz to [samples] float32."""
        if channels.shape[1] == 1:
            return channels[:, 0]
        mono = channels.mean(axis=1)
        count = max(1, round(len(channels) / max(1, rate)))
        for piece, mixed in zip(np.array_split(channels, count), np.array_split(mono, count), strict=True):
            if self._energy is None or len(self._energy) != piece.shape[1]:
                self._energy, self._chosen = np.zeros(piece.shape[1]), None
                decided = False
            else:
                decided = len(piece) < SHORTEST_PIECE * rate  # too short to judge; as the piece before it
            if not decided:
                self._chosen = self._channel_instead(piece, mixed)
            if self._chosen is not None:
                mixed[:] = piece[:, self._chosen]
                self.cancelled += len(piece) / rate
        return mono

    def _channel_instead(self, piece: np.ndarray, mixed: np.ndarray) -> int | None:
        """Return the channel to take instead of the average, `None` where the average is fine."""
        energies = np.array([np.var(channel, dtype=np.float64) for channel in piece.T])
        self._energy += energies * len(piece)
        if not np.var(mixed, dtype=np.float64) < KEPT_ENERGY * energies.sum() / len(energies) ** 2:
            return None
        # A channel that is silent here is no help, however loud it was before.
        return int(np.argmax(np.where(energies >= ALMOST_AS_LOUD * energies.max(), self._energy, -1.0)))


def _resampler(old_rate: int, new_rate: int) -> soxr.ResampleStream:
    """Make a resampler for blocks, bit-identical to `soxr.resample` of the whole. Why soxr: docs/notes.md."""
    return soxr.ResampleStream(old_rate, new_rate, 1, dtype="float32", quality="VHQ")
