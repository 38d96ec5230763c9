"""RetrievalTrainer: transformers' Trainer with the contrastive loss and an evaluation over the whole set."""

import math
from collections.abc import Callable
from typing import Any

import datasets
import torch
from accelerate.utils import gather_object
from torch import distributed, nn
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput

from ..evaluation.metric import retrieval_metrics_both_directions
from ..modeling_cnn10bert import contrastive_loss
from .gradient_cache import backward_in_chunks
from .keyed_trainer import KeyedTrainer, read_column


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


class RetrievalTrainer(KeyedTrainer):
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

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.can_return_loss = True  # without labels

    # ------------------------------------------------------------------------------------------------------ training

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """The model's `contrastive_loss` over the rows of all processes: each sees every other's negatives."""
        inputs, loss_of = self._split_loss(model, inputs)
        outputs = model(**inputs)
        loss = loss_of(outputs.audio_embeds, outputs.text_embeds)
        return (loss, outputs) if return_outputs else loss

    def _split_loss(
        self, model: nn.Module, inputs: dict[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]:
        """What the model is given of a batch, and the loss as a function of what it makes of it."""
        inputs = dict(inputs)
        audio_ids, text_ids = gather_rows(inputs.pop("recording_ids")), gather_rows(inputs.pop("text_recording_ids"))
        positives, keys = None, inputs.pop("caption_keys", None)
        if self.args.equal_captions_are_positives:
            keys = gather_rows(keys)
            # A caption describes every recording of which a caption in the batch has the same words.
            same_recording = audio_ids[:, None] == text_ids[None, :]  # [A, C]
            same_words = keys[:, None] == keys[None, :]  # [C, C]
            positives = same_recording.float() @ same_words.float() > 0
        similarity = self.accelerator.unwrap_model(model, keep_torch_compile=False).similarity

        def loss_of(audio_embeds: torch.Tensor, text_embeds: torch.Tensor) -> torch.Tensor:
            logits_per_audio = similarity(gather_rows(audio_embeds), gather_rows(text_embeds))
            return contrastive_loss(logits_per_audio, audio_ids, text_ids, positives)

        return inputs, loss_of

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """As Trainer's; with `contrastive_cache_chunk`, in chunks by cached gradients."""
        chunk = self.args.contrastive_cache_chunk
        if chunk is None:
            return super().training_step(model, inputs, num_items_in_batch)
        model.train()
        inputs, loss_of = self._split_loss(model, self._prepare_inputs(inputs))
        network = self.accelerator.unwrap_model(model, keep_torch_compile=False)
        accumulated = self.current_gradient_accumulation_steps
        with self.compute_loss_context_manager():
            loss = backward_in_chunks(
                model,
                inputs,
                math.ceil(len(inputs["input_ids"]) / chunk),
                loss_of,
                other_weights=[network.logit_scale] if network.config.learnable_temperature else [],
                backward=lambda share: self.accelerator.backward(share / accumulated),
                not_yet=lambda: self.accelerator.no_sync(model),
            )
        return loss / accumulated

    def _pairs_together(self, train_dataset: datasets.Dataset) -> dict[str, Any]:
        together = self.args.captions_per_recording
        if together == 1:
            return {}
        return {"recordings": read_column(train_dataset, "recording"), "captions_per_recording": together}

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

    # ---------------------------------------------------------------------------------------------------- evaluation

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Embeds each recording and each caption once and scores the whole set (section 6.4 of the paper)."""
        rows = self._embed(dataloader)
        audio, captions, keys = zip(*rows.values(), strict=True)
        metrics = retrieval_metrics_both_directions(
            torch.stack(audio),
            torch.cat(captions),
            list(rows),
            [number for number, of_recording in zip(rows, captions, strict=True) for _ in of_recording],
            torch.cat(keys),
        )
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
            audio, text = audio.cpu(), text.cpu()
            text_ids, keys = inputs["text_recording_ids"].cpu(), inputs["caption_keys"].cpu()
            rows += [
                (number, embed.clone(), text[text_ids == number], keys[text_ids == number])  # a view pickles the batch
                for number, embed in zip(inputs["recording_ids"].tolist(), audio, strict=True)
            ]
        # The last batch of several processes is filled up with repeated rows: a mapping keeps one of each.
        return {number: parts for number, *parts in sorted(gather_object(rows), key=lambda row: row[0])}
