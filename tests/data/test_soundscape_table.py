"""Scenes become a cached recordings table."""

import dataclasses
import os

import numpy as np
import pytest
import soundfile
import torch

from modeling_cnn10bert import CNN10FeatureExtractor
from modeling_cnn10bert.data.features import LOG_MEL_STEP, MelStatistics, decode_log_mel
from modeling_cnn10bert.data.recipes.soundscapes import Scene, SoundEvent, SourceBank, render, soundscape_table
from modeling_cnn10bert.errors import AudioError, DataError

SMALL = {"feature_size": 16, "hop_length": 1280}


@pytest.fixture
def sources(tmp_path):
    """Three one-second recordings of each of two kinds."""
    for kind, low in (("hum", 100), ("hiss", 5000)):
        (tmp_path / "sources" / kind).mkdir(parents=True)
        for number in range(3):
            time = np.arange(32_000) / 32_000
            tone = 0.5 * np.sin(2 * np.pi * low * (1 + number) * time).astype(np.float32)
            soundfile.write(tmp_path / "sources" / kind / f"{number}.wav", tone, 32_000)
    return tmp_path / "sources"


@pytest.fixture
def scenes():
    """Six scenes of 1.5 s, of one or two sounds."""
    scenes = []
    for number in range(6):
        events = [SoundEvent(f"hum/{number % 3}.wav", 0.1, 0.0, 0.8, -3.0)]
        if number % 2:
            events.append(SoundEvent(f"hiss/{number % 3}.wav", 0.5, 0.0, 0.9, -1.0))
        captions = (f"it hums {number}", f"a hum {number}")
        scenes.append(Scene(f"scene-{number}", 1.5, ("hum",), tuple(events), captions))
    return scenes


@pytest.fixture
def prepare(tmp_path, sources, scenes):
    """Prepares the table of the scenes, or of others; `parameters` are the feature extractor's."""

    def prepare(scenes=scenes, parameters=None, cache="cache", **options):
        extractor = CNN10FeatureExtractor(**SMALL | (parameters or {}))
        return soundscape_table(scenes, sources, extractor, tmp_path / cache, **options)

    return prepare


def _tables(tmp_path):
    return {path.name for path in (tmp_path / "cache").iterdir()}


def test_a_row_is_the_log_mel_of_its_rendered_scene(prepare, scenes, sources):
    table = prepare()
    bank, extractor = SourceBank(sources, 32_000), CNN10FeatureExtractor(**SMALL)
    assert table["recording_id"][:] == [scene.id for scene in scenes]
    assert [tuple(captions) for captions in table["captions"]] == [scene.captions for scene in scenes]
    log_mels = [extractor.log_mel(render(scene, bank)) for scene in scenes]
    for row, log_mel in zip(table, log_mels, strict=True):
        assert row["length"] == len(log_mel) == 1 + 48_000 // 1280
        assert (decode_log_mel(row["log_mel"], 16) - log_mel).abs().max() <= LOG_MEL_STEP / 2 * 1.01
    mean = MelStatistics.of_table(table).overall_mean
    torch.testing.assert_close(mean, torch.cat(log_mels).mean(dim=0), rtol=0, atol=LOG_MEL_STEP)


def test_the_table_is_rendered_once(prepare, monkeypatch):
    first = prepare()
    monkeypatch.setattr("modeling_cnn10bert.data.recipes.soundscapes.render", lambda *_: pytest.fail("rendered again"))
    again = prepare()
    assert again["log_mel"][:] == first["log_mel"][:]
    assert again.cache_files


