"""The picture of an evaluation: both directions with their intervals beside chance, and how deep one must look."""

import textwrap
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

from .audio_text_retrieval.audio_text_retrieval import chance_metrics
from .bootstrap import bootstrap_means
from .model_evaluation import ModelEvaluation
from .pictures import save_figure

DIRECTIONS = {  # prefix -> label, colour of its bars and its line
    "": ("a caption finds its recording", "#b5179e"),
    "a2t_": ("a recording finds its captions", "#3f88c5"),
}
_CHANCE = "#222222"
_DEPTHS = 60  # points of a curve over the search depth


def plot_evaluation(evaluation: ModelEvaluation, path: str | Path, title: str = "") -> None:
    """Draw the metrics as bars, and how deep one must look, with bootstrap intervals and the chance level.

    Args:
        evaluation: what to draw.
        path: the PNG to write; it appears complete or not at all.
        title: such as the names of the model and the data set.
    """
    save_figure(_evaluation_figure(evaluation, title), path)


def _evaluation_figure(evaluation: ModelEvaluation, title: str) -> Figure:
    figure = Figure(figsize=(12.5, 5.2), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08))
    bars, curves = figure.subplots(1, 2, width_ratios=[1.25, 1])
    _draw_metrics(bars, evaluation)
    _draw_depths(curves, evaluation)
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
        # a percentile interval need not hold the value, a bar of errors must
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


def _draw_depths(ax: Axes, evaluation: ModelEvaluation) -> None:
    """R@k over k: how many of the first one must listen to, or read, until the right one is among them."""
    ranked = evaluation.ranked
    of_caption = [evaluation.recordings[audio] for audio in ranked.audio_of_text]
    searches = {
        "": (ranked.text_to_audio, of_caption, len(evaluation.recordings)),
        "a2t_": (ranked.audio_to_text, evaluation.recordings, len(evaluation.captions)),
    }
    deepest = len(evaluation.recordings)
    for prefix, (ranks, recording_of_query, num_items) in searches.items():
        _, color = DIRECTIONS[prefix]
        depths = _depths(deepest)
        best = np.array([of_query[0] for of_query in ranks])
        hits = (best[:, None] <= depths).astype(np.float64)  # [queries, depths]
        low, high = bootstrap_means(hits, recording_of_query, **evaluation.bootstrap)
        ax.fill_between(depths, low, high, color=color, alpha=0.18, linewidth=0)
        ax.plot(depths, hits.mean(axis=0), color=color, linewidth=2)
        num_relevant = [len(of_query) for of_query in ranks]
        chance = chance_metrics(num_relevant, num_items, recall_at=depths.tolist(), map_at=())
        ax.plot(depths, list(chance.values()), color=color, linewidth=1.3, linestyle=(0, (2, 1)))
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
    """1 to `deepest`, evenly on a logarithmic axis, all of them where they are few."""
    return np.unique(np.geomspace(1, deepest, _DEPTHS).round().astype(int))


def _tidy(ax: Axes) -> None:
    ax.grid(axis="y", alpha=0.25)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
