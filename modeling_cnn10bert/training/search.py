"""Sequential model-based optimization of the augmentations (section 6.5 of the paper) by `hyperparameter_search`.

Each trial is a whole training with the recipe's seed and its own hyperparameters; its value is the validation mAP@10 of
its best epoch. The storage holds the whole state of a search. So the same command continues a search that was killed at
any moment, or joins a running one from another process or machine. One trial runs in one process; to use several
devices, start a process for each.

Optuna records a heartbeat of each running trial in the storage. A trial without one for `GRACE_SECONDS` belongs to a
killed process; another process of the search marks it as failed, and the next trial repeats it.
"""

import logging
import math
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import datasets
import optuna
import torch
from optuna.pruners import NopPruner
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from transformers.hf_argparser import HfArg

from ..data.pairs import RetrievalCollator, SharedEpoch
from ..errors import InputError, RecipeError, one_line
from ..evaluation.reports import best_position
from ..files import is_full_disk
from ..interrupts import raise_again
from ..masking import without_secrets
from .arguments import (
    AugmentationArguments,
    DataArguments,
    ModelArguments,
    RetrievalTrainingArguments,
    check_numbers,
)
from .build import (
    embed_by_teachers,
    evaluation_recordings,
    find_hard_negatives,
    load_model_and_processor,
    load_recordings,
    training_pairs,
)
from .distillation import load_teacher
from .search_space import TABLE_4, KeyedTPESampler, SearchSpace, augmentation_of, search_space, suggest
from .trainer import RetrievalTrainer

OBJECTIVE = "mAP@10"
EARLY_STOPPING_PATIENCE = 10  # section 6.5
FAILURES_IN_A_ROW = 3  # after so many, the recipe or the machine is at fault
POLL_SECONDS = 1
SEARCH = "search"  # user attribute of the study: the settings that its trials share
ERROR, BEST_EPOCH, EPOCHS = "error", "best_epoch", "epochs"  # user attributes of a trial

HEARTBEAT_SECONDS = 10
GRACE_SECONDS = 30
REPETITIONS = 2  # of a trial whose process is killed each time, possibly because of the trial
SQLITE_WAIT_SECONDS = 60  # for another process that is writing
CONNECT_SECONDS = 10
ATTEMPTS = 3  # at a new storage, because two processes may create its tables at once
# The default driver of a plain URL depends on the version of SQLAlchemy.
DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "mysql": "mysql+pymysql"}
STORAGE_ERRORS = (SQLAlchemyError, optuna.exceptions.StorageInternalError)

logger = logging.getLogger(__name__)


@dataclass
class SearchArguments:
    """Storage, number of trials and fixed hyperparameters of a search."""

    storage: str | None = HfArg(
        default=None,
        help="Optuna storage: sqlite:///FILE, or postgresql://... or mysql://... for several machines. By "
        "default, sqlite:///OUTPUT_DIR/study.db.",
    )
    study_name: str | None = HfArg(
        default=None, help="Name of the study in the storage. By default, the output folder's name."
    )
    n_trials: int = HfArg(
        default=110, help="Total number of complete trials, including those of earlier runs and other processes."
    )
    n_startup_trials: int = HfArg(default=10, help="Number of random trials before the estimator selects values.")
    fixed: list[str] = HfArg(default_factory=list, help="Hyperparameters to keep at the recipe's values, such as p_bt.")

    def __post_init__(self):
        check_numbers(self, {"n_trials": 1, "n_startup_trials": 1})
        if unknown := [name for name in self.fixed if name not in TABLE_4]:
            raise ValueError(f"fixed names {', '.join(unknown)}, expected hyperparameters of {', '.join(TABLE_4)}")


@dataclass
class SearchTrainingArguments(RetrievalTrainingArguments):
    """Training arguments of trials; without checks of checkpoint settings, because trials keep no checkpoints."""

    def __post_init__(self):
        self.load_best_model_at_end = False
        super().__post_init__()


# ----------------------------------------------------------------------------------------------------------- one trial


class SurplusTrial(Exception):
    """Raised when other processes already run the last of the wanted trials."""


