"""Your own recordings, from a folder with metadata or from any data set with an audio and a caption column."""

import json
import re
import shutil
import unicodedata
from collections import Counter

import datasets
import numpy as np
import pytest
import soundfile

from modeling_cnn10bert.data.audio_io import decode_audio
from modeling_cnn10bert.data.prepare import prepare_dataset
from modeling_cnn10bert.data.recipes.audio_folder import own_recordings
from modeling_cnn10bert.errors import DataError


@pytest.fixture
def folder(tmp_path, write_tone):
    """A folder of ten recordings, one of them in a folder below."""
    for number in range(9):
        write_tone(tmp_path / "own" / f"{number}.wav", 300 + 100 * number)
    write_tone(tmp_path / "own" / "deeper" / "9.flac", 2000)
    return tmp_path / "own"


def _names():
    return [*(f"{number}.wav" for number in range(9)), "deeper/9.flac"]


def _captions(splits):
    return {entry.file_name: entry.columns["captions"] for entries in splits.values() for entry in entries}


def test_a_csv_of_one_caption_a_line_is_joined_by_recording(folder, write_csv):
    rows = [[name, text, "me"] for name in _names() for text in (f"a tone, {name}", "a sound")]
    write_csv(folder / "metadata.csv", ["file_name", "caption", "author"], *rows, lineterminator="\r\n")
    splits, columns = own_recordings(str(folder))
    assert list(columns) == ["captions", "author"]
    assert _captions(splits) == {name: [f"a tone, {name}", "a sound"] for name in _names()}
    assert {entry.columns["author"] for entry in splits["train"]} == {"me"}


def test_jsonl_may_have_a_list_of_captions(folder):
    lines = [json.dumps({"file_name": name, "captions": [name, "a sound"], "year": 2022}) for name in _names()]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n\n")
    splits, _ = own_recordings(str(folder))
    assert _captions(splits)["3.wav"] == ["3.wav", "a sound"]
    assert splits["train"][0].columns["year"] == "2022"


def test_a_csv_cell_may_hold_a_list_as_json(folder, write_csv):
    write_csv(folder / "metadata.csv", ["file_name", "captions"], ["0.wav", '["one", "two"]'], ["1.wav", "[a bracket"])
    assert _captions(own_recordings(str(folder))[0]) == {"0.wav": ["one", "two"], "1.wav": ["[a bracket"]}


def test_missing_splits_are_drawn_from_the_training_recordings(folder, write_csv):
    write_csv(folder / "metadata.csv", ["file_name", "caption"], *([name, "a tone"] for name in _names()))
    splits, _ = own_recordings(str(folder), shares={"validation": 0.2, "test": 0.1})
    assert list(splits) == ["train", "validation", "test"]
    assert all(splits.values())
    assert sorted(_captions(splits)) == sorted(_names())
    assert own_recordings(str(folder), shares={"validation": 0.2, "test": 0.1})[0] == splits


def test_recordings_that_are_added_move_no_other_from_its_split(tmp_path, write_csv):
    for number in range(2000):
        (tmp_path / f"{number}.wav").touch()

    def drawn(count):
        rows = ([f"{number}.wav", "a tone"] for number in range(count))
        write_csv(tmp_path / "metadata.csv", ["file_name", "caption"], *rows)
        splits, _ = own_recordings(str(tmp_path), shares={"validation": 0.2, "test": 0.1})
        return {entry.file_name: split for split, entries in splits.items() for entry in entries}

    few, many = drawn(300), drawn(2000)
    assert {name: many[name] for name in few} == few
    counts = Counter(many.values())
    assert 0.17 < counts["validation"] / 2000 < 0.23  # three standard deviations of the binomial distribution
    assert 0.08 < counts["test"] / 2000 < 0.12


