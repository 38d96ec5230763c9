"""Your own recordings: a folder with a metadata file, as `audiofolder` users expect, or any data set of `datasets`.

FOLDER/metadata.csv or .jsonl              columns file_name and caption or captions. Recordings in folders named train,
                                           validation and test belong to these splits; else splits are drawn at random
FOLDER/{train,validation,test}/metadata.*  the same, a file for each split

Rows that name the same recording are one recording with several captions, in one split.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import datasets
import huggingface_hub.constants
import numpy as np
import pyarrow

from ...errors import DataError
from ..entries import ROW_FEATURES, Entry, StoredAudio
from ..file_names import METADATA_FILES, FileFinder, file_identity, is_inside
from ..saved_tables import load_saved
from ..tables import caption_columns_of, captions_of, has_word, read_rows
from .soundscapes import SPLITS

CAPTIONS = datasets.List(datasets.Value("string"))
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
# Where the files of a data set on the Hub are.
CACHES = (datasets.config.HF_CACHE_HOME, datasets.config.HF_DATASETS_CACHE, datasets.config.DOWNLOADED_DATASETS_PATH)
CACHES += (huggingface_hub.constants.HF_HUB_CACHE,)
Source = tuple[dict[str, list[Entry]], datasets.Features]  # split -> entries, and the features of their columns


def own_recordings(
    source: str,
    audio_column: str = "audio",
    caption_columns: Sequence[str] = (),
    shares: dict[str, float] | None = None,
    allow_outside: bool = False,
) -> Source:
    """
    List the recordings of a folder with metadata, of a data set on disk, or of one on the Hub.

    Args:
        source: the folder, or the Hub id.
        audio_column: where a data set has its recordings.
        caption_columns: where the captions are, each a text or a list of texts; by default `captions` or `caption`.
        shares: of the splits that the source lacks, such as {"validation": 0.1}, drawn from its training recordings
            by their names.
        allow_outside: whether rows may name files outside the folder, by `..`, an absolute path or a link. Whoever
            wrote the rows could else have any file of this machine prepared, and uploaded with the rest.

    Raises:
        DataError: there is no such source, a column is missing, metadata cannot be read, a row names a file
            outside the folder, or two splits name the same recording.
    """
    _check_shares(shares or {})
    folder = pathlib.Path(source)
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        tables = load_saved(source)
        inside = None if allow_outside else [source]
        splits, features = _of_tables(tables, audio_column, caption_columns, source, inside)
    elif folder.is_dir():
        splits, features = _of_folder(folder, caption_columns, allow_outside)
    elif folder.is_file():
        raise DataError(
            f"{source}: found a file, expected a folder with {' or '.join(METADATA_FILES)}, a data set on disk, or the "
            "name of one on the Hub; name the folder that holds the file"
        )
    else:
        tables = _load(datasets.load_dataset, source)
        inside = None if allow_outside else CACHES
        splits, features = _of_tables(tables, audio_column, caption_columns, source, inside)
    return _with_shares(splits, shares or {}, source), features


def _check_shares(shares: dict[str, float]) -> None:
    for split, share in shares.items():
        if not 0 <= share < 1:  # not a number fails the comparison too
            raise DataError(f"share of {split}: found {share}, expected at least 0 and less than 1, such as 0.1")
    if sum(shares.values()) >= 1:
        found = " and ".join(f"{share} for {split}" for split, share in shares.items())
        raise DataError(f"shares: found {found}, which leave nothing for training, expected less than 1 together")


def _load(load: Callable[[str], datasets.DatasetDict | datasets.Dataset], source: str):
    """
    Load a data set.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    try:
        return load(source)
    except (ImportError, OSError, ValueError, datasets.exceptions.DatasetsError, pyarrow.ArrowException) as error:
        cause = error.__cause__ or error
        reason = " ".join(f"{error} ({cause})".split() if cause is not error else str(error).split())
        if isinstance(cause, ImportError):  # datasets decodes sound files by a package of its own
            raise DataError(
                f"{source}: found a data set that needs a package which is not installed: {reason}; install it, or "
                "fetch the files (hf download --repo-type dataset) and name their folder, with its metadata"
            ) from error
        raise DataError(
            f"{source}: found neither a folder nor a data set on the Hub ({reason}); check the name"
        ) from error


