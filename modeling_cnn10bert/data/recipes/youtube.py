"""Find recordings of YouTube videos, as AudioCaps and AudioSet name them, in a folder of the available ones."""

import os
import pathlib
import re

import soundfile

from ...errors import DataError

SUFFIXES = {f".{name.lower()}" for name in soundfile.available_formats()} | {".ogg", ".oga", ".opus", ".mp3", ".aif"}


def is_youtube_segment(youtube_id: str, start: str) -> bool:
    """Tell whether two cells are the id of a video and a start in seconds, such as 30 or 30.000."""
    return (
        re.fullmatch(r"[\w-]{11}", youtube_id, re.ASCII) is not None and re.fullmatch(r"\d+(\.\d*)?", start) is not None
    )


class YouTubeFolder:
    """
    Recordings in a folder and its subfolders, by the video they are from.

    A recording is named `Y<youtube_id>.wav`, `<youtube_id>_<start>.wav` (start in whole seconds or as in the source's
    table) or `<youtube_id>.wav`, or the same in another format.

    Raises:
        DataError: there is no such folder.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = pathlib.Path(folder)
        if not self.folder.is_dir():
            raise DataError(f"{folder}: found no such folder, expected that of the recordings; check the path")
        self.paths: dict[str, str] = {}
        for parent, folders, names in os.walk(self.folder):
            folders.sort()
            for name in sorted(names):
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in SUFFIXES:
                    self.paths.setdefault(stem, os.path.join(parent, name))

    def find(self, youtube_id: str, start: str, alone: bool = True) -> tuple[pathlib.Path | None, str]:
        """
        Find the recording of a video that begins at a time.

        Args:
            youtube_id: of the video.
            start: in seconds, as in the source's table.
            alone: whether no other part of the video is used, so that a name without a start is enough.

        Returns:
            Its path and an empty text, or `None` and what was looked for.
        """
        starts = dict.fromkeys([start, f"{float(start):g}", f"{float(start):.3f}"])
        stems = [f"{youtube_id}_{text}" for text in starts]
        if alone:
            stems = [f"Y{youtube_id}", *stems, youtube_id]
        for stem in stems:
            if stem in self.paths:
                return pathlib.Path(self.paths[stem]), ""
        return None, f"found none of {', '.join(f'{stem}.*' for stem in stems)} in {self.folder}"
