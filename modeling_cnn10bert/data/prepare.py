"""From the entries of a source to a prepared data set: a `datasets.DatasetDict` that training reads.

OUT/dataset_dict.json, OUT/<split>/   what `datasets.load_from_disk(OUT)` reads; the former is written last
OUT/skipped.csv, OUT/warnings.csv     recordings that were left out, and those that were kept but look odd
OUT/.preparation/                     the lock, unfinished shards, and what a whole preparation was made of
"""

import contextlib
import csv
import dataclasses
import errno
import hashlib
import json
import math
import os
import pathlib
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import datasets
import filelock

from ..errors import DataError
from ..files import check_local_folder
from .entries import ROW_FEATURES, Entry
from .saved_tables import load_saved
from .shards import Note, Shard, ShardReport, cut, write_shards

ENTRIES_OF_A_SHARD = 64  # that are at hand
MARK = "dataset_dict.json"  # without it, `load_from_disk` reads nothing
COPY = "the same sound as in another split"


@dataclasses.dataclass
class Preparation:
    """
    What a preparation came to.

    Attributes:
        folder: the prepared data set.
        listed: split -> recordings that the source lists.
        prepared: split -> recordings that are there.
        skipped, warnings: recordings left out, and those kept with a warning.
    """

    folder: pathlib.Path
    listed: dict[str, int]
    prepared: dict[str, int]
    skipped: list[Note]
    warnings: list[Note]

    def __str__(self) -> str:
        lines = [f"{self.folder}:"]
        for split, listed in self.listed.items():
            found = self.prepared[split]
            lines.append(f"  {split}: {found} of {listed} recordings; metrics on it stand on N = {found}")
        if self.skipped:
            lines.append(f"  {len(self.skipped)} left out, listed with the reason in {self.folder / 'skipped.csv'}")
        if self.warnings:
            copies = sum(COPY in note.text for note in self.warnings)
            counts = f"{len(self.warnings)} kept with a warning" + (f", {copies} of them {COPY}" if copies else "")
            lines.append(f"  {counts}, listed in {self.folder / 'warnings.csv'}")
        return "\n".join(lines)


def prepare_dataset(
    splits: Mapping[str, Sequence[Entry]],
    columns: datasets.Features,
    out: str | os.PathLike,
    num_proc: int = 1,
    strict: bool = False,
) -> Preparation:
    """
    Decodes, resamples and stores all recordings; a recording that cannot be used is left out and listed.

    What is whole stays: run again, it does nothing; with other entries, it prepares those that are new. A column that
    was added to the data set since stays too, empty for what is new.

    Args:
        splits: name -> what the source lists.
        columns: the features of the entries' columns.
        out: folder of the data set.
        num_proc: processes that decode.
        strict: whether a recording that must be left out is an error.

    Raises:
        DataError: the folder holds something else or a damaged data set, is full, no recording can be used, or,
            if `strict`, one cannot.
    """
    check_local_folder(out, "OUT", DataError)
    out = pathlib.Path(out)
    features = datasets.Features({**ROW_FEATURES, **columns})
    for split, entries in splits.items():
        check_entries(split, entries)
    with preparation_folder(out) as folder, one_line_when_full(out):
        shards = _cut_all(folder, splits, dict.fromkeys(splits, features))
        _move_in(folder, out)
        state = _State.read(folder, out)
        key = hashlib.sha256("".join(shard.key for shard in shards).encode()).hexdigest()
        if state is None or state.key != key:
            (folder / "shards").mkdir(exist_ok=True)
            if state:
                shards = _cut_all(folder, splits, _with_added_columns(features, splits, out))
            reports = write_shards(shards, num_proc, _Recall(out, state) if state else None)
            # Without a key, the next run tries again what the system did not read.
            is_whole = not any(report.retry for report in reports)
            state = _State.of(key if is_whole else "", splits, shards, reports)
            result = state.preparation(out)
            write_notes(result)
            check_result(result, strict)
            _assemble(shards, state, folder, out)
        else:
            load_saved(out)  # a file may have been damaged since
        for scratch in ("shards", "staged"):
            shutil.rmtree(folder / scratch, ignore_errors=True)
        result = state.preparation(out)
        check_result(result, strict)
        return result


def whole_preparation(out: str | os.PathLike) -> Preparation | None:
    """What an earlier preparation came to; `None` where the folder holds no whole data set."""
    out = pathlib.Path(out)
    state = _State.read(out / ".preparation", out)
    return state.preparation(out) if state else None


