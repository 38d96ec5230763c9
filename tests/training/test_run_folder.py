"""An output folder is never another run's, and is resumed from its last complete checkpoint."""

import signal
import subprocess
import sys
from types import SimpleNamespace

import filelock
import pytest
from transformers import TrainingArguments

from modeling_cnn10bert.errors import RecipeError
from modeling_cnn10bert.training import run_folder
from modeling_cnn10bert.training.run_folder import checkpoint_to_resume, locked, sole_run


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


def _checkpoint(folder, step, state="{}"):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt"):
        (path / name).touch()
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


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "scheduler.pt"])
def test_a_checkpoint_that_was_being_deleted_is_not_complete(name, folder):
    _checkpoint(folder, 5)
    (_checkpoint(folder, 6) / name).unlink()
    assert _begin(folder, "true") == str(folder / "checkpoint-5")


@pytest.mark.parametrize("resume", [None, "true"])
def test_a_folder_of_a_search_is_no_place_to_train(resume, folder):
    folder.mkdir()
    (folder / "search.json").touch()
    with pytest.raises(RecipeError, match="run holds a search"):
        _begin(folder, resume)


# ---------------------------------------------------------------------------------------------------------- one run


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(run_folder, "WAIT_SECONDS", 0.1)


@pytest.mark.parametrize("name", ["file", "file/run", "a\0b", "x" * 300, "\ud800"])
def test_what_can_be_no_folder_is_an_error_that_names_it(name, tmp_path):
    (tmp_path / "file").write_text("text")
    with (
        pytest.raises(RecipeError, match="output_dir .*expected a folder, or the name of a new one"),
        locked(tmp_path / name),
    ):
        raise AssertionError


def test_a_second_run_is_refused_in_one_line_that_names_the_folder(folder, impatient):
    first = SimpleNamespace(output_dir=str(folder), process_index=0)
    refused = pytest.raises(RecipeError, match=f"output_dir {folder}: found another run")
    with sole_run(first), refused as error, sole_run(first):
        raise AssertionError
    assert "\n" not in str(error.value)
    with sole_run(first):  # the first one has ended
        pass


def test_the_processes_of_one_run_share_its_folder(folder, impatient):
    first, second = (SimpleNamespace(output_dir=str(folder), process_index=index) for index in (0, 1))
    with sole_run(first), sole_run(second):
        pass


def test_the_lock_of_a_killed_run_does_not_block(folder, impatient):
    folder.mkdir()
    script = (
        "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(1, flush=True); input()"
    )
    command = [sys.executable, "-c", script, str(folder / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with pytest.raises(RecipeError), locked(folder):
            raise AssertionError
        process.send_signal(signal.SIGKILL)
        process.wait()
    with locked(folder):
        pass


def test_what_a_killed_run_was_writing_is_deleted(folder):
    (folder / ".eval_results").mkdir(parents=True)
    unfinished = [folder / ".all_results.json.123.tmp", folder / ".eval_results" / ".clotho.yaml.123.tmp"]
    for path in unfinished:
        path.touch()
    unfinished += [folder / ".curve.png.unfinished-1", folder / ".eval_results" / ".clotho.yaml.unfinished-2"]
    for path in unfinished[2:]:
        path.mkdir()
        (path / "half").touch()
    (folder / "all_results.json").touch()
    with sole_run(SimpleNamespace(output_dir=str(folder), process_index=0)):
        assert not any(path.exists() for path in unfinished)
    assert (folder / "all_results.json").exists()


def test_a_run_that_writes_nothing_leaves_no_folder(folder):
    with pytest.raises(RecipeError, match="a mistake"), locked(folder):
        raise RecipeError("a mistake")
    assert not folder.exists()
    folder.mkdir()
    with locked(folder):
        pass
    assert folder.is_dir()


@pytest.mark.parametrize("script", ["train_retrieval", "train_tagging"])
def test_the_scripts_that_train_refuse_a_folder_in_which_a_run_is_at_work(script, request, folder, impatient):
    folder.mkdir()
    main = request.getfixturevalue(script).main
    with filelock.FileLock(folder / ".lock"), pytest.raises(RecipeError, match="found another run at work"):
        main(["--output_dir", str(folder), "--use_cpu", "--do_train", "--manifests", "there", "--sources", "there"])
