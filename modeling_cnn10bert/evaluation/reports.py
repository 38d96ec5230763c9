"""Read the results of runs, summarize them over seeds, and write them as a table."""

import json
import logging
import math
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = "all_results.json"  # written by a training script into its output folder
TABLE_METRICS = ("R@1", "R@5", "R@10", "mAP@10")  # the columns of tables 3 and 5 of the paper
NOTHING = "–"
logger = logging.getLogger(__name__)
ROUNDING = 1e-9  # the order of a sum changes results by up to 1e-14, one more hit in a million by 1e-6


def read_results(run: str | os.PathLike, metrics: Sequence[str]) -> dict[str, float]:
    """
    Read the results of a finished run.

    Args:
        run: its output folder.
        metrics: the metrics that must be among them.

    Raises:
        ValueError: there are none, or one of the metrics is missing.
    """
    path = Path(run) / RESULTS
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: found no results ({error}), expected those of a finished run") from error
    if missing := [metric for metric in metrics if metric not in results]:
        raise ValueError(f"{path}: found no {', '.join(missing)}; it has {', '.join(sorted(results))}")
    return results


def read_json(path: str | os.PathLike) -> dict[str, Any] | None:
    """
    Read a JSON file of a run.

    Returns:
        Its fields, or `None` if there is no such file or it is incomplete, because a run of an older version was killed
        while writing it.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"found {type(found).__name__}, expected fields")
    except FileNotFoundError:
        return None
    except ValueError as error:
        logger.warning("%s is incomplete (%s); it is ignored and will be written again", path, error)
        return None
    return found


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation (n - 1), which is NaN for a single value."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def in_percent(values: Sequence[float]) -> str:
    """Format mean and deviation of shares as in the paper, `24.27 ± 0.19`; a single value has no deviation."""
    if not values:
        return NOTHING
    mean, deviation = mean_and_deviation([100 * value for value in values])
    return f"{mean:.2f}" if math.isnan(deviation) else f"{mean:.2f} ± {deviation:.2f}"


def is_gain(value: float, best: float, greater_is_better: bool = True) -> bool:
    """Tell whether a value is better than the best so far by more than rounding; NaN never is."""
    return (value - best if greater_is_better else best - value) > ROUNDING


def best_position(values: Sequence[float], greater_is_better: bool = True) -> int | None:
    """Find the position of the best value, the first of equal ones; `None` if there is no number."""
    best = None
    for position, value in enumerate(values):
        if not math.isnan(value) and (best is None or is_gain(value, values[best], greater_is_better)):
            best = position
    return best


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table with aligned columns; all columns but the first are numbers."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = [
        [cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(cells)]
        for cells in (list(zip(row, widths, strict=True)) for row in (header, *rows))
    ]
    rule = ["-" * width if column == 0 else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (lines[0], rule, *lines[1:]))
