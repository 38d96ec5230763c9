"""Your own recordings: a folder with a metadata file, as `audiofolder` users expect, or any data set of `datasets`.

FOLDER/metadata.csv or .jsonl              columns file_name and caption or captions. Recordings in folders named train,
                                           validation and test belong to these splits; else splits are drawn at random
FOLDER/{train,validation,test}/metadata.*  the same, one file per split

Rows that name the same recording are one recording with several captions, in one split.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import datasets
import huggingface_hub.constants
import numpy as np
import pyarrow.compute

from ...errors import DataError
from ..entries import CAPTIONS, ROW_FEATURES, Entry, Source, StoredAudio
from ..file_names import METADATA_FILES, FileFinder, file_identity, is_inside
from ..saved_tables import load_saved
from ..tables import caption_columns_of, captions_of, has_word, read_rows
from .soundscapes import SPLITS

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
CACHES = [
    datasets.config.HF_CACHE_HOME,
    datasets.config.HF_DATASETS_CACHE,
    datasets.config.DOWNLOADED_DATASETS_PATH,
    huggingface_hub.constants.HF_HUB_CACHE,
]


@dataclasses.dataclass
class _Row:
    """
    A row of metadata or of a data set: a recording and some of its captions.

    Attributes:
        where: place of the row, for errors.
        recording: equal for all rows of one recording.
        others: the remaining columns.
    """

    where: str
    recording: Hashable
    file_name: str
    audio: pathlib.Path | StoredAudio | None
    split: str
    captions: list[str]
    others: dict[str, Any]


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
        shares: shares of the splits that the source lacks, such as {"validation": 0.1}, drawn from its training
            recordings by their names.
        allow_outside: whether rows may name files outside the folder, by `..`, an absolute path or a link. If so, the
            author of the rows can have any file of this machine prepared, and uploaded with the rest.

    Raises:
        DataError: there is no such source, a column is missing, metadata cannot be read, a row names a file
            outside the folder, or two splits name the same recording.
    """
    shares = shares or {}
    for split, share in shares.items():
        if not 0 <= share < 1:  # not a number fails the comparison too
            raise DataError(f"share of {split}: found {share}, expected at least 0 and less than 1, such as 0.1")
    if sum(shares.values()) >= 1:
        found = " and ".join(f"{share} for {split}" for split, share in shares.items())
        raise DataError(f"shares: found {found}, which leave nothing for training, expected less than 1 together")

    folder = pathlib.Path(source)
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        inside = None if allow_outside else [source]
        splits, features = _of_tables(load_saved(source), audio_column, caption_columns, source, inside)
    elif folder.is_dir():
        splits, features = _of_folder(folder, caption_columns, allow_outside)
    elif folder.is_file():
        raise DataError(
            f"{source}: found a file, expected a folder with {' or '.join(METADATA_FILES)}, a data set on disk, or the "
            "name of one on the Hub; name the folder that holds the file"
        )
    else:
        inside = None if allow_outside else CACHES
        splits, features = _of_tables(_load_from_hub(source), audio_column, caption_columns, source, inside)
    return _draw_splits(splits, shares, source), features


def split_named(name: str) -> str | None:
    """Return the split that a name stands for, in any letter case."""
    name = OTHER_NAMES_OF_SPLITS.get(name.lower(), name.lower())
    return name if name in SPLITS else None


def _load_from_hub(source: str) -> datasets.DatasetDict | datasets.Dataset:
    """Load a data set, and turn every failure into one kind of error."""
    try:
        return datasets.load_dataset(source)
    except (ImportError, OSError, ValueError, datasets.exceptions.DatasetsError, pyarrow.ArrowException) as error:
        cause = error.__cause__ or error
        reason = " ".join(f"{error} ({cause})".split() if cause is not error else str(error).split())
        if isinstance(cause, ImportError):  # datasets decodes sound files with a separate package
            raise DataError(
                f"{source}: found a data set that needs a package which is not installed: {reason}; install it, or "
                "fetch the files (hf download --repo-type dataset) and name their folder, with its metadata"
            ) from error
        raise DataError(
            f"{source}: found neither a folder nor a data set on the Hub ({reason}); check the name"
        ) from error


