"""What libsndfile cannot decode goes to an installed ffmpeg, which opens that file and nothing else."""

import os
import pathlib
import shutil
import subprocess
import time

import numpy as np
import pytest
import soundfile
from scipy import signal

from modeling_cnn10bert.data import audio_io, ffmpeg
from modeling_cnn10bert.data.audio_io import audio_blocks, decode_audio, load_audio
from modeling_cnn10bert.errors import AudioError, UnreadableError

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg is installed")
RATE = 44100


def sweep(seconds=3.0):
    time = np.arange(round(seconds * RATE)) / RATE
    return 0.5 * np.sin(2 * np.pi * (300 * time + 100 * time**2))


@pytest.fixture
def encoded(tmp_path):
    """Has ffmpeg encode a sweep, one second of it on the left channel alone; a file of this name."""

    def encode(name, *options):
        channels = np.stack([sweep(), sweep()], axis=1)
        channels[2 * RATE :, 1] = 0
        soundfile.write(tmp_path / "original.wav", channels, RATE)
        made = tmp_path / "made"
        result = subprocess.run(
            ["ffmpeg", "-nostdin", "-v", "error", "-y", "-i", tmp_path / "original.wav", *options, made],
            capture_output=True,
        )
        if result.returncode:
            pytest.skip(f"this ffmpeg does not encode {name}: {result.stderr.decode()[:200]}")
        (tmp_path / "original.wav").unlink()
        return made.rename(os.path.join(tmp_path, name))

    return encode


@pytest.fixture
def fake_ffmpeg(tmp_path, monkeypatch):
    """Puts a shell script in the place of ffmpeg."""

    def make(script):
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / "ffmpeg").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "ffmpeg").chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    return make


