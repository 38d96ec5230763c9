"""Measure from its container how much sound a file holds, without decoding it.

Decoders end silently where a file is cut off, and after the first of several recordings in one file. FFmpeg, which
could be asked instead, may not be installed."""

import contextlib
import dataclasses
import io
import re
import struct
from collections.abc import Iterator
from typing import BinaryIO, Literal

# Lengths that programs write before they know the real one: 0, and values at or near the largest of 31 and 32 bits.
UNKNOWN_LENGTHS = (range(0x7FFFF000, 0x80000001), range(0xFFFFF000, 0x100000001), range(2**63 - 4096, 2**64))
SCANNED_AT_ONCE = 1 << 20
MOST_PARTS = 10_000  # of a file; if there are more, the bytes are not what they seem
FLAC_START = b"fLaC\x00\x00\x00\x22"  # and the length of the block that comes first
MP3_HEADER = re.compile(rb"\xff[\xe2-\xe7\xf2-\xff][\x10-\xef]")
MP3_HEAD = 54  # bytes of a frame that hold a header of lengths
# In kbit/s by the index in the header: version 1 layers I to III, then versions 2 and 2.5 layer I, layers II and III.
MP3_BITRATES = (
    (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
MP3_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


@dataclasses.dataclass(frozen=True)
class Part:
    """
    One of the consecutive recordings in a file; nearly every file holds only one.

    Attributes:
        start, end: its place in the file, in bytes.
        seconds: seconds of sound in the file, `None` where only decoding tells.
        promised: seconds of sound that its header promises, `None` where it does not.
        share: share of the promised bytes of sound that is in the file.
        cut: whether the file ends inside a unit of its container, or without the mark of the end.
    """

    start: int
    end: int
    seconds: float | None = None
    promised: float | None = None
    share: float = 1.0
    cut: bool = False


def measure(file: BinaryIO) -> list[Part]:
    """
    Find the parts of an audio file, in their order. An unknown container gives one part without lengths.

    A damaged header is no error. It gives a part of which nothing is known.

    Args:
        file: open at any position.

    Raises:
        OSError: the system cannot read the file.
    """
    size = file.seek(0, io.SEEK_END)
    unknown = [Part(0, size)]
    with contextlib.suppress(ValueError, IndexError, KeyError, OverflowError, ZeroDivisionError, struct.error):
        parts = _parts(file, size)
        if 0 < len(parts) <= MOST_PARTS:
            return parts
    return unknown


def _parts(file: BinaryIO, size: int) -> list[Part]:
    start = _after_id3(file, 0)
    magic = _read(file, start, 16)
    if magic.startswith(b"fLaC"):
        return _flac(file, start, size)
    if frame := _mp3_frame(magic[:4]):
        return _mp3(file, start, size, frame)
    magic = _read(file, 0, 16)
    if magic.startswith(b"OggS"):
        return _ogg(file, size)
    if magic[4:8] == b"ftyp":
        return _mp4(file, size)
    parts: list[Part] = []
    position = 0
    while (part := _chunked(file, position, size)) is not None and len(parts) <= MOST_PARTS:
        parts.append(part)
        position = part.end
    if parts:  # data after the last part belongs to it: tags, or what only a decoder knows
        parts[-1] = dataclasses.replace(parts[-1], end=size)
    return parts


def _read(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)


def _after_id3(file: BinaryIO, position: int) -> int:
    """Return the end of the ID3v2 tags that begin at a position."""
    while (header := _read(file, position, 10))[:3] == b"ID3" and len(header) == 10:
        length = sum((byte & 0x7F) << shift for byte, shift in zip(header[6:], (21, 14, 7, 0), strict=True))
        position += 10 + length + (10 if header[5] & 0x10 else 0)
    return position


# ------------------------------------------------------------------------------------ wav, w64, aiff, au, caf and mp4


def _chunked(file: BinaryIO, start: int, size: int) -> Part | None:
    """Compare the length of the sound chunk with the file's size, where a file of chunks begins at `start`."""
    magic = _read(file, start, 40)
    if magic[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and magic[8:12] == b"WAVE":
        order: Literal["little", "big"] = "big" if magic[:4] == b"RIFX" else "little"
        return _chunks(file, start, start + 12, size, order, (b"data",), int.from_bytes(magic[4:8], order) + 8)
    if magic[:4] == b"FORM" and magic[8:12] in (b"AIFF", b"AIFC"):
        return _chunks(file, start, start + 12, size, "big", (b"SSND",), int.from_bytes(magic[4:8], "big") + 8)
    if magic[:4] == b"caff":
        return _chunks(file, start, start + 8, size, "big", (b"data",), 0, length_bytes=8)
    if magic[:4] == b"riff" and magic[24:28] == b"wave":
        end = int.from_bytes(magic[16:24], "little")
        return _chunks(file, start, start + 40, size, "little", (b"data",), end, name_bytes=16, length_bytes=8)
    if magic[:4] == b".snd":
        offset, length = struct.unpack(">II", magic[4:12])
        return _data(start, start + offset, length, size, start + offset + length)
    return None


def _chunks(
    file: BinaryIO,
    start: int,
    position: int,
    size: int,
    order: Literal["little", "big"],
    names: tuple[bytes, ...],
    whole: int,
    name_bytes: int = 4,
    length_bytes: int = 4,
) -> Part | None:
    long_length = None
    while len(header := _read(file, position, name_bytes + length_bytes)) == name_bytes + length_bytes:
        name, length = header[:4], int.from_bytes(header[name_bytes:], order)
        body = position + len(header)
        if name_bytes == 16:  # the lengths of w64 count their own header
            length -= 24
        if name == b"ds64":
            long_length = struct.unpack("<Q", _read(file, body + 8, 8))[0]
        if name in names:
            if length == 0xFFFFFFFF and long_length is not None:
                length, whole = long_length, 0
            if length == 0 and _chunks(file, start, body, size, order, (), 0, name_bytes, length_bytes) is not None:
                return Part(start, size, promised=0.0)
            return _data(start, body, length, size, max(start + whole, body + length + length % 2))
        if length < 0 or body + length > size:
            return None
        padding = -length % (8 if name_bytes == 16 else 2 if length_bytes == 4 else 1)
        position = body + length + padding
    return Part(start, size) if not names and position >= size else None  # chunks up to the end of the file


def _data(start: int, body: int, length: int, size: int, end: int) -> Part:
    """Make the part of a sound chunk. If its length was unknown when written, it reaches to the end of the file."""
    if length == 0 or any(length in unknown for unknown in UNKNOWN_LENGTHS) and body + length > size:
        return Part(start, size)
    return Part(start, min(end, size), share=min(1.0, max(0, size - body) / length))


def _mp4(file: BinaryIO, size: int) -> list[Part]:
    """Begin a part at each `ftyp`. Only ffmpeg tells their lengths."""
    starts, position = [], 0
    while len(header := _read(file, position, 16)) >= 8:
        length = int.from_bytes(header[:4], "big")
        if header[4:8] == b"ftyp":
            starts.append(position)
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8:  # 0: up to the end of the file
            break
        position += length
    return [Part(start, end) for start, end in zip(starts, [*starts[1:], size], strict=True)]


# --------------------------------------------------------------------------------------------------------------- flac


def _flac(file: BinaryIO, first: int, size: int) -> list[Part]:
    """Read how many samples each header promises. Only decoding tells how many there are."""
    starts = [0, *_find(file, FLAC_START, first + 1, size)]
    parts = []
    for start, end in zip(starts, [*starts[1:], size], strict=True):
        info = _read(file, (start or first) + 8, 34)
        rate, samples = int.from_bytes(info[10:13], "big") >> 4, int.from_bytes(info[13:18], "big") & (2**36 - 1)
        parts.append(Part(start, end, promised=samples / rate if samples else None))
    return parts


def _find(file: BinaryIO, wanted: bytes, position: int, size: int) -> Iterator[int]:
    """Yield the positions of `wanted` from a position on."""
    while position < size:
        block = _read(file, position, SCANNED_AT_ONCE + len(wanted) - 1)
        at = block.find(wanted)
        while at >= 0:
            yield position + at
            at = block.find(wanted, at + 1)
        position += SCANNED_AT_ONCE


# ---------------------------------------------------------------------------------------------------------------- ogg


@dataclasses.dataclass
class _Link:
    """Numbers of one stream in a chained Ogg, from the pages that were read so far."""

    start: int
    serial: bytes | None = None
    rate: int = 0
    before: int = 0  # samples of the codec before the recording begins
    first: int | None = None  # the position in samples at the end of its first page of audio that has one, and
    first_most: int = 0  # the most samples that the packets up to there can hold
    last: int = 0
    ended: bool = False

    def part(self, end: int, cut: bool) -> Part:
        if not self.rate:
            return Part(self.start, end, cut=cut)
        # A stream that was recorded while on the air counts from the start of the broadcast.
        offset = self.first if self.first is not None and self.first > self.first_most else self.before
        return Part(self.start, end, seconds=max(0, self.last - offset) / self.rate, cut=cut or not self.ended)


def _ogg(file: BinaryIO, size: int) -> list[Part]:
    """Read the position in samples of the last page of every link (RFC 3533, RFC 7845 for Opus)."""
    links: list[_Link] = []
    position, at_start, packets, cut = 0, False, 0, False
    while len(page := _read(file, position, 27)) == 27:
        if page[:4] != b"OggS":
            # Something else between two pages, or after the last one.
            position = next(_find(file, b"OggS", position + 1, size), size)
            continue
        flags, granule, serial = page[5], int.from_bytes(page[6:14], "little", signed=True), page[14:18]
        count = page[26]
        lacing = file.read(count)
        body = position + 27 + count
        end = body + sum(lacing)
        if flags & 2:  # the first page of a stream; those of one link are adjacent
            if not at_start:
                links.append(_Link(position))
            at_start = True
            rate, before = _ogg_codec(file.read(64))
            if rate and not links[-1].rate:
                links[-1].serial, links[-1].rate, links[-1].before, packets = serial, rate, before, 0
        else:
            at_start = False
        if end > size or len(lacing) < count:
            cut = True
            break
        if links and links[-1].serial == serial and not flags & 2:
            link = links[-1]
            packets += sum(length < 255 for length in lacing)
            if granule > 0:
                if link.first is None:
                    link.first, link.first_most = granule, packets * 8192
                link.last = max(link.last, granule)
            link.ended = link.ended or bool(flags & 4)
        position = end
    else:
        cut = 0 < len(page) < 27 and page[:4] == b"OggS"[: len(page)]
    ends = [*(link.start for link in links[1:]), size]
    return [link.part(end, cut and end == size) for link, end in zip(links, ends, strict=True)]


def _ogg_codec(packet: bytes) -> tuple[int, int]:
    """Return the rate in Hz in which a stream counts its samples, 0 without audio, and the samples to drop first."""
    if packet.startswith(b"\x01vorbis"):
        return int.from_bytes(packet[12:16], "little"), 0
    if packet.startswith(b"OpusHead"):
        return 48_000, int.from_bytes(packet[10:12], "little")
    if packet.startswith(b"\x7fFLAC"):
        return int.from_bytes(packet[27:30], "big") >> 4, 0
    if packet.startswith(b"Speex   "):
        return int.from_bytes(packet[36:40], "little"), 0
    return 0, 0


# ---------------------------------------------------------------------------------------------------------------- mp3


@dataclasses.dataclass(frozen=True)
class _Frame:
    length: int  # bytes
    samples: int
    rate: int  # Hz
    mono: bool


def _mp3_frame(header: bytes) -> _Frame | None:
    """Read the four header bytes of an MPEG audio frame; `None` where they are no header (ISO 11172-3, 2.4)."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)  # version 3: 1, 2: 2, 0: 2.5
    bitrate, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    first = version == 3
    kbits = MP3_BITRATES[layer - 1 if first else 3 if layer == 1 else 4][bitrate - 1]
    hertz, padding = MP3_RATES[version][rate], header[2] >> 1 & 1
    samples = 384 if layer == 1 else 576 if layer == 3 and not first else 1152
    length = (12_000 * kbits // hertz + padding) * 4 if layer == 1 else samples * 125 * kbits // hertz + padding
    return _Frame(length, samples, hertz, header[3] >> 6 == 3)


def _mp3(file: BinaryIO, first: int, size: int, frame: _Frame) -> list[Part]:
    """
    Count frames. A part begins at a header of lengths, after the frames that such a header promises, and where the rate
    or the number of channels changes, because decoders end at each of these.
    """
    end_of_sound = _before_tags(file, size)
    promised, promised_bytes = _mp3_promise(_read(file, first, MP3_HEAD), frame)
    if promised and abs(end_of_sound - first - promised_bytes) <= 2 * frame.length:  # complete, and no more
        seconds = promised * frame.samples / frame.rate
        return [Part(0, size, seconds=seconds, promised=seconds)]
    runs: list[_Run] = []
    for position, frame, head in _mp3_frames(file, first, end_of_sound):
        promised, _ = _mp3_promise(head, frame)
        run = runs[-1] if runs else None
        if run is None or promised is not None or (frame.rate, frame.mono) != (run.kind.rate, run.kind.mono):
            runs.append(run := _Run(position if runs else 0, frame, promised))
            if promised is not None:
                continue  # a frame of silence, which does not count
        run.frames += 1
        if run.frames == run.promised:
            run.promise_kept = position + frame.length
    return [
        part for run, end in zip(runs, [*(run.start for run in runs[1:]), size], strict=True) for part in run.parts(end)
    ]


@dataclasses.dataclass
class _Run:
    """Count frames that a decoder takes for one recording."""

    start: int
    kind: _Frame
    promised: int | None  # frames, by a header of lengths
    frames: int = 0
    promise_kept: int = 0  # where as many frames as promised have come

    def parts(self, end: int) -> list[Part]:
        duration = self.kind.samples / self.kind.rate
        if self.promised is None:
            return [Part(self.start, end, seconds=self.frames * duration)]
        promised = self.promised * duration
        if not 0 < self.promised < self.frames - 2:  # some programs count the header as a frame, and some do not
            return [Part(self.start, end, seconds=self.frames * duration, promised=promised)]
        rest = (self.frames - self.promised) * duration
        return [Part(self.start, self.promise_kept, promised, promised), Part(self.promise_kept, end, rest)]


def _mp3_frames(file: BinaryIO, position: int, end: int) -> Iterator[tuple[int, _Frame, bytes]]:
    """Yield position, header and first bytes of every whole frame."""
    headers: dict[bytes, _Frame | None] = {}
    while position < end:
        head = _read(file, position, MP3_HEAD)
        if (header := head[:4]) not in headers:
            headers[header] = _mp3_frame(header)
        frame = headers[header]
        if frame is None:
            position = _next_mp3_frame(file, position, end)
            continue
        if position + frame.length > end:
            return
        yield position, frame, head
        position += frame.length


def _next_mp3_frame(file: BinaryIO, position: int, end: int) -> int:
    """Find the first place after a position where two frames follow one another, after tags or damage; else the end."""
    position = max(_after_id3(file, position), position + 1)
    while position < end and (block := _read(file, position, SCANNED_AT_ONCE)):
        for found in MP3_HEADER.finditer(block):
            at = position + found.start()
            frame = _mp3_frame(_read(file, at, 4))
            if frame is not None and _mp3_frame(_read(file, at + frame.length, 4)) is not None:
                return at
        position += max(1, len(block) - 2)  # a header may begin with the last bytes of a block
    return end


def _mp3_promise(head: bytes, frame: _Frame) -> tuple[int | None, int]:
    """Return the frames and bytes in a Xing or Fraunhofer header of lengths; `None` where there is none."""
    if head[36:40] == b"VBRI":
        return int.from_bytes(head[50:54], "big"), int.from_bytes(head[46:50], "big")
    for name in (b"Xing", b"Info"):
        # Its place is after the side information, whose size depends on version and channels.
        if (at := head.find(name, 4, 44)) in (13, 15, 21, 23, 36, 38):
            flags = int.from_bytes(head[at + 4 : at + 8], "big")
            frames, length = struct.unpack(">II", head[at + 8 : at + 16])
            return (frames or None, length if flags & 2 else 0) if flags & 1 else (None, 0)
    return None, 0


def _before_tags(file: BinaryIO, size: int) -> int:
    """Return the position where the tags at the end of a file begin."""
    end = size - 128 if _read(file, max(0, size - 128), 3) == b"TAG" else size
    footer = _read(file, max(0, end - 32), 32)
    if footer[:8] == b"APETAGEX":
        end -= int.from_bytes(footer[12:16], "little") + (32 if footer[23] & 0x80 else 0)
    return end
