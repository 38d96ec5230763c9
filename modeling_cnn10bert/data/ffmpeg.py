"""What libsndfile cannot decode, decoded by an installed `ffmpeg`; only audio_io.py uses this."""

import contextlib
import dataclasses
import errno
import os
import re
import selectors
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import IO

import numpy as np

STALL_SECONDS = 60.0  # without a byte from ffmpeg, after which it is taken for hung
BLOCK_BYTES = 1 << 22
CHUNK_BYTES = 1 << 16  # what a pipe holds on Linux

# Containers of recordings. Playlists, concatenations, image sequences, devices and raw formats are left out: a text
# file must not make ffmpeg open other files, nor may any bytes pass for sound.
CONTAINERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,loas,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,"
    "mp3,mpc,mpc8,mpeg,mpegts,nut,ogg,oma,rm,tak,truehd,tta,w64,wav,wv,xwma"
)


# What the system, not the file, is to blame for, as ffmpeg words it.
SYSTEM_ERRORS = {
    os.strerror(code): code for code in (errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC)
}
MESSAGES_BYTES = 1 << 16  # of those at the end that are looked through
# Messages at the level of errors that healthy files cause too: about times that our output has no place for.
HARMLESS = ("non monotonically increasing dts", "failed to create or replace stream")


class FFmpegError(ValueError):
    """ffmpeg is not there, or does not decode a file; the message is its reason, without the file's name."""


@dataclasses.dataclass
class Stream:
    """
    A stream of audio that is decoded.

    Attributes:
        rate: in Hz.
        blocks: [samples, channels] float32 as they are decoded.
        duration: in seconds, as the container has it, after the last block; `None` where it does not, or also holds
            pictures, which may last longer.
        fault: what ffmpeg says of damage that it went past, after the last block.
    """

    rate: int
    blocks: Iterator[np.ndarray]
    duration: float | None = None
    fault: str | None = None


def is_installed() -> bool:
    return shutil.which("ffmpeg") is not None


