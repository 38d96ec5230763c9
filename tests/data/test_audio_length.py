"""A recording is read to the real end of its file, whatever its header says, or a remark says how much is missing."""

import io
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest
import soundfile

from modeling_cnn10bert.data import audio_io
from modeling_cnn10bert.data.audio_io import audio_blocks, decode_audio, load_audio
from modeling_cnn10bert.data.audio_length import measure
from modeling_cnn10bert.errors import AudioError

SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg is installed")
ID3V2 = b"ID3\x04\0\0\0\0\x07\x76" + bytes(7 * 128 + 0x76)
ID3V1 = b"TAG" + bytes(125)
APE = b"APETAGEX" + (2000).to_bytes(4, "little") + (32).to_bytes(4, "little") + bytes(16) + bytes(32)


@pytest.fixture
def no_ffmpeg(monkeypatch):
    monkeypatch.setenv("PATH", "")


def tone(hertz, seconds=4.0, rate=44100, channels=1, **options):
    """A file of this format that holds a sine."""
    file = io.BytesIO()
    sine = 0.4 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    soundfile.write(file, np.tile(sine[:, None], channels), rate, **options)
    return file.getvalue()


def loudest_frequency(waveform):
    """In Hz, of a waveform at 8 kHz."""
    return np.abs(np.fft.rfft(waveform)).argmax() * 8000 / len(waveform)


def read(path, content, rate=8000):
    """The waveform of a file of this content, and the remarks on it."""
    path.write_bytes(content)
    notes = []
    return load_audio(path, rate, notes), notes


FORMATS = {
    "wav": {"format": "WAV"},
    "wav of floats": {"format": "WAV", "subtype": "FLOAT"},
    "wav of adpcm": {"format": "WAV", "subtype": "IMA_ADPCM"},
    "rf64": {"format": "RF64"},
    "w64": {"format": "W64"},
    "aiff": {"format": "AIFF"},
    "au": {"format": "AU"},
    "caf": {"format": "CAF"},
    "flac": {"format": "FLAC"},
    "ogg": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS", "rate": 48000},
    "mp3": {"format": "MP3"},
    "mp3 of half the rate": {"format": "MP3", "rate": 22050},
    "mp3 at 8 kHz": {"format": "MP3", "rate": 8000},
}


# --------------------------------------------------------------------------------------------------- nothing to remark


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_whole_file_has_no_remark(tmp_path, name, channels):
    waveform, notes = read(tmp_path / "a", tone(400, channels=channels, **FORMATS[name]))
    assert notes == []
    assert len(waveform) / 8000 == pytest.approx(4, abs=0.1)  # adpcm fills its last block


@pytest.mark.parametrize("tags", [ID3V1, APE + ID3V1, bytes(500)])
def test_tags_and_zeros_at_the_end_are_no_loss(tmp_path, tags):
    for name in ("wav", "flac", "ogg", "mp3"):
        waveform, notes = read(tmp_path / "a", tone(400, **FORMATS[name]) + tags)
        assert notes == [], name
        assert len(waveform) / 8000 == pytest.approx(4, abs=0.05), name


@pytest.mark.skipif(not (SHARED / "esc10").is_dir(), reason="the real recordings are not at hand")
def test_no_real_recording_has_a_remark():
    paths = sorted((SHARED / "esc10").rglob("*.ogg")) + sorted((SHARED / "clotho" / "audio").glob("*.wav"))
    assert len(paths) == 407
    for path in paths:
        notes = []
        info = soundfile.info(path)
        assert len(load_audio(path, info.samplerate, notes)) == info.frames
        assert notes == [], path


def test_a_wav_that_was_streamed_into_a_pipe_is_whole(tmp_path):
    whole = tone(400, format="WAV")
    for length in (0xFFFFFFFF, 0x7FFFFFFF, 0x80000000):
        header = bytearray(whole)
        header[4:8] = header[40:44] = length.to_bytes(4, "little")
        waveform, notes = read(tmp_path / "a.wav", bytes(header))
        assert (len(waveform), notes) == (32000, []), hex(length)


# ------------------------------------------------------------------------------------------ several recordings in one


