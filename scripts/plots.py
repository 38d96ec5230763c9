"""Plot the effects of augmentations, and comparisons of runs."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.offsetbox import AnnotationBbox, HPacker, TextArea

from modeling_cnn10bert.evaluation.plots import legend_above, save_figure
from modeling_cnn10bert.evaluation.reports import in_percent, mean_and_deviation
from modeling_cnn10bert.page.pictures import DYNAMIC_RANGE_DB

_SETTINGS = ("#9a9a9a", "#b5179e", "#3f88c5", "#d1602b", "#2a8f3c", "#f2b705")
_RIGHT, _WRONG, _UNJUDGED = "#2a8f3c", "#c8342b", "#9a9a9a"


def plot_augmentations(
    log_mels: Mapping[str, np.ndarray], captions: Mapping[str, tuple[list[str], list[str]]], path: str | Path
) -> None:
    """Draw log-mels one below the other on one scale, and below them a caption before and after its augmentations.

    Args:
        log_mels: title -> [T, n_mels] in dB; all on the scale of the first, which is the original.
        captions: name -> words before and after; new words are drawn green, removed ones struck out in red.
        path: the PNG to write; it appears complete or not at all.
    """
    save_figure(_augmentation_figure(log_mels, captions), path)


def plot_comparison(settings: Mapping[str, Mapping[str, Sequence[float]]], path: str | Path) -> None:
    """Draw a group of bars per metric with one bar per setting: mean, standard deviation, and each run as a dot.

    Args:
        settings: name -> metric -> values of the setting's runs; all have the same metrics.
        path: the PNG to write; it appears complete or not at all.
    """
    save_figure(_comparison_figure(settings), path)


def plot_table(
    rows: Mapping[str, Sequence[float]], published: Mapping[str, float], metric: str, path: str | Path
) -> None:
    """Draw one bar per row of a table: mean, standard deviation, each run as a dot, and a mark at the published value.

    Args:
        rows: name -> the metric of each of its runs, between 0 and 1; empty if none has finished.
        published: name -> the published value of this row, in percent; rows may lack one.
        metric: label of the metric, such as "mAP@10 on the test set of Clotho".
        path: the PNG to write; it appears complete or not at all.
    """
    save_figure(_table_figure(rows, published, metric), path)


def _comparison_figure(settings: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    metrics = list(next(iter(settings.values())))
    figure = Figure(figsize=(1.5 + 2.2 * len(metrics), 4), layout="constrained")
    ax = figure.subplots()
    width = 0.8 / len(settings)
    for number, (name, values) in enumerate(settings.items()):
        places = np.arange(len(metrics)) + width * (number - (len(settings) - 1) / 2)
        runs = [np.asarray(values[metric], dtype=float) for metric in metrics]
        means, deviations = np.nan_to_num([mean_and_deviation(values[metric]) for metric in metrics]).T
        color = _SETTINGS[number % len(_SETTINGS)]
        ax.bar(places, means, 0.9 * width, yerr=deviations, capsize=4, color=color, alpha=0.75, label=name)
        for place, mean, deviation, run in zip(places, means, deviations, runs, strict=True):
            spread = place + width * np.linspace(-0.2, 0.2, len(run))
            ax.plot(spread, run, linestyle="none", marker="o", markersize=3.5, color="#222222")
            ax.annotate(
                f"{mean:.3f}",
                (place, max(mean + deviation, run.max())),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
    ax.set_xticks(range(len(metrics)), metrics)
    ax.set_ylim(bottom=0)
    ax.grid(axis="y", alpha=0.25)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=9)
    return figure


def _table_figure(rows: Mapping[str, Sequence[float]], published: Mapping[str, float], metric: str) -> Figure:
    figure = Figure(figsize=(9, 1.3 + 0.5 * len(rows)), layout="constrained")
    ax = figure.subplots()
    furthest = 1.0
    for place, (name, values) in enumerate(rows.items()):
        ends = [0.0]  # right ends that the text must not hide
        if len(values):
            runs = 100 * np.asarray(values, dtype=float)
            mean, deviation = np.nan_to_num(mean_and_deviation(runs.tolist()))
            error_bar = {"xerr": deviation, "capsize": 4} if len(runs) > 1 else {}
            ax.barh(place, mean, 0.7, color=_SETTINGS[2], alpha=0.75, **error_bar)
            spread = place + np.linspace(-0.15, 0.15, len(runs)) * (len(runs) > 1)
            ax.plot(runs, spread, linestyle="none", marker="o", markersize=3.5, color="#222222", zorder=4)
            ends += [mean + deviation, runs.max()]
        if name in published:
            ax.vlines(published[name], place - 0.42, place + 0.42, color=_SETTINGS[3], linewidth=2.5, zorder=3)
            ends.append(published[name])
        offset: dict[str, Any] = {"xytext": (7, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
        text, color = (in_percent(values), "#222222") if len(values) else ("no run", _UNJUDGED)
        ax.annotate(text, (max(ends), place), color=color, **offset)
        furthest = max(furthest, *ends)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.4, -0.6)  # the first on top; rows without a bar take space too
    ax.set_xlim(0, 1.2 * furthest)
    ax.set_xlabel(f"{metric} (%)")
    ax.grid(axis="x", alpha=0.25)
    ax.set_axisbelow(True)
    legend_above(ax, _table_keys(published, several=any(len(values) > 1 for values in rows.values())))
    return figure


def _table_keys(published: Mapping[str, float], several: bool) -> list[Line2D]:
    bar = "mean and standard deviation" if several else "mean"
    keys = [
        Line2D([], [], color=_SETTINGS[2], alpha=0.75, linewidth=8, label=bar),
        Line2D([], [], linestyle="none", marker="o", markersize=3.5, color="#222222", label="one run"),
    ]
    mark: dict[str, Any] = {"linestyle": "none", "marker": "|", "markersize": 12, "markeredgewidth": 2.5}
    return keys + [Line2D([], [], color=_SETTINGS[3], label="the paper", **mark)] * bool(published)


def _augmentation_figure(
    log_mels: Mapping[str, np.ndarray], captions: Mapping[str, tuple[list[str], list[str]]]
) -> Figure:
    figure = Figure(figsize=(11, 1.75 * len(log_mels) + 0.32 * len(captions) + 0.5), layout="constrained")
    heights = [1.75] * len(log_mels) + [0.32 * len(captions) + 0.2]
    *above, below = figure.subplots(len(log_mels) + 1, 1, height_ratios=heights)
    original = next(iter(log_mels.values()))
    loudest = float(original.max())
    for ax, (title, log_mel) in zip(above, log_mels.items(), strict=True):
        scale = {"vmin": loudest - DYNAMIC_RANGE_DB, "vmax": loudest}
        image = ax.imshow(log_mel.T, origin="lower", aspect="auto", cmap="magma", interpolation="nearest", **scale)
        ax.set_title(title, loc="left", fontsize=9.5, parse_math=False)
        ax.set_ylabel("mel bin", fontsize=8)
        ax.tick_params(labelsize=7)
        ax.sharex(above[0])
    above[-1].set_xlabel("frame", fontsize=8)
    figure.colorbar(image, ax=above, label="dB", fraction=0.02, pad=0.01)
    below.axis("off")
    for row, (name, (before, after)) in enumerate(captions.items()):
        height = 1 - (row + 0.5) / len(captions)
        below.text(0, height, name, fontsize=9, weight="bold", va="center", transform=below.transAxes)
        below.add_artist(_changed_words(before, after, (0.2, height), below))
    return figure


def _changed_words(before: list[str], after: list[str], place: tuple[float, float], ax: Axes) -> AnnotationBbox:
    """Lay out the words in a line: unchanged ones, new ones, and removed ones struck out."""
    kept, gone, new = ({"color": "#222222"}, {"color": _WRONG}, {"color": _RIGHT, "weight": "bold"})
    parts = []
    for change, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if change == "equal":
            parts += [(word, kept) for word in before[a:b]]
            continue
        parts += [("".join(f"{letter}\u0336" for letter in word), gone) for word in before[a:b]]
        parts += [(word, new) for word in after[c:d]]
    font = {"fontsize": 9, "parse_math": False}
    words: list[Artist] = [TextArea(word, textprops={**font, **style}) for word, style in parts]
    line = HPacker(children=words, align="baseline", pad=0, sep=4)
    return AnnotationBbox(line, place, xycoords=ax.transAxes, box_alignment=(0, 0.5), frameon=False, pad=0)
