"""Pictures for people: a run's training curve, runs compared, what a model finds, and what the augmentations do.

All draw on matplotlib's object interface, so they need no display, leave no global state and work in any thread.
"""

import difflib
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
from matplotlib.offsetbox import AnnotationBbox, HPacker, TextArea

from ..files import replaced_whole
from .reports import best_position, in_percent, mean_and_deviation

Curves = dict[str, tuple[np.ndarray, np.ndarray]]  # name -> x [N], y [N]

DPI = 110
HITS_SHOWN = 3
DYNAMIC_RANGE_DB = 80  # what of a log-mel is shown, from its loudest cell down
_SETTINGS = ("#9a9a9a", "#b5179e", "#3f88c5", "#d1602b", "#2a8f3c", "#f2b705")
_RIGHT, _WRONG, _UNJUDGED = "#2a8f3c", "#c8342b", "#9a9a9a"
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


def plot_gallery(questions: Sequence[str], results: Sequence[Sequence[Any]], path: str | Path) -> None:
    """Draw a row a question: its text, then the log-mels of its best three hits, framed green if right, red if wrong.

    Args:
        questions: the texts that were searched for.
        results: per question its hits, best first. A hit is a mapping or an object with `file_name`, `score`,
            `log_mel` ([T, n_mels], dB), `captions` (strings), `seconds` (length of the log-mel) and `correct` (bool, or
            None where nobody can tell: then the frame is grey).
        path: the PNG to write; it appears complete or not at all.

    Raises:
        ValueError: no question, or not one list of hits for each.
    """
    save_figure(_gallery_figure(questions, results), path)


def plot_augmentations(
    log_mels: Mapping[str, np.ndarray], captions: Mapping[str, tuple[list[str], list[str]]], path: str | Path
) -> None:
    """Draw log-mels one below the other on one scale, and below them a caption before and after its augmentations.

    Args:
        log_mels: title -> [T, n_mels] in dB; all on the scale of the first, which is the original.
        captions: name -> its words before and after; what came in is drawn green, what went is struck out in red.
        path: the PNG to write; it appears complete or not at all.
    """
    save_figure(_augmentation_figure(log_mels, captions), path)


def plot_comparison(settings: Mapping[str, Mapping[str, Sequence[float]]], path: str | Path) -> None:
    """Draw a group of bars a metric, in it a bar a setting: the mean, its standard deviation, and each run as a dot.

    Args:
        settings: name -> metric -> its value in each run of the setting; the same metrics for all.
        path: the PNG to write; it appears complete or not at all.
    """
    save_figure(_comparison_figure(settings), path)


def plot_table(
    rows: Mapping[str, Sequence[float]], published: Mapping[str, float], metric: str, path: str | Path
) -> None:
    """Draw a bar a row of a table: the mean, its standard deviation, each run as a dot, a mark at what is published.

    Args:
        rows: name -> the metric of each of its runs, between 0 and 1; empty where none has finished.
        published: name -> the figure that others published for this row, in percent; rows may lack one.
        metric: what is drawn, with what is published of it: "mAP@10 on the test set of Clotho".
        path: the PNG to write; it appears complete or not at all.
    """
    save_figure(_table_figure(rows, published, metric), path)


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
    _legend_above(ax, lines)


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
    _legend_above(ax, ax.get_lines())


def _legend_above(ax: Axes, lines: Sequence[Any]) -> None:
    """A legend outside the curves' area, where it can hide none of them."""
    place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 6, "columnspacing": 1.2}
    size: dict[str, Any] = {"fontsize": 8, "borderpad": 0.2, "handlelength": 1.8}
    ax.legend(lines, [line.get_label() for line in lines], frameon=False, **size, **place)


