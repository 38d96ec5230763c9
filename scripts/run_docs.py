"""Run the runnable blocks of README.md and docs/ as a newcomer: in a fresh clone, an empty home, a new environment.

    python scripts/run_docs.py [--skip-tests] [--into DIR]

A fenced block is run when the line above it is `<!-- run -->`. `<!-- run: train --max_steps 2; evaluate --seed 1 -->`
adds options to the commands of these verbs, to make them short. What is marked `<!-- newcomer -->`, such as `make
demo`, is run here, and not by the tests, which run the rest in their own environment. Prints a table of what was run,
how long it took and whether it succeeded; the output of each goes to a log. Exits non-zero if one fails. Needs git,
make and Python; takes 10 GB.
"""

import argparse
import array
import csv
import math
import os
import random
import re
import shlex
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ACTIVATE = "source .venv/bin/activate"
# Environment variables that a newcomer would not have.
NOT_A_NEWCOMERS = ("CNN10BERT_", "HF_", "HUGGING_FACE_", "TRANSFORMERS_", "PYTHONPATH", "VIRTUAL_ENV", "NLTK_DATA")

# Values of the placeholders in commands; `lay_out` makes the files.
PLACEHOLDERS = {
    "MODEL": "runs/demo",
    "DATASET": "captions.csv --audio ~/sounds",
    "CAPTIONS.csv": "captions.csv",
    "OUT.csv": "runs/ranked.csv",
    "OUT": "data/again",
    "FOLDER": "~/sounds",
    "DIR": "clips",
    "YOUR_NAME": "newcomer",
}

# Commands that write to the Hub, which is replaced by a server on loopback.
TO_A_HUB = ("cnn10bert publish",)
HUB_SERVER = "tests/publishing/hub_server.py"
HUB_TOKEN = "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"

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

_MARK = re.compile(r"<!-- (run|newcomer)(?:: (.*))? -->")
_COMMENT = re.compile(r"""("[^"]*"|'[^']*')|(?:^|\s)#.*$""")


@dataclass(frozen=True)
class Step:
    """
    A command of a document, or the Python of a block.

    Attributes:
        place: document and line.
        shown: the command as in the document.
        command: the command on small data, or the code, that is run.
        is_python: whether it is code.
        is_set_up: whether only a newcomer runs it.
    """

    place: str
    shown: str
    command: str
    is_python: bool = False
    is_set_up: bool = False


@dataclass(frozen=True)
class Outcome:
    """Result of a step."""

    step: Step
    seconds: float
    ok: bool


# ------------------------------------------------------------------------------------------------------- documents


def steps_of(root: Path) -> Iterator[Step]:
    """Yield the runnable steps of the README, then of each page of docs/, from top to bottom."""
    for document in (root / "README.md", *sorted((root / "docs").glob("*.md"))):
        place = document.relative_to(root)
        for above, line, language, text in blocks_of(document.read_text(encoding="utf-8")):
            if (mark := _MARK.fullmatch(above)) is None:
                continue
            is_set_up = mark[1] == "newcomer"
            if language == "python":
                yield Step(f"{place}:{line}", "the Python there", text, True, is_set_up)
                continue
            options = dict(part.strip().split(" ", 1) for part in (mark[2] or "").split(";") if part.strip())
            for number, command in commands_of(text, line):
                verb = next((word for word in command.split()[1:3] if word in options), None)
                small = f"{fill_in(command)} {options[verb]}" if verb else fill_in(command)
                yield Step(f"{place}:{number}", command, small, False, is_set_up)


def blocks_of(text: str) -> Iterator[tuple[str, int, str, str]]:
    """Yield the fenced blocks of a Markdown text: the line above, the number of the first line, language, and text."""
    above, language, begun, lines = "", None, 0, []
    for number, line in enumerate(text.splitlines(), start=1):
        if language is None:
            if line.startswith("```"):
                language, begun, lines = line[3:].strip(), number + 1, []
            else:
                above = line.strip()
        elif line.startswith("```"):
            yield above, begun, language, "\n".join(lines) + "\n"
            language = None
        else:
            lines.append(line)


def commands_of(text: str, first_line: int) -> Iterator[tuple[int, str]]:
    """Yield the commands of a shell block with their lines, without comments; a backslash joins two lines."""
    begun, parts = first_line, []
    for number, line in enumerate(text.splitlines(), start=first_line):
        line = _COMMENT.sub(lambda found: found[1] or "", line).strip()
        begun = begun if parts else number
        parts.append(line.removesuffix("\\").strip())
        if not line.endswith("\\"):
            if command := " ".join(part for part in parts if part):
                yield begun, command
            parts = []


def fill_in(command: str) -> str:
    """Replace the placeholders in a command."""
    for name in sorted(PLACEHOLDERS, key=len, reverse=True):
        command = re.sub(rf"(?<![\w/.-]){re.escape(name)}(?![\w.])", lambda _, name=name: PLACEHOLDERS[name], command)
    return command


