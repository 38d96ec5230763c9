"""Prepared recordings are `Audio` columns for whoever decodes them; this package itself needs no torchcodec."""

import json
import sys

import datasets
import numpy as np
import pyarrow.parquet
import pytest

from modeling_cnn10bert import CNN10FeatureExtractor
from modeling_cnn10bert.data import prepare as preparation
from modeling_cnn10bert.data.audio_io import decode_audio
from modeling_cnn10bert.data.caption_variants import add_back_translations
from modeling_cnn10bert.data.entries import STORED_AUDIO, Entry
from modeling_cnn10bert.data.prepare import prepare_dataset
from modeling_cnn10bert.data.recipes import audioset
from modeling_cnn10bert.data.recipes.audio_folder import CAPTIONS, own_recordings
from modeling_cnn10bert.data.recordings_table import load_prepared, recordings_table
from modeling_cnn10bert.evaluation.recordings import load_evaluation_set

COLUMNS = datasets.Features({"captions": CAPTIONS})
AUDIO = datasets.Audio(sampling_rate=32_000)


@pytest.fixture
def splits(tmp_path, write_tone):
    """Two recordings of each split, listed."""
    names = [f"{split}-{number}.wav" for split in ("train", "validation", "test") for number in range(2)]
    for number, name in enumerate(names):
        write_tone(tmp_path / "sounds" / name, 500 + 100 * number)
    return {
        split: [Entry(n, tmp_path / "sounds" / n, {"captions": [n]}) for n in names if n.startswith(split)]
        for split in ("train", "validation", "test")
    }


@pytest.fixture(params=["absent", "broken"])
def without_torchcodec(request, monkeypatch):
    """An import of torchcodec fails; `broken` is installed, but without FFmpeg's libraries."""

    class Refuses:
        @staticmethod
        def find_spec(name, *_):
            if name.partition(".")[0] == "torchcodec":
                raise ModuleNotFoundError(name) if request.param == "absent" else RuntimeError("no libtorchcodec")

    for name in [*sys.modules]:
        if name.partition(".")[0] == "torchcodec" or name == "datasets.features._torchcodec":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Refuses, *sys.meta_path])
    monkeypatch.setattr(datasets.config, "TORCHCODEC_AVAILABLE", request.param == "broken")


def test_files_declare_audio(splits, tmp_path):
    prepare_dataset(splits, COLUMNS, tmp_path / "out")
    folder = tmp_path / "out" / "train"
    table = datasets.load_from_disk(folder)
    assert (
        table.features["audio"] == datasets.Dataset.from_file(str(*folder.glob("*.arrow"))).features["audio"] == AUDIO
    )
    info = json.loads((folder / "dataset_info.json").read_text())
    assert info["features"]["audio"] == {"sampling_rate": 32_000, "_type": "Audio"}
    assert table.data.schema.field("audio").type == AUDIO.pa_type
    table.to_parquet(tmp_path / "train.parquet")
    metadata = json.loads(pyarrow.parquet.read_schema(tmp_path / "train.parquet").metadata[b"huggingface"])
    assert metadata["info"]["features"]["audio"]["_type"] == "Audio"


def test_a_recording_decodes_by_its_column(splits, tmp_path):
    try:
        import torchcodec  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"torchcodec or FFmpeg's libraries are not installed: {error}")
    prepare_dataset(splits, COLUMNS, tmp_path / "out")
    table = datasets.load_from_disk(tmp_path / "out")["train"]
    for row, stored in zip(table, table.to_list(), strict=True):
        samples = row["audio"].get_all_samples()
        assert samples.sample_rate == 32_000 and samples.data.shape == (1, 16_000)
        expected = decode_audio(stored["audio"]["bytes"], 32_000, row["file_name"])
        np.testing.assert_allclose(samples.data[0].numpy(), expected, atol=1e-6)


