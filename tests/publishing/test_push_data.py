"""`cnn10bert prepare ... --push-to-hub` publishes a data set whose recordings the Hub plays, without torchcodec."""

import sys

import datasets
import numpy as np
import soundfile
import yaml

from modeling_cnn10bert import CNN10FeatureExtractor
from modeling_cnn10bert.data.recordings_table import recordings_table


def test_a_prepared_data_set_is_pushed_and_read_with_its_audio(online, tmp_path, cnn10bert, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", online.url)
    monkeypatch.setitem(sys.modules, "datasets.features._torchcodec", None)
    monkeypatch.setattr(datasets.config, "TORCHCODEC_AVAILABLE", False)
    (tmp_path / "own").mkdir()
    for number in range(6):
        soundfile.write(tmp_path / "own" / f"{number}.wav", 0.5 * np.sin(np.arange(8000) * (number + 1) / 10), 16_000)
    lines = "".join(f"{number}.wav,a tone\n" for number in range(6))
    (tmp_path / "own" / "metadata.csv").write_text(f"file_name,caption\n{lines}")
    shares = ("--validation", 0.3, "--test", 0.3, "--num-proc", 1)
    cnn10bert("prepare", "folder", tmp_path / "out", tmp_path / "own", *shares, "--push-to-hub", "somebody/tones")

    files = online.repository("somebody/tones", "dataset").files
    card = yaml.safe_load(files["README.md"].decode().split("---")[1])
    columns = {feature["name"]: feature for feature in card["dataset_info"]["features"]}
    assert columns["audio"]["dtype"] == {"audio": {"sampling_rate": 32_000}}
    for name, content in files.items():  # as `load_dataset` of its Hub id reads it
        (tmp_path / "hub" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "hub" / name).write_bytes(content)
    tables = datasets.load_dataset(str(tmp_path / "hub"), cache_dir=str(tmp_path / "downloads"))
    assert tables.num_rows == datasets.load_from_disk(tmp_path / "out").num_rows
    assert tables["train"].features["audio"] == datasets.Audio(sampling_rate=32_000)
    table = recordings_table(tables["train"], CNN10FeatureExtractor(), tmp_path / "cache")
    assert table["length"][:] == [51] * len(table)
