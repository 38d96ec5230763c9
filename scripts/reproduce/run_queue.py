"""Run the steps of a plan, one or several at a time; finished ones are kept, interrupted ones resumed."""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from modeling_cnn10bert.errors import RecipeError
from modeling_cnn10bert.evaluation.reports import RESULTS
from modeling_cnn10bert.files import write_text
from modeling_cnn10bert.masking import is_secret, without_secrets
from modeling_cnn10bert.training.run_folder import MARKS_OF_A_RUN, PREFIX_CHECKPOINT_DIR

from .ladders import Run, Synthesis

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND_MARK = "--- command:"  # begins an attempt in a log
RECORD = "run.json"  # in the folder of a run: the settings that it was started with
# Fields that may change between the start of a run and its resumption, because its results stay the same.
WITHOUT_EFFECT = {
    "output_dir",
    "seed",  # recorded separately
    "cache_dir",
    "preprocessing_num_workers",
    "dataloader_num_workers",
    "dataloader_persistent_workers",
    "logging_steps",
    "disable_tqdm",
    *("push_to_hub", "hub_model_id", "hub_private_repo", "hub_revision", "hub_always_push"),
}


# --------------------------------------------------------------------------------------------------------- records


def record_of(run: Run, num_processes: int) -> dict[str, Any]:
    """Return the settings that determine a run's results; its initial model is named by the run that made it."""
    fields = _with_effect(run.fields)
    return {
        "recipe": run.recipe.stem,
        "seed": run.seed,
        "num_processes": num_processes,
        "fields": {**fields, **run.starts_from},
    }


def _with_effect(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: without_secrets(value)
        for name, value in fields.items()
        if name not in WITHOUT_EFFECT and not is_secret(name)
    }


