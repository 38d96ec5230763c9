"""Data sets that an earlier version prepared open, and preparing them again goes on from what they hold.

tests/assets/prepared was written by that version from the recordings that `write_sources` writes here.
"""

import csv
import os
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile

from modeling_cnn10bert.data.audio_io import decode_audio
from modeling_cnn10bert.data.prepare import prepare_dataset
from modeling_cnn10bert.data.recipes.audio_folder import own_recordings
from modeling_cnn10bert.data.recipes.audioset import audioset_entries, open_stream, open_table, prepare_audioset
from modeling_cnn10bert.data.recipes.youtube import YouTubeFolder
from modeling_cnn10bert.data.recordings_table import load_prepared_split

PREPARED = Path(__file__).parent / "assets" / "prepared"
RATE = 16_000
TIME = 1_700_000_000_000_000_000  # of the last change of each source, in nanoseconds
FREQUENCIES = {"train/a.wav": 300, "train/b.wav": 500, "train/c.wav": 700, "test/copy.wav": 300, "test/d.wav": 900}
CAPTIONS = {name: [f"a tone of {frequency} Hz", "a tone"] for name, frequency in FREQUENCIES.items()}
CLIPS = {f"Yabcdefghij{number}.wav": 400 + 100 * number for number in range(3)}
LABELS = {"/m/0": 0, "/m/1": 1}


def write_tone(path, frequency):
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = 0.5 * np.sin(2 * np.pi * frequency * np.arange(RATE // 4) / RATE)
    soundfile.write(path, tone, RATE, subtype="PCM_16")
    os.utime(path, ns=(TIME, TIME))


def write_sources(folder):
    """Write the folder `own`, of a training and a test split with metadata, and the folder `clips` of AudioSet."""
    for name, frequency in FREQUENCIES.items():
        write_tone(folder / "own" / name, frequency)
    (folder / "own/train/broken.wav").write_bytes(b"no sound")
    os.utime(folder / "own/train/broken.wav", ns=(TIME, TIME))
    write_tone(folder / "own/train/silent.wav", 0)
    for split in ("train", "test"):
        with (folder / "own" / split / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["file_name", "caption", "author"])
            for name, captions in CAPTIONS.items():
                if name.startswith(split):
                    rows.writerows([os.path.basename(name), caption, "somebody"] for caption in captions)
            if split == "train":
                rows.writerows([name, "nothing", "somebody"] for name in ("broken.wav", "silent.wav"))
    for name, frequency in CLIPS.items():
        write_tone(folder / "clips" / name, frequency)
    lines = [f'{name[1:12]}, 30.000, 40.000, "/m/0,/m/1"' for name in CLIPS]
    (folder / "eval_segments.csv").write_text("\n".join([*lines, 'absent00000, 0.000, 10.000, "/m/1"']))


def prepare_own(folder):
    splits, columns = own_recordings(str(folder / "own"))
    return prepare_dataset(splits, columns, folder / "folder")


def prepare_clips(folder):
    entries = audioset_entries(folder / "eval_segments.csv", LABELS, YouTubeFolder(folder / "clips"))
    return prepare_audioset({"eval": entries}, folder / "audioset")


@pytest.fixture
def saved(tmp_path):
    """A copy of the prepared data sets, beside the sources that they are of."""
    shutil.copytree(PREPARED, tmp_path, dirs_exist_ok=True)
    write_sources(tmp_path)
    return tmp_path


def contents(folder):
    """Map each file below a folder to its content and its time, except the lock."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def make_undecodable(path):
    """Replace a recording by one that looks unchanged from outside but cannot be decoded again."""
    path.write_bytes(bytes(path.stat().st_size))
    os.utime(path, ns=(TIME, TIME))


def assert_tone(row, frequency):
    waveform = decode_audio(row["audio"]["bytes"], 32_000, row["file_name"])
    assert len(waveform) == 8_000 and row["duration"] == 0.25
    expected = 0.5 * np.sin(2 * np.pi * frequency * np.arange(8_000) / 32_000)
    assert np.abs(waveform - expected)[500:-500].max() < 1e-3  # of 16 bits and resampling


def test_the_rows_are_as_they_were_written():
    for split in ("train", "test"):
        _, table = load_prepared_split(str(PREPARED / "folder"), split)
        names = [os.path.basename(name) for name in FREQUENCIES if name.startswith(split)]
        assert table["file_name"][:] == names + ["silent.wav"] * (split == "train")
        for name, row in zip(names, table, strict=False):
            assert row["recording_id"] == f"{split}/{name}"
            assert (row["captions"], row["author"]) == (CAPTIONS[row["recording_id"]], "somebody")
            assert_tone(row, FREQUENCIES[row["recording_id"]])


def test_preparing_it_again_changes_nothing_and_reports_the_same(saved):
    before = contents(saved / "folder")
    result = prepare_own(saved)
    assert contents(saved / "folder") == before
    assert (result.listed, result.prepared) == ({"train": 5, "test": 2}, {"train": 4, "test": 2})
    assert [note.file_name for note in result.skipped] == ["broken.wav"]
    warned = [("silent.wav", "silent: no"), ("a.wav", "the same sound"), ("copy.wav", "the same sound")]
    for note, (name, text) in zip(result.warnings, warned, strict=True):
        assert note.file_name == name and note.text.startswith(text)
    for name, notes in (("skipped", result.skipped), ("warnings", result.warnings)):
        with (saved / "folder" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            assert list(csv.reader(file))[1:] == [[note.split, note.file_name, note.text] for note in notes]


def test_a_recording_that_is_new_is_prepared_alone(saved):
    rows = datasets.load_from_disk(PREPARED / "folder")["train"].to_list()
    for name in ("a.wav", "b.wav", "c.wav"):
        make_undecodable(saved / "own" / "train" / name)
    write_tone(saved / "own" / "train" / "new.wav", 1100)
    with (saved / "own" / "train" / "metadata.csv").open("a", encoding="utf-8") as file:
        file.write("new.wav,a high tone,somebody\n")
    result = prepare_own(saved)
    assert result.prepared == {"train": 5, "test": 2}
    assert [note.file_name for note in result.warnings] == ["silent.wav", "a.wav", "copy.wav"]
    *old, new = datasets.load_from_disk(saved / "folder")["train"].to_list()
    assert old == rows
    assert_tone(new, 1100)


def test_clips_of_audioset_open_and_are_not_prepared_again(saved):
    for clips in (open_stream(PREPARED / "audioset", "eval"), open_table(PREPARED / "audioset", "eval")):
        for row, (name, frequency) in zip(clips, CLIPS.items(), strict=True):
            assert (row["file_name"], row["recording_id"], row["labels"]) == (name, f"eval/{name}", [0, 1])
            assert_tone(row, frequency)
    for name in CLIPS:
        make_undecodable(saved / "clips" / name)
    before = contents(saved / "audioset" / "data")
    result = prepare_clips(saved)
    assert contents(saved / "audioset" / "data") == before
    assert (result.listed, result.prepared) == ({"eval": 4}, {"eval": 3})
    assert [note.file_name for note in result.skipped] == ["Yabsent00000.wav"]
