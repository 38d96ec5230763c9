"""Turn the entries of a source into a prepared data set: a `datasets.DatasetDict` that training reads.

OUT/dataset_dict.json, OUT/<split>/   what `datasets.load_from_disk(OUT)` reads; the former is written last
OUT/skipped.csv, OUT/warnings.csv     recordings that were left out, and those that were kept but look odd
OUT/.preparation/                     the lock, unfinished shards, and the record of a complete preparation

Each split is cut into shards. These are Arrow files that processes write in parallel, each with a JSON report that is
written last. A killed preparation continues with the missing shards. `Dataset.from_generator` with `num_proc` would
start again, and can neither leave out a recording nor say why, so the shards are our own.
"""

import contextlib
import csv
import dataclasses
import functools
import hashlib
import itertools
import json
import math
import os
import pathlib
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import datasets
import filelock
from datasets.arrow_writer import ArrowWriter

from ..bars import progress_bar
from ..errors import AudioError, DataError, UnreadableError
from ..files import check_local_folder, is_full_disk
from .entries import ROW_FEATURES, STORED_AUDIO, Entry, prepare_entry
from .processes import in_processes
from .saved_tables import load_saved, without_decoding

ENTRIES_OF_A_SHARD = 64  # with a recording
ROWS_IN_MEMORY = 32  # of a shard while it is written, and at a time where it is streamed
MARK = "dataset_dict.json"  # without it, `load_from_disk` reads nothing
COPY = "the same sound as in another split"


@dataclasses.dataclass(frozen=True)
class Note:
    """Something about one recording that its user should know."""

    split: str
    file_name: str
    text: str


