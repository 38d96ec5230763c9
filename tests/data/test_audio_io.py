"""Recordings are read as one float32 channel at the asked rate; unusable ones are refused with one clear message."""

import contextlib
import errno
import os
import pathlib
import time

import numpy as np
import pytest
import soundfile

from modeling_cnn10bert.data import audio_io
from modeling_cnn10bert.data.audio_io import decode_audio, encode_audio, load_audio
from modeling_cnn10bert.errors import AudioError, UnreadableError

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


@pytest.mark.parametrize("peak", [0.9, 1.5])
def test_equal_sounds_are_equal_bytes_whenever_they_are_encoded(peak):
    waveform = (peak * sine(1000, 32000)).astype(np.float32)
    before = encode_audio(waveform, 32000)
    time.sleep(1.1)  # wav files of floats may hold the second in which they were written
    assert encode_audio(waveform, 32000) == before


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


# ----------------------------------------------------------------------------------- channels that cancel each other


def noise(samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def read_channels(path, *channels, rate=32000):
    """The waveform of a file of these channels, and the remarks on it."""
    soundfile.write(path, np.stack(channels, axis=1), rate, subtype="FLOAT", format="WAV")
    notes = []
    return load_audio(path, 32000, notes), notes


def test_a_channel_upside_down_is_no_silence(tmp_path):
    left = noise(32000 * 3)
    waveform, notes = read_channels(tmp_path / "a.wav", left, -left)
    np.testing.assert_array_equal(np.abs(waveform), np.abs(left))
    assert notes == [
        "in 3.0 of 3.0 s the channels cancel each other (one is the other upside down); the louder channel was used "
        "there instead of their average"
    ]


def test_the_louder_of_two_channels_that_cancel_is_taken_throughout(tmp_path):
    left = noise(32000 * 6)
    right = -left * np.repeat([0.9, 1.1, 1.05, 0.9, 0.9, 0.9], 32000).astype(np.float32)
    quiet_first = right * np.float32(0.7)
    waveform, _ = read_channels(tmp_path / "a.wav", left, quiet_first)
    np.testing.assert_array_equal(waveform, left)


def test_an_offset_of_the_zero_line_hides_no_silence(tmp_path):
    left = noise(32000 * 3)
    waveform, notes = read_channels(tmp_path / "a.wav", left + np.float32(0.5), np.float32(0.5) - left)
    assert len(notes) == 1
    assert np.std(waveform) == pytest.approx(0.1, rel=0.02)


def test_only_the_seconds_that_cancel_are_taken_from_one_channel(tmp_path):
    left, right = noise(32000 * 6), noise(32000 * 6, seed=1)
    right[32000 * 2 : 32000 * 4] = -left[32000 * 2 : 32000 * 4]
    waveform, notes = read_channels(tmp_path / "a.wav", left, right)
    average = np.stack([left, right], axis=1).mean(axis=1)
    np.testing.assert_array_equal(waveform[: 32000 * 2], average[: 32000 * 2])
    np.testing.assert_array_equal(waveform[32000 * 4 :], average[32000 * 4 :])
    assert np.std(waveform[32000 * 2 : 32000 * 4]) == pytest.approx(0.1, rel=0.02)
    assert notes[0].startswith("in 2.0 of 6.0 s the channels cancel each other")


def test_four_channels_that_cancel_are_no_silence_and_a_silent_one_is_not_taken(tmp_path):
    first, second = noise(32000 * 4), noise(32000 * 4, seed=1)
    loud = np.concatenate([noise(32000 * 2, seed=2) * 5, np.zeros(32000 * 2, np.float32)])
    waveform, notes = read_channels(tmp_path / "a.wav", loud, first, -first, second * np.float32(1e-4))
    assert np.std(waveform[32000 * 2 :]) == pytest.approx(0.1, rel=0.02)
    assert notes[0].startswith("in 2.0 of 4.0 s")


@pytest.mark.parametrize(
    "channels",
    [
        (noise(32000), noise(32000)),
        (noise(32000), np.zeros(32000, np.float32)),
        (noise(32000), noise(32000, seed=1)),
        (noise(32000), -noise(32000) * np.float32(0.25)),
        (noise(32000), noise(32000, seed=1), noise(32000, seed=2), np.zeros(32000, np.float32)),
        (np.full(32000, 0.5, np.float32), np.full(32000, -0.5, np.float32)),
        (np.zeros(32000, np.float32), np.zeros(32000, np.float32)),
        (noise(5), -noise(5, seed=3)),
    ],
    ids=["equal", "one silent", "unrelated", "a quarter inverted", "four", "offsets", "silence", "five samples"],
)
def test_other_channels_are_averaged_to_the_last_bit(tmp_path, channels):
    waveform, notes = read_channels(tmp_path / "a.wav", *channels)
    np.testing.assert_array_equal(waveform, np.stack(channels, axis=1).mean(axis=1))
    assert notes == []


@pytest.mark.parametrize("block", [1 << 14, 1 << 17, 1 << 20])
def test_channels_that_cancel_are_the_same_from_a_file_and_from_memory(tmp_path, monkeypatch, block):
    monkeypatch.setattr(audio_io, "BLOCK_VALUES", block)
    left = noise(44100 * 5)
    waveform, notes = read_channels(tmp_path / "a.wav", left, -left, rate=44100)
    assert len(notes) == 1
    np.testing.assert_array_equal(decode_audio((tmp_path / "a.wav").read_bytes(), 32000, "a"), waveform)
    assert np.std(waveform) > 0.05


# ------------------------------------------------------------------------------------------------- beyond full scale


@pytest.mark.parametrize(("peak", "printed"), [(2.0**31, r"2\.15e\+09"), (32767.0, r"3\.28e\+04"), (1e25, r"1e\+25")])
@pytest.mark.parametrize("rate", [32000, 44100])
def test_samples_on_the_scale_of_integers_are_refused_with_what_to_do(tmp_path, peak, printed, rate):
    samples = (peak * sine(1000, rate)).astype(np.float32)
    samples[rate // 4] = -peak
    soundfile.write(tmp_path / "loud.wav", samples, rate, subtype="FLOAT")
    with pytest.raises(
        AudioError, match=rf"loud\.wav: found samples up to {printed}, expected about -1 to 1 .* divide them by 2\*\*31"
    ):
        load_audio(tmp_path / "loud.wav", 32000)


def test_large_samples_that_cancel_are_refused_too(tmp_path):
    loud = np.full(1000, 1e25, np.float32)
    with pytest.raises(AudioError, match="found samples up to 1e"):
        read_channels(tmp_path / "a.wav", loud, -loud)


def test_a_float_recording_may_exceed_full_scale(tmp_path):
    soundfile.write(tmp_path / "hot.wav", 8 * sine(1000, 32000), 32000, subtype="FLOAT")
    notes = []
    assert np.abs(load_audio(tmp_path / "hot.wav", 32000, notes)).max() == pytest.approx(8)
    assert notes == []


# --------------------------------------------------------------------------------------------------------- the system


@pytest.fixture
def no_file_handles():
    """Lets the process open no more files, for the length of a call."""
    resource = pytest.importorskip("resource")

    @contextlib.contextmanager
    def limit():
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)

    return limit


@pytest.mark.parametrize("path", ["", os.environ.get("PATH", "")], ids=["without ffmpeg", "as installed"])
@pytest.mark.parametrize("name", ["a.wav", "a.m4a"])
def test_a_lack_of_file_handles_says_nothing_of_a_file(tmp_path, monkeypatch, no_file_handles, name, path):
    monkeypatch.setenv("PATH", path)
    soundfile.write(tmp_path / name, sine(1000, 32000), 32000, format="WAV")
    assert len(load_audio(tmp_path / name, 32000)) == 32000
    with no_file_handles(), pytest.raises(UnreadableError, match=rf"{name}: .*\(Too many open files\).*try again"):
        load_audio(tmp_path / name, 32000)


@pytest.mark.parametrize(
    "error", [soundfile.LibsndfileError(2), OSError(errno.EIO, "Input/output error"), MemoryError()]
)
def test_an_error_of_the_system_in_a_decoder_says_nothing_of_a_file(tmp_path, monkeypatch, error):
    monkeypatch.setenv("PATH", "")
    soundfile.write(tmp_path / "a.wav", sine(1000, 32000), 32000)

    def refuse(*arguments, **options):
        raise error

    monkeypatch.setattr(soundfile, "SoundFile", refuse)
    with pytest.raises(UnreadableError, match="the system does not read now"):
        load_audio(tmp_path / "a.wav", 32000)


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="this system has no /proc/self/mem, which gives EIO")
def test_a_file_that_gives_an_input_error_says_nothing_of_its_content(tmp_path):
    (tmp_path / "a.wav").symlink_to("/proc/self/mem")
    with pytest.raises(UnreadableError):
        load_audio(tmp_path / "a.wav", 32000)


