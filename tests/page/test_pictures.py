"""Pictures of log-mels: where a tone is drawn is where the axes say it is."""

import io

import numpy as np
import pytest
from PIL import Image

from modeling_cnn10bert import CNN10FeatureExtractor
from modeling_cnn10bert.page.pictures import feature_extractor, frequency_ticks, log_mel_png, time_ticks


def brightest_row(samples, rate, extractor):
    """Height of the brightest row of a picture: 0 at the lower edge, 1 at the upper one."""
    picture = np.asarray(Image.open(io.BytesIO(log_mel_png(samples, rate, extractor))).convert("L"), dtype=float)
    return 1 - (picture.mean(axis=1).argmax() + 0.5) / len(picture)


@pytest.mark.parametrize("rate", [32_000, 44_100])
@pytest.mark.parametrize(("hertz", "tick"), [(500, "500 Hz"), (1000, "1 kHz"), (4000, "4 kHz"), (8000, "8 kHz")])
def test_a_tone_is_drawn_at_its_tick(rate, hertz, tick):
    extractor = CNN10FeatureExtractor()
    tone = 0.5 * np.sin(2 * np.pi * hertz * np.arange(rate) / rate)[:, None].astype(np.float32)
    assert brightest_row(tone, rate, extractor) == pytest.approx(dict(frequency_ticks(extractor))[tick], abs=1 / 64)


def test_time_runs_to_the_right_and_a_long_picture_is_narrowed():
    extractor = CNN10FeatureExtractor()
    samples = 1e-4 * np.random.default_rng(0).standard_normal((32_000 * 20, 1)).astype(np.float32)
    samples[32_000 * 15 : 32_000 * 16] *= 1000
    picture = Image.open(io.BytesIO(log_mel_png(samples, 32_000, extractor)))
    assert picture.size == (1000, 64)
    columns = np.asarray(picture.convert("L"), dtype=float).mean(axis=0)
    loud = np.flatnonzero(columns > columns.mean() + 50)
    assert loud.min() == pytest.approx(750, abs=3) and loud.max() == pytest.approx(800, abs=3)


def test_silence_has_a_picture_too():
    assert log_mel_png(np.zeros((32_000, 1), np.float32), 32_000, CNN10FeatureExtractor())


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0.0, 5.0, [("0 s", 0), ("1 s", 0.2), ("2 s", 0.4), ("3 s", 0.6), ("4 s", 0.8), ("5 s", 1)]),
        (20.0, 40.0, [("20 s", 0), ("25 s", 0.25), ("30 s", 0.5), ("35 s", 0.75), ("40 s", 1)]),
        (0.5, 1.0, [("0.5 s", 0), ("0.6 s", 0.2), ("0.7 s", 0.4), ("0.8 s", 0.6), ("0.9 s", 0.8), ("1 s", 1)]),
    ],
)  # fmt: skip
def test_ticks_of_time_are_round_and_count_from_the_beginning_of_the_recording(start, end, expected):
    assert [text for text, _ in time_ticks(start, end)] == [text for text, _ in expected]
    assert [at for _, at in time_ticks(start, end)] == pytest.approx([at for _, at in expected])


def test_the_front_end_is_the_models_own_and_for_another_kind_of_model_the_papers():
    own = CNN10FeatureExtractor(n_fft=2048, hop_length=1280, feature_size=40)
    assert feature_extractor(own.to_dict()).hop_length == 1280
    assert feature_extractor({"feature_size": 64, "hop_length": 480}).hop_length == 320


def test_channels_that_cancel_have_the_picture_of_one_of_them():
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(32_000) / 32_000)[:, None].astype(np.float32)
    extractor = CNN10FeatureExtractor()
    assert log_mel_png(np.hstack([tone, -tone]), 32_000, extractor) == log_mel_png(tone, 32_000, extractor)