@dataclasses.dataclass
class Preparation:
    """
    Summary of a preparation, which is printed at its end and read by the next one.

    Attributes:
        folder: the prepared data set.
        listed: split -> recordings that the source lists.
        stamps: split -> the stamp of each row, see `Entry.stamp`.
        skipped, warnings: recordings left out, and those kept with a warning.
        key: equal for equal entries and columns; empty if some entries should be tried again.
    """

    folder: pathlib.Path
    listed: dict[str, int]
    stamps: dict[str, list[str]]
    skipped: list[Note]
    warnings: list[Note]
    key: str = ""

    @property
    def prepared(self) -> dict[str, int]:
        """Return the number of prepared recordings per split."""
        return {split: len(stamps) for split, stamps in self.stamps.items()}

    @classmethod
    def read(cls, folder: pathlib.Path) -> "Preparation | None":
        """Read the preparation of a folder; `None` if the folder holds no complete data set."""
        try:
            content = json.loads((folder / ".preparation" / "state.json").read_text(encoding="utf-8"))
            for kind in ("skipped", "warnings"):
                content[kind] = [Note(**note) for note in content[kind]]
            found = cls(folder, **content)
            str(found)  # which reads all of it
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):  # edited, or cut off
            return None
        return found if (folder / MARK).is_file() else None

    def write(self, path: pathlib.Path) -> None:
        content = dataclasses.asdict(self)
        del content["folder"]
        path.write_text(json.dumps(content), encoding="utf-8")

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
    Decode, resample and store all recordings; a recording that cannot be used is left out and listed.

    A second run does nothing. With other entries, it prepares only the new ones. Columns that were added to the data
    set since are kept, and are empty for new entries.

    Args:
        splits: name -> entries of the source.
        columns: the features of the entries' columns.
        out: folder of the data set.
        num_proc: number of processes that decode.
        strict: whether a recording that must be left out is an error.

    Raises:
        DataError: the folder holds something else or a damaged data set, the disk is full, no recording can be used,
            or, if `strict`, one cannot.
    """
    features = datasets.Features({**ROW_FEATURES, **columns})
    with open_preparation(splits, out) as (out, folder):
        _move_in(folder / "whole", out)
        shards = []
        for split, entries in splits.items():
            there = sum(entry.audio is not None for entry in entries)
            shards += cut(split, entries, features, math.ceil(there / ENTRIES_OF_A_SHARD))
        key = hashlib.sha256("".join(shard.key for shard in shards).encode()).hexdigest()
        earlier = Preparation.read(out)
        tables = load_saved(out) if earlier else {}  # even if nothing is to do, as a file may be damaged since
        if earlier and earlier.key == key:
            result = earlier
            check_result(result, strict)
        else:
            shards = [_with_added_columns(shard, tables) for shard in shards]
            (folder / "shards").mkdir(exist_ok=True)
            known = _known_rows(earlier, tables) if earlier else {}
            reports = write_shards(shards, folder / "shards", num_proc, known)
            result = sum_up(out, splits, shards, reports, key)
            check_result(result, strict)
            _save_whole(folder, shards, result)
            _move_in(folder / "whole", out)
        for scratch in ("shards", "staged"):
            shutil.rmtree(folder / scratch, ignore_errors=True)
        return result


def whole_preparation(out: str | os.PathLike) -> Preparation | None:
    """Return the summary of an earlier preparation; `None` if the folder holds no complete data set."""
    return Preparation.read(pathlib.Path(out))


def _with_added_columns(shard: "Shard", tables: Mapping[str, datasets.Dataset]) -> "Shard":
    """Keep the columns that were added to an earlier data set, such as back-translations."""
    earlier = tables[shard.split].features if shard.split in tables else {}
    added = {name: feature for name, feature in earlier.items() if name not in shard.features}
    return dataclasses.replace(shard, features=datasets.Features({**shard.features, **added}))


def _known_rows(earlier: Preparation, tables: Mapping[str, datasets.Dataset]) -> "KnownRows":
    known: KnownRows = {}
    for split, table in tables.items():
        stamps = earlier.stamps.get(split, [])
        if len(stamps) != len(table):  # rows were removed since, and it is unknown which ones
            continue
        table = without_decoding(table)
        own = (note for note in earlier.warnings if note.split == split and COPY not in note.text)
        warnings = {note.file_name: note.text for note in own}
        for row, (stamp, name) in enumerate(zip(stamps, table["file_name"][:], strict=True)):
            known[split, stamp] = table, row, warnings.get(name, "")
    return known


def _save_whole(folder: pathlib.Path, shards: Sequence["Shard"], result: Preparation) -> None:
    """Join the shards to the data set `whole` in `folder`, which appears by a renaming."""
    staged = folder / "staged"
    shutil.rmtree(staged, ignore_errors=True)
    tables = datasets.DatasetDict()
    for split in (split for split, stamps in result.stamps.items() if stamps):  # one without rows could not be loaded
        paths = [str(folder / "shards" / f"{shard.name}.arrow") for shard in shards if shard.split == split]
        pieces = [datasets.Dataset.from_file(path) for path in paths]
        # Those of an earlier version declare `STORED_AUDIO`.
        pieces = [piece.cast_column("audio", ROW_FEATURES["audio"]) for piece in pieces]
        tables[split] = datasets.concatenate_datasets(pieces)
    tables.save_to_disk(staged)
    result.write(staged / "state.json")
    staged.rename(folder / "whole")


def _move_in(whole: pathlib.Path, out: pathlib.Path) -> None:
    """Move a complete data set to its place, or finish such a move after a kill; `MARK` moves last."""
    if (whole / MARK).is_file():
        (out / MARK).unlink(missing_ok=True)
        if (whole / "state.json").is_file():
            (whole / "state.json").replace(whole.with_name("state.json"))
        for table in [path for path in whole.iterdir() if path.is_dir()]:
            shutil.rmtree(out / table.name, ignore_errors=True)
            table.rename(out / table.name)
        (whole / MARK).rename(out / MARK)
    shutil.rmtree(whole, ignore_errors=True)


# ------------------------------------------------------------------------------------------------------ the folder


@contextlib.contextmanager
def open_preparation(
    splits: Mapping[str, Sequence[Entry]], out: str | os.PathLike
) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """
    Check the entries and the folder, and lock the folder for the duration of the block.

    Yields:
        The folder of the data set, and its folder .preparation.

    Raises:
        DataError: no recording of a split exists, two have the same file name, a name is not UTF-8, the folder cannot
            be used, or the disk is full.
    """
    check_local_folder(out, "OUT", DataError)
    out = pathlib.Path(out)
    for split, entries in splits.items():
        if entries and all(entry.audio is None for entry in entries):
            raise DataError(
                f"{split}: found none of its {len(entries)} recordings, expected some; the first: "
                f"{entries[0].absence}; check the names and the folder, or leave the split out"
            )
        seen: set[str] = set()
        for entry in entries:
            if entry.file_name in seen:
                raise DataError(
                    f"{split}: found the file name {entry.file_name!r} twice, expected names that differ within a "
                    "split; give its captions in one row, or rename one of the recordings"
                )
            if entry.file_name != entry.file_name.encode(errors="replace").decode():
                raise DataError(f"{split}: found the file name {entry.file_name!r}, expected UTF-8; rename the file")
            seen.add(entry.file_name)
    with preparation_folder(out) as folder, one_line_when_full(out):
        yield out, folder


@contextlib.contextmanager
def preparation_folder(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """
    Lock OUT/.preparation. A second preparation of the same folder waits, and then finds it complete.

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
        locked = lock.acquire(blocking=False)
    except filelock.Timeout:
        print(f"{out}: waiting for another preparation of it to end", flush=True)
        locked = lock.acquire()
    with locked:
        yield folder


