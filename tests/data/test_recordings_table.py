"""A prepared data set becomes a recordings table: from the cache, or with its audio."""

import datasets
import pytest
import torch

from modeling_cnn10bert import CNN10FeatureExtractor
from modeling_cnn10bert.data.audio_io import load_audio
from modeling_cnn10bert.data.entries import Entry
from modeling_cnn10bert.data.features import LOG_MEL_STEP
from modeling_cnn10bert.data.pairs import RecordingTransform
from modeling_cnn10bert.data.prepare import prepare_dataset
from modeling_cnn10bert.data.recipes.audio_folder import CAPTIONS
from modeling_cnn10bert.data.recordings_table import load_prepared, load_prepared_split, recordings_table
from modeling_cnn10bert.errors import DataError

SMALL = {"feature_size": 16, "hop_length": 1280}
COLUMNS = datasets.Features({"captions": CAPTIONS})


@pytest.fixture
def write_entries(tmp_path, write_tone):
    """Writes six recordings and lists them."""

    def write(low=400):
        paths = [
            write_tone(tmp_path / "sounds" / f"{number}.wav", low + 300 * number, seconds=0.5 + 0.1 * number)
            for number in range(6)
        ]
        return [Entry(path.name, path, {"captions": [f"tone {path.stem}", "a tone"]}) for path in paths]

    return write


@pytest.fixture
def prepared(write_entries, tmp_path):
    prepare_dataset({"train": write_entries()}, COLUMNS, tmp_path / "out")
    return datasets.load_from_disk(tmp_path / "out")["train"]


def _tables(tmp_path):
    return {path.name for path in (tmp_path / "cache").iterdir()}


def test_a_row_is_the_log_mel_of_its_recording(prepared, tmp_path):
    extractor = CNN10FeatureExtractor(**SMALL)
    table = recordings_table(prepared, extractor, tmp_path / "cache", name="six")
    assert table["recording_id"][:] == [f"train/{number}.wav" for number in range(6)]
    assert table["captions"][:] == prepared["captions"][:]
    rows = table.with_transform(RecordingTransform(table, extractor)).__getitems__(range(6))
    for number, row in enumerate(rows):
        log_mel = extractor.log_mel(load_audio(tmp_path / "sounds" / f"{number}.wav", 32_000))
        assert table["length"][number] == len(log_mel)
        loud = log_mel > -60  # below, 24 bits of FLAC move it by more than half a step
        assert (row["log_mel"] - log_mel)[loud].abs().max() <= LOG_MEL_STEP


def test_without_the_cache_the_audio_takes_its_place(prepared, tmp_path):
    extractor = CNN10FeatureExtractor(**SMALL)
    cached = recordings_table(prepared, extractor, tmp_path / "cache")
    table = recordings_table(prepared, extractor, tmp_path / "cache", keep_log_mel=False)
    assert table["audio"][:] == prepared.to_dict()["audio"]
    for column in ("file_name", "recording_id", "captions", "length", "mel_mean", "mel_std"):
        assert table[column][:] == cached[column][:]
    rows, others = (
        table.with_transform(RecordingTransform(table, extractor)).__getitems__([4, 0]) for table in (table, cached)
    )
    for row, other in zip(rows, others, strict=True):
        assert (row["log_mel"] - other["log_mel"]).abs().max() <= LOG_MEL_STEP / 2 * 1.01
        assert {name: row[name] for name in ("captions", "recording_id")} == {
            name: other[name] for name in ("captions", "recording_id")
        }
    size = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.arrow"))
    assert size < 100_000  # neither the audio nor a second log-mel was copied


