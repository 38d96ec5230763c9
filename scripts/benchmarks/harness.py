"""Run contenders in turns, compare them with their references, and write the results."""

import dataclasses
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from modeling_cnn10bert.evaluation.plots import save_figure
from modeling_cnn10bert.evaluation.reports import NOTHING, markdown_table
from modeling_cnn10bert.files import write_text

PACKAGES = ("torch", "torchaudio", "transformers", "accelerate", "numpy", "onnxruntime", "lancedb", "faiss-cpu")
NO_ACCELERATOR = "no accelerator here"
Round = Callable[[], dict[str, float]]  # runs once; returns its figures, such as `seconds`


# -------------------------------------------------------------------------------------------------------- measuring


def in_turns(contenders: Mapping[Any, Callable[[], Any]], rounds: int, warm_up: int = 1) -> dict[Any, list[Any]]:
    """
    Run contenders in the order A B, B A, A B ..., so that other work on the machine affects all alike.

    Returns:
        The results of each contender in each round, without the warm-up.
    """
    results: dict[Any, list[Any]] = {name: [] for name in contenders}
    for number in tqdm(range(warm_up + rounds), desc="rounds", unit="round", leave=False, disable=None):
        for name in list(contenders)[:: -1 if number % 2 else 1]:
            result = contenders[name]()
            if number >= warm_up:
                results[name].append(result)
    return results


