"""scripts/show_augmentations.py draws one clip and one caption, and says what is wrong with either."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from matplotlib.image import imread

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def clip(tmp_path):
    soundfile.write(tmp_path / "clip.wav", 0.1 * np.random.default_rng(0).standard_normal(44_100), 44_100)
    return tmp_path / "clip.wav"


def _show(*arguments):
    command = [sys.executable, str(ROOT / "scripts" / "show_augmentations.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_a_picture_is_drawn(clip, tmp_path):
    picture = tmp_path / "picture.png"
    flow = ("--text_augmenter", "nlpaug.augmenter.word:RandomWordAug")
    done = _show(clip, "A dog barks while rain falls.", "--p_syn", 0, *flow, "--output", picture)  # without WordNet
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(picture)]
    height, width, _ = imread(picture).shape
    assert width > 800 and height > 800


def test_what_is_no_recording_is_an_error_that_names_it(tmp_path):
    done = _show(tmp_path / "nothing.wav", "A dog barks.", "--p_syn", 0, "--output", tmp_path / "picture.png")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: {tmp_path / 'nothing.wav'}: found no such file")
    assert not (tmp_path / "picture.png").exists()
