"""The picture of a run's training curve, and how pictures are drawn and saved.

All draw on matplotlib's object interface, so they need no display, leave no global state and work in any thread.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..files import replaced_whole
from .reports import best_position

Curves = dict[str, tuple[np.ndarray, np.ndarray]]  # name -> x [N], y [N]

DPI = 110
DYNAMIC_RANGE_DB = 80  # what of a log-mel is shown, from its loudest cell down
# How each measure of the validation set is drawn: the one that selects the checkpoint stands out.
_VALIDATION: dict[str, dict[str, Any]] = {
    "mAP@10": {"color": "#b5179e", "linewidth": 2.2, "marker": "o", "markersize": 3.5, "zorder": 3},
    "mAP": {"color": "#b5179e", "linewidth": 2.2, "marker": "o", "markersize": 3.5, "zorder": 3},  # of a tagger
    "mAUC": {"color": "#1d4e89", "linewidth": 1.2, "linestyle": "-"},
    "R@1": {"color": "#1d4e89", "linewidth": 1.2, "linestyle": "-"},
    "R@5": {"color": "#3f88c5", "linewidth": 1.2, "linestyle": "--"},
    "R@10": {"color": "#8ab6d6", "linewidth": 1.2, "linestyle": "-."},
}


def plot_training_curve(log_history: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Draw training loss, learning rate and validation metrics over epochs to one PNG.

    Args:
        log_history: `Trainer.state.log_history`: entries with `epoch` or `step`, and any of `loss`, `learning_rate`,
            `eval_loss`, `eval_mAP@10`, `eval_R@1`, `eval_R@5`, `eval_R@10`, `eval_chance_mAP@10`, of a tagger
            `eval_mAP`, `eval_mAUC`. Whatever is missing is left out.
        path: the PNG to write; it appears complete or not at all.
    """
    save_figure(_training_figure(log_history), path)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a picture whole or not at all: a reader never meets half of it."""
    with replaced_whole(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=DPI)


def _training_figure(log_history: Sequence[Mapping[str, Any]]) -> Figure:
    """Losses and learning rate above, validation metrics below; only the panels that have something to show."""
    over = "epoch" if any("epoch" in entry for entry in log_history) else "step"
    names = ["loss", "eval_loss", "learning_rate", "eval_chance_mAP@10", *(f"eval_{name}" for name in _VALIDATION)]
    curves = {name: _series(log_history, name, over) for name in names}
    panels = []
    if any(len(curves[name][0]) for name in ("loss", "eval_loss", "learning_rate")):
        panels.append(lambda ax: _draw_losses(ax, curves))
    if any(len(curves[f"eval_{name}"][0]) for name in _VALIDATION):
        panels.append(lambda ax: _draw_validation(ax, curves, over))

    figure = Figure(figsize=(9, 0.8 + 2.9 * max(1, len(panels))), layout="constrained")
    axes = figure.subplots(max(1, len(panels)), 1, sharex=True, squeeze=False)[:, 0]
    for ax, draw in zip(axes, panels, strict=False):
        draw(ax)
        ax.grid(alpha=0.25)
        ax.margins(x=0.02)
    if not panels:
        axes[0].text(0.5, 0.5, "nothing was logged", ha="center", va="center", transform=axes[0].transAxes)
    axes[-1].set_xlabel(over)
    return figure


def _series(log_history: Sequence[Mapping[str, Any]], name: str, over: str) -> tuple[np.ndarray, np.ndarray]:
    """(x [N], y [N]) of the entries that hold both, in order of x."""
    points = sorted((float(e[over]), float(e[name])) for e in log_history if e.get(name) is not None and over in e)
    x, y = zip(*points, strict=True) if points else ((), ())
    return np.array(x), np.array(y)


def _draw_losses(ax: Axes, curves: Curves) -> None:
    styles: dict[str, dict[str, Any]] = {
        "loss": {"label": "training loss", "color": "#d1602b", "linewidth": 1.6},
        "eval_loss": {"label": "validation loss", "color": "#7a3b1d", "linewidth": 1.2, "linestyle": "--"},
    }
    for name, style in styles.items():
        if len(curves[name][0]):
            ax.plot(*curves[name], marker="." if len(curves[name][0]) < 3 else None, **style)
    ax.set_ylabel("loss")
    lines = ax.get_lines()
    if len(curves["learning_rate"][0]):
        right = ax.twinx()
        # a step for each logged value: the schedule is piecewise constant, and a slope would invent values between
        right.step(*curves["learning_rate"], where="post", color="#6b6b6b", linewidth=0.8, label="learning rate")
        if curves["learning_rate"][1].min() > 0:
            right.set_yscale("log")
        right.set_ylabel("learning rate", color="#6b6b6b")
        right.tick_params(axis="y", colors="#6b6b6b", which="both", labelsize=8)
        right.margins(y=0.15)
        lines = [*lines, *right.get_lines()]
    ax.set_title("Training", loc="left", fontsize=11)
    legend_above(ax, lines)


def _draw_validation(ax: Axes, curves: Curves, over: str) -> None:
    for name, style in _VALIDATION.items():
        if len(curves[f"eval_{name}"][0]):
            ax.plot(*curves[f"eval_{name}"], label=name, **style)
    chance = curves["eval_chance_mAP@10"][1]
    if len(chance):
        color = _VALIDATION["mAP@10"]["color"]
        ax.axhline(chance[-1], color=color, linewidth=0.9, linestyle=":", label="mAP@10 by chance")
    x, values = curves["eval_mAP@10"] if len(curves["eval_mAP@10"][0]) else curves["eval_mAP"]
    if np.isfinite(values).any():
        best = best_position(values.tolist())
        star: dict[str, Any] = {"marker": "*", "markersize": 12, "color": "#f2b705", "markeredgecolor": "#5c4400"}
        label = f"best: {values[best]:.4f} at {over} {round(float(x[best]), 2):.10g}"
        ax.plot(x[best], values[best], linestyle="none", zorder=4, label=label, **star)
    ax.set_ylabel("share of queries" if len(curves["eval_mAP@10"][0]) else "mean over classes")
    ax.set_ylim(bottom=0)
    ax.set_title("Validation", loc="left", fontsize=11)
    legend_above(ax, ax.get_lines())


def legend_above(ax: Axes, lines: Sequence[Any]) -> None:
    """A legend outside the curves' area, where it can hide none of them."""
    place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 6, "columnspacing": 1.2}
    size: dict[str, Any] = {"fontsize": 8, "borderpad": 0.2, "handlelength": 1.8}
    ax.legend(lines, [line.get_label() for line in lines], frameon=False, **size, **place)
