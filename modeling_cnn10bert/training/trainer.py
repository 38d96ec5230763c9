"""Trainers based on transformers' Trainer; a resumed run gives the same results as an uninterrupted one.

`KeyedTrainer` has the common code of all trainings. `RetrievalTrainer` adds the contrastive loss and an evaluation over
the whole set; `TaggingTrainer` is in tagging.py.
"""

import json
import math
import warnings
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from accelerate.utils import gather_object
from huggingface_hub import CommitInfo, HfApi
from torch import distributed, nn
from torch.distributed.nn.functional import all_gather
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import EvalLoopOutput, SaveStrategy

from ..data.hard_negatives import HardNegatives
from ..data.pairs import PairSampler, SharedEpoch
from ..errors import RecipeError
from ..evaluation.metric import rank_both_directions
from ..evaluation.plots import plot_training_curve
from ..evaluation.reports import RESULTS, best_position, is_gain, read_json
from ..files import replaced_whole, write_text
from ..integrations.sentence_transformers import write_configuration
from ..interrupts import raise_again
from ..memory import keep_freed_memory
from ..modeling_cnn10bert import contrastive_loss
from ..publishing.hub import CARD, publish, repository_name
from .arguments import KeyedTrainingArguments
from .cached_loss import backward_in_chunks
from .distillation import distillation_loss
from .run_folder import LAST_FILE_OF_CHECKPOINT, step_of
from .schedule import create_schedule

# ------------------------------------------------------------------------------------------------------------ callbacks


class KeyedDrawsCallback(TrainerCallback):
    """
    Makes every random draw of training a function of the seed and the step or epoch, also after a resume.

    The sampler and the transform get the number of the epoch. Dropout draws from torch's global state, which is seeded
    at every step, because data loaders draw from it too, depending on their workers, evaluations and resumes.
    """

    def __init__(self, epoch: SharedEpoch):
        self.epoch = epoch

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.epoch.set(int(state.epoch or 0))

    def on_step_begin(self, args, state, control, **kwargs):
        key = np.random.SeedSequence([args.seed, state.global_step, args.process_index])
        torch.manual_seed(int(key.generate_state(1)[0]))


class InterruptCallback(TrainerCallback):
    """Ends training at the next step if the request to end came when no exception could be raised."""

    def on_step_begin(self, args, state, control, **kwargs):
        raise_again()

    def on_prediction_step(self, args, state, control, **kwargs):
        raise_again()


