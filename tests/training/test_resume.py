"""An interrupted run loses nothing: resumed, it ends with the numbers of an uninterrupted one."""

import json
import os
import re
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from modeling_cnn10bert.training.trainer import RetrievalTrainer

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


def test_a_resumed_run_logs_and_sums_up_its_losses_as_an_uninterrupted_one(run, tmp_path):
    # Checkpoint 4 lies between two steps that are logged.
    limit = {"max_steps": 7, "logging_steps": 3, "save_steps": 4, "do_eval": False, "do_predict": False}
    whole = run(tmp_path / "whole", **limit)
    shutil.copytree(tmp_path / "whole" / "checkpoint-4", tmp_path / "run" / "checkpoint-4")
    resumed = run(tmp_path / "run", "--resume_from_checkpoint", "true", **limit)
    logs = [
        json.loads((tmp_path / name / "trainer_state.json").read_text())["log_history"] for name in ("whole", "run")
    ]
    losses = [{entry["step"]: entry["loss"] for entry in log if "loss" in entry} for log in logs]
    assert losses[1] == pytest.approx(losses[0], abs=1e-6)
    # The mean of all seven steps: 1 to 3, the one before the checkpoint, 5 to 6, and the last.
    mean = (3 * losses[0][3] + losses[0][4] + 2 * losses[0][6] + losses[0][7]) / 7
    assert resumed["train_loss"] == pytest.approx(mean, abs=1e-6) == whole["train_loss"]


RESULTS = ("all_results.json", "train_results.json", "eval_results.json", "test_results.json", "trainer_state.json")


