"""Hash and decode files in the background, some windows ahead of the model."""

import collections
import contextlib
import dataclasses
import os
import queue
import threading
from collections.abc import Callable, Iterable

import numpy as np

from ..data.audio_io import printable
from ..errors import AudioError, UnreadableError
from .records import EmbeddedFile, FileRecord, file_stamp
from .scanning import reason_of
from .windows import content_hash, read_windows

THREAD = "cnn10bert-reader"  # prefix of the threads' names


@dataclasses.dataclass(eq=False)
class File:
    """
    A file that is being read and embedded.

    Attributes:
        path: the file.
        record: its record, set when it is hashed; the duration is set when it is decoded.
        is_decoded: whether it is decoded, and not only hashed.
        is_read: whether all its windows were taken from the reader.
        fault: why it cannot be used, without its name.
        is_no_recording: whether its content is at fault, rather than an error while reading it.
        notes: notes of `load_audio`.
        num_windows: number of decoded windows.
        embeds: start and end of a window in seconds -> [D], its embedding.
    """

    path: str
    record: FileRecord | None = None
    is_decoded: bool = False
    is_read: bool = False
    fault: str | None = None
    is_no_recording: bool = False
    notes: list[str] = dataclasses.field(default_factory=list)
    num_windows: int = 0
    embeds: dict[tuple[float, float], np.ndarray] = dataclasses.field(default_factory=dict)

    def embedded(self, record: FileRecord) -> EmbeddedFile:
        """Return its embeddings as those of a recording."""
        spans = sorted(self.embeds)
        return EmbeddedFile(record, spans, np.stack([self.embeds[span] for span in spans]))


@dataclasses.dataclass(frozen=True)
class Window:
    """A window of a file: start and end in seconds, [samples] float32."""

    file: File
    start: float
    end: float
    waveform: np.ndarray


class Reader:
    """
    Threads that read files; decoding and hashing release Python's lock.

    Args:
        workers: number of threads.
        sampling_rate: sampling rate of the waveforms, in Hz.
        window, overlap: in seconds.
        level_normalized: see `read_windows`.
        claim: tells whether to decode a hashed file; called in the threads.
        ahead: maximum seconds of audio that wait to be taken, plus one window per thread.
    """

    def __init__(
        self,
        workers: int,
        sampling_rate: int,
        window: float,
        overlap: float,
        level_normalized: bool,
        claim: Callable[[FileRecord], bool],
        ahead: float,
    ):
        self.windows = (sampling_rate, window, overlap)
        self.level_normalized = level_normalized
        self.claim = claim
        self.unread = 0  # files that were submitted and not yet taken
        self._jobs: queue.SimpleQueue[tuple[str, bool] | None] = queue.SimpleQueue()
        # Not a queue.Queue, which counts windows: a hundred short ones take no more memory than one of 30 s.
        self._messages: collections.deque[Window | File] = collections.deque()
        self._ahead, self._waiting = ahead, 0.0  # seconds
        self._changed = threading.Condition()
        self._closed = False
        # Daemon threads, because a ThreadPoolExecutor waits for its threads at exit and a decoder may hang.
        self._threads = [
            threading.Thread(target=self._work, name=f"{THREAD}-{n}", daemon=True) for n in range(max(1, workers))
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, paths: Iterable[str], unconditionally: bool = False) -> None:
        """Queue files to be read; `unconditionally` decodes them even if their content is known."""
        for path in paths:
            self.unread += 1
            self._jobs.put((path, unconditionally))

    def next(self) -> Window | File:
        """Wait for a window, or for a file that was read to its end."""
        with self._changed:
            self._changed.wait_for(lambda: self._messages)
            message = self._messages.popleft()
            if isinstance(message, File):
                self.unread -= 1
            else:
                self._waiting -= message.end - message.start
                self._changed.notify_all()
            return message

    def has_next(self) -> bool:
        """Tell whether `next` would return at once."""
        return bool(self._messages)

    def close(self) -> None:
        """Stop the threads, each after the block that it is decoding."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(timeout=5)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None and not self._closed:
            file = File(job[0])
            try:
                self._read(file, unconditionally=job[1])
            except FileNotFoundError:
                file.fault, file.is_no_recording = "deleted while it was indexed", False
            except OSError as error:
                file.fault, file.is_no_recording = reason_of(error), False
            except MemoryError:
                file.fault, file.is_no_recording = "there is too little memory to read it now", False
            except Exception as error:  # an unexpected error of a decoder skips one file and does not end the run
                file.fault, file.is_no_recording = f"{type(error).__name__}: {error}", file.is_decoded
            self._put(file)

    def _read(self, file: File, unconditionally: bool) -> None:
        status = file_stamp(os.stat(file.path))
        file.record = FileRecord(file.path, content_hash(file.path), *status, duration=0.0)
        file.is_decoded = self.claim(file.record) or unconditionally
        fault = None
        if file.is_decoded:
            try:
                self._decode(file, file.record)
            except AudioError as error:
                fault = error
        # The content is at fault only if it is still what was hashed and the system did not run out of a resource,
        # such as open files.
        if file_stamp(os.stat(file.path)) != status:
            file.fault, file.is_no_recording = "it changed while it was read; index again when it is whole", False
        elif fault is not None:
            file.fault = str(fault).removeprefix(f"{printable(file.path)}: ")
            file.is_no_recording = not isinstance(fault, UnreadableError)

    def _decode(self, file: File, record: FileRecord) -> None:
        windows = read_windows(file.path, *self.windows, file.notes, self.level_normalized)
        with contextlib.closing(windows):
            for start, end, waveform in windows:
                file.num_windows += 1
                file.record = dataclasses.replace(record, duration=end)
                if not self._put(Window(file, start, end, waveform)):
                    return

    def _put(self, message: Window | File) -> bool:
        """Queue a message, a window as soon as there is room for it; return `False` once the reader is closed."""
        with self._changed:
            if isinstance(message, Window):
                self._changed.wait_for(lambda: self._closed or self._waiting < self._ahead)
                self._waiting += message.end - message.start
            self._messages.append(message)
            self._changed.notify_all()
            return not self._closed
