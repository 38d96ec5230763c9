"""Update an index from its folders."""

import collections
import contextlib
import csv
import dataclasses
import io
import itertools
import os
import time
from collections.abc import Collection, Iterable

import numpy as np

from ..data import ffmpeg
from ..data.audio_io import printable
from ..errors import RetrievalError, one_line
from ..files import write_text
from ..memory import freed_memory_kept
from .embedding import Embedder
from .identity import check_same_model
from .progress import Progress
from .reading import File, Reader, Window
from .records import EmbeddedFile, FileRecord
from .scanning import FFMPEG_ENDINGS, Scan, canonical, is_below, reason_of, scan
from .stores.base import VectorStore
from .windows import check_windows

WORKERS = 2  # threads that decode
BATCH_SECONDS = 160.0  # 32 recordings of 5 s, or 5 windows of 30 s
BATCHES_AT_ONCE = 4  # windows of so many batches are sorted by length, to reduce padding
COMMIT_SECONDS = 30.0  # the most work that is lost when the program is killed
COMMIT_WINDOWS = 4096  # windows per commit: 16 MB at 1024 dimensions
PROBLEMS_SHOWN = 5
TWINS_AT_ONCE = 256  # recordings per lookup in the index


@dataclasses.dataclass
class IndexReport:
    """
    Report of an index update.

    Attributes:
        added, changed, renamed, removed, unchanged: numbers of recordings.
        skipped: number of files that could not be used; `problems` says why.
        other_files: number of files whose ending is not that of a recording.
        empty_folders: given folders without a recording -> number of other files in them.
        audio_seconds: duration of the recordings that were decoded and embedded.
        wall_seconds: duration of the update.
        problems: (path, reason) of files and folders that could not be used or read.
        notes: (path, remark) of recordings that were decoded in this update and are indexed with a flaw, such as
            truncated ones.
    """

    added: int = 0
    changed: int = 0
    renamed: int = 0
    removed: int = 0
    unchanged: int = 0
    skipped: int = 0
    other_files: int = 0
    empty_folders: dict[str, int] = dataclasses.field(default_factory=dict)
    audio_seconds: float = 0.0
    wall_seconds: float = 0.0
    problems: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    notes: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    @property
    def hours_per_minute(self) -> float:
        """Return the hours of audio embedded per minute."""
        return self.audio_seconds / 60 / max(self.wall_seconds, 1e-9)

    def problem_lines(self, most: int = PROBLEMS_SHOWN) -> list[str]:
        """Describe problems in a line each, those of all files that need FFmpeg together, and at most `most` others."""
        needing_ffmpeg: collections.Counter[str] = collections.Counter()
        others = []
        for path, reason in self.problems:
            ending = os.path.splitext(path)[1][1:].lower()
            if ffmpeg.NOT_INSTALLED in reason and ending in FFMPEG_ENDINGS.split():
                needing_ffmpeg[ending] += 1
            else:
                others.append(f"{path}: {reason}")
        lines = [
            f"{count} {ending} file{'s need' if count > 1 else ' needs'} FFmpeg; install ffmpeg and run the same again"
            for ending, count in needing_ffmpeg.most_common()
        ]
        return lines + others[:most] + ([f"{len(others) - most} more could not be used"] if len(others) > most else [])

    def write_csv(self, path: str | os.PathLike) -> None:
        """Write problems and notes to a CSV file; bytes of a name that are not UTF-8 become `\\xff`."""
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["path", "reason", "outcome"])
        writer.writerows((printable(path), reason, "left out") for path, reason in self.problems)
        writer.writerows((printable(path), note, "kept") for path, note in self.notes)
        write_text(path, table.getvalue())

    def __str__(self) -> str:
        counts = ("added", "changed", "renamed", "removed", "unchanged", "skipped")
        lines = ", ".join(f"{getattr(self, name)} {name}" for name in counts)
        if self.audio_seconds:
            lines += (
                f"; {self.audio_seconds / 3600:.2f} h of audio in {self.wall_seconds:.0f} s, "
                f"{self.hours_per_minute:.2f} h a minute"
            )
        if self.notes:
            lines += f"; {len(dict(self.notes))} kept with a remark"
        return lines


