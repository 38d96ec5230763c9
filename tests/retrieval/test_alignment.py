"""Fingerprints of two recordings agree for copies and not for different recordings, whatever their level."""

import io

import numpy as np
import pytest
import soundfile
import soxr

from modeling_cnn10bert.data.audio_io import decode_audio
from modeling_cnn10bert.retrieval.alignment import SAMPLING_RATE, Fingerprint, align, fingerprint

RATE = 32000  # of the recordings here
COPY, DIFFERENT = 0.6, 0.2  # similarities from here on, and up to there
MAX_SHIFT = 0.5


def bursts(seed, seconds=4.0):
    """Noise of a changing color in bursts."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(round(seconds * RATE)).astype(np.float32)
    loudness = np.repeat(rng.uniform(0.05, 1, round(seconds * 10)), RATE // 10)
    return 0.1 * noise * loudness.astype(np.float32)


def heard(waveform, rate=RATE, **form):
    """The fingerprint of a recording after it was written to a file and read."""
    encoded = io.BytesIO()
    soundfile.write(encoded, waveform, rate, **(form or {"format": "WAV"}))
    return fingerprint(decode_audio(encoded.getvalue(), SAMPLING_RATE, "test"))


COPIES = {
    "quieter": lambda x: heard(x * 10 ** (-12 / 20)),
    "stereo": lambda x: heard(np.stack([x, 0.5 * x], axis=1)),
    "resampled": lambda x: heard(soxr.resample(x, RATE, 22050), 22050),
    "mp3": lambda x: heard(x, format="MP3"),
    "ogg": lambda x: heard(x, format="OGG", subtype="VORBIS"),
    "padded": lambda x: heard(np.pad(x, (0, RATE // 4))),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_similar_and_begins_at_the_same_time(kind):
    similarity, shift = align(heard(bursts(1)), COPIES[kind](bursts(1)), MAX_SHIFT)
    assert similarity > COPY
    assert abs(shift) < 0.05


@pytest.mark.parametrize("cut", [0.3, 0.3053])
def test_a_trimmed_copy_is_found_where_it_begins(cut):
    whole, trimmed = heard(bursts(1)), heard(bursts(1)[round(cut * RATE) :])
    similarity, shift = align(whole, trimmed, MAX_SHIFT)
    assert similarity > COPY
    assert shift == pytest.approx(cut, abs=0.015)
    assert align(trimmed, whole, MAX_SHIFT)[1] == pytest.approx(-cut, abs=0.015)


def test_a_copy_that_begins_later_than_the_largest_shift_is_none():
    assert align(heard(bursts(1)), heard(bursts(1)[round(0.4 * RATE) :]), max_shift=0.2)[0] < DIFFERENT


def test_noise_of_another_seed_with_the_same_loudness_is_no_copy():
    loudness = np.abs(np.sin(np.arange(4 * RATE) / RATE * 7)).astype(np.float32)
    one, other = (
        heard(0.1 * loudness * np.random.default_rng(seed).standard_normal(4 * RATE).astype(np.float32))
        for seed in (1, 2)
    )
    assert align(one, other, MAX_SHIFT)[0] < DIFFERENT


def test_padding_with_silence_makes_different_sounds_no_more_alike():
    one, other = (heard(np.pad(bursts(seed, 0.6), (0, 4 * RATE))) for seed in (1, 2))
    assert align(one, other, MAX_SHIFT)[0] < DIFFERENT


def test_a_copy_within_much_silence_is_found():
    short = bursts(1, 0.6)
    one, other = heard(np.pad(short, (0, 4 * RATE))), heard(np.pad(0.25 * short, (0, 4 * RATE)))
    assert align(one, other, MAX_SHIFT)[0] > COPY


def test_a_common_beginning_is_not_enough():
    common = bursts(1, 1.0)
    one, other = (heard(np.concatenate([common, bursts(seed, 3.0)])) for seed in (2, 3))
    assert align(one, other, MAX_SHIFT)[0] < 0.5


def test_silent_words_count_neither_as_equal_nor_as_different():
    words = np.zeros(1000, np.uint32)
    words[:100] = np.random.default_rng(0).integers(1, 2**32, 100)
    changed = words.copy()
    changed[30:100] ^= 0xFFFF  # 16 of 32 bits in 70 of 100 words
    sounding = np.arange(1000) < 100
    assert align(Fingerprint(words, sounding), Fingerprint(changed, sounding), MAX_SHIFT) == (pytest.approx(0.3), 0.0)


@pytest.mark.parametrize("samples", [0, 1, 100, 4 * RATE])
def test_silence_is_similar_to_nothing(samples):
    silence = fingerprint(np.zeros(samples, np.float32))
    assert not silence.sounding.any()
    assert align(silence, silence, MAX_SHIFT)[0] == -1
    assert align(silence, heard(bursts(1)), MAX_SHIFT)[0] == -1


def test_a_long_recording_has_the_fingerprint_of_its_parts():
    waveform = np.tile(bursts(1)[:SAMPLING_RATE], 50)  # more than a block
    words = fingerprint(waveform).words
    assert words.size > 4096
    late = fingerprint(waveform[40 * SAMPLING_RATE :])
    np.testing.assert_array_equal(words[-late.words.size :], late.words)