def _gallery_figure(questions: Sequence[str], results: Sequence[Sequence[Any]]) -> Figure:
    if not len(questions) or len(questions) != len(results):
        raise ValueError(f"got {len(results)} lists of hits for {len(questions)} questions: expected one each")
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    figure = Figure(figsize=(13, 2.45 * len(questions) + 0.35), layout=layout)
    grid = figure.subplots(len(questions), 1 + HITS_SHOWN, squeeze=False, width_ratios=[0.85] + [1] * HITS_SHOWN)
    for row, question, hits in zip(grid, questions, results, strict=True):
        _draw_question(row[0], question)
        for rank, ax in enumerate(row[1:], start=1):
            if rank <= len(hits):
                _draw_hit(ax, hits[rank - 1], rank)
            else:
                ax.axis("off")
    return figure


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
        ends = [0.0]  # of what the text to the right must not hide
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
        beside: dict[str, Any] = {"xytext": (7, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
        text, color = (in_percent(values), "#222222") if len(values) else ("no run", _UNJUDGED)
        ax.annotate(text, (max(ends), place), color=color, **beside)
        furthest = max(furthest, *ends)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.4, -0.6)  # the first on top; rows without a bar have their place too
    ax.set_xlim(0, 1.2 * furthest)
    ax.set_xlabel(f"{metric} (%)")
    ax.grid(axis="x", alpha=0.25)
    ax.set_axisbelow(True)
    _legend_above(ax, _table_keys(published, several=any(len(values) > 1 for values in rows.values())))
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
    """The words in a line: those that stayed, those that came in, and those that went, struck out."""
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


def _draw_question(ax: Axes, question: str) -> None:
    ax.axis("off")
    text = _wrapped(question, width=28, lines=8)
    ax.text(0, 0.97, text, fontsize=11, va="top", transform=ax.transAxes, parse_math=False)


def _draw_hit(ax: Axes, hit: Any, rank: int) -> None:
    """The log-mel with a frame for right or wrong, name and score above it, the first caption beneath it."""
    log_mel = np.asarray(_of(hit, "log_mel"), dtype=np.float32)
    if log_mel.ndim != 2 or 0 in log_mel.shape:
        raise ValueError(f"log_mel of {_of(hit, 'file_name')!r} has shape {log_mel.shape}; expected [T, n_mels]")
    loudest = float(np.nanmax(log_mel))
    ax.imshow(
        log_mel.T,
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=loudest - DYNAMIC_RANGE_DB,
        vmax=loudest,
        extent=(0, float(_of(hit, "seconds")), 0, log_mel.shape[1]),
        interpolation="nearest" if len(log_mel) < 200 else "antialiased",
    )
    ax.set_yticks([])
    ax.tick_params(axis="x", labelsize=7, length=2, pad=1)
    ax.xaxis.set_major_formatter("{x:g} s")
    ax.locator_params(axis="x", nbins=5)

    correct = _of(hit, "correct")
    if correct is None:
        color, mark = _UNJUDGED, ""
    else:
        color, mark = (_RIGHT, " ✓") if correct else (_WRONG, " ✗")
    for spine in ax.spines.values():
        spine.set(edgecolor=color, linewidth=3)
    name = _shortened(str(_of(hit, "file_name")), 30)
    ax.set_title(f"{rank}. {name}", loc="left", fontsize=8.5, pad=5, parse_math=False)
    ax.set_title(f"{float(_of(hit, 'score')):.3f}{mark}", loc="right", fontsize=8.5, pad=5, color=color, weight="bold")
    captions = _of(hit, "captions") or []
    caption = _wrapped(captions[0], width=50, lines=2) if len(captions) else "(no caption)"
    # always two lines, so that the rows of the grid stay equally high
    ax.set_xlabel(caption + "\n" * (1 - caption.count("\n")), fontsize=8, loc="left", style="italic", parse_math=False)


def _of(hit: Any, name: str) -> Any:
    return hit[name] if isinstance(hit, Mapping) else getattr(hit, name)


def _wrapped(text: str, width: int, lines: int) -> str:
    return "\n".join(textwrap.wrap(str(text), width, max_lines=lines, placeholder=" …"))


def _shortened(name: str, length: int) -> str:
    """Cut in the middle: the ends of file names (takes, suffixes) tell them apart."""
    if len(name) <= length:
        return name
    head = (length - 1) // 2
    return f"{name[:head]}…{name[head + 1 - length :]}"
