"""AudioCaps (Kim et al. 2019), from its official caption files and the recordings that are still available."""

import pathlib
from collections import Counter

import datasets

from ...errors import DataError
from ..entries import CAPTIONS, Entry, Source
from ..tables import has_word, read_rows
from .youtube import YouTubeFolder, is_youtube_segment

SPLITS = {"train": "train", "validation": "val", "test": "test"}  # ours -> AudioCaps'
COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
FEATURES = datasets.Features(
    {
        "captions": CAPTIONS,
        "youtube_id": datasets.Value("string"),
        "start_time": datasets.Value("string"),  # seconds into the video
    }
)


def audiocaps_entries(tables: pathlib.Path, recordings: YouTubeFolder) -> Source:
    """
    List the recordings of the three splits.

    A missing recording is listed without audio, and so is a faulty line, under its number. If a video has several
    parts, each is named with its start and needs its own file.

    Args:
        tables: the folder of train.csv, val.csv and test.csv, of AudioCaps 1 or 2.
        recordings: the available recordings.

    Raises:
        DataError: a caption file is missing or invalid.
    """
    splits: dict[str, list[Entry]] = {}
    for split, name in SPLITS.items():
        captions, faults = read_captions(tables / f"{name}.csv")
        parts = Counter(youtube_id for youtube_id, _ in captions)
        splits[split] = []
        for (youtube_id, start), texts in captions.items():
            alone = parts[youtube_id] == 1
            file_name = f"Y{youtube_id}.wav" if alone else f"{youtube_id}_{start}.wav"
            audio, absence = recordings.find(youtube_id, start, alone)
            columns = {"captions": texts, "youtube_id": youtube_id, "start_time": start}
            splits[split].append(Entry(file_name, audio, columns, absence))
        for fault in faults:
            columns = {"captions": [], "youtube_id": "", "start_time": ""}
            splits[split].append(Entry(fault.split(": ")[0], None, columns, absence=fault))
    return splits, FEATURES


def read_captions(path: pathlib.Path) -> tuple[dict[tuple[str, str], list[str]], list[str]]:
    """
    Read a caption file.

    Returns:
        (YouTube id, start in seconds) -> captions: one in the training split, five in the others; and a message for
        each faulty line, which is left out.

    Raises:
        DataError: the file is missing, lacks a column, or has faulty lines only.
    """
    captions: dict[tuple[str, str], list[str]] = {}
    faults: list[str] = []
    for number, row in read_rows(path, COLUMNS, faults=faults):
        if has_word(row["caption"]) and is_youtube_segment(row["youtube_id"], row["start_time"]):
            key = row["youtube_id"], f"{float(row['start_time']):g}"
            captions.setdefault(key, []).append(row["caption"])
        else:
            faults.append(
                f"{path.name}:{number}: found {row}, expected a YouTube id, a start in seconds and a caption; fetch "
                "the file again"
            )
    if faults and not captions:
        raise DataError(faults[0])
    return captions, faults
