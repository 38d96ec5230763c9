"""Reproduce tables 3 and 5 of the paper: run what is missing, and write mean and standard deviation over seeds.

    python scripts/reproduce_tables.py --table 3 --seeds 3 --dry_run                                     # show the plan
    python scripts/reproduce_tables.py --table 3 --seeds 3 [--num_processes 2] [--field value ...]
    python scripts/reproduce_tables.py --table 5 --ladder soundscapes --seeds 3 --manifests DIR --sources DIR --jobs 2

Run from the repository. The table, with our figures next to the paper's, is written as Markdown and as a chart after
every run. The same command continues after an interruption; finished runs are never repeated. Further fields of
train_retrieval.py, such as `--max_steps 10`, go to all runs.
"""

import argparse
import os
from pathlib import Path
from typing import NoReturn

from modeling_cnn10bert.errors import RecipeError
from modeling_cnn10bert.evaluation.reports import (
    NOTHING,
    TABLE_METRICS,
    in_percent,
    markdown_table,
    read_results,
)
from modeling_cnn10bert.evaluation.submissions import score_ranked_output
from modeling_cnn10bert.files import write_text
from modeling_cnn10bert.masking import without_secrets
from modeling_cnn10bert.training.command_line import run
from modeling_cnn10bert.training.recipe import RECIPES
from plots import plot_table
from reproduce.ladders import PRETRAINING_SEED, Plan, Row, Run, Synthesis, plan_table
from reproduce.prerequisites import missing_prerequisites
from reproduce.run_cost import measured_speed, optimiser_steps
from reproduce.run_queue import (
    check_folder,
    is_finished,
    outstanding,
    work_through,
)

TEST_METRICS = [f"test_{metric}" for metric in TABLE_METRICS]


class _Parser(argparse.ArgumentParser):
    """Raises an error instead of printing the usage and exiting."""

    def error(self, message: str) -> NoReturn:
        raise RecipeError(f"{message}; --help lists the options")


def main(argv: list[str] | None = None) -> None:
    options, given = _parse(argv)
    given = _token_to_environment(given)
    plan = plan_table(options.table, options.ladder, options.seeds, options.recipes, given)
    for planned in plan.runs:
        check_folder(planned, options.runs, options.num_processes)
    todo = outstanding(plan.steps, options.runs)
    missing = missing_prerequisites(todo)
    if options.dry_run:
        print(_describe(plan, todo, missing, options))
        return
    if missing and not options.only_report:
        more = f" (and {len(missing) - 1} more: --dry_run lists them)" if len(missing) > 1 else ""
        raise RecipeError(missing[0] + more)
    report = Report(plan, options, given)
    report.write()
    if not options.only_report:
        _run(todo, plan, report, options)
    print(report.table())
    print(report.path.with_suffix(".md"), report.path.with_suffix(".png"))


