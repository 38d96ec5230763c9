"""Sequential model-based optimisation of the augmentations (section 6.5 of the paper) by `hyperparameter_search`.

Each trial is a whole training with the recipe's seed and hyperparameters of its own; its value is the validation
mAP@10 of its best epoch. The storage holds all that a search knows: killed at any moment, the same command goes on with
it, and several processes, on one machine or many, take part in it by the same command. One trial runs in one process;
to use several devices, start a process for each.
"""

import logging
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import datasets
import optuna
import torch
from optuna.pruners import NopPruner
from optuna.trial import FrozenTrial, TrialState

from ..data.pairs import RetrievalCollator, SharedEpoch
from ..errors import RecipeError, one_line
from ..evaluation.reports import best_position
from ..files import is_full_disk
from ..interrupts import raise_again
from ..masking import without_secrets
from .arguments import AugmentationArguments, DataArguments, ModelArguments, RetrievalTrainingArguments
from .build import evaluation_recordings, load_model_and_processor, load_recordings, training_pairs
from .search_space import TABLE_4, SearchSpace, augmentation_of, search_space, strongest_augmentation, suggest
from .search_storage import KeyedTPESampler, Liveness, content_faults, is_surplus, open_storage, storage_name
from .trainer import RetrievalTrainer

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
    """Other processes run the last of the wanted trials already."""


class SearchTrainer(RetrievalTrainer):
    """
    Trains one trial after another, each from a fresh model.

    Trainer sets what a trial draws on its training arguments only and takes the last evaluation for the trial's value;
    here a trial gets training pairs of its own, and its value is its best evaluation.

    Args:
        space: what a trial draws.
        pairs_of: from the values of a trial to its training pairs.
        n_trials: complete trials wanted in all.
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
        """Draws the trial's values and trains it on pairs of these; nothing is set on the training arguments."""
        self.train_dataset = self.pairs_of(suggest(trial, self.space))
        return {}

    def train(self, resume_from_checkpoint: str | bool | None = None, trial: Any = None, **kwargs):
        """As Trainer's. A trial that fails keeps its error.

        Raises:
            SurplusTrial: the trial is one more than wanted.
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
            reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")[:1000]
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
    The training arguments of a trial: it keeps no checkpoint, pushes nothing, and stops without gain; else as they are.

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
    The trainer of a recipe's trials.

    Raises:
        RecipeError, DataError, AudioError: what is wrong with the arguments or with what they name, also where only
            some trials would meet it.
    """
    space = search_space(augmentation_args, search_args.fixed)
    training_args = search_training_arguments(training_args)
    _, processor = load_model_and_processor(model_args)
    tables = load_recordings(data_args, processor.feature_extractor, training_args.seed)
    epoch = SharedEpoch()

    def pairs(augmentation: AugmentationArguments) -> datasets.Dataset:
        return training_pairs(
            tables,
            augmentation,
            processor.feature_extractor,
            training_args.seed,
            epoch,
            training_args.captions_per_recording,
        )

    try:
        train_dataset = pairs(strongest_augmentation(space, augmentation_args))
    except RecipeError as error:
        named = re.match(r"field (\w+)", str(error))
        if named is None or named[1] not in space:
            raise
        raise RecipeError(f"the search tries {named[1]}: {error}; --fixed {named[1]} leaves it out") from error
    return SearchTrainer(
        model_init=lambda: load_model_and_processor(model_args)[0],
        args=training_args,
        data_collator=RetrievalCollator(processor),
        train_dataset=train_dataset,
        eval_dataset=evaluation_recordings(tables.validation, processor.feature_extractor),
        processing_class=processor,
        epoch=epoch,
        space=space,
        pairs_of=lambda values: pairs(augmentation_of(values, augmentation_args)),
        n_trials=search_args.n_trials,
    )


def run_search(
    trainer: SearchTrainer,
    study: optuna.Study,
    storage: optuna.storages.RDBStorage,
    after_trial: Callable[[optuna.Study, FrozenTrial], None],
) -> None:
    """
    Runs trials until the study has `trainer.n_trials` complete ones, however many processes do so at once.

    While other processes run the last of them it waits, and takes over if one fails. A failed trial is recorded with
    its error and replaced, and one whose process was killed is repeated: in one process, a search that was killed ends
    with the trials of an uninterrupted one.

    Args:
        trainer: from `build_search_trainer`.
        study: from `open_study`.
        storage: of the study.
        after_trial: called after each trial of this process.

    Raises:
        RecipeError: the recipe is at fault, or `FAILURES_IN_A_ROW` trials failed one after the other.
        torch.OutOfMemoryError: the device is too small for a trial.
        OSError, and what others raise for it: the disk is full.
        KeyboardInterrupt: the trial is marked as failed.
    """
    try:
        _run_trials(trainer, study, storage, after_trial)
    except KeyboardInterrupt:
        if trainer.trial_number is not None:  # it may have come while the trial's end was being stored
            study.tell(trainer.trial_number, state=TrialState.FAIL, skip_if_finished=True)
        raise


def _run_trials(
    trainer: SearchTrainer,
    study: optuna.Study,
    storage: optuna.storages.RDBStorage,
    after_trial: Callable[[optuna.Study, FrozenTrial], None],
) -> None:
    liveness, failures = Liveness(study, storage), 0
    while True:
        raise_again()
        complete, running = liveness.counts()
        if complete >= trainer.n_trials:
            return
        if complete + running >= trainer.n_trials or not liveness.is_settled():
            time.sleep(POLL_SECONDS)
            continue
        try:
            trainer.hyperparameter_search(
                hp_space=trainer.bind,
                compute_objective=lambda metrics: metrics[f"eval_{OBJECTIVE}"],
                n_trials=1,
                direction="maximize",
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
                    f"{one_line(error)[:500]}; mend the cause, then the same command goes on"
                ) from error
        after_trial(study, _trial(study, trainer.trial_number))


def open_study(
    arguments: SearchArguments, training_args: RetrievalTrainingArguments
) -> tuple[optuna.Study, optuna.storages.RDBStorage]:
    """
    The study of these arguments, made if it is new, and its storage.

    Raises:
        RecipeError: the storage cannot be used.
    """
    storage = open_storage(arguments.storage)
    sampler = KeyedTPESampler(training_args.seed, arguments.n_startup_trials)
    with content_faults(f"field storage: {storage_name(arguments.storage)}"):
        study = optuna.create_study(direction="maximize", **_study_options(arguments.study_name, storage, sampler))
    return study, storage


def _study_options(name: str, storage: optuna.storages.RDBStorage, sampler: KeyedTPESampler) -> dict[str, Any]:
    return {
        "study_name": name,
        "storage": storage,
        "sampler": sampler,
        "pruner": NopPruner(),  # the default would stop trials below the median
        "load_if_exists": True,
    }


def _trial(study: optuna.Study, number: int) -> FrozenTrial:
    return next(trial for trial in study.get_trials(deepcopy=False) if trial.number == number)
