"""Recordings become a prepared data set: whole or not there, with what was left out listed."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile

from modeling_cnn10bert.data import prepare as preparation
from modeling_cnn10bert.data.audio_io import decode_audio
from modeling_cnn10bert.data.entries import Entry
from modeling_cnn10bert.data.prepare import prepare_dataset
from modeling_cnn10bert.data.recipes.audio_folder import CAPTIONS
from modeling_cnn10bert.errors import DataError

COLUMNS = datasets.Features({"captions": CAPTIONS, "place": datasets.Value("string")})


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of two recordings."""
    monkeypatch.setattr(preparation, "ENTRIES_OF_A_SHARD", 2)


@pytest.fixture
def recordings(tmp_path, write_tone):
    """A folder of eight recordings at rates from 8 to 192 kHz, of one to six channels."""
    rates = [8_000, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000]
    for number, rate in enumerate(rates):
        write_tone(tmp_path / "sounds" / f"{number}.wav", 500 + 100 * number, rate=rate, channels=1 + number % 6)
    return tmp_path / "sounds"


@pytest.fixture
def entries():
    """Lists the recordings of a folder as a training and a test split."""

    def make(folder, place="here"):
        listed = [
            Entry(path.name, path, {"captions": [f"tone {path.stem}", "a tone"], "place": place})
            for path in sorted(folder.iterdir())
        ]
        return {"train": listed[:5], "test": listed[5:]}

    return make


@pytest.fixture
def decoded(monkeypatch):
    """Grows by the name of every recording that is decoded."""
    names, prepare = [], preparation.prepare_entry
    monkeypatch.setattr(
        preparation, "prepare_entry", lambda entry, split: names.append(entry.file_name) or prepare(entry, split)
    )
    return names


def test_every_recording_is_stored_at_32_khz_with_its_captions(recordings, entries, tmp_path):
    result = prepare_dataset(entries(recordings), COLUMNS, tmp_path / "out")
    assert result.prepared == result.listed == {"train": 5, "test": 3}
    tables = datasets.load_from_disk(tmp_path / "out")
    rows = [row for split in tables for row in tables[split].to_list()]  # decodes nothing
    assert [row["file_name"] for row in rows] == [f"{number}.wav" for number in range(8)]
    assert [row["recording_id"] for row in rows[4:6]] == ["train/4.wav", "test/5.wav"]
    for number, row in enumerate(rows):
        assert row["captions"] == [f"tone {number}", "a tone"]
        assert row["place"] == "here"
        waveform = decode_audio(row["audio"]["bytes"], 32_000, row["audio"]["path"])
        assert row["duration"] == pytest.approx(0.5, abs=1e-4)
        assert len(waveform) == 16_000
        assert np.argmax(np.abs(np.fft.rfft(waveform))) == (500 + 100 * number) / 2  # bins of 2 Hz


def test_what_exceeds_full_scale_is_not_clipped(recordings, entries, tmp_path):
    loud = 1.5 * np.sin(np.arange(32_000) / 10).astype(np.float32)
    soundfile.write(recordings / "0.wav", loud, 32_000, subtype="FLOAT")
    prepare_dataset(entries(recordings), COLUMNS, tmp_path / "out")
    row = datasets.load_from_disk(tmp_path / "out")["train"].to_list()[0]
    np.testing.assert_array_equal(decode_audio(row["audio"]["bytes"], 32_000, "0.wav"), loud)


def test_it_goes_to_parquet_and_back(recordings, entries, tmp_path):
    prepare_dataset(entries(recordings), COLUMNS, tmp_path / "out")
    table = datasets.load_from_disk(tmp_path / "out")["train"]
    table.to_parquet(tmp_path / "train.parquet")
    again = datasets.Dataset.from_parquet(str(tmp_path / "train.parquet"), cache_dir=str(tmp_path / "cache"))
    assert again.features == table.features
    assert again.to_dict() == table.to_dict()


def test_a_recording_that_cannot_be_used_is_left_out_and_listed(recordings, entries, tmp_path, read_csv):
    (recordings / "1.wav").write_bytes(b"no sound at all" * 100)
    soundfile.write(recordings / "3.wav", np.zeros(0), 32_000)
    listed = entries(recordings)
    (recordings / "6.wav").unlink()
    listed["test"].append(Entry("7b.wav", None, listed["test"][0].columns, "7b.wav: nobody has it"))
    result = prepare_dataset(listed, COLUMNS, tmp_path / "out")
    assert result.prepared == {"train": 3, "test": 2}
    header, *rows = read_csv(tmp_path / "out" / "skipped.csv")
    assert header == ["split", "file_name", "reason"]
    assert [row[:2] for row in rows] == [["train", "1.wav"], ["train", "3.wav"], ["test", "6.wav"], ["test", "7b.wav"]]
    for row, reason in zip(rows, ["do not decode", "found 0 samples", "no such file", "nobody has it"], strict=True):
        assert reason in row[2]
    assert "train: 3 of 5 recordings" in str(result)
    assert "N = 2" in str(result)
    assert "4 left out" in str(result)


