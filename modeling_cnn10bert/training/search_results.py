"""The output folder of a search: its study, and the results so far."""

import csv
import io
import json
import re
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import yaml
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState

from ..errors import RecipeError
from ..evaluation.plots import save_figure
from ..evaluation.reports import best_position, read_json
from ..files import write_text
from ..masking import is_secret, without_secrets
from ..publishing.card import duration
from .arguments import RetrievalTrainingArguments
from .run_folder import MARKS_OF_A_RUN
from .search import BEST_EPOCH, EPOCHS, ERROR, OBJECTIVE, SEARCH, SearchArguments, storage_name
from .search_space import SearchSpace

STUDY_FILE, TRIALS_FILE, BEST_FILE = "search.json", "trials.csv", "best.yaml"
KILLED = "its process ended"  # the error of a trial that stored none
IMPORTANCE_FROM = 10  # complete trials; with fewer, importances are meaningless
PICTURE_SECONDS = 60  # between two drawings during the search
# Fields of a recipe that a trial's value does not depend on.
WITHOUT_EFFECT = re.compile(
    r"(dataloader|do|hub|log|logging|save|trackio)_\w+|cache_dir|disable_tqdm|load_best_model_at_end|output_dir|"
    r"preprocessing_num_workers|project|push_to_hub|report_to|resume_from_checkpoint|run_name|skip_memory_metrics"
)
_SEARCH_FIELDS = tuple(SearchArguments.__dataclass_fields__)


def relevant_fields(
    given: Mapping[str, Any], space: SearchSpace, training_args: RetrievalTrainingArguments
) -> dict[str, Any]:
    """Select the given fields that change a trial's value, besides the values that the trial draws."""
    fields = {
        name: value
        for name, value in given.items()
        if not (name in space or name in _SEARCH_FIELDS or WITHOUT_EFFECT.fullmatch(name) or is_secret(name))
    }
    effective = {"seed": training_args.seed, "early_stopping_patience": training_args.early_stopping_patience}
    return json.loads(json.dumps(fields | effective, default=str))  # as a storage returns it


def claim_folder(folder: Path, storage_url: str, study: optuna.Study) -> None:
    """
    Assign the folder to the study.

    Raises:
        RecipeError: the folder holds a run or another search.
    """
    if found := sorted({path.name for mark in MARKS_OF_A_RUN for path in folder.glob(mark)}):
        raise RecipeError(f"output_dir {folder} holds a run ({', '.join(found)}); give another output_dir")
    this = {"storage": storage_name(storage_url), "study_name": study.study_name}
    if (folder / STUDY_FILE).exists() and (recorded := read_json(folder / STUDY_FILE) or {}) != this:
        raise RecipeError(
            f"output_dir {folder} holds the search {recorded.get('study_name')!r} of {recorded.get('storage')}, "
            f"expected {this['study_name']!r} of {this['storage']}; give another output_dir"
        )
    if (folder / TRIALS_FILE).exists() and not study.get_trials(deepcopy=False):
        raise RecipeError(
            f"output_dir {folder} holds {TRIALS_FILE} of a search whose study is gone from {this['storage']}; "
            "give another output_dir"
        )
    write_text(folder / STUDY_FILE, json.dumps(this, indent=2) + "\n")