def test_folders_of_splits_keep_their_own(tmp_path, write_tone, write_csv):
    for split in ("train", "val", "test"):
        write_tone(tmp_path / "own" / split / "a.wav")
        write_csv(tmp_path / "own" / split / "metadata.csv", ["file_name", "caption"], ["a.wav", f"of {split}"])
    splits, columns = own_recordings(str(tmp_path / "own"), shares={"validation": 0.4, "test": 0.4})
    assert {split: entry.columns["captions"] for split, (entry,) in splits.items()} == {
        "train": ["of train"],
        "validation": ["of val"],
        "test": ["of test"],
    }
    result = prepare_dataset(splits, columns, tmp_path / "out")
    assert result.prepared == {"train": 1, "validation": 1, "test": 1}
    ids = [name for table in datasets.load_from_disk(tmp_path / "out").values() for name in table["recording_id"]]
    assert ids == ["train/a.wav", "validation/a.wav", "test/a.wav"]


def test_a_recording_without_a_caption_is_left_out(folder, write_csv, tmp_path):
    write_csv(folder / "metadata.csv", ["file_name", "caption"], ["0.wav", " "], ["1.wav", "a tone"])
    splits, columns = own_recordings(str(folder))
    result = prepare_dataset(splits, columns, tmp_path / "out")
    assert [(note.file_name, note.text) for note in result.skipped] == [
        ("0.wav", "0.wav: found no caption, expected at least one; write one")
    ]


def test_a_wrong_column_name_lists_those_that_exist(folder, write_csv, tmp_path):
    write_csv(folder / "metadata.csv", ["file_name", "text", "author"], ["0.wav", "a tone", "me"])
    with pytest.raises(DataError, match=r"metadata\.csv:2: found no column captions or caption .*text, author"):
        own_recordings(str(folder))
    with pytest.raises(DataError, match=r"found no column words .* expected one of file_name, text, author"):
        own_recordings(str(folder), caption_columns=["words"])
    assert _captions(own_recordings(str(folder), caption_columns=["text"])[0]) == {"0.wav": ["a tone"]}

    table = datasets.Dataset.from_dict({"sound": [str(folder / "0.wav")], "text": ["a tone"]})
    table.save_to_disk(tmp_path / "table")
    with pytest.raises(DataError, match=r"found no column audio in the split train, expected one of sound, text"):
        own_recordings(str(tmp_path / "table"))
    with pytest.raises(DataError, match=r"found no column captions or caption .* expected one of sound, text"):
        own_recordings(str(tmp_path / "table"), audio_column="sound")