@pytest.mark.usefixtures("no_ffmpeg")
@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_two_recordings_is_read_to_its_end(tmp_path, name):
    options = FORMATS[name]
    waveform, notes = read(tmp_path / "a", tone(400, **options) + tone(800, **options))
    assert notes == []
    assert len(waveform) / 8000 == pytest.approx(8, abs=0.2)
    assert loudest_frequency(waveform[: 8000 * 3]) == pytest.approx(400, abs=1)
    assert loudest_frequency(waveform[8000 * 5 :]) == pytest.approx(800, abs=1)


@pytest.mark.parametrize("between", [ID3V2, ID3V1 + ID3V2, APE, bytes(1000)])
def test_joined_mp3s_are_read_past_the_tags_between_them(tmp_path, between):
    content = ID3V2 + tone(400, format="MP3") + between + tone(800, format="MP3") + ID3V1
    waveform, notes = read(tmp_path / "a.mp3", content)
    assert notes == []
    assert len(waveform) / 8000 == pytest.approx(8, abs=0.1)
    assert loudest_frequency(waveform[8000 * 5 :]) == pytest.approx(800, abs=1)


def mp3_without_lengths():
    """Of a rate that varies, so that libsndfile guesses the length from the first frame."""
    content = tone(800, format="MP3")
    return content[content.index(content[:2], 100) :]  # the first frame holds the lengths


@needs_ffmpeg
@pytest.mark.parametrize("before", [b"", tone(400, format="MP3")], ids=["alone", "after another"])
def test_an_mp3_that_does_not_tell_its_length_is_read_to_its_end(tmp_path, before):
    waveform, notes = read(tmp_path / "a.mp3", before + mp3_without_lengths())
    assert notes == []
    assert len(waveform) / 8000 == pytest.approx(8 if before else 4, abs=0.2)
    assert loudest_frequency(waveform[-8000 * 3 :]) == pytest.approx(800, abs=1)


@pytest.mark.usefixtures("no_ffmpeg")
def test_without_ffmpeg_an_mp3_that_does_not_tell_its_length_has_a_remark(tmp_path):
    waveform, (note,) = read(tmp_path / "a.mp3", mp3_without_lengths())
    found = f"{len(waveform) / 8000:.1f}"
    assert re.match(rf"{found} of (3\.9|4\.0) s of sound were read, as the rest does not decode \(.*no ffmpeg", note)


@pytest.mark.parametrize("name", ["ogg", "mp3", "flac"])
def test_parts_of_other_rates_and_channels_keep_pitch_and_length(tmp_path, name):
    options = {key: value for key, value in FORMATS[name].items() if key != "rate"}
    content = tone(400, **options) + tone(800, rate=22050, channels=2, **options) + tone(1200, rate=16000, **options)
    waveform, notes = read(tmp_path / "a", content)
    assert notes == []
    assert len(waveform) / 8000 == pytest.approx(12, abs=0.15)
    for part, hertz in enumerate((400, 800, 1200)):
        middle = waveform[8000 * (4 * part + 1) : 8000 * (4 * part + 3)]
        assert loudest_frequency(middle) == pytest.approx(hertz, abs=1)


def test_a_recording_in_memory_is_read_to_its_end_too(tmp_path):
    content = tone(400, **FORMATS["ogg"]) + tone(800, **FORMATS["ogg"])
    np.testing.assert_array_equal(decode_audio(content, 8000, "a.ogg"), read(tmp_path / "a.ogg", content)[0])


@needs_ffmpeg
def test_joined_m4as_are_read_to_the_end(tmp_path):
    parts = []
    for hertz in (400, 800):
        (tmp_path / "a.wav").write_bytes(tone(hertz, format="WAV"))
        command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-i", tmp_path / "a.wav", tmp_path / "a.m4a"]
        subprocess.run(command, check=True)
        parts.append((tmp_path / "a.m4a").read_bytes())
    waveform, notes = read(tmp_path / "a.m4a", b"".join(parts))
    assert notes == []
    assert len(waveform) / 8000 == pytest.approx(8, abs=0.1)
    assert loudest_frequency(waveform[8000 * 5 :]) == pytest.approx(800, abs=1)


