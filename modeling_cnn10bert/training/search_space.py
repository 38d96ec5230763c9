"""The search space of table 4 of the paper: its ranges, and from a trial to its augmentation."""

import dataclasses
from collections.abc import Collection

import optuna
from optuna.distributions import FloatDistribution, IntDistribution

from ..errors import RecipeError
from .arguments import AugmentationArguments

SearchSpace = dict[str, FloatDistribution | IntDistribution]

TEXT_SPACE: SearchSpace = {
    "p_eda": FloatDistribution(0.0, 1.0),
    "p_syn": FloatDistribution(0.0, 0.3),
    "p_swp": FloatDistribution(0.0, 0.3),
    "p_ins": FloatDistribution(0.0, 0.3),
    "p_del": FloatDistribution(0.0, 0.3),
    "p_bt": FloatDistribution(0.0, 1.0),
}
AUDIO_SPACE: SearchSpace = {
    "n_f": IntDistribution(0, 1),
    "w_f": IntDistribution(1, 32),
    "n_t": IntDistribution(0, 8),
    "w_t": IntDistribution(1, 64),
    "g_max": IntDistribution(0, 6),
    "p_ms": FloatDistribution(0.0, 1.0),
    "ms_alpha": FloatDistribution(0.0, 1.0),
}
TABLE_4: SearchSpace = TEXT_SPACE | AUDIO_SPACE


def search_space(augmentation: AugmentationArguments, fixed: Collection[str] = ()) -> SearchSpace:
    """
    Return table 4 without the hyperparameters of `fixed` and those that the recipe switches off altogether.

    Raises:
        RecipeError: nothing is left to search.
    """
    space = (TEXT_SPACE if augmentation.augment_text else {}) | (AUDIO_SPACE if augmentation.augment_audio else {})
    space = {name: distribution for name, distribution in space.items() if name not in fixed}
    if not space:
        raise RecipeError(
            "nothing is left to search: augment_text and augment_audio are off, or fixed names every hyperparameter"
        )
    return space


def suggest(trial: optuna.Trial, space: SearchSpace) -> dict[str, float | int]:
    """Draw a value of each hyperparameter, in the order of table 4."""
    return {
        name: (trial.suggest_int if isinstance(range_, IntDistribution) else trial.suggest_float)(
            name, range_.low, range_.high
        )
        for name, range_ in space.items()
    }


def augmentation_of(values: dict[str, float | int], base: AugmentationArguments) -> AugmentationArguments:
    """Return the augmentation of a trial: `base` where the trial has no value of its own."""
    return dataclasses.replace(base, **values)


def strongest_augmentation(space: SearchSpace, base: AugmentationArguments) -> AugmentationArguments:
    """Return everything at the upper end of its range: what it lacks, some trial would lack."""
    return augmentation_of({name: range_.high for name, range_ in space.items()}, base)


def ranges(space: SearchSpace) -> dict[str, list[float | int]]:
    """Map each name to its lowest and its highest value, as a study keeps them."""
    return {name: [range_.low, range_.high] for name, range_ in space.items()}