@pytest.mark.parametrize("stored", ["bytes", "path", "string"])
def test_a_data_set_on_disk_by_the_names_of_its_columns(stored, folder, tmp_path, snapshot):
    values = {
        "bytes": [{"bytes": (folder / f"{n}.wav").read_bytes(), "path": f"{n}.wav"} for n in range(4)],
        "path": [{"bytes": None, "path": str(folder / f"{n}.wav")} for n in range(4)],
        "string": [str(folder / f"{n}.wav") for n in range(4)],
    }[stored]
    columns = {"sound": values, "one": list("abcd"), "more": [["e", "f"]] * 4, "year": [1, 2, 3, 4]}
    datasets.DatasetDict({"dev": datasets.Dataset.from_dict(columns)}).save_to_disk(tmp_path / "table")
    splits, features = own_recordings(str(tmp_path / "table"), "sound", ["one", "more"], allow_outside=True)
    result = prepare_dataset(splits, features, tmp_path / "out")
    assert result.prepared == {"train": 0, "validation": 4}
    table = datasets.load_from_disk(tmp_path / "out")["validation"]
    assert table["file_name"][:] == [f"{n}.wav" for n in range(4)]
    assert table["captions"][:] == [[letter, "e", "f"] for letter in "abcd"]
    assert table["year"][:] == [1, 2, 3, 4]
    assert len(decode_audio(table.to_list()[2]["audio"]["bytes"], 32_000, "")) == 16_000
    before = snapshot(tmp_path / "out")
    splits, features = own_recordings(str(tmp_path / "table"), "sound", ["one", "more"], allow_outside=True)
    assert prepare_dataset(splits, features, tmp_path / "out") == result
    assert snapshot(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file_name,caption\n,a tone\n", r"metadata\.csv:2: file_name: found ''"),
        ("name,caption\n0.wav,a tone\n", r"metadata\.csv: found the columns name, caption, expected file_name too"),
        (b"file_name,caption\n0.wav,\xff\n", r"metadata\.csv:2: found the byte 0xff, .*expected UTF-8"),
    ],
)
def test_faulty_metadata_is_named_with_its_line(content, message, folder):
    (folder / "metadata.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        own_recordings(str(folder))


def test_faulty_jsonl_is_named(folder):
    (folder / "metadata.jsonl").write_text('{"file_name": "0.wav", "captions": [3]}\n')
    with pytest.raises(DataError, match=r"metadata\.jsonl:1: captions: found 3, expected texts"):
        own_recordings(str(folder))
    (folder / "metadata.jsonl").write_text("no json\n")
    with pytest.raises(DataError, match=r"metadata\.jsonl:1: found 'no json', expected one JSON object"):
        own_recordings(str(folder))


def test_a_folder_without_metadata_and_a_name_that_nobody_knows(folder):
    with pytest.raises(DataError, match=r"found no metadata\.csv or metadata\.jsonl, expected one"):
        own_recordings(str(folder))
    with pytest.raises(DataError, match="nobody/knows-it: found neither a folder nor a data set on the Hub"):
        own_recordings("nobody/knows-it")


def test_an_upload_that_fails_leaves_the_prepared_set_and_says_what_to_do(
    folder, write_csv, cnn10bert, tmp_path, snapshot
):
    write_csv(folder / "metadata.csv", ["file_name", "caption"], *([name, "a tone"] for name in _names()))
    arguments = [str(tmp_path / "out"), str(folder), "--num_proc", "1", "--push_to_hub", "somebody/tones"]
    for _ in range(2):  # the second time, it only uploads
        result = cnn10bert("prepare", "folder", *arguments, code=1)  # the tests reach no Hub
        assert "out is prepared, but could not be uploaded to somebody/tones (" in result.stderr
    assert sum(datasets.load_from_disk(tmp_path / "out").num_rows.values()) == len(_names())


# ------------------------------------------------------------------------------- one recording under several names


def _splits_of(folder, **options):
    splits, _ = own_recordings(str(folder), **options)
    return {entry.file_name: split for split, entries in splits.items() for entry in entries}


def test_rows_that_name_a_file_in_several_ways_are_one_recording(folder, write_csv):
    (folder / "link.wav").symlink_to(folder / "0.wav")
    names = ["0.wav", "./0.wav", "deeper/../0.wav", str(folder / "0.wav"), "../own/0.wav", "link.wav", "0.wav "]
    rows = [[name, f"caption {number}"] for number, name in enumerate(names)]
    write_csv(folder / "metadata.csv", ["file_name", "caption"], *rows, ["deeper\\9.flac", "a tone"])
    expected = {"0.wav": [f"caption {number}" for number in range(7)], "deeper/9.flac": ["a tone"]}
    assert _captions(own_recordings(str(folder))[0]) == expected


@pytest.mark.parametrize("name", ["../x.wav", "deeper/../../x.wav", "{}/x.wav", "out.wav", "up/x.wav", "../gone.wav"])
def test_a_row_that_leads_out_of_the_folder_is_refused_unless_that_is_asked_for(name, folder, write_csv, tmp_path):
    shutil.copy(folder / "0.wav", tmp_path / "x.wav")
    (folder / "out.wav").symlink_to(tmp_path / "x.wav")
    (folder / "up").symlink_to(tmp_path)
    name = name.format(tmp_path)
    write_csv(folder / "metadata.csv", ["file_name", "caption"], ["0.wav", "a"], [name, "b"])
    with pytest.raises(DataError, match=rf"metadata\.csv:3: file_name: found the recording '{re.escape(name)}'"):
        own_recordings(str(folder))
    splits, _ = own_recordings(str(folder), allow_outside=True)
    assert [entry.columns["captions"] for entry in splits["train"] if entry.audio][0] == ["a"]
    assert len(splits["train"]) == 2


def test_a_folder_that_is_given_by_a_link_has_its_recordings_inside(folder, write_csv, tmp_path):
    (tmp_path / "linked").symlink_to(folder)
    rows = [["0.wav", "a"], [str(folder / "1.wav"), "b"], [str(tmp_path / "linked" / "1.wav"), "c"]]
    write_csv(folder / "metadata.csv", ["file_name", "caption"], *rows)
    assert _captions(own_recordings(str(tmp_path / "linked"))[0]).popitem()[1] == ["b", "c"]


def test_a_data_set_whose_rows_name_files_elsewhere_is_refused_unless_that_is_asked_for(folder, tmp_path):
    for kind, cell in {"path": str(folder / "0.wav"), "cell": {"bytes": None, "path": str(folder / "0.wav")}}.items():
        table = datasets.Dataset.from_dict({"audio": [cell], "caption": ["a"]})
        datasets.DatasetDict({"train": table}).save_to_disk(tmp_path / kind)
        with pytest.raises(DataError, match=r"row 0 of train: audio: found the recording .*allow_outside"):
            own_recordings(str(tmp_path / kind))
        assert len(own_recordings(str(tmp_path / kind), allow_outside=True)[0]["train"]) == 1


@pytest.mark.parametrize("metadata", ["csv", "jsonl"])
def test_a_recording_under_several_names_is_in_one_split(metadata, folder, write_csv, tmp_path):
    rows = [[form.format(name), "a tone"] for name in _names() for form in ("{}", "./{}", str(folder / "{}"))]
    if metadata == "csv":
        write_csv(folder / "metadata.csv", ["file_name", "caption"], *rows)
    else:
        lines = [json.dumps({"file_name": name, "caption": text}) for name, text in rows]
        (folder / "metadata.jsonl").write_text("\n".join(lines))
    splits, columns = own_recordings(str(folder), shares={"validation": 0.2, "test": 0.2})
    assert sorted(entry.file_name for entries in splits.values() for entry in entries) == sorted(_names())
    assert sum(prepare_dataset(splits, columns, tmp_path / "out").prepared.values()) == 10


def test_names_are_found_in_any_form_of_their_accents(tmp_path, write_tone, write_csv):
    composed, decomposed = unicodedata.normalize("NFC", "é/ü.wav"), unicodedata.normalize("NFD", "é/ü.wav")
    write_tone(tmp_path / "a" / decomposed)
    write_tone(tmp_path / "b" / composed)
    for name, form in (("a", composed), ("b", decomposed)):
        write_csv(tmp_path / name / "metadata.csv", ["file_name", "caption"], [form, "a tone"])
        splits, columns = own_recordings(str(tmp_path / name))
        assert prepare_dataset(splits, columns, tmp_path / f"{name}_out").prepared == {"train": 1}


def test_a_name_with_two_forms_on_disk_is_none_of_them(tmp_path, write_tone, write_csv):
    write_tone(tmp_path / unicodedata.normalize("NFD", "éé.wav"))
    write_tone(tmp_path / (unicodedata.normalize("NFC", "é") + unicodedata.normalize("NFD", "é.wav")))
    write_csv(tmp_path / "metadata.csv", ["file_name", "caption"], [unicodedata.normalize("NFC", "éé.wav"), "a tone"])
    splits, columns = own_recordings(str(tmp_path))
    with pytest.raises(DataError, match="train: found none of its 1 recordings"):
        prepare_dataset(splits, columns, tmp_path / "out")


@pytest.mark.parametrize("name", ["x" * 300 + ".wav", "a\0b.wav", "absent.wav", "deeper"])
def test_a_name_that_no_file_can_have_is_left_out(name, folder, write_csv, tmp_path):
    lines = [json.dumps({"file_name": name, "caption": "a tone"}) for name in ("0.wav", name)]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    splits, columns = own_recordings(str(folder))
    assert prepare_dataset(splits, columns, tmp_path / "out").prepared == {"train": 1}


def test_a_split_of_which_no_recording_is_found_is_an_error(folder, write_csv, tmp_path):
    for split in ("train", "test"):
        write_csv(tmp_path / "own" / split / "metadata.csv", ["file_name", "caption"], ["../0.wav", "a"])
    write_csv(tmp_path / "own" / "test" / "metadata.csv", ["file_name", "caption"], ["a.wav", "a"], ["b.wav", "b"])
    splits, columns = own_recordings(str(folder))
    with pytest.raises(DataError, match=r"test: found none of its 2 recordings.*a\.wav: found no such file"):
        prepare_dataset(splits, columns, tmp_path / "out")
    assert not (tmp_path / "out" / "dataset_dict.json").exists()


def test_a_recording_in_two_splits_is_an_error(folder, write_csv):
    write_csv(folder / "train" / "metadata.csv", ["file_name", "caption"], ["../0.wav", "a"])
    write_csv(folder / "test" / "metadata.csv", ["file_name", "caption"], ["../deeper/../0.wav", "b"])
    with pytest.raises(DataError, match=r"found the recording '\.\./0\.wav' in (train|test) and in (train|test)"):
        own_recordings(str(folder))


def test_equal_sound_in_two_splits_is_reported(tmp_path, write_tone, write_csv, read_csv):
    samples, rate = soundfile.read(write_tone(tmp_path / "tone.wav"), dtype="int16")
    for split, name in (("train", "a.wav"), ("test", "b.flac"), ("validation", "c.wav")):
        (tmp_path / "own" / split).mkdir(parents=True)
        soundfile.write(tmp_path / "own" / split / name, samples if split != "validation" else samples // 2, rate)
        write_csv(tmp_path / "own" / split / "metadata.csv", ["file_name", "caption"], [name, "a tone"])
    splits, columns = own_recordings(str(tmp_path / "own"))
    result = prepare_dataset(splits, columns, tmp_path / "out")
    assert "2 kept with a warning, 2 of them the same sound as in another split" in str(result)
    assert read_csv(tmp_path / "out" / "warnings.csv")[1:] == [
        ["train", "a.wav", "the same sound as in another split: test/b.flac"],
        ["test", "b.flac", "the same sound as in another split: train/a.wav"],
    ]


# --------------------------------------------------------------------------------------------------- folders as splits


def test_folders_of_splits_count_below_one_metadata_file(folder, write_tone, write_csv):
    names = ["Train/a.wav", "train/b.wav", "x/TEST/c.wav", "Valid/d.wav", "0.wav"]
    for name in names[:4]:
        write_tone(folder / name)
    write_csv(folder / "metadata.csv", ["file_name", "caption"], *([f"./{name}", "a tone"] for name in names))
    splits = _splits_of(folder, shares={"validation": 0.4, "test": 0.4})
    assert splits == dict(zip(names, ["train", "train", "test", "validation", "train"], strict=True))


def test_a_folder_of_the_sounds_of_trains_is_no_split(folder, write_tone, write_csv):
    names = [f"{kind}/{number}.wav" for kind in ("train", "dog") for number in range(10)]
    for name in names:
        write_tone(folder / name)
    write_csv(folder / "metadata.csv", ["file_name", "caption"], *([name, "a sound"] for name in names))
    splits = _splits_of(folder, shares={"validation": 0.3, "test": 0.3})
    assert {"validation", "test"} <= {split for name, split in splits.items() if name.startswith("train/")}


@pytest.mark.parametrize("name", ["Training", "VALIDATION", "dev", "Eval"])
def test_folders_of_splits_with_metadata_of_their_own_in_any_letter_case(name, tmp_path, write_tone, write_csv):
    write_csv(tmp_path / name / "metadata.csv", ["file_name", "caption"], ["a.wav", "a tone"])
    assert set(_splits_of(tmp_path).values()) == {
        {"t": "train", "v": "validation", "d": "validation", "e": "test"}[name[0].lower()]
    }


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["metadata.csv", "test/metadata.csv"], "expected one metadata file, or one in each folder"),
        (["metadata.csv", "metadata.jsonl"], "expected one metadata file, or one in each folder"),
        (["val/metadata.csv", "validation/metadata.csv"], "found the folders val and validation, which are both"),
        (["dog/metadata.csv", "rain/metadata.csv"], "found metadata in dog, rain only, expected one there or in"),
    ],
)
def test_metadata_of_which_it_is_not_clear_what_counts_is_an_error(files, message, tmp_path, write_csv):
    for name in files:
        write_csv(tmp_path / name, ["file_name", "caption"], ["a.wav", "a tone"])
    with pytest.raises(DataError, match=message):
        own_recordings(str(tmp_path))


