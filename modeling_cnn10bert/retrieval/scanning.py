"""Find the recordings below some folders."""

import dataclasses
import itertools
import os
import stat
from collections.abc import Iterable

from ..data.audio_io import printable
from ..errors import RetrievalError
from .records import file_stamp

# Lower-case extensions of common files that libsndfile or FFmpeg decode. Video containers are included only if they are
# also used for recordings.
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
    Result of a scan.

    Attributes:
        roots: canonical paths of the given folders and files.
        files: path of each recording -> its size in bytes and its modification time in nanoseconds since 1970.
        problems: (path, reason) of paths that cannot be read or are not files.
        blocked: paths among `problems` below which there may be recordings.
        other_files: number of files whose ending is not that of a recording.
        empty_folders: given folders without a recording -> number of other files in them.
        targets: visited files and folders, with links resolved; each is visited once.
    """

    roots: list[str]
    files: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    problems: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    blocked: list[str] = dataclasses.field(default_factory=list)
    other_files: int = 0
    empty_folders: dict[str, int] = dataclasses.field(default_factory=dict)
    targets: set[str] = dataclasses.field(default_factory=set, repr=False)

    def block(self, path: str, error: OSError) -> None:
        """List a folder or file that the system does not let us read."""
        self.problems.append((path, reason_of(error)))
        self.blocked.append(path)

    def covers(self, path: str) -> bool:
        """Tell whether a path is one of the roots or lies below one."""
        return any(is_below(path, root) for root in self.roots)

    def look_up(self, path: str) -> tuple[int, int] | None:
        """Return size and time of a file that the scan passed over, such as one that was once given by name; `None` if
        it is gone or was found under another name.

        Raises:
            OSError: it is unknown whether the file exists.
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
    Find the recordings among files and below folders.

    Links are followed. A file with several paths counts once, under a path without links if there is one, else under
    the first that is found. Files and folders whose name begins with a dot are skipped. Devices, pipes and sockets are
    never opened. A file that is given directly counts whatever its name is.

    Args:
        paths: folders and files.

    Raises:
        RetrievalError: one of them does not exist, or none are given.
    """
    found = Scan(roots=list(dict.fromkeys(canonical(path) for path in paths)))
    if not found.roots:
        raise RetrievalError("found no folder to look for recordings in, expected at least one")
    for root in found.roots:
        check_existence(root)
    links: list[str] = []
    others: dict[str, int] = {}  # in each folder
    for root in found.roots:
        if os.path.isdir(root):
            before = found.other_files
            _walk(root, found, links)
            others[root] = found.other_files - before
        else:
            _add(root, os.path.realpath(root), found)
    while links:  # links come last
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
    for root, count in others.items():
        if not any(is_below(path, root) for path in itertools.chain(found.files, found.blocked)):
            found.empty_folders[root] = count
    return found


def check_existence(root: str) -> None:
    """
    Raises:
        RetrievalError: a given folder or file does not exist.
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
    """Return the path under which a given folder or file is indexed: absolute, with links in its folders resolved.

    A file that is itself a link keeps its name, because the name may say more than that of its target.
    """
    path = os.path.abspath(os.path.expanduser(os.fsdecode(path)))
    if os.path.isdir(path):
        return os.path.realpath(path)
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def is_below(path: str, root: str) -> bool:
    """Tell by their names whether a path is `root` or lies below it."""
    return path == root or path.startswith(root if root.endswith(os.sep) else root + os.sep)


def is_recording(path: str) -> bool:
    """Tell by its ending whether a file is taken for a recording."""
    return os.path.splitext(path)[1][1:].lower() in ENDINGS


def _walk(folder: str, found: Scan, links: list[str]) -> None:
    """Add what lies below a folder, except hidden files; links are collected for later."""
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
    """Add a file unless it is there under another name; `target` is its path with links resolved."""
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
    """Return the system's message without the path."""
    return error.strerror or str(error)
