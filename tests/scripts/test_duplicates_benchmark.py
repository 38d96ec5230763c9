"""The benchmark of duplicates makes the copies that it counts."""

import numpy as np
import pytest
import soundfile

from duplicates_benchmark import KINDS, ending, write_copies


def test_every_kind_of_copy_is_written_with_its_change(tmp_path):
    noise = 0.1 * np.random.default_rng(0).standard_normal(44100).astype(np.float32)
    soundfile.write(tmp_path / "1-23-A.wav", noise, 44100)
    (tmp_path / "copies").mkdir()
    write_copies(tmp_path / "1-23-A.wav", tmp_path / "copies")
    copies = {kind: tmp_path / "copies" / f"1-23-A {kind}{ending(kind)}" for kind in KINDS}
    assert set(copies.values()) == set((tmp_path / "copies").iterdir())
    info = {kind: soundfile.info(path) for kind, path in copies.items()}
    assert info["mp3"].format == "MP3"
    assert (info["stereo 48 kHz"].channels, info["stereo 48 kHz"].samplerate) == (2, 48000)
    assert info["22.05 kHz"].samplerate == 22050
    assert info["0.3 s trimmed"].duration == pytest.approx(0.7, abs=0.005)
    quiet, _ = soundfile.read(copies["-12 dB"])
    assert quiet.std() / noise.std() == pytest.approx(0.251, abs=0.001)
