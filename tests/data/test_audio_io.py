"""Recordings are read as one float32 channel at the asked rate; unusable ones are refused with one clear message."""

import pathlib

import numpy as np
import pytest
import soundfile

from modeling_cnn10bert.data.audio_io import AudioError, decode_audio, encode_audio, load_audio

SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"


def sine(frequency, rate, seconds=1.0):
    return np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def test_channels_are_averaged(tmp_path):
    soundfile.write(tmp_path / "stereo.wav", np.tile([0.5, -0.25], (100, 1)), 32000)
    waveform = load_audio(tmp_path / "stereo.wav", 32000)
    assert waveform.dtype == np.float32
    assert waveform.shape == (100,)
    np.testing.assert_array_equal(waveform, 0.125)


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3"])
def test_every_usual_format_decodes(tmp_path, extension):
    path = tmp_path / f"tone.{extension}"
    soundfile.write(path, 0.5 * sine(1000, 32000), 32000)
    waveform = load_audio(str(path), 32000)
    assert waveform.shape == (32000,)
    assert np.argmax(np.abs(np.fft.rfft(waveform))) == 1000  # bins of 1 Hz
    # The root mean square of a sine of amplitude 0.5 is 0.5 / sqrt(2); the MP3 encoder takes 1 dB from it.
    assert np.sqrt(np.mean(waveform[4000:28000] ** 2)) == pytest.approx(0.35355, rel=0.12)


def test_a_resampled_sine_is_the_sine_sampled_at_the_new_rate(tmp_path):
    soundfile.write(tmp_path / "tone.wav", sine(1000, 44100), 44100, subtype="FLOAT")
    waveform = load_audio(tmp_path / "tone.wav", 32000)
    assert waveform.dtype == np.float32
    assert waveform.shape == (32000,)
    np.testing.assert_allclose(waveform[1000:-1000], sine(1000, 32000)[1000:-1000], atol=1e-4)


def test_resampling_keeps_14_khz_and_removes_what_32_khz_cannot_hold(tmp_path):
    for frequency, expected in (
        (14000, 0.70711),
        (17000, 0.0),
    ):  # the front end's top frequency; above the new Nyquist
        soundfile.write(tmp_path / "tone.wav", sine(frequency, 44100), 44100, subtype="FLOAT")
        waveform = load_audio(tmp_path / "tone.wav", 32000)[1000:-1000]
        assert np.sqrt(np.mean(waveform**2)) == pytest.approx(expected, abs=1e-3)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(AudioError, match=r"absent\.wav: found no such file, expected a recording; check the path"):
        load_audio(tmp_path / "absent.wav", 32000)


def test_a_folder_is_no_recording(tmp_path):
    with pytest.raises(AudioError, match="found a folder, expected a recording"):
        load_audio(tmp_path, 32000)


@pytest.mark.parametrize("name", ["page.wav", "headerless.raw"])
def test_an_undecodable_file_is_named_with_its_size_and_a_way_out(tmp_path, name):
    (tmp_path / name).write_bytes(b"<html>404</html>")
    with pytest.raises(AudioError, match=rf"{name}: found 16 bytes that do not decode .* expected wav, flac.*fetch "):
        load_audio(tmp_path / name, 32000)


@pytest.mark.parametrize("rate", [32000, 44100])
def test_an_empty_recording_is_refused(tmp_path, rate):
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), rate)
    with pytest.raises(AudioError, match=r"empty\.wav: found 0 samples, expected a recording; fetch or export"):
        load_audio(tmp_path / "empty.wav", 32000)


@pytest.mark.parametrize("rate", [32000, 44100])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_finite_numbers_are_counted_and_refused(tmp_path, value, rate):
    waveform = np.zeros(100, dtype=np.float32)
    waveform[[3, 50]] = value
    soundfile.write(tmp_path / "bad.wav", waveform, rate, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"bad\.wav: found 2 of 100 samples NaN or infinite, expected finite numbers"):
        load_audio(tmp_path / "bad.wav", 32000)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 47999, 48000, 96000, 192000])
def test_any_rate_is_resampled_to_the_same_sine(tmp_path, rate):
    soundfile.write(tmp_path / "tone.wav", np.tile(sine(1000, rate)[:, None], 3), rate, subtype="FLOAT")
    waveform = load_audio(tmp_path / "tone.wav", 32000)
    assert abs(len(waveform) - 32000) <= 1
    np.testing.assert_allclose(waveform[2000:-2000], sine(1000, 32000)[2000 : len(waveform) - 2000], atol=1e-5)


def test_a_damaged_header_is_an_error_and_takes_no_memory(tmp_path):
    soundfile.write(tmp_path / "tone.wav", sine(1000, 32000), 32000)
    header = bytearray((tmp_path / "tone.wav").read_bytes())
    header[24:28] = (1).to_bytes(4, "little")  # where a wav file has its sampling rate
    (tmp_path / "tone.wav").write_bytes(header)
    with pytest.raises(AudioError, match=r"tone\.wav: found a sampling rate of 1 Hz, expected"):
        load_audio(tmp_path / "tone.wav", 32000)


@pytest.mark.parametrize("peak", [0.9, 1.5])
def test_what_is_encoded_comes_back(peak):
    waveform = (peak * sine(1000, 32000)).astype(np.float32)
    decoded = decode_audio(encode_audio(waveform, 32000), 32000, "tone")
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, waveform, rtol=0, atol=2**-23)  # 24 bits


def test_a_name_may_hold_spaces_and_signs(tmp_path):
    path = tmp_path / " Ambience #1, 100% [birds].wav"
    soundfile.write(path, np.zeros(10), 32000)
    assert load_audio(path, 32000).shape == (10,)


@pytest.mark.skipif(not (SHARED / "esc10").is_dir(), reason="the ESC-10 recordings are not at hand")
def test_all_400_esc10_recordings_decode():
    paths = sorted((SHARED / "esc10").rglob("*.ogg"))
    assert len(paths) == 400
    for path in paths:
        waveform = load_audio(path, 44100)
        assert waveform.dtype == np.float32
        assert 3 < len(waveform) / 44100 < 8


@pytest.mark.skipif(not (SHARED / "esc10").is_dir(), reason="the ESC-10 recordings are not at hand")
def test_a_real_recording_resamples_to_the_length_computed_by_hand():
    # 220544 samples at 44.1 kHz: 220544 * 320 / 441 = 160031.9
    assert load_audio(SHARED / "esc10" / "001 - Dog bark" / "5-212454-A.ogg", 32000).shape == (160032,)