def _join(rows: list[_Row]) -> dict[str, list[Entry]]:
    """Join the rows of each recording: all give captions, the first one gives the rest."""
    recordings: dict[Hashable, _Row] = {}
    for row in rows:
        first = recordings.setdefault(row.recording, row)
        if first.split != row.split:
            raise DataError(
                f"{row.where}: found the recording {row.file_name!r} in {first.split} and in {row.split}, expected it "
                "in one split: a model must not be tested on what it was trained on; take it out of one of them"
            )
        if first is not row:
            first.captions += row.captions
    splits: dict[str, list[Entry]] = {}
    for row in recordings.values():
        splits.setdefault(row.split, []).append(_entry(row))
    return splits


def _entry(row: _Row) -> Entry:
    """Make an entry with only the captions that have a word, because no token is left of the others."""
    name, audio, columns = row.file_name, row.audio, {**row.others, "captions": row.captions}
    if audio is None:
        return Entry(name, None, columns, f"{name}: found no such file; correct its name, or fetch it again")
    wordless = [caption for caption in row.captions if not has_word(caption)]
    if len(wordless) == len(row.captions):
        found = f"only captions without a word, such as {wordless[0]!r}" if wordless else "no caption"
        return Entry(name, None, columns, f"{name}: found {found}, expected at least one; write one")
    if not wordless:
        return Entry(name, audio, columns)
    columns["captions"] = [caption for caption in row.captions if has_word(caption)]
    remark = f"{len(wordless)} of {len(row.captions)} captions left out: no word in {wordless[0]!r}"
    return Entry(name, audio, columns, remark=remark)


def _draw_splits(splits: dict[str, list[Entry]], shares: dict[str, float], source: str) -> dict[str, list[Entry]]:
    """Take the missing splits from the training recordings."""
    train = splits.get("train", [])
    usable = sorted((entry for entry in train if entry.audio is not None), key=_draw)
    missing = [split for split in shares if split not in splits and usable]
    drawn, bound, split_of = 0, 0.0, {}
    for split in missing:
        bound += shares[split]
        end = max(drawn + 1, sum(_draw(entry) < bound for entry in usable))  # one at least
        split_of.update({entry.file_name: split for entry in usable[drawn:end]})
        drawn = end
    if missing and drawn >= len(usable):
        raise DataError(
            f"{source}: found {len(usable)} recordings to draw {' and '.join(missing)} from, expected more, so that "
            "some are left for training; add recordings, or name folders train, validation and test"
        )
    found = {**splits, **{split: [] for split in ("train", *missing)}}
    for entry in train:
        found[split_of.get(entry.file_name, "train")].append(entry)
    return {split: found[split] for split in sorted(found, key=[*SPLITS, *sorted(found)].index)}


def _draw(entry: Entry) -> float:
    """Return a number in [0, 1) that depends on the file name alone, so recordings added later move no other."""
    return int.from_bytes(hashlib.sha256(entry.file_name.encode(errors="surrogatepass")).digest()[:6], "big") / 2**48


def _check_inside(path: str | os.PathLike, folders: Sequence[str | os.PathLike], name: str, where: str) -> None:
    """Refuse a recording that does not belong to its source."""
    if not any(is_inside(path, folder) for folder in folders):
        raise DataError(
            f"{where}: found the recording {name!r}, which is outside {folders[0]}, expected one below it; take the "
            "row out, copy the file there, or say that such rows are yours by allow_outside"
        )


# -------------------------------------------------------------------------------------------- a folder with metadata