def test_a_clip_from_the_cache_and_from_its_waveform_have_one_embedding(prepared, real_clips, tiny_model, tmp_path):
    extractor = CNN10FeatureExtractor()
    model = tiny_model()
    prepare_dataset({"train": real_clips}, COLUMNS, tmp_path / "real")
    prepared = datasets.load_from_disk(tmp_path / "real")["train"]
    table = recordings_table(prepared, extractor, tmp_path / "cache")
    for entry, row in zip(real_clips, table.with_transform(RecordingTransform(table, extractor)), strict=True):
        waveform = load_audio(entry.audio, 32_000)
        inputs = extractor(waveform, sampling_rate=32_000, return_tensors="pt")
        with torch.inference_mode():
            expected = model.get_audio_features(**inputs).pooler_output[0]
            found = model.get_audio_features(
                row["log_mel"][None], torch.ones(1, len(row["log_mel"]), dtype=torch.int32)
            ).pooler_output[0]
        assert (found - expected).norm() < 1e-3


@pytest.fixture
def real_clips(shared_data):
    """Ten real recordings of ESC-10 and two of Clotho."""
    paths = [sorted(folder.glob("*.ogg"))[0] for folder in sorted((shared_data / "esc10").glob("0*"))]
    paths += sorted((shared_data / "clotho" / "audio").glob("*.wav"))[:2]
    return [Entry(path.name, path, {"captions": ["a sound"]}) for path in paths]