def index_folders(
    store: VectorStore,
    embedder: Embedder,
    paths: Iterable[str | os.PathLike],
    *,
    workers: int = WORKERS,
    batch_seconds: float = BATCH_SECONDS,
    progress: bool = True,
    full_check: bool = False,
    allow_empty: bool = False,
    unfinished: Collection[str] = (),
    commit_seconds: float = COMMIT_SECONDS,
) -> IndexReport:
    """
    Add new recordings below some folders, embed changed ones again, rename moved ones and remove deleted ones.

    A run may be stopped at any moment: what was stored stays, and the same call does the rest. A file that cannot be
    used never stops the run. It leaves the index if its content is not a recording, and stays if it cannot be read now.

    A new file is a moved one if a recording of the index has the same hash and size and its own file is gone, also
    where that lay outside of `paths`. Then its record gets the new path, and the report counts it as renamed. The old
    file may also be missing because its drive is not mounted, and the new one be a copy of it. This loses nothing:
    once the drive is back, indexing it adds its files again, and their embeddings are copied. Other recordings
    outside of `paths` are not touched, whether their files exist or not; `forget` removes them.

    Args:
        store: the index.
        embedder: the model that the index was made with.
        paths: folders and files, see `scanning.scan`.
        workers: number of decoding threads.
        batch_seconds: seconds of audio in a batch, padding included.
        progress: whether to show progress, see `progress.Progress`.
        full_check: read every file, even if its size and modification time are as in the index.
        allow_empty: whether an indexed folder may have lost all its recordings.
        unfinished: paths to leave as they are in the index, such as those of files that are being written.
        commit_seconds: store embeddings at least this often.

    Raises:
        RetrievalError: another model; a path that does not exist; a folder whose recordings are all gone; the index
            cannot be written. The index keeps its contents.
    """
    began = time.monotonic()
    check_windows(store.info.window, store.info.overlap)
    check_same_model(store.info.model, embedder.identity)
    found = scan(paths)
    known = store.files()
    report = IndexReport(
        problems=found.problems,
        other_files=found.other_files,
        empty_folders=found.empty_folders,
        skipped=len(found.problems),
    )
    gone = _find_gone(found, known, report)
    if not allow_empty:
        _check_not_empty(found, gone)
    changed = []
    for path, status in found.files.items():
        if path in unfinished:
            continue
        record = known.get(path)
        if not full_check and record is not None and (record.size, record.modified_ns) == status:
            report.unchanged += 1
        else:
            changed.append(path)
    outside = [path for path in known if not found.covers(path)]
    run = _Run(store, embedder, known, gone - set(unfinished), outside, report, commit_seconds)
    if changed:
        sizes = {path: found.files[path][0] for path in changed}
        with freed_memory_kept(), contextlib.closing(Progress(sizes, progress)) as shown:
            run.read(changed, workers, batch_seconds, shown)
    run.finish()
    report.wall_seconds = time.monotonic() - began
    return report


def forget(store: VectorStore, paths: Iterable[str | os.PathLike]) -> int:
    """
    Remove the recordings at or below some paths from an index; files are not touched and need not exist.

    Returns:
        The number of recordings that were removed.

    Raises:
        RetrievalError: no recording of the index lies at or below one of the paths. The index keeps its contents.
    """
    known = store.files()
    forgotten: set[str] = set()
    for path in paths:
        # A link to a folder may be resolved in the index or, if it lies in an indexed folder, not.
        names = {canonical(path), os.path.abspath(os.path.expanduser(os.fsdecode(path)))}
        below = {known_path for known_path in known if any(is_below(known_path, name) for name in names)}
        if not below:
            raise RetrievalError(
                f"{printable(os.fsdecode(path))}: no recording of the index lies at or below it; the index is as it "
                "was. Check the path"
            )
        forgotten |= below
    if forgotten:
        store.remove(forgotten)
        store.optimize()
    return len(forgotten)


def _find_gone(found: Scan, known: dict[str, FileRecord], report: IndexReport) -> set[str]:
    """Return the indexed recordings that are gone from the folders; add those that the scan passed over to it."""
    gone = set()
    for path in known:
        if path in found.files or not found.covers(path) or any(is_below(path, folder) for folder in found.blocked):
            continue
        try:
            status = found.look_up(path)
        except OSError as error:
            report.problems.append((path, reason_of(error)))
            report.skipped += 1
            continue
        if status is None:
            gone.add(path)
        else:
            found.files[path] = status
    return gone


