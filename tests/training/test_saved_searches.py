"""A search that an earlier version left in its folder is read as it was written, and gone on with."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml
from optuna.trial import TrialState

from modeling_cnn10bert.training.search_results import SearchResults
from modeling_cnn10bert.training.trainer import RetrievalTrainer

SAVED = Path(__file__).resolve().parents[1] / "assets" / "search"
ARGUMENTS = ["search.yaml", "--fixed", "p_bt", "p_syn", "--n_startup_trials", "2"]


@pytest.fixture
def go_on(search_script, write_recipe, soundscapes, text_folder, tmp_path, monkeypatch):
    """Runs the search of two trials, which was written by the same relative names, on to so many; trains nothing."""
    monkeypatch.chdir(tmp_path)
    Path("set").symlink_to(soundscapes)
    Path("text").symlink_to(text_folder)
    names = {"output_dir": "search", "text_model_name_or_path": "text", "manifests": "set", "sources": "set/sources"}
    write_recipe(
        Path("search.yaml"),
        **names,
        eval_strategy="epoch",
        max_train_samples=6,
        max_eval_samples=3,
        temporal_moments=None,
        hard_negatives=None,
    )

    def train(self, trial=None, **kwargs):
        self.bind(trial)
        self.state.log_history = [{"eval_mAP@10": 0.5 + trial.number / 8, "epoch": 1.0}]

    monkeypatch.setattr(RetrievalTrainer, "train", train)
    monkeypatch.setattr(SearchResults, "draw", lambda self, study: None)
    return lambda n_trials: search_script.search_hyperparameters([*ARGUMENTS, "--n_trials", str(n_trials)])


def test_its_trials_are_kept_and_the_same_command_adds_to_them(go_on, tmp_path):
    shutil.copytree(SAVED, tmp_path / "search")
    study = go_on(3)
    rows = list(csv.DictReader((SAVED / "trials.csv").open()))
    assert len(rows) == 2 and [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
    for trial, row in zip(study.trials[:2], rows, strict=True):
        assert trial.value == float(row["mAP@10"])
        assert trial.user_attrs["best_epoch"] == float(row["best_epoch"])
        assert {name: float(row[name]) for name in trial.params} == trial.params
    assert study.trials[2].params["p_ms"] not in [trial.params["p_ms"] for trial in study.trials[:2]]
    assert yaml.safe_load((tmp_path / "search" / "best.yaml").read_text())["p_ms"] == study.trials[2].params["p_ms"]
    assert json.loads((tmp_path / "search" / "search.json").read_text()) == json.loads(
        (SAVED / "search.json").read_text()
    )
