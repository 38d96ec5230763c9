"""Mixup of waveforms and of power spectra."""

import numpy as np
import pytest
import torch

from modeling_cnn10bert.augmentation.mixup import draw_mixup_weight, mix_powers, mix_waveforms


def test_waveforms_are_added_by_their_weights_and_the_shorter_goes_on_as_silence():
    mixed = mix_waveforms(np.array([1.0, -1.0, 0.5]), np.array([0.4]), 0.75)
    assert mixed.dtype == np.float32
    assert mixed.tolist() == pytest.approx([0.75 + 0.1, -0.75, 0.375])


def test_powers_are_added_by_their_weights_and_the_shorter_goes_on_as_silence():
    first, second = torch.tensor([[0.0, -20.0]]), torch.tensor([[10.0, -20.0], [-100.0, 0.0]])
    mixed = mix_powers(first, second, 0.25)  # powers 1, 0.01 and 10, 0.01 / 1e-10, 1
    assert torch.pow(10, mixed[0] / 10).tolist() == pytest.approx([0.25 + 7.5, 0.01], rel=1e-5)
    assert mixed[1].tolist() == pytest.approx([-100.0, 10 * np.log10(0.75)], abs=1e-4)


def test_powers_of_unrelated_noises_mix_as_their_waveforms_do(noise_log_mel):
    """The weight of a waveform is an amplitude: its power has the square."""
    first, second, mixture, weight = noise_log_mel
    power = weight**2 / (weight**2 + (1 - weight) ** 2)
    expected = mixture - 10 * np.log10(weight**2 + (1 - weight) ** 2)
    difference = mix_powers(first, second, power).mean(dim=0) - expected.mean(dim=0)
    assert difference.abs().max() < 0.5  # dB, means of 400 frames


@pytest.fixture
def noise_log_mel():
    from modeling_cnn10bert import CNN10FeatureExtractor

    rng, extractor, weight = np.random.default_rng(0), CNN10FeatureExtractor(feature_size=16), 0.7
    first, second = rng.normal(size=(2, 128_000)).astype(np.float32) * 0.1
    mixture = mix_waveforms(first, second, weight)
    return *(extractor.log_mel(waveform) for waveform in (first, second, mixture)), weight


def test_weights_are_uniform_for_an_alpha_of_one():
    rng = np.random.default_rng(0)
    weights = np.array([draw_mixup_weight(rng, 1.0) for _ in range(4000)])
    assert np.quantile(weights, [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.03)
