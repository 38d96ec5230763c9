"""AudioCaps (Kim et al. 2019), from its official caption files and whatever recordings are still at hand."""

import pathlib
from collections.abc import Mapping

import datasets

from .audio_folder import CAPTIONS, Source
from .entries import Entry, PreparationError
from .tables import read_rows
from .youtube import YouTubeFolder

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
    The recordings of the three splits. One that is not at hand is listed without its audio.

    Args:
        tables: the folder of train.csv, val.csv and test.csv.
        recordings: what is at hand.

    Raises:
        PreparationError: a caption file is missing or faulty.
    """
    splits = {split: read_captions(tables / f"{name}.csv") for split, name in SPLITS.items()}
    return {split: _entries(captions, recordings) for split, captions in splits.items()}, FEATURES


def _entries(captions: Mapping[tuple[str, str], list[str]], recordings: YouTubeFolder) -> list[Entry]:
    return [
        Entry(
            file_name=f"Y{youtube_id}.wav",
            audio=recordings.find(youtube_id, start),
            columns={"captions": texts, "youtube_id": youtube_id, "start_time": start},
            absence=recordings.absence(youtube_id, start),
        )
        for (youtube_id, start), texts in captions.items()
    ]


def read_captions(path: pathlib.Path) -> dict[tuple[str, str], list[str]]:
    """
    (YouTube id, start in seconds) -> captions: one in the training split, five in the others.

    Raises:
        PreparationError: the file is missing or faulty.
    """
    captions: dict[tuple[str, str], list[str]] = {}
    for number, row in read_rows(path, COLUMNS, "utf-8-sig"):
        if not row["caption"].strip() or not row["youtube_id"] or not row["start_time"].isdigit():
            raise PreparationError(
                f"{path}:{number}: found {row}, expected a YouTube id, a start in seconds and a caption; fetch the "
                "file again"
            )
        captions.setdefault((row["youtube_id"], row["start_time"]), []).append(row["caption"].strip())
    return captions