def _check_not_empty(found: Scan, gone: set[str]) -> None:
    """
    Raises:
        RetrievalError: a folder has no recordings now, but the index holds some.
    """
    for root in found.roots:
        lost = sum(is_below(path, root) for path in gone)
        if lost and os.path.isdir(root) and not any(is_below(path, root) for path in found.files):
            raise RetrievalError(
                f"{printable(root)}: found no recording, while the index holds {lost} of this folder; the index is as "
                "it was. If its drive is not mounted, mount it; if they are to leave the index, say so by "
                "allow_empty"
            )


@dataclasses.dataclass
class _Content:
    """
    State of one content, which several files may share.

    Attributes:
        holder: a path with its embeddings, in the index or waiting to be stored.
        gone: indexed paths that had it and no longer exist; a new file with this content is one of them, renamed.
        outside: indexed paths that have it and were not scanned; they may be gone.
        waiting: files that wait for its embeddings.
        fault: why it is not a recording.
        notes: notes of `load_audio`, if it was decoded in this run.
    """

    holder: str | None = None
    gone: list[str] = dataclasses.field(default_factory=list)
    outside: list[str] = dataclasses.field(default_factory=list)
    waiting: list[FileRecord] = dataclasses.field(default_factory=list)
    fault: str | None = None
    notes: list[str] = dataclasses.field(default_factory=list)


