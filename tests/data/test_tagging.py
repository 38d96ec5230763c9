"""What a draw of tagging becomes, and what it depends on."""

import datasets
import numpy as np
import pytest
import torch

from modeling_cnn10bert import CNN10FeatureExtractor
from modeling_cnn10bert.augmentation.mixup import mix_powers, mix_waveforms
from modeling_cnn10bert.data.audio_io import encode_audio
from modeling_cnn10bert.data.features import decode_log_mel, encode_log_mel
from modeling_cnn10bert.data.pairs import SharedEpoch
from modeling_cnn10bert.data.recipes.soundscapes import Scene, SoundEvent
from modeling_cnn10bert.data.tagging import (
    ClipTransform,
    TaggingCollator,
    TaggingTransform,
    cached_clips,
    class_names,
    draw_rows,
    label_scenes,
)

EXTRACTOR = CNN10FeatureExtractor(feature_size=16)
LABELS = [[0]] * 18 + [[1], [0, 2]]  # class 0 in 19 of 20 clips


@pytest.fixture(scope="module")
def waveforms():
    rng = np.random.default_rng(0)
    return [(0.1 * rng.normal(size=6400 + 320 * number)).astype(np.float32) for number in range(20)]


@pytest.fixture(scope="module")
def table(waveforms):
    rows = [
        {"log_mel": encode_log_mel(EXTRACTOR.log_mel(wave)), "labels": y}
        for wave, y in zip(waveforms, LABELS, strict=True)
    ]
    return datasets.Dataset.from_list(rows)


@pytest.fixture(scope="module")
def audio_table(waveforms, tmp_path_factory):
    rows = [
        {"audio": {"bytes": encode_audio(wave, 32_000), "path": f"{number}.flac"}, "labels": labels}
        for number, (wave, labels) in enumerate(zip(waveforms, LABELS, strict=True))
    ]
    path = tmp_path_factory.mktemp("clips") / "clips"
    datasets.Dataset.from_list(rows).save_to_disk(path)
    return datasets.load_from_disk(path)


def _draws(table, epoch=0, **given):
    shared = SharedEpoch()
    shared.set(epoch)
    options = {"class_balanced": True, "mixup_alpha": 1.0, "mixup_domain": "power", "seed": 1, **given}
    draws = draw_rows(table)
    draws.set_transform(TaggingTransform(table, EXTRACTOR, num_classes=3, epoch=shared, **options))
    return draws


def _log_mel(table, row):
    return decode_log_mel(table[row]["log_mel"], 16)


def _row_of(clip, table):
    """The row of a clip that was not mixed: every clip has a length of its own."""
    return next(row for row in range(len(table)) if len(_log_mel(table, row)) == len(clip))


def test_without_balance_and_mixup_every_clip_comes_once_with_its_classes(table):
    rows = _draws(table, class_balanced=False, mixup_alpha=0.0).__getitems__(list(range(20)))
    for number, row in enumerate(rows):
        assert torch.equal(row["log_mel"], _log_mel(table, number))
        assert row["labels"].nonzero().flatten().tolist() == LABELS[number]


def test_class_balanced_draws_take_each_class_as_often(table):
    shares = np.zeros(20)
    for epoch in range(30):
        for row in _draws(table, epoch, mixup_alpha=0.0).__getitems__(list(range(20))):
            shares[_row_of(row["log_mel"], table)] += 1 / 600
    # A third of the draws are of class 0, whose 19 clips share it; clip 19 has all draws of class 2 besides.
    assert shares[18] == pytest.approx(1 / 3, abs=0.06)
    assert shares[19] == pytest.approx(1 / 3 + 1 / 57, abs=0.06)
    assert shares[:18].sum() == pytest.approx(18 / 57, abs=0.06)


def _mixture_with_the_clip_of_class_1(table, **given):
    """A draw of clip 0 to 17 that is mixed with clip 18, the only one of class 1, its number, and the weights."""
    for epoch in range(60):
        rows = _draws(table, epoch, class_balanced=False, **given).__getitems__(list(range(18)))
        for number, row in enumerate(rows):
            if 0.2 < row["labels"][1] < 0.8:
                return row, number, row["labels"]
    raise AssertionError("no such draw in 60 epochs")


def test_a_mixture_is_of_two_clips_and_of_their_targets(table):
    row, number, targets = _mixture_with_the_clip_of_class_1(table)
    assert targets.sum() == pytest.approx(1.0) and targets[2] == 0
    expected = mix_powers(_log_mel(table, number), _log_mel(table, 18), float(targets[0]))
    assert (row["log_mel"] - expected).abs().max() < 1e-3


def test_draws_change_with_the_epoch_and_the_seed_and_with_nothing_else(table):
    first = _draws(table).__getitems__([3, 4, 5])
    for rows, equal in (
        (_draws(table).__getitems__([5, 3])[::-1], True),
        (_draws(table, epoch=1).__getitems__([3, 5]), False),
        (_draws(table, seed=2).__getitems__([3, 5]), False),
    ):
        for row, expected in zip(rows, (first[0], first[2]), strict=True):
            assert torch.equal(row["labels"], expected["labels"]) == equal


def test_waveforms_are_mixed_where_the_table_has_them(audio_table, waveforms):
    row, number, targets = _mixture_with_the_clip_of_class_1(audio_table, mixup_domain="waveform")
    expected = EXTRACTOR.log_mel(mix_waveforms(waveforms[number], waveforms[18], float(targets[0])))
    assert (row["log_mel"] - expected).abs().max() < 0.05  # dB: FLAC keeps 24 bits


def test_evaluation_takes_every_clip_as_it_is(table):
    rows = table.with_transform(ClipTransform(table, EXTRACTOR, 3)).__getitems__([19, 0])
    assert [row["labels"].tolist() for row in rows] == [[1, 0, 1], [1, 0, 0]]
    assert torch.equal(rows[0]["log_mel"], _log_mel(table, 19))


def test_a_batch_is_padded_and_masked(table):
    rows = table.with_transform(ClipTransform(table, EXTRACTOR, 3)).__getitems__([0, 19])
    batch = TaggingCollator(EXTRACTOR)(rows)
    lengths = [len(row["log_mel"]) for row in rows]
    assert batch["input_features"].shape == (2, max(lengths), 16)
    assert batch["input_features_mask"].sum(dim=1).tolist() == lengths
    assert batch["labels"].shape == (2, 3)


def test_log_mels_of_clips_are_cached_with_their_classes(audio_table, table, tmp_path):
    cached = cached_clips(audio_table, EXTRACTOR, tmp_path, 1, "clips")
    assert cached["labels"][:] == LABELS
    for row in (0, 19):
        assert (_log_mel(cached, row) - _log_mel(table, row)).abs().max() < 0.05
    again = cached_clips(audio_table, EXTRACTOR, tmp_path, 1, "clips")
    assert again.cache_files == cached.cache_files


def _scene(name, *labels):
    return Scene(name, 1.0, labels, (SoundEvent("a.wav", 0, 0, 1, 0.0),), ("a caption",))


def test_renderings_of_a_scene_have_its_classes():
    scenes = [_scene("x", 10, 2), _scene("y", 2)]
    classes = class_names(scenes)
    assert classes == ["2", "10"]
    table = datasets.Dataset.from_dict({"recording_id": ["x", "x", "y"], "log_mel": [b"1", b"2", b"3"]})
    assert label_scenes(table, scenes, classes)["labels"][:] == [[1, 0], [1, 0], [0]]
    with pytest.raises(ValueError, match="scene 'z'.*'dog'.*2, 10"):
        label_scenes(table, [*scenes, _scene("z", "dog")], classes)
