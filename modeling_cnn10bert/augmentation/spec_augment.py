"""SpecAugment (section 4 of the paper, after Park et al., 2019): stripes of time and frequency are masked."""

import numpy as np
import torch


def draw_stripes(rng: np.random.Generator, count: int, max_width: int, size: int) -> np.ndarray:
    """
    Draw stripes along an axis, with uniform widths and offsets (section 4). A stripe may have width 0.

    Args:
        rng: the source of randomness.
        count: number of stripes.
        max_width: largest width; at most the length of the axis is used.
        size: length of the axis; stripes stay inside it.

    Returns:
        [count, 2] first cell of each stripe and the cell after its last.
    """
    widths = rng.integers(0, min(max_width, size) + 1, size=count)
    starts = rng.integers(0, size - widths + 1)
    return np.stack([starts, starts + widths], axis=1)


def mask_stripes_(
    log_mel: torch.Tensor, time_stripes: np.ndarray, frequency_stripes: np.ndarray, fill: torch.Tensor
) -> torch.Tensor:
    """
    Replace masked cells by the training set's mean of their bin, in place.

    The input normalization turns that mean into zero, the value that SpecAugment masks with.

    Args:
        log_mel: [T, n_mels] in dB.
        time_stripes: [n_t, 2] first frame of each stripe and the frame after its last.
        frequency_stripes: [n_f, 2] the same in bins.
        fill: [n_mels] the training set's mean of each bin, in dB.

    Returns:
        `log_mel`.
    """
    for start, end in time_stripes:
        log_mel[start:end] = fill
    for start, end in frequency_stripes:
        log_mel[:, start:end] = fill[start:end]
    return log_mel