def test_nothing_here_needs_torchcodec(without_torchcodec, splits, tmp_path):
    out, extractor = tmp_path / "out", CNN10FeatureExtractor()
    new = splits["train"].pop()
    prepare_dataset(splits, COLUMNS, out)
    add_back_translations(out, ["de"], lambda _: (_Upper(), _Upper()))
    splits["train"].append(new)
    result = prepare_dataset(splits, COLUMNS, out)  # takes the others from the data set
    assert result.prepared == {"train": 2, "validation": 2, "test": 2}
    train = load_prepared(str(out))["train"]
    assert train.features["audio"] == AUDIO
    cached = recordings_table(train, extractor, tmp_path / "cache")
    table = recordings_table(train, extractor, tmp_path / "cache", keep_log_mel=False)
    keys = [json.loads(path.read_text()) for path in (tmp_path / "cache").glob("*/key.json")]
    assert len(keys) == 2 and all(key["data"][0] == train._fingerprint for key in keys)
    assert cached["length"][:] == table["length"][:] == [51, 51]
    assert len(decode_audio(table[1]["audio"]["bytes"], 32_000, "")) == 16_000
    recordings = load_evaluation_set(str(out)).recordings
    assert [len(recording.load()) for recording in recordings] == [16_000] * 2
    again, columns = own_recordings(str(out))
    assert prepare_dataset(again, columns, tmp_path / "again").prepared == result.prepared


class _Upper:
    identity = "upper"

    def __call__(self, sentences):
        return [sentence.upper() for sentence in sentences]


def test_clips_of_audioset_need_no_torchcodec(without_torchcodec, splits, tmp_path):
    entries = [Entry(entry.file_name, entry.audio, {"labels": [1]}) for entry in splits["train"]]
    audioset.prepare_audioset({"eval": entries}, tmp_path / "out")
    for clips in (audioset.open_stream(tmp_path / "out", "eval"), audioset.open_table(tmp_path / "out", "eval")):
        assert [len(decode_audio(row["audio"]["bytes"], 32_000, "")) for row in clips] == [16_000] * 2
    (path,) = (tmp_path / "out" / "data").glob("*.arrow")
    assert datasets.Dataset.from_file(str(path)).features["audio"] == AUDIO


class Stopped(Exception):
    pass


@pytest.mark.parametrize("kind", ["recordings", "clips"])
def test_an_unfinished_preparation_of_an_earlier_version_continues(kind, splits, tmp_path, monkeypatch):
    entries = [entry for split in splits.values() for entry in split]
    clips = [Entry(entry.file_name, entry.audio, {"labels": [1]}) for entry in entries]

    def prepare():
        if kind == "clips":
            return audioset.prepare_audioset({"eval": clips}, tmp_path / "out")
        return prepare_dataset(splits, COLUMNS, tmp_path / "out")

    decoded, prepare_entry = [], preparation.prepare_entry

    def prepare_or_stop(entry, split):
        if len(decoded) == stop:
            raise Stopped
        decoded.append(entry.file_name)
        return prepare_entry(entry, split)

    monkeypatch.setattr(preparation, "prepare_entry", prepare_or_stop)
    monkeypatch.setattr(preparation, "ENTRIES_OF_A_SHARD", 1)
    monkeypatch.setattr(audioset, "num_shards", lambda clips: clips)
    stop = 3
    with monkeypatch.context() as earlier, pytest.raises(Stopped):
        earlier.setitem(preparation.ROW_FEATURES, "audio", STORED_AUDIO)
        earlier.setattr(audioset, "FEATURES", datasets.Features({**audioset.FEATURES, "audio": STORED_AUDIO}))
        prepare()
    for shard in (tmp_path / "out" / ".preparation" / "shards").glob("*.arrow"):
        assert datasets.Dataset.from_file(str(shard)).features["audio"] == STORED_AUDIO
    stop = None
    prepare()
    assert decoded == [entry.file_name for entry in entries]  # each once
    if kind == "recordings":
        tables = datasets.load_from_disk(tmp_path / "out")
        assert {split: table.features["audio"] for split, table in tables.items()} == dict.fromkeys(splits, AUDIO)
        tables = [table.to_list() for table in tables.values()]
    else:
        tables = [audioset.open_stream(tmp_path / "out", "eval"), audioset.open_table(tmp_path / "out", "eval")]
    for table in tables:
        assert all(len(decode_audio(row["audio"]["bytes"], 32_000, "")) == 16_000 for row in table)
