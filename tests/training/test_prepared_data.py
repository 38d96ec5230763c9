"""train_retrieval.py takes a prepared data set, with the feature cache or without."""

import json

import numpy as np
import pytest
import soundfile

from modeling_cnn10bert.data.prepare import prepare_dataset
from modeling_cnn10bert.data.recipes.audio_folder import own_recordings
from modeling_cnn10bert.errors import RecipeError

KINDS = {"dog": 500, "rain": 1500, "siren": 3000, "bell": 6000}


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """The folder of a prepared data set of 24 tones of four pitches, two captions each; one file does not decode."""
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    lines = []
    for number in range(24):
        kind, frequency = list(KINDS.items())[number % 4]
        tone = np.sin(2 * np.pi * (frequency + 20 * number) * np.arange(22_050) / 22_050)
        soundfile.write(folder / f"{number}.wav", 0.3 * tone + 0.01 * rng.standard_normal(22_050), 22_050)
        captions = [f"a {kind}", f"the {kind} number {number}"]
        lines.append(json.dumps({"file_name": f"{number}.wav", "captions": captions}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    (folder / "5.wav").write_bytes(b"no sound at all" * 10)
    splits, columns = own_recordings(str(folder), shares={"validation": 0.2, "test": 0.2})
    result = prepare_dataset(splits, columns, folder / "prepared")
    assert len(result.skipped) == 1
    return folder / "prepared"


@pytest.fixture(scope="session")
def short_fields(prepared):
    """Fields of a short run on the prepared data set."""
    return {
        "dataset_name": str(prepared),
        "manifests": None,
        "sources": None,
        "total_train_batch_size": 8,
        "num_train_epochs": 2,
        "save_strategy": "no",
    }


@pytest.fixture(scope="session")
def cached_run(run, short_fields, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "run"
    return run(folder, **short_fields), folder


def test_it_trains_and_scores_and_says_on_how_many_recordings(cached_run, prepared):
    metrics, folder = cached_run
    assert (folder / "model.safetensors").is_file()
    state = json.loads((prepared / ".preparation" / "state.json").read_text())
    assert metrics["test_num_recordings"] == len(state["stamps"]["test"])
    assert metrics["test_num_captions"] == 2 * metrics["test_num_recordings"]
    assert 0 <= metrics["test_mAP@10"] <= 1


@pytest.mark.parametrize("workers", [0, 1])
def test_without_the_feature_cache_it_trains_alike(workers, cached_run, run, short_fields, tmp_path):
    metrics = run(tmp_path / "run", "--no_cache_features", dataloader_num_workers=workers, **short_fields)
    expected, _ = cached_run
    assert metrics["train_loss"] == pytest.approx(expected["train_loss"], abs=1e-3)
    assert metrics["test_num_recordings"] == expected["test_num_recordings"]


def test_limits_count_recordings(run, short_fields, tmp_path):
    metrics = run(tmp_path / "run", max_eval_samples=2, max_train_samples=6, **short_fields)
    assert metrics["test_num_recordings"] == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dataset_name": "nowhere/at-all"}, r"field dataset_name: found no data set nowhere/at-all"),
        ({"manifests": "somewhere"}, r"fields dataset_name and manifests are both set"),
        ({"dataset_name": None}, r"field manifests is not set; .*dataset_name"),
    ],
)
def test_data_that_are_not_there_are_named(given, message, run, short_fields, tmp_path):
    with pytest.raises(RecipeError, match=message):
        run(tmp_path / "run", **{**short_fields, **given})


def test_soundscapes_are_always_cached(run, tmp_path):
    with pytest.raises(RecipeError, match="field cache_features is off, but soundscapes are rendered into the cache"):
        run(tmp_path / "run", "--no_cache_features")
