"""AudioCaps from a partial copy of its recordings, in either of the ways that they are named."""

import datasets
import pytest

from modeling_cnn10bert.data.recipes.audiocaps import audiocaps_entries, read_captions
from modeling_cnn10bert.data.recipes.youtube import YouTubeFolder
from modeling_cnn10bert.errors import DataError

HEADER = ["audiocap_id", "youtube_id", "start_time", "caption"]


@pytest.fixture
def tables(tmp_path, write_csv):
    """Caption files of two recordings a split; the ids begin with a dash, an underscore and a Y."""
    ids = {
        "train": ["-aaaaaaaaaa", "Yaaaaaaaaaa"],
        "val": ["_bbbbbbbbbb", "bbbb_bbbbb3"],
        "test": ["ccccccccccc", "d-_dddddddd"],
    }
    for name, of_split in ids.items():
        captions = 1 if name == "train" else 5
        rows = [[str(n), youtube_id, "30", f"sound {n}"] for youtube_id in of_split for n in range(captions)]
        write_csv(tmp_path / "tables" / f"{name}.csv", HEADER, *rows)
    return tmp_path / "tables"


def test_either_naming_is_found_in_any_folder(tables, tmp_path, write_tone, cnn10bert, read_csv):
    write_tone(tmp_path / "audio" / "train" / "Y-aaaaaaaaaa.wav")
    write_tone(tmp_path / "audio" / "YYaaaaaaaaaa.flac")
    write_tone(tmp_path / "audio" / "_bbbbbbbbbb_30.wav")
    write_tone(tmp_path / "audio" / "bbbb_bbbbb3.ogg")
    write_tone(tmp_path / "audio" / "d-_dddddddd_30.wav")
    write_tone(tmp_path / "audio" / "ccccccccccc_40.wav")  # another part of the video
    (tmp_path / "audio" / "Yccccccccccc.json").touch()
    arguments = [
        str(tmp_path / "out"),
        "--captions",
        str(tables),
        "--audio",
        str(tmp_path / "audio"),
        "--num_proc",
        "1",
    ]
    printed = cnn10bert("prepare", "audiocaps", *arguments).stdout
    tables_found = datasets.load_from_disk(tmp_path / "out")
    assert tables_found.num_rows == {"train": 2, "validation": 2, "test": 1}
    assert tables_found["test"]["recording_id"][:] == ["test/Yd-_dddddddd.wav"]
    assert tables_found["test"]["captions"][0] == [f"sound {n}" for n in range(5)]
    assert "test: 1 of 2 recordings; metrics on it stand on N = 1" in printed
    _, (split, name, reason) = read_csv(tmp_path / "out" / "skipped.csv")
    assert (split, name) == ("test", "Yccccccccccc.wav")
    assert "found none of Yccccccccccc.*, ccccccccccc_30.*" in reason

    write_tone(tmp_path / "audio" / "Yccccccccccc.wav")
    cnn10bert("prepare", "audiocaps", *arguments)
    assert datasets.load_from_disk(tmp_path / "out").num_rows == {"train": 2, "validation": 2, "test": 2}
    assert len(read_csv(tmp_path / "out" / "skipped.csv")) == 1


def test_the_real_caption_files(shared_data, tmp_path):
    splits, _ = audiocaps_entries(shared_data / "audiocaps", YouTubeFolder(tmp_path))
    counts = {
        split: (len(entries), sum(len(e.columns["captions"]) for e in entries)) for split, entries in splits.items()
    }
    assert counts == {"train": (49_838, 49_838), "validation": (495, 2_475), "test": (975, 4_875)}


