"""AudioSet (Gemmeke et al. 2017): multi-label clips, prepared as shards that two million clips stream from.

OUT/data/<split>-00012-of-00064.arrow  what `open_stream` reads; the folder appears when it is complete
OUT/skipped.csv, OUT/warnings.csv      clips that were left out, and those that were kept but look odd
"""

import math
import os
import pathlib
import re
import shutil
from collections.abc import Mapping, Sequence

import datasets
import torch
from datasets.distributed import split_dataset_by_node

from ...errors import DataError
from ..entries import ROW_FEATURES, STORED_AUDIO, Entry
from ..prepare import Preparation, ShardReport, check_result, cut, open_preparation, sum_up, write_shards
from ..tables import read_cells, read_rows, read_text
from .youtube import YouTubeFolder, is_youtube_segment

NUM_CLASSES = 527
LABELS = datasets.List(datasets.Value("int16"))  # numbers of the classes
FEATURES = datasets.Features({**ROW_FEATURES, "labels": LABELS})
CLIPS_OF_A_SHARD = 1000  # about half a gigabyte
SHARDS_SHARED = 64  # their number is a multiple of it, so that usual numbers of nodes and workers get equally many


# --------------------------------------------------------------------------------------------------------- reading


def read_labels(path: pathlib.Path) -> dict[str, int]:
    """
    Read class_labels_indices.csv: machine id of a class, such as /m/09x0r -> its number.

    Raises:
        DataError: the file is missing, or does not list the 527 classes.
    """
    return {mid: number for number, mid, _ in _read_classes(path)}


def read_class_names(path: pathlib.Path) -> list[str]:
    """
    Read class_labels_indices.csv: the names of the classes, such as Speech, in the order of their numbers.

    Raises:
        DataError: the file is missing, or does not list the 527 classes.
    """
    return [name for _, _, name in _read_classes(path)]


def _read_classes(path: pathlib.Path) -> list[tuple[int, str, str]]:
    """Read number, machine id and name of each class, in the order of their numbers."""
    classes = []
    for number, row in read_rows(path, ["index", "mid", "display_name"]):
        if not re.fullmatch(r"\d{1,9}", row["index"].strip(), re.ASCII):
            raise DataError(
                f"{path}:{number}: found the index {row['index'][:80]!r}, expected a number; fetch "
                "class_labels_indices.csv again"
            )
        classes.append((int(row["index"]), row["mid"], row["display_name"]))
    numbers, mids, names = map(set, zip(*classes, strict=True)) if classes else (set(), set(), set())
    if not len(classes) == len(mids) == len(names) == NUM_CLASSES or numbers != set(range(NUM_CLASSES)):
        raise DataError(
            f"{path}: found {len(classes)} classes, expected {NUM_CLASSES} that all differ; fetch the file again"
        )
    return sorted(classes)


def audioset_entries(segments: pathlib.Path, labels: Mapping[str, int], recordings: YouTubeFolder) -> list[Entry]:
    """
    List the clips of one segment file (`# YTID, start_seconds, end_seconds, positive_labels`).

    A missing clip is listed without audio, and so is a faulty line, under its number.

    Raises:
        DataError: the file is missing or no segment file.
    """
    entries: dict[str, Entry] = {}
    for number, cells in read_cells(segments, read_text(segments), spaces=True):
        if not cells or cells[0].startswith("#"):
            continue
        where = f"{segments.name}:{number}"
        classes = cells[3].split(",") if len(cells) == 4 else []
        unknown = [mid for mid in classes if mid not in labels]
        fault = ""
        if not classes or not is_youtube_segment(cells[0], cells[1]):
            fault = f"the cells {', '.join(map(repr, cells))[:120]}"
        elif f"Y{cells[0]}.wav" in entries:
            fault = f"the id {cells[0]!r} again"
        elif unknown:
            fault = f"the unknown class {unknown[0]!r}"
        if fault:
            absence = (
                f"{where}: found {fault}, expected a YouTube id that no other line has, start, end, and machine ids of "
                "class_labels_indices.csv; fetch the file again"
            )
            entries[where] = Entry(where, None, {"labels": []}, absence)
            continue
        audio, absence = recordings.find(cells[0], cells[1])
        name = f"Y{cells[0]}.wav"
        entries[name] = Entry(name, audio, {"labels": [labels[mid] for mid in classes]}, absence)
    return list(entries.values())


# ------------------------------------------------------------------------------------------------------- preparing