class LogAtCheckpointCallback(TrainerCallback):
    """Logs the loss at every checkpoint, so that a run resumed from it has the same log as an uninterrupted one."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_log = control.should_log or control.should_save

    on_epoch_end = on_step_end


class StopWithoutGainCallback(TrainerCallback):
    """
    Ends training after `patience` evaluations in a row without gain, even if the best model is not kept.

    They are counted in the log of the run, which a checkpoint restores. So a resumed run ends at the same step as an
    uninterrupted one, or at once if its checkpoint is from that step.
    """

    def __init__(self, patience: int):
        self.patience = patience

    def on_train_begin(self, args, state, control, **kwargs):
        name = evaluated_name(args)
        values = [entry[name] for entry in state.log_history if name in entry]
        best = best_position(values, args.greater_is_better)
        if len(values) - (0 if best is None else best + 1) >= self.patience:
            control.should_training_stop = True

    on_evaluate = on_train_begin


def evaluated_name(args: KeyedTrainingArguments) -> str:
    """Return the name of `metric_for_best_model` in the log of a run."""
    return f"eval_{args.metric_for_best_model.removeprefix('eval_')}"


def read_column(dataset: datasets.Dataset, name: str) -> np.ndarray:
    """Read a column of numbers [N], without the transform."""
    return dataset.with_format("numpy").select_columns([name])[name][:]


# -------------------------------------------------------------------------------------------------------- all trainings


class KeyedTrainer(Trainer):
    """
    Resumes a run exactly and publishes it once, at the end.

    Args:
        args, kwargs: as for `Trainer`; the arguments are `KeyedTrainingArguments`. The training set has a transform
            with the same `epoch`, and a column `length` if clips of similar length are to be batched.
        epoch: shared with the transform.
        hard_negatives: of the recordings, for the batches of a `RetrievalTrainer`.
    """

    def __init__(self, *args, epoch: SharedEpoch | None = None, hard_negatives: HardNegatives | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.hard_negatives = hard_negatives
        self.model_accepts_loss_kwargs = False  # the models' **kwargs are not for the loss
        self.model.to(memory_format=torch.channels_last)  # convolutions are 1.3 times faster on a CPU
        # The arguments are saved with every checkpoint, so the token is kept separately.
        self._hub_token, self.args.hub_token = self.args.hub_token, None
        self.resumed_from_step = 0
        self.epoch = epoch or SharedEpoch()
        self.add_callback(KeyedDrawsCallback(self.epoch))
        self.add_callback(InterruptCallback())
        self.add_callback(LogAtCheckpointCallback())
        if self.args.early_stopping_patience is not None:
            self.add_callback(StopWithoutGainCallback(self.args.early_stopping_patience))

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """Make the model of a new trial, in the same memory format as in `__init__`."""
        return super().call_model_init(trial).to(memory_format=torch.channels_last)

    def train_and_save(self, checkpoint: str | None) -> dict[str, float]:
        """
        Train, from a checkpoint if there is one; save model, metrics, state and curve to the output folder.

        The loss is the mean over all steps, even in a resumed run; the time counts from the resume. A run that is
        resumed after its last step keeps its training time.
        """
        if self.args.device.type == "cpu":
            keep_freed_memory()
        # Read now, because training may delete this checkpoint, by `save_total_limit`.
        self.resumed_from_step = 0 if checkpoint is None else step_of(checkpoint)
        metrics = self.train(resume_from_checkpoint=checkpoint).metrics
        folder = Path(self.args.output_dir)
        if hasattr(self.model, "merge_and_unload"):  # from here on it is an ordinary model
            from ..integrations.lora import save_and_merge

            self.model = save_and_merge(self.model, folder, is_saved=self.args.should_save)
        if checkpoint is not None and self.state.global_step == self.resumed_from_step:
            metrics = self._metrics_without_a_step()
        else:
            metrics["train_loss"] = self.state.log_history[-1]["train_loss"] = self._mean_loss(metrics["train_loss"])
            if self.is_world_process_zero():  # existing results belong to other weights
                for name in (RESULTS, "eval_results.json", "test_results.json"):
                    (folder / name).unlink(missing_ok=True)
        self.save_model()
        self.save_metrics("train", metrics)
        self.save_state()
        if self.is_world_process_zero():
            plot_training_curve(self.state.log_history, folder / "curve.png")
        return metrics

    def _mean_loss(self, since_resume: float) -> float:
        """Compute the mean loss over all steps from the log and the loss since the resume."""
        steps = self.state.global_step - self.resumed_from_step
        total, last = steps * since_resume, 0
        for entry in self.state.log_history:
            if "loss" in entry and entry["step"] <= self.resumed_from_step:  # the mean since the previous entry
                total += (entry["step"] - last) * entry["loss"]
                last = entry["step"]
        return total / (last + steps)  # a checkpoint of an earlier version may lack the last entries before it

    def _metrics_without_a_step(self) -> dict[str, float]:
        """Read metrics and log from the output folder if no step was left; without them, return the log's loss."""
        summary = self.state.log_history.pop()  # a loss of zero over no steps
        folder = Path(self.args.output_dir)
        metrics, state = read_json(folder / "train_results.json"), read_json(folder / LAST_FILE_OF_CHECKPOINT)
        if metrics is None or state is None or state.get("global_step") != self.state.global_step:
            if not any("loss" in entry for entry in self.state.log_history):
                return {}
            metrics = {"train_loss": self._mean_loss(0.0)}
            self.state.log_history.append({"epoch": summary["epoch"], "step": summary["step"], **metrics})
            return metrics
        self.state.log_history = state["log_history"]
        return metrics

    def save_metrics(self, split: str, metrics: dict[str, float], combined: bool = True) -> None:
        """Save metrics as Trainer does, but write each file atomically, and replace an incomplete one."""
        if not self.is_world_process_zero():
            return
        folder = Path(self.args.output_dir)
        write_text(folder / f"{split}_results.json", json.dumps(metrics, indent=4, sort_keys=True))
        if combined:
            every = {**(read_json(folder / RESULTS) or {}), **metrics}
            write_text(folder / RESULTS, json.dumps(every, indent=4, sort_keys=True))

    def save_state(self) -> None:
        """Save the state as Trainer does, but write the file atomically."""
        if self.is_world_process_zero():
            with replaced_whole(Path(self.args.output_dir) / LAST_FILE_OF_CHECKPOINT) as unfinished:
                self.state.save_to_json(unfinished)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        """Create the schedule of the arguments, by default the paper's step decay, which Trainer does not have."""
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
        together = getattr(self.args, "captions_per_recording", 1)
        needs_recordings = together > 1 or self.hard_negatives is not None
        try:
            return PairSampler(
                lengths,
                batch_size=self._train_batch_size * self.args.world_size,
                seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
                epoch=self.epoch,
                group_by_length=group_by_length,
                recordings=read_column(train_dataset, "recording") if needs_recordings else None,
                captions_per_recording=together,
                draw_hard_negative=None if self.hard_negatives is None else self.hard_negatives.draw,
                hard_negatives=getattr(self.args, "hard_negatives", 0.0),
            )
        except ValueError as error:
            raise RecipeError(f"{error}; give more data or a smaller total_train_batch_size") from error

    def _run_epoch(self, *args, **kwargs) -> None:
        # When resumed after its last step, Trainer would take one more.
        if self.state.global_step >= self.state.max_steps or self.control.should_training_stop:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Record an evaluation as the best only if it gains more than rounding and its weights can be kept."""
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
        # Trainer reuses a loader with persistent workers for every other set, so the test set would be scored on the
        # validation recordings.
        persistent, self.args.dataloader_persistent_workers = self.args.dataloader_persistent_workers, False
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.args.dataloader_persistent_workers = persistent

    # Trainer would create the repository in its constructor and push every saved model. Only `push_to_hub` publishes.

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Do nothing, because `push_to_hub` creates the repository."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model and its processor, and publish nothing."""
        super().save_model(output_dir, _internal_call=True)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs,
    ) -> CommitInfo | Future | None:
        """
        Save the model and publish the output folder in one commit; see `publish`.

        Args:
            commit_message, revision, private, token: as for `publish`; by default from the training arguments.
            blocking: whether to wait until it is published.
            **kwargs: for `create_model_card`, if there is no card.

        Returns:
            The commit, or a future of it if `blocking` is off; `None` in all processes but the first.

        Raises:
            PublishError: the model could not be published; it stays in the output folder.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self.save_model()
        if not self.is_world_process_zero():
            return None
        if not (Path(self.args.output_dir) / CARD).exists():
            self.create_model_card(**kwargs)
        send = partial(
            publish,
            self.args.output_dir,
            repository_name(self.args.hub_model_id, self.args.output_dir),
            token=token or self._hub_token,
            private=self.args.hub_private_repo if private is None else private,
            revision=revision or self.args.hub_revision,
            message=commit_message or "End of training",
        )
        return send() if blocking else HfApi().run_as_future(send)


# ------------------------------------------------------------------------------------------------------------ retrieval


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """
    Gather rows [B, ...] of each process to [B * processes, ...] in the order of their ranks.

    Gradients flow back to the process of each row. Every process computes the same loss from all rows, so the sum of
    gradients is too large by the number of processes, which the averaging of DistributedDataParallel corrects.
    """
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return rows
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its replacement is still private
        return torch.cat(all_gather(rows))


class RetrievalTrainer(KeyedTrainer):
    """
    Trains a `CNN10BertModel` on pairs and evaluates it on recordings.

    Args:
        model, args, data_collator, processing_class, callbacks: as for `Trainer`; the collator is a
            `RetrievalCollator`, the arguments are `RetrievalTrainingArguments`.
        train_dataset: rows of `pair_rows`, with a `PairTransform`.
        eval_dataset: rows of a recordings table, with a `RecordingTransform`.
        epoch: shared with the transform.

    Attributes:
        ranked: the ranks of the last evaluation.
    """

    loss_is_scaled_for_ga = False  # `compute_loss` returns the mean of a batch

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """
        Return the model's `contrastive_loss` over the rows of all processes, so that negatives are shared; with
        teachers, the `distillation_loss`.
        """
        inputs, targets = self._split_batch(inputs)
        outputs = model(**inputs)
        loss = self._loss_of_embeddings(outputs.audio_embeds, outputs.text_embeds, **targets)
        return (loss, outputs) if return_outputs else loss

    def _split_batch(
        self, batch: dict[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor | None]]:
        """Split a batch into the model's inputs, and the loss's inputs about the rows of all processes."""
        inputs = dict(batch)
        audio_ids, text_ids = gather_rows(inputs.pop("recording_ids")), gather_rows(inputs.pop("text_recording_ids"))
        positives, keys = None, inputs.pop("caption_keys", None)
        if self.args.equal_captions_are_positives:
            keys = gather_rows(keys)
            # A caption describes every recording that has a caption with the same words in the batch.
            same_recording = audio_ids[:, None] == text_ids[None, :]  # [A, C]
            same_words = keys[:, None] == keys[None, :]  # [C, C]
            positives = same_recording.float() @ same_words.float() > 0
        correspondences, audio_embeds = None, inputs.pop("teacher_audio_embeds", None)
        if audio_embeds is not None:  # targets have no gradient, even if the temperature is learned
            text_embeds = inputs.pop("teacher_text_embeds")
            correspondences = self.model.similarity(gather_rows(audio_embeds), gather_rows(text_embeds)).detach()
        targets = {"audio_ids": audio_ids, "text_ids": text_ids, "positives": positives}
        return inputs, targets | {"correspondences": correspondences}

    def _loss_of_embeddings(
        self,
        audio_embeds: torch.Tensor,
        text_embeds: torch.Tensor,
        audio_ids: torch.Tensor,
        text_ids: torch.Tensor,
        positives: torch.Tensor | None,
        correspondences: torch.Tensor | None,
    ) -> torch.Tensor:
        logits_per_audio = self.model.similarity(gather_rows(audio_embeds), gather_rows(text_embeds))  # [A, C]
        if correspondences is not None:
            return distillation_loss(logits_per_audio, correspondences)
        return contrastive_loss(logits_per_audio, audio_ids, text_ids, positives)

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Train on a batch as Trainer does; with `contrastive_cache_chunk`, in chunks by cached gradients."""
        chunk = self.args.contrastive_cache_chunk
        if chunk is None:
            return super().training_step(model, inputs, num_items_in_batch)
        model.train()
        inputs, targets = self._split_batch(self._prepare_inputs(inputs))
        accumulated = self.current_gradient_accumulation_steps
        temperature = [self.model.logit_scale] if self.model.config.learnable_temperature else []
        with self.compute_loss_context_manager():
            loss = backward_in_chunks(
                model,
                inputs,
                math.ceil(len(inputs["input_ids"]) / chunk),
                partial(self._loss_of_embeddings, **targets),
                other_weights=[weight for weight in temperature if weight.requires_grad],
                backward=lambda share: self.accelerator.backward(share / accumulated),
                no_sync=partial(self.accelerator.no_sync, model),
            )
        return loss / accumulated

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model and its processor, also for Sentence Transformers, and publish nothing."""
        super().save_model(output_dir, _internal_call)
        folder = Path(output_dir or self.args.output_dir)
        if self.is_world_process_zero() and (folder / "config.json").exists():  # not of an adapter
            write_configuration(folder)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the optimizer of the arguments, in which the text network may have its own learning rate."""
        text_rate = self.args.text_learning_rate
        if self.optimizer is None:
            model = self.model if model is None else model
            decayed = set(self.get_decay_parameter_names(model))
            groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    groups.setdefault(("text_model." in name, name in decayed), []).append(parameter)
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = optimizer_class(
                [
                    {
                        "params": parameters,
                        "lr": options["lr"] if not is_text or text_rate is None else text_rate,
                        "weight_decay": self.args.weight_decay if is_decayed else 0.0,
                    }
                    for (is_text, is_decayed), parameters in groups.items()
                ],
                **options,
            )
        return self.optimizer

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Embed each recording and each caption once and score the whole set (section 6.4 of the paper)."""
        rows = self._embed(dataloader)
        audio, captions, keys = zip(*rows.values(), strict=True)
        ranked = rank_both_directions(
            torch.stack(audio),
            torch.cat(captions),
            list(rows),
            [number for number, of_recording in zip(rows, captions, strict=True) for _ in of_recording],
            torch.cat(keys),
        )
        self.ranked = ranked
        metrics = ranked.metrics()
        metrics["num_recordings"], metrics["num_captions"] = len(audio), sum(map(len, captions))
        return EvalLoopOutput(
            predictions=None,
            label_ids=None,
            metrics={f"{metric_key_prefix}_{name}": value for name, value in metrics.items()},
            num_samples=len(audio),
        )

    @torch.no_grad()
    def _embed(self, dataloader: DataLoader) -> dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Map recording numbers to embeddings [D], those of their captions [n, D], and the captions' keys [n]."""
        model = self.model.to(self.args.device).eval()
        if self.args.world_size > 1:
            # Running statistics differ between processes; those of process 0 are saved.
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)
        rows = []
        for inputs in dataloader:
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
            inputs = self._prepare_inputs(inputs)
            text_ids, keys = inputs.pop("text_recording_ids").cpu(), inputs.pop("caption_keys").cpu()
            recordings = inputs.pop("recording_ids").tolist()
            with self.accelerator.autocast():
                outputs = model(**inputs)  # sharded weights are gathered for `forward` alone
            audio, text = outputs.audio_embeds.cpu(), outputs.text_embeds.cpu()
            rows += [
                (number, embed.clone(), text[text_ids == number], keys[text_ids == number])  # a view pickles the batch
                for number, embed in zip(recordings, audio, strict=True)
            ]
        # With several processes, the last batch is filled up with repeated rows; the mapping keeps one of each.
        return {number: parts for number, *parts in sorted(gather_object(rows), key=lambda row: row[0])}
