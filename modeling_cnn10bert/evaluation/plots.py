"""
Plot the training curve of a run, and the metrics of an evaluation in both directions with their chance levels.

All plots use matplotlib's object interface, so they need no display, leave no global state and work in any thread.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from ..files import replaced_whole
from .audio_text_retrieval.audio_text_retrieval import chance_metrics
from .bootstrap import bootstrap_means
from .evaluate import ModelEvaluation
from .metric import RankedTestSet
from .reports import best_position

Curves = dict[str, tuple[np.ndarray, np.ndarray]]  # name -> x [N], y [N]

DPI = 110
# Style of each validation metric; the one that selects the checkpoint stands out.
_VALIDATION: dict[str, dict[str, Any]] = {
    "mAP@10": {"color": "#b5179e", "linewidth": 2.2, "marker": "o", "markersize": 3.5, "zorder": 3},
    "mAP": {"color": "#b5179e", "linewidth": 2.2, "marker": "o", "markersize": 3.5, "zorder": 3},  # of a tagger
    "mAUC": {"color": "#1d4e89", "linewidth": 1.2, "linestyle": "-"},
    "R@1": {"color": "#1d4e89", "linewidth": 1.2, "linestyle": "-"},
    "R@5": {"color": "#3f88c5", "linewidth": 1.2, "linestyle": "--"},
    "R@10": {"color": "#8ab6d6", "linewidth": 1.2, "linestyle": "-."},
}
DIRECTIONS = {  # prefix -> label, color of its bars and its line
    "": ("a caption finds its recording", "#b5179e"),
    "a2t_": ("a recording finds its captions", "#3f88c5"),
}
_CHANCE = "#222222"
_DEPTHS = 60  # points of a curve over the search depth


def plot_training_curve(log_history: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Draw training loss, learning rate and validation metrics over epochs to one PNG.

    Args:
        log_history: `Trainer.state.log_history`: entries with `epoch` or `step`, and any of `loss`, `learning_rate`,
            `eval_loss`, `eval_mAP@10`, `eval_R@1`, `eval_R@5`, `eval_R@10`, `eval_chance_mAP@10`, for a
            tagger `eval_mAP`, `eval_mAUC`. Missing values are left out.
        path: the PNG to write; it appears complete or not at all.
    """
    save_figure(_training_figure(log_history), path)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a picture atomically, so that a reader never sees half of it."""
    with replaced_whole(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=DPI)


def _training_figure(log_history: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw losses and learning rate above, validation metrics below; empty panels are left out."""
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
    """Return x [N] and y [N] of the entries that hold both, sorted by x."""
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
        # a step for each logged value, because the schedule is piecewise constant and a slope would invent values
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
    """Add a legend above the axes, where it hides no curve."""
    place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 6, "columnspacing": 1.2}
    size: dict[str, Any] = {"fontsize": 8, "borderpad": 0.2, "handlelength": 1.8}
    ax.legend(lines, [line.get_label() for line in lines], frameon=False, **size, **place)


def examples_figure(before: Sequence[tuple[np.ndarray, str]], after: Sequence[tuple[np.ndarray, str]]) -> Figure:
    """Draw training examples, one per row: log-mel [T, n_mels] and caption, next to their augmented versions."""
    figure = Figure(figsize=(11, 0.4 + 1.9 * len(before)), layout="constrained")
    for row, pair in zip(figure.subplots(len(before), 2, squeeze=False), zip(before, after, strict=True), strict=True):
        loudest = pair[0][0].max()
        for ax, (log_mel, caption), side in zip(row, pair, ("as recorded", "as trained on"), strict=True):
            scale: dict[str, Any] = {"vmin": loudest - 80, "vmax": loudest, "cmap": "magma"}  # in dB
            ax.imshow(log_mel.T, origin="lower", aspect="auto", interpolation="nearest", **scale)
            lines = textwrap.wrap(f"{side}: {caption}", 72, max_lines=2, placeholder=" ...")
            ax.set_title("\n".join(lines), loc="left", fontsize=8.5, parse_math=False)
            ax.tick_params(labelsize=7)
        row[0].set_ylabel("mel bin", fontsize=8)
    for ax in row:  # the last one
        ax.set_xlabel("frame", fontsize=8)
    return figure


# ----------------------------------------------------------------------------------------------------------- evaluation


def plot_evaluation(evaluation: ModelEvaluation, path: str | Path, title: str = "") -> None:
    """Draw the metrics as bars, and R@k over k, with bootstrap intervals and the chance level.

    Args:
        evaluation: the evaluation to draw.
        path: the PNG to write; it appears complete or not at all.
        title: such as the names of the model and the data set.
    """
    save_figure(_evaluation_figure(evaluation, title), path)


