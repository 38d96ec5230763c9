"""Sequential model-based optimization of the augmentations (section 6.5 of the paper) by Optuna.

Each trial trains a model as `build_trainer` makes it, with the recipe's seed and hyperparameters of its own; its value
is the validation mAP@10 of its best epoch. The storage holds all that a search knows: killed at any moment, the same
command goes on with it, and several processes, on one machine or many, take part in it by the same command. One trial
runs in one process; to use several devices, start a process for each.
"""

import logging
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import optuna
import torch
from optuna.pruners import NopPruner
from optuna.trial import FrozenTrial, TrialState

from ..evaluation.reports import best_position
from ..files import is_full_disk
from ..interrupts import raise_again
from ..masking import without_secrets
from .arguments import AugmentationArguments, DataArguments, ModelArguments, RetrievalTrainingArguments
from .build import build_trainer
from .recipe import RecipeError
from .search_space import TABLE_4, augmentation_of, search_space, strongest_augmentation, suggest
from .search_storage import KeyedTPESampler, Liveness, content_faults, is_surplus, open_storage, storage_name

OBJECTIVE = "mAP@10"
EARLY_STOPPING_PATIENCE = 10  # section 6.5
FAILURES_IN_A_ROW = 3  # then it is the recipe or the machine, not a trial
POLL_SECONDS = 1
ERROR, BEST_EPOCH, EPOCHS = "error", "best_epoch", "epochs"  # user attributes of a trial

logger = logging.getLogger(__name__)


