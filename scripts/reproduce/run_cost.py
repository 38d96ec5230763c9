"""Estimate the cost of a plan's runs: optimizer steps, and time from the finished runs."""

import dataclasses
import functools
import json
import math
import statistics
from collections.abc import Iterable
from pathlib import Path

from modeling_cnn10bert.data.recipes.soundscapes import manifest_lines
from modeling_cnn10bert.data.saved_tables import load_saved
from modeling_cnn10bert.evaluation.reports import read_results
from modeling_cnn10bert.training.arguments import DataArguments, RetrievalTrainingArguments
from modeling_cnn10bert.training.run_folder import LAST_FILE_OF_CHECKPOINT

from .ladders import TAGGING_RECIPES, Run, Synthesis
from .run_queue import is_finished, read_record

_DEFAULTS = {
    field.name: field.default
    for cls in (RetrievalTrainingArguments, DataArguments)
    for field in dataclasses.fields(cls)
    if field.default is not dataclasses.MISSING
}


def optimiser_steps(run: Run) -> int | None:
    """Return the number of steps of a whole run; `None` if its data is missing."""
    fields = {**_DEFAULTS, **run.fields}
    if (fields["max_steps"] or 0) > 0:
        return int(fields["max_steps"])
    if run.recipe.stem in TAGGING_RECIPES or (pairs := _training_pairs(fields)) is None:
        return None
    batches = pairs // fields["total_train_batch_size"]
    return math.ceil(fields["num_train_epochs"] * math.ceil(batches / fields["gradient_accumulation_steps"]))


def _training_pairs(fields: dict) -> int | None:
    try:
        if fields["dataset_name"]:
            captions = _captions_of_data_set(fields["dataset_name"])
            return sum(captions[: fields["max_train_samples"]])
        captions = _captions_of_manifest(str(Path(fields["manifests"]) / "train.jsonl"))
        return sum(captions[: fields["max_train_samples"]]) * fields["renderings"]
    except (OSError, TypeError, KeyError, ValueError):  # not there, not named, or no such data
        return None


@functools.cache
def _captions_of_data_set(folder: str) -> list[int]:
    return [len(captions) for captions in load_saved(folder)["train"]["captions"]]


@functools.cache
def _captions_of_manifest(path: str) -> list[int]:
    return [len(json.loads(line)["captions"]) for _, line in manifest_lines(Path(path))]


@dataclasses.dataclass(frozen=True)
class Speed:
    """Seconds per optimizer step, of each recipe that has finished runs and of all."""

    of_recipe: dict[str, float]
    of_all: float | None

    def hours(self, run: Run | Synthesis) -> float | None:
        """Return the hours of a whole run; `None` if unknown. Scenes are made in seconds."""
        if isinstance(run, Synthesis):
            return 0.0
        steps, seconds = optimiser_steps(run), self.of_recipe.get(run.recipe.stem, self.of_all)
        return None if steps is None or seconds is None else steps * seconds / 3600

    def hours_of(self, runs: Iterable[Run | Synthesis]) -> float | None:
        """Return the hours of all runs; `None` if one is unknown."""
        hours = [self.hours(run) for run in runs]
        return None if None in hours else sum(hours)


def measured_speed(steps: Iterable[Run | Synthesis], runs: Path, seconds_per_step: float | None = None) -> Speed:
    """
    Return the speed of the finished runs, or the given one.

    Resumed runs do not count, because they report only the time of their last part.
    """
    if seconds_per_step is not None:
        return Speed({}, seconds_per_step)
    seconds: dict[str, list[float]] = {}
    for run in steps:
        if isinstance(run, Run) and is_finished(run, runs) and (found := _seconds_per_step(runs / run.name)):
            seconds.setdefault(run.recipe.stem, []).append(found)
    means = {recipe: statistics.mean(values) for recipe, values in seconds.items()}
    return Speed(means, statistics.mean(means.values()) if means else None)


def _seconds_per_step(folder: Path) -> float | None:
    try:
        if (read_record(folder) or {}).get("resumed", True):
            return None
        state = json.loads((folder / LAST_FILE_OF_CHECKPOINT).read_text(encoding="utf-8"))
        return read_results(folder, ["train_runtime"])["train_runtime"] / state["global_step"]
    except (OSError, ValueError, KeyError, ZeroDivisionError):
        return None
