"""Manifests are checked line by line, scenes mixed by plain arithmetic; varied scenes keep what their captions say."""

import copy
import dataclasses
import json
import pathlib
import unicodedata

import numpy as np
import pytest
import soundfile

from modeling_cnn10bert.data.recipes.soundscapes import (
    Scene,
    SoundEvent,
    SourceBank,
    alternatives,
    read_manifest,
    read_manifests,
    render,
    vary,
)
from modeling_cnn10bert.errors import AudioError, DataError

SHARED = pathlib.Path(__file__).resolve().parents[4] / "shared" / "data"
RATE = 100  # Hz; low, so that expected waveforms can be written down


@pytest.fixture
def sources(tmp_path):
    """Two kinds of constant sounds of 2 s, of peak 0.5 and 0.25, and a silent one."""
    folder = tmp_path / "sources"
    for name, level in {
        "dog/a.wav": 0.5,
        "dog/b.wav": 0.25,
        "rain/a.wav": -0.5,
        "rain/b.wav": 0.25,
        "quiet/a.wav": 0.0,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, np.full(2 * RATE, level), RATE)
    return folder


ROW = {
    "id": "scene-0",
    "duration": 4.0,
    "labels": [1, "rain"],
    "events": [
        {"source": "dog/a.wav", "onset": 0.5, "start": 0.0, "end": 1.0, "gain_db": -6.0},
        {"source": "rain/a.wav", "onset": 1, "start": 0.5, "end": 2, "gain_db": 0},
    ],
    "captions": ["A dog barks while it rains.", "Dog, rain"],
}


def write(folder, *rows, name="train.jsonl"):
    path = folder / name
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def changed(where, value):
    """ROW with one field replaced, or deleted where the value is `...`; `where` is a path of keys."""
    row = copy.deepcopy(ROW)
    *parents, last = where
    target = row
    for key in parents:
        target = target[key]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return row


# --------------------------------------------------------------------------------------------------------- reading


def test_a_manifest_becomes_scenes(tmp_path, sources):
    assert read_manifest(write(tmp_path, ROW), sources) == [
        Scene(
            id="scene-0",
            duration=4.0,
            labels=(1, "rain"),
            events=(SoundEvent("dog/a.wav", 0.5, 0.0, 1.0, -6.0), SoundEvent("rain/a.wav", 1.0, 0.5, 2.0, 0.0)),
            captions=("A dog barks while it rains.", "Dog, rain"),
        )
    ]


def test_line_ends_blank_lines_a_byte_order_mark_and_unknown_keys_do_no_harm(tmp_path, sources):
    path = tmp_path / "train.jsonl"
    second = json.dumps(ROW | {"id": "scene-1", "captions": ["line\u2028separator"]}, ensure_ascii=False)
    path.write_bytes(("\ufeff" + json.dumps(ROW | {"license": "CC BY"}) + "\r\n\r\n" + second).encode())
    assert [scene.id for scene in read_manifest(path, sources)] == ["scene-0", "scene-1"]


def test_a_scene_may_have_back_translations_of_its_captions(tmp_path, sources):
    variants = {
        "fr": ["A dog is barking while it rains.", "Dog, rains"],
        "de": ["A dog barks in the rain.", "Dog rain"],
    }
    (scene,) = read_manifest(write(tmp_path, ROW | {"back_translations": variants}), sources)
    assert scene.back_translations == {"de": tuple(variants["de"]), "fr": tuple(variants["fr"])}