def test_a_recording_that_cannot_be_used_is_not_drawn(folder, write_csv):
    rows = [[name, "a tone" if name == "0.wav" else "-"] for name in _names()] + [["absent.wav", "a tone"]]
    write_csv(folder / "metadata.csv", ["file_name", "caption"], *rows, ["1.wav", "a tone"], ["2.wav", "a tone"])
    splits = _splits_of(folder, shares={"validation": 0.1, "test": 0.1})
    assert sorted(splits[name] for name in ("0.wav", "1.wav", "2.wav")) == ["test", "train", "validation"]


def test_too_few_recordings_to_draw_splits_from_are_an_error(folder, write_csv):
    write_csv(folder / "metadata.csv", ["file_name", "caption"], ["0.wav", "a"], ["1.wav", "b"])
    with pytest.raises(DataError, match="found 2 recordings to draw validation and test from, expected more"):
        own_recordings(str(folder), shares={"validation": 0.1, "test": 0.1})


# ------------------------------------------------------------------------------------------------------------ captions


def test_captions_without_a_word_are_left_out_and_listed(folder, write_csv, tmp_path, read_csv):
    rows = [["0.wav", "a tone"], ["0.wav", "-"], ["1.wav", "..."], ["2.wav", "Ton über 400 Hz"]]
    write_csv(folder / "metadata.csv", ["file_name", "caption"], *rows)
    splits, columns = own_recordings(str(folder))
    prepare_dataset(splits, columns, tmp_path / "out")
    table = datasets.load_from_disk(tmp_path / "out")["train"]
    assert table["captions"][:] == [["a tone"], ["Ton über 400 Hz"]]
    assert read_csv(tmp_path / "out" / "warnings.csv")[1] == [
        "train", "0.wav", "1 of 2 captions left out: no word in '-'"
    ]  # fmt: skip
    assert "found only captions without a word, such as '...'" in read_csv(tmp_path / "out" / "skipped.csv")[1][2]


