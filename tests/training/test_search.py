"""A search of the augmentations: what a trial trains and reports, and that nothing of a search is lost."""

import csv
import errno
import gc
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from matplotlib.image import imread
from optuna.trial import TrialState
from transformers.trainer_utils import EvalLoopOutput

from modeling_cnn10bert.data.pairs import PairTransform
from modeling_cnn10bert.errors import RecipeError
from modeling_cnn10bert.training import search as searching
from modeling_cnn10bert.training.command_line import run as run_script
from modeling_cnn10bert.training.recipe import parse_recipe
from modeling_cnn10bert.training.search import (
    SearchArguments,
    SearchStorage,
    build_search_trainer,
    open_study,
    run_search,
    search_training_arguments,
)
from modeling_cnn10bert.training.search_results import SearchResults
from modeling_cnn10bert.training.trainer import RetrievalTrainer

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "search_hyperparameters.py"
FIXED = ("--fixed", "p_bt", "p_syn")  # they need back-translations and WordNet
SEARCHED = ("p_eda", "p_swp", "p_ins", "p_del", "n_f", "w_f", "n_t", "w_t", "g_max", "p_ms", "ms_alpha")
# In a few epochs; of the narrower networks of other tests every embedding is still nearly the same.
LEARNS = {"hidden_sizes": [8, 16, 32, 64], "projection_hidden_size": 128, "projection_dim": 64, "block_dropout": 0.0}
LEARNS |= {"learning_rate": 3e-3, "temperature": 0.1}
ONE_STEP = {"max_steps": 1, "max_train_samples": 6, "max_eval_samples": 3}  # 30 pairs are one batch


