"""Your own recordings: a folder with a metadata file, as `audiofolder` users expect, or any data set of `datasets`.

FOLDER/metadata.csv or .jsonl              columns file_name and caption or captions; cut into splits at random
FOLDER/{train,validation,test}/metadata.*  the same, with splits of its own
"""

import contextlib
import csv
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import datasets

from .entries import ROW_FEATURES, Entry, PreparationError, StoredAudio
from .soundscapes import SPLITS

CAPTIONS = datasets.List(datasets.Value("string"))
CAPTION_COLUMNS = ("captions", "caption")
METADATA_FILES = ("metadata.csv", "metadata.jsonl")
OTHER_NAMES_OF_SPLITS = {
    "training": "train",
    "development": "train",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "eval": "test",
    "evaluation": "test",
    "testing": "test",
}
Source = tuple[dict[str, list[Entry]], datasets.Features]  # split -> entries, and the features of their columns


def own_recordings(
    source: str,
    audio_column: str = "audio",
    caption_columns: Sequence[str] = (),
    shares: dict[str, float] | None = None,
) -> Source:
    """
    The entries of a folder with metadata, of a data set on disk, or of one on the Hub.

    Args:
        source: the folder, or the Hub id.
        audio_column: where a data set has its recordings.
        caption_columns: where the captions are, each a text or a list of texts; by default `captions` or `caption`.
        shares: of the splits that the source lacks, such as {"validation": 0.1}, drawn from its training recordings
            by their names.

    Raises:
        PreparationError: there is no such source, a column is missing, or metadata cannot be read.
    """
    folder = pathlib.Path(source)
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        splits, features = _of_tables(datasets.load_from_disk(folder), audio_column, caption_columns, source)
    elif folder.is_dir():
        splits, features = _of_folder(folder, caption_columns)
    else:
        try:
            tables = datasets.load_dataset(source)
        except (OSError, ValueError) as error:
            raise PreparationError(
                f"{source}: found neither a folder nor a data set on the Hub ({' '.join(str(error).split())}); check "
                "the name"
            ) from error
        splits, features = _of_tables(tables, audio_column, caption_columns, source)
    return _with_shares(splits, shares or {}), features


def _with_shares(splits: dict[str, list[Entry]], shares: dict[str, float]) -> dict[str, list[Entry]]:
    """Takes the missing splits from the training recordings."""
    entries = sorted(splits.get("train", []), key=_lot)
    parts, drawn, bound = {}, 0, 0.0
    for split, share in shares.items():
        if split not in splits and entries:
            bound += share
            end = max(drawn + 1, sum(_lot(entry) < bound for entry in entries))  # one at least
            parts[split], drawn = entries[drawn:end], end
    split_of = {entry.file_name: split for split, part in parts.items() for entry in part}
    cut = {
        split: [entry for entry in splits.get("train", []) if split_of.get(entry.file_name, "train") == split]
        for split in ("train", *parts)
    }
    splits = {**cut, **{split: part for split, part in splits.items() if split != "train"}}
    return {split: splits[split] for split in sorted(splits, key=[*SPLITS, *sorted(splits)].index)}


def _lot(entry: Entry) -> float:
    """A number in [0, 1) that hangs on the file name alone: recordings that are added later move no other."""
    return int.from_bytes(hashlib.sha256(entry.file_name.encode()).digest()[:6], "big") / 2**48


# -------------------------------------------------------------------------------------------- a folder with metadata


def _of_folder(folder: pathlib.Path, caption_columns: Sequence[str]) -> Source:
    if path := _metadata_of(folder):
        found = {"train": path}
    else:
        names = {child.name: _metadata_of(child) for child in sorted(folder.iterdir()) if child.is_dir()}
        found = {OTHER_NAMES_OF_SPLITS.get(name, name): path for name, path in names.items() if path}
    if not found:
        raise PreparationError(
            f"{folder}: found no {' or '.join(METADATA_FILES)}, expected one there or in its folders train, validation "
            "and test; write one with the columns file_name and caption"
        )
    rows = {split: _read_metadata(path, caption_columns) for split, path in found.items()}
    names = sorted(
        {name for of_split in rows.values() for row in of_split.values() for name in row if name != "captions"}
    )
    splits = {
        split: [
            _entry(name, found[split].parent / name, {column: row.get(column, "") for column in [*names, "captions"]})
            for name, row in of_split.items()
        ]
        for split, of_split in rows.items()
    }
    return splits, datasets.Features({"captions": CAPTIONS, **dict.fromkeys(names, datasets.Value("string"))})


def _metadata_of(folder: pathlib.Path) -> pathlib.Path | None:
    return next((folder / name for name in METADATA_FILES if (folder / name).is_file()), None)


def _entry(file_name: str, audio: pathlib.Path | StoredAudio, columns: dict[str, Any]) -> Entry:
    if not columns["captions"]:
        return Entry(file_name, None, columns, f"{file_name}: found no caption, expected at least one; write one")
    return Entry(file_name, audio, columns)


