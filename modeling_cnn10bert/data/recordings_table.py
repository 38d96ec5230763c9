"""Load prepared data sets, and make recordings tables of them: the log-mel of every recording, cached."""

import os
import pathlib

import datasets

from ..augmentation.back_translation import BACK_TRANSLATION_COLUMN, back_translation_languages
from ..errors import DataError, one_line
from ..feature_extraction_cnn10bert import CNN10FeatureExtractor
from ..processing_cnn10bert import caption_words
from .features import TABLE_FEATURES, decode_row_audio, file_stamps, log_mel_table
from .saved_tables import load_saved, without_decoding

COLUMNS = ("file_name", "recording_id", "captions")
TEXT_TYPES = ("string", "large_string")


def load_prepared(name: str) -> datasets.DatasetDict:
    """
    Load a prepared data set: a folder, or a Hub id.

    Raises:
        DataError: there is none, it lacks a split or a column, or its preparation did not end; a recording has
            no caption, or one without a word; or splits share recordings.
    """
    tables = _load_tables(name)
    for split in ("train", "validation", "test"):
        if split not in tables:
            raise DataError(
                f"found the splits {', '.join(tables)} in {name}, expected train, validation and test; prepare it with "
                "`cnn10bert prepare`"
            )
        _check_split(tables[split], f"{name}, split {split}")
    _check_recording_ids(tables, name)
    return tables


def load_prepared_split(name: str, split: str | None) -> tuple[str, datasets.Dataset]:
    """
    Load one split of a prepared data set, with its name. The other splits may be missing.

    Args:
        name: a folder, or a Hub id.
        split: name of the split; `None` is the only one, or `test` if there are several.

    Raises:
        DataError: there is no such set or split, it lacks a column, or its preparation did not end; or a
            recording has a caption without a word. A recording without captions is no error here.
    """
    tables = _load_tables(name)
    found = split or (next(iter(tables)) if len(tables) == 1 else "test")
    if found not in tables:
        raise DataError(f"found the splits {', '.join(tables)} in {name}, expected {found}; name one of them")
    _check_split(tables[found], f"{name}, split {found}", captions_may_be_unknown=True)
    return found, tables[found]


def _load_tables(name: str) -> datasets.DatasetDict:
    folder = pathlib.Path(name)
    is_folder = os.path.isdir(name)  # unlike `Path.is_dir`, it accepts a name that no folder can have
    if is_folder and not (folder / "dataset_dict.json").is_file():
        raise DataError(
            f"found no dataset_dict.json in the folder {name}, expected a prepared data set; run the command that "
            "prepares it, again if it did not end"
        )
    try:
        return load_saved(folder) if is_folder else datasets.load_dataset(name)
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(
            f"found no data set {name}, neither a folder nor on the Hub ({one_line(error)}); prepare one "
            "with `cnn10bert prepare`"
        ) from error


def _check_split(table: datasets.Dataset, where: str, captions_may_be_unknown: bool = False) -> None:
    """Check the columns and captions of a split.

    Raises:
        DataError: a column is missing or of another type, a caption has no word, of which the
            model would see nothing, or a recording has no caption.
    """
    if missing := [column for column in (*COLUMNS, "audio") if column not in table.column_names]:
        raise DataError(
            f"found the columns {', '.join(table.column_names)} in {where}, expected {', '.join(missing)} too; prepare "
            "it with `cnn10bert prepare folder`, which takes the names of your columns"
        )
    kind = table.features["captions"]
    if not isinstance(kind, datasets.List) or getattr(kind.feature, "dtype", "") not in TEXT_TYPES:
        raise DataError(
            f"found captions of the type {kind} in {where}, expected a list of texts for each recording; prepare it "
            "with `cnn10bert prepare folder`"
        )
    names = table["file_name"][:]
    if (different := len(set(names))) < len(names):
        raise DataError(
            f"found {different} different file names of {len(names)} recordings in {where}, expected that no two are "
            "equal; give all captions of a recording in one row"
        )
    if not names:
        raise DataError(f"found no recording in {where}, expected at least one; prepare it with recordings")
    for row, (name, captions) in enumerate(zip(names, table["captions"][:], strict=True)):
        wordless = [caption for caption in captions or () if caption is None or not caption_words(caption)]
        if wordless or not (captions or captions_may_be_unknown):
            raise DataError(
                f"found {f'the caption {wordless[0]!r}' if wordless else 'no caption'} of {name} in {where}, row "
                f"{row}, expected texts with a word each; correct the caption, or leave the recording out"
            )


def _check_recording_ids(tables: datasets.DatasetDict, name: str) -> None:
    """Raise a `DataError` if splits share a recording, or two recordings that are evaluated on count as one."""
    split_of: dict[str, str] = {}
    for split in ("train", "validation", "test"):
        ids = tables[split]["recording_id"][:]
        for recording in ids:
            if split_of.setdefault(recording, split) != split:
                raise DataError(
                    f"found the recording_id {recording!r} in the splits {split_of[recording]} and {split} of {name}, "
                    "expected ids that no two splits share; take the recording out of one, or give it an id of its own"
                )
        if split != "train" and len(set(ids)) < len(ids):
            twice = next(recording for recording in ids if ids.count(recording) > 1)
            raise DataError(
                f"found the recording_id {twice!r} twice in {name}, split {split}, expected each once: its rows would "
                "count as one; give all captions of a recording in one row"
            )


def recordings_table(
    prepared: datasets.Dataset,
    feature_extractor: CNN10FeatureExtractor,
    cache_dir: str | os.PathLike,
    num_proc: int = 1,
    name: str = "recordings",
    keep_log_mel: bool = True,
) -> datasets.Dataset:
    """
    Compute the recordings table of one split of a prepared data set, or load it from the cache.

    Args:
        prepared: the split; its back-translations are kept.
        feature_extractor: computes the log-mels.
        cache_dir: folder of the feature cache.
        num_proc: processes that compute.
        name: shown in the progress bar and in the name of the cache.
        keep_log_mel: `False` leaves the log-mels out: the table then has the `audio` of the prepared set in their
            place, from which they are computed at training.

    Raises:
        AudioError: a recording cannot be decoded.
    """
    languages = back_translation_languages(prepared.column_names)
    texts = [BACK_TRANSLATION_COLUMN.format(language=language) for language in languages]
    features = datasets.Features({**TABLE_FEATURES, **{column: prepared.features[column] for column in texts}})
    prepared = without_decoding(prepared)
    if not keep_log_mel:
        del features["log_mel"]
    table = log_mel_table(
        prepared.select_columns([*COLUMNS, *texts, "audio"]),
        lambda row: (row, decode_row_audio(row["audio"], feature_extractor.sampling_rate)),
        features,
        feature_extractor,
        {"data": [prepared._fingerprint, file_stamps(prepared)], "columns": sorted(features)},
        cache_dir,
        name,
        num_proc,
    )
    if not keep_log_mel:
        table = datasets.concatenate_datasets([table, prepared.select_columns(["audio"])], axis=1)
    return table
