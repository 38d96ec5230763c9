"""SpecAugment (section 4 of the paper, after Park et al., 2019): stripes of time and frequency are masked."""

import numpy as np
import torch


def draw_stripes(rng: np.random.Generator, count: int, max_width: int, size: int) -> np.ndarray:
    """
    Draws stripes along an axis: width and offset uniform, as section 4 says; a stripe may have no width.

    Args:
        rng: the source of randomness.
        count: number of stripes.
        max_width: largest width; a wider one than the axis is cut to it.
        size: length of the axis; no stripe leaves it.

    Returns:
        [count, 2] first cell of each stripe and the cell behind its last.
    """
    widths = rng.integers(0, min(max_width, size) + 1, size=count)
    starts = rng.integers(0, size - widths + 1)
    return np.stack([starts, starts + widths], axis=1)


def mask_stripes_(
    log_mel: torch.Tensor, time_stripes: torch.Tensor, frequency_stripes: torch.Tensor, fill: torch.Tensor
) -> torch.Tensor:
    """
    Replaces masked cells by the training set's mean of their bin, in place.

    That mean becomes zero in the input normalisation, and zero is what SpecAugment masks with.

    Args:
        log_mel: [B, T, n_mels] in dB.
        time_stripes: [B, n_t, 2] first frame of each stripe and the frame behind its last.
        frequency_stripes: [B, n_f, 2] the same in bins.
        fill: [n_mels] the training set's mean of each bin, in dB.

    Returns:
        `log_mel`.
    """
    log_mel[_inside(time_stripes, log_mel.shape[1])] = fill
    clips, bins = _inside(frequency_stripes, log_mel.shape[2]).nonzero(as_tuple=True)
    log_mel.transpose(1, 2)[clips, bins] = fill[bins, None]
    return log_mel


def _inside(stripes: torch.Tensor, size: int) -> torch.Tensor:
    """[B, count, 2] to [B, size]: whether a cell lies in any stripe."""
    cells = torch.arange(size)
    return ((cells >= stripes[:, :, :1]) & (cells < stripes[:, :, 1:])).any(dim=1)
