"""What all our training has in common: draws that are keyed by where training stands, and runs that resume exactly."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import TrainerCallback
from transformers.trainer_utils import SaveStrategy

from ..data.pairs import PairSampler, SharedEpoch
from ..evaluation.pictures import plot_training_curve
from ..evaluation.reports import RESULTS, best_position, is_gain, read_json, write_text
from ..interrupts import raise_again
from ..memory import keep_freed_memory
from ..publishing.trainer import PublishingTrainer
from .arguments import KeyedTrainingArguments
from .recipe import RecipeError
from .run_folder import LAST_FILE_OF_CHECKPOINT, step_of
from .schedule import create_schedule


def read_column(dataset: datasets.Dataset, name: str) -> np.ndarray:
    """[N] a column of numbers, read past the transform."""
    return dataset.with_format("numpy").select_columns([name])[name][:]


class KeyedDrawsCallback(TrainerCallback):
    """
    Makes every random draw of training a function of the seed and of where training stands, also after a resume.

    The sampler and the transform are told which epoch begins. Dropout draws from torch's own state, which is seeded for
    every step: data loaders draw from it too, and how often depends on their workers, on evaluations and on resumes.
    """

    def __init__(self, epoch: SharedEpoch):
        self.epoch = epoch

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.epoch.set(int(state.epoch or 0))

    def on_step_begin(self, args, state, control, **kwargs):
        key = np.random.SeedSequence([args.seed, state.global_step, args.process_index])
        torch.manual_seed(int(key.generate_state(1)[0]))


class InterruptCallback(TrainerCallback):
    """Ends a training that was asked to end in a moment in which nothing can be raised, at its next step."""

    def on_step_begin(self, args, state, control, **kwargs):
        raise_again()

    def on_prediction_step(self, args, state, control, **kwargs):
        raise_again()


class LogAtCheckpointCallback(TrainerCallback):
    """Logs the loss where a checkpoint is written: a run resumed from there logs what an uninterrupted one does."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_log = control.should_log or control.should_save

    on_epoch_end = on_step_end


class StopWithoutGainCallback(TrainerCallback):
    """
    Ends training after `patience` evaluations in a row without gain, also where the best model is not kept.

    They are counted in the log of the run, which a checkpoint restores: a resumed run ends where an uninterrupted one
    does, at once if that is where its checkpoint was written.
    """

    def __init__(self, patience: int):
        self.patience = patience

    def on_train_begin(self, args, state, control, **kwargs):
        self._stop_without_gain(args, state, control)

    def on_evaluate(self, args, state, control, **kwargs):
        self._stop_without_gain(args, state, control)

    def _stop_without_gain(self, args, state, control) -> None:
        name = evaluated_name(args)
        values = [entry[name] for entry in state.log_history if name in entry]
        best = best_position(values, args.greater_is_better)
        if len(values) - (0 if best is None else best + 1) >= self.patience:
            control.should_training_stop = True


def evaluated_name(args: KeyedTrainingArguments) -> str:
    """Return the name of `metric_for_best_model` in the log of a run."""
    return f"eval_{args.metric_for_best_model.removeprefix('eval_')}"