@contextlib.contextmanager
def one_line_when_full(out: pathlib.Path) -> Iterator[None]:
    """
    Turn a full disk into one clear error.

    Raises:
        DataError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if not is_full_disk(error):
            raise
        free = shutil.disk_usage(out).free
        raise DataError(
            f"{out}: no space left on the disk (found {free / 1e6:.0f} MB free); free some and run the command again: "
            "it continues with what is missing"
        ) from error


# ------------------------------------------------------------------------------------------------------ the shards


@dataclasses.dataclass(frozen=True)
class Shard:
    """Piece of a split, with its rows in `<name>.arrow` and its report in `<name>.json`."""

    name: str
    split: str
    entries: Sequence[Entry]
    features: datasets.Features

    @functools.cached_property
    def stamps(self) -> list[str]:
        return [entry.stamp() for entry in self.entries]

    @functools.cached_property
    def key(self) -> str:
        features = {**self.features, "audio": STORED_AUDIO}  # as earlier versions declared it: their shards stay valid
        content = (self.split, sorted(features.items()), self.stamps)
        return hashlib.sha256(repr(content).encode()).hexdigest()


@dataclasses.dataclass
class ShardReport:
    """
    Report of a complete shard.

    Attributes:
        stamps: stamps of its rows.
        skipped, warnings: recordings left out, and those kept with a warning.
        digests: file name -> digest of the sound, equal for equal sounds; empty in reports of earlier versions.
        retry: whether the system failed to read a recording, which says nothing about the recording.
    """

    stamps: list[str] = dataclasses.field(default_factory=list)
    skipped: list[Note] = dataclasses.field(default_factory=list)
    warnings: list[Note] = dataclasses.field(default_factory=list)
    digests: dict[str, str] = dataclasses.field(default_factory=dict)
    retry: bool = False

    @classmethod
    def read(cls, shard: Shard, folder: pathlib.Path) -> "ShardReport | None":
        """Read the report of a shard; `None` unless the shard is complete and of the same recordings."""
        try:
            content = json.loads((folder / f"{shard.name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if content.pop("key") != shard.key or content.get("retry") or not (folder / f"{shard.name}.arrow").is_file():
            return None
        for kind in ("skipped", "warnings"):
            content[kind] = [Note(**note) for note in content[kind]]
        return cls(**content)

    def write(self, shard: Shard, folder: pathlib.Path) -> None:
        unfinished = _unfinished(shard, folder)
        unfinished.write_text(json.dumps({"key": shard.key, **dataclasses.asdict(self)}), encoding="utf-8")
        unfinished.replace(folder / f"{shard.name}.json")


# (split, stamp of an entry) -> the table and the row where it is prepared already, and the warning about it
KnownRows = dict[tuple[str, str], tuple[datasets.Dataset, int, str]]


def cut(split: str, entries: Sequence[Entry], features: datasets.Features, count: int) -> list[Shard]:
    """Cut a split into `count` shards of nearly equal size, fewer where there are fewer entries."""
    count = max(1, min(count, len(entries)))
    bounds = [number * len(entries) // count for number in range(count + 1)]
    return [
        Shard(f"{split}-{number:05d}-of-{count:05d}", split, entries[start:end], features)
        for number, (start, end) in enumerate(itertools.pairwise(bounds))
    ]


def write_shards(
    shards: Sequence[Shard], folder: pathlib.Path, num_proc: int, known: KnownRows | None = None
) -> list[ShardReport]:
    """
    Write the missing shards in `num_proc` processes with a progress bar. Complete shards stay as they are.

    Raises:
        OSError, DataError: a shard cannot be written, or a process died; complete shards stay.
    """
    for path in folder.glob(".*"):  # of killed processes; the folder is locked, so no other process uses it
        path.unlink()
    reports = {number: report for number, shard in enumerate(shards) if (report := ShardReport.read(shard, folder))}
    missing = [number for number in range(len(shards)) if number not in reports]
    total = sum(len(shards[number].entries) for number in missing)
    with progress_bar(total=total, desc="Preparing recordings", unit=" recordings", disable=not total) as bar:
        written = in_processes(
            lambda position: write_shard(shards[missing[position]], folder, known or {}), len(missing), num_proc
        )
        for position, report in written:
            reports[missing[position]] = report
            bar.update(len(shards[missing[position]].entries))
    return [reports[number] for number in range(len(shards))]


def write_shard(shard: Shard, folder: pathlib.Path, known: KnownRows) -> ShardReport:
    """Prepare the entries of one shard; those that cannot be used are left out."""
    report = ShardReport()
    (folder / f"{shard.name}.json").unlink(missing_ok=True)
    unfinished = _unfinished(shard, folder)
    with ArrowWriter(path=str(unfinished), features=shard.features, writer_batch_size=ROWS_IN_MEMORY) as writer:
        for entry, stamp in zip(shard.entries, shard.stamps, strict=True):
            try:
                if (shard.split, stamp) in known:
                    table, number, warning = known[shard.split, stamp]
                    row = table[number]
                else:
                    row, warning = prepare_entry(entry, shard.split)
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
    unfinished.replace(folder / f"{shard.name}.arrow")
    report.write(shard, folder)
    return report


def _unfinished(shard: Shard, folder: pathlib.Path) -> pathlib.Path:
    """Name a file while this process writes it. A process that was just killed may still write its own."""
    return folder / f".{shard.name}.{os.getpid()}"


# ------------------------------------------------------------------------------------------------------ the result


def sum_up(
    out: pathlib.Path,
    splits: Mapping[str, Sequence[Entry]],
    shards: Sequence[Shard],
    reports: Sequence[ShardReport],
    key: str = "",
) -> Preparation:
    """Join the reports of all shards, and write skipped.csv and warnings.csv."""
    stamps: dict[str, list[str]] = {split: [] for split in splits}
    sounds: list[tuple[str, str, str]] = []  # split, file name, digest
    places_of: dict[str, list[tuple[str, str]]] = defaultdict(list)  # digest -> split and file name
    for shard, report in zip(shards, reports, strict=True):
        stamps[shard.split] += report.stamps
        for name, digest in report.digests.items():
            sounds.append((shard.split, name, digest))
            places_of[digest].append((shard.split, name))
    skipped = [note for report in reports for note in report.skipped]
    warnings = [note for report in reports for note in report.warnings]
    # A recording that another split also has, under any name, makes the test too easy.
    for split, name, digest in sounds:
        if copies := [f"{other}/{copy}" for other, copy in places_of[digest] if other != split]:
            warnings.append(Note(split, name, f"{COPY}: {', '.join(copies[:3])}"))
    for file_name, column, notes in (("skipped.csv", "reason", skipped), ("warnings.csv", "warning", warnings)):
        with (out / file_name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["split", "file_name", column])
            writer.writerows(dataclasses.astuple(note) for note in notes)
    listed = {split: len(entries) for split, entries in splits.items()}
    # Without a key, the next run tries again what the system did not read.
    key = "" if any(report.retry for report in reports) else key
    return Preparation(out, listed, stamps, skipped, warnings, key)


def check_result(result: Preparation, strict: bool) -> None:
    """
    Refuse a data set that lacks too many recordings.

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
