"""RetrievalTrainer: transformers' Trainer with the contrastive loss and an evaluation over the whole set."""

import math
from typing import Any

import datasets
import numpy as np
import torch
from accelerate.utils import gather_object
from torch import distributed, nn
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback
from transformers.trainer_utils import EvalLoopOutput

from ..data.pairs import PairSampler, SharedEpoch
from ..evaluation.metric import retrieval_metrics_both_directions
from ..modeling_cnn10bert import contrastive_loss
from .recipe import RecipeError
from .schedule import create_schedule


class GatherWithGradient(torch.autograd.Function):
    """
    Joins equal-sized rows of all processes in the order of their ranks; gradients flow back to the process of each row.

    Every process computes the same loss from the joined rows, and DistributedDataParallel averages the gradients of
    the processes. Summing here what that average divides makes the gradient exactly that of one process.
    """

    @staticmethod
    def forward(ctx, rows: torch.Tensor) -> torch.Tensor:
        ctx.rank, ctx.size = distributed.get_rank(), len(rows)
        gathered = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
        distributed.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.contiguous()
        distributed.all_reduce(gradient)
        return gradient[ctx.rank * ctx.size : (ctx.rank + 1) * ctx.size]


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """[B, ...] of this process to [B * processes, ...], with gradients; a single process gets its own rows back."""
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return rows
    return GatherWithGradient.apply(rows)


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


class StopWithoutGainCallback(EarlyStoppingCallback):
    """Ends training after evaluations without gain, also where the best model is not kept, as in a search."""

    def on_train_begin(self, args, state, control, **kwargs):
        """The base class warns here that the best model will not be loaded; the arguments are checked before."""


class RetrievalTrainer(Trainer):
    """
    Trains a `CNN10BertModel` on pairs and evaluates it on recordings.

    Args:
        model, args, data_collator, processing_class, callbacks: as for `Trainer`; the collator is a
            `RetrievalCollator`, the arguments are `RetrievalTrainingArguments`.
        train_dataset: rows of `pair_rows`, with a `PairTransform`.
        eval_dataset: rows of a recordings table, with a `RecordingTransform`.
        epoch: shared with the transform.
    """

    loss_is_scaled_for_ga = False  # `compute_loss` returns the mean of a batch

    def __init__(self, *args, epoch: SharedEpoch | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.model.to(memory_format=torch.channels_last)  # convolutions are 1.3 times faster on a CPU
        self.epoch = epoch or SharedEpoch()
        self.add_callback(KeyedDrawsCallback(self.epoch))
        if self.args.early_stopping_patience is not None:
            self.add_callback(StopWithoutGainCallback(self.args.early_stopping_patience))
        self.model_accepts_loss_kwargs = False  # the model's **kwargs are not for the loss
        self.can_return_loss = True  # without labels

    # ------------------------------------------------------------------------------------------------------ training

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """The model of a new trial, in the layout that `__init__` gives to the first."""
        return super().call_model_init(trial).to(memory_format=torch.channels_last)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """The model's `contrastive_loss` over the rows of all processes: each sees every other's negatives."""
        inputs = dict(inputs)
        audio_ids, text_ids = inputs.pop("recording_ids"), inputs.pop("text_recording_ids")
        outputs = model(**inputs)
        similarity = self.accelerator.unwrap_model(model, keep_torch_compile=False).similarity
        logits_per_audio = similarity(gather_rows(outputs.audio_embeds), gather_rows(outputs.text_embeds))
        loss = contrastive_loss(logits_per_audio, gather_rows(audio_ids), gather_rows(text_ids))
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimiser of the arguments, in which the text network may have a learning rate of its own."""
        if self.optimizer is None:
            model = self.model if model is None else model
            decayed = set(self.get_decay_parameter_names(model))
            groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    groups.setdefault(("text_model." in name, name in decayed), []).append(parameter)
            text_rate = self.args.text_learning_rate
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

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        """The schedule of the arguments; the paper's step decay by default."""
        if self.lr_scheduler is None:
            batches = len(self.train_dataset) // (self._train_batch_size * self.args.world_size)
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

    def _get_train_sampler(self, train_dataset: datasets.Dataset | None = None) -> Sampler:
        train_dataset = self.train_dataset if train_dataset is None else train_dataset
        batch_size = self._train_batch_size * self.args.world_size
        if len(train_dataset) < batch_size:
            raise RecipeError(
                f"found {len(train_dataset)} pairs of caption and recording, expected at least one batch of "
                f"{batch_size}; give more data or a smaller --total_train_batch_size"
            )
        lengths = train_dataset.with_format("numpy").select_columns(["length"])["length"][:]  # past the transform
        return PairSampler(
            lengths,
            batch_size=batch_size,
            seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
            epoch=self.epoch,
            group_by_length=self.args.train_sampling_strategy == "group_by_length",
        )

    def _run_epoch(self, *args, **kwargs) -> None:
        if self.state.global_step >= self.state.max_steps:  # resumed behind its last step: Trainer would take one more
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()  # then process 0 writes the file that marks the checkpoint as complete

    def _get_eval_sampler(self, eval_dataset: datasets.Dataset) -> Sampler:
        return SequentialSampler(eval_dataset)  # the set is scored as a whole, so its order does not matter

    # ---------------------------------------------------------------------------------------------------- evaluation

    def get_eval_dataloader(self, eval_dataset: str | datasets.Dataset | None = None) -> DataLoader:
        # Trainer keeps a loader with persistent workers and hands it out for every other set: the test set would be
        # scored on the validation recordings.
        persistent, self.args.dataloader_persistent_workers = self.args.dataloader_persistent_workers, False
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.args.dataloader_persistent_workers = persistent

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Embeds each recording and each caption once and scores the whole set (section 6.4 of the paper)."""
        audio, captions = self._embed(dataloader)
        metrics = retrieval_metrics_both_directions(
            torch.stack(list(audio.values())),
            torch.cat(list(captions.values())),
            list(audio),
            [recording for recording, embeds in captions.items() for _ in range(len(embeds))],
        )
        metrics["num_recordings"], metrics["num_captions"] = len(audio), sum(map(len, captions.values()))
        return EvalLoopOutput(
            predictions=None,
            label_ids=None,
            metrics={f"{metric_key_prefix}_{name}": value for name, value in metrics.items()},
            num_samples=len(audio),
        )

    @torch.no_grad()
    def _embed(self, dataloader: DataLoader) -> tuple[dict[int, torch.Tensor], dict[int, torch.Tensor]]:
        """Recording number -> its embedding [D], and -> those of its captions [n, D], from all processes."""
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False).to(self.args.device)
        model.eval()
        if self.args.world_size > 1:
            # Running statistics differ by what each process saw last; those of process 0 are saved.
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)
        rows = []
        for inputs in dataloader:
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
            inputs = self._prepare_inputs(inputs)
            with self.accelerator.autocast():
                audio = model.get_audio_features(inputs["input_features"], inputs["input_features_mask"]).pooler_output
                text = model.get_text_features(inputs["input_ids"], inputs["attention_mask"]).pooler_output
            audio, text, text_ids = audio.cpu(), text.cpu(), inputs["text_recording_ids"].cpu()
            rows += [
                (number, embed.clone(), text[text_ids == number])  # a view would pickle the whole batch
                for number, embed in zip(inputs["recording_ids"].tolist(), audio, strict=True)
            ]
        # The last batch of several processes is filled up with repeated rows: a mapping keeps one of each.
        gathered = sorted(gather_object(rows), key=lambda row: row[0])
        return {number: embed for number, embed, _ in gathered}, {number: texts for number, _, texts in gathered}
