"""Which recordings lie below some folders."""

import dataclasses
import os
import stat
from collections.abc import Iterable

from ..data.audio_io import printable
from ..errors import RetrievalError
from .records import file_stamp

# What libsndfile or FFmpeg decode and people have, by the ending of its name in lower case. Of containers of video only
# those that recordings come in too.
LIBSNDFILE_ENDINGS = (
    "aif aifc aiff au caf flac mp1 mp2 mp3 mpga nist oga ogg opus pvf rf64 sd2 snd sph voc w64 wav wave"
)
FFMPEG_ENDINGS = (
    "3g2 3ga 3gp aac ac3 amr ape asf awb dsf dts eac3 m4a m4b m4r mka mp4 mpc ra spx tak tta weba webm wma wv"
)
ENDINGS = frozenset(f"{LIBSNDFILE_ENDINGS} {FFMPEG_ENDINGS}".split())


@dataclasses.dataclass
class Scan:
    """
    What lies below some folders.

    Attributes:
        roots: the folders and files asked for, by their canonical names.
        files: path of each recording -> its size in bytes and its time of modification in nanoseconds since 1970.
        problems: (path, reason) of what cannot be looked at, or is no file.
        blocked: those of them below which there may be anything.
        other_files: how many files are no recordings by their ending.
        targets: files and folders, without any link in their name: each is met once.
    """

    roots: list[str]
    files: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    problems: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    blocked: list[str] = dataclasses.field(default_factory=list)
    other_files: int = 0
    targets: set[str] = dataclasses.field(default_factory=set, repr=False)

    def block(self, path: str, error: OSError) -> None:
        """Lists a folder or file that the system does not let us look at."""
        self.problems.append((path, reason_of(error)))
        self.blocked.append(path)

    def covers(self, path: str) -> bool:
        """Whether a path is one of the roots or lies below one."""
        return any(is_below(path, root) for root in self.roots)

    def look_up(self, path: str) -> tuple[int, int] | None:
        """Size and time of a file that the scan passed over, such as one once given by name; `None` where it is gone
        or was found under another name.

        Raises:
            OSError: nobody knows whether it is there.
        """
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(status.st_mode) or os.path.realpath(path) in self.targets:
            return None
        return file_stamp(status)


def scan(paths: Iterable[str | os.PathLike]) -> Scan:
    """
    Finds the recordings among files and below folders.

    Links are followed. A file that can be reached in several ways counts once: by a way without links where there is
    one, else by the first that is found. Files and folders whose name begins with a dot are skipped; devices, pipes and
    sockets are never opened. A file that is given itself counts whatever its name is.

    Args:
        paths: folders and files.

    Raises:
        RetrievalError: one of them does not exist, or there are none.
    """
    found = Scan(roots=list(dict.fromkeys(canonical(path) for path in paths)))
    if not found.roots:
        raise RetrievalError("found no folder to look for recordings in, expected at least one")
    for root in found.roots:
        check_existence(root)
    links: list[str] = []
    for root in found.roots:
        if os.path.isdir(root):
            _walk(root, found, links)
        else:
            _add(root, os.path.realpath(root), found)
    while links:  # what only a link leads to comes last
        link = links.pop(0)
        try:
            mode = os.stat(link).st_mode
        except FileNotFoundError:
            found.problems.append((link, "a link to something that does not exist"))
        except OSError as error:
            found.block(link, error)
        else:
            if stat.S_ISDIR(mode):
                _walk(link, found, links)
            elif is_recording(link):
                _add(link, os.path.realpath(link), found)
            elif stat.S_ISREG(mode):
                found.other_files += 1
    return found


def check_existence(root: str) -> None:
    """
    Raises:
        RetrievalError: a folder or file that was given does not exist.
    """
    try:
        os.stat(root)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RetrievalError(
            f"{printable(root)}: found no such folder or file, expected recordings; the index is as it was. Check the "
            "path, or mount its drive"
        ) from error
    except OSError:
        pass  # it is there; the scan lists why it cannot be looked at


def canonical(path: str | os.PathLike) -> str:
    """The name under which a given folder or file is indexed: absolute, a folder without links in it.

    A file's own name stays, though it may be a link: it can tell what its target's name does not.
    """
    path = os.path.abspath(os.path.expanduser(os.fsdecode(path)))
    if os.path.isdir(path):
        return os.path.realpath(path)
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def is_below(path: str, root: str) -> bool:
    """Whether a path is `root` or lies below it, by their names."""
    return path == root or path.startswith(root if root.endswith(os.sep) else root + os.sep)


def is_recording(path: str) -> bool:
    """Whether a file is taken for a recording, by its ending."""
    return os.path.splitext(path)[1][1:].lower() in ENDINGS


def _walk(folder: str, found: Scan, links: list[str]) -> None:
    """Adds what lies below a folder, without what is hidden; links are put off."""
    waiting = [(folder, os.path.realpath(folder))]
    while waiting:
        folder, target = waiting.pop()
        if target in found.targets:
            continue  # a loop, or a folder given twice
        found.targets.add(target)
        folders = []
        try:
            with os.scandir(folder) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
            for entry in entries:
                target_of_entry = os.path.join(target, entry.name)
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink():
                    links.append(entry.path)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append((entry.path, target_of_entry))
                elif is_recording(entry.name):
                    _add(entry.path, target_of_entry, found)
                elif entry.is_file(follow_symlinks=False):
                    found.other_files += 1
        except FileNotFoundError:
            pass  # deleted since its parent was read
        except OSError as error:
            found.block(folder, error)
        waiting += reversed(folders)  # alphabetically


def _add(path: str, target: str, found: Scan) -> None:
    """Adds a file, which is `target` without links, unless it is there under another name."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return  # deleted since its folder was read
    except OSError as error:
        found.block(path, error)
        return
    if not stat.S_ISREG(status.st_mode):
        found.problems.append((path, "a device, pipe or socket, not a file"))
    elif target not in found.targets:
        found.targets.add(target)
        found.files[path] = file_stamp(status)


def reason_of(error: OSError) -> str:
    """What the system says, without the path."""
    return error.strerror or str(error)