def test_strict_makes_an_error_of_it_and_leaves_nothing_that_reads_as_complete(recordings, entries, tmp_path):
    (recordings / "1.wav").write_bytes(b"no sound at all" * 100)
    with pytest.raises(DataError, match=r"1 of 8 recordings cannot be used.*skipped\.csv.*train/1\.wav.*decode"):
        prepare_dataset(entries(recordings), COLUMNS, tmp_path / "out", strict=True)
    with pytest.raises(FileNotFoundError):
        datasets.load_from_disk(tmp_path / "out")
    assert prepare_dataset(entries(recordings), COLUMNS, tmp_path / "out").prepared == {"train": 4, "test": 3}
    with pytest.raises(DataError, match="1 of 8 recordings cannot be used"):
        prepare_dataset(entries(recordings), COLUMNS, tmp_path / "out", strict=True)


def test_a_silent_and_a_very_short_recording_are_kept_and_listed(recordings, entries, tmp_path, read_csv, write_tone):
    soundfile.write(recordings / "0.wav", np.zeros(32_000), 32_000)
    write_tone(recordings / "1.wav", seconds=0.01)
    result = prepare_dataset(entries(recordings), COLUMNS, tmp_path / "out")
    assert result.prepared == result.listed
    header, silent, short = read_csv(tmp_path / "out" / "warnings.csv")
    assert header == ["split", "file_name", "warning"]
    assert silent[:2] == ["train", "0.wav"] and "silent" in silent[2]
    assert short[:2] == ["train", "1.wav"] and "very short: 0.010 s" in short[2]
    write_tone(recordings / "7.wav", 100)
    prepare_dataset(entries(recordings), COLUMNS, tmp_path / "out")
    assert len(read_csv(tmp_path / "out" / "warnings.csv")) == 3  # those of rows that were kept are still listed


def test_running_again_changes_nothing(recordings, entries, tmp_path, snapshot):
    (recordings / "1.wav").write_bytes(b"no sound at all" * 100)
    first = prepare_dataset(entries(recordings), COLUMNS, tmp_path / "out")
    before = snapshot(tmp_path / "out")
    assert prepare_dataset(entries(recordings), COLUMNS, tmp_path / "out", num_proc=2) == first
    assert snapshot(tmp_path / "out") == before


def test_running_again_prepares_what_is_new_alone(recordings, entries, tmp_path, write_tone, decoded):
    listed = entries(recordings)
    (recordings / "6.wav").rename(tmp_path / "6.wav")
    prepare_dataset(listed, COLUMNS, tmp_path / "out")
    (tmp_path / "6.wav").rename(recordings / "6.wav")
    write_tone(recordings / "2.wav", 3000)
    decoded.clear()
    result = prepare_dataset(entries(recordings), COLUMNS, tmp_path / "out")
    assert decoded == ["2.wav", "6.wav"]
    assert result.prepared == {"train": 5, "test": 3}
    tables = datasets.load_from_disk(tmp_path / "out")
    assert tables["test"]["file_name"][:] == ["5.wav", "6.wav", "7.wav"]
    prepare_dataset(entries(recordings), COLUMNS, tmp_path / "anew")
    assert tables["train"].to_dict() == datasets.load_from_disk(tmp_path / "anew")["train"].to_dict()


def test_a_column_that_was_added_since_stays_and_is_empty_for_what_is_new(recordings, entries, tmp_path):
    out, listed = tmp_path / "out", entries(recordings)
    prepare_dataset({**listed, "train": listed["train"][:3]}, COLUMNS, out)
    variants = {name: [f"tone number {name}", "some tone"] for name in ("0.wav", "1.wav", "2.wav")}
    tables = datasets.load_from_disk(out)
    texts = [variants[name] for name in tables["train"]["file_name"]]
    tables["train"] = tables["train"].add_column("back_translations_de", texts)
    tables.save_to_disk(tmp_path / "added")
    shutil.copytree(tmp_path / "added", out, dirs_exist_ok=True)
    prepare_dataset(listed, COLUMNS, out)
    train, test = (datasets.load_from_disk(out)[split] for split in ("train", "test"))
    assert train["back_translations_de"][:] == [*variants.values(), None, None]
    assert "back_translations_de" not in test.column_names