def test_three_recordings_of_the_real_test_split(shared_data, tmp_path, write_tone, cnn10bert, read_csv):
    names = ["Y7fmOlUlwoNg.wav", "6BJ455B1aAs_0.wav", "GOD8Bt5LfDE_100.wav"]  # of its first three lines
    for name in names:
        write_tone(tmp_path / "audio" / name)
    captions = ["--captions", str(shared_data / "audiocaps"), "--num_proc", "1"]
    words = ["prepare", "audiocaps", tmp_path / "out", "--audio", tmp_path / "audio", *captions]
    assert "train: found none of its 49838 recordings" in cnn10bert(*words, code=1).stderr
    assert "found 'dev', expected one of train, validation, test" in cnn10bert(*words, "--split", "dev", code=1).stderr
    printed = cnn10bert(*words, "--split", "test").stdout
    test = datasets.load_from_disk(tmp_path / "out")["test"]
    assert sorted(test["youtube_id"][:]) == ["6BJ455B1aAs", "7fmOlUlwoNg", "GOD8Bt5LfDE"]
    assert all(len(captions) == 5 for captions in test["captions"])
    assert "test: 3 of 975 recordings; metrics on it stand on N = 3" in printed
    _, *skipped = read_csv(tmp_path / "out" / "skipped.csv")
    assert sum(row[0] == "test" for row in skipped) == 972


def test_a_faulty_line_is_left_out_and_listed(tables, tmp_path, write_tone, write_csv, cnn10bert, read_csv):
    rows = [["1", "aaaaaaaaaaa", "30", "a sound"], ["2", "bbbbbbbbbbb", "later", "a sound"]]
    rows += [["3", "ccccccccccc", "30", "a dog barks", " then silence"], ["4", "ddddddddddd", "30", "..."]]
    rows += [["5", "#NAME?", "30", "a sound"], ["6", "aaaaaaaaaaa", "30.0", "the same part"]]
    write_csv(tmp_path / "tables" / "train.csv", HEADER, *rows)
    write_tone(tmp_path / "audio" / "Yaaaaaaaaaaa.wav")
    arguments = [str(tmp_path / "out"), "--captions", str(tables), "--audio", str(tmp_path / "audio")]
    cnn10bert("prepare", "audiocaps", *arguments, "--split", "train", "--num_proc", "1")
    (row,) = datasets.load_from_disk(tmp_path / "out")["train"].to_list()
    assert row["captions"] == ["a sound", "the same part"]
    _, *skipped = read_csv(tmp_path / "out" / "skipped.csv")
    assert [name for _, name, _ in skipped] == ["train.csv:3", "train.csv:4", "train.csv:5", "train.csv:6"]
    assert "found 5 cells ('3', 'ccccccccccc', '30', 'a dog barks', ' then silence'), expected 4" in skipped[1][2]


def test_parts_of_one_video_need_recordings_of_their_own(tmp_path, write_tone, write_csv):
    rows = [[str(n), "aaaaaaaaaaa", str(30 * n), f"sound {n}"] for n in range(2)]
    for name in ("train", "val", "test"):
        write_csv(tmp_path / "tables" / f"{name}.csv", HEADER, *rows)
    write_tone(tmp_path / "audio" / "Yaaaaaaaaaaa.wav")
    write_tone(tmp_path / "audio" / "aaaaaaaaaaa_30.wav")
    splits, _ = audiocaps_entries(tmp_path / "tables", YouTubeFolder(tmp_path / "audio"))
    found = {entry.file_name: entry.audio and entry.audio.name for entry in splits["train"]}
    assert found == {"aaaaaaaaaaa_0.wav": None, "aaaaaaaaaaa_30.wav": "aaaaaaaaaaa_30.wav"}


def test_a_faulty_caption_file_is_named(tmp_path, write_csv):
    path = write_csv(tmp_path / "test.csv", HEADER, ["1", "abc", "later", "a sound"])
    with pytest.raises(DataError, match=r"test\.csv:2: found .*later.*, expected a YouTube id, a start in seconds"):
        read_captions(path)
    write_csv(path, ["youtube_id", "text"], ["abc", "a sound"])
    with pytest.raises(DataError, match="found the columns youtube_id, text, expected audiocap_id, caption"):
        read_captions(path)
    with pytest.raises(DataError, match=r"absent\.csv: found .*No such file"):
        read_captions(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="found no such folder"):
        YouTubeFolder(tmp_path / "absent")
