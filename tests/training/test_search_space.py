"""The search space is table 4 of the paper, and a trial's values become its augmentation."""

import dataclasses

import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FixedTrial

from modeling_cnn10bert.errors import RecipeError
from modeling_cnn10bert.training.arguments import AugmentationArguments
from modeling_cnn10bert.training.search_space import augmentation_of, search_space, suggest

# As the paper prints them: an interval of real numbers, or a set of whole ones.
INTERVALS = {
    "p_eda": (0, 1.0),
    "p_syn": (0, 0.3),
    "p_swp": (0, 0.3),
    "p_ins": (0, 0.3),
    "p_del": (0, 0.3),
    "p_bt": (0, 1.0),
    "p_ms": (0, 1.0),
    "ms_alpha": (0, 1.0),
}
SETS = {"n_f": range(0, 2), "w_f": range(1, 33), "n_t": range(0, 9), "w_t": range(1, 65), "g_max": range(0, 7)}
AUDIO = {"n_f", "w_f", "n_t", "w_t", "g_max", "p_ms", "ms_alpha"}
BEST = {  # of table 4; p_ms is ours
    "p_eda": 0.9936,
    "p_syn": 0.2962,
    "p_swp": 0.0085,
    "p_ins": 0.0269,
    "p_del": 0.1944,
    "p_bt": 0.1812,
    "n_f": 1,
    "w_f": 4,
    "n_t": 7,
    "w_t": 58,
    "g_max": 3,
    "p_ms": 0.5,
    "ms_alpha": 0.8286,
}


def test_the_search_space_is_table_4():
    space = search_space(AugmentationArguments())
    assert space.keys() == INTERVALS.keys() | SETS.keys()
    for name, (low, high) in INTERVALS.items():
        assert space[name] == FloatDistribution(low, high)
    for name, values in SETS.items():
        assert space[name] == IntDistribution(min(values), max(values), step=1)


def test_what_is_fixed_or_switched_off_is_not_searched():
    assert search_space(AugmentationArguments(), ["p_bt"]).keys() == (INTERVALS.keys() | SETS.keys()) - {"p_bt"}
    assert search_space(AugmentationArguments(augment_text=False)).keys() == AUDIO
    assert search_space(AugmentationArguments(augment_audio=False)).keys().isdisjoint(AUDIO)
    with pytest.raises(RecipeError, match="nothing is left to search"):
        search_space(AugmentationArguments(augment_text=False), AUDIO)


def test_a_trial_becomes_the_augmentation_of_its_values():
    space = search_space(AugmentationArguments())
    augmentation = augmentation_of(suggest(FixedTrial(BEST), space), AugmentationArguments(p_eda=0.5))
    assert dataclasses.asdict(augmentation) == {
        "augment_audio": True,
        "augment_text": True,
        "text_augmenter": None,
        **BEST,
    }


def test_what_a_trial_does_not_draw_stays_as_the_recipe_has_it():
    base = AugmentationArguments(p_bt=0.25, g_max=2.5, text_augmenter="flows:flow")
    space = search_space(base, ["p_bt", "g_max"])
    augmentation = augmentation_of(suggest(FixedTrial(BEST), space), base)
    assert (augmentation.p_bt, augmentation.g_max, augmentation.w_t) == (0.25, 2.5, 58)
    assert augmentation.text_augmenter == "flows:flow"