def _with_shares(splits: dict[str, list[Entry]], shares: dict[str, float], source: str) -> dict[str, list[Entry]]:
    """
    Take the missing splits from the training recordings.

    Raises:
        DataError: no recording would be left for training.
    """
    entries = sorted((entry for entry in splits.get("train", []) if entry.audio is not None), key=_lot)
    parts, drawn, bound = {}, 0, 0.0
    for split, share in shares.items():
        if split not in splits and entries:
            bound += share
            end = max(drawn + 1, sum(_lot(entry) < bound for entry in entries))  # one at least
            parts[split], drawn = entries[drawn:end], end
    if parts and drawn >= len(entries):
        raise DataError(
            f"{source}: found {len(entries)} recordings to draw {' and '.join(parts)} from, expected more, so that "
            "some are left for training; add recordings, or name folders train, validation and test"
        )
    split_of = {entry.file_name: split for split, part in parts.items() for entry in part}
    cut = {
        split: [entry for entry in splits.get("train", []) if split_of.get(entry.file_name, "train") == split]
        for split in ("train", *parts)
    }
    splits = {**cut, **{split: part for split, part in splits.items() if split != "train"}}
    return {split: splits[split] for split in sorted(splits, key=[*SPLITS, *sorted(splits)].index)}


def _lot(entry: Entry) -> float:
    """Return a number in [0, 1) that depends on the file name alone: recordings added later move no other."""
    return int.from_bytes(hashlib.sha256(entry.file_name.encode(errors="surrogatepass")).digest()[:6], "big") / 2**48


def _check_inside(path: str | os.PathLike, folders: Sequence[str | os.PathLike], name: str, where: str) -> None:
    """
    Raises:
        DataError: a row names a file outside the folders.
    """
    if not any(is_inside(path, folder) for folder in folders):
        raise DataError(
            f"{where}: found the recording {name!r}, which is outside {folders[0]}, expected one below it; take the "
            "row out, copy the file there, or say that such rows are yours by allow_outside"
        )


def _split_named(name: str) -> str | None:
    """Return the split that a name stands for, in any letter case."""
    name = OTHER_NAMES_OF_SPLITS.get(name.lower(), name.lower())
    return name if name in SPLITS else None


def _entry(file_name: str, audio: pathlib.Path | StoredAudio | None, columns: dict[str, Any]) -> Entry:
    """Make an entry of which only captions with a word remain: of others, no token is left."""
    captions = columns["captions"]
    words = [caption for caption in captions if has_word(caption)]
    if audio is None:
        return Entry(file_name, None, columns, f"{file_name}: found no such file; correct its name, or fetch it again")
    if not words:
        found = f"only captions without a word, such as {captions[0]!r}" if captions else "no caption"
        return Entry(file_name, None, columns, f"{file_name}: found {found}, expected at least one; write one")
    remark = ""
    if wordless := [caption for caption in captions if not has_word(caption)]:
        remark = f"{len(wordless)} of {len(captions)} captions left out: no word in {wordless[0]!r}"
    return Entry(file_name, audio, {**columns, "captions": words}, remark=remark)


def _refuse_second_split(name: str, splits: Sequence[str], source: str | os.PathLike) -> None:
    if splits[0] != splits[1]:
        raise DataError(
            f"{source}: found the recording {name!r} in {splits[0]} and in {splits[1]}, expected it in one split: a "
            "model must not be tested on what it was trained on; take it out of one of them"
        )


# -------------------------------------------------------------------------------------------- a folder with metadata


@dataclasses.dataclass
class _Recording:
    """One recording of metadata, with what all of its rows say."""

    file_name: str
    audio: pathlib.Path | None
    split: str | None
    captions: list[str]
    others: dict[str, str]


def _of_folder(folder: pathlib.Path, caption_columns: Sequence[str], allow_outside: bool) -> Source:
    recordings: dict[Hashable, _Recording] = {}
    for path, split in _metadata_files(folder).items():
        _read_metadata(path, split, caption_columns, recordings, None if allow_outside else folder)
    # A folder named train alone says nothing: it may hold the sounds of trains.
    if not any(recording.split not in (None, "train") for recording in recordings.values()):
        for recording in recordings.values():
            recording.split = "train"
    names = sorted({name for recording in recordings.values() for name in recording.others})
    splits: dict[str, list[Entry]] = {}
    for recording in recordings.values():
        columns = {**{name: recording.others.get(name, "") for name in names}, "captions": recording.captions}
        entry = _entry(recording.file_name, recording.audio, columns)
        splits.setdefault(recording.split or "train", []).append(entry)
    return splits, datasets.Features({"captions": CAPTIONS, **dict.fromkeys(names, datasets.Value("string"))})


