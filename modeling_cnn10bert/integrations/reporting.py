"""Report the pictures of a run to the services of `report_to`: trackio, tensorboard and wandb."""

import importlib

import datasets
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback

from ..evaluation.plots import examples_figure, recall_figure

EXAMPLES = 3


class PicturesCallback(TrainerCallback):
    """
    Show pictures together with the metrics that transformers reports: training examples and the curve of recall.

    The former are drawn once, when training begins, and the latter at each evaluation.

    Args:
        trainer: a `RetrievalTrainer`, whose callbacks hold the open services.
    """

    def __init__(self, trainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self._show("train/examples", training_examples(self.trainer.train_dataset), state.global_step)

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        if state.is_world_process_zero:
            split = next(iter(metrics)).split("_")[0]  # eval or test
            self._show(f"{split}/recall_at_k", recall_figure(self.trainer.ranked), state.global_step)

    def _show(self, name: str, figure: Figure, step: int) -> None:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]
        for callback in self.trainer.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
                callback.tb_writer.add_image(name, pixels, step, dataformats="HWC")
                callback.tb_writer.flush()
            for kind, package in ((TrackioCallback, "trackio"), (WandbCallback, "wandb")):
                if isinstance(callback, kind):
                    service = importlib.import_module(package)
                    service.log({name: service.Image(pixels), "train/global_step": step})


def training_examples(pairs: datasets.Dataset) -> Figure:
    """Draw the first recordings of the training pairs with a caption, before and after augmentation."""
    transform = pairs.format["format_kwargs"]["transform"]
    plain = pairs.with_format(None)
    numbers = np.asarray(plain["recording"][:])
    together = transform.captions_per_recording
    firsts = [np.flatnonzero(numbers == number)[:together] for number in np.unique(numbers)[:EXAMPLES]]
    rows = np.concatenate(firsts).tolist()
    before, after = plain[rows], pairs[rows]
    log_mels = transform.read(transform.log_mels[before["recording"][::together]])
    return examples_figure(
        [(log_mel.numpy(), caption) for log_mel, caption in zip(log_mels, before["caption"][::together], strict=True)],
        [(log_mel.numpy(), texts[0]) for log_mel, texts in zip(after["log_mel"], after["captions"], strict=True)],
    )


__all__ = ["PicturesCallback", "training_examples"]