def _read_metadata(path: pathlib.Path, caption_columns: Sequence[str]) -> dict[str, dict[str, Any]]:
    """File name -> its captions, joined over its rows, and the other columns of its first row as text."""
    recordings: dict[str, dict[str, Any]] = {}
    for number, row in _metadata_rows(path):
        where = f"{path}:{number}"
        columns = caption_columns_of(list(row), caption_columns, where)
        if not isinstance(row.get("file_name"), str) or not row["file_name"]:
            raise PreparationError(
                f"{where}: file_name: found {row.get('file_name')!r} among the columns {', '.join(row)}, expected the "
                f"path of a recording relative to {path.parent}; correct the line"
            )
        others = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in row.items()
            if name not in ROW_FEATURES and name not in columns
        }
        recording = recordings.setdefault(row["file_name"], {"captions": [], **others})
        recording["captions"] += captions_of((row[name] for name in columns), where)
    return recordings


def _metadata_rows(path: pathlib.Path) -> Iterable[tuple[int, dict[str, Any]]]:
    """(number of the line, column -> value)."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            if path.suffix == ".csv":
                reader = csv.DictReader(file, restkey="(surplus)", restval="")
                for row in reader:
                    yield reader.line_num, row
                return
            for number, line in enumerate(file, start=1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise ValueError(f"line {number} is no object")
                    yield number, row
    except (OSError, csv.Error, ValueError) as error:  # ValueError: no UTF-8, no JSON
        if isinstance(error, PreparationError):
            raise
        raise PreparationError(
            f"{path}: found {error}, expected UTF-8 lines of {path.suffix}; correct the file"
        ) from error


def caption_columns_of(columns: Sequence[str], asked: Sequence[str], where: str) -> Sequence[str]:
    """
    The columns that hold captions: those asked for, or the first of `CAPTION_COLUMNS`.

    Raises:
        PreparationError: there are no such columns; the message lists those that exist.
    """
    missing = [name for name in asked if name not in columns]
    found = asked or [name for name in CAPTION_COLUMNS if name in columns][:1]
    if missing or not found:
        raise PreparationError(
            f"{where}: found no column {' or '.join(missing or CAPTION_COLUMNS)} for the captions, expected one of "
            f"{', '.join(map(str, columns))}; name it by --caption_column"
        )
    return found


def captions_of(values: Iterable[Any], where: str) -> list[str]:
    """
    The captions in cells, each a text, a list of texts, or such a list written as JSON; empty ones are dropped.

    Raises:
        PreparationError: a value is none of these.
    """
    captions: list[Any] = []
    for value in values:
        if isinstance(value, str) and value.lstrip().startswith("["):
            with contextlib.suppress(ValueError):  # a caption may begin with a bracket
                value = json.loads(value)
        captions += value if isinstance(value, list) else [value]
    for caption in captions:
        if not isinstance(caption, str | None):
            raise PreparationError(f"{where}: captions: found {caption!r}, expected texts; correct the line")
    return [caption.strip() for caption in captions if caption and caption.strip()]


# ---------------------------------------------------------------------------------------------------- a data set


def _of_tables(
    tables: datasets.DatasetDict | datasets.Dataset, audio_column: str, caption_columns: Sequence[str], source: str
) -> Source:
    if isinstance(tables, datasets.Dataset):
        tables = datasets.DatasetDict({"train": tables})
    splits, features = {}, datasets.Features({"captions": CAPTIONS})
    for split, table in tables.items():
        if audio_column not in table.column_names:
            raise PreparationError(
                f"{source}: found no column {audio_column} in the split {split}, expected one of "
                f"{', '.join(table.column_names)}; name it by --audio_column"
            )
        columns = caption_columns_of(table.column_names, caption_columns, f"{source}, split {split}")
        if isinstance(table.features[audio_column], datasets.Audio):
            table = table.cast_column(audio_column, datasets.Audio(decode=False))
        others = [name for name in table.column_names if name not in {audio_column, *columns, *ROW_FEATURES}]
        features.update({name: table.features[name] for name in others})
        texts = table.select_columns(list(dict.fromkeys([*columns, *others])))
        recordings = table.select_columns([audio_column])
        splits[OTHER_NAMES_OF_SPLITS.get(split, split)] = [
            _entry(
                name,
                StoredAudio(recordings, row, audio_column),
                {
                    **{column: cells[column] for column in others},
                    "captions": captions_of((cells[column] for column in columns), f"{source}, row {row} of {split}"),
                },
            )
            for row, (name, cells) in enumerate(zip(_file_names(table, audio_column), texts, strict=True))
        ]
    return splits, features


def _file_names(table: datasets.Dataset, audio_column: str) -> list[str]:
    """The table's own, or those of the recordings, where they differ from one another; else the number of the row."""
    names = table["file_name"][:] if "file_name" in table.column_names else _paths(table, audio_column)
    names = [os.path.basename(name) if name else "" for name in names]
    if len(set(names)) == len(names) and all(names):
        return names
    return [f"{row:08d}" for row in range(len(table))]


def _paths(table: datasets.Dataset, audio_column: str) -> list[str | None]:
    """The paths in the column of recordings; their bytes are not touched."""
    column = table.with_format("arrow")[audio_column]
    paths: list[str | None] = []
    for chunk in column.chunks if hasattr(column, "chunks") else [column[:]]:
        paths += (chunk.field("path") if hasattr(chunk, "field") and chunk.type.num_fields else chunk).to_pylist()
    return paths
