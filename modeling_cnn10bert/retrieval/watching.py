"""Watch folders for changes of their recordings."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from ..data.audio_io import printable
from ..errors import RetrievalError
from ..interrupts import Ended
from .records import file_stamp
from .scanning import canonical, check_existence, is_below, is_recording

SETTLE_SECONDS = 2.0  # without a change, after which a file counts as complete
STEP_SECONDS = 0.5  # between two polls
PATIENCE = 10  # times `settle` that complete files wait for those being written


def watch_folders(
    paths: Iterable[str | os.PathLike],
    on_change: Callable[[frozenset[str]], object],
    *,
    settle: float = SETTLE_SECONDS,
    step: float = STEP_SECONDS,
    ignored: Iterable[str | os.PathLike] = (),
    stop: threading.Event | None = None,
) -> None:
    """
    Call `on_change` now, and whenever recordings were added, changed, moved or deleted, until Ctrl-C.

    Changes while `on_change` runs lead to another call, so that `index_folders` misses nothing.

    Args:
        paths: folders and files.
        on_change: gets the paths that are still being written, for `unfinished` of `index_folders`; it is called
            again when they are complete.
        settle: seconds without a change after which a file counts as complete.
        step: seconds between two polls.
        ignored: folders whose changes do not count, such as that of the index.
        stop: ends the watching when it is set.

    Raises:
        RetrievalError: a path does not exist, or the system cannot watch so many folders.
    """
    roots = [canonical(path) for path in paths]
    for root in roots:
        check_existence(root)  # the watcher would wait forever
    skipped = [canonical(path) for path in ignored]
    changes = _Changes(settle)
    called = False
    try:
        for seen in _looks(roots, step, stop or threading.Event()):
            changes.add(path for path in seen if _counts(path, roots, skipped))
            if not called or changes.are_due():
                called = True
                on_change(changes.take())
    except Ended:  # by a signal other than Ctrl-C
        raise
    except KeyboardInterrupt:
        return


class _Changes:
    """Changes that were not reported yet; `settle` in seconds."""

    def __init__(self, settle: float):
        self.settle = settle
        self.since = 0.0  # when the first of them was seen
        self.seen: dict[str, tuple[float, tuple[int, int] | None]] = {}  # path -> time of the change, its state then

    def add(self, paths: Iterable[str]) -> None:
        """Add changes seen now; also check the waiting files, because not every system reports each write."""
        now = time.monotonic()
        if not self.seen:
            self.since = now
        paths = set(paths)
        for path in paths | self.seen.keys():
            status = None
            with contextlib.suppress(OSError):
                status = file_stamp(os.stat(path))
            if path in paths or self.seen[path][1] != status:
                self.seen[path] = now, status

    def are_due(self) -> bool:
        """Tell whether something is complete and need not wait for the rest."""
        growing = self._growing()
        waited_enough = time.monotonic() - self.since >= PATIENCE * self.settle
        return len(growing) < len(self.seen) and (not growing or waited_enough)

    def take(self) -> frozenset[str]:
        """Forget the complete files and return the others."""
        growing = self._growing()
        self.seen = {path: self.seen[path] for path in growing}
        self.since = time.monotonic()
        return growing

    def _growing(self) -> frozenset[str]:
        now = time.monotonic()
        return frozenset(path for path, (changed, _) in self.seen.items() if now - changed < self.settle)


def _looks(roots: list[str], step: float, stop: threading.Event) -> Iterator[set[str]]:
    """Yield every `step` seconds the paths that changed since the last time."""
    import watchfiles  # only watching needs it
    from watchfiles._rust_notify import WatchfilesRustInternalError

    milliseconds = max(1, round(1000 * step))
    while not stop.is_set():
        looks = watchfiles.watch(
            *roots,
            watch_filter=None,
            debounce=milliseconds,
            step=min(50, milliseconds),
            rust_timeout=milliseconds,
            yield_on_timeout=True,
            stop_event=stop,
            ignore_permission_denied=True,
        )
        try:
            for seen in looks:
                paths = {path for _, path in seen}
                yield paths
                if any(path in paths and not os.path.isdir(path) for path in roots):
                    break  # a given file may have been replaced, and the watcher still watches the old one
        except WatchfilesRustInternalError:
            yield set(roots)  # an unknown name that is not UTF-8, so check everything
        except (OSError, UnicodeError) as error:
            raise RetrievalError(
                f"{', '.join(printable(root) for root in roots)}: cannot be watched ({error}); check that it exists; "
                "where the limit of watched files is reached, raise fs.inotify.max_user_watches or set "
                "WATCHFILES_FORCE_POLLING=1"
            ) from error


def _counts(path: str, roots: list[str], skipped: list[str]) -> bool:
    """Tell whether a change of this path can change what is to be indexed."""
    if path in roots:
        return True
    if any(is_below(path, folder) for folder in skipped):
        return False
    root = max((root for root in roots if is_below(path, root)), key=len, default="")
    if any(part.startswith(".") for part in path[len(root) :].split(os.sep)):
        return False
    # A path that is gone may have been a folder.
    return is_recording(path) or os.path.isdir(path) or not os.path.lexists(path)