class SearchTrainer(RetrievalTrainer):
    """
    Trains one trial after another, each from a new model.

    Trainer sets a trial's values only on its training arguments, and takes the last evaluation for the trial's value.
    Here a trial gets its own training pairs, and its value is its best evaluation.

    Args:
        space: ranges of the values of a trial.
        pairs_of: returns the training pairs for the values of a trial.
        n_trials: total number of complete trials wanted.
        args, kwargs: as for `RetrievalTrainer`.
    """

    def __init__(
        self,
        *args,
        space: SearchSpace,
        pairs_of: Callable[[dict[str, Any]], datasets.Dataset],
        n_trials: int,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.space = space
        self.pairs_of = pairs_of
        self.n_trials = n_trials
        self.trial_number: int | None = None

    def bind(self, trial: optuna.Trial) -> dict[str, Any]:
        """Draw the trial's values and make its training pairs; the training arguments stay unchanged."""
        self.train_dataset = self.pairs_of(suggest(trial, self.space))
        return {}

    def train(self, resume_from_checkpoint: str | bool | None = None, trial: Any = None, **kwargs):
        """
        Train as Trainer does. A failed trial stores its error.

        Raises:
            SurplusTrial: the trial exceeds the wanted number.
        """
        if trial is None:
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        self.trial_number = trial.number
        try:
            if is_surplus(trial.study, trial.number, self.n_trials):
                raise SurplusTrial("withdrawn: other processes run the last of the wanted trials")
            output = super().train(trial=trial, **kwargs)
            self.objective = self._best_evaluation(trial)
        except (Exception, KeyboardInterrupt) as error:
            reason = one_line(f"{type(error).__name__}: {error}").rstrip(":")[:1000]
            trial.set_user_attr(ERROR, without_secrets(reason))
            raise
        return output

    def _best_evaluation(self, trial: optuna.Trial) -> float:
        name = f"eval_{OBJECTIVE}"
        evaluations = [entry for entry in self.state.log_history if name in entry]
        if not evaluations:
            raise RecipeError(f"no evaluation within {self.state.global_step} steps; lower eval_steps or eval_delay")
        if faulty := [entry for entry in evaluations if not math.isfinite(entry[name])]:
            raise ValueError(f"validation {OBJECTIVE} is {faulty[0][name]} after epoch {faulty[0]['epoch']:g}")
        best = evaluations[best_position([entry[name] for entry in evaluations])]
        trial.set_user_attr(BEST_EPOCH, best["epoch"])
        trial.set_user_attr(EPOCHS, evaluations[-1]["epoch"])
        return best[name]


def search_training_arguments(arguments: RetrievalTrainingArguments) -> RetrievalTrainingArguments:
    """
    Change the training arguments to those of a trial: no checkpoints, no upload, and early stopping.

    Raises:
        RecipeError: the arguments are not possible in a search.
    """
    if arguments.world_size > 1:
        raise RecipeError(
            f"found {arguments.world_size} processes that train together, expected one: a trial runs in one process; "
            "start the same command once per device instead (CUDA_VISIBLE_DEVICES=0 python ..., and so on): all take "
            "part in the search"
        )
    if arguments.eval_strategy == "no":
        raise RecipeError("field eval_strategy is no, expected epoch or steps: a trial's value is its best evaluation")
    if arguments.metric_for_best_model.removeprefix("eval_") != OBJECTIVE:
        raise RecipeError(
            f"field metric_for_best_model is {arguments.metric_for_best_model}, expected {OBJECTIVE}, a trial's value"
        )
    arguments.set_save(strategy="no")
    arguments.run_name = None  # of each trial
    arguments.push_to_hub = False
    if arguments.early_stopping_patience is None:
        arguments.early_stopping_patience = EARLY_STOPPING_PATIENCE
    return arguments


def build_search_trainer(
    model_args: ModelArguments,
    data_args: DataArguments,
    augmentation_args: AugmentationArguments,
    training_args: RetrievalTrainingArguments,
    search_args: SearchArguments,
) -> SearchTrainer:
    """
    Build the trainer of a recipe's trials.

    Raises:
        RecipeError, DataError, AudioError: the arguments, or the data they name, are faulty, even if only some trials
            would fail.
    """
    space = search_space(augmentation_args, search_args.fixed)
    training_args = search_training_arguments(training_args)
    _, processor = load_model_and_processor(model_args)
    feature_extractor = processor.feature_extractor
    teachers = [load_teacher(name, training_args.device) for name in training_args.teachers]
    tables = load_recordings(data_args, feature_extractor, training_args.seed)
    teacher_embeds = embed_by_teachers(teachers, data_args, training_args)
    epoch = SharedEpoch()

    def pairs_of(values: dict[str, Any]) -> datasets.Dataset:
        augmentation = augmentation_of(values, augmentation_args)
        together = training_args.captions_per_recording
        return training_pairs(
            tables, augmentation, feature_extractor, training_args.seed, epoch, together, teacher_embeds
        )

    try:  # at the upper ends of the ranges, which have the requirements of all trials
        train_dataset = pairs_of({name: range_.high for name, range_ in space.items()})
    except RecipeError as error:
        named = re.match(r"field (\w+)", str(error))
        if named is None or named[1] not in space:
            raise
        raise RecipeError(f"the search tries {named[1]}: {error}; name {named[1]} in fixed to leave it out") from error
    return SearchTrainer(
        model_init=lambda: load_model_and_processor(model_args)[0],
        args=training_args,
        data_collator=RetrievalCollator(processor),
        train_dataset=train_dataset,
        eval_dataset=evaluation_recordings(tables.validation, feature_extractor),
        processing_class=processor,
        epoch=epoch,
        hard_negatives=find_hard_negatives(tables, training_args),
        space=space,
        pairs_of=pairs_of,
        n_trials=search_args.n_trials,
    )


# ---------------------------------------------------------------------------------------------------------- all trials


def run_search(
    trainer: SearchTrainer,
    study: optuna.Study,
    storage: RDBStorage,
    after_trial: Callable[[optuna.Study, FrozenTrial], None],
) -> None:
    """
    Run trials until the study has `trainer.n_trials` complete ones, in any number of processes.

    While other processes run the last trials, this one waits, and takes over if one fails. A failed trial is recorded
    with its error and replaced. A trial whose process was killed is repeated, so in one process, a killed search ends
    with the same trials as an uninterrupted one.

    Args:
        trainer: from `build_search_trainer`.
        study, storage: from `open_study`.
        after_trial: called after each trial of this process.

    Raises:
        RecipeError: the recipe is at fault, or `FAILURES_IN_A_ROW` trials failed in a row.
        torch.OutOfMemoryError: the device is too small for a trial.
        OSError, and other errors caused by it: the disk is full.
        KeyboardInterrupt: the trial is marked as failed.
    """
    liveness, failures = Liveness(study, storage), 0
    try:
        while True:
            raise_again()
            complete, running = liveness.counts()
            if complete >= trainer.n_trials:
                return
            if complete + running >= trainer.n_trials or not liveness.is_settled():
                time.sleep(POLL_SECONDS)
                continue
            try:
                # One at a time, because `hyperparameter_search` takes no callbacks. Optuna's MaxTrialsCallback counts
                # complete trials, so several processes would also begin too many at the end.
                trainer.hyperparameter_search(
                    hp_space=trainer.bind,
                    compute_objective=lambda metrics: metrics[f"eval_{OBJECTIVE}"],
                    n_trials=1,
                    backend="optuna",
                    **_study_options(study.study_name, storage, study.sampler),
                )
                failures = 0
            except SurplusTrial:
                continue
            except (RecipeError, torch.OutOfMemoryError):  # no other trial would need less
                raise
            except Exception as error:
                raise_again()
                if is_full_disk(error):
                    raise
                failures += 1
                logger.warning("trial %s failed", trainer.trial_number, exc_info=True)
                if failures == FAILURES_IN_A_ROW:
                    raise RecipeError(
                        f"{failures} trials failed one after the other, the last one by {type(error).__name__}: "
                        f"{one_line(error)[:500]}; fix the cause, then run the same command to continue"
                    ) from error
            after_trial(study, study.get_trials(deepcopy=False)[trainer.trial_number])
    except KeyboardInterrupt:
        if trainer.trial_number is not None:  # the interrupt may have come while the trial's end was being stored
            study.tell(trainer.trial_number, state=TrialState.FAIL, skip_if_finished=True)
        raise


class Liveness:
    """
    Tells trials of running processes from those of killed ones.

    Optuna does so for trials with a heartbeat, but a process may be killed between the start of a trial and its first
    heartbeat. So the first process that sees a trial records one for it. Trials of killed processes are to be repeated
    first, so a process that joins a search begins no trial until it is known which trials are alive.
    """

    def __init__(self, study: optuna.Study, storage: RDBStorage):
        self.study = study
        self.storage = storage
        self._seen: set[int] = set()
        self._unsettled: set[int] | None = None  # trials that ran at the start, and may be dead
        self._settled_at = time.monotonic() + GRACE_SECONDS + 2  # storages count in whole seconds

    def counts(self) -> tuple[int, int]:
        """Count the complete and the running trials; mark those of killed processes as failed, to be repeated."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            fail_stale_trials(self.study)
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING))
        running = {trial._trial_id for trial in trials if trial.state == TrialState.RUNNING}
        for trial_id in running - self._seen:
            self.storage.record_heartbeat(trial_id)
        self._seen |= running
        self._unsettled = running if self._unsettled is None else self._unsettled & running
        return len(trials) - len(running), len(running)

    def is_settled(self) -> bool:
        """Tell whether it is known for each trial running at the first `counts` if its process is alive."""
        return not self._unsettled or time.monotonic() > self._settled_at


def is_surplus(study: optuna.Study, number: int, wanted: int) -> bool:
    """
    Tell whether enough trials before trial `number` are complete or running.

    Numbers are given in order and never twice, so if several processes begin trials at once, exactly the wanted ones
    continue.
    """
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING))
    return sum(trial.number < number for trial in trials) >= wanted


# --------------------------------------------------------------------------------------------------------- its storage


class SearchStorage(RDBStorage):
    """Storage that survives a lost heartbeat, which would end Optuna's thread and make the trial count as dead."""

    def record_heartbeat(self, trial_id: int) -> None:
        try:
            super().record_heartbeat(trial_id)
        except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
            logger.warning("a heartbeat could not be stored, the next one will: %s", one_line(error)[:500])


def open_study(
    arguments: SearchArguments, training_args: RetrievalTrainingArguments
) -> tuple[optuna.Study, RDBStorage]:
    """
    Open the study of these arguments and its storage; create it if it is new.

    Raises:
        RecipeError: the storage cannot be used, or its contents are not from a search.
    """
    storage = open_storage(arguments.storage)
    sampler = KeyedTPESampler(training_args.seed, arguments.n_startup_trials)
    with storage_faults(arguments.storage, Exception):
        study = optuna.create_study(**_study_options(arguments.study_name, storage, sampler))
        # Read everything that a search reads, because the database may have been edited.
        if study.direction != StudyDirection.MAXIMIZE:
            raise ValueError(f"the direction of study {study.study_name!r} is {study.direction.name}")
        if (recorded := study.user_attrs.get(SEARCH)) is not None:
            dict(recorded["space"]), dict(recorded["fields"])
        for trial in study.get_trials(deepcopy=False):
            if trial.state == TrialState.COMPLETE and not isinstance(trial.value, float):
                raise ValueError(f"trial {trial.number} is complete with the value {trial.value}")
    return study, storage


def _study_options(name: str, storage: RDBStorage, sampler: KeyedTPESampler) -> dict[str, Any]:
    return {
        "study_name": name,
        "storage": storage,
        "sampler": sampler,
        "pruner": NopPruner(),  # the default would stop trials below the median
        "direction": "maximize",
        "load_if_exists": True,
    }


def open_storage(url: str) -> RDBStorage:
    """
    Open the storage of `sqlite:///FILE`, `postgresql://...` or `mysql://...`; create its tables if it is new.

    Raises:
        RecipeError: the URL is not valid, its driver is not installed, or the storage cannot be reached.
    """
    parsed = _parse(url)
    kind = parsed.get_backend_name()
    options = {"connect_args": {"connect_timeout": CONNECT_SECONDS}, "pool_pre_ping": True}
    if kind == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            raise RecipeError("field storage names a database in memory, which ends with its process; name a file")
        options = {"connect_args": {"timeout": SQLITE_WAIT_SECONDS}}
    with storage_faults(url, Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return SearchStorage(
                    parsed.render_as_string(hide_password=False),
                    engine_kwargs=options,
                    heartbeat_interval=HEARTBEAT_SECONDS,
                    grace_period=GRACE_SECONDS,
                    heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=REPETITIONS),
                )
            except ImportError as error:
                raise RecipeError(
                    f"field storage: the driver of {storage_name(url)} is not installed; "
                    f'install it with `pip install "cnn10bert[{kind}]"`'
                ) from error
            except Exception:  # a damaged database may raise anything
                if attempt == ATTEMPTS:
                    raise
                time.sleep(attempt)
    raise AssertionError("unreachable")


@contextmanager
def storage_faults(url: str, kinds: type[Exception] | tuple[type[Exception], ...] = STORAGE_ERRORS) -> Iterator[None]:
    """
    Convert errors of the storage into one line.

    Args:
        url: URL of the storage.
        kinds: the exceptions; opening and reading a database that was damaged or edited may raise anything.

    Raises:
        RecipeError: the storage failed.
    """
    try:
        yield
    except InputError:
        raise
    except kinds as error:
        cause = error.__cause__ or getattr(error, "orig", None) or error
        reason = one_line(f"{type(cause).__name__}: {cause}")[:500]
        parsed = _parse(url)
        for secret in {parsed.password, *parsed.query.values()}:
            if secret and isinstance(secret, str):
                reason = reason.replace(secret, "***")
        raise RecipeError(
            f"field storage: {storage_name(url)} cannot be used ({reason}), expected the database of a search; start "
            "its server, correct the URL, or give another output_dir"
        ) from error


def storage_name(url: str) -> str:
    """Return the URL without its password and options, which may hold one, to be shown."""
    return _parse(url).set(query={}).render_as_string(hide_password=True)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        parsed = parsed.set(drivername=DRIVERS.get(parsed.drivername, parsed.drivername))
        parsed.get_dialect()  # checks the kind of database; loads no driver
    except (ArgumentError, ValueError) as error:
        # The message must not show the value, because it may hold a password.
        raise RecipeError(
            "field storage is not the URL of a database; expected sqlite:///FILE, "
            "postgresql://USER:PASSWORD@HOST/DATABASE or mysql://USER:PASSWORD@HOST/DATABASE"
        ) from error
    return parsed