def _cut_all(
    folder: pathlib.Path, splits: Mapping[str, Sequence[Entry]], features: Mapping[str, datasets.Features]
) -> list[Shard]:
    return [
        shard
        for split, entries in splits.items()
        for shard in cut(folder / "shards", split, entries, features[split], _num_shards(entries))
    ]


def _with_added_columns(
    features: datasets.Features, splits: Iterable[str], out: pathlib.Path
) -> dict[str, datasets.Features]:
    """Split -> the features, and the columns that others added since, such as back-translations."""
    tables = load_saved(out)
    added = {
        split: {name: feature for name, feature in tables[split].features.items() if name not in features}
        for split in splits
        if split in tables
    }
    return {split: datasets.Features({**features, **added.get(split, {})}) for split in splits}


def _num_shards(entries: Sequence[Entry]) -> int:
    return math.ceil(sum(entry.audio is not None for entry in entries) / ENTRIES_OF_A_SHARD)


# ------------------------------------------------------------------------------------------------------ the folder


@contextlib.contextmanager
def preparation_folder(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """OUT/.preparation, locked: a second preparation of the same folder waits, and then finds it whole.

    Raises:
        DataError: the folder holds something that no preparation wrote.
    """
    folder = out / ".preparation"
    if out.exists() and not folder.is_dir() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(
            f"{out}: found something that no preparation wrote, expected an empty folder, a new one, or that of an "
            "earlier preparation; name another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / "lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        print(f"{out}: waiting for another preparation of it to end", flush=True)
        lock.acquire()
    try:
        yield folder
    finally:
        lock.release()


@contextlib.contextmanager
def one_line_when_full(out: pathlib.Path) -> Iterator[None]:
    """Turns a full disk into one clear error.

    Raises:
        DataError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        free = shutil.disk_usage(out).free
        raise DataError(
            f"{out}: no space left on the disk (found {free / 1e6:.0f} MB free); free some and run the command again: "
            "it goes on with what is missing"
        ) from error


# ------------------------------------------------------------------------------------------------------- the state


@dataclasses.dataclass
class _State:
    """What a whole data set was made of: `stamps` are those of the rows of each split, in their order."""

    key: str
    listed: dict[str, int]
    stamps: dict[str, list[str]]
    skipped: list[Note]
    warnings: list[Note]

    @classmethod
    def of(
        cls, key: str, splits: Mapping[str, Sequence[Entry]], shards: Sequence[Shard], reports: Sequence[ShardReport]
    ) -> "_State":
        stamps: dict[str, list[str]] = {split: [] for split in splits}
        for shard, report in zip(shards, reports, strict=True):
            stamps[shard.split] += report.stamps
        return cls(
            key=key,
            listed={split: len(entries) for split, entries in splits.items()},
            stamps=stamps,
            skipped=[note for report in reports for note in report.skipped],
            warnings=[note for report in reports for note in report.warnings] + notes_of_copies(shards, reports),
        )

    @classmethod
    def read(cls, folder: pathlib.Path, out: pathlib.Path) -> "_State | None":
        """`None` unless the data set is whole."""
        if not (out / MARK).is_file() or not (folder / "state.json").is_file():
            return None
        try:
            content = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            for kind in ("skipped", "warnings"):
                content[kind] = [Note(**note) for note in content[kind]]
            state = cls(**content)
            str(state.preparation(out))  # which reads all of it
            return state
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):  # edited, or cut off
            return None

    def write(self, folder: pathlib.Path) -> None:
        unfinished = folder / ".state.json"
        unfinished.write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")
        unfinished.replace(folder / "state.json")

    def preparation(self, out: pathlib.Path) -> Preparation:
        prepared = {split: len(stamps) for split, stamps in self.stamps.items()}
        return Preparation(out, self.listed, prepared, self.skipped, self.warnings)


class _Recall:
    """Rows of an earlier preparation, by their stamps."""

    def __init__(self, out: pathlib.Path, state: _State):
        self.rows = {(split, stamp): row for split, stamps in state.stamps.items() for row, stamp in enumerate(stamps)}
        self.tables = load_saved(out)
        own = (note for note in state.warnings if COPY not in note.text)
        self.warnings = {(note.split, note.file_name): note.text for note in own}

    def __call__(self, split: str, stamp: str) -> tuple[dict[str, Any], str] | None:
        if (split, stamp) not in self.rows:
            return None
        row = self.tables[split][self.rows[split, stamp]]
        return row, self.warnings.get((split, row["file_name"]), "")


def _assemble(shards: Sequence[Shard], state: _State, folder: pathlib.Path, out: pathlib.Path) -> None:
    """Shards -> the data set. It is whole again when `MARK` is there, which moves last."""
    staged = folder / "staged"
    shutil.rmtree(staged, ignore_errors=True)
    tables = datasets.DatasetDict()
    for split in (split for split, stamps in state.stamps.items() if stamps):  # one without rows could not be loaded
        parts = [datasets.Dataset.from_file(str(shard.path)) for shard in shards if shard.split == split]
        tables[split] = datasets.concatenate_datasets(parts)
    tables.save_to_disk(staged)
    state.write(staged)
    staged.rename(folder / "whole")
    _move_in(folder, out)


def _move_in(folder: pathlib.Path, out: pathlib.Path) -> None:
    """Puts a data set that stands whole in `folder` into its place, or goes on with that after a kill."""
    whole = folder / "whole"
    if (whole / MARK).is_file():
        (out / MARK).unlink(missing_ok=True)
        if (whole / "state.json").is_file():
            (whole / "state.json").replace(folder / "state.json")
        splits = json.loads((folder / "state.json").read_text(encoding="utf-8"))["stamps"]
        for split, stamps in splits.items():
            if (whole / split).is_dir() or not stamps:
                shutil.rmtree(out / split, ignore_errors=True)
            if (whole / split).is_dir():
                (whole / split).rename(out / split)
        (whole / MARK).rename(out / MARK)
    shutil.rmtree(whole, ignore_errors=True)


# ------------------------------------------------------------------------------------------------------ the result


def check_entries(split: str, entries: Sequence[Entry]) -> None:
    """
    Raises:
        DataError: no recording of a split is there, two have the same file name, or one has no name in UTF-8.
    """
    if entries and all(entry.audio is None for entry in entries):
        raise DataError(
            f"{split}: found none of its {len(entries)} recordings, expected some; the first: {entries[0].absence}; "
            "check the names and the folder, or leave the split out"
        )
    seen: set[str] = set()
    for entry in entries:
        if entry.file_name in seen:
            raise DataError(
                f"{split}: found the file name {entry.file_name!r} twice, expected names that differ within a split; "
                "give its captions in one row, or rename one of the recordings"
            )
        if entry.file_name != entry.file_name.encode(errors="replace").decode():
            raise DataError(f"{split}: found the file name {entry.file_name!r}, expected UTF-8; rename the file")
        seen.add(entry.file_name)


def notes_of_copies(shards: Sequence[Shard], reports: Sequence[ShardReport]) -> list[Note]:
    """Note each recording of which another split has the same sound, under whatever name."""
    rows = [
        (shard.split, name, digest)
        for shard, report in zip(shards, reports, strict=True)
        for name, digest in report.digests.items()
    ]
    holders: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for split, name, digest in rows:
        holders[digest].append((split, name))
    notes = []
    for split, name, digest in rows:
        others = [f"{other}/{copy}" for other, copy in holders[digest] if other != split]
        if others:
            notes.append(Note(split, name, f"{COPY}: {', '.join(others[:3])}"))
    return notes


def write_notes(result: Preparation) -> None:
    """Writes skipped.csv and warnings.csv."""
    for name, column, notes in (("skipped", "reason", result.skipped), ("warnings", "warning", result.warnings)):
        with (result.folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["split", "file_name", column])
            writer.writerows(dataclasses.astuple(note) for note in notes)


def check_result(result: Preparation, strict: bool) -> None:
    """
    Raises:
        DataError: no recording of a split could be used, or, if `strict`, one could not.
    """
    listed, left_out = sum(result.listed.values()), len(result.skipped)
    unused = [split for split, count in result.listed.items() if count and not result.prepared[split]]
    if unused or (strict and left_out):
        notes = [note for note in result.skipped if not unused or note.split == unused[0]]
        found = (
            f"none of the {len(notes)} recordings of {unused[0]}" if unused else f"{left_out} of {listed} recordings"
        )
        raise DataError(
            f"{found} {'can' if unused else 'cannot'} be used, listed in {result.folder / 'skipped.csv'}; the first is "
            f"{notes[0].split}/{notes[0].file_name}: {notes[0].text}"
        )
    if not listed:
        raise DataError(f"{result.folder}: the source lists no recording, expected at least one")