def _metadata_files(folder: pathlib.Path) -> dict[pathlib.Path, str | None]:
    """
    Find the metadata of a folder, or that of its folders: path -> split, `None` where the recordings' folders decide.

    Raises:
        DataError: there is none, or it is not clear which counts.
    """

    def metadata_of(folder: pathlib.Path) -> list[pathlib.Path]:
        return [folder / name for name in METADATA_FILES if (folder / name).is_file()]

    below = {child: found for child in sorted(folder.iterdir()) if child.is_dir() and (found := metadata_of(child))}
    top = metadata_of(folder)
    named = {child: _split_named(child.name) for child in below}
    several = top if len(top) > 1 else next((found for found in below.values() if len(found) > 1), [])
    if several or (top and any(named.values())):
        several = several or [*top, *(found[0] for child, found in below.items() if named[child])]
        raise DataError(
            f"{folder}: found {' and '.join(map(str, several))}, expected one metadata file, or one in each "
            "folder of a split; join them, or rename those that do not count"
        )
    if top:
        return {top[0]: None}
    if not any(named.values()):
        found = (
            f"metadata in {', '.join(child.name for child in below)} only"
            if below
            else (f"no {' or '.join(METADATA_FILES)}")
        )
        raise DataError(
            f"{folder}: found {found}, expected one there or in its folders train, validation "
            "and test; write one with the columns file_name and caption"
        )
    splits = {child: named[child] or child.name for child in below}
    for child, split in splits.items():
        if others := [other.name for other in splits if other != child and splits[other] == split]:
            raise DataError(
                f"{folder}: found the folders {child.name} and {others[0]}, which are both the split {split}, expected "
                "one; join them, or rename one"
            )
    return {below[child][0]: split for child, split in splits.items()}


def _read_metadata(
    path: pathlib.Path,
    split: str | None,
    caption_columns: Sequence[str],
    recordings: dict[Hashable, _Recording],
    inside: pathlib.Path | None,
) -> None:
    """Add the recordings of a metadata file, and the captions of those that are known; the first row tells the rest."""
    folder, finder = path.parent, FileFinder(path.parent)
    for number, row in read_rows(path, ["file_name"]):
        where = f"{path}:{number}"
        columns = caption_columns_of(list(row), caption_columns, where)
        if not isinstance(row.get("file_name"), str) or not row["file_name"].strip():
            raise DataError(
                f"{where}: file_name: found {row.get('file_name')!r} among the columns {', '.join(row)}, expected the "
                f"path of a recording relative to {folder}; correct the line"
            )
        audio = finder.find(row["file_name"])
        named = audio or folder / row["file_name"].replace("\\", "/")
        if inside is not None:
            _check_inside(named, [inside], row["file_name"], f"{where}: file_name")
        file_name, identity = _name_below(folder, named), file_identity(named)
        own_split = split or next(filter(None, map(_split_named, pathlib.PurePath(file_name).parts[:-1])), None)
        if identity not in recordings:
            others = {
                name: value if isinstance(value, str) else json.dumps(value)
                for name, value in row.items()
                if name and name not in ROW_FEATURES and name not in columns
            }
            recordings[identity] = _Recording(file_name, audio, own_split, [], others)
        recording = recordings[identity]
        _refuse_second_split(file_name, [recording.split or "train", own_split or "train"], where)
        recording.captions += captions_of((row[name] for name in columns), where)


def _name_below(folder: pathlib.Path, audio: pathlib.Path) -> str:
    """Return the plain form of a recording's name: relative to its metadata where it is below, else as it is."""
    folder, audio = pathlib.Path(os.path.abspath(folder)), pathlib.Path(os.path.abspath(audio))
    return (
        audio.relative_to(folder) if audio.is_relative_to(folder) else pathlib.Path(os.path.relpath(audio, folder))
    ).as_posix()


# ---------------------------------------------------------------------------------------------------- a data set


def _of_tables(
    tables: datasets.DatasetDict | datasets.Dataset,
    audio_column: str,
    caption_columns: Sequence[str],
    source: str,
    inside: Sequence[str | os.PathLike] | None,
) -> Source:
    if isinstance(tables, datasets.Dataset):
        tables = datasets.DatasetDict({"train": tables})
    splits, features = {}, datasets.Features({"captions": CAPTIONS})
    split_of_file: dict[Hashable, str] = {}
    for split, table in tables.items():
        if audio_column not in table.column_names:
            raise DataError(
                f"{source}: found no column {audio_column} in the split {split}, expected one of "
                f"{', '.join(table.column_names)}; name it by audio_column"
            )
        name_of_split = _split_named(split) or split
        if name_of_split in splits:
            raise DataError(
                f"{source}: found two splits that are {name_of_split} ({', '.join(tables)}), expected one; rename one"
            )
        columns = caption_columns_of(table.column_names, caption_columns, f"{source}, split {split}")
        if isinstance(table.features[audio_column], datasets.Audio):
            table = table.cast_column(audio_column, datasets.Audio(decode=False))
        _check_audio_feature(table.features[audio_column], f"{source}, split {split}: column {audio_column}")
        others = [
            name
            for name, feature in table.features.items()
            if name not in {audio_column, *columns, *ROW_FEATURES}
            and not isinstance(feature, datasets.Audio | datasets.Image | datasets.Video)  # they need decoders
        ]
        features.update({name: table.features[name] for name in others})
        texts = table.select_columns(list(dict.fromkeys([*columns, *others])))[:]
        recordings = table.select_columns([audio_column])
        for row, (path, embedded) in enumerate(_paths(recordings, audio_column)):
            if inside is not None and path and not embedded:
                _check_inside(path, inside, path, f"{source}, row {row} of {split}: {audio_column}")
        rows_of = _rows_of_recordings(recordings, audio_column)
        names = _file_names(table, audio_column, [rows[0] for rows in rows_of.values()])
        splits[name_of_split] = []
        for (identity, rows), name in zip(rows_of.items(), names, strict=True):
            if isinstance(identity, tuple):  # a file, and not content
                _refuse_second_split(name, [split_of_file.setdefault(identity, name_of_split), name_of_split], source)
            captions = [
                caption
                for row in rows
                for caption in captions_of(
                    (texts[column][row] for column in columns), f"{source}, row {row} of {split}"
                )
            ]
            cells = {column: texts[column][rows[0]] for column in others}
            audio = StoredAudio(recordings, rows[0], audio_column)
            splits[name_of_split].append(_entry(name, audio, {**cells, "captions": captions}))
    return splits, features


