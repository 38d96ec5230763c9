"""Every form of data set gives the same recordings; what is missing or surplus is an error that says what to do."""

import json
import shutil

import datasets
import numpy as np
import pytest
import soundfile

from modeling_cnn10bert.data.audio_io import load_audio
from modeling_cnn10bert.data.entries import Entry
from modeling_cnn10bert.data.prepare import prepare_dataset
from modeling_cnn10bert.errors import AudioError, DataError
from modeling_cnn10bert.evaluation.recordings import load_evaluation_set, load_unpaired_set

CLOTHO = ["file_name", *(f"caption_{number}" for number in range(1, 6))]


def content(evaluation_set, rate=32_000):
    return {recording.name: (recording.load(rate), recording.captions) for recording in evaluation_set.recordings}


def assert_same(found, expected, tolerance=0.0):
    assert list(found) == list(expected)
    for name, (waveform, captions) in expected.items():
        assert found[name][1] == tuple(captions)
        np.testing.assert_allclose(found[name][0], waveform, atol=tolerance)


def test_manifests_a_folder_with_metadata_and_a_prepared_set_give_the_same_recordings(
    soundscapes, metadata_folder, prepared_folder, scenes
):
    manifests = load_evaluation_set(soundscapes)  # its sources are in the folder `sources`
    assert (manifests.split, len(manifests.recordings)) == ("test", len(scenes))
    assert_same({f"{name}.wav": value for name, value in content(manifests).items()}, scenes)
    named = load_evaluation_set(soundscapes, split="validation", sources=soundscapes / "sources")
    assert [recording.name for recording in named.recordings] == ["validation-0", "validation-1", "validation-2"]
    own = load_evaluation_set(metadata_folder)
    assert_same(content(own), scenes)
    assert own.captions() == [caption for _, captions in scenes.values() for caption in captions]
    prepared = load_evaluation_set(prepared_folder)
    assert prepared.split == "test"
    assert_same(content(prepared), scenes, tolerance=2**-23)  # 24 bits


def test_recordings_come_at_the_rate_that_is_asked_for(soundscapes, metadata_folder, prepared_folder):
    for source in (soundscapes, metadata_folder, prepared_folder):
        recordings = load_evaluation_set(source).recordings
        assert len(recordings[0].load(48_000)) == 1.5 * 48_000
        assert len(recordings[0].load(16_000)) == 1.5 * 16_000


def test_clothos_caption_file_finds_its_recordings_under_names_that_a_disk_may_have(tmp_path, write_csv, noise):
    (tmp_path / "audio").mkdir()
    for on_disk, seed in (("a_b.wav", 0), ("Birds.wav", 1)):
        soundfile.write(tmp_path / "audio" / on_disk, noise(3200, seed), 32_000)
    rows = [[name, *(f"{name.strip()} caption {number}" for number in range(5))] for name in ("a:b.wav", " Birds.wav")]
    captions = write_csv(tmp_path / "captions.csv", CLOTHO, *rows)
    found = load_evaluation_set(captions, audio=tmp_path / "audio")
    assert [recording.name for recording in found.recordings] == ["a:b.wav", " Birds.wav"]
    assert found.recordings[1].captions == tuple(rows[1][1:])
    np.testing.assert_array_equal(
        found.recordings[1].load(32_000), load_audio(tmp_path / "audio" / "Birds.wav", 32_000)
    )
    (tmp_path / "audio" / "Birds.wav").unlink()
    gone = load_evaluation_set(captions, audio=tmp_path / "audio").recordings[1]
    assert gone.absence.startswith(" Birds.wav: found no such file in")
    with pytest.raises(DataError, match="captions.csv holds captions only; name the folder"):
        load_evaluation_set(captions)


def test_real_clotho_captions_go_with_the_real_recordings(shared_data):
    found = load_evaluation_set(
        shared_data / "clotho" / "clotho_captions_evaluation.csv", audio=shared_data / "clotho" / "audio"
    )
    at_hand = [recording for recording in found.recordings if not recording.absence]
    assert (len(found.recordings), len(at_hand), len(found.captions())) == (1045, 7, 5225)
    assert all(15 <= len(recording.load(32_000)) / 32_000 <= 30 for recording in at_hand)


def test_a_set_of_one_split_needs_no_name_and_another_name_is_an_error(metadata_folder, prepared_folder, tmp_path):
    assert load_evaluation_set(metadata_folder).split == "train"
    with pytest.raises(DataError, match="found the splits train, .*expected validation; name one of them"):
        load_evaluation_set(metadata_folder, split="validation")
    with pytest.raises(DataError, match="found the splits test in .*, expected train; name one of them"):
        load_evaluation_set(prepared_folder, split="train")
    test = datasets.load_from_disk(prepared_folder)["test"]
    datasets.DatasetDict({"test": test.take(3), "train": test.skip(3)}).save_to_disk(tmp_path / "two")
    assert len(load_evaluation_set(tmp_path / "two").recordings) == 3
    assert len(load_evaluation_set(tmp_path / "two", split="train").recordings) == len(test) - 3


def test_manifests_of_one_split_need_no_name(soundscapes, tmp_path):
    shutil.copy(soundscapes / "validation.jsonl", tmp_path / "validation.jsonl")
    found = load_evaluation_set(tmp_path, sources=soundscapes / "sources")
    assert (found.split, len(found.recordings)) == ("validation", 3)


