"""Draw search results: one row per question, with the log-mels of its best hits."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from modeling_cnn10bert.evaluation.plots import save_figure
from modeling_cnn10bert.page.pictures import DYNAMIC_RANGE_DB

HITS_SHOWN = 3
_RIGHT, _WRONG, _UNJUDGED = "#2a8f3c", "#c8342b", "#9a9a9a"


def plot_gallery(questions: Sequence[str], results: Sequence[Sequence[Any]], path: str | Path) -> None:
    """Draw one row per question: its text, then the log-mels of its best three hits, framed green if right, else red.

    Args:
        questions: the texts that were searched for.
        results: per question its hits, best first. A hit is a mapping or an object with `file_name`, `score`,
            `log_mel` ([T, n_mels], dB), `captions` (strings), `seconds` (length of the log-mel) and `correct` (bool, or
            None if unknown, for a gray frame).
        path: the PNG to write; it appears complete or not at all.

    Raises:
        ValueError: no question, or not one list of hits per question.
    """
    save_figure(_gallery_figure(questions, results), path)


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


def _draw_question(ax: Axes, question: str) -> None:
    ax.axis("off")
    text = _wrapped(question, width=28, lines=8)
    ax.text(0, 0.97, text, fontsize=11, va="top", transform=ax.transAxes, parse_math=False)


def _draw_hit(ax: Axes, hit: Any, rank: int) -> None:
    """Draw the log-mel framed by right or wrong, with name and score above, and the first caption below."""
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
    # always two lines, so that the rows of the grid are equally high
    ax.set_xlabel(caption + "\n" * (1 - caption.count("\n")), fontsize=8, loc="left", style="italic", parse_math=False)


def _of(hit: Any, name: str) -> Any:
    return hit[name] if isinstance(hit, Mapping) else getattr(hit, name)


def _wrapped(text: str, width: int, lines: int) -> str:
    return "\n".join(textwrap.wrap(str(text), width, max_lines=lines, placeholder=" …"))


def _shortened(name: str, length: int) -> str:
    """Shorten a name in the middle, because the ends of file names (takes, suffixes) tell them apart."""
    if len(name) <= length:
        return name
    head = (length - 1) // 2
    return f"{name[:head]}…{name[head + 1 - length :]}"
