"""The search space: the ranges of table 4 of the paper, drawn at random and then by Optuna's TPE."""

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

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
    Return table 4 without the hyperparameters in `fixed` and those that the recipe switches off.

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
    """Return the augmentation of a trial; `base` supplies the values that the trial lacks."""
    return dataclasses.replace(base, **values)


def ranges(space: SearchSpace) -> dict[str, list[float | int]]:
    """Map each name to its lowest and highest value, as a study stores them."""
    return {name: [range_.low, range_.high] for name, range_ in space.items()}


class KeyedTPESampler(BaseSampler):
    """
    Draws the first trials at random, then by the Tree-structured Parzen Estimator (section 6.5 of the paper).

    Optuna's own sampler restarts its random numbers in every process, so it would repeat draws. Here each draw is keyed
    by (seed, `draw_number`, hyperparameter). So a trial's draws do not depend on its process, and two trials draw the
    same only if one repeats the other.

    A trial is drawn at random while fewer than `n_startup_trials` are complete; failed ones do not inform the
    estimator. In one process these are the paper's ten random trials; with k processes there are up to k - 1 more. The
    estimator is that of Bergstra et al. (2011), which the paper cites. It treats each hyperparameter by itself, which
    is not the default in every version of Optuna.

    Args:
        seed: seed of all draws.
        n_startup_trials: number of complete trials that the estimator needs.
    """

    def __init__(self, seed: int, n_startup_trials: int):
        self.seed = seed
        self.n_startup_trials = n_startup_trials

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        # Decided once per trial, because another process may complete one between two draws.
        self.draw_number = draw_number(study, trial)
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        self.at_random = len(complete) < self.n_startup_trials

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        key = np.random.SeedSequence([self.seed, self.draw_number, *param_name.encode()])
        seed = int(key.generate_state(1)[0])
        sampler = (
            RandomSampler(seed) if self.at_random else TPESampler(seed=seed, n_startup_trials=0, multivariate=False)
        )
        return sampler.sample_independent(study, trial, param_name, param_distribution)


def draw_number(study: optuna.Study, trial: FrozenTrial) -> int:
    """
    Return the number that a trial would have if no trial had been repeated, which keys its draws.

    Numbers are given in order and never change, so every process finds the same one.
    """
    # RetryHeartbeatStaleTrialCallback stores the number of the repeated trial as `failed_trial`.
    number = trial.system_attrs.get("failed_trial", trial.number)
    trials = study.get_trials(deepcopy=False)
    return number - sum("failed_trial" in other.system_attrs for other in trials if other.number < number)