@pytest.mark.parametrize(
    "change",
    [
        {"feature_size": 20},
        {"n_fft": 2048},
        {"hop_length": 640},
        {"f_min": 60.0},
        {"f_max": 13_000.0},
        {"min_frames": 32},
        {"sampling_rate": 16_000, "f_max": 7_000.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_parameter_of_the_features_makes_another_table(change, prepare, tmp_path):
    prepare()
    prepare(parameters=change)
    assert len(_tables(tmp_path)) == 2


def test_any_change_of_a_scene_makes_another_table(prepare, scenes, tmp_path):
    event = scenes[0].events[0]
    changed = [
        dataclasses.replace(scenes[0], captions=("other words",)),
        dataclasses.replace(scenes[0], duration=1.6),
        dataclasses.replace(scenes[0], events=(dataclasses.replace(event, gain_db=-4.0),)),
        dataclasses.replace(scenes[0], events=(dataclasses.replace(event, source="hum/1.wav"),)),
    ]
    prepare()
    for scene in changed:
        prepare([scene, *scenes[1:]])
    prepare(scenes[:-1])
    prepare(scenes[::-1])
    assert len(_tables(tmp_path)) == 1 + len(changed) + 2


def test_another_source_file_makes_another_table(prepare, sources, tmp_path):
    before = prepare()
    noise = 0.1 * np.random.default_rng(0).standard_normal(32_000).astype(np.float32)
    soundfile.write(sources / "hum" / "0.wav", noise, 32_000)
    after = prepare()
    assert before[0]["log_mel"] != after[0]["log_mel"]

    os.utime(sources / "hum" / "1.wav", ns=(0, 0))  # the same size at another time may hold another sound
    prepare()
    assert len(_tables(tmp_path)) == 3


def test_renderings_share_the_recording_and_its_captions_and_differ_in_sound(prepare, scenes, tmp_path):
    once = prepare()
    table = prepare(renderings=3)
    assert len(_tables(tmp_path)) == 2
    assert len(table) == 3 * len(scenes)
    assert len(set(table["file_name"][:])) == len(table)
    for number, scene in enumerate(scenes):
        rows = [table[3 * number + rendering] for rendering in range(3)]
        assert {row["recording_id"] for row in rows} == {scene.id}
        assert {tuple(row["captions"]) for row in rows} == {scene.captions}
        assert rows[0]["log_mel"] == once[number]["log_mel"]
        assert len({row["log_mel"] for row in rows}) == 3


def test_the_seed_draws_the_renderings_and_nothing_else(prepare, tmp_path):
    prepare(seed=0)
    prepare(seed=1)
    assert len(_tables(tmp_path)) == 1
    first, second = prepare(renderings=2, seed=0), prepare(renderings=2, seed=1)
    assert first["log_mel"][::2] == second["log_mel"][::2]
    assert first["log_mel"][1::2] != second["log_mel"][1::2]


def test_one_process_or_two_prepare_the_same_bytes(prepare):
    one = prepare(renderings=2)
    two = prepare(renderings=2, num_proc=2, cache="another cache")
    assert one.to_dict() == two.to_dict()


def test_fewer_than_one_rendering_is_an_error(prepare):
    with pytest.raises(ValueError, match="renderings must be at least 1, found 0"):
        prepare(renderings=0)


@pytest.mark.parametrize("num_proc", [1, 2])
def test_a_source_that_does_not_decode_is_named_with_its_scene(num_proc, prepare, sources, tmp_path):
    (sources / "hum" / "2.wav").write_bytes(b"no sound at all" * 100)
    with pytest.raises(AudioError, match=r"scene 'scene-\d': .*hum/2\.wav"):
        prepare(num_proc=num_proc)
    assert _tables(tmp_path) == set()


def _with_variants(scenes, *languages):
    return [
        dataclasses.replace(
            scene,
            back_translations={name: tuple(f"{text} by {name}" for text in scene.captions) for name in languages},
        )
        for scene in scenes
    ]


def test_back_translations_become_a_column_per_language(prepare, scenes, tmp_path):
    plain, table = prepare(), prepare(_with_variants(scenes, "de", "fr"), renderings=2)
    assert table.column_names == [*plain.column_names, "back_translations_de", "back_translations_fr"]
    for row in table:
        assert row["back_translations_fr"] == [f"{caption} by fr" for caption in row["captions"]]
    other = dataclasses.replace(scenes[0], back_translations={"de": ("it sings", "a song")})
    assert prepare([other])[0]["back_translations_de"] == ["it sings", "a song"]
    assert prepare(_with_variants(scenes[:1], "de"))[0]["back_translations_de"][0] == "it hums 0 by de"
    assert len(_tables(tmp_path)) == 4


@pytest.mark.parametrize("lacking", [0, 5])
def test_back_translations_of_some_scenes_only_are_an_error(lacking, prepare, scenes, tmp_path):
    some = _with_variants(scenes, "de", "fr")
    some[lacking] = scenes[lacking]
    with pytest.raises(DataError, match="scene 'scene-[15]': back_translations: found .*, expected .* as scene"):
        prepare(some)
    assert not (tmp_path / "cache").exists()
