"""The captions of a collection: which recording they describe, and a list of them to choose from."""

import contextlib
import csv
import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..retrieval.records import RetrievalError
from ..retrieval.tags import read_labels

METADATA_FILES = ("metadata.csv", "metadata.jsonl")  # looked for in a folder of recordings

# Where a collection has no captions: what is often heard. Nouns and verbs that captions of Clotho and AudioCaps use.
EVERYDAY_SOUNDS = (
    "a dog barks", "a cat meows", "birds sing", "a rooster crows", "insects chirp", "frogs croak", "a horse trots",
    "a cow moos", "sheep bleat", "bees buzz", "a man speaks", "a woman speaks", "children play and shout",
    "a crowd talks", "people laugh", "a baby cries", "someone coughs", "someone snores", "people applaud",
    "someone whistles", "a choir sings", "footsteps on a hard floor", "someone walks on gravel", "someone types",
    "someone knocks on a door", "a door creaks", "a door is shut", "keys jingle", "dishes clatter", "glass breaks",
    "someone saws wood", "someone hammers", "a drill whirs", "a vacuum cleaner hums", "a washing machine runs",
    "a clock ticks", "an alarm beeps", "a telephone rings", "church bells ring", "a siren wails", "a car passes by",
    "an engine idles", "an engine revs up", "a motorcycle drives off", "traffic on a busy road", "a train passes",
    "a train whistle blows", "an airplane flies over", "a helicopter hovers", "a boat's motor runs", "rain falls",
    "thunder rolls", "wind blows", "waves break on the shore", "a stream flows", "water drips", "water is poured",
    "a toilet is flushed", "water boils", "a fire crackles", "fireworks explode", "a gun is fired", "music plays",
    "a guitar is strummed", "someone plays the piano", "drums are played", "machines run in a factory", "a hum",
    "static noise", "silence",
)  # fmt: skip


@dataclasses.dataclass
class Captions:
    """
    Attributes:
        texts: to choose from, each once, at least one.
        source: what they are, as the page says it.
        of_path: absolute path -> the captions of that recording.
        of_name: the same by file name, for recordings that lie elsewhere than their captions.
    """

    texts: list[str]
    source: str
    of_path: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    of_name: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def of(self, path: str) -> Sequence[str]:
        """The captions of a recording, none where they are not known."""
        return self.of_path.get(path) or self.of_name.get(os.path.basename(path), ())


def built_in_captions() -> Captions:
    return Captions(list(EVERYDAY_SOUNDS), f"a built-in list of {len(EVERYDAY_SOUNDS)} everyday sounds")


def find_captions(folder: str | os.PathLike) -> Captions:
    """Those of the metadata file in a folder of recordings, or the built-in ones."""
    path = next((path for name in METADATA_FILES if (path := Path(folder, name)).is_file()), None)
    return built_in_captions() if path is None else read_captions(path)


def read_captions(path: str | os.PathLike) -> Captions:
    """
    Reads a file of captions.

    `.csv` and `.jsonl`: a column file_name, relative to the file, and columns whose names begin with `caption`, each a
    text or a list of texts, such as the metadata of a folder, or Clotho's caption_1 to caption_5. Any other ending: a
    text file, a caption a line.

    Raises:
        RetrievalError: it cannot be read, or holds no caption.
    """
    path = Path(path)
    if path.suffix.lower() not in (".csv", ".jsonl"):
        texts = read_labels(path)
        return Captions(texts, f"the {len(texts)} lines of {path.name}")
    folder = path.absolute().parent
    captions = Captions([], "")
    try:
        for row in _rows(path):
            found = [text for name, cell in row.items() if str(name).startswith("caption") for text in _texts(cell)]
            name = row.get("file_name")
            if not isinstance(name, str) or not name:
                raise ValueError(f"a line without file_name: {str(row)[:80]}")
            captions.of_path.setdefault(os.path.normpath(folder / name), []).extend(found)
            captions.of_name.setdefault(os.path.basename(name), []).extend(found)
            captions.texts += found
    except (OSError, ValueError, csv.Error) as error:
        raise RetrievalError(
            f"{path}: found {error}, expected UTF-8 lines with the columns file_name and caption (or captions, "
            "caption_1, ...); correct the file"
        ) from error
    captions.texts = [text for text in dict.fromkeys(captions.texts) if any(letter.isalnum() for letter in text)]
    if not captions.texts:
        raise RetrievalError(f"{path}: found no caption, expected a column whose name begins with caption")
    captions.source = f"the {len(captions.texts)} captions of this collection"
    return captions


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        if path.suffix.lower() == ".csv":
            yield from csv.DictReader(file)
            return
        for line in file:
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"a line that is no object: {line[:80]}")
                yield row


def _texts(cell: Any) -> list[str]:
    """The captions in a cell: a text, a list of texts, or such a list written as JSON."""
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        with contextlib.suppress(ValueError):  # a caption may begin with a bracket
            cell = json.loads(cell)
    cells = cell if isinstance(cell, list) else [cell]
    return [text.strip() for text in cells if isinstance(text, str) and text.strip()]
