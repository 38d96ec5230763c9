"""The test results of a run as machines read them: a card's `model-index`, and the Hub's `.eval_results/*.yaml`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml
from huggingface_hub.utils import yaml_dump

from ..evaluation.reports import TABLE_METRICS
from ..files import write_text

EVAL_RESULTS = ".eval_results"  # folder of a repository
MAIN_METRIC = "mAP@10"  # of the paper, section 6.4
METRIC_TYPES = {"R@1": "recall_at_1", "R@5": "recall_at_5", "R@10": "recall_at_10", "mAP@10": "map_at_10"}
# Task -> how it is called, and what stands before its metrics.
DIRECTIONS = {
    "text-to-audio-retrieval": ("Text to audio", ""),
    "audio-to-text-retrieval": ("Audio to text", "a2t_"),
}


def scores(facts: Mapping[str, Any], results: Mapping[str, float], split: str) -> dict[str, dict[str, float]] | None:
    """
    Task -> metric -> its value on `validation` or `test`; `None` where the run did not score that.

    What an earlier run left in the same `all_results.json` is not of this one.
    """
    if not facts["scored"][split]:
        return None
    prefix = {"validation": "eval_", "test": "test_"}[split]
    return {
        task: {metric: results[f"{prefix}{direction}{metric}"] for metric in TABLE_METRICS}
        for task, (_, direction) in DIRECTIONS.items()
    }


def model_index_results(facts: Mapping[str, Any], results: Mapping[str, float]) -> list[EvalResult]:
    """For `ModelCardData(eval_results=...)`: the metrics of the test set in both directions, or nothing."""
    data = facts["data"]
    return [
        EvalResult(
            task_type=task,
            task_name=f"{DIRECTIONS[task][0]} retrieval",
            dataset_type=data["hub_id"] or data["name"],
            dataset_name=data["source"] or data["name"],
            dataset_split="test",
            metric_type=METRIC_TYPES[metric],
            metric_name=metric,
            metric_value=value,
        )
        for task, metrics in (scores(facts, results, "test") or {}).items()
        for metric, value in metrics.items()
    ]


def eval_entries(facts: Mapping[str, Any], results: Mapping[str, float]) -> list[EvalResultEntry]:
    """
    For `.eval_results/*.yaml`: mAP@10 of each direction, the other metrics in the notes.

    The format (https://huggingface.co/docs/hub/eval-results) has one value for each task of a data set on the Hub, so a
    run on a folder, or on soundscapes, has no entries. The Hub shows a leaderboard where the data set's `eval.yaml`
    defines the tasks `text-to-audio-retrieval` and `audio-to-text-retrieval`.
    """
    dataset = facts["data"]["hub_id"]
    if dataset is None or facts["data"]["limits"].get("max_eval_samples"):  # a part of a benchmark is not its result
        return []
    return [
        EvalResultEntry(
            dataset_id=dataset, task_id=task, value=metrics[MAIN_METRIC], date=facts["ended"], notes=_notes(metrics)
        )
        for task, metrics in (scores(facts, results, "test") or {}).items()
    ]


def _notes(metrics: Mapping[str, float]) -> str:
    others = [f"{name} {value}" for name, value in metrics.items() if name != MAIN_METRIC]
    return f"The value is {MAIN_METRIC}; {', '.join(others)}."


def write_eval_results(folder: str | os.PathLike, facts: Mapping[str, Any], results: Mapping[str, float]) -> None:
    """Writes what `eval_entries` gives to FOLDER/.eval_results; what an earlier run left there goes."""
    target = Path(folder) / EVAL_RESULTS
    for left in target.glob("*.yaml"):
        left.unlink()
    if entries := eval_entries(facts, results):
        text = yaml_dump(eval_result_entries_to_yaml(entries), sort_keys=False)
        write_text(target / f"{facts['data']['hub_id'].rsplit('/', 1)[-1]}.yaml", text)
