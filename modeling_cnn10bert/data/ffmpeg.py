"""What libsndfile cannot decode, decoded by an installed `ffmpeg`; only audio_io.py uses this."""

import contextlib
import os
import selectors
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator

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


class FFmpegError(ValueError):
    """ffmpeg is not there, or does not decode a file; the message is its reason, without the file's name."""


@contextlib.contextmanager
def open_stream(path: str | os.PathLike) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    """
    Decodes the first audio stream of a file.

    Args:
        path: of a regular file, whatever its name holds.

    Yields:
        Its sampling rate in Hz, and blocks [samples, channels] float32 as they are decoded.

    Raises:
        FFmpegError: no ffmpeg, no audio, not decodable, or nothing heard of ffmpeg for `STALL_SECONDS`; also from the
            blocks.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise FFmpegError("and no ffmpeg is installed")
    # `file:` makes anything a name: `-i.wav` no option, `http:x.wav` no address. An AU file starts with its rate and
    # channels, so that one process tells them and the samples.
    command = [program, "-nostdin", "-hide_banner", "-v", "error", "-threads", "1"]
    command += ["-protocol_whitelist", "file,pipe", "-format_whitelist", CONTAINERS, "-i", f"file:{os.fspath(path)}"]
    command += ["-map", "0:a:0", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
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
            yield rate, _blocks(pipe, channels, process, messages)
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
                    raise FFmpegError(f"ffmpeg gave nothing for {STALL_SECONDS:g} s")
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
    pipe.read(offset - len(header))  # an annotation
    return rate, channels


def _blocks(pipe: _Pipe, channels: int, process: subprocess.Popen, messages) -> Iterator[np.ndarray]:
    """[samples, channels] float32 until ffmpeg is done."""
    frame = 4 * channels
    while data := pipe.read(max(1, BLOCK_BYTES // frame) * frame):
        whole = len(data) - len(data) % frame
        yield np.frombuffer(data[:whole], dtype=">f4").astype(np.float32).reshape(-1, channels)
    if reason := _reason(process, messages):
        raise FFmpegError(reason)


def _reason(process: subprocess.Popen, messages) -> str | None:
    """Why ffmpeg failed, from its last line; `None` where it did not."""
    deadline = time.monotonic() + STALL_SECONDS
    while process.poll() is None:  # it has closed its output, so it is about to end
        if time.monotonic() > deadline:
            raise FFmpegError(f"ffmpeg did not end within {STALL_SECONDS:g} s")
        time.sleep(0.005)
    if process.returncode == 0:
        return None
    messages.seek(0, os.SEEK_END)
    messages.seek(max(0, messages.tell() - 4096))
    lines = messages.read().decode("utf-8", "replace").strip().splitlines()
    # The line that starts with the name would repeat it; what follows its last ": " is the reason.
    return f"ffmpeg: {lines[-1].rsplit(': ', 1)[-1]}" if lines else f"ffmpeg ended with code {process.returncode}"
