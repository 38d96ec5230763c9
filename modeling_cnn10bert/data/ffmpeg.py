"""Decode what libsndfile cannot with an installed `ffmpeg`. Only audio_io.py uses this."""

import contextlib
import errno
import os
import re
import selectors
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from typing import IO, cast

import numpy as np

STALL_SECONDS = 60.0  # without a byte from ffmpeg, after which it is considered hung
BLOCK_BYTES = 1 << 22
CHUNK_BYTES = 1 << 16  # what a pipe holds on Linux

# Containers of recordings. Playlists, concatenations, image sequences, devices and raw formats are left out: a text
# file must not make ffmpeg open other files, nor may any bytes pass for sound.
CONTAINERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,loas,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,"
    "mp3,mpc,mpc8,mpeg,mpegts,nut,ogg,oma,rm,tak,truehd,tta,w64,wav,wv,xwma"
)


# Errors of the system, not of the file, as ffmpeg words them.
SYSTEM_ERRORS = {
    os.strerror(code): code for code in (errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC)
}
MESSAGES_BYTES = 1 << 16  # of the last messages, which are searched
# Messages at error level that healthy files cause too, about times that our output has no place for.
HARMLESS = ("non monotonically increasing dts", "failed to create or replace stream")
NOT_INSTALLED = "no ffmpeg is installed"  # part of the message


class FFmpegError(ValueError):
    """Error of a missing ffmpeg or an undecodable file; the message is the reason, without the file's name."""


def is_installed() -> bool:
    return shutil.which("ffmpeg") is not None


def find_program() -> str:
    """
    Return the path of ffmpeg.

    Raises:
        FFmpegError: it is not installed.
    """
    if (program := shutil.which("ffmpeg")) is None:
        raise FFmpegError(f"and {NOT_INSTALLED}")
    return program


@contextlib.contextmanager
def open_stream(path: str | os.PathLike, sampling_rate: int | None = None) -> Iterator["Stream"]:
    """
    Decode the first audio stream of a file.

    Args:
        path: path of a regular file, whatever its name.
        sampling_rate: rate to resample to, in Hz; by default that of the file.

    Raises:
        FFmpegError: there is no ffmpeg or no audio, or it does not decode; the blocks raise it too.
        OSError: the system lacks the resources for ffmpeg, or it gives nothing for `STALL_SECONDS`; the blocks raise
            it too.
    """
    # With `file:`, anything is a file name: `-i.wav` is no option, `http:x.wav` no address. An AU file starts with its
    # rate and channels, so that one process gives them and the samples.
    command = [find_program(), "-nostdin", "-hide_banner", "-nostats", "-v", "level+info", "-threads", "1"]
    command += ["-protocol_whitelist", "file,pipe", "-format_whitelist", CONTAINERS, "-i", f"file:{os.fspath(path)}"]
    command += ["-map", "0:a:0", "-c:a", "pcm_f32be"]
    command += [] if sampling_rate is None else ["-ar", str(sampling_rate)]
    command += ["-f", "au", "pipe:1"]
    with tempfile.TemporaryFile() as messages:  # an unread pipe would fill up and stop ffmpeg
        # A session of its own: Ctrl-C reaches us alone, and we end it below.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=messages,
            bufsize=0,
            start_new_session=True,
        )
        pipe = cast(IO[bytes], process.stdout)
        try:
            yield Stream(process, pipe.fileno(), messages)
        finally:
            process.kill()
            pipe.close()
            process.wait()


class Stream:
    """
    Read the AU file that a running ffmpeg writes to its output.

    Attributes:
        rate: in Hz.
        channels: of the blocks.
        duration: seconds that the container gives, known after the last block; `None` if it gives none, or also holds
            pictures, which may last longer.
        fault: message of ffmpeg about damage that it skipped, known after the last block.
    """

    def __init__(self, process: subprocess.Popen, output: int, messages: IO[bytes]):
        self._process, self._output, self._messages = process, output, messages
        self.duration: float | None = None
        self.fault: str | None = None
        header = self._read(24)
        if len(header) < 24:
            raise FFmpegError(self._failure() or "ffmpeg found no audio in it")
        _, offset, _, _, self.rate, self.channels = struct.unpack(">4s5I", header)
        if not self.rate or not self.channels:
            raise FFmpegError(f"ffmpeg found {self.channels} channels at {self.rate} Hz in it")
        self._read(offset - len(header))  # an annotation

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield [samples, channels] float32 as they are decoded."""
        frame = 4 * self.channels
        while data := self._read(max(1, BLOCK_BYTES // frame) * frame):
            whole = len(data) - len(data) % frame
            yield np.frombuffer(data[:whole], dtype=">f4").astype(np.float32).reshape(-1, self.channels)
        if failure := self._failure():
            raise FFmpegError(failure)
        text = self._text(0)
        # `[info]   Duration: 00:00:12.00, ...` comes before anything is decoded.
        found = re.search(r"^\[info\]   Duration: (\d+):(\d\d):(\d\d\.\d+)", text, re.MULTILINE)
        pictures = re.search(r"^\[info\]   Stream #.*: Video: (?!.*attached pic)", text, re.MULTILINE)
        if found and not pictures and "Estimating duration from bitrate" not in text:
            hours, minutes, seconds = found.groups()
            self.duration = 3600 * int(hours) + 60 * int(minutes) + float(seconds)
        for line in self._last_lines():
            if "[error]" in line and not any(harmless in line for harmless in HARMLESS):
                self.fault = f"ffmpeg: {_without_name(line)}"

    def _read(self, size: int) -> bytes:
        """Read `size` bytes, fewer only at the end, with a limit to the wait for the next one."""
        data = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            while len(data) < size:
                if not selector.select(STALL_SECONDS):
                    raise TimeoutError(f"ffmpeg gave nothing for {STALL_SECONDS:g} s")
                part = os.read(self._output, min(size - len(data), CHUNK_BYTES))
                if not part:
                    break
                data += part
        return bytes(data)

    def _failure(self) -> str | None:
        """
        Wait for the end of ffmpeg, and return why it failed; `None` where it did not.

        Raises:
            OSError: the system is the reason.
        """
        try:
            code = self._process.wait(STALL_SECONDS)  # it has closed its output, so it is about to end
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"ffmpeg did not end within {STALL_SECONDS:g} s") from error
        if code == 0:
            return None
        if code < 0:  # by a signal, as where memory is short
            raise OSError(f"ffmpeg was ended by signal {-code}")
        lines = self._last_lines()
        lines = [line for line in lines if "[error]" in line or "[fatal]" in line] or lines
        if not lines:
            return f"ffmpeg ended with code {code}"
        reason = _without_name(lines[-1])
        if reason in SYSTEM_ERRORS:
            raise OSError(SYSTEM_ERRORS[reason], f"ffmpeg: {reason}")
        return f"ffmpeg: {reason}"

    def _last_lines(self) -> list[str]:
        return self._text(max(0, self._messages.seek(0, os.SEEK_END) - MESSAGES_BYTES)).strip().splitlines()

    def _text(self, position: int) -> str:
        self._messages.seek(position)
        return self._messages.read(MESSAGES_BYTES).decode("utf-8", "replace")


def _without_name(line: str) -> str:
    """Return the reason in a line, after its last ": ", where the file's name is not repeated."""
    return line.rsplit(": ", 1)[-1].rsplit("[error] ", 1)[-1].strip()