class KeyedTrainer(PublishingTrainer):
    """
    transformers' Trainer, of which every random draw is a function of the seed and of where training stands, and which
    publishes once, at the end.

    Args:
        args: `KeyedTrainingArguments`.
        train_dataset: with a transform that was given the same `epoch`, and a column `length` if clips of similar
            length are to be batched.
        epoch: shared with the transform.
    """

    def __init__(self, *args, epoch: SharedEpoch | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.model.to(memory_format=torch.channels_last)  # convolutions are 1.3 times faster on a CPU
        self.epoch = epoch or SharedEpoch()
        self.add_callback(KeyedDrawsCallback(self.epoch))
        self.add_callback(InterruptCallback())
        self.add_callback(LogAtCheckpointCallback())
        if self.args.early_stopping_patience is not None:
            self.add_callback(StopWithoutGainCallback(self.args.early_stopping_patience))
        self.resumed_from_step = 0
        self.model_accepts_loss_kwargs = False  # the models' **kwargs are not for the loss

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """The model of a new trial, in the layout that `__init__` gives to the first."""
        return super().call_model_init(trial).to(memory_format=torch.channels_last)

    def train_and_save(self, checkpoint: str | None) -> dict[str, float]:
        """
        Train, from a checkpoint if there is one; leave model, metrics, state and curve in the output folder.

        The loss is that of all steps, also of a resumed run; the time is that since the resume. A run that is resumed
        behind its last step keeps the time of its training.
        """
        if self.args.device.type == "cpu":
            keep_freed_memory()
        # Read now: it may be one of those that training deletes, by `save_total_limit`.
        self.resumed_from_step = 0 if checkpoint is None else step_of(checkpoint)
        metrics = self.train(resume_from_checkpoint=checkpoint).metrics
        if self.is_world_process_zero():
            if checkpoint is not None and self.state.global_step == self.resumed_from_step:
                metrics = self._metrics_of_the_training()
            else:
                metrics["train_loss"] = self.state.log_history[-1]["train_loss"] = self._mean_loss(metrics)
                # what lies there are the results of other weights
                for name in (RESULTS, "eval_results.json", "test_results.json"):
                    (Path(self.args.output_dir) / name).unlink(missing_ok=True)
        self.save_model()
        self.save_metrics("train", metrics)
        self.save_state()
        if self.is_world_process_zero():
            plot_training_curve(self.state.log_history, Path(self.args.output_dir) / "curve.png")
        return metrics

    def _mean_loss(self, metrics: dict[str, float]) -> float:
        """Compute the mean loss over all steps; Trainer takes those since the resume."""
        steps = self.state.global_step - self.resumed_from_step
        total, last = steps * metrics["train_loss"], 0
        for entry in self.state.log_history:
            if "loss" in entry and entry["step"] <= self.resumed_from_step:  # the mean since the entry before
                total += (entry["step"] - last) * entry["loss"]
                last = entry["step"]
        return total / (last + steps)  # a checkpoint of an earlier version may lack the last ones before it

    def _metrics_of_the_training(self) -> dict[str, float]:
        """Take metrics and log from the output folder, as no step was left; where it has none, the loss of the log."""
        summary = self.state.log_history.pop()  # a loss of zero, over no step
        folder = Path(self.args.output_dir)
        metrics, state = read_json(folder / "train_results.json"), read_json(folder / LAST_FILE_OF_CHECKPOINT)
        if metrics is None or state is None or state.get("global_step") != self.state.global_step:
            if not any("loss" in entry for entry in self.state.log_history):
                return {}
            metrics = {"train_loss": self._mean_loss({"train_loss": 0.0})}
            self.state.log_history.append({"epoch": summary["epoch"], "step": summary["step"], **metrics})
            return metrics
        self.state.log_history = state["log_history"]
        return metrics

    def save_metrics(self, split: str, metrics: dict[str, float], combined: bool = True) -> None:
        """Do as Trainer does, but write each file whole or not at all, and replace one that was torn."""
        if not self.is_world_process_zero():
            return
        folder = Path(self.args.output_dir)
        write_text(folder / f"{split}_results.json", json.dumps(metrics, indent=4, sort_keys=True))
        if combined:
            every = {**(read_json(folder / RESULTS) or {}), **metrics}
            write_text(folder / RESULTS, json.dumps(every, indent=4, sort_keys=True))

    def save_state(self) -> None:
        """Do as Trainer does, but write the file whole or not at all."""
        if self.is_world_process_zero():
            text = json.dumps(dataclasses.asdict(self.state), indent=2, sort_keys=True) + "\n"
            write_text(Path(self.args.output_dir) / LAST_FILE_OF_CHECKPOINT, text)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        """The schedule of the arguments; the paper's step decay by default."""
        if self.lr_scheduler is None:
            batches = self._get_train_sampler().num_batches
            self.lr_scheduler = create_schedule(
                self.args.learning_rate_schedule,
                self.optimizer if optimizer is None else optimizer,
                total_steps=num_training_steps,
                steps_per_epoch=math.ceil(batches / self.args.gradient_accumulation_steps),
                warmup_steps=self.args.get_warmup_steps(num_training_steps),
                decay_epochs=self.args.lr_decay_epochs,
                decay_factor=self.args.lr_decay_factor,
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _get_train_sampler(self, train_dataset: datasets.Dataset | None = None) -> PairSampler:
        train_dataset = self.train_dataset if train_dataset is None else train_dataset
        group_by_length = self.args.train_sampling_strategy == "group_by_length"
        lengths = read_column(train_dataset, "length") if group_by_length else np.zeros(len(train_dataset))
        try:
            return PairSampler(
                lengths,
                batch_size=self._train_batch_size * self.args.world_size,
                seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
                epoch=self.epoch,
                group_by_length=group_by_length,
                **self._pairs_together(train_dataset),
            )
        except ValueError as error:
            raise RecipeError(f"{error}; give more data or a smaller --total_train_batch_size") from error

    def _pairs_together(self, train_dataset: datasets.Dataset) -> dict[str, Any]:
        """What the sampler is told of examples that come together: nothing."""
        return {}

    def _run_epoch(self, *args, **kwargs) -> None:
        # Resumed behind its last step, Trainer would take one more.
        if self.state.global_step >= self.state.max_steps or self.control.should_training_stop:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Note an evaluation as the best one only if it gains more than rounding, and if its weights can be kept."""
        if self.args.metric_for_best_model is None:
            return False
        value, best = metrics[evaluated_name(self.args)], self.state.best_metric
        if best is not None and not is_gain(value, best, self.args.greater_is_better):
            return False
        is_saved = self.control.should_save or self.args.save_strategy == SaveStrategy.BEST
        if self.args.load_best_model_at_end and not is_saved:
            return False
        return super()._determine_best_metric(metrics=metrics, trial=trial)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()  # then process 0 writes the file that marks the checkpoint as complete

    def _get_eval_sampler(self, eval_dataset: datasets.Dataset) -> Sampler:
        return SequentialSampler(eval_dataset)  # the set is scored as a whole, so its order does not matter

    def get_eval_dataloader(self, eval_dataset: str | datasets.Dataset | None = None) -> DataLoader:
        # Trainer keeps a loader with persistent workers and hands it out for every other set: the test set would be
        # scored on the validation recordings.
        persistent, self.args.dataloader_persistent_workers = self.args.dataloader_persistent_workers, False
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.args.dataloader_persistent_workers = persistent