def _parse(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    # No abbreviations, because --seed is not --seeds but a field, which the plan refuses.
    parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--table", type=int, required=True, choices=(3, 5), help="its number in the paper")
    parser.add_argument("--ladder", default="clotho", choices=("clotho", "soundscapes"), help="what is trained on")
    parser.add_argument("--seeds", type=_positive, default=3, metavar="N", help="seeds 0 to N-1 (default: 3)")
    parser.add_argument("--runs", type=Path, default=Path("runs/tables"), help="folder of all runs")
    parser.add_argument("--output", type=Path, help="folder of the table and its chart; by default that of the runs")
    parser.add_argument("--num_processes", type=_positive, default=1, metavar="N", help="devices of each run")
    parser.add_argument("--jobs", type=_positive, default=1, metavar="N", help="runs at once")
    parser.add_argument("--dry_run", action="store_true", help="only show the plan and its cost")
    parser.add_argument("--only_report", action="store_true", help="only write the table of the finished runs")
    parser.add_argument("--seconds_per_step", type=float, help="for the cost, while no run has finished")
    parser.add_argument("--dcase_output", type=Path, help="ranked output of the DCASE baseline, a CSV file")
    parser.add_argument("--clotho_captions", type=Path, help="its ground truth: clotho_captions_evaluation.csv")
    parser.add_argument("--recipes", type=Path, default=RECIPES, help="folder of the recipes")
    options, given = parser.parse_known_args(argv)
    if (options.dcase_output is None) != (options.clotho_captions is None):
        raise RecipeError("found one of --dcase_output and --clotho_captions, expected both or none")
    return options, given


def _token_to_environment(given: list[str]) -> list[str]:
    """Pass `--hub_token` to the runs by the environment, where no file, log or process list shows it."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--hub_token")
    found, given = parser.parse_known_args(given)
    if found.hub_token is not None:
        os.environ["HF_TOKEN"] = found.hub_token
    return given


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"found {value}, expected at least 1")
    return value


def _run(todo: list[Run | Synthesis], plan: Plan, report: "Report", options: argparse.Namespace) -> None:
    left = list(todo)

    def started(step: Run | Synthesis) -> None:
        print(f"{step.name}: started, see {options.runs / step.name}.log", flush=True)

    def finished(step: Run | Synthesis) -> None:
        left.remove(step)
        report.write()
        hours = measured_speed(plan.steps, options.runs, options.seconds_per_step).hours_of(left)
        rest = f", about {_duration(hours / options.jobs)} left" if hours else ""
        print(f"{step.name}: finished, {len(todo) - len(left)} of {len(todo)}{rest}", flush=True)

    work_through(plan.steps, options.runs, options.jobs, options.num_processes, started, finished)


def _describe(plan: Plan, todo: list[Run | Synthesis], missing: list[str], options: argparse.Namespace) -> str:
    """Describe the plan with one line per step, its cost, and what is missing."""
    speed = measured_speed(plan.steps, options.runs, options.seconds_per_step)
    rows, total = [], 0
    for step in plan.steps:
        steps = optimiser_steps(step) if isinstance(step, Run) else 0
        if step in todo:
            total = None if total is None or steps is None else total + steps
        hours = speed.hours(step)
        state = "to do" if step in todo else "finished" if is_finished(step, options.runs) else "not needed"
        cost = ["unknown" if steps is None else str(steps), "unknown" if hours is None else f"{hours:.2f}"]
        rows.append([step.name, *(cost if isinstance(step, Run) else [NOTHING, NOTHING]), state])
    text = markdown_table(["step", "optimizer steps", "hours", "state"], rows)
    hours = speed.hours_of(todo)
    cost = "an unknown number of optimizer steps" if total is None else f"{total} optimizer steps"
    time = "" if not hours else f", about {_duration(hours / options.jobs)} by {options.jobs} at once"
    text += f"to do: {len(todo)} of {len(plan.steps)}, {cost}{time}"
    return "\n".join([text, *(f"missing: {line}" for line in missing)])


def _duration(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{max(60 * hours, 1):.0f} min"


class Report:
    """The table of a plan from its finished runs."""

    def __init__(self, plan: Plan, options: argparse.Namespace, given: list[str]):
        self.plan, self.options, self.given = plan, options, given
        folder = options.runs if options.output is None else options.output
        self.path = folder / f"table{options.table}_{options.ladder}"
        self.of_others = {}
        if options.dcase_output is not None:
            self.of_others = score_ranked_output(options.dcase_output, options.clotho_captions)

    def write(self) -> None:
        """Write the table and its chart atomically."""
        write_text(self.path.with_suffix(".md"), f"{self.title()}\n\n{self.table()}\n{self.note()}\n")
        name, column = TABLE_METRICS[-1], TABLE_METRICS.index(TABLE_METRICS[-1])
        published = {row.name: float(row.paper[column].split()[0]) for row in self.plan.rows if row.paper}
        values = {row.name: self.values(row)[name] for row in self.plan.rows}
        metric = f"{name}, test set, text to audio"
        plot_table(values, published, metric, self.path.with_suffix(".png"))

    def values(self, row: Row) -> dict[str, list[float]]:
        """Return metric -> its value in each finished run of a row."""
        if row.recipe is None:
            return {name: [self.of_others[name]] if self.of_others else [] for name in TABLE_METRICS}
        runs = [planned for planned in self.plan.runs_of(row) if is_finished(planned, self.options.runs)]
        results = [read_results(self.options.runs / planned.name, TEST_METRICS) for planned in runs]
        return {name: [result[f"test_{name}"] for result in results] for name in TABLE_METRICS}

    def title(self) -> str:
        return f"# Table {self.options.table}, {self.options.ladder}"

    def table(self) -> str:
        """Return a table of mean and deviation of each row, with the paper's figures if there are any."""
        with_paper = any(row.paper for row in self.plan.rows)
        header = ["", *(cell for name in TABLE_METRICS for cell in ([name, "paper"] if with_paper else [name])), "runs"]
        rows = []
        for row in self.plan.rows:
            values = self.values(row)
            cells = [in_percent(values[name]) for name in TABLE_METRICS]
            if with_paper:
                cells = [cell for pair in zip(cells, row.paper, strict=True) for cell in pair]
            count = f"{len(values[TABLE_METRICS[0]])} of {self.plan.seeds}" if row.recipe else NOTHING
            rows.append([row.name, *cells, count])
        return markdown_table(header, rows)

    def note(self) -> str:
        """Return the notes that explain the table."""
        seeds = ", ".join(map(str, range(self.plan.seeds)))
        what = "one run each (seed 0)"
        if self.plan.seeds > 1:
            what = f"mean ± standard deviation (n - 1) over runs (seeds: {seeds})"
        lines = [f"Test set, text to audio, in percent: {what}."]
        rows = {planned.name for row in self.plan.rows for planned in self.plan.runs_of(row)}
        if pretrainings := [planned.name for planned in self.plan.runs if planned.name not in rows]:
            lines.append(
                f"Pretraining was done once, with seed {PRETRAINING_SEED}, and is shared by all seeds "
                f"({', '.join(pretrainings)}): the deviations do not hold what another pretraining would change."
            )
        if self.options.ladder == "clotho":
            lines.append("`paper` are the figures that Primus & Widmer (2022) print, means of three runs.")
        if self.of_others:
            lines.append("DCASE baseline: our metric on its published ranked output, and the paper's figures.")
        if self.options.num_processes > 1:
            lines.append(f"Each run in {self.options.num_processes} processes.")
        if self.given:
            lines.append(f"Given for all runs: `{' '.join(without_secrets(self.given))}`.")
        return "\n".join(lines)


if __name__ == "__main__":
    run(main)
