"""Gain on a cached log-mel is gain on the waveform."""

import numpy as np
import pytest
import torch

from modeling_cnn10bert import CNN10FeatureExtractor
from modeling_cnn10bert.augmentation.gain import apply_gain_
from modeling_cnn10bert.data.features import decode_log_mel, encode_log_mel

FLOOR = -100.0


def _clip():
    """Two seconds at 32 kHz: a tone and noise that fade over 120 dB, then digital silence."""
    rng, time = np.random.default_rng(0), np.arange(64_000) / 32_000
    sound = 0.3 * np.sin(2 * np.pi * 700 * time) + 0.1 * rng.standard_normal(len(time))
    return (sound * 10 ** (-6 * time / 2) * (time < 1.8)).astype(np.float32)


@pytest.mark.parametrize("gain_db", [-12.0, -3.3, 4.7, 12.0])
def test_gain_on_the_cached_log_mel_equals_scaling_the_waveform_first(gain_db):
    extractor, clip = CNN10FeatureExtractor(), _clip()
    cached = decode_log_mel(encode_log_mel(extractor.log_mel(clip)), 64)
    found = apply_gain_(cached.clone(), gain_db, FLOOR)
    expected = extractor.log_mel(clip * np.float32(10 ** (gain_db / 20)))
    # Power at the floor was cut off before the gain, so the rule holds where neither side is near it.
    loud = (cached > -80) & (expected > -80)
    assert 0.3 < loud.float().mean() < 0.95
    assert (found - expected)[loud].abs().max() <= 0.01 + 0.005 / 2  # the encoding counts in steps of 0.005 dB


@pytest.mark.parametrize("gain_db", [-6.0, 6.0])
def test_gain_is_exact_on_real_recordings_with_digital_silence_among_them(gain_db, real_recordings):
    extractor = CNN10FeatureExtractor()
    silence, silent = np.zeros(32_000, dtype=np.float32), 0
    for name, recording in real_recordings.items():
        clip = np.concatenate([recording, silence])
        cached = decode_log_mel(encode_log_mel(extractor.log_mel(clip)), 64)
        found = apply_gain_(cached.clone(), gain_db, FLOOR)
        expected = extractor.log_mel(clip * np.float32(10 ** (gain_db / 20)))
        loud = (cached > -80) & (expected > -80)
        assert (found - expected)[loud].abs().max() <= 0.01 + 0.005 / 2, name
        assert (found[cached == FLOOR] == FLOOR).all(), name
        silent += int((cached == FLOOR).all(dim=1).sum())
    assert silent >= 37 * 90  # frames of the silence that was added: 98 wholly inside it


def test_cells_at_the_floor_stay_there_and_no_other_falls_below():
    log_mel = torch.tensor([[-100.0, -99.0, -40.0]])
    assert apply_gain_(log_mel.clone(), 6.0, FLOOR).tolist() == [[-100.0, -93.0, -34.0]]
    assert apply_gain_(log_mel.clone(), -6.0, FLOOR).tolist() == [[-100.0, -100.0, -46.0]]


def test_the_floor_survives_the_cache():
    silence = CNN10FeatureExtractor().log_mel(np.zeros(32_000, dtype=np.float32))
    cached = decode_log_mel(encode_log_mel(silence), 64)
    assert torch.equal(cached, torch.full_like(cached, FLOOR))
    assert torch.equal(apply_gain_(cached.clone(), 10.0, FLOOR), cached)
