"""SpecAugment masks the stripes that section 4 of the paper describes."""

import numpy as np
import pytest
import scipy.stats
import torch

from modeling_cnn10bert.augmentation.spec_augment import draw_stripes, mask_stripes_


def test_widths_are_uniform_from_nothing_to_the_largest():
    stripes = draw_stripes(np.random.default_rng(0), 11_000, max_width=10, size=64)
    counts = np.bincount(stripes[:, 1] - stripes[:, 0], minlength=11)
    assert len(counts) == 11
    assert scipy.stats.chisquare(counts).pvalue > 0.01


@pytest.mark.parametrize("width", [0, 5, 10])
def test_offsets_are_uniform_over_every_place_where_a_stripe_fits(width):
    stripes = draw_stripes(np.random.default_rng(1), 60_000, max_width=10, size=30)
    starts = stripes[stripes[:, 1] - stripes[:, 0] == width, 0]
    counts = np.bincount(starts, minlength=30 - width + 1)
    assert len(counts) == 30 - width + 1
    assert scipy.stats.chisquare(counts).pvalue > 0.01


@pytest.mark.parametrize(
    ("count", "max_width", "size"), [(1, 8, 64), (4, 30, 100), (3, 50, 20), (0, 5, 10), (2, 0, 10)]
)
def test_stripes_are_as_many_as_asked_no_wider_and_never_leave_the_axis(count, max_width, size):
    for seed in range(200):
        stripes = draw_stripes(np.random.default_rng(seed), count, max_width, size)
        assert stripes.shape == (count, 2)
        widths = stripes[:, 1] - stripes[:, 0]
        assert (widths >= 0).all() and (widths <= min(max_width, size)).all()
        assert (stripes >= 0).all() and (stripes <= size).all()


def test_a_stripe_wider_than_the_clip_is_cut_to_it():
    widths = [np.ptp(draw_stripes(np.random.default_rng(seed), 1, max_width=1000, size=7)) for seed in range(200)]
    assert set(widths) == set(range(8))


def test_masked_cells_become_the_mean_of_their_bin_and_no_other_changes():
    log_mel = torch.arange(6 * 4, dtype=torch.float32).reshape(6, 4)
    fill = torch.tensor([-1.0, -2.0, -3.0, -4.0])
    nothing, frames, bins = np.array([[0, 0]]), np.array([[1, 3]]), np.array([[3, 4]])
    expected = log_mel.clone()
    expected[1:3] = fill  # frames 1 and 2
    assert torch.equal(mask_stripes_(log_mel.clone(), frames, nothing, fill), expected)
    expected = log_mel.clone()
    expected[:, 3] = -4.0  # the last bin
    assert torch.equal(mask_stripes_(log_mel.clone(), nothing, bins, fill), expected)
