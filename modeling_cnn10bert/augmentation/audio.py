"""The audio augmentation pipeline of the paper (section 4, figure 2) for a batch of log-mels."""

import numpy as np
import torch

from .gain import apply_gain
from .spec_augment import draw_stripes, mask_stripes

FLOOR_DB = -100.0  # of every log-mel: 10 log10(1e-10)


class AudioAugmentation:
    """
    Gain, then SpecAugment (section 4 of the paper), vectorised over the batch; each clip draws from its own generator.

    Args:
        g_max: largest gain in dB, up or down.
        n_f, w_f: number of frequency stripes and their largest width in bins.
        n_t, w_t: number of time stripes and their largest width in frames.
        mean_of_bins: [n_mels] in dB, what masked cells become.
    """

    def __init__(self, g_max: float, n_f: int, w_f: int, n_t: int, w_t: int, mean_of_bins: torch.Tensor):
        self.g_max, self.n_f, self.w_f, self.n_t, self.w_t = g_max, n_f, w_f, n_t, w_t
        self.mean_of_bins = mean_of_bins

    def __call__(self, log_mels: list[torch.Tensor], rngs: list[np.random.Generator]) -> list[torch.Tensor]:
        """Log-mels [T_i, n_mels] in dB, and as many generators."""
        lengths = [len(log_mel) for log_mel in log_mels]
        batch = torch.nn.utils.rnn.pad_sequence(log_mels, batch_first=True, padding_value=FLOOR_DB)
        gains = [rng.uniform(-self.g_max, self.g_max) for rng in rngs]
        batch = apply_gain(batch, torch.tensor(gains, dtype=batch.dtype), FLOOR_DB)
        time = [draw_stripes(rng, self.n_t, self.w_t, length) for rng, length in zip(rngs, lengths, strict=True)]
        frequency = [draw_stripes(rng, self.n_f, self.w_f, batch.shape[2]) for rng in rngs]
        batch = mask_stripes(
            batch, torch.from_numpy(np.stack(time)), torch.from_numpy(np.stack(frequency)), self.mean_of_bins
        )
        return [clip[:length] for clip, length in zip(batch, lengths, strict=True)]