@pytest.fixture(scope="module", autouse=True)
def little_to_collect():
    """A trial ends with three garbage collections, which take half a second each over all that a test run imported."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def recipe_of(write_recipe):
    """Writes the recipe of a search into a folder."""

    def write(folder, **given):
        given = {"output_dir": str(folder), "eval_strategy": "epoch", "p_eda": 0.5, **given}
        return write_recipe(Path(f"{folder}.yaml"), **given)

    return write


@pytest.fixture
def search(search_script, recipe_of, monkeypatch):
    """Runs the script in this process, without its pictures, and returns its study."""
    monkeypatch.setattr(SearchResults, "draw", lambda self, study: None)

    def run(folder, *arguments, **given):
        return search_script.search_hyperparameters([str(recipe_of(folder, **given)), *FIXED, *arguments])

    return run


@pytest.fixture
def forced(monkeypatch):
    """Makes the evaluations of each trial report the given values in turn."""

    def force(values):
        def evaluation_loop(self, dataloader, *args, **kwargs):
            value = values[round(self.state.epoch) - 1]
            return EvalLoopOutput(None, None, {"eval_mAP@10": value}, num_samples=1)

        monkeypatch.setattr(RetrievalTrainer, "evaluation_loop", evaluation_loop)

    return force


@pytest.fixture
def untrained(monkeypatch):
    """Trials that draw, but report a given value, or raise a given error, instead of training."""

    def outcomes(outcome_of):
        def train(self, trial=None, **kwargs):
            self.bind(trial)
            outcome = outcome_of(trial.number)
            if isinstance(outcome, BaseException):
                raise outcome
            self.state.log_history = [{"eval_mAP@10": outcome, "epoch": 1.0}]

        monkeypatch.setattr(RetrievalTrainer, "train", train)

    return outcomes


def _states(study):
    return [trial.state.name for trial in study.trials]


# --------------------------------------------------------------------------------------------------- what a trial is


@pytest.fixture(scope="module")
def searched(search_script, recipe_of, tmp_path_factory):
    """A search of four trials, two of which train no more than a step, its folder, and what its transforms used."""
    folder = tmp_path_factory.mktemp("searched") / "search"
    used, trainers = defaultdict(set), []
    transformed, build, step = (
        PairTransform.__call__,
        search_script.build_search_trainer,
        RetrievalTrainer.training_step,
    )

    def transform(self, rows):
        audio, eda = self.augment_audio, self.augment_text.eda
        values = [getattr(eda if name in ("p_eda", "p_swp", "p_ins", "p_del") else audio, name) for name in SEARCHED]
        used[trainers[-1].trial_number].add(tuple(values))
        return transformed(self, rows)

    def training_step(self, *args, **kwargs):
        if getattr(self, "trial_number", 0) > 1:
            self.control.should_training_stop = True
        return step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PairTransform, "__call__", transform)
        patch.setattr(RetrievalTrainer, "training_step", training_step)
        patch.setattr(
            search_script, "build_search_trainer", lambda *args: trainers.append(build(*args)) or trainers[-1]
        )
        recipe = recipe_of(folder, num_train_epochs=8, logging_steps=100, **LEARNS)
        study = search_script.search_hyperparameters(
            [str(recipe), *FIXED, "--n_trials", "4", "--n_startup_trials", "2"]
        )
    return SimpleNamespace(folder=folder, study=study, used=used, recipe=recipe)


def test_the_transform_sees_each_trials_own_values(searched):
    assert len(searched.used) == 4
    for trial in searched.study.trials:
        assert searched.used[trial.number] == {tuple(trial.params[name] for name in SEARCHED)}


def test_the_best_recipe_repeats_its_trial_exactly(searched, train_retrieval):
    fields = yaml.safe_load((searched.folder / "best.yaml").read_text())
    best = searched.study.best_trial
    assert {name: fields[name] for name in SEARCHED} == best.params
    assert best.number < 2, "the trials that only took a step should be worse than those that trained"
    train_retrieval.main([str(searched.folder / "best.yaml"), "--do_predict", "false", "--save_strategy", "no"])
    state = json.loads((Path(fields["output_dir"]) / "trainer_state.json").read_text())
    curve = {entry["step"]: entry["eval_mAP@10"] for entry in state["log_history"] if "eval_mAP@10" in entry}
    assert {step: curve[step] for step in best.intermediate_values} == best.intermediate_values
    assert state["best_metric"] == best.value == max(curve.values())
    chance = json.loads((Path(fields["output_dir"]) / "eval_results.json").read_text())["eval_chance_mAP@10"]
    assert best.value > 1.3 * chance  # it learnt something, so that equality says something


def test_the_folder_of_a_search_holds_its_results_and_no_checkpoints(searched):
    results = {"trials.csv", "best.yaml", "history.png", "slices.png", "search.json", "study.db", ".lock"}
    assert {path.name for path in searched.folder.iterdir()} - {"best"} == results
    rows = list(csv.DictReader((searched.folder / "trials.csv").open()))
    assert [float(row["mAP@10"]) for row in rows] == [trial.value for trial in searched.study.trials]
    assert [float(row["p_ms"]) for row in rows] == [trial.params["p_ms"] for trial in searched.study.trials]
    for name in ("history.png", "slices.png"):
        assert imread(searched.folder / name).std() > 0.05


def test_a_search_that_is_complete_only_says_so(searched, search_script):
    arguments = [str(searched.recipe), *FIXED, "--n_startup_trials", "2"]
    assert len(search_script.search_hyperparameters([*arguments, "--n_trials", "4"]).trials) == 4


@pytest.mark.parametrize(
    ("values", "best", "best_epoch", "epochs"),
    [
        ([0.1, 0.5, 0.2], 0.5, 2, 3),  # the best evaluation, not the last
        ([0.25] * 15, 0.25, 1, 11),  # the first one, and ten without gain
        ([0.1] * 8 + [0.2] * 12, 0.2, 9, 19),  # a gain starts the count anew
        ([0.0483333333333333, *[0.04833333333333344] * 12], 0.0483333333333333, 1, 11),  # rounding is none
    ],
)
def test_a_trial_is_worth_its_best_epoch_and_stops_after_ten_without_gain(
    values, best, best_epoch, epochs, search, forced, tmp_path
):
    forced(values)
    given = {**ONE_STEP, "max_steps": None, "num_train_epochs": len(values)}
    (trial,) = search(tmp_path / "search", "--n_trials", "1", **given).trials
    assert (trial.value, trial.user_attrs["best_epoch"], trial.user_attrs["epochs"]) == (best, best_epoch, epochs)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_trials_of_equal_values_are_equal_whatever_ran_before(num_workers, recipe_of, tmp_path):
    workers = {"dataloader_num_workers": num_workers, "dataloader_persistent_workers": num_workers > 0}
    recipe = recipe_of(tmp_path / "search", **{**ONE_STEP, "max_steps": 3, "max_train_samples": 14}, **workers)
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    arguments = [str(recipe), "--storage", storage, "--study_name", "s", "--n_trials", "3", *FIXED]
    *parts, search_args = parse_recipe(arguments, argument_classes=_classes())
    trainer = build_search_trainer(*parts, search_args)
    study, storage = open_study(search_args, parts[-1])
    twice = {name: range_.low for name, range_ in trainer.space.items()} | {"p_eda": 0.9, "p_del": 0.2, "g_max": 5}
    for values in (twice, twice | {"p_eda": 0.1, "n_t": 4, "w_t": 60, "g_max": 1}, twice):
        study.enqueue_trial(values)
    losses = []
    run_search(trainer, study, storage, lambda *_: losses.append(_losses(trainer)))
    assert len(losses[0]) == 3 and losses[0] == losses[2]
    assert losses[0] != losses[1]


def _losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def _classes():
    from modeling_cnn10bert.training.arguments import ARGUMENT_CLASSES

    return (*ARGUMENT_CLASSES, SearchArguments)


# ------------------------------------------------------------------------------------------------- failures and kills


def test_a_failed_trial_is_recorded_with_its_error_and_replaced(search, untrained, tmp_path, capsys):
    untrained(lambda number: RuntimeError("the disk\nis full") if number in (1, 2, 4) else 0.1 * number)
    study = search(tmp_path / "search", "--n_trials", "3", **ONE_STEP)
    assert _states(study) == ["COMPLETE", "FAIL", "FAIL", "COMPLETE", "FAIL", "COMPLETE"]
    assert study.trials[1].user_attrs["error"] == "RuntimeError: the disk is full"
    rows = list(csv.DictReader((tmp_path / "search" / "trials.csv").open()))
    assert [row["error"] for row in rows] == ["", *["RuntimeError: the disk is full"] * 2, "", rows[1]["error"], ""]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("trial ")]
    failed = "trial 1: failed: RuntimeError: the disk is full | 1 of 3 complete, best 0.0000 (trial 0), about "
    assert lines[1].startswith(failed) and lines[1].endswith(" left")
    assert lines[-1] == "trial 5: mAP@10 0.5000 at epoch 1 | 3 of 3 complete, best 0.5000 (trial 5)"


def test_a_search_whose_trials_all_fail_ends_with_their_cause(search, untrained, tmp_path):
    untrained(lambda number: RuntimeError("no kernel image"))
    with pytest.raises(RecipeError, match="3 trials failed one after the other.*RuntimeError: no kernel image"):
        search(tmp_path / "search", "--n_trials", "5", **ONE_STEP)
    untrained(lambda number: 0.5)  # the cause is mended
    study = search(tmp_path / "search", "--n_trials", "5", **ONE_STEP)
    assert _states(study) == ["FAIL"] * 3 + ["COMPLETE"] * 5


def test_a_metric_that_is_not_a_number_fails_its_trial(search, untrained, tmp_path):
    untrained(lambda number: float("nan") if number == 0 else 0.5)
    study = search(tmp_path / "search", "--n_trials", "1", **ONE_STEP)
    assert _states(study) == ["FAIL", "COMPLETE"]
    assert "mAP@10 is nan" in study.trials[0].user_attrs["error"]


@pytest.mark.parametrize(
    "error",
    [RecipeError("field p_bt is wrong"), KeyboardInterrupt(), torch.OutOfMemoryError("20 GiB")],
    ids=["recipe", "Ctrl-C", "memory"],
)
def test_what_no_other_trial_would_mend_and_an_interruption_end_the_search_at_once(error, search, untrained, tmp_path):
    untrained(lambda number: error if number == 1 else 0.5)
    with pytest.raises(type(error)):
        search(tmp_path / "search", "--n_trials", "4", **ONE_STEP)
    untrained(lambda number: 0.5)
    study = search(tmp_path / "search", "--n_trials", "4", **ONE_STEP)
    assert _states(study) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert study.trials[1].user_attrs["error"].startswith(type(error).__name__)


class _Deleted:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)  # Python reports what is raised here, and goes on


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_that_python_passes_over_ends_the_search_too(search, untrained, tmp_path, capsys):
    untrained(lambda number: 0.5 if number < 1 else _Deleted() and 0.5)
    with pytest.raises(SystemExit) as ending:
        run_script(lambda: search(tmp_path / "search", "--n_trials", "4", **ONE_STEP))
    assert ending.value.code == 130 and "interrupted; continue with: " in capsys.readouterr().err
    untrained(lambda number: 0.5)
    study = search(tmp_path / "search", "--n_trials", "4", **ONE_STEP)
    assert _states(study) == ["COMPLETE"] * 4


def test_an_interruption_while_a_trial_is_stored_ends_the_search_and_fails_the_trial(
    search, untrained, tmp_path, monkeypatch
):
    store = SearchStorage.set_trial_state_values

    def interrupted(self, trial_id, state, values=None):
        if state == TrialState.COMPLETE:
            signal.raise_signal(signal.SIGINT)  # of which Optuna makes an UnboundLocalError
        return store(self, trial_id, state, values)

    untrained(lambda number: 0.5)
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ending:
        patch.setattr(SearchStorage, "set_trial_state_values", interrupted)
        run_script(lambda: search(tmp_path / "search", "--n_trials", "2", **ONE_STEP))
    assert ending.value.code == 130
    study = search(tmp_path / "search", "--n_trials", "2", **ONE_STEP)
    assert _states(study) == ["FAIL", "COMPLETE", "COMPLETE"]


def test_a_full_disk_ends_the_search_at_once(search, untrained, tmp_path):
    untrained(lambda number: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(SystemExit, match="error: the disk is full .*continue with: "):
        run_script(lambda: search(tmp_path / "search", "--n_trials", "4", **ONE_STEP))
    untrained(lambda number: 0.5)
    assert _states(search(tmp_path / "search", "--n_trials", "1", **ONE_STEP)) == ["FAIL", "COMPLETE"]


def _wait_until(condition, process, seconds=240):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, process.log.read_text()[-3000:]
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"nothing in {seconds} s: {process.log.read_text()[-3000:]}")


def _running(database):
    """The numbers of the trials that run; none where another process writes, or has made no table yet."""
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=0) as connection:
            return [number for (number,) in connection.execute("SELECT number FROM trials WHERE state = 'RUNNING'")]
    except sqlite3.OperationalError:
        return []


def test_a_search_killed_in_its_sixth_trial_ends_at_the_wanted_total(
    search, untrained, start_process, recipe_of, tmp_path, monkeypatch
):
    folder, wanted = tmp_path / "search", ("--n_trials", "12", "--n_startup_trials", "9")
    process = start_process(recipe_of(folder, **ONE_STEP), *FIXED, *wanted, script=SCRIPT)

    def stands_in_the_sixth_trial():
        os.kill(process.pid, signal.SIGSTOP)  # or it would be over before the kill
        if any(number >= 5 for number in _running(folder / "study.db")):
            return True
        os.kill(process.pid, signal.SIGCONT)
        return False

    _wait_until(stands_in_the_sixth_trial, process)
    process.kill()
    process.wait()
    (killed,) = _running(folder / "study.db")

    monkeypatch.setattr(searching, "GRACE_SECONDS", 2)
    untrained(lambda number: 0.01 * number)
    study = search(folder, *wanted, **ONE_STEP)
    assert _states(study) == ["COMPLETE"] * killed + ["FAIL"] + ["COMPLETE"] * (12 - killed)
    at_random = [trial.params["p_ms"] for trial in study.trials if trial.state == TrialState.COMPLETE][:9]
    assert len(set(at_random)) == 9
    rows = list(csv.DictReader((folder / "trials.csv").open()))
    assert (rows[killed]["state"], rows[killed]["error"]) == ("fail", "its process ended")


@pytest.fixture(scope="module")
def postgresql():
    """URL of a PostgreSQL server of our own."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: the search is not tested on PostgreSQL")
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = shutil.which("initdb") or (installed and str(installed[-1]))
    if not initdb:
        pytest.skip("PostgreSQL's server is not installed: the search is not tested on it")
    pg_ctl = str(Path(initdb).with_name("pg_ctl"))
    folder = Path(tempfile.mkdtemp(prefix="cnn10bert-postgresql-", dir="/tmp"))  # a socket's path must be short
    user = []
    if os.getuid() == 0:  # it refuses to run as root
        shutil.chown(folder, "postgres")
        user = ["runuser", "-u", "postgres", "--"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "cwd": folder}
    try:
        subprocess.run([*user, initdb, "-D", folder / "data", "-U", "me", "-A", "trust", "--no-sync"], **quiet)
        start = ["-D", folder / "data", "-l", folder / "log", "-o", options, "-w", "start"]
        subprocess.run([*user, pg_ctl, *start], **quiet)
        yield f"postgresql://me:secret@127.0.0.1:{port}/postgres"
        subprocess.run([*user, pg_ctl, "-D", folder / "data", "-m", "immediate", "stop"], **quiet)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_two_processes_share_a_study_and_end_at_the_same_total(
    kind, request, search, start_process, recipe_of, tmp_path, capsys
):
    folder = tmp_path / "search"
    url = request.getfixturevalue(kind) if kind == "postgresql" else f"sqlite:///{tmp_path / 'shared.db'}"
    wanted = ("--n_trials", "6", "--storage", url)
    process = start_process(recipe_of(folder, **ONE_STEP), *FIXED, *wanted, script=SCRIPT)
    _wait_until(lambda: "trial 0: mAP" in process.log.read_text(), process)
    study = search(folder, *wanted, **ONE_STEP)
    assert _states(study).count("COMPLETE") == 6
    assert process.wait(timeout=120) == 0, process.log.read_text()[-3000:]
    with_all = {trial.number for trial in study.trials if trial.state == TrialState.COMPLETE}
    ours, theirs = (
        set(map(int, re.findall(r"^trial (\d+): mAP", log, re.M)))
        for log in (capsys.readouterr().out, process.log.read_text())
    )
    assert ours and theirs and not ours & theirs and ours | theirs == with_all
    assert len({trial.params["p_ms"] for trial in study.trials if trial.number in with_all}) == 6
    text = process.log.read_text() + "".join(path.read_text() for path in folder.iterdir() if path.suffix != ".png")
    assert "secret" not in text