def _check_audio_feature(feature: Any, where: str) -> None:
    """
    Raises:
        DataError: a column holds no recordings.
    """
    names = set(feature) if isinstance(feature, dict) else set()
    single = isinstance(feature, datasets.Value) and feature.dtype in (
        "string",
        "large_string",
        "binary",
        "large_binary",
    )
    if (
        single
        or isinstance(feature, datasets.Audio)
        or names & {"bytes", "path"}
        or names >= {"array", "sampling_rate"}
    ):
        return
    raise DataError(
        f'{where} holds {feature}, expected recordings: files as {{"bytes", "path"}} or paths, or samples with their '
        'rate as {"array", "sampling_rate"}; name the right column by audio_column, or add the rate'
    )


def _rows_of_recordings(table: datasets.Dataset, column: str) -> dict[Hashable, list[int]]:
    """
    Group the rows that hold the same recording, in the order of the first of them.

    The same are one file under any of its names, and equal bytes or samples that have the same name or none. Files in
    the table that differ in name are not compared: a preparation reports those that are equal.
    """
    rows_of: dict[Hashable, list[int]] = defaultdict(list)
    cells = _paths(table, column)
    count = Counter(path for path, _ in cells)
    for row, (path, embedded) in enumerate(cells):
        if not embedded:
            rows_of[file_identity(path) if path else row].append(row)
        elif path and count[path] == 1:
            rows_of[path].append(row)
        else:
            rows_of[_content_of(table[row][column])].append(row)
    return rows_of


def _content_of(value: Any) -> str:
    """Return a digest of the bytes or samples in a cell."""
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(value, bytes):
        digest.update(value)
    elif value.get("bytes") is not None:
        digest.update(value["bytes"])
    else:
        digest.update(repr(value["sampling_rate"]).encode())
        digest.update(np.asarray(value["array"], dtype=np.float64).tobytes())
    return digest.hexdigest()


def _file_names(table: datasets.Dataset, audio_column: str, rows: Sequence[int]) -> list[str]:
    """Name the recordings that begin at some rows: by the table's names where they all differ, else by their row."""
    if "file_name" in table.column_names:
        names = table["file_name"][:]
    else:
        names = [path for path, _ in _paths(table, audio_column)]
    found = [os.path.basename(names[row]) if names[row] else "" for row in rows]
    if len(set(found)) == len(found) and all(found):
        return found
    return [f"{row:08d}" for row in rows]


def _paths(table: datasets.Dataset, audio_column: str) -> list[tuple[str | None, bool]]:
    """Return the path of each recording, if it has one, and whether its sound is in the table; no sound is read."""
    cells: list[tuple[str | None, bool]] = []
    for batch in table.select_columns([audio_column]).with_format("arrow").iter(batch_size=1000):
        for chunk in batch[audio_column].chunks:
            if not pyarrow.types.is_struct(chunk.type):
                is_path = pyarrow.types.is_string(chunk.type) or pyarrow.types.is_large_string(chunk.type)
                paths = chunk.to_pylist() if is_path else [None] * len(chunk)
                cells += [(path, not is_path) for path in paths]
                continue
            fields = {chunk.type.field(number).name: chunk.field(number) for number in range(chunk.type.num_fields)}
            paths = fields["path"].to_pylist() if "path" in fields else [None] * len(chunk)
            sound = [fields[name].is_valid().to_pylist() for name in ("bytes", "array") if name in fields]
            cells += [(path, any(valid)) for path, *valid in zip(paths, *sound, strict=True)]
    return cells
