"""The study of a search: where it is stored, how it draws, which of its trials are alive, and whose it is.

A trial is alive while its process records a heartbeat in the storage, every `HEARTBEAT_SECONDS`. One without a
heartbeat for `GRACE_SECONDS` belongs to a process that was killed: whoever takes part in the search marks it as failed,
and the next trial repeats it. A process that joins a search begins no trial until it knows which of those that run are
alive, so a search in one process draws the same however often it is killed. As only the storage is asked, the processes
may run on any machines. A process that lives is safe from the others, unless it was stopped for longer than that: then
its trial is lost, and it goes on with the next.
"""

import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from ..errors import RecipeError

HEARTBEAT_SECONDS = 10
GRACE_SECONDS = 30
CONNECT_SECONDS = 10
SQLITE_WAIT_SECONDS = 60  # for another process that is writing
ATTEMPTS = 3  # at a new storage, whose tables two processes may want to create at once

# A plain URL picks another driver from one SQLAlchemy to the next.
DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
}
SEARCH = "search"  # user attribute of the study: what its trials have in common
DRAW = "draw"  # user attribute of a trial that repeats one whose process was killed: `draw_number` of both
MOST_ATTEMPTS = 3  # at a trial whose process is killed each time: the trial itself may be why

logger = logging.getLogger(__name__)


class KeyedTPESampler(BaseSampler):
    """
    Draws the first trials at random, then by the Tree-structured Parzen Estimator (section 6.5 of the paper).

    All draws of a trial are keyed by (seed, `draw_number`): no two trials draw the same, but one that repeats another,
    by however many processes a search runs, and what a trial draws does not depend on which process runs it. A
    trial is drawn at random while fewer than `n_startup_trials` are complete; failed ones give the estimator nothing
    and do not count. In one process that is the paper's ten random trials; with k processes up to k - 1 more.

    The estimator is that of Bergstra et al. (2011), whom the paper cites, each hyperparameter by itself; Optuna's
    default differs from version to version.

    Args:
        seed: of all draws.
        n_startup_trials: complete trials that the estimator needs.
    """

    def __init__(self, seed: int, n_startup_trials: int):
        self.seed = seed
        self.n_startup_trials = n_startup_trials

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        seed = int(np.random.SeedSequence([self.seed, draw_number(study, trial)]).generate_state(1)[0])
        # Decided once a trial: another process may complete one between two draws.
        if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < self.n_startup_trials:
            self.sampler = RandomSampler(seed=seed)
        else:
            self.sampler = TPESampler(
                seed=seed, n_startup_trials=0, multivariate=False, group=False, constant_liar=False
            )
        self.sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study, trial):
        return self.sampler.infer_relative_search_space(study, trial)

    def sample_relative(self, study, trial, search_space):
        return self.sampler.sample_relative(study, trial, search_space)

    def sample_independent(self, study, trial, param_name, param_distribution):
        return self.sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study, trial, state, values):
        self.sampler.after_trial(study, trial, state, values)


def draw_number(study: optuna.Study, trial: FrozenTrial) -> int:
    """
    Return the number of a trial as if none had been repeated, by which its draws are keyed.

    A trial is a repetition from its beginning on and numbers are given in order, so every process finds the same.
    """
    if DRAW in trial.user_attrs:
        return trial.user_attrs[DRAW]
    earlier = (other for other in study.get_trials(deepcopy=False) if other.number < trial.number)
    return trial.number - sum(DRAW in other.user_attrs for other in earlier)


def repeat_trial(study: optuna.Study, trial: FrozenTrial) -> None:
    """Have the next trial draw what one has drawn whose process was killed."""
    number = draw_number(study, trial)
    repeated = sum(other.user_attrs.get(DRAW) == number for other in study.get_trials(deepcopy=False))
    if 1 + repeated < MOST_ATTEMPTS:
        study.enqueue_trial({}, user_attrs={DRAW: number})  # without values: it draws them itself


class SearchStorage(RDBStorage):
    """Survives one lost heartbeat, at which Optuna's thread would end and the trial would be taken for dead."""

    def record_heartbeat(self, trial_id: int) -> None:
        try:
            super().record_heartbeat(trial_id)
        except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
            logger.warning("a heartbeat could not be stored, the next one will: %s", _one_line(error))


def storage_name(url: str) -> str:
    """Return the URL as it may be shown: without its password and without options, which may hold one."""
    return _parse(url).set(query={}).render_as_string(hide_password=True)


def open_storage(url: str) -> RDBStorage:
    """
    Open the storage of `sqlite:///FILE`, `postgresql://...` or `mysql://...`; make its tables if it is new.

    Raises:
        RecipeError: not such a URL, a driver that is not installed, or a storage that cannot be reached.
    """
    parsed = _parse(url)
    kind = parsed.get_backend_name()
    if kind == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            raise RecipeError("field storage names a database in memory, which ends with its process; name a file")
        options = {"connect_args": {"timeout": SQLITE_WAIT_SECONDS}}
    else:
        options = {"connect_args": {"connect_timeout": CONNECT_SECONDS}, "pool_pre_ping": True}
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return SearchStorage(
                    parsed.render_as_string(hide_password=False),
                    engine_kwargs=options,
                    heartbeat_interval=HEARTBEAT_SECONDS,
                    grace_period=GRACE_SECONDS,
                    heartbeat_stale_trial_callback=repeat_trial,
                )
        except ImportError as error:
            raise RecipeError(
                f"field storage: the driver of {storage_name(url)} is not installed; "
                f'install it with `pip install "cnn10bert[{kind}]"`'
            ) from error
        except Exception as error:  # of a database that was damaged, of any kind
            if attempt == ATTEMPTS:
                raise RecipeError(_unreachable(url, error)) from error
            time.sleep(attempt)
    raise AssertionError("unreachable")


