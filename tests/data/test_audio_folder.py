"""Your own recordings, from a folder with metadata or from any data set with an audio and a caption column."""

import json
from collections import Counter

import datasets
import pytest

from modeling_cnn10bert.data.audio_folder import own_recordings
from modeling_cnn10bert.data.audio_io import decode_audio
from modeling_cnn10bert.data.entries import PreparationError
from modeling_cnn10bert.data.preparation import prepare_dataset


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
    splits, columns = own_recordings(str(tmp_path / "own"), shares={"validation": 0.5, "test": 0.5})
    assert {split: entry.columns["captions"] for split, (entry,) in splits.items()} == {
        "train": ["of train"],
        "validation": ["of val"],
        "test": ["of test"],
    }
    result = prepare_dataset(splits, columns, tmp_path / "out")
    assert result.prepared == {"train": 1, "validation": 1, "test": 1}
    ids = [row["recording_id"] for table in datasets.load_from_disk(tmp_path / "out").values() for row in table]
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
    with pytest.raises(PreparationError, match=r"metadata\.csv:2: found no column captions or caption .*text, author"):
        own_recordings(str(folder))
    with pytest.raises(PreparationError, match=r"found no column words .* expected one of file_name, text, author"):
        own_recordings(str(folder), caption_columns=["words"])
    assert _captions(own_recordings(str(folder), caption_columns=["text"])[0]) == {"0.wav": ["a tone"]}

    table = datasets.Dataset.from_dict({"sound": [str(folder / "0.wav")], "text": ["a tone"]})
    table.save_to_disk(tmp_path / "table")
    with pytest.raises(
        PreparationError, match=r"found no column audio in the split train, expected one of sound, text"
    ):
        own_recordings(str(tmp_path / "table"))
    with pytest.raises(PreparationError, match=r"found no column captions or caption .* expected one of sound, text"):
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
    splits, features = own_recordings(str(tmp_path / "table"), "sound", ["one", "more"])
    result = prepare_dataset(splits, features, tmp_path / "out")
    assert result.prepared == {"train": 0, "validation": 4}
    table = datasets.load_from_disk(tmp_path / "out")["validation"]
    assert table["file_name"][:] == [f"{n}.wav" for n in range(4)]
    assert table["captions"][:] == [[letter, "e", "f"] for letter in "abcd"]
    assert table["year"][:] == [1, 2, 3, 4]
    assert len(decode_audio(table[2]["audio"]["bytes"], 32_000, "")) == 16_000
    before = snapshot(tmp_path / "out")
    splits, features = own_recordings(str(tmp_path / "table"), "sound", ["one", "more"])
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
    with pytest.raises(PreparationError, match=message):
        own_recordings(str(folder))


def test_faulty_jsonl_is_named(folder):
    (folder / "metadata.jsonl").write_text('{"file_name": "0.wav", "captions": [3]}\n')
    with pytest.raises(PreparationError, match=r"metadata\.jsonl:1: captions: found 3, expected texts"):
        own_recordings(str(folder))
    (folder / "metadata.jsonl").write_text("no json\n")
    with pytest.raises(PreparationError, match=r"metadata\.jsonl:1: found 'no json', expected one JSON object"):
        own_recordings(str(folder))


def test_a_folder_without_metadata_and_a_name_that_nobody_knows(folder):
    with pytest.raises(PreparationError, match=r"found no metadata\.csv or metadata\.jsonl, expected one"):
        own_recordings(str(folder))
    with pytest.raises(PreparationError, match="nobody/knows-it: found neither a folder nor a data set on the Hub"):
        own_recordings("nobody/knows-it")


def test_an_upload_that_fails_leaves_the_prepared_set_and_says_what_to_do(
    folder, write_csv, script, tmp_path, snapshot
):
    write_csv(folder / "metadata.csv", ["file_name", "caption"], *([name, "a tone"] for name in _names()))
    arguments = [str(tmp_path / "out"), str(folder), "--num_proc", "1", "--push_to_hub", "somebody/tones"]
    for _ in range(2):  # the second time, it only uploads
        with pytest.raises(PreparationError, match=r"out is prepared, but could not be uploaded to somebody/tones \("):
            script("prepare_folder").main(arguments)  # the tests reach no Hub
    assert sum(datasets.load_from_disk(tmp_path / "out").num_rows.values()) == len(_names())
