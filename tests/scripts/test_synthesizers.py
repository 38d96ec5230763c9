"""Synthetic recordings differ by kind and from each other; the benchmark of them has one right answer a query."""

import collections
import json
import string

import numpy as np
import pytest
import scipy.signal
import soundfile

from demo.synthesizers import SYNTHESIZERS, compositions, generate_soundscapes, main
from modeling_cnn10bert.data.recipes.soundscapes import alternatives, read_manifests

SIZES = {"num_train": 300, "num_validation": 60, "num_test": 40, "clips_per_kind": 5}
KINDS = list(SYNTHESIZERS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return generate_soundscapes(tmp_path_factory.mktemp("soundscapes") / "set", **SIZES)


@pytest.fixture(scope="module")
def scenes(folder):
    return read_manifests(folder, folder / "sources")


def normalised(text):
    return text.lower().translate(str.maketrans("", "", string.punctuation))


def content(scene):
    """What is heard: for each event its kind, and whether it begins when another is over."""
    kinds = [event.source.split("/")[0] for event in scene.events]
    begins_late = [event.onset > 3.5 for event in scene.events]  # by the grammar: only what comes after another
    return frozenset(zip(kinds, begins_late, strict=True))


# ---------------------------------------------------------------------------------------------------------- sounds


def test_there_are_at_least_twelve_kinds():
    assert len(SYNTHESIZERS) >= 12


@pytest.mark.parametrize("kind", KINDS)
def test_a_recording_is_five_seconds_of_finite_float32_below_full_scale(kind):
    for rate in (16000, 32000):
        waveform = SYNTHESIZERS[kind].function(np.random.default_rng(0), rate)
        assert waveform.dtype == np.float32
        assert waveform.shape == (5 * rate,)
        assert np.isfinite(waveform).all()
        assert 0.49 < np.abs(waveform).max() < 0.96


@pytest.mark.parametrize("kind", KINDS)
def test_recordings_of_a_kind_differ_and_each_follows_from_its_seed(kind):
    first, again, other = (SYNTHESIZERS[kind].function(np.random.default_rng(seed), 32000) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_is_heard_within_the_three_seconds_that_every_scene_keeps(kind):
    for seed in range(5):
        waveform = SYNTHESIZERS[kind].function(np.random.default_rng(seed), 32000)
        assert np.abs(waveform[: 3 * 32000]).max() > 0.25 * np.abs(waveform).max()


def test_an_alarm_beeps_at_one_fixed_pitch_between_1800_and_3300_hz():
    waveform = SYNTHESIZERS["alarm"].function(np.random.default_rng(1), 32000)
    frequency = np.argmax(np.abs(np.fft.rfft(waveform))) / 5  # bins of 0.2 Hz
    assert 1800 <= frequency <= 3300


def test_a_helicopter_is_chopped_9_to_17_times_a_second():
    for seed in range(3):
        waveform = SYNTHESIZERS["helicopter"].function(np.random.default_rng(seed), 32000)
        envelope = np.abs(waveform).reshape(-1, 320).mean(axis=1)  # 100 Hz
        spectrum = np.abs(np.fft.rfft(envelope - envelope.mean()))
        assert 9 <= np.argmax(spectrum[25:]) / 5 + 5 <= 17.6  # from 5 Hz on, bins of 0.2 Hz


def test_the_kinds_are_told_apart_by_their_nearest_neighbour(folder):
    """By level, spread and roughness of 32 bands alone: of each kind, three recordings are known and two are asked."""

    def features(path):
        waveform, rate = soundfile.read(path)
        frequencies, _, spectrum = scipy.signal.stft(waveform, rate, nperseg=1024)
        band = np.digitize(frequencies, np.geomspace(60, 14000, 32))
        power = np.stack([(np.abs(spectrum[band == b]) ** 2).sum(axis=0) for b in range(33) if (band == b).any()])
        log_power = 10 * np.log10(np.maximum(power, 1e-10))
        return np.concatenate([log_power.mean(axis=1), log_power.std(axis=1), np.abs(np.diff(log_power)).mean(axis=1)])

    table = np.array([[features(folder / "sources" / kind / f"{n:03d}.flac") for n in range(5)] for kind in KINDS])
    table = (table - table.mean(axis=(0, 1))) / table.std(axis=(0, 1))  # [kinds, recordings, features]
    known, asked = table[:, :3].reshape(len(KINDS) * 3, -1), table[:, 3:].reshape(len(KINDS) * 2, -1)
    nearest = np.linalg.norm(asked[:, None] - known[None], axis=-1).argmin(axis=1) // 3
    assert np.mean(nearest == np.arange(len(KINDS)).repeat(2)) > 0.85  # chance is 0.07


# --------------------------------------------------------------------------------------------------------- phrases


def test_no_phrase_says_two_things():
    phrases = [normalised(p) for kind in SYNTHESIZERS.values() for p in kind.phrases + kind.reserved]
    assert [phrase for phrase, count in collections.Counter(phrases).items() if count > 1] == []


def test_every_kind_has_enough_phrases_for_five_different_captions():
    for kind in SYNTHESIZERS.values():
        assert len(kind.phrases) >= 5
        assert len(kind.reserved) >= 3


# --------------------------------------------------------------------------------------------------- the benchmark


def test_there_are_as_many_contents_as_counting_says():
    # of n = 14 kinds: n single, n (n - 1) / 2 at once, n (n - 1) in order, n (n - 1) / 2 * (n - 2) of three
    counts = {form: len(set(members)) for form, members in compositions("abcdefghijklmn").items()}
    assert counts == {"one": 14, "while": 91, "then": 182, "triple": 1092}


def test_the_set_has_the_asked_sizes_and_recordings_of_32_khz_16_bit(folder, scenes):
    assert {split: len(members) for split, members in scenes.items()} == {"train": 300, "validation": 60, "test": 40}
    paths = sorted((folder / "sources").rglob("*.flac"))
    assert len(paths) == 5 * len(KINDS)
    info = soundfile.info(paths[0])
    assert (info.samplerate, info.channels, info.subtype, info.frames) == (32000, 1, "PCM_16", 160000)


def test_splits_share_no_recording(scenes):
    train, validation, test = (set(alternatives(members)) for members in scenes.values())
    assert not (train & validation or train & test or validation & test)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_every_content_comes_at_most_once_where_it_is_searched_for(scenes, split):
    contents = [content(scene) for scene in scenes[split]]
    assert len(set(contents)) == len(contents)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_caption_names_exactly_the_sounds_of_its_scene(scenes, split):
    phrases = {kind: SYNTHESIZERS[kind].phrases + SYNTHESIZERS[kind].reserved for kind in KINDS}
    for scene in scenes[split]:
        kinds = {event.source.split("/")[0] for event in scene.events}
        assert set(scene.labels) == kinds
        for caption in scene.captions:
            found = {kind for kind in kinds if any(phrase in caption.lower() for phrase in phrases[kind])}
            assert found == kinds


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_what_is_told_last_is_heard_last(scenes, split):
    for scene in scenes[split]:
        first, last = scene.events[0].source.split("/")[0], scene.events[-1].source.split("/")[0]
        for caption in (caption.lower() for caption in scene.captions):
            sequential = any(word in caption for word in (" and then ", " and afterwards ", "first ", " before ")) or (
                caption.startswith("after ")
            )
            assert sequential == (scene.events[-1].onset > 3.5 and len(scene.events) > 1)
            if sequential:
                where = {
                    kind: max(caption.find(p) for p in SYNTHESIZERS[kind].phrases + SYNTHESIZERS[kind].reserved)
                    for kind in (first, last)
                }
                assert where[first] < where[last]


def test_five_captions_of_a_scene_differ_in_words(scenes):
    for members in scenes.values():
        assert all(len({normalised(caption) for caption in scene.captions}) == 5 for scene in members)


def test_training_never_shows_a_reserved_phrase_and_test_does(scenes):
    reserved = [phrase for kind in SYNTHESIZERS.values() for phrase in kind.reserved]

    def share(split):
        captions = [caption.lower() for scene in scenes[split] for caption in scene.captions]
        return np.mean([any(phrase in caption for phrase in reserved) for caption in captions])

    assert share("train") == 0
    assert share("validation") > 0.4
    assert share("test") > 0.4


@pytest.fixture
def four_kinds(monkeypatch):
    """Fewer kinds, where a test writes whole sets."""
    for kind in KINDS[4:]:
        monkeypatch.delitem(SYNTHESIZERS, kind)


@pytest.mark.usefixtures("four_kinds")
def test_the_same_parameters_give_the_same_files_and_another_seed_others(tmp_path):
    sizes = {"num_train": 3, "num_validation": 3, "num_test": 3, "clips_per_kind": 3}
    first, again, other = (
        generate_soundscapes(tmp_path / name, **sizes, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    names = sorted(str(path.relative_to(first)) for path in first.rglob("*") if path.is_file())
    assert len(names) == 3 * 4 + 4  # recordings; three manifests and the parameters
    assert all((first / name).read_bytes() == (again / name).read_bytes() for name in names)
    assert all((first / name).read_bytes() != (other / name).read_bytes() for name in names)


def test_a_finished_set_is_used_again(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert generate_soundscapes(folder, **SIZES) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_set_of_other_parameters_is_left_alone(folder):
    with pytest.raises(FileExistsError, match=r"set: found a soundscape set of .*'seed': 2022.* expected .*'seed': 7"):
        generate_soundscapes(folder, **SIZES, seed=7)


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("all my work")
    with pytest.raises(FileExistsError, match="found something that is no soundscape set .* choose another folder"):
        generate_soundscapes(tmp_path, **SIZES)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_run_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def broken(rng, sampling_rate):
        raise RuntimeError("out of noise")

    monkeypatch.setitem(SYNTHESIZERS, "bell", SYNTHESIZERS["bell"]._replace(function=broken))
    with pytest.raises(RuntimeError, match="out of noise"):
        generate_soundscapes(tmp_path / "set", **SIZES)
    assert list(tmp_path.iterdir()) == []


def test_more_scenes_than_contents_is_one_clear_error(tmp_path):
    with pytest.raises(ValueError, match="num_test: found 1380, expected at most 1379, as 14 kinds .* ask for fewer"):
        generate_soundscapes(tmp_path / "set", num_test=1380)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name, value, least", [("num_train", 0, 1), ("num_validation", -1, 1), ("clips_per_kind", 2, 3)]
)
def test_too_small_a_number_is_named(tmp_path, name, value, least):
    with pytest.raises(ValueError, match=f"{name}: found {value}, expected at least {least}"):
        generate_soundscapes(tmp_path / "set", **{name: value})


@pytest.mark.usefixtures("four_kinds")
def test_the_command_writes_a_set_into_an_empty_folder_and_reports_errors_in_a_line(tmp_path, capsys):
    sizes = ["--num_train", "2", "--num_validation", "1", "--num_test", "1", "--clips_per_kind", "3"]
    main([str(tmp_path), *sizes])
    assert "2 / 1 / 1 scenes" in capsys.readouterr().out
    assert json.loads((tmp_path / "soundscapes.json").read_text())["clips_per_kind"] == 3
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path), *sizes, "--seed", "1"])
    assert stop.value.code == 1
    assert "choose another folder" in capsys.readouterr().err
