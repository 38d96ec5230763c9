"""The audio augmentation pipeline of the paper (section 4, figure 2) for log-mels."""

import numpy as np
import torch

from .freq_mixstyle import draw_weight, mix_style_
from .gain import apply_gain_
from .spec_augment import draw_stripes, mask_stripes_

FLOOR_DB = -100.0  # of every log-mel: 10 log10(1e-10)


class AudioAugmentation:
    """
    Apply gain, Freq-MixStyle and SpecAugment, in this order; each clip draws from its own generator.

    Args:
        g_max: largest gain in dB, up or down.
        p_ms, ms_alpha: share of the clips that Freq-MixStyle changes, and the parameter of its Beta distribution.
        n_f, w_f: number of frequency stripes and their largest width in bins.
        n_t, w_t: number of time stripes and their largest width in frames.
        mel_mean, mel_std: [N, n_mels] in dB, of each training recording, whose style a clip may take on.
        overall_mean: [n_mels] in dB, of the training set; it replaces masked cells.
    """

    def __init__(
        self,
        g_max: float,
        p_ms: float,
        ms_alpha: float,
        n_f: int,
        w_f: int,
        n_t: int,
        w_t: int,
        mel_mean: torch.Tensor,
        mel_std: torch.Tensor,
        overall_mean: torch.Tensor,
    ):
        self.g_max, self.p_ms, self.ms_alpha = g_max, p_ms, ms_alpha
        self.n_f, self.w_f, self.n_t, self.w_t = n_f, w_f, n_t, w_t
        self.mel_mean, self.mel_std, self.overall_mean = mel_mean, mel_std, overall_mean

    def __call__(self, log_mels: list[torch.Tensor], rngs: list[np.random.Generator]) -> list[torch.Tensor]:
        """Augment log-mels [T_i, n_mels] in dB, each by its own generator, to new ones of the same shapes."""
        # One by one, because a batch would need padding, and a single clip fits into a processor's cache.
        return [self._augment(log_mel.clone(), rng) for log_mel, rng in zip(log_mels, rngs, strict=True)]

    def _augment(self, log_mel: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        if self.g_max:
            apply_gain_(log_mel, rng.uniform(-self.g_max, self.g_max), FLOOR_DB)
        if self.p_ms and self.ms_alpha:
            weight, partner = draw_weight(rng, self.p_ms, self.ms_alpha), int(rng.integers(len(self.mel_mean)))
            if weight < 1:
                mix_style_(log_mel, weight, self.mel_mean[partner], self.mel_std[partner])
        time = draw_stripes(rng, self.n_t, self.w_t, log_mel.shape[0])
        frequency = draw_stripes(rng, self.n_f, self.w_f, log_mel.shape[1])
        return mask_stripes_(log_mel, time, frequency, self.overall_mean)