@pytest.mark.parametrize(
    "change",
    [
        {"feature_size": 20},
        {"n_fft": 2048},
        {"hop_length": 640},
        {"f_min": 60.0},
        {"f_max": 13_000.0},
        {"min_frames": 32},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_parameter_of_the_features_makes_another_table(change, prepared, tmp_path):
    recordings_table(prepared, CNN10FeatureExtractor(**SMALL), tmp_path / "cache")
    recordings_table(prepared, CNN10FeatureExtractor(**SMALL | change), tmp_path / "cache")
    assert len(_tables(tmp_path)) == 2


def test_the_table_is_computed_once_and_anew_for_other_content(
    prepared, write_entries, tmp_path, monkeypatch, snapshot
):
    before = snapshot(tmp_path / "out")
    first = recordings_table(prepared, CNN10FeatureExtractor(**SMALL), tmp_path / "cache")
    assert snapshot(tmp_path / "out") == before
    with monkeypatch.context() as patch:
        patch.setattr("modeling_cnn10bert.data.features.log_mel_columns", lambda *_: pytest.fail("computed again"))
        again = datasets.load_from_disk(tmp_path / "out")["train"]
        again = recordings_table(again, CNN10FeatureExtractor(**SMALL), tmp_path / "cache")
    assert again.to_dict() == first.to_dict()
    assert again.cache_files

    prepare_dataset({"train": write_entries(500)}, COLUMNS, tmp_path / "out")
    other = datasets.load_from_disk(tmp_path / "out")["train"]
    other = recordings_table(other, CNN10FeatureExtractor(**SMALL), tmp_path / "cache")
    assert other[0]["log_mel"] != first[0]["log_mel"]
    recordings_table(prepared.take(3), CNN10FeatureExtractor(**SMALL), tmp_path / "cache")
    assert len(_tables(tmp_path)) == 3


def test_one_process_or_two_compute_the_same(prepared, tmp_path):
    tables = [
        recordings_table(prepared, CNN10FeatureExtractor(**SMALL), tmp_path / str(num_proc), num_proc)
        for num_proc in (1, 2)
    ]
    assert tables[0].to_dict() == tables[1].to_dict()


def test_back_translations_are_carried_along(prepared, tmp_path):
    texts = [[f"ton {number}", "ein ton"] for number in range(6)]
    translated = prepared.add_column("back_translations_de", texts)
    translated.save_to_disk(tmp_path / "translated")
    translated = datasets.load_from_disk(tmp_path / "translated")
    table = recordings_table(translated, CNN10FeatureExtractor(**SMALL), tmp_path / "cache")
    assert table["back_translations_de"][:] == texts


def test_what_is_no_prepared_data_set_is_named(prepared, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"found no dataset_dict\.json in the folder .*empty"):
        load_prepared(str(tmp_path / "empty"))
    with pytest.raises(DataError, match=r"found the splits train in .*out, expected train, validation and test"):
        load_prepared(str(tmp_path / "out"))
    splits = dict.fromkeys(("train", "validation", "test"), prepared.rename_column("captions", "texts"))
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "texts")
    with pytest.raises(DataError, match=r"found the columns file_name, .*texts.*split train, expected captions"):
        load_prepared(str(tmp_path / "texts"))
    datasets.DatasetDict(
        dict.fromkeys(splits, prepared.remove_columns("captions").add_column("captions", ["a tone"] * 6))
    ).save_to_disk(tmp_path / "text")
    with pytest.raises(DataError, match=r"found captions of the type Value\('string'\) .*expected a list of texts"):
        load_prepared(str(tmp_path / "text"))
    twice = datasets.concatenate_datasets([prepared, prepared])
    datasets.DatasetDict(dict.fromkeys(splits, twice)).save_to_disk(tmp_path / "twice")
    with pytest.raises(DataError, match="found 6 different file names of 12 recordings"):
        load_prepared(str(tmp_path / "twice"))
    with pytest.raises(DataError, match="found no data set nobody/knows-it, neither a folder nor on the Hub"):
        load_prepared("nobody/knows-it")


@pytest.fixture
def save_splits(prepared, tmp_path):
    """Saves two recordings in each of the three splits, of which some columns are replaced, and returns the folder."""

    def save(split="validation", **columns):
        splits = {name: prepared.select([row, row + 1]) for name, row in (("train", 0), ("validation", 2), ("test", 4))}
        for name, values in columns.items():
            feature = splits[split].features[name]
            splits[split] = splits[split].remove_columns([name]).add_column(name, values, feature=feature)
        datasets.DatasetDict(splits).save_to_disk(tmp_path / "splits")
        return str(tmp_path / "splits")

    return save


@pytest.mark.parametrize(
    ("captions", "found"),
    [
        ([["a tone"], ["a bell", "..."]], "the caption '...' of 3.wav in .*, split validation, row 1"),
        ([[" - "], ["a bell"]], "the caption ' - ' of 2.wav in .*, split validation, row 0"),
        ([["a tone", None], ["a bell"]], "the caption None of 2.wav"),
        ([["a tone"], []], "no caption of 3.wav"),
        ([None, ["a tone"]], "no caption of 2.wav"),
    ],
)
def test_captions_without_a_word_are_found_before_anything_is_computed(captions, found, save_splits):
    name = save_splits(captions=captions)
    with pytest.raises(DataError, match=f"found {found}.* expected texts with a word each"):
        load_prepared(name)
    if found.startswith("no caption"):  # of a set to search, captions need not be known
        assert len(load_prepared_split(name, "validation")[1]) == 2
    else:
        with pytest.raises(DataError, match=f"found {found}"):
            load_prepared_split(name, "validation")
    assert len(load_prepared_split(name, "test")[1]) == 2


def test_splits_that_share_a_recording_are_an_error_that_names_it(save_splits):
    name = save_splits("test", recording_id=["train/1.wav", "test/5.wav"])
    with pytest.raises(DataError, match="'train/1.wav' in the splits train and test of .*, expected ids that no"):
        load_prepared(name)


def test_recordings_that_would_be_evaluated_as_one_are_an_error(save_splits):
    name = save_splits("validation", recording_id=["x", "x"])
    with pytest.raises(DataError, match="found the recording_id 'x' twice in .*, split validation"):
        load_prepared(name)
    assert len(load_prepared(save_splits("train", recording_id=["x", "x"]))["train"]) == 2  # two takes of one


def test_a_split_without_recordings_is_an_error(prepared, tmp_path):
    splits = {"train": prepared.select([0]), "validation": prepared.select([]), "test": prepared.select([1])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "splits")
    with pytest.raises(DataError, match="found a split without a recording in .*splits"):
        load_prepared(str(tmp_path / "splits"))