def test_a_second_part_that_does_not_decode_is_a_remark(tmp_path):
    second = bytearray(tone(800, **FORMATS["ogg"]))
    second[len(second) // 10 :] = bytes(len(second) - len(second) // 10)
    waveform, notes = read(tmp_path / "a.ogg", tone(400, **FORMATS["ogg"]) + bytes(second))
    assert len(waveform) >= 32000
    assert len(notes) == 1


# ---------------------------------------------------------------------------------------------------------------- cut


@pytest.mark.parametrize("name", ["wav", "wav of floats", "rf64", "w64", "aiff", "au", "mp3"])
def test_a_file_that_is_cut_off_says_how_much_is_missing(tmp_path, name):
    whole = tone(400, **FORMATS[name])
    waveform, notes = read(tmp_path / "a", whole[: len(whole) // 2])
    assert len(waveform) / 8000 == pytest.approx(2, abs=0.15)
    (note,) = notes
    found, expected = re.match(
        r"([\d.]+) of ([\d.]+) s of sound were read, as the file is cut off; fetch", note
    ).groups()
    assert float(found) == pytest.approx(2, abs=0.15)
    assert float(expected) == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize("name", ["ogg", "opus"])
def test_an_ogg_that_is_cut_off_lacks_the_mark_of_its_end(tmp_path, name):
    whole = tone(400, seconds=20, **FORMATS[name])
    _, notes = read(tmp_path / "a.ogg", whole[: len(whole) // 2])
    (note,) = notes
    assert re.match(r"the file ends after [\d.]+ s without the mark of its end, so it may be cut off", note)


@needs_ffmpeg
@pytest.mark.parametrize(
    ("ending", "options"),
    [
        ("m4a", ["-c:a", "aac", "-movflags", "+faststart"]),
        ("mka", ["-c:a", "libvorbis"]),
        ("wv", ["-c:a", "wavpack"]),
    ],
)
def test_what_only_ffmpeg_decodes_says_how_much_is_missing(tmp_path, ending, options):
    (tmp_path / "a.wav").write_bytes(tone(400, seconds=20, format="WAV"))
    path = tmp_path / f"a.{ending}"
    made = subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-i", tmp_path / "a.wav", *options, path])
    if made.returncode:
        pytest.skip(f"this ffmpeg does not encode {ending}")
    whole = path.read_bytes()
    waveform, notes = read(path, whole)
    assert notes == []
    assert len(waveform) / 8000 == pytest.approx(20, abs=0.1)
    waveform, notes = read(path, whole[: len(whole) * 6 // 10])
    assert 8 < len(waveform) / 8000 < 14
    (note,) = notes
    assert f"{len(waveform) / 8000:.1f} of 20.0 s of sound were read" in note


# ------------------------------------------------------------------------------- damage, and lengths that are not known


def damaged_flac():
    """Eight seconds of which the middle is overwritten, and the samples that were in it."""
    samples = 0.1 * np.random.default_rng(0).standard_normal(8 * 44100).clip(-9, 9)
    file = io.BytesIO()
    soundfile.write(file, samples, 44100, format="FLAC")
    content = bytearray(file.getvalue())
    middle = len(content) // 2
    content[middle : middle + 3000] = np.random.default_rng(1).bytes(3000)
    return bytes(content), soundfile.read(io.BytesIO(file.getvalue()), dtype="float32")[0]


@pytest.mark.usefixtures("no_ffmpeg")
@pytest.mark.parametrize("block", [44100, 1 << 20])
def test_without_ffmpeg_a_damaged_flac_is_read_up_to_the_damage(tmp_path, monkeypatch, block):
    monkeypatch.setattr(audio_io, "BLOCK_VALUES", block)
    content, samples = damaged_flac()
    waveform, notes = read(tmp_path / "a.flac", content, 44100)
    assert 3.8 < len(waveform) / 44100 < 4.1
    np.testing.assert_array_equal(waveform, samples[: len(waveform)])
    (note,) = notes
    assert re.match(
        r"(3\.9|4\.0) of 8\.0 s of sound were read, as the file is cut off or damaged \(libsndfile: .*", note
    )
    assert "no ffmpeg is installed" in note


@needs_ffmpeg
@pytest.mark.parametrize("block", [44100, 1 << 20])
def test_ffmpeg_reads_on_behind_the_damage_of_a_flac(tmp_path, monkeypatch, block):
    monkeypatch.setattr(audio_io, "BLOCK_VALUES", block)
    content, samples = damaged_flac()
    waveform, notes = read(tmp_path / "a.flac", content, 44100)
    assert 7.5 < len(waveform) / 44100 <= 8
    np.testing.assert_array_equal(waveform[: 44100 * 3], samples[: 44100 * 3])
    np.testing.assert_array_equal(waveform[-44100 * 3 :], samples[-44100 * 3 :])
    assert len(notes) == 1


def flac_of_unknown_length():
    content = bytearray(tone(400, format="FLAC"))
    content[21] &= 0xF0  # the 36 bits of the number of samples
    content[22:26] = bytes(4)
    return bytes(content)


def wav_of_length_0():
    content = bytearray(tone(400, format="WAV"))
    content[4:8] = content[40:44] = bytes(4)
    return bytes(content)


@needs_ffmpeg
@pytest.mark.parametrize("content", [flac_of_unknown_length(), wav_of_length_0()], ids=["flac", "wav"])
def test_ffmpeg_reads_what_does_not_know_its_length(tmp_path, content):
    waveform, notes = read(tmp_path / "a", content)
    assert notes == []
    assert len(waveform) == 32000
    assert loudest_frequency(waveform) == pytest.approx(400, abs=1)


@pytest.mark.usefixtures("no_ffmpeg")
def test_without_ffmpeg_a_wav_of_length_0_is_refused_with_a_way_out(tmp_path):
    with pytest.raises(
        AudioError, match=r"found \d+ bytes that do not decode .* no ffmpeg is installed.*install ffmpeg"
    ):
        read(tmp_path / "a.wav", wav_of_length_0())


@pytest.mark.usefixtures("no_ffmpeg")
@pytest.mark.parametrize(
    ("name", "converted"), [("a.flac", "a.wav"), ("a.FLAC", "a.wav"), ("a.wav", "a.flac"), ("a.m4a", "a.flac")]
)
def test_the_way_out_never_writes_to_the_file_that_it_reads(tmp_path, name, converted):
    with pytest.raises(AudioError, match=rf"ffmpeg -i '{name}' '{converted}'"):
        read(tmp_path / name, b"fLaC, or so it says")


def test_a_wav_without_sound_but_with_a_title_is_empty(tmp_path):
    content = bytearray(tone(400, seconds=0, format="WAV"))
    content += b"LIST" + (12).to_bytes(4, "little") + b"INFOINAM" + bytes(4)
    with pytest.raises(AudioError, match="found 0 samples, expected a recording"):
        read(tmp_path / "a.wav", bytes(content))


# -------------------------------------------------------------------------------------------------------- odd headers


@pytest.mark.parametrize("name", FORMATS)
def test_no_header_stops_the_measuring(name):
    whole = tone(400, seconds=0.3, **FORMATS[name])
    random = np.random.default_rng(0)
    for _ in range(300):
        content = bytearray(whole * random.integers(1, 3))
        for position in random.integers(0, min(len(content), 200), random.integers(1, 6)):
            content[position] = random.choice([0, 127, 128, 255, random.integers(0, 256)])
        content = content[: random.integers(0, len(content))]
        parts = measure(io.BytesIO(bytes(content)))
        assert parts[0].start == 0 and parts[-1].end == len(content)
        assert all(0 <= part.start <= part.end and 0 <= part.share <= 1 for part in parts)


def test_a_file_of_nothing_but_ones_is_measured_at_once():
    assert len(measure(io.BytesIO(tone(400, format="MP3") + b"\xff" * (4 << 20)))) == 1


def test_remarks_come_with_the_last_block(tmp_path, monkeypatch):
    monkeypatch.setattr(audio_io, "BLOCK_VALUES", 44100)
    whole = tone(400, format="WAV")
    (tmp_path / "a.wav").write_bytes(whole[: len(whole) // 2])
    notes = []
    blocks = audio_blocks(tmp_path / "a.wav", 44100, notes)
    next(blocks)
    assert notes == []
    list(blocks)
    assert len(notes) == 1
