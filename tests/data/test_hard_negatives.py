"""Hard negatives: which recordings are easily taken for another one, and how batches come to hold both."""

import datasets
import numpy as np
import pytest

from modeling_cnn10bert.data.hard_negatives import (
    HardNegatives,
    arrangement,
    hard_negatives_of_captions,
    hard_negatives_of_scenes,
)
from modeling_cnn10bert.data.pairs import PairSampler, SharedEpoch
from modeling_cnn10bert.data.recipes.soundscapes import Scene, SoundEvent


def _scene(name, *events):
    """Make a scene of events `(sound, onset, end)`; each takes a recording from a folder named as its sound."""
    of_scene = tuple(SoundEvent(f"{sound}/{name}.ogg", onset, 0.0, end - onset, 0.0) for sound, onset, end in events)
    return Scene(name, 8.0, (), of_scene, ("a caption",))


SCENES = [
    _scene("rain", ("rain", 0, 5)),
    _scene("rain then dog", ("rain", 0, 3), ("dog", 4, 8)),
    _scene("dog then rain", ("dog", 0, 3), ("rain", 4, 8)),
    _scene("dog and rain", ("dog", 0, 5), ("rain", 1, 6)),
    _scene("rain and dog", ("rain", 0, 5), ("dog", 1, 6)),
    _scene("dog and rain then sea", ("dog", 0, 3.5), ("rain", 1, 3.5), ("sea", 4, 8)),
    _scene("dog and sea", ("dog", 0, 5), ("sea", 1, 6)),
    _scene("sea and fire", ("sea", 0, 5), ("fire", 1, 6)),
]


def _table(names, captions=None):
    rows = {"recording_id": names, "captions": captions or [["a caption"]] * len(names)}
    return datasets.Dataset.from_dict(rows)


def _found(row):
    negatives = hard_negatives_of_scenes(SCENES, _table([scene.id for scene in SCENES]))
    group = negatives.groups[row]
    return tuple({SCENES[other].id for other in rows[group]} for rows in (negatives.rearranged, negatives.similar))


def test_an_arrangement_does_not_depend_on_which_simultaneous_sound_begins():
    arrangements = {scene.id: arrangement(scene) for scene in SCENES}
    assert arrangements["dog and rain"] == arrangements["rain and dog"]
    assert len(set(arrangements.values())) == len(SCENES) - 1


def test_the_same_sounds_in_another_order_are_hard_negatives():
    rearranged, _ = _found(1)
    assert rearranged == {"dog then rain", "dog and rain", "rain and dog"}


def test_scenes_that_fit_the_same_captions_are_no_hard_negatives_of_each_other():
    rearranged, _ = _found(3)
    assert rearranged == {"dog then rain", "rain then dog"}


def test_sounds_of_which_all_but_one_are_shared_are_hard_negatives():
    assert _found(0)[1] == {"rain then dog", "dog then rain", "dog and rain", "rain and dog"}
    assert _found(6) == (set(), {scene.id for scene in SCENES} - {"rain", "dog and sea"})


def test_all_renderings_of_a_scene_have_its_hard_negatives():
    table = _table([scene.id for scene in SCENES for _ in range(2)])
    negatives = hard_negatives_of_scenes(SCENES, table)
    assert negatives.groups[2] == negatives.groups[3] and set(negatives.rearranged[negatives.groups[2]]) == {
        4,
        5,
        6,
        7,
        8,
        9,
    }


def test_both_kinds_are_drawn_and_a_recording_without_any_has_none():
    none = np.array([], dtype=np.int64)
    negatives = HardNegatives(np.arange(3), [np.array([7]), none, none], [np.array([8, 9]), np.array([9]), none])
    rng = np.random.default_rng(0)
    drawn = [negatives.draw(0, rng) for _ in range(1000)]
    assert 560 < drawn.count(7) < 640 and drawn.count(8) > 150 and drawn.count(9) > 150
    assert negatives.draw(1, rng) == 9 and negatives.draw(2, rng) is None


def test_captions_tell_which_recordings_are_similar():
    captions = [
        ["a dog barks in the rain", "a dog is barking"],
        ["the rain falls and a dog barks"],
        ["an engine idles"],
        ["A dog is barking!", "a dog"],  # says the same as the first recording
        ["a dog barks in the rain", "a dog is barking"],  # another rendering of the first recording
    ]
    negatives = hard_negatives_of_captions(_table(["a", "b", "c", "d", "a"], captions))
    assert [set(rows) for rows in negatives.similar[:3]] == [{1}, {0, 3, 4}, set()]
    assert negatives.draw(2, np.random.default_rng(0)) is None


# ------------------------------------------------------------------------------------------------------------ batches


def _sampler(share=1.0, k=1, epoch=0, draw=lambda recording, rng: (recording + 50) % 100, **options):
    shared = SharedEpoch()
    shared.set(epoch)
    recordings = np.repeat(np.arange(100), 5)
    return PairSampler(
        np.ones(500), 20, 3, shared, recordings=recordings, captions_per_recording=k, draw_hard_negative=draw,
        hard_negatives=share, **options,
    )  # fmt: skip


@pytest.mark.parametrize("grouped", [False, True], ids=["shuffled", "grouped by length"])
@pytest.mark.parametrize("k", [1, 2])
def test_the_second_half_of_a_batch_has_a_hard_negative_of_each_recording_of_the_first(k, grouped):
    order = np.array(list(_sampler(k=k, group_by_length=grouped))).reshape(-1, 20 // k, k)
    assert len(order) == (25 if k == 1 else 20)
    recordings = order // 5
    assert (recordings == recordings[:, :, :1]).all()  # the captions of a recording come together
    half = 10 // k
    assert (recordings[:, half:] == (recordings[:, :half] + 50) % 100).all()
    if k == 2:
        assert (order[:, :, 0] != order[:, :, 1]).all()


def test_a_fraction_of_the_recordings_brings_a_hard_negative():
    recordings = np.array(list(_sampler(share=0.3))).reshape(-1, 20) // 5
    share = (recordings[:, 10:] == (recordings[:, :10] + 50) % 100).mean()
    assert 0.2 < share < 0.4


def test_where_there_is_no_hard_negative_the_order_stays():
    plain = list(_sampler(draw=None))
    assert list(_sampler(draw=lambda recording, rng: None)) == plain


def test_hard_negatives_depend_on_seed_and_epoch_alone():
    def draw(recording, rng):
        return int(rng.integers(100))

    first = list(_sampler(draw=draw, epoch=2))
    np.random.seed(1)
    assert list(_sampler(draw=draw, epoch=2)) == first
    assert list(_sampler(draw=draw, epoch=3)) != first