def seconds_in_turns(
    calls: Mapping[Any, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[Any, list[float]]:
    """Return the seconds of each call in each round; by default processor time, which other work changes little."""

    def timed(call: Callable[[], Any]) -> float:
        started = clock()
        call()
        return clock() - started

    return in_turns({name: lambda call=call: timed(call) for name, call in calls.items()}, rounds)


class Contender:
    """
    A contender in a process of its own, so that its settings and memory do not affect the others.

    Args:
        build: called with `arguments`; returns the function that runs a round.
        threads: PyTorch's threads in that process.
        apart: `False` runs it in this process, as in tests.
    """

    def __init__(self, build: Callable[..., Round], *arguments, threads: int, apart: bool = True):
        self._pool = ProcessPoolExecutor(1, get_context("spawn")) if apart else None
        if self._pool is None:
            torch.set_num_threads(threads)
            self._run = build(*arguments)
        else:
            self._pool.submit(_build, build, arguments, threads).result()  # built before the next one is

    def round(self) -> dict[str, float]:
        return self._run() if self._pool is None else self._pool.submit(_round).result()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()


def _build(build: Callable[..., Round], arguments: tuple, threads: int) -> None:
    global _round_of_this_process
    torch.set_num_threads(threads)
    _round_of_this_process = build(*arguments)


def _round() -> dict[str, float]:
    return _round_of_this_process()


def compete(contenders: Mapping[Any, Contender], rounds: int) -> dict[Any, dict[str, list[float]]]:
    """Return name -> figure -> its values, one per round, and end the processes."""
    try:
        results = in_turns({name: contender.round for name, contender in contenders.items()}, rounds)
    finally:
        for contender in contenders.values():
            contender.close()
    return {name: {key: [one[key] for one in found] for key in found[0]} for name, found in results.items()}


def in_a_process(function: Callable, *arguments, apart: bool = True) -> Any:
    """Run a function in a new process, so that the peak memory is its own, and return its result."""
    if not apart:
        return function(*arguments)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def memory(pid: int | None = None) -> int:
    """Return the memory in bytes that a process holds now; by default this one."""
    return psutil.Process(pid).memory_info().rss


def matrix_rate(device: str, size: int) -> float:
    """Measure floating-point operations per second of a matrix product, in bfloat16 on an accelerator."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(6):
        synchronize(device)
        started = time.perf_counter()
        torch.mm(left, right)
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds[1:])


def synchronize(device: str | torch.device) -> None:
    """Wait for an accelerator to finish."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


# ------------------------------------------------------------------------------------------------------------- rows


@dataclasses.dataclass(frozen=True)
class Row:
    """
    A figure.

    Attributes:
        what: name of the figure.
        value: the median over the rounds; `None` if not measured.
        unit: unit of the value and of the reference's value.
        reference: name of the reference.
        reference_value: the median over the same rounds.
        ratio: speed relative to the reference, the median of the rounds' ratios.
        ratio_range: the smallest and the largest of these ratios.
        target: the target in words.
        met: whether the target was reached.
        note: how it was measured, or why it was not.
    """

    what: str
    value: float | None
    unit: str = ""
    reference: str = ""
    reference_value: float | None = None
    ratio: float | None = None
    ratio_range: tuple[float, float] | None = None
    target: str = ""
    met: bool | None = None
    note: str = ""


def compared(
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
    """Make a row of a figure and its reference from the values of the same rounds; `target` is the minimum ratio."""
    pairs = list(zip(ours, theirs, strict=True))
    ratios = [our / their if more_is_better else their / our for our, their in pairs]
    return Row(
        what,
        statistics.median(ours),
        unit,
        reference,
        statistics.median(theirs),
        statistics.median(ratios),
        (min(ratios), max(ratios)),
        "" if target is None else f"{target:g} x",
        None if target is None else statistics.median(ratios) >= target,
        note,
    )


def figure(
    what: str, value: float, unit: str = "", *, at_most: float | None = None, at_least: float | None = None, note=""
) -> Row:
    """Make a row of a figure without a reference."""
    if at_most is not None:
        return Row(what, value, unit, target=f"<= {at_most:g}", met=value <= at_most, note=note)
    if at_least is not None:
        return Row(what, value, unit, target=f">= {at_least:g}", met=value >= at_least, note=note)
    return Row(what, value, unit, note=note)


def not_measured(what: str, why: str, target: str = "") -> Row:
    """Make a row without a figure."""
    return Row(what, None, target=target, note=f"not measured: {why}")


# ----------------------------------------------------------------------------------------------------------- report


def describe(threads: int) -> dict[str, Any]:
    """Return hardware, versions, threads and command."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.is_file() else []
    name = names[0].split(":")[1].strip() if names else platform.machine()
    about = {
        "command": shlex.join(["python", *sys.argv]),
        "processor": f"{name}, {os.cpu_count()} cores, PyTorch uses {torch.backends.cpu.get_cpu_capability()}",
        "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "threads": threads,
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{package} {_version(package)}" for package in PACKAGES),
        "load before": f"{os.getloadavg()[0]:.1f} over the last minute",
    }
    if torch.cuda.is_available():
        about["accelerator"] = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    return about


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def write(subject: str, rows: Sequence[Row], about: dict[str, Any], folder: Path) -> str:
    """Write FOLDER/SUBJECT.json and .md atomically, and a chart of the ratios; return the Markdown."""
    figures = [dataclasses.asdict(row) for row in rows]
    write_text(folder / f"{subject}.json", json.dumps({**about, "figures": figures}, indent=2) + "\n")
    header = (subject, "ours", "reference", "", "ratio", "(range)", "target", "")
    notes = "".join(f"- {row.what}: {row.note}\n" for row in rows if row.note)
    facts = "".join(f"- {name}: {value}\n" for name, value in about.items())
    text = f"{markdown_table(header, [_cells(row) for row in rows])}\n{notes}\n{facts}"
    write_text(folder / f"{subject}.md", text)
    if any(row.ratio for row in rows):
        _draw(rows, folder / f"{subject}.png", f"{about['processor']}, {about['threads']} thread(s)")
    return text


def _cells(row: Row) -> tuple[str, ...]:
    def number(value: float | None) -> str:
        return NOTHING if value is None else f"{value:,.4g} {row.unit}".strip()

    return (
        row.what,
        "not measured" if row.value is None else number(row.value),
        number(row.reference_value),
        row.reference or NOTHING,
        NOTHING if row.ratio is None else f"{row.ratio:.2f}",
        NOTHING if row.ratio_range is None else "{:.2f} to {:.2f}".format(*row.ratio_range),
        row.target or NOTHING,
        {True: "met", False: "missed", None: ""}[row.met],
    )


def _draw(rows: Sequence[Row], path: Path, title: str) -> None:
    """Draw a bar for each ratio, starting at 1, with its range and a mark at its target."""
    shown = [row for row in rows if row.ratio is not None]
    drawing = Figure(figsize=(9, 1.2 + 0.42 * len(shown)), layout="constrained")
    axes = drawing.subplots()
    for position, row in enumerate(shown):
        color = {True: "#2a8f3c", False: "#c8342b", None: "#3f88c5"}[row.met]
        axes.barh(position, row.ratio - 1, left=1, color=color, height=0.6)
        axes.plot(row.ratio_range, (position, position), color="black", linewidth=1)
        if row.target:
            axes.plot(float(row.target.split()[0]), position, marker="|", color="black", markersize=16)
        axes.annotate(f" {row.ratio:.2f}", (max(row.ratio, row.ratio_range[1]), position), va="center", fontsize=8)
    axes.set_yticks(range(len(shown)), [f"{row.what}\nagainst {row.reference}" for row in shown], fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xticks([0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100], minor=False)
    lows, highs = zip(*(row.ratio_range for row in shown), strict=True)
    axes.set_xlim(min(0.5, *lows), 1.2 * max(2, *highs))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("times as fast as the reference of the same run; | is the target")
    axes.set_title(title, fontsize=9)
    save_figure(drawing, path)
