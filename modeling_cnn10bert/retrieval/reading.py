"""Files are hashed and decoded in the background, some seconds of audio ahead of the model."""

import collections
import contextlib
import dataclasses
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from ..data.audio_io import printable
from ..errors import AudioError, UnreadableError
from .records import FileRecord, file_stamp
from .scanning import reason_of
from .windows import content_hash, read_windows

THREAD = "cnn10bert-reader"  # what the names of the threads begin with
DELETED = "deleted while it was indexed"


@dataclasses.dataclass(frozen=True)
class Window:
    """A window of a recording: start and end in seconds, [samples] float32."""

    path: str
    start: float
    end: float
    waveform: np.ndarray


@dataclasses.dataclass(frozen=True)
class Whole:
    """A file is read to its end; where `decoded` is false its content was known, and its duration is not. `notes` are
    those of `load_audio`."""

    record: FileRecord
    decoded: bool
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Failure:
    """
    A file cannot be used.

    Attributes:
        path: the file.
        reason: why, without its name.
        record: what was read and is at fault; `None` where the fault may have passed when the file is read again.
        claimed: the content that was to be decoded, if that was known already.
    """

    path: str
    reason: str
    record: FileRecord | None = None
    claimed: FileRecord | None = None


class Reader:
    """
    Threads that read files; decoders and hashes leave Python's lock to others.

    Args:
        workers: threads.
        sampling_rate: of the waveforms, in Hz.
        window, overlap: in seconds.
        claim: whether a file's content, told by a record without duration, is to be decoded; called in the threads.
        ahead: seconds of audio that wait for the model at most, plus one window a thread.
    """

    def __init__(
        self,
        workers: int,
        sampling_rate: int,
        window: float,
        overlap: float,
        claim: Callable[[FileRecord], bool],
        ahead: float,
    ):
        self.sampling_rate, self.window, self.overlap = sampling_rate, window, overlap
        self.claim = claim
        self.jobs = _Channel(limit=float("inf"))
        self.messages = _Channel(limit=ahead)
        self.unfinished = 0  # files that were submitted and are neither whole nor failed
        # Daemons: a decoder that hangs must not keep the program from ending.
        self.threads = [
            threading.Thread(target=self._work, name=f"{THREAD}-{n}", daemon=True) for n in range(max(1, workers))
        ]
        for thread in self.threads:
            thread.start()

    def submit(self, path: str, unconditionally: bool = False) -> None:
        """Has a file read, `unconditionally` whether its content is known or not."""
        self.unfinished += 1
        self.jobs.put((path, unconditionally), cost=0)

    def next(self) -> Window | Whole | Failure:
        """The next message; every file ends with one that is no `Window`."""
        message = self.messages.get()
        if not isinstance(message, Window):
            self.unfinished -= 1
        return message

    def close(self) -> None:
        """Ends the threads, each after the block that it is decoding."""
        self.jobs.close()
        self.messages.close()
        for thread in self.threads:
            thread.join(timeout=5)

    def _work(self) -> None:
        with contextlib.suppress(_Closed):
            while True:
                path, unconditionally = self.jobs.get()
                self.messages.put(self._read(path, unconditionally), cost=0)

    def _read(self, path: str, unconditionally: bool) -> Whole | Failure:
        claimed = None
        notes: list[str] = []
        try:
            status = _status(path)
            record = FileRecord(path, content_hash(path), *status, duration=0.0)
            decoded = self.claim(record) or unconditionally
            if decoded:
                claimed = record
                record = dataclasses.replace(record, duration=self._decode(path, notes))
            if _status(path) != status:
                return Failure(path, "it changed while it was read; index again when it is whole", claimed=claimed)
            return Whole(record, decoded, tuple(notes))
        except FileNotFoundError:
            return Failure(path, DELETED, claimed=claimed)
        except OSError as error:
            return Failure(path, reason_of(error), claimed=claimed)
        except AudioError as error:
            return _undecodable(path, error, claimed, status)
        except _Closed:
            raise
        except MemoryError:
            return Failure(path, "there is too little memory to read it now", claimed=claimed)
        except Exception as error:  # a decoder met what it was not made for: one file, not the run
            return Failure(path, f"{type(error).__name__}: {error}", record=claimed, claimed=claimed)

    def _decode(self, path: str, notes: list[str]) -> float:
        """Hands out the windows and returns the duration in seconds."""
        end = 0.0
        with contextlib.closing(read_windows(path, self.sampling_rate, self.window, self.overlap, notes)) as windows:
            for start, end, waveform in windows:
                self.messages.put(Window(path, start, end, waveform), cost=end - start)
        return end


def _undecodable(path: str, error: AudioError, claimed: FileRecord | None, status: tuple[int, int]) -> Failure:
    """Blames the content only if the file is still what was hashed, and the system gave all that it was asked for, such
    as another open file."""
    try:
        at_fault = _status(path) == status and not isinstance(error, UnreadableError)
    except FileNotFoundError:
        return Failure(path, DELETED, claimed=claimed)
    except OSError as system_error:
        return Failure(path, reason_of(system_error), claimed=claimed)
    reason = str(error).removeprefix(f"{printable(path)}: ")
    return Failure(path, reason, record=claimed if at_fault else None, claimed=claimed)


def _status(path: str) -> tuple[int, int]:
    """Size in bytes and time of modification in nanoseconds since 1970."""
    return file_stamp(os.stat(path))


class _Closed(Exception):
    """Nobody reads the channel any more."""


class _Channel:
    """A queue that takes what costs something only while less than `limit` waits in it."""

    def __init__(self, limit: float):
        self.limit, self.cost, self.closed = limit, 0.0, False
        self.items: collections.deque[tuple[Any, float]] = collections.deque()
        self.changed = threading.Condition()

    def put(self, item: Any, cost: float) -> None:
        with self.changed:
            while cost and self.cost >= self.limit and not self.closed:
                self.changed.wait()
            if self.closed:
                raise _Closed
            self.items.append((item, cost))
            self.cost += cost
            self.changed.notify_all()

    def get(self) -> Any:
        with self.changed:
            while not self.items and not self.closed:
                self.changed.wait()
            if self.closed:
                raise _Closed
            item, cost = self.items.popleft()
            # The sum of floats that were added and subtracted may not come back to zero.
            self.cost = self.cost - cost if self.items else 0.0
            self.changed.notify_all()
            return item

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()
