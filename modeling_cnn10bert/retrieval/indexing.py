"""Brings an index up to date with the folders that it was made of."""

import collections
import csv
import dataclasses
import io
import itertools
import os
import threading
import time
from collections.abc import Collection, Iterable

from tqdm import tqdm

from ..data.audio_io import printable
from ..errors import RetrievalError
from ..files import write_text
from ..memory import freed_memory_kept
from .batching import BATCHES_AT_ONCE, Batcher
from .embedding import Embedder
from .identity import check_same_model
from .reading import Failure, Reader, Whole, Window
from .records import EmbeddedFile, FileRecord
from .scanning import Scan, is_below, reason_of, scan
from .stores.base import VectorStore
from .windows import check_windows

WORKERS = 2  # threads that decode
BATCH_SECONDS = 160.0  # 32 recordings of 5 s, or 5 windows of 30 s
COMMIT_SECONDS = 30.0  # at most so much work is lost when the program is killed
COMMIT_WINDOWS = 4096  # that wait to be stored: 16 MB at 1024 dimensions
TWINS_AT_ONCE = 256  # looked up in the index at once


@dataclasses.dataclass
class IndexReport:
    """
    What bringing an index up to date came to.

    Attributes:
        added, changed, renamed, removed, unchanged: recordings.
        skipped: files that could not be used; `problems` says why.
        other_files: files that are no recordings by their ending.
        audio_seconds: of the recordings that were decoded and embedded.
        wall_seconds: that it took.
        problems: (path, reason) of files and folders that could not be used or looked at.
        notes: (path, remark) of recordings that are in the index, but not as they should be, such as cut-off ones; of
            those that were decoded now.
    """

    added: int = 0
    changed: int = 0
    renamed: int = 0
    removed: int = 0
    unchanged: int = 0
    skipped: int = 0
    other_files: int = 0
    audio_seconds: float = 0.0
    wall_seconds: float = 0.0
    problems: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    notes: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    @property
    def hours_per_minute(self) -> float:
        """Hours of audio in a minute."""
        return self.audio_seconds / 60 / max(self.wall_seconds, 1e-9)

    def write_csv(self, path: str | os.PathLike) -> None:
        """Lists problems and notes; bytes of a name that are no UTF-8 become `\\xff`."""
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
    Adds what is new below some folders, embeds anew what changed, renames what moved, removes what is gone.

    What was stored stays when the run is stopped at any moment; the same call does the rest. A file that cannot be used
    never stops it. One whose content is no recording leaves the index; one that cannot be read now stays in it.

    Args:
        store: the index.
        embedder: the model that the index was made with.
        paths: folders and files, see `scanning.scan`; what the index holds elsewhere stays as it is.
        workers: threads that decode.
        batch_seconds: of audio embedded at once, padding included.
        progress: whether to show a bar, on a terminal.
        full_check: read every file, also those whose size and time of modification are as in the index.
        allow_empty: whether a folder of which the index holds recordings may have none now.
        unfinished: paths to leave as they are in the index, such as those of files that are being written.
        commit_seconds: after which what is embedded is stored.

    Raises:
        RetrievalError: another model; a path that does not exist; a folder whose recordings are all gone; the index
            cannot be written. What the index held stays.
    """
    began = time.monotonic()
    check_windows(store.info.window, store.info.overlap)
    check_same_model(store.info.model, embedder.identity)
    found = scan(paths)
    known = store.files()
    report = IndexReport(problems=found.problems, other_files=found.other_files, skipped=len(found.problems))
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
    run = _Run(store, known, gone - set(unfinished), report, commit_seconds)
    if changed:
        with freed_memory_kept():
            run.read(changed, embedder, workers, batch_seconds, progress)
    run.finish()
    report.wall_seconds = time.monotonic() - began
    return report


def _find_gone(found: Scan, known: dict[str, FileRecord], report: IndexReport) -> set[str]:
    """The recordings of the index that were below the folders and are not; what the scan passed over joins it."""
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
        RetrievalError: a folder has no recording now, and the index holds some of it.
    """
    for root in found.roots:
        lost = sum(is_below(path, root) for path in gone)
        if lost and os.path.isdir(root) and not any(is_below(path, root) for path in found.files):
            raise RetrievalError(
                f"{printable(root)}: found no recording, while the index holds {lost} of this folder; the index is as "
                "it was. If its drive is not mounted, mount it; if they are to leave the index, say so by "
                "allow_empty"
            )


