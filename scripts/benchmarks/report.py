"""What was measured as a table and as a chart, each figure beside its reference of the same run."""

import dataclasses
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from modeling_cnn10bert.evaluation.pictures import save_figure
from modeling_cnn10bert.evaluation.reports import NOTHING, markdown_table
from modeling_cnn10bert.files import write_text

NO_ACCELERATOR = "no accelerator here"


@dataclasses.dataclass(frozen=True)
class Row:
    """
    A figure.

    Attributes:
        subject, what: what it is of.
        value: the median over the rounds; `None` where it was not measured.
        unit: of the value and of the reference's.
        reference: what it is compared with.
        reference_value: the median over the same rounds.
        ratio: how many times as fast as the reference: the median over the rounds of the ratio of each.
        ratio_range: the least and the largest of these.
        target: what was aimed at, in words.
        met: whether it was reached.
        note: how it was measured, or why it was not.
    """

    subject: str
    what: str
    value: float | None
    unit: str
    reference: str = ""
    reference_value: float | None = None
    ratio: float | None = None
    ratio_range: tuple[float, float] | None = None
    target: str = ""
    met: bool | None = None
    note: str = ""


def compared(
    subject: str,
    what: str,
    unit: str,
    ours: Sequence[float],
    reference: str,
    theirs: Sequence[float],
    *,
    more_is_better: bool = False,
    target: float | None = None,
    note: str = "",
) -> Row:
    """A figure beside its reference, from the values of the same rounds; `target` is the least ratio."""
    pairs = list(zip(ours, theirs, strict=True))
    ratios = [our / their if more_is_better else their / our for our, their in pairs]
    ratio = statistics.median(ratios)
    return Row(
        subject,
        what,
        statistics.median(ours),
        unit,
        reference,
        statistics.median(theirs),
        ratio,
        (min(ratios), max(ratios)),
        "" if target is None else f"{target:g} x",
        None if target is None else ratio >= target,
        note,
    )


def figure(
    subject: str,
    what: str,
    value: float,
    unit: str,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    note: str = "",
) -> Row:
    """A figure without a reference."""
    target, met = "", None
    if at_most is not None:
        target, met = f"<= {at_most:g}", value <= at_most
    elif at_least is not None:
        target, met = f">= {at_least:g}", value >= at_least
    return Row(subject, what, value, unit, target=target, met=met, note=note)


def not_measured(subject: str, what: str, why: str, target: str = "") -> Row:
    return Row(subject, what, None, "", target=target, note=f"not measured: {why}")


# ------------------------------------------------------------------------------------------------------------ table


def table(rows: Sequence[Row]) -> str:
    """As Markdown."""
    header = ("", "ours", "reference", "", "ratio", "(range)", "target", "")
    return markdown_table(header, [_cells(row) for row in rows])


def _cells(row: Row) -> tuple[str, ...]:
    spread = row.ratio_range and f"{row.ratio_range[0]:.2f} to {row.ratio_range[1]:.2f}"
    return (
        f"{row.subject}: {row.what}",
        "not measured" if row.value is None else f"{_number(row.value)} {row.unit}".strip(),
        NOTHING if row.reference_value is None else f"{_number(row.reference_value)} {row.unit}".strip(),
        row.reference or NOTHING,
        NOTHING if row.ratio is None else f"{row.ratio:.2f}",
        spread or NOTHING,
        row.target or NOTHING,
        {True: "met", False: "missed", None: ""}[row.met],
    )


def _number(value: float) -> str:
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 8)}f}"


# ------------------------------------------------------------------------------------------------------------ chart


def chart(rows: Sequence[Row], path: Path, title: str) -> None:
    """Draws a bar for each ratio, from the reference's 1, with its range and a mark at its target."""
    shown = [row for row in rows if row.ratio is not None]
    drawing = Figure(figsize=(9, 1.2 + 0.42 * max(len(shown), 1)), layout="constrained")
    axes = drawing.subplots()
    for position, row in enumerate(shown):
        color = {True: "#2a8f3c", False: "#c8342b", None: "#3f88c5"}[row.met]
        axes.barh(position, row.ratio - 1, left=1, color=color, height=0.6)
        axes.plot(row.ratio_range, (position, position), color="black", linewidth=1)
        if row.target:
            axes.plot(float(row.target.split()[0]), position, marker="|", color="black", markersize=16)
        axes.annotate(f" {row.ratio:.2f}", (max(row.ratio, row.ratio_range[1]), position), va="center", fontsize=8)
    names = [f"{row.subject}: {row.what}\nagainst {row.reference}" for row in shown]
    axes.set_yticks(range(len(shown)), names, fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    ticks = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]
    low, high = axes.get_xlim()
    axes.set_xticks([tick for tick in ticks if low <= tick <= high * 1.2], minor=False)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("times as fast as the reference of the same run; | is the target")
    axes.set_title(title, fontsize=9)
    save_figure(drawing, path)


# ---------------------------------------------------------------------------------------------------------- writing


def write(rows: Sequence[Row], about: dict[str, Any], out: Path) -> list[Path]:
    """Writes OUT.json, OUT.md and OUT.png, each whole or not at all; the paths."""
    paths = [out.with_suffix(suffix) for suffix in (".json", ".md", ".png")]
    figures = [dataclasses.asdict(row) for row in rows]
    write_text(paths[0], json.dumps({**about, "figures": figures}, indent=2) + "\n")
    write_text(paths[1], markdown(rows, about))
    chart(rows, paths[2], f"{about['device']}, {about['threads']} thread(s)")
    return paths


def markdown(rows: Sequence[Row], about: dict[str, Any]) -> str:
    """The table, below it how each figure came about, and all that was noted of the machine."""
    notes = "".join(dict.fromkeys(f"- {row.subject}: {row.what}: {row.note}\n" for row in rows if row.note))
    facts = "".join(f"- {name}: {value}\n" for name, value in about.items())
    return f"{table(rows)}\n{notes}\n{facts}"