@needs_ffmpeg
@pytest.mark.parametrize(
    ("ending", "options"),
    [
        ("m4a", ["-f", "ipod", "-c:a", "aac"]),
        ("mp4", ["-f", "mp4", "-c:a", "aac"]),
        ("aac", ["-f", "adts", "-c:a", "aac"]),
        ("m4a", ["-f", "ipod", "-c:a", "alac"]),
        ("wma", ["-f", "asf", "-c:a", "wmav2"]),
        ("webm", ["-f", "webm", "-c:a", "libopus"]),
        ("mka", ["-f", "matroska", "-c:a", "libvorbis"]),
        ("ac3", ["-f", "ac3"]),
        ("wv", ["-f", "wv", "-c:a", "wavpack"]),
        ("wav", ["-f", "wav", "-c:a", "wmav2"]),
    ],
)
def test_formats_that_libsndfile_lacks_decode_to_the_average_of_their_channels(encoded, ending, options):
    waveform = load_audio(encoded(f"sweep.{ending}", *options), RATE)
    expected = sweep()
    expected[2 * RATE :] /= 2
    assert waveform.dtype == np.float32
    assert len(waveform) / RATE == pytest.approx(3, abs=0.1)  # encoders pad
    # Encoders delay a recording or eat its beginning: found by where half a second of the sweep lies.
    piece = slice(RATE // 2, RATE)
    lag = int(np.argmax(signal.correlate(waveform[: 2 * RATE], expected[piece], mode="valid"))) - piece.start
    decoded, wanted = waveform[max(0, lag) :], expected[max(0, -lag) :]
    samples = min(len(decoded), len(wanted))
    error = np.sqrt(np.mean((decoded[:samples] - wanted[:samples])[4000:-4000] ** 2))
    assert error < 0.02  # -25 dB of the sweep, which no wrong order, gain or channel would reach


@needs_ffmpeg
def test_a_lossless_file_decodes_to_the_very_samples(encoded):
    path = encoded("sweep.m4a", "-f", "ipod", "-c:a", "alac")
    original = path.with_name("again.wav")
    channels = np.stack([sweep(), sweep()], axis=1)
    channels[2 * RATE :, 1] = 0
    soundfile.write(original, channels, RATE)
    np.testing.assert_array_equal(load_audio(path, RATE), load_audio(original, RATE))
    np.testing.assert_array_equal(load_audio(path, 32000), load_audio(original, 32000))


@needs_ffmpeg
def test_a_recording_in_memory_decodes_too(encoded):
    path = encoded("sweep.m4a", "-f", "ipod", "-c:a", "aac")
    np.testing.assert_array_equal(decode_audio(path.read_bytes(), 32000, "sweep.m4a"), load_audio(path, 32000))


@needs_ffmpeg
@pytest.mark.parametrize(
    "name",
    [
        "-i.wav",
        "http:x.wav",
        "take%d.wav",
        "concat:a|b.wav",
        "-y",
        "pipe:0",
        "a\nb.wav",
        "[0:v] 'q\".wav",
        b"\xff\xfe.wav",
    ],
)
def test_a_name_is_a_name_whatever_it_looks_like(encoded, monkeypatch, name):
    name = os.fsdecode(name)
    try:
        path = encoded(name, "-f", "ipod", "-c:a", "aac")
    except OSError:
        pytest.skip("this file system does not take such a name")
    monkeypatch.chdir(os.path.dirname(path))
    assert len(load_audio(path, 32000)) == len(load_audio(name, 32000)) > 90000


@pytest.mark.parametrize("name", ["-i.wav", "http:x.wav", "take%d.wav", b"\xff\xfe.wav"])
def test_libsndfile_takes_any_name_as_well(tmp_path, monkeypatch, name):
    monkeypatch.setattr(ffmpeg.shutil, "which", lambda program: None)
    soundfile.write(tmp_path / "original", sweep(), RATE, format="WAV")
    try:
        os.rename(tmp_path / "original", os.path.join(tmp_path, os.fsdecode(name)))
    except OSError:
        pytest.skip("this file system does not take such a name")
    monkeypatch.chdir(tmp_path)
    assert len(load_audio(os.fsdecode(name), RATE)) == 3 * RATE


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("text.m4a", "this is no sound, whatever its name says"),
        ("list.m4a", "#EXTM3U\n#EXTINF:3,\nother.wav\n#EXT-X-ENDLIST\n"),
        ("list.wav", "ffconcat version 1.0\nfile other.wav\n"),
        ("session.wav", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"),
        ("page.mp4", "<html>404</html>"),
        ("nothing.m4a", ""),
    ],
)
def test_a_text_does_not_decode_and_opens_no_other_file(tmp_path, name, text):
    soundfile.write(tmp_path / "other.wav", sweep(), RATE)
    (tmp_path / name).write_text(text)
    with pytest.raises(AudioError, match=rf"{name}: found {len(text)} bytes that do not decode .*fetch "):
        load_audio(tmp_path / name, 32000)


@needs_ffmpeg
def test_a_picture_that_moves_without_sound_is_refused(tmp_path):
    path = tmp_path / "silent.mp4"
    command = [
        "ffmpeg",
        "-nostdin",
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        "color=size=64x64:duration=1",
        "-c:v",
        "mpeg4",
        path,
    ]
    subprocess.run(command, check=True)
    with pytest.raises(AudioError, match=r"silent\.mp4: found \d+ bytes that do not decode"):
        load_audio(path, 32000)


@needs_ffmpeg
def test_a_cut_off_file_is_refused_with_what_ffmpeg_says(encoded):
    path = encoded("sweep.m4a", "-f", "ipod", "-c:a", "aac")
    path = pathlib.Path(path)
    path.write_bytes(path.read_bytes()[:20000])  # its table of contents is at the end
    with pytest.raises(AudioError, match=r"found 20000 bytes .*libsndfile: .*; ffmpeg: .*Invalid data"):
        load_audio(path, 32000)


def test_without_ffmpeg_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(ffmpeg.shutil, "which", lambda name: None)
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    with pytest.raises(
        AudioError, match=r"libsndfile: Format not recognised; and no ffmpeg is installed\), expected wav"
    ):
        load_audio(tmp_path / "a.m4a", 32000)