def _of_folder(folder: pathlib.Path, caption_columns: Sequence[str], allow_outside: bool) -> Source:
    rows = []
    for path, split in _metadata_files(folder).items():
        finder = FileFinder(path.parent)
        for number, row in read_rows(path, ["file_name"]):
            where, name = f"{path}:{number}", row.get("file_name")
            columns = caption_columns_of(list(row), caption_columns, where)
            if not isinstance(name, str) or not name.strip():
                raise DataError(
                    f"{where}: file_name: found {name!r} among the columns {', '.join(row)}, expected the path of a "
                    f"recording relative to {path.parent}; correct the line"
                )
            audio = finder.find(name)
            named = audio or path.parent / name.replace("\\", "/")
            if not allow_outside:
                _check_inside(named, [folder], name, f"{where}: file_name")
            file_name = pathlib.Path(os.path.relpath(named, path.parent)).as_posix()
            split_of_row = split or next(filter(None, map(split_named, file_name.split("/")[:-1])), "train")
            captions = captions_of((row[column] for column in columns), where)
            others = {
                column: value if isinstance(value, str) else json.dumps(value)
                for column, value in row.items()
                if column and column not in ROW_FEATURES and column not in columns
            }
            rows.append(_Row(where, file_identity(named), file_name, audio, split_of_row, captions, others))
    # Not every JSON object needs to have all columns.
    names = sorted({name for found in rows for name in found.others})
    for found in rows:
        found.others = {name: found.others.get(name, "") for name in names}
    return _join(rows), datasets.Features({"captions": CAPTIONS, **dict.fromkeys(names, datasets.Value("string"))})


def _metadata_files(folder: pathlib.Path) -> dict[pathlib.Path, str | None]:
    """Find a folder's metadata, or that of its folders: path -> split, `None` where the recordings' folders decide."""
    parents = [folder, *sorted(child for child in folder.iterdir() if child.is_dir())]
    files_of = {parent: [parent / name for name in METADATA_FILES if (parent / name).is_file()] for parent in parents}
    top = files_of.pop(folder)
    below = {child: files for child, files in files_of.items() if files}
    named = [child for child in below if split_named(child.name)]
    several = next((files for files in (top, *below.values()) if len(files) > 1), [])
    if several or (top and named):
        several = several or [*top, *(below[child][0] for child in named)]
        raise DataError(
            f"{folder}: found {' and '.join(map(str, several))}, expected one metadata file, or one in each "
            "folder of a split; join them, or rename those that do not count"
        )
    if top:
        return {top[0]: None}
    if not named:
        in_others = f"metadata in {', '.join(child.name for child in below)} only"
        raise DataError(
            f"{folder}: found {in_others if below else 'no ' + ' or '.join(METADATA_FILES)}, expected one there or in "
            "its folders train, validation and test; write one with the columns file_name and caption"
        )
    folder_of: dict[str, pathlib.Path] = {}
    for child in below:
        split = split_named(child.name) or child.name
        if folder_of.setdefault(split, child) is not child:
            raise DataError(
                f"{folder}: found the folders {folder_of[split].name} and {child.name}, which are both the split "
                f"{split}, expected one; join them, or rename one"
            )
    return {below[child][0]: split for split, child in folder_of.items()}


# ---------------------------------------------------------------------------------------------------- a data set


