"""train_tagging.py on shards as `cnn10bert prepare audioset` writes them."""

import csv
import json

import numpy as np
import pytest

from modeling_cnn10bert.data.audio_io import encode_audio
from modeling_cnn10bert.data.recipes.audioset import audioset_entries, prepare_audioset, read_labels
from modeling_cnn10bert.data.recipes.youtube import YouTubeFolder


@pytest.fixture(scope="module")
def audioset(tmp_path_factory):
    """A prepared data set of 24 clips of two classes and of different lengths, and its list of classes."""
    folder = tmp_path_factory.mktemp("audioset")
    with (folder / "classes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["index", "mid", "display_name"], *([n, f"/m/{n}", f"class {n}"] for n in range(527))]
        )
    rng, lines = np.random.default_rng(0), []
    (folder / "clips").mkdir()
    for number in range(24):
        waveform = (0.1 * rng.normal(size=8000 + 800 * number)).astype(np.float32)
        (folder / "clips" / f"Yclip{number:07d}.wav").write_bytes(encode_audio(waveform, 32_000))
        lines.append(f'clip{number:07d}, 0.000, 10.000, "/m/{number % 2},/m/500"\n')
    (folder / "train_segments.csv").write_text("".join(lines))
    entries = audioset_entries(
        folder / "train_segments.csv", read_labels(folder / "classes.csv"), YouTubeFolder(folder / "clips")
    )
    prepare_audioset({"train": entries, "eval": entries[:6]}, folder / "prepared")
    return folder


@pytest.mark.parametrize("domain", ["power", "waveform"])
def test_a_tagger_learns_from_cached_log_mels_or_from_waveforms(domain, audioset, train_tagging, tmp_path):
    results = train_tagging.main(
        [
            *("--output_dir", str(tmp_path / "run"), "--dataset_name", str(audioset / "prepared")),
            *("--labels", str(audioset / "classes.csv"), "--cache_dir", str(tmp_path / "cache")),
            *("--train_split", "train", "--validation_split", "eval", "--test_split", "eval"),
            *("--do_train", "--do_predict", "--use_cpu", "--disable_tqdm", "true", "--max_steps", "2"),
            *("--hidden_sizes", "2", "2", "4", "4", "--total_train_batch_size", "8"),
            *("--mixup_domain", domain, "--cache_features", str(domain == "power")),
        ]
    )
    assert 0 < results["test_mAP"] <= 1
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["id2label"]["526"] == "class 526" and len(config["id2label"]) == 527
    assert (tmp_path / "cache").exists() == (domain == "power")
