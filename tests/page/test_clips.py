"""Parts of recordings: the same samples from wherever they are read."""

import shutil
import subprocess
import tracemalloc

import numpy as np
import pytest
import soundfile

from modeling_cnn10bert.page.clips import Span, encode_clip, read_span


def test_a_part_that_libsndfile_jumps_to_is_the_one_that_decoding_all_finds(tmp_path):
    waveform = 0.3 * np.random.default_rng(0).standard_normal(44_100 * 4).clip(-1, 1)
    soundfile.write(tmp_path / "noise.flac", waveform, 44_100)
    everything, _ = soundfile.read(tmp_path / "noise.flac", dtype="float32")
    samples, rate = read_span(Span(str(tmp_path / "noise.flac"), 1.25, 3.0))
    assert rate == 44_100
    assert np.array_equal(samples[:, 0], everything[round(1.25 * 44_100) : 3 * 44_100])


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg (apt-get install ffmpeg)")
def test_what_only_ffmpeg_decodes_has_its_parts_too(tmp_path):
    time = np.arange(32_000 * 3) / 32_000
    soundfile.write(tmp_path / "tones.wav", 0.5 * np.sin(2 * np.pi * np.where(time < 2, 440, 1760) * time), 32_000)
    command = ["ffmpeg", "-v", "error", "-i", tmp_path / "tones.wav", tmp_path / "tones.m4a"]
    subprocess.run(command, check=True)
    samples, rate = read_span(Span(str(tmp_path / "tones.m4a"), 2.2, 2.7))
    assert samples.shape == (16_000, 1) and rate == 32_000
    assert np.abs(np.fft.rfft(samples[:, 0])).argmax() * rate / len(samples) == pytest.approx(1760, abs=3)


def test_a_clip_has_at_most_two_channels_and_no_sample_beyond_full_scale(tmp_path):
    samples = np.stack([np.full(100, level, np.float32) for level in (3.0, 0.0, 0.0)], axis=1)
    (tmp_path / "clip.flac").write_bytes(encode_clip(samples, 8000))
    heard, _ = soundfile.read(tmp_path / "clip.flac")
    assert heard.shape == (100,) and heard == pytest.approx(1, abs=1e-4)


def test_a_clip_of_channels_that_cancel_is_no_silence(tmp_path):
    noise = 0.1 * np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    (tmp_path / "clip.flac").write_bytes(encode_clip(np.stack([noise, -noise, 0 * noise], axis=1), 8000))
    heard, _ = soundfile.read(tmp_path / "clip.flac")
    assert heard.shape == (8000,) and np.std(heard) == pytest.approx(0.1, rel=0.05)


def test_a_part_of_the_second_recording_of_a_file_is_found(tmp_path):
    content = b""
    for hertz in (400, 800):
        tone = 0.5 * np.sin(2 * np.pi * hertz * np.arange(32_000 * 3) / 32_000)
        soundfile.write(tmp_path / "tone.ogg", tone, 32_000)
        content += (tmp_path / "tone.ogg").read_bytes()
    (tmp_path / "tones.ogg").write_bytes(content)
    for start, hertz in ((1.0, 400), (4.0, 800)):
        samples, rate = read_span(Span(str(tmp_path / "tones.ogg"), start, start + 1))
        assert len(samples) == rate
        assert np.abs(np.fft.rfft(samples[:, 0])).argmax() * rate / len(samples) == pytest.approx(hertz, abs=2)


def test_a_part_of_many_channels_at_a_high_rate_is_decoded_in_little_memory(tmp_path):
    with soundfile.SoundFile(tmp_path / "silence.flac", "w", 655_350, 8) as file:
        for _ in range(5):
            file.write(np.zeros((655_350, 8), np.float32))
    tracemalloc.start()
    try:
        samples, rate = read_span(Span(str(tmp_path / "silence.flac"), 0.0, 5.0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert samples.shape == (5 * 32_000, 1) and rate == 32_000
    assert peak < 5 * 655_350 * 8 * 4  # bytes of the part as it is in the file


def test_a_rate_that_flac_does_not_hold_is_played_at_another(tmp_path):
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(700_000) / 700_000)
    soundfile.write(tmp_path / "tone.wav", tone, 700_000)
    (tmp_path / "clip.flac").write_bytes(encode_clip(*read_span(Span(str(tmp_path / "tone.wav"), 0.25, 0.75))))
    heard, rate = soundfile.read(tmp_path / "clip.flac")
    assert np.abs(np.fft.rfft(heard)).argmax() * rate / len(heard) == pytest.approx(1000, abs=3)
