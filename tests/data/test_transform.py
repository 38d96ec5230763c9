"""What a batch of rows becomes, and what its random draws depend on."""

import datasets
import pytest
import torch

from modeling_cnn10bert import CNN10FeatureExtractor
from modeling_cnn10bert.augmentation.audio import AudioAugmentation
from modeling_cnn10bert.augmentation.eda import EDA
from modeling_cnn10bert.augmentation.text import TextAugmentation
from modeling_cnn10bert.data.features import TABLE_FEATURES, MelStatistics, decode_log_mel, log_mel_columns
from modeling_cnn10bert.data.pairs import PairTransform, RecordingTransform, SharedEpoch, caption_key, pair_rows

N_MELS = 8


@pytest.fixture(scope="module")
def recordings():
    """Five recordings, of which the first two are renderings of one."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number, recording_id in enumerate(["x", "x", "b", "a", "c"]):
        log_mel = -90 + 60 * torch.rand(20 + 5 * number, N_MELS, generator=generator)
        rows.append(
            {
                "file_name": f"{number}.wav",
                "recording_id": recording_id,
                "captions": [f"caption {number}", f"another caption {number}"],
                **log_mel_columns(log_mel),
            }
        )
    return datasets.Dataset.from_list(rows, features=TABLE_FEATURES)


def _pairs(recordings, epoch=0, augmented=True, seed=1, together=1):
    statistics = MelStatistics.of_table(recordings)
    augment_audio = AudioAugmentation(
        6.0, 0.5, 0.8, 1, 3, 2, 8, statistics.mean, statistics.std, statistics.overall_mean
    )
    augment_text = TextAugmentation(0.0, EDA(1.0, 0.0, 0.5, 0.5, 0.5, vocabulary=["wind", "rain"], synonyms={}))
    augment = (augment_audio, augment_text) if augmented else (None, None)
    shared = SharedEpoch()
    shared.set(epoch)
    pairs = pair_rows(recordings)
    extractor = CNN10FeatureExtractor(feature_size=N_MELS)
    pairs.set_transform(PairTransform(recordings, extractor, *augment, seed, shared, together))
    return pairs, shared


def test_a_pair_becomes_its_recording_and_its_one_caption(recordings):
    pairs, _ = _pairs(recordings, augmented=False)
    rows = pairs.__getitems__([7, 0])
    assert [row["captions"] for row in rows] == [["another caption 3"], ["caption 0"]]
    for row, recording in zip(rows, (3, 0), strict=True):
        assert torch.equal(row["log_mel"], decode_log_mel(recordings[recording]["log_mel"], N_MELS))


def test_renderings_of_a_recording_are_known_as_the_same(recordings):
    pairs, _ = _pairs(recordings)
    numbers = [row["recording_id"] for row in pairs.__getitems__(list(range(10)))]
    assert numbers[0] == numbers[1] == numbers[2] == numbers[3]
    assert len(set(numbers)) == 4


def test_the_draw_of_a_row_does_not_depend_on_the_rest_of_its_batch(recordings):
    pairs, _ = _pairs(recordings)
    together = pairs.__getitems__([2, 9, 4, 0])
    assert torch.equal(pairs.__getitems__([9])[0]["log_mel"], together[1]["log_mel"])
    assert torch.equal(pairs.__getitems__([0, 4])[1]["log_mel"], together[2]["log_mel"])


def test_the_draw_is_a_new_one_for_every_epoch_row_and_seed_and_else_the_same(recordings):
    pairs, epoch = _pairs(recordings)

    def draw(row):
        return pairs.__getitems__([row])[0]["log_mel"]

    first = draw(3)
    assert torch.equal(draw(3), first)
    assert not torch.equal(draw(2), first)  # the same recording beside its other caption
    epoch.set(1)
    assert not torch.equal(draw(3), first)
    epoch.set(0)
    assert torch.equal(draw(3), first)
    other_seed, _ = _pairs(recordings, seed=2)
    assert not torch.equal(other_seed.__getitems__([3])[0]["log_mel"], first)


def test_captions_that_come_together_share_one_log_mel(recordings):
    apart, _ = _pairs(recordings)
    together, _ = _pairs(recordings, together=2)
    rows, expected = together.__getitems__([7, 6, 4, 5]), apart.__getitems__([7, 6, 4, 5])
    assert [row["captions"] for row in rows] == [
        expected[0]["captions"] + expected[1]["captions"],
        expected[2]["captions"] + expected[3]["captions"],
    ]
    for row, first in zip(rows, expected[::2], strict=True):  # augmented as the first of them
        assert torch.equal(row["log_mel"], first["log_mel"])
        assert row["recording_id"] == first["recording_id"]


def test_captions_are_known_by_their_words_before_augmentation(recordings):
    together, _ = _pairs(recordings, together=2)
    rows = together.__getitems__([7, 6, 4, 5])
    assert rows[0]["captions"] != ["another caption 3", "caption 3"]  # augmented
    assert rows[0]["caption_keys"] == [caption_key("Another caption, 3!"), caption_key("caption 3")]
    assert rows[1]["caption_keys"] == [caption_key("caption 2"), caption_key("another caption 2")]


def test_evaluation_gives_each_recording_with_all_its_captions_unchanged(recordings):
    rows = recordings.with_transform(
        RecordingTransform(recordings, CNN10FeatureExtractor(feature_size=N_MELS))
    ).__getitems__([4, 2])
    assert [row["captions"] for row in rows] == [
        ["caption 4", "another caption 4"],
        ["caption 2", "another caption 2"],
    ]
    assert [row["caption_keys"] for row in rows] == [[caption_key(text) for text in row["captions"]] for row in rows]
    assert rows[0]["recording_id"] != rows[1]["recording_id"]
    assert torch.equal(rows[0]["log_mel"], decode_log_mel(recordings[4]["log_mel"], N_MELS))
