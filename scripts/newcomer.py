"""Walks through the README as a newcomer: in a fresh clone, with an empty home and a new virtual environment.

    python scripts/newcomer.py [--skip-tests] [--into DIR]

Clones what is committed, runs the commands and the code of the clone's README in their order, and prints a table of
what was run, how long it took, and whether it succeeded; what is left out is listed with the reason. Commands that
download or train for long are left out, others get options that make them short: scripts/readme_commands.py says which.
The output of each goes to a log. Exits non-zero if one fails. Needs git, make and Python; takes 10 GB of disk.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import readme_commands as readme

ROOT = readme.ROOT
ACTIVATE = "source .venv/bin/activate"
# What of this user's environment a newcomer would not have.
NOT_A_NEWCOMERS = ("CNN10BERT_", "HF_", "HUGGING_FACE_", "TRANSFORMERS_", "PYTHONPATH", "VIRTUAL_ENV", "NLTK_DATA")

# A Hub for one user, until its input ends.
HUB = """
import pathlib, sys
token, path = sys.argv[1], pathlib.Path(sys.argv[2])
sys.path.insert(0, str(path.parent))
with __import__(path.stem).Hub() as hub:
    hub.add_user("newcomer", token)
    print(hub.url, flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True)
class Step:
    """Something of the README to be run: as it stands there, and as bash runs it; or why it is left out."""

    line: int
    shown: str
    command: str = ""
    left_out: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a step."""

    step: Step
    seconds: float
    ok: bool


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--into", type=Path, metavar="DIR", help="an empty folder to work in; by default a temporary one"
    )
    parser.add_argument("--skip-tests", action="store_true", help="leave out `make test`, which takes ten minutes")
    options = parser.parse_args(argv)
    if options.into is not None:
        return walk(ROOT, options.into, options.skip_tests)
    with tempfile.TemporaryDirectory(prefix="newcomer-") as folder:
        return walk(ROOT, Path(folder), options.skip_tests)


def walk(repository: Path, folder: Path, skip_tests: bool = False) -> int:
    """
    Clones a repository into an empty folder and runs its README there; returns how many steps failed.

    Leaves in the folder the clone, the home, and logs/LINE.txt with the output of each step.
    """
    folder = folder.resolve()
    if folder.is_dir() and any(folder.iterdir()):
        sys.exit(f"error: {folder}: found files in it, expected an empty folder; name another by --into")
    place, home, logs = folder / "cnn10bert", folder / "home", folder / "logs"
    home.mkdir(parents=True)
    logs.mkdir()
    subprocess.run(["git", "clone", "--quiet", str(repository), str(place)], check=True)
    readme.lay_out(place, home)

    environment, entered, outcomes = newcomers_environment(os.environ, home), False, []
    for step in steps_of((place / "README.md").read_text(encoding="utf-8"), skip_tests):
        if step.left_out:
            print(f"left out: README.md:{step.line}: {step.shown}: {step.left_out}", flush=True)
            continue
        # Whoever has entered the environment stays in it; each command has a shell of its own here.
        command = f"{ACTIVATE} && {step.command}" if entered else step.command
        print(f"running: README.md:{step.line}: {step.shown}", flush=True)
        log = logs / f"{len(outcomes):02d} line {step.line}.txt"
        with hub(place, environment) if step.shown.startswith(readme.TO_A_HUB) else nullcontext({}) as more:
            outcomes.append(run(step, command, place, environment | more, log))
        entered = entered or step.command == ACTIVATE
    print("\n" + table(outcomes))
    return sum(not outcome.ok for outcome in outcomes)


def newcomers_environment(ours: Mapping[str, str], home: Path) -> dict[str, str]:
    """This environment with another home, without what we have set for our own work; pip's downloads are kept."""
    cache = ours.get("PIP_CACHE_DIR") or str(Path.home() / ".cache" / "pip")
    kept = {name: value for name, value in ours.items() if not name.startswith(NOT_A_NEWCOMERS)}
    if entered := ours.get("VIRTUAL_ENV"):
        kept["PATH"] = os.pathsep.join(part for part in kept["PATH"].split(os.pathsep) if not part.startswith(entered))
    return {**kept, "HOME": str(home), "PIP_CACHE_DIR": cache}


@contextmanager
def hub(place: Path, environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Runs the Hub of the clone's tests on loopback; the variables by which a command talks to it."""
    command = [str(place / ".venv" / "bin" / "python"), "-c", HUB, readme.HUB_TOKEN, readme.HUB_SERVER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=place, env=environment, text=True, **pipes) as server:
        url = server.stdout.readline().strip()
        try:
            yield {"HF_ENDPOINT": url, "HF_TOKEN": readme.HUB_TOKEN, "HF_HUB_DISABLE_XET": "1"}
        finally:
            server.communicate("")  # the end of its input ends it


def steps_of(text: str, skip_tests: bool = False) -> Iterator[Step]:
    """The steps of a README, from top to bottom."""
    for block in readme.read_blocks(text):
        if block.language == "python":
            yield Step(block.line, f"the Python under {block.heading!r}", f"python - <<'END'\n{block.text}END")
        elif block.language == "bash":
            for command in readme.commands_of(block):
                yield _step_of(command, skip_tests)


def _step_of(command: readme.Command, skip_tests: bool) -> Step:
    kind, value = readme.list_of(command.text)
    if kind == "SHOWN":
        return Step(command.line, command.text, left_out=value)
    if kind == "TRIED":
        return Step(command.line, command.text, readme.on_small_data(command.text))
    if command.text == "make test" and skip_tests:
        return Step(command.line, command.text, left_out="--skip-tests")
    return Step(command.line, command.text, command.text)


def run(step: Step, command: str, place: Path, environment: Mapping[str, str], log: Path) -> Outcome:
    """Runs a step by bash; its output goes to the log, the end of it to the terminal too where it failed."""
    started = time.monotonic()
    with log.open("w") as output:
        output.write(f"$ {command}\n")
        output.flush()
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    outcome = Outcome(step, time.monotonic() - started, done.returncode == 0)
    if not outcome.ok:
        print(f"failed with {done.returncode}: {shlex.quote(str(log))} ends with")
        print("    " + "\n    ".join(log.read_text(errors="replace").splitlines()[-15:]), flush=True)
    return outcome


def table(outcomes: list[Outcome]) -> str:
    """Command, seconds, and whether it succeeded."""
    rows = [(outcome.step.shown, f"{outcome.seconds:.0f}", "yes" if outcome.ok else "NO") for outcome in outcomes]
    rows = [("command", "seconds", "ok"), *rows]
    width = max(len(row[0]) for row in rows)
    lines = [f"| {shown:{width}} | {seconds:>7} | {ok:3} |" for shown, seconds, ok in rows]
    total = sum(outcome.seconds for outcome in outcomes)
    failed = sum(not outcome.ok for outcome in outcomes)
    lines.insert(1, f"| {'-' * width} | ------: | --- |")
    return "\n".join([*lines, "", f"{len(outcomes)} run in {total:.0f} s, {failed} failed"])


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
