"""Windows of many recordings are embedded in batches of like length, and recordings are whole when all theirs are."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from ..errors import RetrievalError, one_line
from .embedding import Embedder
from .reading import Window
from .records import EmbeddedFile, FileRecord

BATCHES_AT_ONCE = 4  # among which windows are sorted by length, so that little of a batch is padding


@dataclasses.dataclass
class _Unfinished:
    """A recording some of whose windows are not embedded, or not even decoded; its record comes with the last one."""

    spans: list[tuple[float, float]] = dataclasses.field(default_factory=list)
    embeds: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    record: FileRecord | None = None

    @property
    def is_whole(self) -> bool:
        return self.record is not None and len(self.embeds) == len(self.spans)


class Batcher:
    """
    Collects windows and embeds them.

    Args:
        embedder: the model.
        batch_seconds: of audio in a batch, padding included; a longer window is a batch alone.
    """

    def __init__(self, embedder: Embedder, batch_seconds: float):
        self.embedder, self.batch_seconds = embedder, batch_seconds
        self.failures: list[tuple[FileRecord, str]] = []  # with the reason, for the caller to take
        self._waiting: list[tuple[int, Window]] = []  # with the number of the window in its recording
        self._seconds = 0.0
        self._model_is_sound = False
        self._files: dict[str, _Unfinished] = {}
        self._refused: dict[str, str] = {}  # path -> reason; further windows are ignored, up to the end

    def add(self, window: Window) -> list[EmbeddedFile]:
        """Takes a window; the recordings that became whole."""
        if window.path in self._refused:
            return []
        file = self._files.setdefault(window.path, _Unfinished())
        self._waiting.append((len(file.spans), window))
        self._seconds += window.end - window.start
        file.spans.append((window.start, window.end))
        return self.flush() if self._seconds >= BATCHES_AT_ONCE * self.batch_seconds else []

    def end(self, record: FileRecord) -> list[EmbeddedFile]:
        """All windows of a recording were added; the recordings that became whole."""
        if record.path in self._refused:
            self.failures.append((record, self._refused.pop(record.path)))
            return []
        self._files[record.path].record = record
        return self._take([record.path])

    def forget(self, path: str) -> None:
        """Drops a recording that is not read to its end."""
        self._refused.pop(path, None)
        self._files.pop(path, None)
        self._waiting = [(number, window) for number, window in self._waiting if window.path != path]
        self._seconds = sum(window.end - window.start for _, window in self._waiting)

    def flush(self) -> list[EmbeddedFile]:
        """Embeds all that waits; the recordings that became whole."""
        waiting = sorted(self._waiting, key=lambda numbered: numbered[1].waveform.size)
        self._waiting, self._seconds = [], 0.0
        for batch in self._batches(waiting):
            self._embed(batch)
        return self._take(dict.fromkeys(window.path for _, window in waiting))

    def _batches(self, waiting: list[tuple[int, Window]]) -> Iterator[list[tuple[int, Window]]]:
        """Cut so that windows times the longest of them stays within `batch_seconds`; the lengths ascend."""
        batch: list[tuple[int, Window]] = []
        for numbered in waiting:
            seconds = numbered[1].end - numbered[1].start
            if batch and (len(batch) + 1) * seconds > self.batch_seconds:
                yield batch
                batch = []
            batch.append(numbered)
        if batch:
            yield batch

    def _embed(self, batch: list[tuple[int, Window]]) -> None:
        batch = [(number, window) for number, window in batch if window.path in self._files]
        if not batch:
            return
        try:
            embeds = np.asarray(self.embedder.embed_audio([window.waveform for _, window in batch]), np.float32)
        except Exception as error:  # whatever a model raises: a recording that it cannot embed must not stop the run
            if len(batch) == 1:
                self._check_model()
                self._fail(batch[0][1].path, f"the model does not embed it ({type(error).__name__}: {error})")
            else:  # find the one that is at fault
                for numbered in batch:
                    self._embed([numbered])
            return
        for (number, window), embed in zip(batch, embeds, strict=True):
            if not np.isfinite(embed).all():
                self._check_model()
                self._fail(window.path, "the model's embedding of it is NaN or infinite")
            elif window.path in self._files:
                self._files[window.path].embeds[number] = embed

    def _check_model(self) -> None:
        """
        Embed a second of silence, to tell a model that embeds nothing from a recording that is at fault.

        Raises:
            RetrievalError: it is the model.
        """
        if self._model_is_sound:
            return
        silence = np.zeros(self.embedder.sampling_rate, np.float32)
        try:
            embeds = np.asarray(self.embedder.embed_audio([silence]), np.float32)
            fault = None if np.isfinite(embeds).all() else "its embedding of silence is NaN or infinite"
        except Exception as error:
            fault = f"{type(error).__name__}: {one_line(error)}"
        if fault is not None:
            raise RetrievalError(f"the model embeds no recording ({fault}); check the model, or save it again")
        self._model_is_sound = True

    def _fail(self, path: str, reason: str) -> None:
        file = self._files.pop(path, None)
        if file is None:
            return  # for another of its windows
        if file.record is None:
            self._refused[path] = reason
        else:
            self.failures.append((file.record, reason))

    def _take(self, paths) -> list[EmbeddedFile]:
        """Those of these recordings that are whole."""
        taken = []
        for path in paths:
            file = self._files.get(path)
            if file is not None and file.is_whole:
                del self._files[path]
                embeds = np.stack([file.embeds[number] for number in range(len(file.spans))])
                taken.append(EmbeddedFile(file.record, file.spans, embeds))
        return taken