def test_a_folder_with_folders_of_splits_has_its_test_split_evaluated(metadata_folder, tmp_path):
    for name in ("test", "training"):
        shutil.copytree(metadata_folder, tmp_path / name)
    (tmp_path / "test" / "metadata.jsonl").write_text('{"file_name": "test-1.wav", "caption": "rain"}\n')
    found = load_evaluation_set(tmp_path)
    assert (found.split, [recording.captions for recording in found.recordings]) == ("test", [("rain",)])
    shutil.rmtree(tmp_path / "training")
    assert load_evaluation_set(tmp_path).split == "test"


def test_queries_and_recordings_may_come_unpaired(tmp_path, write_csv, noise):
    captions = write_csv(tmp_path / "retrieval_captions.csv", ["caption"], ["Rain, and rain."], ["a dog"], ["a dog"])
    audio = tmp_path / "test"
    audio.mkdir()
    for name in ("b.wav", "a.flac"):
        soundfile.write(audio / name, noise(1600), 16_000)
    (audio / "notes.txt").write_text("no recording")
    found = load_unpaired_set(captions, audio)
    assert found.captions() == ["Rain, and rain.", "a dog", "a dog"]
    assert [recording.name for recording in found.recordings] == ["a.flac", "b.wav"]
    assert len(found.recordings[0].load(32_000)) == 3200
    with pytest.raises(DataError, match="found no recording, expected those that are searched"):
        load_unpaired_set(captions, tmp_path)
    for wordless in (" ", "...", "-"):
        write_csv(captions, ["caption"], ["a dog"], [wordless])
        with pytest.raises(DataError, match=f"retrieval_captions.csv:3: found the caption '{wordless}', expected"):
            load_unpaired_set(captions, audio)


SPACED = ["a dog ", " two  dogs", "A bell, ", "rain", "wind\u00a0"]


def test_captions_and_names_keep_their_spaces_whatever_the_data_set_is(tmp_path, write_csv, noise):
    names = [" Birds.wav", "a  bell .wav"]
    for name in names:
        (tmp_path / "audio").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "audio" / name, noise(16_000), 16_000)
    of_caption_file = write_csv(tmp_path / "captions.csv", CLOTHO, *([name, *SPACED] for name in names))
    lines = [json.dumps({"file_name": name, "captions": SPACED}) for name in names]
    (tmp_path / "audio" / "metadata.jsonl").write_text("\n".join(lines))
    entries = [Entry(name, tmp_path / "audio" / name, {"captions": SPACED}) for name in names]
    columns = datasets.Features({"captions": datasets.List(datasets.Value("string"))})
    prepare_dataset({"test": entries}, columns, tmp_path / "prepared")
    unpaired = write_csv(tmp_path / "queries.csv", ["caption"], *([caption] for caption in SPACED))
    for found in (
        load_evaluation_set(of_caption_file, audio=tmp_path / "audio"),
        load_evaluation_set(tmp_path / "audio"),
        load_evaluation_set(tmp_path / "prepared"),
        load_unpaired_set(unpaired, tmp_path / "audio"),
    ):
        assert [recording.name for recording in found.recordings] == names
        assert found.captions() == (SPACED if found.queries else SPACED * 2)


def test_what_is_no_data_set_or_takes_no_such_option_is_an_error_that_says_what_to_do(
    tmp_path, soundscapes, prepared_folder
):
    with pytest.raises(DataError, match="found none of the forms of a data set, expected a prepared data set"):
        load_evaluation_set(tmp_path)
    with pytest.raises(DataError, match="nowhere: found no such file or folder, expected a prepared data set"):
        load_evaluation_set(tmp_path / "nowhere")
    with pytest.raises(DataError, match="missing.csv: found no such file or folder"):
        load_evaluation_set("missing.csv", audio=tmp_path)
    with pytest.raises(DataError, match="found no data set someone/nowhere"):
        load_evaluation_set("someone/nowhere")
    with pytest.raises(DataError, match="test.jsonl: found a file that is no CSV file"):
        load_evaluation_set(soundscapes / "test.jsonl")
    with pytest.raises(DataError, match="audio is 'DIR', but a folder of soundscape manifests takes none"):
        load_evaluation_set(soundscapes, audio="DIR")
    with pytest.raises(DataError, match="sources is 'DIR', but a data set with its recordings takes none"):
        load_evaluation_set(prepared_folder, sources="DIR")
    with pytest.raises(DataError, match="train.jsonl: found .*No such file"):
        load_evaluation_set(soundscapes, split="train")
    with pytest.raises(DataError, match="found no folder .*elsewhere"):
        load_evaluation_set(soundscapes, sources=tmp_path / "elsewhere")


def test_a_recording_that_does_not_decode_is_named(metadata_folder, tmp_path):
    folder = tmp_path / "sounds"
    shutil.copytree(metadata_folder, folder)
    (folder / "test-3.wav").write_bytes(b"no sound")
    with pytest.raises(AudioError, match="test-3.wav"):
        content(load_evaluation_set(folder))


def test_a_folder_may_name_recordings_outside_it(tmp_path, write_csv, noise):
    soundfile.write(tmp_path / "a.wav", noise(1600), 16_000)
    (tmp_path / "own").mkdir()
    write_csv(tmp_path / "own" / "metadata.csv", ["file_name", "caption"], ["../a.wav", "a hiss"])
    (recording,) = load_evaluation_set(tmp_path / "own").recordings
    assert recording.captions == ("a hiss",) and len(recording.load(16_000)) == 1600
