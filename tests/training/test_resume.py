"""An interrupted run loses nothing: resumed, it ends with the numbers of an uninterrupted one."""

import json
import re
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

STEPS_PER_EPOCH, STEPS = 6, 18
WORKERS = {"dataloader_num_workers": 2, "dataloader_persistent_workers": True}


@pytest.mark.parametrize(
    ("step", "loading"),
    [(8, {}), (12, {}), (16, {}), (4, WORKERS), (12, WORKERS)],
    ids=["mid epoch", "end of an epoch", "last epoch", "mid epoch, workers", "end of an epoch, workers"],
)
def test_a_run_goes_on_from_any_checkpoint_as_if_never_interrupted(
    step, loading, interrupted_at, run, uninterrupted, assert_same_outcome
):
    folder = interrupted_at(step)
    run(folder, "--resume_from_checkpoint", "true", **loading)
    assert_same_outcome(folder, uninterrupted)


def test_evaluations_and_workers_leave_training_as_it_is(run, tmp_path, uninterrupted, assert_same_outcome):
    run(tmp_path / "run", eval_strategy="steps", eval_steps=5, save_strategy="no", **WORKERS)
    assert_same_outcome(tmp_path / "run", uninterrupted)


def _kill_within_an_epoch(process, folder):
    """Kills once checkpoint 8 is complete and step 9 or 10 of 18 was logged; the second epoch is steps 7 to 12."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process.poll() is None, process.log.read_text()[-3000:]
        epochs = [float(value) for value in re.findall(r"'epoch': '?([\d.]+)", process.log.read_text())]
        if (folder / "checkpoint-8" / "trainer_state.json").is_file() and max(
            epochs, default=0
        ) > 8.5 / STEPS_PER_EPOCH:
            process.kill()
            process.wait()
            return
        time.sleep(0.005)
    raise AssertionError(f"no step behind checkpoint 8 in time: {process.log.read_text()[-3000:]}")


@pytest.mark.parametrize("loading", [{}, WORKERS], ids=["no workers", "persistent workers"])
def test_a_process_that_was_killed_is_resumed_by_the_same_command(
    loading, start_process, write_recipe, tmp_path, uninterrupted, assert_same_outcome, run
):
    folder = tmp_path / "run"
    recipe = write_recipe(tmp_path / "recipe.yaml", output_dir=str(folder), **loading)
    process = start_process(recipe, "--resume_from_checkpoint", "true")
    _kill_within_an_epoch(process, folder)
    assert process.returncode == -9
    assert not (folder / "all_results.json").exists()
    for step in (12, 16):  # in case the killer was slow
        shutil.rmtree(folder / f"checkpoint-{step}", ignore_errors=True)

    if loading:
        process = start_process(recipe, "--resume_from_checkpoint", "true")
        assert process.wait(timeout=300) == 0, process.log.read_text()[-3000:]
    else:  # saves the ten seconds in which a process imports everything
        run(folder, "--resume_from_checkpoint", "true")
    assert_same_outcome(folder, uninterrupted)


def test_checkpoints_that_were_being_written_are_passed_over(interrupted_at, run, uninterrupted, assert_same_outcome):
    folder = interrupted_at(8)
    for step, state in ((10, None), (11, '{"best_metric": null, "epo')):
        unfinished = folder / f"checkpoint-{step}"
        shutil.copytree(folder / "checkpoint-8", unfinished)
        (unfinished / "trainer_state.json").unlink()
        if state is not None:
            (unfinished / "trainer_state.json").write_text(state)
        weights = load_file(unfinished / "model.safetensors")
        save_file({name: torch.zeros_like(w) for name, w in weights.items()}, unfinished / "model.safetensors")
    run(folder, "--resume_from_checkpoint", "true")
    assert_same_outcome(folder, uninterrupted)


def test_a_run_killed_behind_its_last_step_takes_no_further_one(run, tmp_path):
    # 10 steps end within the second epoch, whose remaining batches a resumed Trainer would go on to train on.
    limit = {"max_steps": 10, "save_steps": 5, "do_eval": False, "do_predict": False}
    run(tmp_path / "run", **limit)
    finished = load_file(tmp_path / "run" / "model.safetensors")
    (tmp_path / "run" / "model.safetensors").unlink()
    run(tmp_path / "run", "--resume_from_checkpoint", "true", **limit)
    resumed = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(resumed[name], finished[name]) for name in finished)
    assert json.loads((tmp_path / "run" / "trainer_state.json").read_text())["global_step"] == 10


def _logged_rates(folder):
    """Learning rate in the middle of each epoch, as the run logged it."""
    log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    rates = {entry["step"]: entry["learning_rate"] for entry in log if "learning_rate" in entry}
    return [rates[STEPS_PER_EPOCH * epoch + 3] for epoch in range(3)]


def test_the_learning_rate_falls_to_a_third_by_epochs_also_behind_a_resume(run, tmp_path, interrupted_at):
    """As section 6.4 of the paper has it, with a drop every epoch in place of every tenth."""
    step = {"learning_rate": 1e-4, "lr_decay_epochs": 1, "logging_steps": 3, "do_eval": False, "do_predict": False}
    run(tmp_path / "run", **step, save_steps=8)
    expected = [1e-4, 1e-4 / 3, 1e-4 / 9]  # 1e-4, 3.33e-5, 1.11e-5
    assert _logged_rates(tmp_path / "run") == pytest.approx(expected, rel=1e-9)

    resumed = tmp_path / "resumed"
    shutil.copytree(tmp_path / "run" / "checkpoint-8", resumed / "checkpoint-8")
    run(resumed, "--resume_from_checkpoint", "true", **step, save_steps=8)
    assert _logged_rates(resumed) == pytest.approx(expected, rel=1e-9)