def test_numbered_columns_are_captions_too(folder, write_csv):
    write_csv(folder / "metadata.csv", ["file_name", "caption_1", "caption_2"], ["0.wav", "one", "two"])
    assert _captions(own_recordings(str(folder))[0]) == {"0.wav": ["one", "two"]}


# --------------------------------------------------------------------------------------------------- kinds of data sets


def _prepared(table, tmp_path):
    datasets.DatasetDict({"train": table}).save_to_disk(tmp_path / "table")
    splits, features = own_recordings(str(tmp_path / "table"), allow_outside=True)
    prepare_dataset(splits, features, tmp_path / "out")
    return datasets.load_from_disk(tmp_path / "out")["train"]


def test_a_row_for_each_caption_of_a_recording_is_one_recording(folder, tmp_path):
    content = [(folder / f"{number}.wav").read_bytes() for number in (0, 1)]
    cells = {
        "named": [{"bytes": content[n], "path": f"{n}.wav"} for n in (0, 1, 0, 1)],
        "unnamed": [{"bytes": content[n], "path": None} for n in (0, 1, 0, 1)],
        "paths": [str(folder / name) for name in ("0.wav", "1.wav", "./0.wav", "deeper/../1.wav")],
        "path cells": [{"bytes": None, "path": str(folder / f"{n}.wav")} for n in (0, 1, 0, 1)],
        "binary": [content[n] for n in (0, 1, 0, 1)],
        "arrays": [{"array": [0.1 * n, 0.5] * 4000, "sampling_rate": 16_000} for n in (0, 1, 0, 1)],
    }
    for kind, audio in cells.items():
        table = datasets.Dataset.from_dict({"audio": audio, "caption": list("abcd"), "number": [0, 1, 2, 3]})
        prepared = _prepared(table, tmp_path / kind)
        assert prepared["captions"][:] == [["a", "c"], ["b", "d"]], kind
        assert prepared["number"][:] == [0, 1], kind


