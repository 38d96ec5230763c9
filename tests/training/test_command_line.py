"""How the scripts that train end where they cannot go on."""

import numpy as np
import pytest
import torch

from modeling_cnn10bert.data.audio_io import AudioError
from modeling_cnn10bert.data.entries import PreparationError
from modeling_cnn10bert.data.soundscapes import ManifestError
from modeling_cnn10bert.evaluation.metric import DivergedError, retrieval_metrics_both_directions
from modeling_cnn10bert.training.command_line import run
from modeling_cnn10bert.training.recipe import RecipeError


def _ending_of(error):
    def main():
        raise error

    with pytest.raises(SystemExit) as ending:
        run(main)
    return ending.value.code


@pytest.mark.parametrize("kind", [RecipeError, ManifestError, AudioError, PreparationError])
def test_a_fault_of_the_input_is_one_line(kind):
    assert _ending_of(kind("file x: found y, expected z")) == "error: file x: found y, expected z"


def test_a_training_that_diverged_is_told_in_one_line_with_what_helps():
    with pytest.raises(DivergedError) as diverged:
        retrieval_metrics_both_directions(np.array([[1.0, np.nan]]), np.ones((1, 2)), [0], [0])
    line = _ending_of(diverged.value)
    assert line.startswith("error: the training has diverged: row 0 of audio_embeds has norm nan") and "\n" not in line
    assert "--learning_rate" in line


def test_of_several_processes_the_first_says_what_is_wrong_with_the_recipe(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert _ending_of(RecipeError("field x")) == 1


def test_a_device_without_enough_memory_is_told_with_the_fields_that_lower_it():
    line = _ending_of(torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB"))
    assert line.startswith("error: ") and "\n" not in line and "Tried to allocate 20 GiB" in line
    for name in ("total_train_batch_size", "per_device_eval_batch_size", "bf16", "gradient_checkpointing"):
        assert f"--{name}" in line


def test_a_fault_of_the_program_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)
