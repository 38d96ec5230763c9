"""The log-mel of a part of a recording as a picture, and where its axes have their ticks.

The picture is of the values alone. The page writes the ticks beside it, as text, which stays sharp at any width.
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
from ..evaluation.pictures import DYNAMIC_RANGE_DB
from ..feature_extraction_cnn10bert import CNN10FeatureExtractor

Tick = tuple[str, float]  # what it says, and where: 0 at the left or the bottom, 1 at the right or the top

WIDEST = 1000  # columns of a picture
FREQUENCIES = (500, 1000, 2000, 4000, 8000)  # Hz
SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60)  # between two ticks
MOST_TICKS = 8
OWN_FIELDS = {"n_fft", "hop_length", "f_min", "f_max", "min_frames"}  # of CNN10FeatureExtractor and no other


def feature_extractor(features: Mapping[str, Any]) -> CNN10FeatureExtractor:
    """
    The front end that pictures are made by: the model's own; for a model of another kind, the paper's.

    Args:
        features: the parameters of the model's, as `ModelIdentity.features` has them.
    """
    return CNN10FeatureExtractor(**features) if features.keys() >= OWN_FIELDS else CNN10FeatureExtractor()


def log_mel_png(samples: np.ndarray, rate: int, extractor: CNN10FeatureExtractor) -> bytes:
    """[frames, channels] at `rate` Hz -> a PNG: time to the right, mel bins upwards, 80 dB from the loudest down."""
    mono = Mixer().mix(samples, rate)
    if rate != extractor.sampling_rate:
        mono = soxr.resample(mono, rate, extractor.sampling_rate)
    log_mel = extractor.log_mel(mono).numpy()  # [T, n_mels]
    shades = np.clip((log_mel - log_mel.max()) / DYNAMIC_RANGE_DB + 1, 0, 1) * 255
    picture = Image.fromarray(shades.T[::-1].round().astype(np.uint8))
    if picture.width > WIDEST:
        picture = picture.resize((WIDEST, picture.height), Image.Resampling.BOX)
    picture.putpalette(_palette())
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    return encoded.getvalue()


def _palette() -> list[int]:
    colours = matplotlib.colormaps["magma"](np.arange(256))[:, :3]
    return (colours * 255).round().astype(int).ravel().tolist()


def frequency_ticks(extractor: CNN10FeatureExtractor) -> list[Tick]:
    """Where round frequencies lie between the lower and the upper edge of a picture."""
    filters = extractor.mel_filters  # [frequencies, n_mels]
    hertz = np.linspace(0, extractor.sampling_rate / 2, len(filters))
    centres = (hertz @ filters) / filters.sum(axis=0)  # of each mel bin
    heights = (np.arange(len(centres)) + 0.5) / len(centres)
    inside = [frequency for frequency in FREQUENCIES if centres[0] < frequency < centres[-1]]
    return [(_in_hertz(frequency), float(np.interp(frequency, centres, heights))) for frequency in inside]


def _in_hertz(frequency: int) -> str:
    return f"{frequency / 1000:g} kHz" if frequency >= 1000 else f"{frequency} Hz"


def time_ticks(start: float, end: float) -> list[Tick]:
    """Where round times of the recording lie between the left and the right edge of a picture, a few of them."""
    length = max(end - start, 1e-9)
    step = next((step for step in SECONDS if length / step <= MOST_TICKS), length / MOST_TICKS)
    numbers = range(math.ceil(start / step - 1e-9), math.floor(end / step + 1e-9) + 1)
    return [(f"{number * step:g} s", (number * step - start) / length) for number in numbers]
