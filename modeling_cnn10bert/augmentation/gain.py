"""Gain augmentation (section 4 of the paper): another volume, on a log-mel that is already computed."""

import torch


def apply_gain(log_mel: torch.Tensor, gain_db: torch.Tensor, floor: float) -> torch.Tensor:
    """
    Scales the waveforms behind log-mels by 10^(gain_db / 20).

    On a log-mel in dB that is a shift. Cells at the floor hold no signal to scale, so they stay there, and no other
    falls below it.

    Args:
        log_mel: [B, T, n_mels] in dB.
        gain_db: [B] in dB.
        floor: the lowest value of a log-mel, in dB.

    Returns:
        [B, T, n_mels] in dB.
    """
    return torch.where(log_mel <= floor, log_mel, (log_mel + gain_db[:, None, None]).clamp(min=floor))