@pytest.mark.parametrize("left", [0, 2])
def test_files_of_a_run_that_were_torn_are_written_anew(left, uninterrupted, run, tmp_path, assert_same_outcome):
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted, folder)
    for name in (*RESULTS, "run_facts.json", "README.md", "curve.png"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    if left:
        shutil.rmtree(folder / "checkpoint-18")  # the last one; then there is 16
    run(folder, "--resume_from_checkpoint", "true")
    if not left:  # of the time of the training nothing is known
        results = json.loads((uninterrupted / "all_results.json").read_text())
        known = {"train_loss": pytest.approx(results["train_loss"], abs=1e-6)}
        assert json.loads((folder / "train_results.json").read_text()) == known
        assert json.loads((folder / "all_results.json").read_text()).keys() == {
            name for name in results if not name.startswith("train_") and name != "total_flos" or name in known
        }
    else:
        assert_same_outcome(folder, uninterrupted)
        for name in RESULTS:
            keys = json.loads((folder / name).read_text()).keys()
            assert keys == json.loads((uninterrupted / name).read_text()).keys()
    assert json.loads((folder / "run_facts.json").read_text())["training"]["resumed_from_step"] == 18 - left
    assert (folder / "README.md").read_text().endswith((uninterrupted / "README.md").read_text()[-200:])
    assert (folder / "curve.png").stat().st_size > 10_000


def test_no_file_of_a_run_is_written_in_place(run, tmp_path):
    """A reader, or a kill in mid of it, would meet half a file: what was there is replaced, and not overwritten."""
    folder, limit = tmp_path / "run", {"max_steps": 1, "max_train_samples": 6, "max_eval_samples": 3, "save_steps": 1}
    run(folder, **limit)
    names = (*RESULTS, "run_facts.json", "README.md", "curve.png")
    for name in names:
        os.link(folder / name, tmp_path / name)  # the same file under another name
    run(folder, "--resume_from_checkpoint", "true", **limit)
    assert not any((tmp_path / name).samefile(folder / name) for name in names)


def test_a_run_that_is_given_more_steps_keeps_no_result_of_its_earlier_weights(run, tmp_path):
    folder, limit = tmp_path / "run", {"max_train_samples": 6, "max_eval_samples": 3, "save_steps": 1}
    run(folder, max_steps=1, **limit)
    assert "test_mAP@10" in json.loads((folder / "all_results.json").read_text())
    run(folder, "--resume_from_checkpoint", "true", max_steps=2, do_predict=False, **limit)
    results = json.loads((folder / "all_results.json").read_text())
    assert "eval_mAP@10" in results and "test_mAP@10" not in results
    assert not (folder / "test_results.json").exists()


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


# --------------------------------------------------------------------------------------------------- early stopping

# One step an epoch, of 30 pairs of six recordings.
STEP_BY_STEP = {"max_train_samples": 6, "max_eval_samples": 3, "num_train_epochs": 9, "save_strategy": "epoch"}
STEP_BY_STEP |= {"save_steps": None, "eval_strategy": "epoch", "do_predict": False, "load_best_model_at_end": True}


@pytest.fixture
def forced(monkeypatch):
    """Makes the evaluation behind each step report the value given for it."""

    evaluation_loop = RetrievalTrainer.evaluation_loop

    def force(values, name="mAP@10"):
        def given(self, *args, **kwargs):
            output = evaluation_loop(self, *args, **kwargs)
            output.metrics[f"eval_{name}"] = values[self.state.global_step - 1]
            return output

        monkeypatch.setattr(RetrievalTrainer, "evaluation_loop", given)

    return force


def _state(folder):
    return json.loads((folder / "trainer_state.json").read_text())


def test_a_run_without_gain_ends_at_the_same_epoch_wherever_it_is_resumed(run, forced, tmp_path):
    forced([0.1, 0.3, 0.2, 0.3, 0.25, 0.9, 0.9, 0.9, 0.9])  # 3, 4 and 5 are no better than 2
    run(tmp_path / "whole", **STEP_BY_STEP, early_stopping_patience=3)
    expected, weights = _state(tmp_path / "whole"), load_file(tmp_path / "whole" / "model.safetensors")
    assert (expected["global_step"], expected["best_global_step"]) == (5, 2)
    for step in range(1, 6):
        folder = tmp_path / f"resumed-{step}"
        for before in range(1, step + 1):
            shutil.copytree(tmp_path / "whole" / f"checkpoint-{before}", folder / f"checkpoint-{before}")
        run(folder, "--resume_from_checkpoint", "true", **STEP_BY_STEP, early_stopping_patience=3)
        found = _state(folder)
        assert (found["global_step"], found["best_global_step"], found["best_metric"]) == (5, 2, 0.3), step
        resumed = load_file(folder / "model.safetensors")
        assert all(torch.equal(resumed[name], weights[name]) for name in weights), step


def test_a_resumed_run_goes_on_if_it_is_given_more_patience(run, forced, tmp_path):
    forced([0.3, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2])
    run(tmp_path / "run", **STEP_BY_STEP, early_stopping_patience=2)
    assert _state(tmp_path / "run")["global_step"] == 3
    run(tmp_path / "run", "--resume_from_checkpoint", "true", **STEP_BY_STEP, early_stopping_patience=4)
    assert _state(tmp_path / "run")["global_step"] == 5


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("mAP@10", [0.0483333333333333, 0.04833333333333344, 0.0483333333333334, 0.9]),
        ("MedR", [12.0, 12.0 - 1e-12, 12.0 - 2e-12, 1.0]),  # lower is better
    ],
)
def test_a_difference_of_rounding_is_no_gain(name, values, run, forced, tmp_path):
    forced(values, name)
    run(tmp_path / "run", **STEP_BY_STEP, metric_for_best_model=name, early_stopping_patience=2)
    state = _state(tmp_path / "run")
    assert (state["global_step"], state["best_global_step"], state["best_metric"]) == (3, 1, values[0])


def test_a_gain_of_one_more_hit_in_a_million_is_one(run, forced, tmp_path):
    forced([0.5, 0.500001, 0.5, 0.5, 0.9])
    run(tmp_path / "run", **STEP_BY_STEP, early_stopping_patience=2)
    state = _state(tmp_path / "run")
    assert (state["global_step"], state["best_global_step"]) == (4, 2)


def test_the_best_evaluation_is_one_whose_weights_were_saved(run, forced, tmp_path):
    forced([0.1, 0.2, 0.5, 0.3])
    by_steps = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 2}
    run(tmp_path / "run", **{**STEP_BY_STEP, **by_steps, "num_train_epochs": 4})
    state = _state(tmp_path / "run")
    assert (state["best_global_step"], state["best_metric"]) == (4, 0.3)
    kept, best = (load_file(tmp_path / "run" / path / "model.safetensors") for path in ("", "checkpoint-4"))
    assert all(torch.equal(kept[name], best[name]) for name in best)