def _evaluation_figure(evaluation: ModelEvaluation, title: str) -> Figure:
    figure = Figure(figsize=(12.5, 5.2), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08))
    bars, curves = figure.subplots(1, 2, width_ratios=[1.25, 1])
    _draw_metrics(bars, evaluation)
    _draw_depths(curves, evaluation.ranked, evaluation.bootstrap)
    about = (
        f"{len(evaluation.captions):,} captions, {len(evaluation.recordings):,} recordings; "
        f"{100 * evaluation.bootstrap['confidence']:g} % intervals over the choice of the recordings"
    )
    if evaluation.left_out:
        about += f"; {len(evaluation.left_out):,} recordings left out"
    figure.suptitle(
        "\n".join(textwrap.wrap(title, 120)), x=0.01, ha="left", fontsize=12, weight="bold", parse_math=False
    )
    figure.supxlabel(about, x=0.99, ha="right", fontsize=8.5, color="#555555")
    keys: list[Artist] = [Patch(color=color, alpha=0.8, label=label) for label, color in DIRECTIONS.values()]
    keys.append(Line2D([], [], color=_CHANCE, linewidth=1.6, linestyle=(0, (2, 1)), label="by chance"))
    place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 3, "borderpad": 0.2, "columnspacing": 1.2}
    bars.legend(handles=keys, frameon=False, fontsize=8.5, handlelength=1.6, **place)
    return figure


def _draw_metrics(ax: Axes, evaluation: ModelEvaluation) -> None:
    names = [name for name in evaluation.intervals if not name.startswith("a2t_") and name != "MedR"]
    for number, (prefix, (_, color)) in enumerate(DIRECTIONS.items()):
        places = np.arange(len(names)) + 0.4 * (number - 0.5)
        values = np.array([evaluation.metrics[prefix + name] for name in names])
        intervals = [evaluation.intervals[prefix + name] for name in names]
        ends = np.array([(interval.low, interval.high) for interval in intervals]).T
        # a percentile interval may not contain the value, but an error bar must
        errors = np.clip([values - ends[0], ends[1] - values], 0, None)
        style: dict[str, Any] = {"color": color, "alpha": 0.8, "error_kw": {"elinewidth": 1.1, "ecolor": "#333333"}}
        ax.bar(places, values, 0.36, yerr=errors, capsize=3.5, **style)
        chances = [evaluation.metrics[f"chance_{prefix}{name}"] for name in names]
        ax.hlines(chances, places - 0.18, places + 0.18, color=_CHANCE, linewidth=1.6, linestyle=(0, (2, 1)), zorder=4)
        for place, value, top in zip(places, values, ends[1], strict=True):
            at: dict[str, Any] = {"xytext": (0, 3), "textcoords": "offset points", "ha": "center", "fontsize": 8.5}
            ax.annotate(f"{100 * value:.1f}", (place, max(value, top)), color=color, weight="bold", **at)
    ax.set_xticks(range(len(names)), names)
    ax.set_ylim(0, 1.08)
    ax.set_yticks(np.arange(0, 1.01, 0.2))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.set_title("Metrics (%)", loc="left", fontsize=11)
    _tidy(ax)


def recall_figure(ranked: RankedTestSet) -> Figure:
    """Draw R@k over k in both directions, with the chance level."""
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    ax = figure.subplots()
    _draw_depths(ax, ranked)
    lines = [line for line in ax.get_lines() if not str(line.get_label()).startswith("_")]
    ax.legend(handles=lines, frameon=False, fontsize=8.5)
    return figure


def _draw_depths(ax: Axes, ranked: RankedTestSet, bootstrap: Mapping[str, Any] | None = None) -> None:
    """Draw R@k over k, the number of results one must hear or read to find the right one."""
    num_captions, deepest = ranked.similarity.shape
    searches = {
        "": (ranked.text_to_audio, ranked.audio_of_text, deepest),
        "a2t_": (ranked.audio_to_text, range(deepest), num_captions),
    }
    for prefix, (ranks, recording_of_query, num_items) in searches.items():
        label, color = DIRECTIONS[prefix]
        depths = _depths(deepest)
        best = np.array([of_query[0] for of_query in ranks])
        hits = (best[:, None] <= depths).astype(np.float64)  # [queries, depths]
        if bootstrap is not None:
            low, high = bootstrap_means(hits, recording_of_query, **bootstrap)
            ax.fill_between(depths, low, high, color=color, alpha=0.18, linewidth=0)
        ax.plot(depths, hits.mean(axis=0), color=color, linewidth=2, label=label)
        num_relevant = [len(of_query) for of_query in ranks]
        chance = chance_metrics(num_relevant, num_items, recall_at=depths.tolist(), map_at=())
        by_chance = "_" if prefix else "by chance"
        ax.plot(depths, list(chance.values()), color=color, linewidth=1.3, linestyle=(0, (2, 1)), label=by_chance)
    ax.set_xscale("log")
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000) if tick <= deepest]
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda depth, _: f"{depth:g}"))
    ax.set_xlim(1, max(deepest, 2))
    ax.set_ylim(0, 1.08)
    ax.set_yticks(np.arange(0, 1.01, 0.2))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.set_xlabel("first k of the ranking")
    ax.set_title("Found among the first k", loc="left", fontsize=11)
    ax.grid(axis="x", alpha=0.15)
    _tidy(ax)


def _depths(deepest: int) -> np.ndarray:
    """Return depths from 1 to `deepest`, evenly on a logarithmic axis; all if they are few."""
    return np.unique(np.geomspace(1, deepest, _DEPTHS).round().astype(int))


def _tidy(ax: Axes) -> None:
    ax.grid(axis="y", alpha=0.25)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