FAULTS = {
    "variants a list": (("back_translations",), [], r"back_translations: found \[\], expected one JSON object"),
    "variants a text": (
        ("back_translations",),
        {"de": "A dog"},
        r"back_translations\.de: found 'A dog', expected a non-empty list",
    ),
    "variant missing": (
        ("back_translations",),
        {"de": ["A dog barks", "Dog"], "fr": ["A dog"]},
        r"back_translations\.fr: found 1 texts, expected 2, one for each caption",
    ),
    "variant null": (
        ("back_translations",),
        {"de": ["A dog", None]},
        r"back_translations\.de\[1\]: found None, expected",
    ),
    "variant empty": (
        ("back_translations",),
        {"de": ["A dog", "."]},
        r"back_translations\.de\[1\]: found '\.', expected",
    ),
    "key missing": (("duration",), ..., "duration: found only the keys .* expected the key 'duration' too"),
    "event key missing": (("events", 1, "onset"), ..., r"events\[1\]\.onset: found only the keys"),
    "id empty": (("id",), " ", "id: found ' ', expected a non-empty string"),
    "id a number": (("id",), 7, "id: found 7, expected a non-empty string"),
    "duration zero": (("duration",), 0, "duration: found 0, expected a finite number of seconds above 0"),
    "duration of a day": (("duration",), 86400, "duration: found 86400, expected a finite .* at most 3600"),
    "duration a text": (("duration",), "4", "duration: found '4', expected a finite number"),
    "duration true": (("duration",), True, "duration: found True, expected a finite number"),
    "duration infinite": (("duration",), float("inf"), "duration: found inf, expected a finite number"),
    "labels a text": (("labels",), "dog", "labels: found 'dog', expected a list of integers or strings"),
    "label true": (("labels",), [True], r"labels: found \[True\], expected a list of integers or strings"),
    "no events": (("events",), [], r"events: found \[\], expected a non-empty list"),
    "events a text": (("events",), "dog", "events: found 'dog', expected a non-empty list"),
    "event a text": (("events", 0), "dog", r"events\[0\]: found 'dog', expected one JSON object"),
    "onset negative": (("events", 0, "onset"), -0.1, r"events\[0\]\.onset: found -0\.1, expected .* at least 0"),
    "onset not a number": (
        ("events", 0, "onset"),
        float("nan"),
        r"events\[0\]\.onset: found nan, expected a finite number",
    ),
    "onset never heard": (
        ("events", 0, "onset"),
        4.0,
        r"events\[0\]\.onset: found 4\.0, expected less than the duration \(4\.0 s\)",
    ),
    "start negative": (("events", 0, "start"), -1, r"events\[0\]\.start: found -1, expected .* at least 0"),
    "end at start": (("events", 1, "end"), 0.5, r"events\[1\]\.end: found 0\.5, expected .* above start \(0\.5 s\)"),
    "end null": (("events", 1, "end"), None, r"events\[1\]\.end: found None, expected a finite number"),
    "gain a text": (
        ("events", 1, "gain_db"),
        "loud",
        r"events\[1\]\.gain_db: found 'loud', expected a finite number of dB",
    ),
    "gain absurd": (
        ("events", 1, "gain_db"),
        1e4,
        r"events\[1\]\.gain_db: found 10000\.0, expected .* from -120 to 120",
    ),
    "gain beyond a float": (("events", 1, "gain_db"), 10**400, r"events\[1\]\.gain_db: found 1000+\.\.\.0+, expected"),
    "no captions": (("captions",), [], r"captions: found \[\], expected a non-empty list"),
    "captions a text": (("captions",), "A dog.", "captions: found 'A dog.', expected a non-empty list"),
    "caption empty": (("captions", 1), "", r"captions\[1\]: found '', expected a text with a word in it"),
    "caption punctuation": (
        ("captions", 1),
        " ?!... ",
        r"captions\[1\]: found ' \?!\.\.\. ', expected a text with a word",
    ),
    "caption null": (("captions", 0), None, r"captions\[0\]: found None, expected a text with a word in it"),
    "source a number": (("events", 0, "source"), 3, r"events\[0\]\.source: found 3, expected the path of a recording"),
    "source empty": (("events", 0, "source"), "", r"events\[0\]\.source: found '', expected the path of a recording"),
    "source with NUL": (
        ("events", 0, "source"),
        "a\0b",
        r"events\[0\]\.source: found .* expected the path of a recording",
    ),
    "source too long": (("events", 0, "source"), "a" * 5000, r"events\[0\]\.source: found .* expected"),
    "source absent": (
        ("events", 0, "source"),
        "dog/z.wav",
        r"events\[0\]\.source: found 'dog/z\.wav', which does not exist, expected a recording in .*sources; check the",
    ),
    "source a folder": (("events", 0, "source"), "dog", r"events\[0\]\.source: found 'dog', which does not exist"),
    "source above": (
        ("events", 0, "source"),
        "../out.wav",
        r"events\[0\]\.source: found '\.\./out\.wav', expected a path that stays inside",
    ),
    "source around": (
        ("events", 0, "source"),
        "dog/../dog/a.wav",
        r"events\[0\]\.source: found .* expected a path that stays inside",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_field_is_named_with_file_line_and_value(tmp_path, sources, fault):
    where, value, message = FAULTS[fault]
    (tmp_path / "out.wav").write_bytes(b"")
    path = write(tmp_path, ROW | {"id": "first"}, changed(where, value))
    with pytest.raises(DataError, match=r"train\.jsonl:2: " + message) as error:
        read_manifest(path, sources)
    assert ";" in str(error.value), "the message says what to do"


def test_an_absolute_source_is_refused_even_inside_the_folder(tmp_path, sources):
    path = write(tmp_path, changed(("events", 0, "source"), str(sources / "dog" / "a.wav")))
    with pytest.raises(DataError, match=r"train\.jsonl:1: events\[0\]\.source: .* expected a path that stays inside"):
        read_manifest(path, sources)


def test_a_source_has_one_name_however_the_lines_write_it(tmp_path, sources):
    (sources / "dog" / unicodedata.normalize("NFD", "é.wav")).write_bytes((sources / "dog" / "a.wav").read_bytes())
    names = ["dog/a.wav", "./dog/a.wav", "dog//a.wav", "dog\\a.wav", unicodedata.normalize("NFC", "dog/é.wav")]
    rows = [changed(["events", 0, "source"], name) | {"id": name} for name in names]
    scenes = read_manifest(write(tmp_path, *rows), sources)
    assert {scene.events[0].source for scene in scenes[:4]} == {"dog/a.wav"}
    assert alternatives(scenes)["dog/a.wav"] == ["dog/a.wav", scenes[4].events[0].source]


@pytest.mark.parametrize("name", ["dog/../../outside.wav", "..\\outside.wav", "dog\\..\\..\\outside.wav"])
def test_no_spelling_leads_out_of_the_sources_folder(name, tmp_path, sources):
    soundfile.write(tmp_path / "outside.wav", np.zeros(RATE), RATE)
    with pytest.raises(DataError, match=r"events\[0\]\.source"):
        read_manifest(write(tmp_path, changed(["events", 0, "source"], name)), sources)


def test_a_link_out_of_the_sources_folder_is_refused_and_one_within_is_fine(tmp_path, sources):
    (tmp_path / "secret.wav").write_bytes(b"")
    (sources / "out.wav").symlink_to(tmp_path / "secret.wav")
    (sources / "within.wav").symlink_to(sources / "dog" / "a.wav")
    (tmp_path / "linked").symlink_to(sources)
    assert read_manifest(write(tmp_path, changed(("events", 0, "source"), "within.wav")), tmp_path / "linked")
    with pytest.raises(
        DataError, match=r"source: found 'out\.wav', expected a path that stays inside .*; put the recording"
    ):
        read_manifest(write(tmp_path, changed(("events", 0, "source"), "out.wav")), sources)


@pytest.mark.parametrize(
    "line",
    ["{", "[]", "3", "\x00", "[" * 100_000, '{"captions": ["\\ud800 dog"]}'],
    ids=["cut off", "a list", "a number", "NUL", "deep", "half of a surrogate pair"],
)
def test_a_line_that_is_no_json_object_is_named(tmp_path, sources, line):
    with pytest.raises(
        DataError, match=r"(?s)train\.jsonl:2: line: found .* expected one JSON object; correct the line"
    ):
        read_manifest(write(tmp_path, ROW, line), sources)


def test_an_id_used_twice_names_both_lines(tmp_path, sources):
    with pytest.raises(DataError, match=r"train\.jsonl:2: id: found 'scene-0', which line 1 has too, expected an id"):
        read_manifest(write(tmp_path, ROW, ROW), sources)


def test_a_manifest_without_scenes_is_refused(tmp_path, sources):
    with pytest.raises(DataError, match=r"train\.jsonl: found no scene, expected at least one line"):
        read_manifest(write(tmp_path, ""), sources)


def test_a_manifest_that_cannot_be_read_is_named(tmp_path, sources):
    with pytest.raises(DataError, match=r"absent\.jsonl: found .*No such file.* expected a text file; check the path"):
        read_manifest(tmp_path / "absent.jsonl", sources)
    (tmp_path / "latin.jsonl").write_bytes(b"\xe9")
    with pytest.raises(DataError, match=r"latin\.jsonl:1: found the byte 0xe9, which is not UTF-8"):
        read_manifest(tmp_path / "latin.jsonl", sources)


def test_a_missing_sources_folder_is_named(tmp_path):
    with pytest.raises(
        DataError, match=r"found no folder .*nowhere, expected the recordings there; check the sources folder"
    ):
        read_manifest(write(tmp_path, ROW), tmp_path / "nowhere")


def test_a_set_is_read_by_split(tmp_path, sources):
    for split in ("train", "validation", "test"):
        write(tmp_path, ROW | {"id": f"{split}-0"}, name=f"{split}.jsonl")
    scenes = read_manifests(tmp_path, sources)
    assert {split: [scene.id for scene in members] for split, members in scenes.items()} == {
        "train": ["train-0"],
        "validation": ["validation-0"],
        "test": ["test-0"],
    }


def test_missing_manifests_of_a_set_are_all_named(tmp_path, sources):
    write(tmp_path, ROW, name="validation.jsonl")
    with pytest.raises(
        DataError, match=r"found no train\.jsonl, test\.jsonl, expected .*; check the folder, or write a set"
    ):
        read_manifests(tmp_path, sources)


def test_an_id_in_two_splits_is_refused(tmp_path, sources):
    for split, scene_id in (("train", "x"), ("validation", "y"), ("test", "x")):
        write(tmp_path, ROW | {"id": scene_id}, name=f"{split}.jsonl")
    with pytest.raises(
        DataError, match=r"test\.jsonl: id: found 'x', which train\.jsonl has too, expected ids that no other"
    ):
        read_manifests(tmp_path, sources)


# ------------------------------------------------------------------------------------------------------- rendering


def scene_of(*events, duration=4.0):
    return Scene("scene-0", duration, (), tuple(SoundEvent(*event) for event in events), ("a sound",))


def test_events_are_normalised_cut_scaled_and_added_at_their_onset(sources):
    # dog/a (constant 0.5) becomes 1, at -20 dB 0.1, from 0.5 s to 1.5 s; rain/a (-0.5) becomes -1, from 1 s to 2.5 s.
    waveform = render(
        scene_of(("dog/a.wav", 0.5, 0.0, 1.0, -20.0), ("rain/a.wav", 1.0, 0.5, 2.0, 0.0)), SourceBank(sources, RATE)
    )
    expected = np.repeat([0.0, 0.1, -0.9, -1.0, 0.0], [50, 50, 50, 100, 150])
    assert waveform.dtype == np.float32
    np.testing.assert_allclose(waveform, expected, atol=1e-7)


def test_what_runs_past_the_end_is_cut_and_a_short_source_simply_ends(sources):
    waveform = render(
        scene_of(("dog/a.wav", 3.5, 0.0, 2.0, 0.0), ("dog/b.wav", 0.0, 1.5, 3.0, 0.0)), SourceBank(sources, RATE)
    )
    np.testing.assert_array_equal(waveform, np.repeat([1.0, 0.0, 1.0], [50, 300, 50]))


def test_a_source_that_is_cut_off_is_named_in_the_log(sources, caplog):
    soundfile.write(sources / "dog" / "a.wav", np.full(4 * RATE, 0.5), RATE)
    whole = (sources / "dog" / "a.wav").read_bytes()
    (sources / "dog" / "a.wav").write_bytes(whole[: len(whole) // 2])
    waveform = render(scene_of(("dog/a.wav", 0.0, 0.0, 4.0, 0.0)), SourceBank(sources, RATE))
    assert np.count_nonzero(waveform) == pytest.approx(2 * RATE, abs=30)
    (line,) = caplog.messages
    assert line.startswith(f"{sources / 'dog' / 'a.wav'}: ") and "the file is cut off" in line


def test_sums_are_not_clipped(sources):
    waveform = render(
        scene_of(("dog/a.wav", 0.0, 0.0, 2.0, 0.0), ("dog/b.wav", 0.0, 0.0, 2.0, 0.0), duration=2.0),
        SourceBank(sources, RATE),
    )
    np.testing.assert_array_equal(waveform, 2.0)


def test_the_peak_is_that_of_the_whole_file_not_of_the_cut(tmp_path):
    soundfile.write(tmp_path / "step.wav", np.repeat([0.25, 0.5], [RATE, RATE]), RATE)
    waveform = render(scene_of(("step.wav", 0.0, 0.0, 1.0, 0.0), duration=1.0), SourceBank(tmp_path, RATE))
    np.testing.assert_array_equal(waveform, 0.5)


def test_a_silent_source_stays_silent(sources):
    waveform = render(scene_of(("quiet/a.wav", 0.0, 0.0, 2.0, 0.0)), SourceBank(sources, RATE))
    np.testing.assert_array_equal(waveform, np.zeros(4 * RATE))


def test_sources_are_resampled_to_the_banks_rate(sources):
    assert SourceBank(sources, 2 * RATE).load("dog/a.wav").shape == (4 * RATE,)
    assert render(scene_of(("dog/a.wav", 0.0, 0.0, 2.0, 0.0)), SourceBank(sources, 2 * RATE)).shape == (8 * RATE,)


def test_a_source_is_decoded_once_and_rendering_does_not_change_it(sources):
    bank = SourceBank(sources, RATE)
    scene = scene_of(("dog/a.wav", 0.0, 0.0, 2.0, -3.0), ("rain/a.wav", 0.0, 0.0, 2.0, 0.0))
    first = render(scene, bank)
    (sources / "dog" / "a.wav").unlink()
    np.testing.assert_array_equal(render(scene, bank), first)
    assert bank.load("dog/a.wav").max() == 1.0


def test_an_undecodable_source_is_named_with_its_scene(sources):
    (sources / "dog" / "a.wav").write_bytes(b"not audio")
    with pytest.raises(AudioError, match=r"scene 'scene-0': .*dog/a\.wav: found 9 bytes that do not decode"):
        render(scene_of(("dog/a.wav", 0.0, 0.0, 2.0, 0.0)), SourceBank(sources, RATE))


def test_a_recording_at_twice_the_speed_is_an_octave_higher_and_half_as_long(tmp_path):
    rate = 32_000
    soundfile.write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 500 * np.arange(rate) / rate), rate, subtype="FLOAT")
    scene = Scene("scene-0", 1.0, (), (SoundEvent("a.wav", 0.0, 0.0, 1.0, 0.0, speed=2.0),), ("a sound",))
    mix = render(scene, SourceBank(tmp_path, rate))
    assert np.abs(mix[rate // 2 :]).max() == 0
    spectrum = np.abs(np.fft.rfft(mix[: rate // 2]))  # 2 Hz a bin
    assert 2 * spectrum.argmax() == 1000


# --------------------------------------------------------------------------------------------------------- varying


DOGS = [f"dog/{i}.wav" for i in range(4)]
RAINS = [f"rain/{i}.wav" for i in range(4)]
KINDS = {source: kind for kind in (DOGS, RAINS) for source in kind}
SCENES = {  # as the benchmark's grammar writes them
    "one": scene_of(("dog/0.wav", 1.2, 0.0, 5.0, 0.0), duration=8.0),
    "while": scene_of(("dog/0.wav", 0.4, 0.0, 5.0, 0.0), ("rain/0.wav", 2.9, 0.0, 5.0, 0.0), duration=8.0),
    "then": scene_of(("dog/0.wav", 0.0, 0.0, 3.8, 0.0), ("rain/0.wav", 3.9, 0.0, 4.0, 0.0), duration=8.0),
    "past the end": scene_of(("dog/0.wav", 0.0, 0.0, 3.0, 0.0), ("rain/0.wav", 4.2, 0.0, 4.0, 0.0), duration=8.0),
    "triple": scene_of(
        ("dog/0.wav", 0.0, 0.0, 3.8, 0.0),
        ("rain/0.wav", 0.2, 0.0, 3.5, 0.0),
        ("dog/1.wav", 4.0, 0.0, 4.0, 0.0),
        duration=8.0,
    ),
    "adjacent": scene_of(("dog/0.wav", 1.0, 0.0, 2.0, 0.0), ("rain/0.wav", 3.0, 0.0, 2.0, 0.0), duration=8.0),
}


def spans(scene):
    return [(event.onset, min(event.onset + event.end - event.start, scene.duration)) for event in scene.events]


def relations(scene):
    """For every two events: which of them is over before the other begins, or that they overlap."""
    return [
        [int(a_end <= b_on + 1e-9) - int(b_end <= a_on + 1e-9) for b_on, b_end in spans(scene)]
        for a_on, a_end in spans(scene)
    ]


def variations(scene, count=300):
    rng = np.random.default_rng(0)
    return [vary(scene, rng, KINDS) for _ in range(count)]


@pytest.mark.parametrize("form", SCENES)
def test_overlap_and_order_of_the_events_survive(form):
    for varied in variations(SCENES[form]):
        assert relations(varied) == relations(SCENES[form])


@pytest.mark.parametrize("form", SCENES)
def test_a_varied_scene_would_pass_the_manifest_reader(tmp_path, form):
    for source in KINDS:
        (tmp_path / source).parent.mkdir(exist_ok=True)
        (tmp_path / source).touch()
    varied = [dataclasses.replace(scene, id=str(i)) for i, scene in enumerate(variations(SCENES[form]))]
    path = write(tmp_path, *[json.dumps(dataclasses.asdict(scene)) for scene in varied])
    assert read_manifest(path, tmp_path) == varied


@pytest.mark.parametrize("form", SCENES)
def test_times_move_by_one_shift_and_at_most_a_third_of_a_second_more(form):
    before = np.array(spans(SCENES[form])).ravel()
    for varied in variations(SCENES[form]):
        moves = np.array(spans(varied)).ravel() - before
        assert np.ptp(moves) <= 2 * 0.3 + 1e-9


def test_a_lone_sound_may_move_anywhere_in_the_scene():
    onsets = [scene.events[0].onset for scene in variations(SCENES["one"])]
    assert min(onsets) < 0.3
    assert max(onsets) > 2.7


def test_events_take_other_recordings_of_their_kind():
    varied = variations(SCENES["while"])
    assert {scene.events[0].source for scene in varied} == set(DOGS[1:])
    assert {scene.events[1].source for scene in varied} == set(RAINS[1:])


def test_a_recording_without_alternatives_is_kept():
    assert vary(SCENES["one"], np.random.default_rng(0), {"dog/0.wav": ["dog/0.wav"]}).events[0].source == "dog/0.wav"


def test_gains_fill_the_range_of_the_benchmark():
    gains = [event.gain_db for scene in variations(SCENES["while"]) for event in scene.events]
    assert -6 <= min(gains) < -5.8
    assert -0.2 < max(gains) <= 0


def test_recordings_are_played_at_five_speeds_evenly_spaced_in_pitch():
    rng = np.random.default_rng(0)
    speeds = {event.speed for _ in range(100) for event in vary(SCENES["while"], rng, KINDS, max_speed=1.44).events}
    np.testing.assert_allclose(sorted(speeds), [1 / 1.44, 1 / 1.2, 1, 1.2, 1.44])


def test_at_their_own_speed_nothing_else_is_drawn_differently():
    plain, other = (vary(SCENES["one"], np.random.default_rng(0), KINDS, speed).events[0] for speed in (1.0, 1.2))
    assert plain.speed == 1
    assert dataclasses.replace(other, speed=1.0) == plain


def test_what_the_captions_are_about_is_kept():
    varied = vary(SCENES["triple"], np.random.default_rng(0), KINDS)
    assert dataclasses.replace(varied, events=SCENES["triple"].events) == SCENES["triple"]


def test_the_generator_is_the_only_source_of_chance():
    first, again, other = (vary(SCENES["then"], np.random.default_rng(seed), KINDS) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_alternatives_are_the_recordings_of_the_same_folder_that_the_scenes_use():
    scenes = [
        scene_of(("dog/b.wav", 0.0, 0.0, 1.0, 0.0), ("rain/a.wav", 0.0, 0.0, 1.0, 0.0)),
        scene_of(("dog/a.wav", 0.0, 0.0, 1.0, 0.0)),
    ]
    assert alternatives(scenes) == {
        "dog/a.wav": ["dog/a.wav", "dog/b.wav"],
        "dog/b.wav": ["dog/a.wav", "dog/b.wav"],
        "rain/a.wav": ["rain/a.wav"],
    }


def test_a_scene_of_another_split_cannot_be_varied():
    scene = scene_of(("cat/0.wav", 0.0, 0.0, 1.0, 0.0))
    with pytest.raises(
        ValueError, match=r"'scene-0': found the source 'cat/0\.wav', expected .* 8 recordings .*; vary only training"
    ):
        vary(scene, np.random.default_rng(0), KINDS)


# ---------------------------------------------------------------------------------------------- the real benchmark


@pytest.fixture(scope="module")
def benchmark():
    if not (SHARED / "esc10_soundscapes").is_dir():
        pytest.skip("the ESC-10 soundscape benchmark is not at hand")
    return read_manifests(SHARED / "esc10_soundscapes", SHARED / "esc10")


def test_the_benchmark_has_3000_200_and_200_scenes_that_share_no_recording(benchmark):
    assert {split: len(scenes) for split, scenes in benchmark.items()} == {
        "train": 3000,
        "validation": 200,
        "test": 200,
    }
    used = [set(alternatives(scenes)) for scenes in benchmark.values()]
    assert not (used[0] & used[1] or used[0] & used[2] or used[1] & used[2])


def test_training_alternatives_are_of_the_training_folds(benchmark):
    for members in alternatives(benchmark["train"]).values():
        assert all(pathlib.PurePath(source).name[0] in "123" for source in members)


def test_every_training_scene_keeps_its_relations_when_varied(benchmark):
    rng, others = np.random.default_rng(0), alternatives(benchmark["train"])
    for scene in benchmark["train"]:
        assert relations(vary(scene, rng, others)) == relations(scene)


def test_a_real_scene_is_the_mix_computed_by_hand(benchmark):
    scene = benchmark["test"][
        199
    ]  # three sounds: (helicopter while chainsaw) then sea waves; the last runs past the end
    assert [event.onset for event in scene.events] == [0.0, 0.129, 4.118]
    helicopter, chainsaw, waves = (
        soundfile.read(SHARED / "esc10" / name, dtype="float64")[0]
        for name in (
            "007 - Helicopter/5-177957-B.ogg",
            "008 - Chainsaw/5-170338-B.ogg",
            "003 - Sea waves/5-200461-A.ogg",
        )
    )
    expected = np.zeros(352800)  # 8 s at 44.1 kHz
    expected[:167580] += helicopter[:167580] / abs(helicopter).max() * 10 ** (-5.56 / 20)  # 3.8 s
    expected[5689 : 5689 + 154350] += chainsaw[:154350] / abs(chainsaw).max() * 10 ** (-5.35 / 20)  # at 0.129 s, 3.5 s
    expected[181604:] += waves[: 352800 - 181604] / abs(waves).max() * 10 ** (-4.91 / 20)  # at 4.118 s, to the end
    np.testing.assert_allclose(render(scene, SourceBank(SHARED / "esc10", 44100)), expected, atol=1e-6)
