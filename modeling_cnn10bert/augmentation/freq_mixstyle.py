"""Freq-MixStyle (section 4 of the paper): a clip takes on some of another recording's loudness in each mel bin."""

import numpy as np
import torch

# dB; a bin whose standard deviation is smaller holds nothing but rounding, which must not be amplified to a signal.
MIN_STD = 0.01


def draw_weight(rng: np.random.Generator, p_ms: float, ms_alpha: float) -> float:
    """
    Draw lambda, the weight of a clip's own statistics.

    With probability `p_ms` it is the larger of lambda and 1 - lambda from Beta(ms_alpha, ms_alpha), so the original
    always dominates; else 1, which leaves the clip as it is. In the limit of `ms_alpha` 0, lambda is always 1.
    """
    if ms_alpha == 0 or rng.random() >= p_ms:
        return 1.0
    weight = rng.beta(ms_alpha, ms_alpha)
    return max(weight, 1.0 - weight)


def mix_style_(
    log_mel: torch.Tensor, weight: float, partner_mean: torch.Tensor, partner_std: torch.Tensor
) -> torch.Tensor:
    """
    Give a clip the mixture of its own and its partner's mean and standard deviation of every mel bin, in place.

    The mixture is lambda * own + (1 - lambda) * partner, as in section 4 of the paper. A bin that does not vary, as in
    digital silence, has no deviation to adjust and takes on the mixed mean alone.

    Args:
        log_mel: [T, n_mels] in dB.
        weight: lambda; 1 leaves the clip exactly as it is.
        partner_mean, partner_std: [n_mels] statistics of the partner over its frames, in dB.

    Returns:
        `log_mel`.
    """
    mean = log_mel.sum(dim=0) / len(log_mel)
    std = ((log_mel - mean).square_().sum(dim=0) / len(log_mel)).sqrt()
    scale = torch.where(std < MIN_STD, 1.0, torch.lerp(partner_std, std, weight) / std)
    shift = torch.lerp(partner_mean, mean, weight) - scale * mean
    return torch.addcmul(shift, log_mel, scale, out=log_mel)
