"""Show the progress of an update in seconds of audio."""

import os
import sys
import time
from collections.abc import Mapping

import soundfile
from tqdm.auto import tqdm

HEADER_SECONDS = 2.0  # for reading lengths from headers; the lengths of the other files are estimated from their sizes
BYTES_PER_SECOND = 16_000  # of files of which no header is read: 128 kbit/s
MIN_BYTES_PER_SECOND = 100  # of silence in FLAC; a damaged header may promise years
FIRST_LINE_SECONDS, LINE_SECONDS = 10.0, 30.0  # when a log gets its first line, and how often further ones


class Progress:
    """
    A bar on a terminal or in a notebook; a line now and then where standard error is a file or a pipe.

    Args:
        sizes: path of each file that is to be read -> its size in bytes.
        shown: whether to show anything.
    """

    def __init__(self, sizes: Mapping[str, int], shown: bool):
        self.lengths = estimate_lengths(sizes) if shown else dict.fromkeys(sizes, 0.0)
        self.embedded = dict.fromkeys(sizes, 0.0)  # seconds of each file
        self.files = 0
        self.bar = tqdm(
            total=sum(self.lengths.values()),
            desc="Indexing",
            smoothing=0,  # the time left is estimated from the whole run
            bar_format="{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}{postfix}]",
            disable=None if shown else True,  # None: not on a terminal
        )
        self.in_log = shown and self.bar.disable
        self.seconds = 0.0  # done, of all files
        self.total = float(sum(self.lengths.values()))
        self.began = time.monotonic()
        self.next_line = self.began + FIRST_LINE_SECONDS

    def add_window(self, path: str, end: float) -> None:
        """Count a file as embedded up to `end` seconds."""
        if end > self.embedded[path]:
            self._count(path, end, max(end, self.lengths[path]))

    def add_file(self, path: str) -> None:
        """Count a file as done. Its length is that of its windows or, if it was not decoded, the estimated one."""
        self.files += 1
        seconds = self.embedded[path] or self.lengths[path]
        self._count(path, seconds, seconds)

    def _count(self, path: str, seconds: float, length: float) -> None:
        fresh = seconds - self.embedded[path]
        self.seconds += fresh
        self.total += length - self.lengths[path]
        self.embedded[path], self.lengths[path] = seconds, length
        counts = (
            f"{tqdm.format_interval(self.seconds)} of {tqdm.format_interval(self.total)} of audio, "
            f"{self.files} of {len(self.lengths)} files"
        )
        self.bar.total = max(self.total, self.seconds)  # rounding must not bring it below what is done
        self.bar.set_postfix_str(counts, refresh=False)
        self.bar.update(fresh)
        now = time.monotonic()
        if self.in_log and now >= self.next_line:
            self.next_line = now + LINE_SECONDS
            left = (now - self.began) * (self.total - self.seconds) / max(self.seconds, 1e-9)
            percentage = 100 * self.seconds / max(self.total, 1e-9)
            line = f"Indexing: {percentage:.0f}%, {counts}, about {tqdm.format_interval(max(left, 0))} left"
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        self.bar.close()


def estimate_lengths(sizes: Mapping[str, int], seconds: float = HEADER_SECONDS) -> dict[str, float]:
    """
    Return path -> length in seconds, from the headers of files and, for the others, from the size.

    Args:
        sizes: path -> size in bytes.
        seconds: time in which headers are read. A file that is not reached, or whose header libsndfile does not read,
            is taken for as many bytes per second as the files of its ending.
    """
    end = time.monotonic() + seconds
    lengths: dict[str, float] = {}
    by_ending: dict[str, tuple[float, int]] = {}  # seconds and bytes of the files whose headers were read
    for path, size in sizes.items():
        if time.monotonic() >= end:
            break
        try:
            # As bytes, since a name may not be UTF-8; Windows has no such names.
            length = soundfile.info(path if os.name == "nt" else os.fsencode(path)).duration
        except (soundfile.SoundFileError, OSError, RuntimeError, ValueError, TypeError):
            continue
        length = min(length, size / MIN_BYTES_PER_SECOND)
        lengths[path] = length
        ending = os.path.splitext(path)[1].lower()
        known_seconds, known_bytes = by_ending.get(ending, (0.0, 0))
        by_ending[ending] = known_seconds + length, known_bytes + size
    for path in sizes.keys() - lengths.keys():
        known_seconds, known_bytes = by_ending.get(os.path.splitext(path)[1].lower(), (0.0, 0))
        rate = known_seconds / known_bytes if known_bytes and known_seconds else 1 / BYTES_PER_SECOND
        lengths[path] = sizes[path] * rate
    return lengths