# ------------------------------------------------------------------------------------------- what a header can hold


@pytest.mark.parametrize("rate", [0, 1, 7, 2**31 - 1])
def test_a_rate_that_no_recording_has_is_one_error(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", sine(1000, 32000), 32000)
    header = bytearray((tmp_path / "a.wav").read_bytes())
    header[24:28] = rate.to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(header)
    with pytest.raises(AudioError, match=r"a\.wav: found"):
        load_audio(tmp_path / "a.wav", 32000)


def test_a_recording_of_a_thousand_channels_is_read(tmp_path):
    samples = np.tile(np.linspace(-0.5, 0.5, 1000, dtype=np.float32)[:, None], 1000)
    soundfile.write(tmp_path / "a.wav", samples, 32000, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(tmp_path / "a.wav", 32000), samples[:, 0], atol=1e-6)


@pytest.mark.parametrize("channels", [0, 1025, 65535])
def test_a_number_of_channels_that_no_recording_has_is_one_error(tmp_path, channels):
    soundfile.write(tmp_path / "a.wav", sine(1000, 32000), 32000)
    header = bytearray((tmp_path / "a.wav").read_bytes())
    header[22:24] = channels.to_bytes(2, "little")
    (tmp_path / "a.wav").write_bytes(header)
    with pytest.raises(AudioError, match=r"a\.wav: found"):
        load_audio(tmp_path / "a.wav", 32000)
