"""What a search writes into its folder."""

import numpy as np
import optuna
import pytest
from matplotlib import rcParams
from matplotlib.image import imread

from modeling_cnn10bert.training.search_results import SearchResults, best_trial, importance


def _study(value_of, count):
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: value_of(trial.suggest_float("p_eda", 0, 1), trial.suggest_int("n_t", 0, 8)), count)
    return study


def test_importance_tells_what_matters_from_what_does_not():
    study = _study(lambda p_eda, n_t: p_eda, 40)
    shares = importance(study, study.trials)
    assert shares["p_eda"] > 0.9 and sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("value_of", "count"),
    [
        (lambda p_eda, n_t: p_eda, 9),
        (lambda p_eda, n_t: 0.5, 12),
        (lambda p_eda, n_t: 0.6 + np.spacing(0.6) * (n_t % 2), 12),
    ],
    ids=["few", "equal", "equal but for rounding"],
)
def test_there_is_no_importance_of_trials_that_are_few_or_alike(value_of, count):
    study = _study(value_of, count)
    assert importance(study, study.trials) == {}


def test_of_equal_trials_the_first_is_the_best():
    study = _study(lambda p_eda, n_t: 0.5, 3)
    assert best_trial(study.trials).number == 0
    assert best_trial([]) is None


def test_a_trial_that_is_better_by_rounding_alone_is_not():
    study = _study(lambda p_eda, n_t: 0.25, 1)
    study.add_trial(optuna.trial.create_trial(value=0.25 + 1e-16 * 3))
    study.add_trial(optuna.trial.create_trial(value=0.2500001))
    assert best_trial(study.trials[:2]).number == 0
    assert best_trial(study.trials).number == 2


@pytest.mark.parametrize(
    ("count", "names"),
    [(0, set()), (1, {"history.png", "slices.png"}), (12, {"history.png", "slices.png", "importance.png"})],
)
def test_the_pictures_of_a_search_are_whole_and_leave_the_style_of_others(count, names, tmp_path):
    space = {"p_eda": optuna.distributions.FloatDistribution(0, 1), "n_t": optuna.distributions.IntDistribution(0, 8)}
    rcParams["backend"] = "agg"
    style = dict(rcParams)
    SearchResults(tmp_path, {}, space, None, 12).draw(_study(lambda p_eda, n_t: p_eda, count))
    assert {path.name for path in tmp_path.iterdir()} == names
    assert all(imread(tmp_path / name).std() > 0.05 for name in names)
    assert dict(rcParams) == style