def test_an_ffmpeg_that_hangs_is_ended(tmp_path, fake_ffmpeg, monkeypatch):
    fake_ffmpeg(f"echo $$ > {tmp_path}/pid; exec sleep 600")
    monkeypatch.setattr(ffmpeg, "STALL_SECONDS", 0.5)
    (tmp_path / "a.m4a").write_bytes(b"x")
    began = time.monotonic()
    with pytest.raises(AudioError, match=r"ffmpeg gave nothing for 0\.5 s"):
        load_audio(tmp_path / "a.m4a", 32000)
    assert time.monotonic() - began < 60
    if (tmp_path / "pid").exists():
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)


# An AU file of one channel at 32 kHz, as ffmpeg writes it to a pipe, and its first sample.
ONE_SAMPLE = r"\056snd\000\000\000\030\377\377\377\377\000\000\000\006\000\000\175\000\000\000\000\001\000\000\000\000"


def test_what_an_ffmpeg_gave_that_then_fails_is_kept_with_a_remark(tmp_path, fake_ffmpeg):
    fake_ffmpeg(f"printf '{ONE_SAMPLE}'; echo 'a.m4a: Invalid argument' >&2; exit 1")
    (tmp_path / "a.m4a").write_bytes(b"x")
    notes = []
    assert load_audio(tmp_path / "a.m4a", 32000, notes).shape == (1,)
    assert notes == ["a part of the file does not decode (ffmpeg: Invalid argument); 0.0 s of sound were read from it"]


@pytest.mark.parametrize("reason", ["Cannot allocate memory", "Too many open files", "Input/output error"])
def test_what_the_system_refuses_to_ffmpeg_says_nothing_of_the_file(tmp_path, fake_ffmpeg, reason):
    fake_ffmpeg(f"printf '{ONE_SAMPLE}'; echo '[error] a.m4a: {reason}' >&2; exit 1")
    (tmp_path / "a.m4a").write_bytes(b"x")
    with pytest.raises(UnreadableError, match=rf"a\.m4a: found a file that the system .* \(ffmpeg: {reason}\)"):
        load_audio(tmp_path / "a.m4a", 32000)


def test_an_ffmpeg_that_is_killed_says_nothing_of_the_file(tmp_path, fake_ffmpeg):
    fake_ffmpeg("kill -9 $$")
    (tmp_path / "a.m4a").write_bytes(b"x")
    with pytest.raises(UnreadableError, match=r"ffmpeg was ended by signal 9"):
        load_audio(tmp_path / "a.m4a", 32000)


@needs_ffmpeg
def test_a_reader_that_stops_early_ends_ffmpeg(encoded, monkeypatch):
    processes, popen = [], subprocess.Popen

    def remember(*arguments, **options):
        processes.append(popen(*arguments, **options))
        return processes[-1]

    path = encoded("sweep.m4a", "-f", "ipod", "-c:a", "aac")
    monkeypatch.setattr(ffmpeg.subprocess, "Popen", remember)
    monkeypatch.setattr(ffmpeg, "BLOCK_BYTES", 800)
    blocks = audio_blocks(path, RATE)
    next(blocks)
    blocks.close()
    (process,) = processes
    assert process.returncode is not None
    assert process.stdout.closed


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 47999, 192000])
@pytest.mark.parametrize("block", [1000, 65537])
def test_blocks_that_are_resampled_are_the_whole_that_is_resampled(tmp_path, noise, monkeypatch, rate, block):
    import soxr

    samples = noise(2 * rate + 17)
    soundfile.write(tmp_path / "noise.wav", samples, rate, subtype="FLOAT")
    monkeypatch.setattr(audio_io, "BLOCK_VALUES", block)
    blocks = list(audio_blocks(tmp_path / "noise.wav", 32000))
    assert len(blocks) > 1
    whole = soxr.resample(samples, rate, 32000, quality="VHQ")
    np.testing.assert_allclose(np.concatenate(blocks), whole, rtol=0, atol=1e-6)


def test_a_pipe_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(AudioError, match="found a device, pipe or socket, expected a recording"):
        load_audio(tmp_path / "pipe.wav", 32000)
