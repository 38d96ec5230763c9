"""The demo's test scenes as files: as the demo mixes them, and only those that are missing."""

import csv

import numpy as np
import pytest
import soundfile

from demo.demo_sounds import write_demo_sounds
from demo.synthesizers import generate_soundscapes
from modeling_cnn10bert.data.recipes.soundscapes import SourceBank, read_manifest, render


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "set"
    return generate_soundscapes(folder, num_train=1, num_validation=1, num_test=3, clips_per_kind=3)


def test_every_scene_is_a_file_that_sounds_as_the_scene_and_has_its_captions(data, tmp_path):
    folder = write_demo_sounds(data, tmp_path / "sounds")
    scenes = read_manifest(data / "test.jsonl", data / "sources")
    rows = list(csv.DictReader((folder / "metadata.csv").open()))
    for scene in scenes:
        heard, rate = soundfile.read(folder / f"{scene.id}.flac")
        expected = render(scene, SourceBank(data / "sources", rate))
        assert rate == 32_000 and np.abs(heard).max() <= 1
        assert np.corrcoef(heard, expected)[0, 1] > 0.999999  # scaled down where it would be clipped
        assert [row["caption"] for row in rows if row["file_name"] == f"{scene.id}.flac"] == list(scene.captions)


def test_what_is_there_stays_and_what_is_missing_is_written(data, tmp_path):
    folder = write_demo_sounds(data, tmp_path / "sounds")
    files = sorted(folder.glob("*.flac"))
    files[0].unlink()
    files[1].write_bytes(b"mine")
    write_demo_sounds(data, folder)
    assert sorted(folder.glob("*.flac")) == files and files[1].read_bytes() == b"mine"
    assert not list(folder.glob("*.tmp"))