@pytest.mark.parametrize("rename", range(1, 5))
def test_a_kill_while_the_data_set_is_exchanged_loses_no_added_column(
    rename, recordings, entries, tmp_path, monkeypatch
):
    out, listed = tmp_path / "out", entries(recordings)
    prepare_dataset({**listed, "train": listed["train"][:3]}, COLUMNS, out)
    tables = datasets.load_from_disk(out)
    tables["train"] = tables["train"].add_column("back_translations_de", [["x", "y"]] * 3)
    tables.save_to_disk(tmp_path / "added")
    shutil.copytree(tmp_path / "added", out, dirs_exist_ok=True)
    moves, move = [], preparation.pathlib.Path.rename

    def killed(path, target):
        if "whole" in (path.name, path.parent.name, Path(target).name):
            moves.append(path)
            if len(moves) == rename:
                raise Killed
        return move(path, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(preparation.pathlib.Path, "rename", killed)
        prepare_dataset(listed, COLUMNS, out)
    prepare_dataset(listed, COLUMNS, out)
    assert datasets.load_from_disk(out)["train"]["back_translations_de"][:] == [["x", "y"]] * 3 + [None] * 2


def test_other_captions_make_other_rows(recordings, entries, tmp_path):
    prepare_dataset(entries(recordings), COLUMNS, tmp_path / "out")
    prepare_dataset(entries(recordings, place="there"), COLUMNS, tmp_path / "out")
    assert set(datasets.load_from_disk(tmp_path / "out")["train"]["place"][:]) == {"there"}


def test_one_process_or_two_prepare_the_same(recordings, entries, tmp_path, small_shards):
    for num_proc in (1, 2):
        prepare_dataset(entries(recordings), COLUMNS, tmp_path / str(num_proc), num_proc)
    one, two = (datasets.load_from_disk(tmp_path / name) for name in ("1", "2"))
    assert {split: one[split].to_dict() for split in one} == {split: two[split].to_dict() for split in two}


class Killed(BaseException):
    """Like a signal: nothing catches it."""


def die(*args, **kwargs):
    raise Killed


@pytest.mark.parametrize(
    ("where", "decoded_again"),
    [
        ("prepare.ArrowWriter.finalize", range(8)),
        ("prepare.ShardReport.write", range(8)),
        ("prepare.datasets.DatasetDict.save_to_disk", []),
        ("prepare.Preparation.write", []),
    ],
)
def test_a_preparation_that_died_reads_as_incomplete_and_goes_on(
    where, decoded_again, recordings, entries, tmp_path, small_shards, monkeypatch, decoded
):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(f"modeling_cnn10bert.data.{where}", die)
        prepare_dataset(entries(recordings), COLUMNS, tmp_path / "out")
    with pytest.raises(FileNotFoundError):
        datasets.load_from_disk(tmp_path / "out")
    decoded.clear()
    assert prepare_dataset(entries(recordings), COLUMNS, tmp_path / "out").prepared == {"train": 5, "test": 3}
    assert decoded == [f"{number}.wav" for number in decoded_again]


def test_a_killed_process_leaves_no_data_set_and_the_next_one_goes_on(tmp_path, entries, start, decoded, small_shards):
    (tmp_path / "sounds").mkdir()
    for number in range(60):
        noise = 0.1 * np.random.default_rng(number).standard_normal(2 * 44_100)
        soundfile.write(tmp_path / "sounds" / f"{number}.wav", noise, 44_100)
    listed = entries(tmp_path / "sounds")
    process = start(prepare_dataset, listed, COLUMNS, tmp_path / "out")
    while not list((tmp_path / "out").glob(".preparation/shards/train*.json")):  # not the hidden ones
        assert process.is_alive()
        time.sleep(0.001)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with pytest.raises(FileNotFoundError):
        datasets.load_from_disk(tmp_path / "out")
    prepare_dataset(listed, COLUMNS, tmp_path / "out")
    assert datasets.load_from_disk(tmp_path / "out").num_rows == {"train": 5, "test": 55}
    assert 0 < len(decoded) < 60


def test_two_preparations_at_once_make_one(recordings, entries, tmp_path, start, snapshot):
    processes = [start(prepare_dataset, entries(recordings), COLUMNS, tmp_path / "out") for _ in range(2)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert datasets.load_from_disk(tmp_path / "out").num_rows == {"train": 5, "test": 3}
    before = snapshot(tmp_path / "out")
    prepare_dataset(entries(recordings), COLUMNS, tmp_path / "out")
    assert snapshot(tmp_path / "out") == before


def test_a_process_that_dies_is_told_from_a_recording_that_does_not_decode(
    recordings, entries, tmp_path, small_shards, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "prepare_entry", lambda entry, split: os._exit(1))
        with pytest.raises(DataError, match="a process that decodes recordings ended abruptly, .*num_proc"):
            prepare_dataset(entries(recordings), COLUMNS, tmp_path / "out", num_proc=2)
    assert prepare_dataset(entries(recordings), COLUMNS, tmp_path / "out").prepared == {"train": 5, "test": 3}


def test_a_folder_of_something_else_is_never_written_to(recordings, entries, snapshot):
    before = snapshot(recordings)
    with pytest.raises(DataError, match="found something that no preparation wrote, expected an empty folder"):
        prepare_dataset(entries(recordings), COLUMNS, recordings)
    assert snapshot(recordings) == before


@pytest.mark.parametrize("change", [b"[]", b"{", b'{"key": 1}', b"[" * 100_000, {"stamps": {"train": 5}}, {"new": 1}])
def test_a_state_that_was_edited_is_prepared_anew(change, recordings, entries, tmp_path):
    whole = prepare_dataset(entries(recordings), COLUMNS, tmp_path / "out")
    state = tmp_path / "out" / ".preparation" / "state.json"
    state.write_bytes(
        change if isinstance(change, bytes) else json.dumps(json.loads(state.read_bytes()) | change).encode()
    )
    assert prepare_dataset(entries(recordings), COLUMNS, tmp_path / "out") == whole


@pytest.mark.parametrize("name", ["dataset_dict.json", "train/state.json", "test/data-00000-of-00001.arrow"])
def test_a_data_set_that_was_damaged_is_no_whole_one(name, recordings, entries, tmp_path):
    prepare_dataset(entries(recordings), COLUMNS, tmp_path / "out")
    (tmp_path / "out" / name).write_bytes(b"[")
    with pytest.raises(DataError, match="out: found a data set with a file that is missing or damaged"):
        prepare_dataset(entries(recordings), COLUMNS, tmp_path / "out")


def test_a_name_that_is_no_utf_8_is_an_error(recordings, entries, tmp_path):
    listed = [Entry("\udcff.wav", recordings / "0.wav", {"captions": ["a tone"], "place": "here"})]
    with pytest.raises(DataError, match=r"train: found the file name '\\udcff\.wav', expected UTF-8"):
        prepare_dataset({"train": listed}, COLUMNS, tmp_path / "out")


def test_a_name_that_occurs_twice_in_a_split_is_an_error(recordings, entries, tmp_path):
    listed = entries(recordings)
    with pytest.raises(DataError, match=r"train: found the file name '0\.wav' twice"):
        prepare_dataset({"train": listed["train"] * 2}, COLUMNS, tmp_path / "out")


def test_no_recording_at_all_is_an_error(recordings, entries, tmp_path):
    for path in recordings.iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of the 5 recordings of train can be used"):
        prepare_dataset(entries(recordings), COLUMNS, tmp_path / "out")


@pytest.mark.parametrize("name", ["a::b", "s3://bucket/a"])
def test_a_folder_whose_name_is_read_as_an_address_is_refused(
    name, recordings, entries, tmp_path, monkeypatch, cnn10bert
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="OUT .*expected a local folder"):
        prepare_dataset(entries(recordings), COLUMNS, name)
    assert "expected a local folder" in cnn10bert("prepare", "clotho", name, code=1).stderr
    assert not any(path.name.startswith(("a:", "s3")) for path in tmp_path.iterdir())


def test_what_the_system_does_not_read_is_tried_again_by_the_next_run(recordings, entries, tmp_path, monkeypatch):
    opened = soundfile.SoundFile

    def fail_on_one(source, *args, **kwargs):
        if isinstance(source, bytes) and source.endswith(b"3.wav"):
            raise soundfile.LibsndfileError(2)  # System error
        return opened(source, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(soundfile, "SoundFile", fail_on_one)
        patched.setenv("PATH", "")
        first = prepare_dataset(entries(recordings), COLUMNS, tmp_path / "out")
    assert [note.file_name for note in first.skipped] == ["3.wav"]
    second = prepare_dataset(entries(recordings), COLUMNS, tmp_path / "out")
    assert not second.skipped and sum(second.prepared.values()) == 8