@dataclass
class SearchArguments:
    """Says where a search is stored, how long it goes on and what it leaves out."""

    storage: str | None = field(
        default=None,
        metadata={
            "help": "Database of the study: sqlite:///FILE, or postgresql://... or mysql://... for several machines; "
            "by default sqlite:///OUTPUT_DIR/study.db."
        },
    )
    study_name: str | None = field(
        default=None, metadata={"help": "Name of the study in its storage; by default the output folder's."}
    )
    n_trials: int = field(
        default=110, metadata={"help": "Complete trials in all, those before a resume and of other processes included."}
    )
    n_startup_trials: int = field(
        default=10, metadata={"help": "Trials at random, before the estimator has enough to go by."}
    )
    fixed: list[str] = field(
        default_factory=list,
        metadata={"help": "Hyperparameters of table 4 that are not searched and stay as the recipe sets them."},
    )

    def __post_init__(self):
        for name in ("n_trials", "n_startup_trials"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        if unknown := [name for name in self.fixed if name not in TABLE_4]:
            raise ValueError(f"fixed names {', '.join(unknown)}, expected hyperparameters of {', '.join(TABLE_4)}")


@dataclass
class SearchTrainingArguments(RetrievalTrainingArguments):
    """Holds the training arguments of trials, which keep no checkpoint: nothing is demanded of when they would."""

    def __post_init__(self):
        self.load_best_model_at_end = False
        super().__post_init__()


class SurplusTrial(Exception):
    """Ends a trial that is one more than wanted: other processes run the last ones already."""


def search_training_arguments(arguments: RetrievalTrainingArguments) -> RetrievalTrainingArguments:
    """
    Set the training arguments of a trial: it keeps no checkpoint, pushes nothing, and stops without gain.

    Raises:
        RecipeError: what a search cannot do.
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
    arguments.load_best_model_at_end = False
    arguments.push_to_hub = False
    arguments.do_train = True
    if arguments.early_stopping_patience is None:
        arguments.early_stopping_patience = EARLY_STOPPING_PATIENCE
    return arguments


class TrialObjective:
    """
    Trains one trial after another, each from a fresh model.

    Args:
        model_args, data_args, augmentation_args, training_args: the recipe of the trials.
        search_args: of the search.

    Attributes:
        space: what a trial draws.
        trial_number: of the last trial, `None` before the first.

    Raises:
        RecipeError, ManifestError, AudioError: what is wrong with the arguments or with what they name, also where only
            some trials would meet it.
    """

    def __init__(
        self,
        model_args: ModelArguments,
        data_args: DataArguments,
        augmentation_args: AugmentationArguments,
        training_args: RetrievalTrainingArguments,
        search_args: SearchArguments,
    ):
        self.space = search_space(augmentation_args, search_args.fixed)
        self.model_args, self.data_args, self.augmentation_args = model_args, data_args, augmentation_args
        self.training_args = search_training_arguments(training_args)
        self.n_trials = search_args.n_trials
        self.trial_number: int | None = None
        strongest = strongest_augmentation(self.space, augmentation_args)
        try:
            _, self.tables = build_trainer(model_args, data_args, strongest, self.training_args)
        except RecipeError as error:
            named = re.match(r"field (\w+)", str(error))
            if named is None or named[1] not in self.space:
                raise
            raise RecipeError(f"the search tries {named[1]}: {error}; --fixed {named[1]} leaves it out") from error

    def __call__(self, trial: optuna.Trial) -> float:
        """
        Train a trial and return its value. One that fails keeps its error.

        Raises:
            SurplusTrial: the trial is one more than wanted.
        """
        self.trial_number = trial.number
        try:
            if is_surplus(trial.study, trial.number, self.n_trials):
                raise SurplusTrial("withdrawn: other processes run the last of the wanted trials")
            log = self.train(augmentation_of(suggest(trial, self.space), self.augmentation_args))
            return _best_evaluation(log, trial)
        except (Exception, KeyboardInterrupt) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")[:1000]
            trial.set_user_attr(ERROR, without_secrets(reason))
            raise

    def train(self, augmentation: AugmentationArguments) -> list[dict[str, float]]:
        """Train a model with the given augmentation and return the log of its training."""
        trainer, _ = build_trainer(self.model_args, self.data_args, augmentation, self.training_args, self.tables)
        trainer.train()
        return trainer.state.log_history


def _best_evaluation(log: list[dict[str, float]], trial: optuna.Trial) -> float:
    name = f"eval_{OBJECTIVE}"
    evaluations = [entry for entry in log if name in entry]
    if not evaluations:
        raise RecipeError(f"no evaluation within {log[-1]['step']} steps; lower eval_steps or eval_delay")
    if faulty := [entry for entry in evaluations if not math.isfinite(entry[name])]:
        raise ValueError(f"validation {OBJECTIVE} is {faulty[0][name]} after epoch {faulty[0]['epoch']:g}")
    for entry in evaluations:
        trial.report(entry[name], entry["step"])
    best = evaluations[best_position([entry[name] for entry in evaluations])]
    trial.set_user_attr(BEST_EPOCH, best["epoch"])
    trial.set_user_attr(EPOCHS, evaluations[-1]["epoch"])
    return best[name]


def run_search(
    objective: TrialObjective,
    study: optuna.Study,
    storage: optuna.storages.RDBStorage,
    after_trial: Callable[[optuna.Study, FrozenTrial], None],
) -> None:
    """
    Run trials until the study has `objective.n_trials` complete ones, however many processes do so at once.

    While other processes run the last of them it waits, and takes over if one fails. A failed trial is recorded with
    its error and replaced.

    Args:
        objective: trains them.
        study: from `open_study`.
        storage: of the study.
        after_trial: called after each trial of this process.

    Raises:
        RecipeError: the recipe is at fault, or `FAILURES_IN_A_ROW` trials failed one after the other.
        torch.OutOfMemoryError: the device is too small for a trial.
        OSError, and what others raise for it: the disk is full.
        KeyboardInterrupt: the trial is marked as failed.
    """
    liveness, failures = Liveness(study, storage), 0
    try:
        while True:
            raise_again()
            complete, running = liveness.counts()
            if complete >= objective.n_trials:
                return
            if complete + running >= objective.n_trials:
                time.sleep(POLL_SECONDS)
                continue
            try:
                study.optimize(objective, n_trials=1, gc_after_trial=True)  # its model goes before the next one comes
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
                logger.warning("trial %s failed", objective.trial_number, exc_info=True)
                if failures == FAILURES_IN_A_ROW:
                    raise RecipeError(
                        f"{failures} trials failed one after the other, the last one by {type(error).__name__}: "
                        f"{' '.join(str(error).split())[:500]}; mend the cause, then the same command goes on"
                    ) from error
            trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
            after_trial(study, trials[objective.trial_number])
    except KeyboardInterrupt:
        if objective.trial_number is not None:  # it may have come while the trial's end was being stored
            study.tell(objective.trial_number, state=TrialState.FAIL, skip_if_finished=True)
        raise


def open_study(
    arguments: SearchArguments, training_args: RetrievalTrainingArguments
) -> tuple[optuna.Study, optuna.storages.RDBStorage]:
    """
    Open the study of these arguments, made if it is new, and its storage.

    Raises:
        RecipeError: the storage cannot be used.
    """
    storage = open_storage(arguments.storage)
    sampler = KeyedTPESampler(training_args.seed, arguments.n_startup_trials)
    with content_faults(f"field storage: {storage_name(arguments.storage)}"):
        study = optuna.create_study(
            study_name=arguments.study_name,
            storage=storage,
            sampler=sampler,
            pruner=NopPruner(),  # the default would stop trials below the median
            direction="maximize",
            load_if_exists=True,
        )
    return study, storage