class _Run:
    """State of one run: the known contents, and what waits for the model or to be stored."""

    def __init__(
        self,
        store: VectorStore,
        embedder: Embedder,
        known: dict[str, FileRecord],
        gone: set[str],
        outside: list[str],
        report: IndexReport,
        commit_seconds: float,
    ):
        self.store, self.embedder, self.known, self.gone, self.report = store, embedder, known, gone, report
        self.commit_seconds = commit_seconds
        self.contents: dict[tuple[str, int], _Content] = {}
        for path, record in known.items():
            self._content(record).holder = path
        for path in sorted(gone):
            self._content(known[path]).gone.append(path)
        for path in sorted(outside):
            self._content(known[path]).outside.append(path)
        self.twins: list[_Content] = []  # contents with a holder and waiting files
        self.windows: list[Window] = []  # waiting for the model
        self.window_seconds = 0.0  # of these windows and the batches made of them
        self.model_is_sound = False
        self.puts: dict[str, EmbeddedFile] = {}
        self.put_windows = 0
        self.relabels: dict[str, FileRecord] = {}
        self.removes: set[str] = set()
        self.committed = time.monotonic()
        self.wrote = False

    def read(self, paths: list[str], workers: int, batch_seconds: float, progress: Progress) -> None:
        """Read and embed files; store complete ones even when the user interrupts."""
        info, enough = self.store.info, BATCHES_AT_ONCE * batch_seconds
        rate = self.embedder.sampling_rate
        self.reader = Reader(workers, rate, info.window, info.overlap, info.normalize_level, self.claim, ahead=enough)
        self.progress = progress
        batches: list[list[Window]] = []
        try:
            self.reader.submit(paths)
            while self.reader.unread or self.windows or batches:
                # Wait for the windows of some batches, then sort them by length.
                while not batches and self.reader.unread and self.window_seconds < enough:
                    self._take(self.reader.next())
                if not batches:
                    batches = _batches(self.windows, batch_seconds)
                    self.windows = []
                if batches:
                    self._embed_batch(batches.pop(0))
                # Take what was decoded meanwhile, to make room for the next recordings.
                while self.window_seconds < enough and self.reader.has_next():
                    self._take(self.reader.next())
                if not (self.reader.unread or self.windows or batches):
                    self._put_twins()
                    self._read_orphans()
        except KeyboardInterrupt:
            self.commit()
            raise
        finally:
            self.reader.close()

    def finish(self) -> None:
        """Store what waits, remove deleted recordings, and optimize the index."""
        self.removes |= self.gone
        self.report.removed += len(self.gone)
        self.commit()
        if self.wrote:
            self.store.optimize()

    def commit(self) -> None:
        """Store the complete recordings."""
        self._put_twins()  # before the recordings they are copied from may be replaced
        if self.relabels:
            self.store.relabel(self.relabels)
        if self.puts:
            self.store.put(list(self.puts.values()))
        if self.removes:
            self.store.remove(self.removes)
        self.wrote = self.wrote or bool(self.relabels or self.puts or self.removes)
        for path in [*self.relabels, *self.puts, *self.removes]:  # their content is another one now, or none
            if path in self.known and self._content(self.known[path]).holder == path:
                self._content(self.known[path]).holder = None
        for record in [*self.relabels.values(), *(file.record for file in self.puts.values())]:
            self._content(record).holder = record.path
        self.puts, self.put_windows, self.relabels, self.removes = {}, 0, {}, set()
        self.committed = time.monotonic()

    def claim(self, record: FileRecord) -> bool:
        """Tell a thread of the reader whether the content of a file is new, so that it decodes the file."""
        new = _Content()
        return self.contents.setdefault(_key(record), new) is new  # atomic

    def _content(self, record: FileRecord) -> _Content:
        return self.contents.setdefault(_key(record), _Content())

    # --------------------------------------------------------------------------------------------- what was decoded

    def _take(self, message: Window | File) -> None:
        """Queue a window for the model, or handle a file that was read to its end."""
        if isinstance(message, Window):
            self.windows.append(message)
            self.window_seconds += message.end - message.start
        else:
            message.is_read = True
            self._settle(message)
        if self.put_windows >= COMMIT_WINDOWS or time.monotonic() - self.committed >= self.commit_seconds:
            self.commit()

    def _settle(self, file: File) -> None:
        """Store a file if it is complete, or a copy of another's embeddings; list it if it cannot be used."""
        if not file.is_read:
            return
        if file.fault is not None:
            self._failed(file, file.fault)
        elif file.record is not None and not file.is_decoded:
            self._recognized(file.record)
        elif file.record is not None and len(file.embeds) == file.num_windows:
            self.report.audio_seconds += file.record.duration
            self._embedded(file, file.record)

    def _embedded(self, file: File, record: FileRecord) -> None:
        """Put a file, and the files that wait for its content."""
        content = self._content(record)
        content.holder, content.notes = file.path, file.notes
        whole = file.embedded(record)
        waiting, content.waiting = content.waiting, []
        for copy in [whole, *(_copied(whole, copy) for copy in waiting)]:
            self._put(copy)

    def _recognized(self, record: FileRecord) -> None:
        """Handle a file whose content is in the index already, or is being embedded for another file."""
        content, old = self._content(record), self.known.get(record.path)
        if old is not None and _key(old) == _key(record):
            self.relabels[record.path] = dataclasses.replace(record, duration=old.duration)
            self._done("unchanged", record.path)
        elif content.fault is not None:
            self._unusable(record, content.fault)
        elif old is None and (before := _moved_from(content)) is not None:
            self.gone.discard(before)
            self.relabels[before] = dataclasses.replace(record, duration=self.known[before].duration)
            self._done("renamed", record.path)
        else:
            content.waiting.append(record)
            if content.holder is not None:
                self.twins.append(content)
                if len(self.twins) >= TWINS_AT_ONCE:
                    self._put_twins()

    def _put_twins(self) -> None:
        """Put the waiting files whose embeddings are in the index or queued to be stored."""
        if not self.twins:
            return
        twins = {content.holder: content for content in self.twins if content.holder is not None}
        self.twins = []
        pending = {path: self.puts[path] for path in twins if path in self.puts}
        for file in itertools.chain(pending.values(), self.store.embedded(twins.keys() - pending.keys())):
            content = self._content(file.record)
            if content is twins[file.record.path]:  # else another run changed the index meanwhile
                waiting, content.waiting = content.waiting, []
                for copy in waiting:
                    self._put(_copied(file, copy))

    def _read_orphans(self) -> None:
        """Read the first of the files that wait for an unreadable file or for content that left the index."""
        for content in list(self.contents.values()):  # a copy, as the threads add to it
            if content.waiting:
                content.holder = None
                self.reader.submit([content.waiting.pop(0).path], unconditionally=True)

    def _failed(self, file: File, reason: str) -> None:
        """List a file that cannot be used, and those of the same content if the content is at fault."""
        if file.record is None or not file.is_no_recording:
            self._list(file.path, reason)
            return
        content = self._content(file.record)
        content.fault = reason
        waiting, content.waiting = content.waiting, []
        for record in [file.record, *waiting]:
            self._unusable(record, reason)

    def _unusable(self, record: FileRecord, reason: str) -> None:
        """List a file that is not a recording and remove it from the index."""
        self._list(record.path, reason)
        if record.path in self.known:
            self.removes.add(record.path)
            self.report.removed += 1

    def _list(self, path: str, reason: str) -> None:
        self.report.problems.append((path, reason))
        self._done("skipped", path)

    def _put(self, file: EmbeddedFile) -> None:
        self.puts[file.record.path] = file
        self.put_windows += len(file.spans)
        self.report.notes += ((file.record.path, note) for note in self._content(file.record).notes)
        self._done("changed" if file.record.path in self.known else "added", file.record.path)

    def _done(self, count: str, path: str) -> None:
        """Count one more file."""
        setattr(self.report, count, getattr(self.report, count) + 1)
        self.progress.add_file(path)

    # ---------------------------------------------------------------------------------------------------- the model

    def _embed_batch(self, batch: list[Window]) -> None:
        self.window_seconds -= sum(window.end - window.start for window in batch)
        batch = [window for window in batch if window.file.fault is None]
        self._embed(batch)
        for file in dict.fromkeys(window.file for window in batch):
            self._settle(file)

    def _embed(self, batch: list[Window]) -> None:
        """Give windows their embeddings, or give the file that the model refuses a fault."""
        if not batch:
            return
        try:
            embeds = np.asarray(self.embedder.embed_audio([window.waveform for window in batch]), np.float32)
        except Exception as error:  # a model may raise anything, and one recording must not stop the run
            if len(batch) > 1:  # find the recording at fault
                for window in batch:
                    self._embed([window])
            else:
                self._refuse(batch[0].file, f"the model does not embed it ({type(error).__name__}: {error})")
            return
        for window, embed in zip(batch, embeds, strict=True):
            if np.isfinite(embed).all():
                window.file.embeds[window.start, window.end] = embed
                self.progress.add_window(window.file.path, window.end)
            else:
                self._refuse(window.file, "the model's embedding of it is NaN or infinite")

    def _refuse(self, file: File, reason: str) -> None:
        """
        Note that the model cannot embed a file, unless it cannot embed anything.

        Raises:
            RetrievalError: the model cannot embed a second of silence.
        """
        if not self.model_is_sound:
            silence = np.zeros(self.embedder.sampling_rate, np.float32)
            try:
                embeds = np.asarray(self.embedder.embed_audio([silence]), np.float32)
                fault = None if np.isfinite(embeds).all() else "its embedding of silence is NaN or infinite"
            except Exception as error:
                fault = f"{type(error).__name__}: {one_line(error)}"
            if fault is not None:
                raise RetrievalError(f"the model embeds no recording ({fault}); check the model, or save it again")
            self.model_is_sound = True
        if file.fault is None:
            file.fault, file.is_no_recording = reason, True


def _batches(windows: list[Window], batch_seconds: float) -> list[list[Window]]:
    """Cut windows, sorted by length, so that their number times the longest of them stays within `batch_seconds`."""
    batches: list[list[Window]] = []
    for window in sorted(windows, key=lambda window: window.waveform.size):
        if not batches or (len(batches[-1]) + 1) * (window.end - window.start) > batch_seconds:
            batches.append([])
        batches[-1].append(window)
    return batches


def _copied(file: EmbeddedFile, record: FileRecord) -> EmbeddedFile:
    """Return the embeddings of a file as those of another file with the same content."""
    return EmbeddedFile(dataclasses.replace(record, duration=file.record.duration), file.spans, file.embeds)


def _moved_from(content: _Content) -> str | None:
    """Take an indexed path of a content whose file is gone; `None` if there is none."""
    if content.gone:
        return content.gone.pop()
    while content.outside:
        path = content.outside.pop()
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return path
        except OSError:  # unknown, so it stays
            pass
    return None


def _key(record: FileRecord) -> tuple[str, int]:
    """Return the key that files with the same bytes share."""
    return record.content_hash, record.size
