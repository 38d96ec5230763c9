"""Metrics and pictures of a run, as trackio and TensorBoard keep them on this machine."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import trackio
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from trackio.sqlite_storage import SQLiteStorage

from modeling_cnn10bert.integrations.reporting import PicturesCallback, training_examples
from modeling_cnn10bert.training.build import build_trainer
from modeling_cnn10bert.training.recipe import parse_recipe

SMALL = {"max_train_samples": 6, "max_eval_samples": 3, "save_strategy": "no", "num_train_epochs": 2}
PICTURES = {"train/examples", "eval/recall_at_k", "test/recall_at_k"}


@pytest.fixture(scope="module")
def reported(run, tmp_path_factory):
    """The folder of a run of two steps that reports to both, with an evaluation after each and another at the end."""
    folder = tmp_path_factory.mktemp("reported") / "a_run"
    run(folder, **SMALL, eval_strategy="epoch", report_to=["trackio", "tensorboard"])
    trackio.finish()  # as the end of the process does
    return folder


@pytest.fixture
def trainer(write_recipe, tmp_path):
    """Makes a trainer of the tiny recipe with the given fields."""

    def make(**given):
        recipe = write_recipe(tmp_path / "recipe.yaml", output_dir=str(tmp_path / "run"), **given)
        return build_trainer(*parse_recipe([str(recipe)]))[0]

    return make


def test_tensorboard_has_metrics_and_pictures(reported):
    events = {}
    for file in reported.rglob("events.out.tfevents.*"):
        accumulator = EventAccumulator(str(file), size_guidance={"images": 0, "scalars": 0}).Reload()
        for kind, read in (("images", accumulator.Images), ("scalars", accumulator.Scalars)):
            for tag in accumulator.Tags()[kind]:
                events.setdefault(tag, []).extend(read(tag))
    assert {"train/loss", "eval/mAP@10", "test/mAP@10"} | PICTURES <= events.keys()
    assert [event.step for event in events["train/loss"]] == [1, 2]
    assert sorted(event.step for event in events["eval/recall_at_k"]) == [1, 2, 2]
    for tag in PICTURES:
        picture = np.asarray(Image.open(io.BytesIO(events[tag][0].encoded_image_string)))
        assert min(picture.shape[:2]) > 300 and picture.std() > 10  # not blank


def test_trackio_has_metrics_and_pictures_in_one_run(reported):
    (run,) = trackio.Api().runs("cnn10bert")
    assert run.name == "a_run"  # the name of the folder, also for what was scored after training
    logs = SQLiteStorage.get_logs("cnn10bert", run.name)
    assert [log["train/global_step"] for log in logs if "train/loss" in log] == [1, 2]
    assert sum("eval/mAP@10" in log for log in logs) == 3 and sum("test/mAP@10" in log for log in logs) == 1
    pictures = {name: log[name]["file_path"] for log in logs for name in PICTURES if name in log}
    assert pictures.keys() == PICTURES
    for path in pictures.values():
        picture = np.asarray(Image.open(Path(os.environ["TRACKIO_DIR"]) / "media" / path))
        assert min(picture.shape[:2]) > 300 and picture.std() > 10


def test_the_examples_show_the_augmentation_of_each_recording(trainer):
    pairs = trainer(g_max=None, p_ms=None, n_f=None, p_eda=None, captions_per_recording=2).train_dataset
    axes = training_examples(pairs).axes
    captions = pairs.with_format(None)["caption"]
    shown = [ax.get_title(loc="left").replace("\n", " ").split(": ")[1] for ax in axes]
    assert shown == [captions[row] for row in (0, 0, 5, 5, 10, 10)]  # five captions per recording
    for before, after in zip(axes[::2], axes[1::2], strict=True):
        one, other = (ax.images[0].get_array() for ax in (before, after))
        changed = (one != other).mean(axis=0) == 1  # frames that a stripe masks
        assert 0 < changed.mean() < 1 and np.array_equal(one[:, ~changed], other[:, ~changed])


def test_a_run_that_reports_nowhere_draws_nothing(trainer):
    callbacks = trainer().callback_handler.callbacks
    assert not any(isinstance(callback, PicturesCallback) for callback in callbacks)