# ------------------------------------------------------------------------------------------------------- the walk


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
    Clone a repository into an empty folder and run its documents there; return how many steps failed.

    The folder then has the clone, the home, and logs/LINE.txt with the output of each step.
    """
    folder = folder.resolve()
    if folder.is_dir() and any(folder.iterdir()):
        sys.exit(f"error: {folder}: found files in it, expected an empty folder; name another by --into")
    place, home, logs = folder / "cnn10bert", folder / "home", folder / "logs"
    home.mkdir(parents=True)
    logs.mkdir()
    subprocess.run(["git", "clone", "--quiet", str(repository), str(place)], check=True)
    lay_out(place, home)

    environment, entered, outcomes = newcomers_environment(os.environ, home), False, []
    for step in sorted(steps_of(place), key=lambda step: not step.is_set_up):  # the set-up first
        if skip_tests and step.shown == "make test":
            continue
        command = f"python - <<'END'\n{step.command}END" if step.is_python else step.command
        # A user stays in an activated environment, but here each command has a shell of its own.
        command = f"{ACTIVATE} && {command}" if entered else command
        print(f"running: {step.place}: {step.shown}", flush=True)
        log = logs / f"{len(outcomes):02d} {re.sub(r'[^A-Za-z0-9.]+', ' ', step.place)}.txt"
        with hub(place, environment) if step.shown.startswith(TO_A_HUB) else nullcontext({}) as more:
            outcomes.append(run(step, command, place, environment | more, log))
        entered = entered or step.command == ACTIVATE
    print("\n" + table(outcomes))
    return sum(not outcome.ok for outcome in outcomes)


def newcomers_environment(ours: Mapping[str, str], home: Path) -> dict[str, str]:
    """Return this environment with another home and without our own settings; pip's downloads are kept."""
    cache = ours.get("PIP_CACHE_DIR") or str(Path.home() / ".cache" / "pip")
    kept = {name: value for name, value in ours.items() if not name.startswith(NOT_A_NEWCOMERS)}
    if entered := ours.get("VIRTUAL_ENV"):
        kept["PATH"] = os.pathsep.join(part for part in kept["PATH"].split(os.pathsep) if not part.startswith(entered))
    return {**kept, "HOME": str(home), "PIP_CACHE_DIR": cache}


@contextmanager
def hub(place: Path, environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Run the Hub of the clone's tests on loopback; yield the variables for commands to reach it."""
    command = [str(place / ".venv" / "bin" / "python"), "-c", HUB, HUB_TOKEN, HUB_SERVER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=place, env=environment, text=True, **pipes) as server:
        url = server.stdout.readline().strip()
        try:
            yield {"HF_ENDPOINT": url, "HF_TOKEN": HUB_TOKEN, "HF_HUB_DISABLE_XET": "1"}
        finally:
            server.communicate("")  # the end of its input ends it


def run(step: Step, command: str, place: Path, environment: Mapping[str, str], log: Path) -> Outcome:
    """Run a step by bash; its output goes to the log, and the end of it to the terminal too if it failed."""
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
    """Return a table of command, seconds, and whether it succeeded."""
    rows = [(outcome.step.shown, f"{outcome.seconds:.0f}", "yes" if outcome.ok else "NO") for outcome in outcomes]
    rows = [("command", "seconds", "ok"), *rows]
    width = max(len(row[0]) for row in rows)
    lines = [f"| {shown:{width}} | {seconds:>7} | {ok:3} |" for shown, seconds, ok in rows]
    total = sum(outcome.seconds for outcome in outcomes)
    failed = sum(not outcome.ok for outcome in outcomes)
    lines.insert(1, f"| {'-' * width} | ------: | --- |")
    return "\n".join([*lines, "", f"{len(outcomes)} run in {total:.0f} s, {failed} failed"])


# --------------------------------------------------------------------------------------------- data of the commands


def lay_out(folder: Path, home: Path) -> None:
    """
    Make the files that the README assumes: recordings with captions, and a small part of AudioSet.

    HOME/sounds has some.wav and eleven more with metadata.csv; `folder` has captions.csv of the same, in Clotho's
    format, and AudioSet's tables of eight clips, which are in clips/.
    """
    sounds = home / "sounds"
    sounds.mkdir(parents=True)
    captions = {}
    for number in range(12):
        name = "some.wav" if number == 0 else f"sound {number}.wav"
        write_tones(sounds / name, seed=number, seconds=1 + number / 8)
        captions[name] = [f"{opening} {number + 1} tones{ending}." for opening, ending in _PHRASES]
    rows = [[name, caption] for name, texts in captions.items() for caption in texts]
    _write_csv(sounds / "metadata.csv", [["file_name", "caption"], *rows])
    header = ["file_name", *(f"caption_{number}" for number in range(1, 6))]
    _write_csv(folder / "captions.csv", [header, *([name, *texts] for name, texts in captions.items())])

    classes = [[number, f"/m/{number:04d}", f"class {number}"] for number in range(527)]
    _write_csv(folder / "class_labels_indices.csv", [["index", "mid", "display_name"], *classes])
    ids = [f"readme_{number:04d}" for number in range(8)]
    for number, name in enumerate(ids):
        write_tones(folder / "clips" / f"Y{name}.wav", seed=number, seconds=0.5)
    for split in ("unbalanced_train", "balanced_train", "eval"):
        lines = [f'{name}, 30.000, 40.000, "/m/0001,/m/0526"\n' for name in ids]
        head = "# YTID, start_seconds, end_seconds, positive_labels\n"
        (folder / f"{split}_segments.csv").write_text(head + "".join(lines))


_PHRASES = [
    ("One hears", ""),
    ("There are", " in a row"),
    ("A machine plays", ""),
    ("Somebody whistles", " without a break"),
    ("A sequence of", " is heard"),
]


def write_tones(path: Path, seed: int, seconds: float, rate: int = 16_000) -> None:
    """Write a wav file of `seed + 1` tones of random pitch, one after the other."""
    rng = random.Random(seed)
    pitches = [rng.uniform(200, 4000) for _ in range(seed + 1)]
    length = round(seconds * rate)
    samples = array.array(
        "h",
        (
            round(12_000 * math.sin(2 * math.pi * pitches[n * len(pitches) // length] * n / rate) + rng.gauss(0, 300))
            for n in range(length)
        ),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())


def _write_csv(path: Path, rows: list[list]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
