"""Mixup (Zhang et al. 2018) of two recordings, as PANNs (Kong et al. 2020) train with it.

Either waveforms or power spectra are mixed. On average, mixed powers are those of mixed uncorrelated waveforms, but
need no decoding where log-mels are cached. The shorter clip is continued with silence.
"""

import numpy as np
import torch

POWER_FLOOR = 1e-10  # of every log-mel: -100 dB


def draw_mixup_weight(rng: np.random.Generator, alpha: float) -> float:
    """Draw the weight of the first of the two clips, from Beta(alpha, alpha); uniform for PANNs' alpha of 1."""
    return float(rng.beta(alpha, alpha))


def mix_waveforms(first: np.ndarray, second: np.ndarray, weight: float) -> np.ndarray:
    """Mix waveforms [S1] and [S2] to `weight * first + (1 - weight) * second` [max(S1, S2)]."""
    mixed = np.zeros(max(len(first), len(second)), dtype=np.float32)
    mixed[: len(first)] += np.float32(weight) * first
    mixed[: len(second)] += np.float32(1 - weight) * second
    return mixed


def mix_powers(first: torch.Tensor, second: torch.Tensor, weight: float) -> torch.Tensor:
    """Mix log-mels [T1, n_mels] and [T2, n_mels] in dB to the log-mel [max(T1, T2), n_mels] of mixed powers."""
    mixed = torch.zeros(max(len(first), len(second)), first.shape[1])
    mixed[: len(first)] += weight * torch.pow(10.0, first / 10)
    mixed[: len(second)] += (1 - weight) * torch.pow(10.0, second / 10)
    return 10 * torch.log10(mixed.clamp(min=POWER_FLOOR))