def _of_tables(
    tables: datasets.DatasetDict | datasets.Dataset,
    audio_column: str,
    caption_columns: Sequence[str],
    source: str,
    inside: Sequence[str | os.PathLike] | None,
) -> Source:
    """
    List the recordings of a data set.

    One file under any of its names is the same recording. So are equal bytes or samples with the same name or none.
    Files in the table that differ in name are not compared, but a preparation reports those that are equal.
    """
    if isinstance(tables, datasets.Dataset):
        tables = datasets.DatasetDict({"train": tables})
    splits: dict[str, list[Entry]] = {}
    features, rows = datasets.Features({"captions": CAPTIONS}), []
    for table_name, table in tables.items():
        where, split = f"{source}, split {table_name}", split_named(table_name) or table_name
        if split in splits:
            raise DataError(
                f"{source}: found two splits that are {split} ({', '.join(tables)}), expected one; rename one"
            )
        splits[split] = []

        # The columns
        if audio_column not in table.column_names:
            raise DataError(
                f"{source}: found no column {audio_column} in the split {table_name}, expected one of "
                f"{', '.join(table.column_names)}; name it by audio_column"
            )
        if isinstance(table.features[audio_column], datasets.Audio):
            table = table.cast_column(audio_column, datasets.Audio(decode=False))
        _check_audio_feature(table.features[audio_column], f"{where}: column {audio_column}")
        columns = caption_columns_of(table.column_names, caption_columns, where)
        others = [
            name
            for name, feature in table.features.items()
            if name not in {audio_column, *columns, *ROW_FEATURES}
            and not isinstance(feature, datasets.Audio | datasets.Image | datasets.Video)  # they need decoders
        ]
        features.update({name: table.features[name] for name in others})
        texts = table.select_columns(list(dict.fromkeys([*columns, *others])))[:]
        sounds = table.select_columns([audio_column])

        # Which rows are the same recording
        cells = _paths(sounds, audio_column)
        count = Counter(path for path, _ in cells)
        recordings: list[Hashable] = []
        for row, (path, is_embedded) in enumerate(cells):
            if inside is not None and path and not is_embedded:
                _check_inside(path, inside, path, f"{source}, row {row} of {table_name}: {audio_column}")
            if not is_embedded:
                recordings.append(file_identity(path) if path else (split, row))
            elif path and count[path] == 1:
                recordings.append((split, path))
            else:
                recordings.append((split, _digest(sounds[row][audio_column])))

        # Their names: those of the table where they all differ, else the numbers of their first rows
        first_rows = {recording: row for row, recording in reversed(list(enumerate(recordings)))}
        named = table["file_name"][:] if "file_name" in table.column_names else [path for path, _ in cells]
        names = {row: os.path.basename(named[row] or "") for row in first_rows.values()}
        if len(set(names.values())) < len(names) or not all(names.values()):
            names = {row: f"{row:08d}" for row in names}
        for row, recording in enumerate(recordings):
            where = f"{source}, row {row} of {table_name}"
            audio = StoredAudio(sounds, row, audio_column)
            captions = captions_of((texts[column][row] for column in columns), where)
            cells_of_row = {column: texts[column][row] for column in others}
            rows.append(_Row(where, recording, names[first_rows[recording]], audio, split, captions, cells_of_row))
    return splits | _join(rows), features


def _check_audio_feature(feature: Any, where: str) -> None:
    """Refuse a column that holds no recordings."""
    fields = set(feature) if isinstance(feature, dict) else set()
    is_single = getattr(feature, "dtype", None) in ("string", "large_string", "binary", "large_binary")
    is_audio = isinstance(feature, datasets.Audio)
    if not (is_audio or is_single or fields & {"bytes", "path"} or fields >= {"array", "sampling_rate"}):
        raise DataError(
            f'{where} holds {feature}, expected recordings: files as {{"bytes", "path"}} or paths, or samples with '
            'their rate as {"array", "sampling_rate"}; name the right column by audio_column, or add the rate'
        )


def _digest(value: Any) -> str:
    """Digest the bytes or samples in a cell."""
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(value, bytes):
        digest.update(value)
    elif value.get("bytes") is not None:
        digest.update(value["bytes"])
    else:
        digest.update(repr(value["sampling_rate"]).encode())
        digest.update(np.asarray(value["array"], dtype=np.float64).tobytes())
    return digest.hexdigest()


def _paths(table: datasets.Dataset, audio_column: str) -> list[tuple[str | None, bool]]:
    """Return the path of each recording, if it has one, and whether its sound is in the table; no sound is read."""
    cells: list[tuple[str | None, bool]] = []
    for batch in table.with_format("arrow").iter(batch_size=1000):
        column = batch[audio_column]
        if not pyarrow.types.is_struct(column.type):
            is_path = pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type)
            cells += [(path, not is_path) for path in (column.to_pylist() if is_path else [None] * len(column))]
            continue
        fields = {
            field.name: pyarrow.compute.struct_field(column, field.name)
            for field in column.type
            if field.name in ("path", "bytes", "array")
        }
        paths = fields.pop("path").to_pylist() if "path" in fields else [None] * len(column)
        sounds = [field.is_valid().to_pylist() for field in fields.values()]
        cells += [(path, any(valid)) for path, *valid in zip(paths, *sounds, strict=True)]
    return cells
