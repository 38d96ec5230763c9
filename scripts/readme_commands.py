"""The commands and the code of README.md, and how each is tried: for tests/docs and scripts/newcomer.py.

A command of the README is in one of three lists, by how it begins: `TRIED` on small data, by the tests and the
newcomer; `SET_UP`, by the newcomer alone; `SHOWN`, of which is only tested that its script, recipe and options exist. A
new one that is in none fails the tests. Needs nothing but Python, as the newcomer has nothing else at first.
"""

import array
import csv
import math
import random
import re
import wave
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"

# What the README's capitals stand for where its commands are tried; `lay_out` makes what is named here.
PLACEHOLDERS = {
    "[--field value ...]": "",
    "RECIPE": "demo",
    "MODEL": "runs/demo",
    "DATASET": "captions.csv --audio ~/sounds",
    "CAPTIONS.csv": "captions.csv",
    "OUT.csv": "runs/ranked.csv",
    "OUT": "data/again",
    "FOLDER": "~/sounds",
    "DIR": "clips",
    "YOUR_NAME": "newcomer",
}

SHORT = "--max_steps 2 --eval_steps 2 --save_steps 2 --cache_dir cache"

# Beginning of a command -> the options that make it cost seconds.
TRIED = {
    "cnn10bert index": "",
    "cnn10bert search": "",
    "cnn10bert similar": "",
    "cnn10bert evaluate MODEL": "--bootstrap-resamples 20",
    "cnn10bert evaluate runs/mine": "--bootstrap-resamples 20",
    "cnn10bert submit": "",
    "cnn10bert score": "",
    "cnn10bert publish runs/mine": "",
    "python scripts/demo/synthesizers.py": "--num_train 8 --num_validation 4 --num_test 4 --clips_per_kind 3",
    "cnn10bert space": "",
    "cnn10bert prepare folder data/mine": "",
    "cnn10bert prepare folder OUT FOLDER": "",
    "cnn10bert prepare audioset": "--num_proc 1",
    "python scripts/reproduce_tables.py --table 3 --seeds 3 --dry_run": "",
    "python scripts/show_augmentations.py": "--p_syn 0",
    "cnn10bert train soundscapes_small --dataset_name data/mine": SHORT,
    "cnn10bert train soundscapes_small --manifests": f"{SHORT} --p_syn 0 --renderings 1",
}

# Beginnings of commands of `TRIED` that write to the Hub, in whose place a server on loopback stands.
TO_A_HUB = ("cnn10bert publish",)
HUB_SERVER = "tests/publishing/hub_server.py"
HUB_TOKEN = "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"

# Beginning of a command -> why the tests leave it to the newcomer.
SET_UP = {
    "make demo": "takes minutes",
    "make test": "is the tests themselves",
    "python3 -m venv": "makes the environment that the tests run in",
    "source .venv/bin/activate": "enters the environment that the tests run in",
    "pip install": "fills the environment that the tests run in",
}

# Beginning of a command -> why it is not tried at all.
SHOWN = {
    "accelerate launch": "takes several GPUs or machines",
    "ACCELERATE_USE_CPU=true accelerate launch": "tests/training/test_two_processes.py trains in two processes",
    "cnn10bert evaluate laion/clap-htsat-unfused": "downloads a model from the Hub",
    "hf auth login": "asks for a token",
    "hf upload": "needs a token for the Hub",
    "make app": "serves until it is stopped",
    "python -m nltk.downloader": "downloads WordNet",
    "cnn10bert page": "serves until it is stopped",
    "cnn10bert back-translate": "downloads models from the Hub",
    "cnn10bert convert-panns": "downloads a model from Zenodo",
    "cnn10bert prepare audiocaps": "needs AudioCaps' recordings",
    "cnn10bert prepare clotho": "downloads 7 GB",
    "cnn10bert prepare folder OUT SOURCE": "needs a data set with columns of other names",
    "python scripts/reproduce_tables.py": "trains for days",
    "cnn10bert search-hyperparameters": "trains for days",
    "cnn10bert train-tagger": "needs AudioSet",
    "cnn10bert train RECIPE": "is the form of all trainings",
    "cnn10bert train audiocaps_": "needs AudioCaps' recordings",
    "cnn10bert train clotho_": "needs Clotho, or weights from the Hub",
}


@dataclass(frozen=True)
class Block:
    """A fenced block: the heading above it, its language, the number of its first line within, and its text."""

    heading: str
    language: str
    line: int
    text: str


@dataclass(frozen=True)
class Command:
    """A command of a shell block, on one line and without its comment, and the number of the line it begins in."""

    line: int
    text: str


def read_blocks(text: str) -> list[Block]:
    """The fenced blocks of a Markdown text."""
    blocks, heading, opened, lines = [], "", None, []
    for number, line in enumerate(text.splitlines(), start=1):
        if opened is None and line.startswith("#"):
            heading = line.lstrip("#").strip()
        elif line.startswith("```"):
            if opened is None:
                opened, lines = (line[3:].strip(), number + 1), []
            else:
                blocks.append(Block(heading, *opened, "\n".join(lines) + "\n"))
                opened = None
        elif opened is not None:
            lines.append(line)
    return blocks


_COMMENT = re.compile(r"""("[^"]*"|'[^']*')|(?:^|\s)#.*$""")


def commands_of(block: Block) -> list[Command]:
    """The commands of a shell block: comments are dropped, lines that end in a backslash are joined."""
    commands, begun, parts = [], 0, []
    for number, line in enumerate(block.text.splitlines(), start=block.line):
        line = _COMMENT.sub(lambda found: found[1] or "", line).strip()
        begun = begun if parts else number
        parts.append(line.removesuffix("\\").strip())
        if not line.endswith("\\"):
            if text := " ".join(part for part in parts if part):
                commands.append(Command(begun, text))
            parts = []
    return commands


def list_of(command: str) -> tuple[str, str]:
    """
    The list that a command is in, by the longest beginning that fits, and what it says of it; two empty texts for none.
    """
    lists = {"TRIED": TRIED, "SET_UP": SET_UP, "SHOWN": SHOWN}
    fitting = [(start, name) for name, list_ in lists.items() for start in list_ if command.startswith(start)]
    if not fitting:
        return "", ""
    start, name = max(fitting, key=lambda one: len(one[0]))
    return name, lists[name][start]


def on_small_data(command: str) -> str:
    """A command of `TRIED` as it is run: its placeholders replaced, its options added."""
    _, options = list_of(command)
    return f"{fill_in(command)} {options}".strip()


def fill_in(command: str) -> str:
    """A command with its placeholders replaced."""
    for name in sorted(PLACEHOLDERS, key=len, reverse=True):
        command = re.sub(rf"(?<![\w/.-]){re.escape(name)}(?![\w.])", lambda _, name=name: PLACEHOLDERS[name], command)
    return command.strip()


# ----------------------------------------------------------------------------------------- what the commands are for


def lay_out(folder: Path, home: Path) -> None:
    """
    Makes what the README takes for granted: recordings with captions, and a little of AudioSet.

    HOME/sounds has some.wav and eleven more with metadata.csv; `folder` has captions.csv of the same, as Clotho writes
    it, and AudioSet's tables of eight clips, which are in clips/.
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
    """Writes a wav file of `seed + 1` tones of random pitch, one after the other."""
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
