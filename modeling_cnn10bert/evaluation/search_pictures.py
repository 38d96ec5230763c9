"""Pictures of a hyperparameter search: its course, where its trials lie, and which hyperparameter matters."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .pictures import save_figure
from .reports import best_position

_TRIAL, _BEST, _FAILED = "#3f88c5", "#b5179e", "#c8342b"
_STAR: dict[str, Any] = {"marker": "*", "markersize": 14, "linestyle": "none"}
_STAR |= {"color": "#f2b705", "markeredgecolor": "#5c4400"}
_COLUMNS = 5


def plot_search_history(values: Mapping[int, float], failed: Sequence[int], path: str | Path) -> None:
    """Draw the value of each trial in order, and the best so far.

    Args:
        values: number of a complete trial -> its value; at least one.
        failed: numbers of failed trials.
        path: the PNG to write; it appears complete or not at all.
    """
    numbers = sorted(values)
    heights = np.array([values[number] for number in numbers])
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    ax = figure.subplots()
    ax.plot(numbers, heights, "o", markersize=4.5, color=_TRIAL, alpha=0.8, label="trial")
    ax.step(numbers, np.maximum.accumulate(heights), where="post", color=_BEST, linewidth=1.6, label="best so far")
    best = best_position(heights.tolist()) or 0
    ax.plot(numbers[best], heights[best], **_STAR, label=f"best: {heights[best]:.4f}, trial {numbers[best]}")
    if failed:
        low = np.full(len(failed), heights.min())
        ax.plot(sorted(failed), low, "x", markersize=6, color=_FAILED, label="failed")
    ax.set_xlabel("trial")
    ax.set_ylabel("validation mAP@10")
    ax.locator_params(axis="x", integer=True)
    ax.grid(alpha=0.25)
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, fontsize=9, frameon=False)
    save_figure(figure, path)


def plot_slices(
    values: Mapping[int, float],
    drawn: Mapping[str, Sequence[float]],
    limits: Mapping[str, tuple[float, float]],
    path: str | Path,
) -> None:
    """Draw a panel a hyperparameter: the values of all trials over what they drew, the later the darker.

    Args:
        values: number of a complete trial -> its value; at least one.
        drawn: hyperparameter -> its value in each of these trials, in the order of `values`.
        limits: hyperparameter -> the ends of its range.
        path: the PNG to write; it appears complete or not at all.
    """
    rows = math.ceil(len(drawn) / _COLUMNS)
    columns = min(_COLUMNS, len(drawn))
    figure = Figure(figsize=(0.9 + 2.3 * columns, 0.5 + 2.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    numbers, heights = np.array(list(values)), np.array(list(values.values()))
    for ax, (name, at) in zip(panels, drawn.items(), strict=False):
        dots = _draw_slice(ax, np.array(at), heights, numbers)
        low, high = limits[name]
        ax.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        if isinstance(low, int):
            ax.locator_params(axis="x", integer=True)
        ax.set_xlabel(name, fontsize=9)
    for ax in panels[len(drawn) :]:
        ax.remove()
    figure.supylabel("validation mAP@10", fontsize=9)
    figure.colorbar(dots, ax=list(panels[: len(drawn)]), label="trial", fraction=0.02, pad=0.01)
    save_figure(figure, path)


def _draw_slice(ax: Axes, at: np.ndarray, heights: np.ndarray, numbers: np.ndarray):
    scale = {"cmap": "viridis_r", "vmin": 0, "vmax": max(numbers.max(), 1)}
    dots = ax.scatter(at, heights, c=numbers, s=16, alpha=0.85, linewidths=0, **scale)
    best = best_position(heights.tolist()) or 0
    ax.plot(at[best], heights[best], **{**_STAR, "markersize": 11})
    ax.grid(alpha=0.25)
    ax.tick_params(labelsize=7)
    return dots


def plot_importance(importances: Mapping[str, float], num_trials: int, path: str | Path) -> None:
    """Draw a bar a hyperparameter: its share of the variance of the trials' values.

    Args:
        importances: hyperparameter -> its share; they sum to 1.
        num_trials: complete trials that they come from.
        path: the PNG to write; it appears complete or not at all.
    """
    names = sorted(importances, key=importances.__getitem__)
    shares = [importances[name] for name in names]
    figure = Figure(figsize=(7, 0.9 + 0.32 * len(names)), layout="constrained")
    ax = figure.subplots()
    bars = ax.barh(names, shares, color=_TRIAL)
    ax.bar_label(bars, labels=[f"{share:.2f}" for share in shares], padding=3, fontsize=8)
    ax.margins(x=0.12)
    ax.set_xlabel(f"share of the variance of mAP@10 over {num_trials} trials (fANOVA)")
    ax.grid(axis="x", alpha=0.25)
    ax.set_axisbelow(True)
    save_figure(figure, path)
