"""Freq-MixStyle mixes the statistics of mel bins as section 4 of the paper writes it."""

import numpy as np
import pytest
import scipy.stats
import torch

from modeling_cnn10bert.augmentation.freq_mixstyle import draw_weight, mix_style_

WEIGHTS = [0.5, 0.73, 0.98]


@pytest.fixture
def clips():
    """Log-mels [T, 64] of three lengths, and the partners' statistics [3, 64] each."""
    generator = torch.Generator().manual_seed(0)
    clips = [
        -50
        + 20 * torch.randn(64, generator=generator)
        + (1 + 20 * torch.rand(64, generator=generator)) * torch.randn(length, 64, generator=generator)
        for length in (400, 90, 251)
    ]
    partner_mean = -60 + 15 * torch.randn(3, 64, generator=generator)
    return list(zip(clips, WEIGHTS, partner_mean, 1 + 20 * torch.rand(3, 64, generator=generator), strict=True))


def _statistics(log_mel):
    """Of a clip [T, n_mels], by numpy in float64."""
    return log_mel.double().numpy().mean(axis=0), log_mel.double().numpy().std(axis=0)


def test_the_statistics_are_the_stated_mixture(clips):
    for clip, weight, partner_mean, partner_std in clips:
        mean, std = _statistics(clip)
        new_mean, new_std = _statistics(mix_style_(clip.clone(), weight, partner_mean, partner_std))
        np.testing.assert_allclose(new_mean, weight * mean + (1 - weight) * partner_mean.numpy(), atol=1e-4)
        np.testing.assert_allclose(new_std, weight * std + (1 - weight) * partner_std.numpy(), atol=1e-4)


def test_each_bin_keeps_its_course_in_time(clips):
    for clip, weight, *partner in clips:
        mixed = mix_style_(clip.clone(), weight, *partner)
        for old, new in zip(clip.T.numpy(), mixed.T.numpy(), strict=True):
            assert np.corrcoef(old, new)[0, 1] > 1 - 1e-6


def test_the_full_weight_leaves_a_clip_exactly_as_it_is(clips):
    for clip, _, *partner in clips:
        assert torch.equal(mix_style_(clip.clone(), 1.0, *partner), clip)
        assert not torch.allclose(mix_style_(clip.clone(), 0.6, *partner), clip)


def test_silence_takes_on_the_mean_and_no_noise(clips):
    for clip, weight, partner_mean, partner_std in clips:
        silence = torch.full_like(clip, -100.0)
        silence[::2] += 0.005  # a cached value that flickers by one step
        flicker = silence.mean(dim=0)
        mixed = mix_style_(silence.clone(), weight, partner_mean, partner_std)
        assert (mixed - (weight * flicker + (1 - weight) * partner_mean)).abs().max() < 0.01


# ------------------------------------------------------------------------------------------------------------ draws


@pytest.mark.parametrize("ms_alpha", [0.3, 0.8286, 1.0])
def test_the_weight_is_the_larger_side_of_a_beta_draw(ms_alpha):
    rng = np.random.default_rng(0)
    weights = np.array([draw_weight(rng, 1.0, ms_alpha) for _ in range(5000)])
    assert weights.min() >= 0.5 and weights.max() <= 1.0
    beta = scipy.stats.beta(ms_alpha, ms_alpha)
    assert scipy.stats.kstest(weights, lambda x: np.clip(2 * beta.cdf(x) - 1, 0, 1)).pvalue > 0.01  # folded at 0.5


@pytest.mark.parametrize("p_ms", [0.0, 0.2, 0.75, 1.0])
def test_the_share_of_clips_is_p_ms(p_ms):
    rng = np.random.default_rng(1)
    changed = sum(draw_weight(rng, p_ms, 1.0) < 1 for _ in range(20_000))
    assert abs(changed - 20_000 * p_ms) <= 4 * np.sqrt(20_000 * p_ms * (1 - p_ms))


def test_alpha_zero_is_off_and_the_smallest_alphas_are_numbers():
    rng = np.random.default_rng(2)
    assert {draw_weight(rng, 1.0, 0.0) for _ in range(100)} == {1.0}
    for ms_alpha in (1e-300, 1e-6, 1e-3):
        weights = [draw_weight(rng, 1.0, ms_alpha) for _ in range(500)]
        assert all(0.5 <= weight <= 1.0 for weight in weights)