def prepare_audioset(
    splits: Mapping[str, Sequence[Entry]], out: str | os.PathLike, num_proc: int = 1, strict: bool = False
) -> Preparation:
    """
    Decode, resample and store all clips in shards; a clip that cannot be used is left out and listed.

    A second run does nothing. With other entries, it writes the shards that they are in.

    Args:
        splits: name -> its clips.
        out: folder of the data set.
        num_proc: processes that decode.
        strict: whether a clip that must be left out is an error.

    Raises:
        DataError: the folder holds something else, the disk is full, no clip can be used, or, if `strict`, one cannot.
    """
    with open_preparation(splits, out) as (out, folder):
        data, unfinished = out / "data", folder / "shards"
        shards = [
            shard
            for split, entries in splits.items()
            for shard in cut(split, entries, FEATURES, num_shards(len(entries)))
        ]
        is_new = not all(ShardReport.read(shard, data) for shard in shards)
        if is_new:
            if data.is_dir():  # from here on, it no longer reads as complete
                shutil.rmtree(unfinished, ignore_errors=True)
                data.rename(unfinished)
            unfinished.mkdir(exist_ok=True)
        reports = write_shards(shards, unfinished if is_new else data, num_proc)
        result = sum_up(out, splits, shards, reports)
        check_result(result, strict)
        if is_new:
            known = {f"{shard.name}.{ending}" for shard in shards for ending in ("arrow", "json")}
            for path in unfinished.iterdir():
                if path.name not in known:
                    path.unlink()
            unfinished.rename(data)
        return result


def num_shards(clips: int) -> int:
    """Return the number of shards: a multiple of `SHARDS_SHARED` unless that leaves only a handful of clips in each."""
    if clips < 10 * SHARDS_SHARED:
        return math.ceil(clips / 10)
    return SHARDS_SHARED * math.ceil(clips / (SHARDS_SHARED * CLIPS_OF_A_SHARD))


# ------------------------------------------------------------------------------------------------------- streaming


def open_stream(folder: str | os.PathLike, split: str, rank: int = 0, world_size: int = 1) -> datasets.IterableDataset:
    """
    Open the clips of a split as a stream, read shard by shard, so that memory does not grow with their number.

    Each of `world_size` nodes gets clips of its own, and each worker of a `DataLoader` a part of them, so that each
    clip is read exactly once. `shuffle(seed, buffer_size)` shuffles the shards and the clips in a buffer.

    Args:
        folder: written by `prepare_audioset`.
        split: such as balanced_train.
        rank: of this node.

    Returns:
        Rows of `FEATURES`: `audio` not decoded, as `{"bytes", "path"}`, and `labels` as for `multi_hot`.

    Raises:
        DataError: the folder has no such split, or its preparation did not end.
    """
    paths = _shards_of(folder, split)
    features = datasets.Features({**FEATURES, "audio": STORED_AUDIO})  # `Audio` would be decoded
    stream = datasets.load_dataset("arrow", data_files={split: paths}, split=split, features=features, streaming=True)
    return split_dataset_by_node(stream, rank, world_size)


def open_table(folder: str | os.PathLike, split: str) -> datasets.Dataset:
    """
    Open the clips of a split memory-mapped, to read them in any order, as class-balanced sampling does.

    Args:
        folder: written by `prepare_audioset`.
        split: such as balanced_train.

    Returns:
        Rows of `FEATURES`, with `audio` not decoded.

    Raises:
        DataError: the folder has no such split, or its preparation did not end.
    """
    shards = [datasets.Dataset.from_file(path) for path in _shards_of(folder, split)]
    # Those of an earlier version declare `STORED_AUDIO`.
    return datasets.concatenate_datasets([shard.cast_column("audio", datasets.Audio(decode=False)) for shard in shards])


def _shards_of(folder: str | os.PathLike, split: str) -> list[str]:
    paths = sorted(pathlib.Path(folder, "data").glob("*-*-of-*.arrow"))
    splits = sorted({path.name.rsplit("-", 3)[0] for path in paths})
    if split not in splits:
        found = f"the splits {', '.join(splits)}" if splits else "no whole data set"
        raise DataError(
            f"{folder}: found {found}, expected the split {split}; prepare it with `cnn10bert prepare audioset`, again "
            "if that did not end"
        )
    return [str(path) for path in paths if path.name.rsplit("-", 3)[0] == split]


def multi_hot(labels: Sequence[Sequence[int]], num_classes: int = NUM_CLASSES) -> torch.Tensor:
    """Make targets [B, num_classes] float32, which are 1 at the classes of each clip."""
    targets = torch.zeros(len(labels), num_classes)
    for row, classes in enumerate(labels):
        targets[row, list(classes)] = 1.0
    return targets
