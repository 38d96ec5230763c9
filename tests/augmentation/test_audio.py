"""The audio augmentations together: their order, their bounds, and what their draws depend on."""

import numpy as np
import pytest
import torch

from modeling_cnn10bert.augmentation.audio import AudioAugmentation
from modeling_cnn10bert.augmentation.freq_mixstyle import draw_weight

MEANS = torch.linspace(-60.5, -30.5, 16)  # none is the value of the clips below
OFF = {"g_max": 0.0, "p_ms": 0.0, "ms_alpha": 0.8, "n_f": 0, "w_f": 0, "n_t": 0, "w_t": 0}
# Three recordings whose style a clip may take on.
STYLES = {"mel_mean": torch.full((3, 16), -80.0) + torch.arange(3)[:, None], "mel_std": torch.full((3, 16), 5.0)}


def _augmentation(**options):
    return AudioAugmentation(**{**OFF, **options}, **STYLES, overall_mean=MEANS)


def _clips(lengths=(120, 40, 75), value=-50.0):
    return [torch.full((length, 16), value) for length in lengths]


def _rngs(count, epoch=0):
    return [np.random.default_rng([7, epoch, row]) for row in range(count)]


def test_masked_cells_hold_the_mean_untouched_by_the_gain_so_gain_comes_first():
    augment = _augmentation(g_max=6.0, n_f=1, w_f=6, n_t=2, w_t=20)
    gains, masked = set(), 0
    for epoch in range(30):
        for clip in augment(_clips(), _rngs(3, epoch)):
            is_mean = clip == MEANS
            others = clip[~is_mean].unique()
            assert len(others) == 1  # every other cell moved by the one gain of its clip
            assert -56 <= others.item() <= -44
            gains.add(round(others.item(), 3))
            masked += int(is_mean.sum())
    assert len(gains) > 80
    assert min(gains) < -55 and max(gains) > -45  # of 90 uniform draws from 12 dB
    assert masked > 0


def test_gain_comes_before_freq_mixstyle_and_freq_mixstyle_before_specaugment():
    generator = torch.Generator().manual_seed(0)
    clips = [-60 + 20 * torch.rand(length, 16, generator=generator) for length in (120, 40, 75)]
    augment = _augmentation(g_max=6.0, p_ms=1.0, n_f=1, w_f=6, n_t=2, w_t=20)
    orders = {"gain first": 0, "gain last": 0}
    for epoch in range(30):
        for clip, found, rng in zip(clips, augment(clips, _rngs(3, epoch)), _rngs(3, epoch), strict=True):
            gain, weight = rng.uniform(-6, 6), draw_weight(rng, 1.0, 0.8)
            partner = int(rng.integers(3))
            is_masked = found == MEANS  # exactly: no later step moved what SpecAugment wrote
            frames = ~is_masked.all(dim=1)
            bins = ~is_masked[frames].all(dim=0)
            style = STYLES["mel_mean"][partner]
            first = weight * (clip.mean(dim=0) + gain) + (1 - weight) * style
            last = weight * clip.mean(dim=0) + (1 - weight) * style + gain
            # The statistics belong to the whole clip, which SpecAugment has not left whole: undo it by the affine map.
            scale = (weight * clip.std(dim=0, correction=0) + (1 - weight) * 5.0) / clip.std(dim=0, correction=0)
            unmasked = (clip - clip.mean(dim=0)) * scale
            for order, mean in (("gain first", first), ("gain last", last)):
                orders[order] += torch.allclose(found[frames][:, bins], (unmasked + mean)[frames][:, bins], atol=1e-3)
    assert orders["gain first"] == 90
    assert orders["gain last"] < 5  # those with hardly any gain or hardly any style


def test_at_most_the_asked_stripes_are_masked_within_the_clip():
    augment = _augmentation(g_max=0.0, n_f=1, w_f=3, n_t=2, w_t=9)
    for epoch in range(50):
        for clip, length in zip(augment(_clips(), _rngs(3, epoch)), (120, 40, 75), strict=True):
            assert clip.shape == (length, 16)
            masked = clip == MEANS
            frames, bins = masked.all(dim=1), masked.all(dim=0)
            assert torch.equal(masked, frames[:, None] | bins[None])
            assert frames.sum() <= 18 and bins.sum() <= 3
            for line, most in ((frames, 2), (bins, 1)):
                edges = torch.diff(line.int(), prepend=torch.zeros(1)).clamp(min=0).sum()
                assert edges <= most


def test_time_stripes_reach_every_valid_frame_but_none_of_the_padding():
    augment = _augmentation(g_max=0.0, n_f=0, w_f=0, n_t=1, w_t=10)
    hits = torch.zeros(40)
    for epoch in range(600):
        short = augment(_clips((400, 40)), _rngs(2, epoch))[1]  # beside a clip ten times as long
        hits += (short == MEANS).all(dim=1)
    # Of width 0..10 the mean is 5 of 40 frames, so a middle frame is masked about 75 times, an edge one less often.
    assert hits.min() > 0
    assert 600 * 5 * 0.8 < hits.sum() < 600 * 5 * 1.2


def test_a_clip_is_augmented_the_same_alone_and_in_any_batch():
    augment = _augmentation(g_max=6.0, p_ms=0.7, n_f=2, w_f=4, n_t=2, w_t=30)
    generator = torch.Generator().manual_seed(0)
    clips = [-60 + 20 * torch.rand(length, 16, generator=generator) for length in (120, 40, 75)]
    together = augment(clips, _rngs(3))
    for row in range(3):
        (alone,) = augment([clips[row]], [_rngs(3)[row]])
        assert torch.equal(alone, together[row])
    backwards = augment(clips[::-1], _rngs(3)[::-1])
    assert all(torch.equal(a, b) for a, b in zip(backwards[::-1], together, strict=True))


@pytest.mark.parametrize(
    ("name", "value"), [("g_max", 5.0), ("p_ms", 1.0), ("n_f", 5), ("w_f", 5), ("n_t", 5), ("w_t", 5)]
)
def test_nothing_changes_where_everything_is_off_and_the_input_is_left_alone(name, value):
    clips = _clips()
    for clip in _augmentation()(clips, _rngs(3)):
        assert (clip == -50).all()
    _augmentation(**{"g_max": 3.0, "p_ms": 0.5, "n_f": 1, "w_f": 4, "n_t": 1, "w_t": 9, name: value})(clips, _rngs(3))
    assert all((clip == -50).all() for clip in clips)