def claim_study(study: optuna.Study, description: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    """
    Record the description of the search in a new study; an existing one must have the same description.

    Args:
        description: `space` (name -> lowest and highest value), and the `fields` of the recipe that change a trial.
        defaults: value of a field that only one side names.

    Raises:
        RecipeError: the study belongs to another search.
    """
    recorded = study.user_attrs.get(SEARCH)
    if recorded is None:
        if study.get_trials(deepcopy=False):
            raise RecipeError(f"study {study.study_name!r} holds trials of something else; give another study_name")
        study.set_user_attr(SEARCH, description)
        return
    differences = []
    for what, part, missing in (("range of", "space", {}), ("field", "fields", defaults)):
        before, now = recorded[part], description[part]
        for name in sorted({*before, *now}):
            was, is_now = (side.get(name, missing.get(name)) for side in (before, now))
            if was != is_now:
                differences.append(f"{what} {name} was {was}, is {is_now}")
    if differences:
        raise RecipeError(
            f"study {study.study_name!r} is another search: {'; '.join(differences)}; "
            "give another output_dir (and study_name), or the recipe as it was"
        )


@dataclass
class SearchResults:
    """
    Writes the results of a study: `trials.csv`, `best.yaml`, `history.png`, `slices.png` and `importance.png`.

    Args:
        folder: the output folder.
        given: the fields that the recipe and the command line set.
        space: the search space.
        training_args: training arguments of the trials.
        n_trials: total number of complete trials wanted.
    """

    folder: Path
    given: Mapping[str, Any]
    space: SearchSpace
    training_args: RetrievalTrainingArguments
    n_trials: int
    drawn_at: float = field(default_factory=time.monotonic, init=False)

    def after_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Print a line about the trial and write the results; the pictures are drawn only now and then."""
        print(progress_line(study.get_trials(deepcopy=False), trial, self.n_trials), flush=True)
        self.write_tables(study)
        if time.monotonic() - self.drawn_at > PICTURE_SECONDS:
            self.draw(study)

    def write(self, study: optuna.Study) -> None:
        """Write all results."""
        self.write_tables(study)
        self.draw(study)

    def write_tables(self, study: optuna.Study) -> None:
        """Write `trials.csv` and `best.yaml`."""
        trials = study.get_trials(deepcopy=False)
        write_text(self.folder / TRIALS_FILE, _trials_table(trials, self.space))
        if best := best_trial(trials):
            write_text(self.folder / BEST_FILE, self._best_recipe(study, best))

    def draw(self, study: optuna.Study) -> None:
        """Draw Optuna's pictures of the study; the importance needs enough trials."""
        from matplotlib import pyplot
        from optuna.visualization import matplotlib as pictures

        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        drawn = {}
        pyplot.switch_backend("agg")
        with pyplot.rc_context(), warnings.catch_warnings():  # Optuna changes the global style
            warnings.simplefilter("ignore")  # that they are experimental, and that one trial has no range
            if complete:
                drawn["history.png"] = pictures.plot_optimization_history(study, target_name=OBJECTIVE)
                drawn["slices.png"] = pictures.plot_slice(study, params=list(self.space), target_name=OBJECTIVE)
            if importance(study, complete):
                evaluator = FanovaImportanceEvaluator(seed=0)
                drawn["importance.png"] = pictures.plot_param_importances(study, evaluator=evaluator)
            for name, axes in drawn.items():
                figure = np.ravel(axes)[0].figure
                figure.set_size_inches(4 + 2 * len(self.space) if name == "slices.png" else 9, 5)
                save_figure(figure, self.folder / name)
                pyplot.close(figure)
        self.drawn_at = time.monotonic()

    def _best_recipe(self, study: optuna.Study, best: FrozenTrial) -> str:
        complete = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
        left_out = {*_SEARCH_FIELDS, "resume_from_checkpoint"}
        fields = {
            name: without_secrets(value)
            for name, value in self.given.items()
            if name not in left_out and not is_secret(name)
        }
        fields |= {"do_train": True, "early_stopping_patience": self.training_args.early_stopping_patience}
        fields |= best.params
        fields |= {"output_dir": str(self.folder / "best")}
        if fields.get("load_best_model_at_end"):  # unlike a trial, it needs a checkpoint at the best evaluation
            fields |= {"save_strategy": self.training_args.eval_strategy.value}
            if fields["save_strategy"] == "steps":
                fields |= {"save_steps": self.training_args.eval_steps}
        return (
            f"# The best of {complete} trials of the search {study.study_name}: trial {best.number}, "
            f"validation {OBJECTIVE} {best.value!r}\n"
            f"# at epoch {best.user_attrs.get(BEST_EPOCH)}. cnn10bert train {BEST_FILE} repeats it.\n"
            + yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
        )


def best_trial(trials: list[FrozenTrial]) -> FrozenTrial | None:
    """Return the complete trial with the highest value, if any; the first of those that are equal up to rounding."""
    complete = sorted((trial for trial in trials if trial.state == TrialState.COMPLETE), key=lambda t: t.number)
    best = best_position([trial.value for trial in complete])
    return None if best is None else complete[best]


def importance(study: optuna.Study, complete: list[FrozenTrial]) -> dict[str, float]:
    """Return the shares of variance by fANOVA (Hutter et al., 2014); empty if trials are few or alike."""
    if len(complete) < IMPORTANCE_FROM:
        return {}
    try:
        return optuna.importance.get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    except RuntimeError:  # the values vary by no more than rounding
        return {}


def progress_line(trials: list[FrozenTrial], trial: FrozenTrial, n_trials: int) -> str:
    """Format how a trial ended, the best so far, the number of complete ones, and an estimate of the time left."""
    complete = [other for other in trials if other.state == TrialState.COMPLETE]
    if trial.state == TrialState.COMPLETE:
        outcome = f"{OBJECTIVE} {trial.value:.4f} at epoch {trial.user_attrs[BEST_EPOCH]:.4g}"
    else:
        outcome = f"failed: {trial.user_attrs.get(ERROR, KILLED)}"
    parts = [f"{len(complete)} of {n_trials} complete"]
    if best := best_trial(trials):
        parts.append(f"best {best.value:.4f} (trial {best.number})")
        seconds = sum(other.duration.total_seconds() for other in complete) / len(complete)
        at_once = 1 + sum(other.state == TrialState.RUNNING for other in trials)
        if (left := n_trials - len(complete)) > 0:
            parts.append(f"about {duration(seconds * left / at_once)} left")
    return f"trial {trial.number}: {outcome} | " + ", ".join(parts)


def _trials_table(trials: list[FrozenTrial], space: SearchSpace) -> str:
    table = io.StringIO()
    names = ["trial", "state", OBJECTIVE, BEST_EPOCH, EPOCHS, "seconds", *space, ERROR]
    rows = csv.DictWriter(table, names, lineterminator="\n")
    rows.writeheader()
    for trial in trials:
        rows.writerow(
            {
                "trial": trial.number,
                "state": trial.state.name.lower(),
                OBJECTIVE: trial.value,
                BEST_EPOCH: trial.user_attrs.get(BEST_EPOCH),
                EPOCHS: trial.user_attrs.get(EPOCHS),
                "seconds": round(trial.duration.total_seconds(), 1) if trial.duration else None,
                **{name: trial.params.get(name) for name in space},
                ERROR: trial.user_attrs.get(ERROR, KILLED) if trial.state == TrialState.FAIL else None,
            }
        )
    return table.getvalue()
