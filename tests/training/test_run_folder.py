"""An output folder is never another run's, and is resumed from its last complete checkpoint."""

import pytest
from transformers import TrainingArguments

from modeling_cnn10bert.training.recipe import RecipeError
from modeling_cnn10bert.training.run_folder import checkpoint_to_resume


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


def _checkpoint(folder, step, state="{}"):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "model.safetensors").touch()
    if state is not None:
        (path / "trainer_state.json").write_text(state)
    return path


def _begin(folder, resume=None):
    return checkpoint_to_resume(TrainingArguments(output_dir=folder, resume_from_checkpoint=resume, use_cpu=True))


@pytest.mark.parametrize("resume", [None, "false", "true"])
def test_a_new_or_empty_folder_begins_at_the_first_step(resume, folder):
    assert _begin(folder, resume) is None
    folder.mkdir()
    (folder / "notes.txt").touch()
    assert _begin(folder, resume) is None


@pytest.mark.parametrize("mark", ["all_results.json", "model.safetensors", "checkpoint-5"])
@pytest.mark.parametrize("resume", [None, "false"])
def test_a_folder_that_holds_another_run_is_an_error(mark, resume, folder):
    folder.mkdir()
    (folder / mark).mkdir()
    with pytest.raises(RecipeError, match=f"output_dir .*run holds another run .*{mark}"):
        _begin(folder, resume)


@pytest.mark.parametrize("resume", ["true", "True"])
def test_the_last_complete_checkpoint_is_resumed(resume, folder):
    for step in (90, 100, 9):
        _checkpoint(folder, step)
    _checkpoint(folder, 110, state=None)
    _checkpoint(folder, 120, state='{"epoch": 1.')
    _checkpoint(folder, 130, state="")
    assert _begin(folder, resume) == str(folder / "checkpoint-100")  # the last by its number, not by its name or age


def test_a_run_killed_before_its_first_checkpoint_begins_anew(folder):
    _checkpoint(folder, 5, state=None)
    assert _begin(folder, "true") is None


def test_a_finished_run_without_checkpoints_is_not_trained_over(folder):
    folder.mkdir()
    (folder / "model.safetensors").touch()
    with pytest.raises(RecipeError, match="holds a finished run .*model.safetensors"):
        _begin(folder, "true")


def test_a_named_checkpoint_is_resumed_if_it_is_complete(folder):
    complete, unfinished = _checkpoint(folder, 5), _checkpoint(folder, 6, state=None)
    assert _begin(folder, str(complete)) == str(complete)
    for path in (unfinished, folder / "checkpoint-7"):
        with pytest.raises(RecipeError, match=f"{path} is not a complete checkpoint"):
            _begin(folder, str(path))
