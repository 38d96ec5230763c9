"""Shards: the entries of a split, cut into pieces that processes prepare in parallel, each whole or not there.

A shard is an Arrow file and beside it `<name>.json`, written last, with the shard's key and what was left out. A
preparation that was killed goes on with the shards that are missing.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import datasets
from datasets.arrow_writer import ArrowWriter
from tqdm import tqdm

from ..errors import AudioError, UnreadableError
from .entries import Entry, prepare_entry
from .processes import in_processes

ROWS_IN_MEMORY = 32  # of a shard while it is written, and at a time where it is streamed


@dataclasses.dataclass(frozen=True)
class Note:
    """Something about one recording that its user should know."""

    split: str
    file_name: str
    text: str


@dataclasses.dataclass
class ShardReport:
    """
    What a whole shard holds.

    Attributes:
        stamps: of its rows.
        skipped, warnings: recordings left out, and those kept with a warning.
        digests: file name -> a digest of the sound, equal where the sound is; empty in a report of earlier versions.
        retry: whether the system did not read a recording, which says nothing of the recording.
    """

    stamps: list[str]
    skipped: list[Note]
    warnings: list[Note]
    digests: dict[str, str]
    retry: bool = False

    @classmethod
    def read(cls, path: pathlib.Path, key: str) -> "ShardReport | None":
        """`None` unless the file is there, whole, and of the shard with this key."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if content["key"] != key or content.get("retry"):
            return None
        notes = ([Note(**note) for note in content[kind]] for kind in ("skipped", "warnings"))
        return cls(content["stamps"], *notes, content.get("digests", {}))

    def write(self, path: pathlib.Path, key: str) -> None:
        unfinished = _unfinished(path)
        unfinished.write_text(json.dumps({"key": key, **dataclasses.asdict(self)}), encoding="utf-8")
        unfinished.replace(path)


# (split, stamp of an entry) -> its row and the warning about it, where it is prepared already
Recall = Callable[[str, str], "tuple[dict[str, Any], str] | None"]


@dataclasses.dataclass(frozen=True)
class Shard:
    """A piece of a split, to be written to `path`."""

    path: pathlib.Path
    split: str
    entries: Sequence[Entry]
    features: datasets.Features

    @functools.cached_property
    def stamps(self) -> list[str]:
        return [entry.stamp() for entry in self.entries]

    @functools.cached_property
    def key(self) -> str:
        content = (self.split, sorted(self.features.items()), self.stamps)
        return hashlib.sha256(repr(content).encode()).hexdigest()

    @property
    def report_path(self) -> pathlib.Path:
        return self.path.with_suffix(".json")

    def report(self) -> ShardReport | None:
        """What the whole shard holds; `None` where it is not there, or is of other recordings."""
        return ShardReport.read(self.report_path, self.key) if self.path.is_file() else None


def cut(
    folder: pathlib.Path, split: str, entries: Sequence[Entry], features: datasets.Features, count: int
) -> list[Shard]:
    """Cuts a split into `count` shards of nearly equal size, fewer where there are fewer entries."""
    count = max(1, min(count, len(entries)))
    bounds = [number * len(entries) // count for number in range(count + 1)]
    return [
        Shard(folder / f"{split}-{number:05d}-of-{count:05d}.arrow", split, entries[start:end], features)
        for number, (start, end) in enumerate(itertools.pairwise(bounds))
    ]


def write_shards(shards: Sequence[Shard], num_proc: int, recall: Recall | None = None) -> list[ShardReport]:
    """
    Writes what is missing, in `num_proc` processes with a progress bar; what is whole stays as it is.

    Returns:
        The report of each shard.

    Raises:
        OSError, DataError: they cannot be written, or a process died; the whole ones stay.
    """
    _delete_unfinished(shards)
    reports = [shard.report() for shard in shards]
    missing = [number for number, report in enumerate(reports) if report is None]
    total = sum(len(shards[number].entries) for number in missing)
    with tqdm(total=total, desc="Preparing recordings", unit=" recordings", disable=None if total else True) as bar:
        written = in_processes(lambda position: write_shard(shards[missing[position]], recall), len(missing), num_proc)
        for position, report in written:
            reports[missing[position]] = report
            bar.update(len(shards[missing[position]].entries))
    return reports


def _delete_unfinished(shards: Sequence[Shard]) -> None:
    """Delete what killed processes have left; the folder is locked, so nobody else is at work in it."""
    for folder in {shard.path.parent for shard in shards}:
        for path in folder.glob(".*"):
            path.unlink()


def _unfinished(path: pathlib.Path) -> pathlib.Path:
    """Name a file while this process writes it; one that was killed a moment ago may still be at its own."""
    return path.with_name(f".{path.name}.{os.getpid()}")


def write_shard(shard: Shard, recall: Recall | None = None) -> ShardReport:
    """Prepares the entries of one shard; those that cannot be used are left out."""
    report = ShardReport([], [], [], {})
    shard.report_path.unlink(missing_ok=True)
    unfinished = _unfinished(shard.path)
    with ArrowWriter(path=str(unfinished), features=shard.features, writer_batch_size=ROWS_IN_MEMORY) as writer:
        for entry, stamp in zip(shard.entries, shard.stamps, strict=True):
            try:
                known = recall(shard.split, stamp) if recall else None
                row, warning = known or prepare_entry(entry, shard.split)
            except AudioError as error:
                report.skipped.append(Note(shard.split, entry.file_name, str(error)))
                report.retry = report.retry or isinstance(error, UnreadableError)
                continue
            if warning:
                report.warnings.append(Note(shard.split, entry.file_name, warning))
            writer.write({**dict.fromkeys(shard.features), **row})
            report.stamps.append(stamp)
            report.digests[row["file_name"]] = hashlib.blake2b(row["audio"]["bytes"], digest_size=16).hexdigest()
        writer.finalize()
    unfinished.replace(shard.path)
    report.write(shard.report_path, shard.key)
    return report
