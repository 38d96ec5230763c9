"""Captions of a collection: those of each recording, and a list to choose from."""

import dataclasses
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ..data.file_names import METADATA_FILES, FileFinder
from ..data.tables import TABLES, caption_columns_of, captions_of, has_word, read_rows
from ..errors import DataError, RetrievalError
from ..retrieval.everyday_sounds import EVERYDAY_SOUNDS
from ..retrieval.tags import read_labels


@dataclasses.dataclass
class Captions:
    """
    Captions of recordings.

    Attributes:
        texts: captions to choose from, without duplicates, at least one.
        source: their source, as shown on the page.
        of_path: absolute path -> the captions of that recording.
        of_name: the same by file name, for recordings that are in another folder than their captions.
    """

    texts: list[str]
    source: str
    of_path: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    of_name: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def of(self, path: str) -> Sequence[str]:
        """Return the captions of a recording, empty if they are unknown."""
        return self.of_path.get(path) or self.of_name.get(os.path.basename(path), ())


def built_in_captions() -> Captions:
    """Return the captions for a library that has none."""
    return Captions(list(EVERYDAY_SOUNDS), f"a built-in list of {len(EVERYDAY_SOUNDS)} everyday sounds")


def find_captions(folder: str | os.PathLike) -> Captions:
    """Read the captions from the metadata file of a folder, or return the built-in ones."""
    path = next((path for name in METADATA_FILES if (path := Path(folder, name)).is_file()), None)
    return built_in_captions() if path is None else read_captions(path)


def read_captions(path: str | os.PathLike) -> Captions:
    """
    Read a file of captions.

    A table (`.csv`, `.tsv`, `.jsonl`) has a column file_name, relative to the file, and columns of captions, each a
    text or a list of texts: `captions`, or `caption`, `caption_1`, ... as in a folder's metadata or Clotho's files. A
    file with any other ending is a text file with one caption per line.

    Raises:
        DataError, RetrievalError: it cannot be read, or has no caption.
    """
    path = Path(path)
    if path.suffix.lower() not in TABLES:
        texts = read_labels(path)
        return Captions(texts, f"the {len(texts)} lines of {path.name}")
    folder = path.absolute().parent
    finder, captions = FileFinder(folder), Captions([], "")
    paths_of_name: dict[str, set[str]] = defaultdict(set)
    for number, row in read_rows(path, ["file_name"]):
        where, name = f"{path}:{number}", row.get("file_name")
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{where}: found a line without file_name, expected the name of a recording")
        columns = caption_columns_of(list(row), (), where)
        found = [text.strip() for text in captions_of((row[column] for column in columns), where)]
        full_name = os.path.abspath(finder.find(name) or folder / name.replace("\\", "/"))
        paths_of_name[os.path.basename(full_name)].add(full_name)
        captions.of_path.setdefault(full_name, []).extend(found)
        captions.texts += found
    # A name that several recordings share is ambiguous.
    for name, paths in paths_of_name.items():
        if len(paths) == 1:
            captions.of_name[name] = captions.of_path[paths.pop()]
    captions.texts = [text for text in dict.fromkeys(captions.texts) if has_word(text)]
    if not captions.texts:
        raise RetrievalError(f"{path}: found no caption, expected texts in the column caption or captions")
    captions.source = f"the {len(captions.texts)} captions of this collection"
    return captions
