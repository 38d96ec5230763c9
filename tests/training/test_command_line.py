"""How the scripts that train end where they cannot go on."""

import errno
import os
import resource
import signal
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from modeling_cnn10bert.errors import AudioError, DataError, RecipeError
from modeling_cnn10bert.evaluation.metric import DivergedError, rank_both_directions
from modeling_cnn10bert.interrupts import raise_again
from modeling_cnn10bert.training.command_line import RESUME, run


def _ending_of(error):
    def main():
        raise error

    with pytest.raises(SystemExit) as ending:
        run(main)
    return ending.value.code


@pytest.mark.parametrize("kind", [RecipeError, DataError, AudioError])
def test_a_fault_of_the_input_is_one_line(kind):
    assert _ending_of(kind("file x: found y, expected z")) == "error: file x: found y, expected z"


def test_a_training_that_diverged_is_told_in_one_line_with_what_helps():
    with pytest.raises(DivergedError) as diverged:
        rank_both_directions(np.array([[1.0, np.nan]]), np.ones((1, 2)), [0], [0]).metrics()
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


def test_a_machine_without_enough_memory_is_told_in_one_line():
    for error in (MemoryError(), MemoryError("Unable to allocate 9 TiB\nfor an array")):
        line = _ending_of(error)
        assert line.startswith("error: this machine has too little memory") and "\n" not in line


def test_a_fault_of_the_program_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)


# ------------------------------------------------------------------------------------ full disks and interruptions

COMMAND = ["python", "train_retrieval.py", "my recipe.yaml"]
AGAIN = "python train_retrieval.py 'my recipe.yaml' --resume_from_checkpoint true"


@pytest.fixture
def command(monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", list(COMMAND))
    monkeypatch.setattr(sys, "argv", COMMAND[1:])


@pytest.fixture
def small_disk():
    """No file may grow beyond 100 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


WRITERS = {
    "safetensors": lambda path: save_file({"weight": torch.zeros(100_000)}, path),
    "torch": lambda path: torch.save({"weight": torch.zeros(100_000)}, path),
    "Python": lambda path: path.write_bytes(bytes(400_000)),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_one_line_with_the_command_to_go_on(writer, command, small_disk, tmp_path):
    with pytest.raises(SystemExit) as ending:
        run(lambda: WRITERS[writer](tmp_path / "file"), RESUME)
    line = ending.value.code
    assert line.startswith("error: the disk is full (") and line.endswith(
        f"free some space, then continue with: {AGAIN}"
    )
    assert "\n" not in line


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_every_code_of_a_full_disk_is_one_also_behind_another_error(code):
    def main():
        try:
            raise OSError(code, os.strerror(code))
        except OSError as error:
            raise RuntimeError("the checkpoint could not be written") from error

    with pytest.raises(SystemExit, match="the disk is full"):
        run(main)


def test_an_error_of_the_disk_that_is_no_lack_of_space_keeps_its_traceback():
    with pytest.raises(OSError, match="Input/output error"):
        run(lambda: (_ for _ in ()).throw(OSError(errno.EIO, os.strerror(errno.EIO))))


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_an_interruption_is_one_line_with_the_command_to_go_on(name, code, command, capsys):
    with pytest.raises(SystemExit) as ending:
        run(lambda: signal.raise_signal(getattr(signal, name)), RESUME)
    assert ending.value.code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"continue with: {AGAIN}")


def test_a_command_that_resumes_already_is_named_as_it_is(command, capsys):
    sys.orig_argv += ["--resume_from_checkpoint", "true"]
    with pytest.raises(SystemExit):
        run(lambda: signal.raise_signal(signal.SIGINT), RESUME)
    assert capsys.readouterr().err.endswith(f"continue with: {AGAIN}\n")


@pytest.mark.parametrize(("rank", "said"), [("0", 1), ("1", 0)])
def test_of_several_processes_the_first_says_how_to_go_on(rank, said, command, monkeypatch, capsys):
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(SystemExit) as ending:
        run(lambda: signal.raise_signal(signal.SIGINT), RESUME)
    assert ending.value.code == 130
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == said
    assert all(line.endswith("accelerate launch [...] " + AGAIN.removeprefix("python ")) for line in lines)


class _Deleted:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)  # Python reports what is raised here, and goes on


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_that_python_passes_over_is_raised_again(command, capsys):
    def main():
        raise_again()
        _Deleted()
        raise_again()
        raise AssertionError

    with pytest.raises(SystemExit) as ending:
        run(main, RESUME)
    assert ending.value.code == 130 and "Error" not in capsys.readouterr().err
    raise_again()  # it is over


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_error_that_came_of_an_interruption_is_told_as_one(command, capsys):
    def main():
        _Deleted()
        raise UnboundLocalError("as Optuna does where it is interrupted while it stores a trial")

    with pytest.raises(SystemExit) as ending:
        run(main)
    assert ending.value.code == 130
