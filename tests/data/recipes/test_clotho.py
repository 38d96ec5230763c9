"""Clotho's real caption files and recordings, and small copies of what is odd in them."""

import pathlib
import unicodedata

import datasets
import pytest

from modeling_cnn10bert.data.audio_io import decode_audio
from modeling_cnn10bert.data.prepare import prepare_dataset
from modeling_cnn10bert.data.recipes.clotho import (
    SPLITS,
    clotho_entries,
    match_recordings,
    read_captions,
    read_metadata,
)
from modeling_cnn10bert.errors import DataError

CAPTIONS = [f"caption {number}" for number in range(5)]
HEADER = ["file_name", *(f"caption_{number}" for number in range(1, 6))]


@pytest.fixture
def clotho(tmp_path, write_csv, write_tone):
    """A small Clotho: two recordings a split, of which `shared.wav` is another one in each."""
    for number, name in enumerate(SPLITS.values()):
        rows = [[file_name, *CAPTIONS] for file_name in ("shared.wav", f" {name} &amp; more.wav")]
        write_csv(
            tmp_path / f"clotho_captions_{name}.csv", HEADER, *rows, lineterminator="\r\n" if number < 2 else "\n"
        )
        write_tone(tmp_path / name / "shared.wav", 400 + 200 * number)
        write_tone(tmp_path / name / f"{name} & more.wav", seconds=0.6)
        write_csv(
            tmp_path / f"clotho_metadata_{name}.csv",
            ["file_name", "keywords", "sound_id", "sound_link", "start_end_samples", "manufacturer", "license"],
            ["shared.wav", "café;tone", "Not found", "", "", "an author", "CC0"],
            encoding="iso-8859-1",
        )
    return tmp_path


def test_names_shared_between_splits_stay_apart(clotho, tmp_path):
    splits, columns = clotho_entries(clotho, clotho)
    assert [len(entries) for entries in splits.values()] == [2, 2, 2]
    for split, name in SPLITS.items():
        assert [entry.audio for entry in splits[split]] == [
            clotho / name / "shared.wav",
            clotho / name / f"{name} & more.wav",
        ]
        assert splits[split][0].columns["keywords"] == "café;tone"
        assert splits[split][0].columns["sound_id"] == "Not found"
        assert splits[split][1].columns == {**dict.fromkeys(columns, ""), "captions": CAPTIONS}
    assert prepare_dataset(splits, columns, tmp_path / "out").prepared == {"train": 2, "validation": 2, "test": 2}


def test_a_faulty_caption_file_is_named(tmp_path, write_csv):
    path = write_csv(tmp_path / "captions.csv", HEADER, ["a.wav", *CAPTIONS], ["b.wav", *CAPTIONS[:4], ""])
    with pytest.raises(DataError, match=r"captions\.csv:3: found the file name 'b\.wav'.*five captions"):
        read_captions(path)
    write_csv(path, HEADER, ["a.wav", *CAPTIONS], ["a.wav", *CAPTIONS])
    with pytest.raises(DataError, match=r"captions\.csv:3: .*a name that no other line has"):
        read_captions(path)
    write_csv(path, ["file_name", "caption"], ["a.wav", "a"])
    with pytest.raises(DataError, match="found the columns file_name, caption, expected caption_1"):
        read_captions(path)
    with pytest.raises(DataError, match=r"absent\.csv: found .*No such file"):
        read_captions(tmp_path / "absent.csv")


def test_no_folder_of_recordings_is_an_error(tmp_path):
    with pytest.raises(DataError, match="found none of the folders development, validation, evaluation"):
        clotho_entries(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("name", "on_disk"),
    [
        (" Ambience Birds.wav", " Ambience Birds.wav"),
        (" Ambience Birds.wav", "Ambience Birds.wav"),
        ("Ambience Birds .wav", "Ambience Birds.wav"),
        ("pixies&amp;fairies.wav", "pixies&fairies.wav"),
        ("pixies&amp;fairies.wav", "pixies&amp;fairies.wav"),
        ("a &quot;microbus&quot;.wav", "a _microbus_.wav"),
        ("18:44 walk.wav", "18_44 walk.wav"),
        ("café.wav", unicodedata.normalize("NFD", "café.wav")),
        ("#1; 100%, a@b+c~d!.wav", "#1; 100%, a@b+c~d!.wav"),
        ("two  spaces.WAV", "two  spaces.wav"),
    ],
)
def test_a_name_finds_its_file_in_either_form(name, on_disk, tmp_path):
    (tmp_path / on_disk).touch()
    assert match_recordings([name], tmp_path) == {name: tmp_path / on_disk}


