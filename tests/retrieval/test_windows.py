"""A recording of any length is read as windows of one length, in memory that does not grow with it."""

import hashlib
import os
import shutil
import tracemalloc

import numpy as np
import pytest
import soundfile

from modeling_cnn10bert.data import audio_io
from modeling_cnn10bert.data.audio_io import load_audio
from modeling_cnn10bert.errors import AudioError, RetrievalError
from modeling_cnn10bert.retrieval.windows import content_hash, normalize_level, read_windows, window_spans


@pytest.fixture
def write(tmp_path, noise):
    """Writes white noise of a length in samples."""

    def write(samples, rate=8000, name="noise.wav"):
        soundfile.write(tmp_path / name, noise(samples), rate, subtype="FLOAT")
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (4, [(0, 4)]),
        (30, [(0, 30)]),
        (31, [(0, 30), (1, 31)]),
        (50, [(0, 30), (20, 50)]),
        (50.5, [(0, 30), (20, 50), (20.5, 50.5)]),
        (95, [(0, 30), (20, 50), (40, 70), (60, 90), (65, 95)]),
    ],
)
def test_the_last_window_ends_with_the_recording_and_is_as_long_as_the_others(duration, expected):
    assert window_spans(duration, 30, 10) == expected


def test_windows_may_touch_without_overlap():
    assert window_spans(9, 3, 0) == [(0, 3), (3, 6), (6, 9)]
    assert len(window_spans(0.3, 0.1, 0)) == 3  # though 0.1 + 0.2 > 0.3 in binary


@pytest.mark.parametrize(("window", "overlap"), [(10, 10), (10, 11), (10, -1), (0, 0), (float("nan"), 0)])
def test_windows_that_do_not_advance_are_refused(window, overlap, write):
    with pytest.raises(RetrievalError, match="expected an overlap of at least 0 and shorter than a window"):
        window_spans(20, window, overlap)
    with pytest.raises(RetrievalError, match="expected an overlap"):
        next(read_windows(write(100), 8000, window, overlap))


@pytest.mark.parametrize("rate", [8000, 44100])
@pytest.mark.parametrize("format", ["wav", "ogg", "mp3", "flac"])
def test_a_recording_of_one_window_is_to_the_last_bit_what_is_loaded_whole(tmp_path, noise, rate, format):
    path = tmp_path / f"noise.{format}"
    soundfile.write(path, np.stack([noise(3 * rate), noise(3 * rate, seed=1)], axis=1), rate)
    whole = load_audio(path, 16000)
    ((start, end, waveform),) = read_windows(path, 16000, 30, 10)
    np.testing.assert_array_equal(waveform, whole)
    assert (start, end) == (0, len(whole) / 16000)


@pytest.mark.parametrize("samples", [1, 799, 800, 801, 1599, 1600, 1601, 2000, 2001, 12345])
@pytest.mark.parametrize("overlap", [0.0, 0.025, 0.09])
@pytest.mark.parametrize("block", [1, 333, 1 << 20])
def test_windows_are_the_pieces_of_the_whole(write, monkeypatch, samples, overlap, block):
    if block == 1 and samples > 2001:
        block = 7
    monkeypatch.setattr(audio_io, "BLOCK_VALUES", block)
    path = write(samples)
    whole = load_audio(path, 8000)
    windows = list(read_windows(path, 8000, 0.1, overlap))
    np.testing.assert_allclose([window[:2] for window in windows], window_spans(samples / 8000, 0.1, overlap))
    for start, end, waveform in windows:
        np.testing.assert_array_equal(waveform, whole[round(start * 8000) : round(end * 8000)])
    assert windows[-1][1] == samples / 8000


def test_windows_of_a_resampled_recording_are_the_pieces_of_the_whole(write):
    path = write(44100 * 20, rate=44100)
    whole = load_audio(path, 32000)
    for start, end, waveform in read_windows(path, 32000, 3, 1):
        np.testing.assert_array_equal(waveform, whole[round(start * 32000) : round(end * 32000)])
    assert end == len(whole) / 32000


def test_twenty_minutes_are_read_in_the_memory_of_some_windows(tmp_path):
    path = tmp_path / "silence.wav"
    soundfile.write(path, np.zeros(8), 44100, subtype="PCM_U8")
    samples = 44100 * 1200
    with open(path, "r+b") as file:  # the header promises 20 minutes, and the file has a hole in their place
        header = bytearray(file.read(44))
        header[4:8] = (36 + samples).to_bytes(4, "little")
        header[40:44] = samples.to_bytes(4, "little")
        file.seek(0)
        file.write(header)
        file.truncate(44 + samples)
    tracemalloc.start()
    try:
        spans = []
        for start, end, waveform in read_windows(path, 8000, 10, 2):
            assert waveform.size == 80000
            spans.append((start, end))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_allclose(spans, window_spans(1200, 10, 2))
    # The whole would be 38 MB at 8 kHz and 212 MB as it is decoded.
    assert peak < 30e6


def test_samples_that_are_no_numbers_fail_after_the_windows_before_them(tmp_path, noise, monkeypatch):
    monkeypatch.setattr(audio_io, "BLOCK_VALUES", 800)
    waveform = noise(8000)
    waveform[[5000, 7000]] = np.nan
    soundfile.write(tmp_path / "bad.wav", waveform, 8000, subtype="FLOAT")
    windows = read_windows(tmp_path / "bad.wav", 8000, 0.1, 0)
    for _ in range(6):
        next(windows)
    with pytest.raises(AudioError, match="found 2 of 8000 samples NaN"):
        next(windows)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="this system does not list open files under /proc")
def test_a_reader_that_stops_early_closes_the_file(write):
    def is_open():
        links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
        return str(path) in [os.readlink(link) for link in links if os.path.islink(link)]

    path = write(8000 * 200)
    windows = read_windows(path, 8000, 1, 0)
    next(windows)
    assert is_open()
    windows.close()
    assert not is_open()


def test_the_hash_is_of_the_bytes_alone(tmp_path, write):
    path = write(100)
    shutil.copy(path, tmp_path / "other name.ogg")
    expected = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    assert content_hash(path) == content_hash(tmp_path / "other name.ogg") == expected
    assert len(expected) == 32
    with open(path, "ab") as file:
        file.write(b"\0")
    assert content_hash(path) != expected


def test_a_file_of_nothing_has_a_hash(tmp_path):
    (tmp_path / "empty").touch()
    # BLAKE2b of 16 bytes of the empty string, by `b2sum -l 128 /dev/null`
    assert content_hash(tmp_path / "empty") == "cae66941d9efbd404e4d88758ea67670"


@pytest.mark.parametrize("gain_db", [0, -12, -24])
def test_windows_can_have_one_level_whatever_that_of_the_recording(tmp_path, noise, gain_db):
    loud = np.concatenate([0.5 * noise(8000), 0.1 * noise(8000, seed=1), np.zeros(8000, np.float32)])
    soundfile.write(tmp_path / "a.wav", 10 ** (gain_db / 20) * loud, 8000, subtype="FLOAT")
    windows = [waveform for _, _, waveform in read_windows(tmp_path / "a.wav", 8000, 1.0, 0.0, None, True)]
    assert [np.abs(waveform).max() for waveform in windows] == pytest.approx([1, 1, 0])
    np.testing.assert_allclose(windows[0], loud[:8000] / np.abs(loud).max(), atol=1e-6)


def test_noise_far_below_a_recording_stays_quiet():
    assert np.abs(normalize_level(np.float32([1e-5, -1e-6]))).max() == pytest.approx(0.01)  # 60 dB above -100 dB