def test_equal_names_of_different_sounds_stay_two_recordings(folder, tmp_path):
    audio = [{"bytes": (folder / f"{number}.wav").read_bytes(), "path": "x.wav"} for number in (0, 1)]
    prepared = _prepared(datasets.Dataset.from_dict({"audio": audio, "caption": ["a", "b"]}), tmp_path)
    assert prepared["captions"][:] == [["a"], ["b"]]


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_samples_with_their_rate_are_recordings(dtype, tmp_path):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / 16_000)
    array = (tone * 2**15).astype(np.int16) if dtype == "int16" else tone.astype(np.float32)
    audio = [{"array": array.tolist(), "sampling_rate": 16_000, "path": "tone.wav"}]
    (row,) = _prepared(datasets.Dataset.from_dict({"audio": audio, "caption": ["a tone"]}), tmp_path).to_list()
    waveform = decode_audio(row["audio"]["bytes"], 32_000, "")
    assert row["file_name"] == "tone.wav" and row["duration"] == 0.5
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 32_000)
    assert np.abs(waveform - expected)[500:-500].max() < 1e-3


def test_samples_without_a_rate_are_refused(tmp_path):
    table = datasets.Dataset.from_dict({"audio": [[0.1, 0.2]], "caption": ["a tone"]})
    table.save_to_disk(tmp_path / "table")
    with pytest.raises(DataError, match="column audio holds List.*expected recordings: .*add the rate"):
        own_recordings(str(tmp_path / "table"))


