"""Gain augmentation (section 4 of the paper): change the volume of a log-mel that is already computed."""

import torch


def apply_gain_(log_mel: torch.Tensor, gain_db: float, floor: float) -> torch.Tensor:
    """
    Change a log-mel, in place, as if its waveform were scaled by 10^(gain_db / 20).

    In dB this is a shift. Cells at the floor hold no signal to scale, so they stay there, and no other cell falls
    below it.

    Args:
        log_mel: [T, n_mels] in dB.
        gain_db: gain in dB.
        floor: the lowest value of a log-mel, in dB.

    Returns:
        `log_mel`.
    """
    at_floor = log_mel <= floor
    return log_mel.add_(gain_db).clamp_(min=floor).masked_fill_(at_floor, floor)