def read_record(folder: Path) -> dict[str, Any] | None:
    """Read the settings that a run was started with; `None` if they were not recorded."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("fields"), dict) else None


def check_folder(run: Run, runs: Path, num_processes: int) -> None:
    """
    Check that an existing run in the folder is this one, whether it has finished or not.

    Raises:
        RecipeError: it was made with other or unknown fields.
    """
    folder = runs / run.name
    if (found := read_record(folder)) is None:
        if any(path for mark in MARKS_OF_A_RUN for path in folder.glob(mark)):
            raise RecipeError(
                f"{folder}: found a run without {RECORD}, expected one that says what it was made with; give another "
                "--runs, or move it away"
            )
        return
    before, now = ({**record, **_with_effect(record["fields"])} for record in (found, record_of(run, num_processes)))
    names = sorted((before.keys() | now.keys()) - {"fields", "resumed"})
    absent = "nothing"
    if different := [name for name in names if before.get(name, absent) != now.get(name, absent)]:
        changes = ", ".join(f"{name} {before.get(name, absent)} (now {now.get(name, absent)})" for name in different)
        raise RecipeError(f"{folder} was made with {changes}; give the same fields as then, or another --runs")


def is_finished(step: Run | Synthesis, runs: Path) -> bool:
    """Tell whether a step has written all its results; for a run, those of the last part of its recipe."""
    if isinstance(step, Synthesis):
        return step.folder.is_dir()
    parts = {"do_predict": "test_", "do_eval": "eval_", "do_train": "train_"}
    last = next((prefix for part, prefix in parts.items() if step.fields.get(part)), "train_")
    try:
        results = json.loads((runs / step.name / RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # ValueError: killed while writing it
        return False
    return isinstance(results, dict) and any(name.startswith(last) for name in results)


def outstanding(steps: Sequence[Run | Synthesis], runs: Path) -> list[Run | Synthesis]:
    """Return the remaining steps in order, without those that only finished runs needed."""
    needed = {name for step in steps for name in step.needs}
    wanted = {step.name for step in steps} - needed  # the runs that rows summarize
    found = []
    for step in reversed(steps):
        if step.name in wanted and not is_finished(step, runs):
            found.append(step)
            wanted.update(step.needs)
    return found[::-1]


# -------------------------------------------------------------------------------------------------------- processes


def command_of(step: Run | Synthesis, runs: Path, num_processes: int = 1) -> list[str]:
    """Return the command of a step; several processes are launched by accelerate."""
    if isinstance(step, Synthesis):
        return [sys.executable, str(REPOSITORY / "scripts" / "demo" / "synthesizers.py"), str(step.folder)]
    launcher = [sys.executable]
    if num_processes > 1:
        launcher += ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(num_processes)]
        launcher += ["--main_process_port", "0"]  # any free port
    models = [word for field, name in step.starts_from.items() for word in (f"--{field}", str(runs / name))]
    own = ["--seed", str(step.seed), "--output_dir", str(runs / step.name), "--resume_from_checkpoint", "true"]
    return [*launcher, str(REPOSITORY / step.script), str(step.recipe), *step.arguments, *models, *own]


def start(step: Run | Synthesis, runs: Path, num_processes: int = 1, jobs: int = 1) -> subprocess.Popen:
    """
    Start a step; its output is appended to RUNS/<name>.log.

    The process holds a lock on its folder, which outlives this program. So even if this program is killed, no second
    process can begin in the folder before the first has ended.

    Raises:
        RecipeError: a process is using the folder, or it holds another run.
    """
    command = command_of(step, runs, num_processes)
    runs.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as opened:
        locks = []
        if isinstance(step, Run):
            locks.append(_lock(runs / step.name))
            opened.callback(os.close, locks[0])
            check_folder(step, runs, num_processes)
            _prepare_folder(step, runs / step.name, num_processes)
        log = opened.enter_context(_log(step, runs).open("a", encoding="utf-8"))
        print(COMMAND_MARK, *without_secrets(command), file=log, flush=True)
        output = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, env=_environment(num_processes, jobs), pass_fds=locks, **output)


def _log(step: Run | Synthesis, runs: Path) -> Path:
    return runs / f"{step.name}.log"


def _lock(folder: Path) -> int:
    folder.mkdir(exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise RecipeError(
            f"{folder}: found another process at work on it, expected none; wait until it ends"
        ) from error
    except OSError:
        pass  # a file system without locks
    return lock


def _prepare_folder(run: Run, folder: Path, num_processes: int) -> None:
    results = folder / RESULTS
    with contextlib.suppress(FileNotFoundError):
        try:
            json.loads(results.read_text(encoding="utf-8"))
        except ValueError:  # an incomplete file from a kill would stop the run at its end
            results.rename(results.with_suffix(".json.broken"))
    resumed = any(folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"))
    record = {**record_of(run, num_processes), "resumed": resumed}
    write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")


def _environment(num_processes: int, jobs: int) -> dict[str, str]:
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    if num_processes > 1 and not torch.accelerator.is_available():
        environment["ACCELERATE_USE_CPU"] = "true"
    if jobs * num_processes > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // (jobs * num_processes))))
    return environment


# ------------------------------------------------------------------------------------------------------------ queue


def work_through(
    steps: Sequence[Run | Synthesis],
    runs: Path,
    jobs: int = 1,
    num_processes: int = 1,
    on_start: Callable[[Run | Synthesis], None] = lambda step: None,
    on_finish: Callable[[Run | Synthesis], None] = lambda step: None,
) -> None:
    """
    Run the unfinished steps, each after those that it needs, at most `jobs` at once.

    All started processes are ended, even after an error.

    Raises:
        RecipeError: a run failed; concurrent runs are ended, and resumed the next time.
    """
    waiting = outstanding(steps, runs)
    running: dict[Run | Synthesis, subprocess.Popen] = {}
    try:
        while waiting or running:
            for step in [step for step in waiting if is_finished(step, runs)]:  # by another program
                waiting.remove(step)
                on_finish(step)
            unfinished = {step.name for step in (*waiting, *running)}
            ready = [step for step in waiting if not unfinished.intersection(step.needs)]
            for step in ready[: jobs - len(running)]:
                waiting.remove(step)
                running[step] = start(step, runs, num_processes, jobs)
                on_start(step)
            if not running:
                break
            step = _wait_for_one(running)
            status = running.pop(step).returncode
            if status or not is_finished(step, runs):
                raise RecipeError(_failure(step, runs, status))
            on_finish(step)
    finally:
        _end(running)


def _wait_for_one(running: Mapping[Run | Synthesis, subprocess.Popen], seconds: float = 0.2) -> Run | Synthesis:
    while True:
        for step, process in running.items():
            if process.poll() is not None:
                return step
        time.sleep(seconds)


def _failure(step: Run | Synthesis, runs: Path, status: int) -> str:
    log = _log(step, runs)
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text[text.rindex(f"{COMMAND_MARK} ") :].splitlines() if line.strip()]
    reason = f"exit status {status}" if status else "it left no results"
    last = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1])
    last = without_secrets(last.removeprefix("error: "))
    return f"{step.name} failed ({reason}): {last[:300]}; see {log}; run the same command to continue"


def _end(running: Mapping[Run | Synthesis, subprocess.Popen]) -> None:
    for process in running.values():
        process.terminate()
    for process in running.values():
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
