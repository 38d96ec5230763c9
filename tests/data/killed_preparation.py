"""A preparation, or the computation of a recordings table, in two processes of which each recording takes its time."""

import sys
import time
from pathlib import Path

import datasets

from modeling_cnn10bert import CNN10FeatureExtractor
from modeling_cnn10bert.data import prepare as preparation
from modeling_cnn10bert.data import recordings_table
from modeling_cnn10bert.data.entries import Entry
from modeling_cnn10bert.data.recipes.audio_folder import CAPTIONS
from modeling_cnn10bert.interrupts import orderly_exit

COLUMNS = datasets.Features({"captions": CAPTIONS})


def prepare(sounds: Path, out: Path) -> None:
    """Prepare the recordings of a folder, two a shard."""
    entries = [Entry(path.name, path, {"captions": [path.stem]}) for path in sorted(sounds.iterdir())]
    preparation.prepare_dataset({"train": entries}, COLUMNS, out, num_proc=2)


def compute(prepared: Path, cache: Path) -> None:
    """Compute the recordings table of a prepared data set."""
    table = datasets.load_from_disk(prepared)["train"]
    recordings_table.recordings_table(table, CNN10FeatureExtractor(), cache, num_proc=2)


def slowly(function):
    """Let each call of a function take its time."""
    return lambda *arguments: time.sleep(0.2) or function(*arguments)


if __name__ == "__main__":
    preparation.ENTRIES_OF_A_SHARD = 2
    preparation.prepare_entry = slowly(preparation.prepare_entry)
    recordings_table.decode_row_audio = slowly(recordings_table.decode_row_audio)
    work = {"prepare": prepare, "compute": compute}[sys.argv[1]]
    with orderly_exit():
        work(Path(sys.argv[2]), Path(sys.argv[3]))
