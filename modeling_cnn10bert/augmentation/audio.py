"""The audio augmentation pipeline of the paper (section 4, figure 2) for a batch of log-mels."""

import numpy as np
import torch

from .freq_mixstyle import draw_weight, mix_style_
from .gain import apply_gain_
from .spec_augment import draw_stripes, mask_stripes_

FLOOR_DB = -100.0  # of every log-mel: 10 log10(1e-10)


class AudioAugmentation:
    """
    Gain, Freq-MixStyle, SpecAugment, in this order, vectorised over the batch; each clip draws from its own generator.

    Args:
        g_max: largest gain in dB, up or down.
        p_ms, ms_alpha: share of the clips that Freq-MixStyle changes, and the parameter of its Beta distribution.
        n_f, w_f: number of frequency stripes and their largest width in bins.
        n_t, w_t: number of time stripes and their largest width in frames.
        mel_mean, mel_std: [N, n_mels] in dB, of each training recording: whose style a clip may take on.
        overall_mean: [n_mels] in dB, of the training set: what masked cells become.
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
        """Log-mels [T_i, n_mels] in dB and as many generators to new log-mels of the same shapes."""
        lengths = [len(log_mel) for log_mel in log_mels]
        batch = torch.nn.utils.rnn.pad_sequence(log_mels, batch_first=True, padding_value=FLOOR_DB)
        if self.g_max:
            gains = [rng.uniform(-self.g_max, self.g_max) for rng in rngs]
            apply_gain_(batch, torch.tensor(gains, dtype=batch.dtype), FLOOR_DB)
        if self.p_ms and self.ms_alpha:
            weights = [draw_weight(rng, self.p_ms, self.ms_alpha) for rng in rngs]
            partners = [int(rng.integers(len(self.mel_mean))) for rng in rngs]
            mix_style_(
                batch,
                torch.tensor(lengths),
                torch.tensor(weights, dtype=batch.dtype),
                self.mel_mean[partners],
                self.mel_std[partners],
            )
        time = [draw_stripes(rng, self.n_t, self.w_t, length) for rng, length in zip(rngs, lengths, strict=True)]
        frequency = [draw_stripes(rng, self.n_f, self.w_f, batch.shape[2]) for rng in rngs]
        mask_stripes_(batch, torch.from_numpy(np.stack(time)), torch.from_numpy(np.stack(frequency)), self.overall_mean)
        return [clip[:length] for clip, length in zip(batch, lengths, strict=True)]
