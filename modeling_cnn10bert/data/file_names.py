"""Find the files that the names of recordings in metadata mean."""

import functools
import os
import pathlib
import unicodedata
from collections import defaultdict
from collections.abc import Hashable

METADATA_FILES = ("metadata.csv", "metadata.jsonl")


class FileFinder:
    """Find recordings by the names that metadata gives them.

    A file of exactly that name comes first. Otherwise, backslashes may stand for slashes, spaces around the name are
    ignored, and accents may have another Unicode normal form, as long as only one file then matches.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self._names_in = functools.cache(_names_in)

    def find(self, name: str) -> pathlib.Path | None:
        """Return the path of a file, `None` where there is none."""
        if "\0" in name:
            return None
        slashes = name.replace("\\", "/")
        for form in dict.fromkeys([name, slashes, name.strip(), slashes.strip()]):
            path = self.folder / form
            if os.path.exists(path):
                return path
            if found := self._in_any_normal_form(path):
                return found
        return None

    def _in_any_normal_form(self, path: pathlib.Path) -> pathlib.Path | None:
        found = pathlib.Path(path.anchor)
        for part in path.relative_to(path.anchor).parts:
            if not os.path.exists(found / part):
                names = self._names_in(found).get(unicodedata.normalize("NFC", part), [])
                if len(names) != 1:
                    return None
                part = names[0]
            found /= part
        return found


def _names_in(folder: pathlib.Path) -> dict[str, list[str]]:
    """Map names in Unicode's form NFC to those on disk."""
    names = defaultdict(list)
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        names[unicodedata.normalize("NFC", name)].append(name)
    return names


def file_identity(path: str | os.PathLike) -> Hashable:
    """Return a value that all names of one file share, also links and detours such as `./` and `..`."""
    try:
        status = os.stat(path)
        return status.st_dev, status.st_ino
    except (OSError, ValueError):
        return os.path.abspath(path)


def is_inside(path: str | os.PathLike, folder: str | os.PathLike) -> bool:
    """Tell whether a path, which need not exist, leads below a folder when links and `..` are followed."""
    try:
        return pathlib.Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
    except ValueError:  # no file can have such a name
        return True