def test_a_file_goes_to_the_name_that_is_exactly_its_own(tmp_path):
    (tmp_path / "a.wav").touch()
    assert match_recordings([" a.wav", "a.wav"], tmp_path) == {"a.wav": tmp_path / "a.wav"}
    assert match_recordings([" a.wav", "a .wav"], tmp_path) == {}  # it could be either
    (tmp_path / " a.wav").touch()
    assert match_recordings(["a .wav"], tmp_path) == {}
    assert match_recordings(["b.wav"], tmp_path / "absent") == {}


def _forms_on_disk(name):
    """A name as it is, and as other tools leave it."""
    stripped = name.strip().replace(" .wav", ".wav")
    return [name, stripped.replace("&amp;", "&").replace("&#39;", "'").replace("&quot;", "_").replace("&gt;", "_")]


@pytest.mark.parametrize("form", [0, 1])
def test_every_name_of_the_real_files_finds_its_file(form, shared_data, tmp_path):
    for name, expected in (("development", 3839), ("validation", 1045), ("evaluation", 1045)):
        captions = read_captions(shared_data / "clotho" / f"clotho_captions_{name}.csv")
        assert len(captions) == expected
        assert all(len(texts) == 5 for texts in captions.values())
        files = {file_name: tmp_path / name / _forms_on_disk(file_name)[form] for file_name in captions}
        (tmp_path / name).mkdir()
        for path in files.values():
            path.touch()
        assert match_recordings(captions, tmp_path / name) == files


def test_the_real_files_name_some_recordings_twice_and_some_oddly(shared_data):
    names = [list(read_captions(shared_data / "clotho" / f"clotho_captions_{name}.csv")) for name in SPLITS.values()]
    everything = [name for of_split in names for name in of_split]
    twice = {name for name in everything if everything.count(name) > 1}
    assert twice >= {"City Ambience w_ Car Passing_1-2.wav", "FREEZER_DOOR_OPEN_CLOSE.wav"}
    assert {" Ambience Birds.wav", " typical neighborhood in Porto.wav", " e ieio ieai.wav"} <= set(everything)


def test_the_real_recordings_load_at_32_khz_with_their_durations(shared_data, tmp_path):
    (tmp_path / "clotho").mkdir()
    (tmp_path / "clotho" / "evaluation").symlink_to(shared_data / "clotho" / "audio")
    splits, columns = clotho_entries(tmp_path / "clotho", shared_data / "clotho")
    assert {split: len(entries) for split, entries in splits.items()} == {"test": 1045}
    result = prepare_dataset(splits, columns, tmp_path / "out")
    assert result.prepared == {"test": 7}
    assert len(result.skipped) == 1038
    files = {path.name: path for path in pathlib.Path(shared_data / "clotho" / "audio").iterdir()}
    for row in datasets.load_from_disk(tmp_path / "out")["test"].to_list():
        # Size of the file: a header of 44 bytes, then 2 bytes a sample and channel.
        assert 15 <= row["duration"] <= 30
        waveform = decode_audio(row["audio"]["bytes"], 32_000, row["file_name"])
        assert len(waveform) == round(row["duration"] * 32_000)
        assert len(row["captions"]) == 5
        size = files.pop(row["file_name"]).stat().st_size
        assert row["duration"] in (
            pytest.approx((size - 44) / 2 / 44_100, abs=0.01),
            pytest.approx((size - 44) / 4 / 44_100, abs=0.01),
        )
    assert not files


def test_metadata_that_is_not_at_hand_is_left_empty(tmp_path):
    assert read_metadata(tmp_path / "absent.csv") == {}