class _Run:
    """One run: what is known of contents, and what waits to be stored."""

    def __init__(
        self,
        store: VectorStore,
        known: dict[str, FileRecord],
        gone: set[str],
        report: IndexReport,
        commit_seconds: float,
    ):
        self.store, self.known, self.gone, self.report = store, known, gone, report
        self.commit_seconds = commit_seconds
        self.holders = {_content(record): path for path, record in known.items()}  # content -> a path in the index
        self.moved: dict[tuple[str, int], list[str]] = collections.defaultdict(list)  # content -> paths that are gone
        for path in sorted(gone):
            self.moved[_content(known[path])].append(path)
        self.claimed: set[tuple[str, int]] = set()  # contents that are decoded in this run
        self.unusable: dict[tuple[str, int], str] = {}  # and those of them that are no recordings
        self.notes: dict[tuple[str, int], tuple[str, ...]] = {}  # of contents that were decoded, where there are any
        self.copies: dict[tuple[str, int], list[FileRecord]] = collections.defaultdict(list)  # files that wait for one
        self.twins: list[FileRecord] = []  # files of contents that are embedded already
        self.lock = threading.Lock()
        self.puts: dict[str, EmbeddedFile] = {}
        self.put_windows = 0
        self.relabels: dict[str, FileRecord] = {}
        self.removes: set[str] = set()
        self.committed = time.monotonic()
        self.wrote = False

    def read(self, paths: list[str], embedder: Embedder, workers: int, batch_seconds: float, progress: bool) -> None:
        """Reads and embeds files; what is whole is stored also when something stops it."""
        info = self.store.info
        ahead = BATCHES_AT_ONCE * batch_seconds
        self.batcher = Batcher(embedder, batch_seconds)
        self.reader = Reader(workers, embedder.sampling_rate, info.window, info.overlap, self.claim, ahead)
        # None: only on a terminal
        with tqdm(total=len(paths), desc="Indexing", unit=" files", disable=None if progress else True) as bar:
            self.bar, self.began = bar, time.monotonic()
            try:
                for path in paths:
                    self.reader.submit(path)
                while self.reader.unfinished:
                    self._take(self.reader.next())
                    if not self.reader.unfinished:
                        self._embedded(self.batcher.flush())
                        self._put_twins()
                        self._read_orphans()
            except KeyboardInterrupt:
                self.commit()
                raise
            finally:
                self.reader.close()

    def _read_orphans(self) -> None:
        """Has those files read that wait for the embeddings of another one, which itself changed meanwhile."""
        orphans, self.copies = self.copies, collections.defaultdict(list)
        for record in (record for records in orphans.values() for record in records):
            self.reader.submit(record.path, unconditionally=True)

    def claim(self, record: FileRecord) -> bool:
        """Whether a content is new, so that the caller, a thread of the reader, decodes it."""
        content = _content(record)
        with self.lock:
            if content in self.holders or content in self.claimed:
                return False
            self.claimed.add(content)
            return True

    def finish(self) -> None:
        """Stores what waits, removes what is gone, and makes the index fast."""
        self.removes |= self.gone
        self.report.removed += len(self.gone)
        self.commit()
        if self.wrote:
            self.store.optimize()

    def commit(self) -> None:
        """Stores what is whole."""
        if self.relabels:
            self.store.relabel(self.relabels)
        if self.puts:
            self.store.put(list(self.puts.values()))
        if self.removes:
            self.store.remove(self.removes)
        self.wrote = self.wrote or bool(self.relabels or self.puts or self.removes)
        with self.lock:
            for path in [*self.relabels, *self.puts, *self.removes]:  # which hold another content now, or none
                old = self.known.get(path)
                if old is not None and self.holders.get(_content(old)) == path:
                    del self.holders[_content(old)]
            for record in self.relabels.values():
                self.holders[_content(record)] = record.path
        self.puts, self.put_windows, self.relabels, self.removes = {}, 0, {}, set()
        self.committed = time.monotonic()

    def _take(self, message: Window | Whole | Failure) -> None:
        if isinstance(message, Window):
            self._embedded(self.batcher.add(message))
        elif isinstance(message, Failure):
            self.batcher.forget(message.path)
            self._failed(message)
        elif message.decoded:
            if message.notes:
                self.notes[_content(message.record)] = message.notes
            self._embedded(self.batcher.end(message.record))
        else:
            self._recognised(message.record)
        if len(self.twins) >= TWINS_AT_ONCE:
            self._put_twins()
        if self.put_windows >= COMMIT_WINDOWS or time.monotonic() - self.committed >= self.commit_seconds:
            self._put_twins()  # before what they are copied from may be replaced
            self.commit()

    def _embedded(self, files: list[EmbeddedFile]) -> None:
        """Files became whole, and with them those of the same content; others were refused by the model."""
        for file in files:
            self.report.audio_seconds += file.record.duration
            self._put(file)
            for copy in self.copies.pop(_content(file.record), []):
                self._put_copy(copy, file)
        refused, self.batcher.failures = self.batcher.failures, []
        for record, reason in refused:
            self._failed(Failure(record.path, reason, record, record))

    def _recognised(self, record: FileRecord) -> None:
        """A file holds what the index holds already, or what is being embedded for another one."""
        content, old = _content(record), self.known.get(record.path)
        if old is not None and _content(old) == content:
            self.relabels[record.path] = dataclasses.replace(record, duration=old.duration)
            self._done("unchanged")
        elif content in self.unusable:
            self._failed(Failure(record.path, self.unusable[content], record))
        elif old is None and self.moved.get(content):
            before = self.moved[content].pop()
            self.gone.discard(before)
            self.relabels[before] = dataclasses.replace(record, duration=self.known[before].duration)
            self._done("renamed")
        elif content in self.holders:
            self.twins.append(record)
        elif content in self.claimed:
            self.copies[content].append(record)
        else:  # another run took it out of the index meanwhile
            self.reader.submit(record.path, unconditionally=True)

    def _put_twins(self) -> None:
        """Takes the embeddings of recordings that hold what the index, or what waits to be stored, holds already."""
        twins: dict[tuple[str, int], list[FileRecord]] = collections.defaultdict(list)
        for record in self.twins:
            twins[_content(record)].append(record)
        self.twins = []
        holders = [self.holders[content] for content in twins]
        waiting = [self.puts[path] for path in holders if path in self.puts]
        for file in itertools.chain(waiting, self.store.embedded(holders)):
            for record in twins.pop(_content(file.record), []):
                self._put_copy(record, file)
        for record in itertools.chain.from_iterable(twins.values()):  # another run changed the index meanwhile
            self.reader.submit(record.path, unconditionally=True)

    def _failed(self, failure: Failure) -> None:
        """Lists a file that cannot be used, and those that waited for it; what is no recording leaves the index."""
        self.report.problems.append((failure.path, failure.reason))
        self._done("skipped")
        if failure.record is not None:
            self.unusable[_content(failure.record)] = failure.reason
            if failure.path in self.known:
                self.removes.add(failure.path)
                self.report.removed += 1
            for copy in self.copies.pop(_content(failure.record), []):
                self._failed(Failure(copy.path, failure.reason, copy))
        elif failure.claimed is not None:  # the next of the same content takes its place
            waiting = self.copies.get(_content(failure.claimed))
            if waiting:
                self.reader.submit(waiting.pop(0).path, unconditionally=True)
            else:
                with self.lock:
                    self.claimed.discard(_content(failure.claimed))

    def _put(self, file: EmbeddedFile) -> None:
        self.puts[file.record.path] = file
        self.put_windows += len(file.spans)
        with self.lock:
            self.holders[_content(file.record)] = file.record.path
        self.report.notes += ((file.record.path, note) for note in self.notes.get(_content(file.record), ()))
        self._done("changed" if file.record.path in self.known else "added")

    def _put_copy(self, record: FileRecord, twin: EmbeddedFile) -> None:
        record = dataclasses.replace(record, duration=twin.record.duration)
        self._put(EmbeddedFile(record, twin.spans, twin.embeds))

    def _done(self, count: str) -> None:
        """One file more."""
        setattr(self.report, count, getattr(self.report, count) + 1)
        self.bar.update()
        minutes = max(time.monotonic() - self.began, 1e-9) / 60
        hours = self.report.audio_seconds / 3600
        self.bar.set_postfix_str(f"{hours:.2f} h of audio, {hours / minutes:.2f} h/min", refresh=False)


def _content(record: FileRecord) -> tuple[str, int]:
    """What two files of the same bytes share."""
    return record.content_hash, record.size
