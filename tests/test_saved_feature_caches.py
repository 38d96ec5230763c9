"""Data sets and feature caches that an earlier version wrote are found and read instead of computed again."""

import os
import shutil
from pathlib import Path

import datasets
import pytest

from modeling_cnn10bert import CNN10FeatureExtractor
from modeling_cnn10bert.data.caption_variants import add_back_translations
from modeling_cnn10bert.data.features import LOG_MEL_STEP, decode_log_mel
from modeling_cnn10bert.data.pairs import pair_rows
from modeling_cnn10bert.data.recipes.soundscapes import read_manifests, soundscape_table
from modeling_cnn10bert.data.recordings_table import load_prepared, recordings_table
from modeling_cnn10bert.data.tagging import cached_clips

SAVED = Path(__file__).parent / "assets" / "feature_cache"
EXTRACTOR = CNN10FeatureExtractor(feature_size=16, hop_length=1280)
WRITTEN = 1_700_000_000  # the time of the files when the cache was made, which its keys hold and Git does not keep


@pytest.fixture
def saved(tmp_path):
    folder = shutil.copytree(SAVED, tmp_path / "saved")
    for path in folder.rglob("*"):
        os.utime(path, (WRITTEN, WRITTEN))
    return folder


def _files(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def _recordings(saved, cache):
    prepared = load_prepared(str(saved / "prepared"))
    tables = [recordings_table(prepared[split], EXTRACTOR, cache, name=f"prepared-{split}") for split in prepared]
    without = recordings_table(prepared["train"], EXTRACTOR, cache, name="prepared-train", keep_log_mel=False)
    return [*tables, without.remove_columns("audio")]


def _scenes(saved, cache):
    splits = read_manifests(saved / "scenes", saved / "sources").items()
    return [
        soundscape_table(
            scenes,
            saved / "sources",
            EXTRACTOR,
            cache,
            renderings=2 if split == "train" else 1,
            name=f"scenes-{split}",
            max_speed=1.2,
        )
        for split, scenes in splits
    ]


def _clips(saved, cache):
    return [cached_clips(datasets.load_from_disk(saved / "clips"), EXTRACTOR, cache, 1, "clips")]


@pytest.mark.parametrize("tables_of", [_recordings, _scenes, _clips], ids=["recordings", "scenes", "clips"])
def test_saved_tables_are_read_and_equal_what_is_computed_today(tables_of, saved):
    before = _files(saved / "cache")
    found = tables_of(saved, saved / "cache")
    assert _files(saved / "cache") == before
    for old, new in zip(found, tables_of(saved, saved / "another cache"), strict=True):
        assert old.features == new.features
        others = [name for name in old.column_names if name not in ("log_mel", "mel_mean", "mel_std")]
        assert old.select_columns(others).to_dict() == new.select_columns(others).to_dict()
        for row, expected in zip(old, new, strict=True):
            if "log_mel" in row:
                stored, computed = (decode_log_mel(log_mel["log_mel"], 16) for log_mel in (row, expected))
                assert (stored - computed).abs().max() <= 2 * LOG_MEL_STEP  # rounding may differ between machines
            if "mel_mean" in row:
                assert row["mel_mean"] == pytest.approx(expected["mel_mean"], abs=2 * LOG_MEL_STEP)
                assert row["mel_std"] == pytest.approx(expected["mel_std"], abs=2 * LOG_MEL_STEP)


def test_saved_back_translations_reach_the_pairs_and_are_not_made_again(saved):
    train = _recordings(saved, saved / "cache")[0]
    assert pair_rows(train)[2] == {
        "caption": "tone 1",
        "recording": 1,
        "length": 16,
        "row_id": 2,
        "back_translations": ["tone 1 again", "tone 1 again"],
    }
    scenes = read_manifests(saved / "scenes", saved / "sources")["train"]
    assert scenes[1].back_translations == dict.fromkeys(("de", "fr"), ("it hums 1 again", "a hum again"))
    for folder in ("prepared", "scenes"):
        counts = add_back_translations(saved / folder, ["de", "fr"], lambda _: pytest.fail("translated again"))
        assert counts == {}