# --------------------------------------------------------------------------------------------------- what is not meant


@pytest.mark.parametrize(
    ("arguments", "given", "message"),
    [
        (["--fixed", "p_syn"], {}, "captions .* have no back-translation.*name p_bt in fixed"),
        (["--fixed", "p_btt"], {}, "fixed names p_btt, expected .*p_bt"),
        (["--n_trials", "0"], {}, "n_trials must be at least 1"),
        ([], {"eval_strategy": "no"}, "field eval_strategy is no"),
        ([], {"metric_for_best_model": "R@10"}, "field metric_for_best_model is R@10, expected mAP@10"),
        ([], {"early_stopping_patience": 0}, "early_stopping_patience must be at least 1, found 0"),
        ([], {"augment_audio": False, "augment_text": False}, "nothing is left to search"),
        (["--storage", "me:secret@host"], {}, "field storage is not the URL of a database"),
        ([], {"max_train_samples": 5}, "found 25 training examples, .* batch of 30"),
        ([], {"eval_delay": 5}, "no evaluation within 1 steps; lower eval_steps or eval_delay"),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(value),
)
def test_a_mistake_is_one_line(arguments, given, message, search, tmp_path):
    with pytest.raises(RecipeError, match=message) as error:
        search(tmp_path / "search", *arguments, **{**ONE_STEP, **given})
    assert "secret" not in str(error.value) and "\n" not in str(error.value)


def test_nothing_is_asked_of_checkpoints_that_no_trial_keeps_and_the_best_recipe_keeps_what_it_needs(
    search, forced, tmp_path, run
):
    forced([0.1, 0.1])
    # Checkpoints every 3 steps hold no evaluation of every 2 steps but each third.
    steps = {"eval_strategy": "steps", "eval_steps": 2, "save_steps": 3, "load_best_model_at_end": True}
    given = {**ONE_STEP, "max_steps": 2, **steps}
    (trial,) = search(tmp_path / "search", "--n_trials", "1", **given).trials
    assert trial.value == 0.1
    fields = yaml.safe_load((tmp_path / "search" / "best.yaml").read_text())
    assert (fields["load_best_model_at_end"], fields["save_strategy"], fields["save_steps"]) == (True, "steps", 2)
    parse_recipe([str(tmp_path / "search" / "best.yaml")])
    with pytest.raises(RecipeError, match="load_best_model_at_end requires the saving steps"):
        run(tmp_path / "run", **given)


def test_processes_that_train_together_are_told_to_search_side_by_side():
    with pytest.raises(RecipeError, match="found 2 processes .* once per device"):
        search_training_arguments(SimpleNamespace(world_size=2))


def test_no_file_of_a_search_holds_the_token(search, untrained, tmp_path, capsys):
    faults = {0: ValueError("https://me:planted-token@host cannot be reached")}
    untrained(lambda number: faults.get(number, 0.5))
    folder = tmp_path / "search"
    search(folder, "--n_trials", "1", hub_token="planted-token")
    left = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    said = capsys.readouterr()
    assert b"https://***@host" in left and b"planted-token" not in left
    assert "planted-token" not in said.out + said.err
    assert "hub_token" not in yaml.safe_load((folder / "best.yaml").read_text())


def test_another_search_or_run_in_the_folder_is_left_as_it_is(search, untrained, tmp_path):
    untrained(lambda number: 0.5)
    folder = tmp_path / "search"
    search(folder, "--n_trials", "1", **ONE_STEP)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(RecipeError, match="another search: field learning_rate was 0.001, is 0.01;"):
        search(folder, "--n_trials", "2", **ONE_STEP, learning_rate=0.01)
    with pytest.raises(RecipeError, match="another search: range of p_ms was .*, field p_ms|range of p_ms"):
        search(folder, "--n_trials", "2", "--fixed", "p_bt", "p_syn", "p_ms", **ONE_STEP)
    with pytest.raises(RecipeError, match="holds the search 'search' of sqlite"):
        search(folder, "--n_trials", "2", "--storage", f"sqlite:///{tmp_path / 'other.db'}", **ONE_STEP)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    (folder / "study.db").rename(tmp_path / "moved.db")
    with pytest.raises(RecipeError, match="study is gone"):
        search(folder, "--n_trials", "2", **ONE_STEP)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "all_results.json").write_text("{}")
    with pytest.raises(RecipeError, match="holds a run"):
        search(tmp_path / "run", "--n_trials", "2", **ONE_STEP)
    # What changes no trial may change.
    (tmp_path / "moved.db").replace(folder / "study.db")
    assert len(search(folder, "--n_trials", "2", **ONE_STEP, logging_steps=7, p_eda=0.1).trials) == 2
