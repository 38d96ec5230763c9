"""Draw the log-mel of a part of a recording, and compute the ticks of its axes.

The picture has no axes. The page renders the ticks as text, which stays sharp at any width.
"""

import io
import math
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
import soxr
from PIL import Image

from ..data.audio_io import Mixer
from ..feature_extraction_cnn10bert import CNN10FeatureExtractor

Tick = tuple[str, float]  # label and position: 0 at the left or bottom, 1 at the right or top

DYNAMIC_RANGE_DB = 80  # shown of a log-mel, down from its loudest cell
WIDEST = 1000  # columns of a picture
FREQUENCIES = (500, 1000, 2000, 4000, 8000)  # Hz
SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60)  # between two ticks
MOST_TICKS = 8
OWN_FIELDS = {"n_fft", "hop_length", "f_min", "f_max", "min_frames"}  # only CNN10FeatureExtractor has these


def feature_extractor(features: Mapping[str, Any]) -> CNN10FeatureExtractor:
    """
    Make the pictures' feature extractor: the model's own, or the paper's for another kind of model.

    Args:
        features: parameters of the model's feature extractor, from `ModelIdentity.features`.
    """
    return CNN10FeatureExtractor(**features) if features.keys() >= OWN_FIELDS else CNN10FeatureExtractor()


def log_mel_png(samples: np.ndarray, rate: int, extractor: CNN10FeatureExtractor) -> bytes:
    """Draw samples [frames, channels] at `rate` Hz as PNG: time to the right, mel bins up, 80 dB from the loudest."""
    mono = Mixer().mix(samples, rate)
    if rate != extractor.sampling_rate:
        mono = soxr.resample(mono, rate, extractor.sampling_rate)
    log_mel = extractor.log_mel(mono).numpy()  # [T, n_mels]
    shades = np.clip((log_mel - log_mel.max()) / DYNAMIC_RANGE_DB + 1, 0, 1) * 255
    picture = Image.fromarray(shades.T[::-1].round().astype(np.uint8))
    if picture.width > WIDEST:
        picture = picture.resize((WIDEST, picture.height), Image.Resampling.BOX)
    colors = matplotlib.colormaps["magma"](np.arange(256))[:, :3] * 255
    picture.putpalette(colors.round().astype(int).ravel().tolist())
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    return encoded.getvalue()


def frequency_ticks(extractor: CNN10FeatureExtractor) -> list[Tick]:
    """Return the positions of round frequencies between the lower and the upper edge of a picture."""
    filters = extractor.mel_filters  # [frequencies, n_mels]
    bins = np.linspace(0, extractor.sampling_rate / 2, len(filters))  # in Hz
    centers = (bins @ filters) / filters.sum(axis=0)  # of each mel bin
    heights = (np.arange(len(centers)) + 0.5) / len(centers)
    return [
        (f"{hertz / 1000:g} kHz" if hertz >= 1000 else f"{hertz} Hz", float(np.interp(hertz, centers, heights)))
        for hertz in FREQUENCIES
        if centers[0] < hertz < centers[-1]
    ]


def time_ticks(start: float, end: float) -> list[Tick]:
    """Return the positions of a few round times between the left and the right edge of a picture."""
    length = max(end - start, 1e-9)
    step = next((step for step in SECONDS if length / step <= MOST_TICKS), length / MOST_TICKS)
    numbers = range(math.ceil(start / step - 1e-9), math.floor(end / step + 1e-9) + 1)
    return [(f"{number * step:g} s", (number * step - start) / length) for number in numbers]