def test_two_splits_of_one_meaning_are_an_error(folder, tmp_path):
    table = datasets.Dataset.from_dict({"audio": [str(folder / "0.wav")], "caption": ["a tone"]})
    datasets.DatasetDict({"val": table, "validation": table}).save_to_disk(tmp_path / "table")
    with pytest.raises(DataError, match="found two splits that are validation"):
        own_recordings(str(tmp_path / "table"), allow_outside=True)


def test_a_file_in_two_splits_of_a_data_set_is_an_error(folder, tmp_path):
    tables = {
        split: datasets.Dataset.from_dict({"audio": [str(folder / name)], "caption": ["a tone"]})
        for split, name in (("train", "0.wav"), ("test", "./0.wav"))
    }
    datasets.DatasetDict(tables).save_to_disk(tmp_path / "table")
    with pytest.raises(DataError, match="in train and in test"):
        own_recordings(str(tmp_path / "table"), allow_outside=True)


@pytest.mark.parametrize(
    "shares",
    [{"test": 2.0}, {"test": -0.1}, {"test": float("nan")}, {"test": 1.0}, {"validation": 0.5, "test": 0.5}],
    ids=str,
)
def test_shares_that_leave_nothing_or_are_none_are_refused(shares, tmp_path):
    with pytest.raises(DataError, match="share.*found .*expected"):
        own_recordings(str(tmp_path), shares=shares)