@contextmanager
def storage_faults(url: str) -> Iterator[None]:
    """Turn whatever the storage raises into one line.

    Raises:
        RecipeError: the storage failed.
    """
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise RecipeError(_unreachable(url, error)) from error


@contextmanager
def content_faults(place: str) -> Iterator[None]:
    """Turn what Optuna raises at a database that was damaged or edited into one line; only around what reads it.

    Raises:
        RecipeError: the database holds what no search wrote.
    """
    try:
        yield
    except (RecipeError, SQLAlchemyError, optuna.exceptions.StorageInternalError):  # see `storage_faults`
        raise
    except Exception as error:  # of any kind: KeyError for a missing row, LookupError, UnicodeDecodeError, ...
        raise RecipeError(
            f"{place} holds what no search wrote ({_one_line(error)[:200]}), expected the database of a search; give "
            "another --storage, or another --output_dir"
        ) from error


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        parsed = parsed.set(drivername=DRIVERS.get(parsed.drivername, parsed.drivername))
        parsed.get_dialect()  # knows the kind of database; loads no driver
    except (ArgumentError, ValueError) as error:
        # Nothing of the value: it may hold a password.
        raise RecipeError(
            "field storage is not the URL of a database; expected sqlite:///FILE, "
            "postgresql://USER:PASSWORD@HOST/DATABASE or mysql://USER:PASSWORD@HOST/DATABASE"
        ) from error
    return parsed


def _unreachable(url: str, error: Exception) -> str:
    reason = _one_line(error.__cause__ or getattr(error, "orig", None) or error)
    for secret in {_parse(url).password, *_parse(url).query.values()}:
        if secret and isinstance(secret, str):
            reason = reason.replace(secret, "***")
    return f"field storage: {storage_name(url)} cannot be used ({reason}); start its server, or correct the URL"


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def claim_study(study: optuna.Study, description: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    """
    Record in a new study what its trials have in common; an old one must have it in common with us.

    Args:
        description: `space` (name -> lowest and highest value) and `fields` of the recipe, whatever changes a trial.
        defaults: value of a field that only one side names.

    Raises:
        RecipeError: the study is that of another search.
    """
    with content_faults(f"study {study.study_name!r}"):
        recorded, trials = study.user_attrs.get(SEARCH), study.get_trials(deepcopy=False)
        if recorded is not None and not all(isinstance(recorded[part], dict) for part in ("space", "fields")):
            raise TypeError(f"{SEARCH} is {recorded!r}")
        if study.direction != StudyDirection.MAXIMIZE:
            raise ValueError(f"its direction is {study.direction.name}")
        for trial in trials:
            if trial.state == TrialState.COMPLETE and not isinstance(trial.value, float):
                raise ValueError(f"trial {trial.number} is complete with the value {trial.value}")
    if recorded is None:
        if trials:
            raise RecipeError(f"study {study.study_name!r} holds trials of something else; give another --study_name")
        study.set_user_attr(SEARCH, description)
        return
    differences = []
    for part, missing in (("space", {}), ("fields", defaults)):
        before, now = recorded[part], description[part]
        for name in sorted({*before, *now}):
            values = [side.get(name, missing.get(name)) for side in (before, now)]
            if values[0] != values[1]:
                what = "range of" if part == "space" else "field"
                differences.append(f"{what} {name} was {values[0]}, is {values[1]}")
    if differences:
        raise RecipeError(
            f"study {study.study_name!r} is another search: {'; '.join(differences)}; "
            "give another --output_dir (and --study_name), or the recipe as it was"
        )


class Liveness:
    """
    Tells the trials that a living process runs from those of a killed one.

    A process may be killed between the start of a trial and its first heartbeat: whoever sees a trial for the first
    time gives it one, so that the time of grace begins.
    """

    def __init__(self, study: optuna.Study, storage: RDBStorage):
        self.study = study
        self.storage = storage
        self._seen: set[int] = set()
        self._unsettled: set[int] | None = None  # trials that ran at first, and may be dead
        self._settled_at = time.monotonic() + GRACE_SECONDS + 2  # storages count in whole seconds

    def counts(self) -> tuple[int, int]:
        """Count the complete trials and those that run; mark those of killed processes as failed, to be repeated."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(self.study)
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING))
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        for trial in running:
            if trial.number not in self._seen:
                self.storage.record_heartbeat(trial._trial_id)
                self._seen.add(trial.number)
        numbers = {trial.number for trial in running}
        self._unsettled = numbers if self._unsettled is None else self._unsettled & numbers
        return len(trials) - len(running), len(running)

    def is_settled(self) -> bool:
        """Tell whether of each trial that ran at the first `counts` it is known if its process lives."""
        return not self._unsettled or time.monotonic() > self._settled_at


def is_surplus(study: optuna.Study, number: int, wanted: int) -> bool:
    """
    Tell whether the trials before trial `number` that are complete or run are already as many as wanted.

    Numbers are given in order and never twice, so of the trials that several processes begin at once exactly those that
    are wanted go on.
    """
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING))
    return sum(trial.number < number for trial in trials) >= wanted