@contextlib.contextmanager
def open_stream(path: str | os.PathLike, sampling_rate: int | None = None) -> Iterator[Stream]:
    """
    Decodes the first audio stream of a file.

    Args:
        path: of a regular file, whatever its name holds.
        sampling_rate: to resample to, in Hz; by default its own.

    Raises:
        FFmpegError: no ffmpeg, no audio, or not decodable; also from the blocks.
        OSError: the system does not give what ffmpeg takes, or nothing is heard of it for `STALL_SECONDS`; also from
            the blocks.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise FFmpegError("and no ffmpeg is installed")
    # `file:` makes anything a name: `-i.wav` no option, `http:x.wav` no address. An AU file starts with its rate and
    # channels, so that one process tells them and the samples.
    command = [program, "-nostdin", "-hide_banner", "-nostats", "-v", "level+info", "-threads", "1"]
    command += ["-protocol_whitelist", "file,pipe", "-format_whitelist", CONTAINERS, "-i", f"file:{os.fspath(path)}"]
    command += ["-map", "0:a:0", "-c:a", "pcm_f32be"]
    command += [] if sampling_rate is None else ["-ar", str(sampling_rate)]
    command += ["-f", "au", "pipe:1"]
    with tempfile.TemporaryFile() as messages:  # a pipe that nobody reads would fill up and stop ffmpeg
        # A session of its own: Ctrl-C reaches us alone, and we end it below.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=messages,
            bufsize=0,
            start_new_session=True,
        )
        try:
            pipe = _Pipe(process.stdout.fileno())
            rate, channels = _read_header(pipe, process, messages)
            stream = Stream(rate, iter(()))
            stream.blocks = _blocks(pipe, channels, process, messages, stream)
            yield stream
        finally:
            process.kill()
            process.stdout.close()
            process.wait()


class _Pipe:
    """The read end of a pipe, with a limit to the wait for its next byte."""

    def __init__(self, descriptor: int):
        self.descriptor = descriptor

    def read(self, size: int) -> bytes:
        """`size` bytes, fewer only at the end."""
        parts, missing = [], size
        with selectors.DefaultSelector() as selector:
            selector.register(self.descriptor, selectors.EVENT_READ)
            while missing:
                if not selector.select(STALL_SECONDS):
                    raise TimeoutError(f"ffmpeg gave nothing for {STALL_SECONDS:g} s")
                part = os.read(self.descriptor, min(missing, CHUNK_BYTES))
                if not part:
                    break
                parts.append(part)
                missing -= len(part)
        return b"".join(parts)


def _read_header(pipe: _Pipe, process: subprocess.Popen, messages) -> tuple[int, int]:
    """The sampling rate in Hz and the channels that an AU file starts with."""
    header = pipe.read(24)
    if len(header) < 24:
        raise FFmpegError(_reason(process, messages) or "ffmpeg found no audio in it")
    _, offset, _, _, rate, channels = struct.unpack(">4s5I", header)
    if not rate or not channels:
        raise FFmpegError(f"ffmpeg found {channels} channels at {rate} Hz in it")
    pipe.read(offset - len(header))  # an annotation
    return rate, channels


def _blocks(
    pipe: _Pipe, channels: int, process: subprocess.Popen, messages: IO[bytes], stream: Stream
) -> Iterator[np.ndarray]:
    """[samples, channels] float32 until ffmpeg is done, and then what it had to say."""
    frame = 4 * channels
    while data := pipe.read(max(1, BLOCK_BYTES // frame) * frame):
        whole = len(data) - len(data) % frame
        yield np.frombuffer(data[:whole], dtype=">f4").astype(np.float32).reshape(-1, channels)
    if reason := _reason(process, messages):
        raise FFmpegError(reason)
    stream.duration, stream.fault = _duration(messages), _fault(messages)


def _reason(process: subprocess.Popen, messages: IO[bytes]) -> str | None:
    """
    Why ffmpeg failed, from its last line; `None` where it did not.

    Raises:
        OSError: the system is the reason.
    """
    deadline = time.monotonic() + STALL_SECONDS
    while process.poll() is None:  # it has closed its output, so it is about to end
        if time.monotonic() > deadline:
            raise TimeoutError(f"ffmpeg did not end within {STALL_SECONDS:g} s")
        time.sleep(0.005)
    if process.returncode == 0:
        return None
    if process.returncode < 0:  # by a signal, as where memory is short
        raise OSError(f"ffmpeg was ended by signal {-process.returncode}")
    lines = _last_lines(messages)
    lines = [line for line in lines if "[error]" in line or "[fatal]" in line] or lines
    if not lines:
        return f"ffmpeg ended with code {process.returncode}"
    reason = _without_name(lines[-1])
    if reason in SYSTEM_ERRORS:
        raise OSError(SYSTEM_ERRORS[reason], f"ffmpeg: {reason}")
    return f"ffmpeg: {reason}"


def _duration(messages: IO[bytes]) -> float | None:
    """Reads `[info]   Duration: 00:00:12.00, ...`, which comes before anything is decoded."""
    messages.seek(0)
    text = messages.read(MESSAGES_BYTES).decode("utf-8", "replace")
    found = re.search(r"^\[info\]   Duration: (\d+):(\d\d):(\d\d\.\d+)", text, re.MULTILINE)
    pictures = re.search(r"^\[info\]   Stream #.*: Video: (?!.*attached pic)", text, re.MULTILINE)
    if found is None or pictures or "Estimating duration from bitrate" in text:
        return None
    hours, minutes, seconds = found.groups()
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def _fault(messages: IO[bytes]) -> str | None:
    for line in reversed(_last_lines(messages)):
        if "[error]" in line and not any(harmless in line for harmless in HARMLESS):
            return f"ffmpeg: {_without_name(line)}"
    return None


def _last_lines(messages: IO[bytes]) -> list[str]:
    messages.seek(0, os.SEEK_END)
    messages.seek(max(0, messages.tell() - MESSAGES_BYTES))
    return messages.read().decode("utf-8", "replace").strip().splitlines()


def _without_name(line: str) -> str:
    """The reason in a line: what follows its last ": ", since before that it would repeat the name of the file."""
    return line.rsplit(": ", 1)[-1].rsplit("[error] ", 1)[-1].strip()
