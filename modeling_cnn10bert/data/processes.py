"""Work in several processes, which end with their parent, however it ends."""

import concurrent.futures
import concurrent.futures.process
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import DataError

_work: Callable[[int], Any] = int  # of a worker, which `_begin` sets


def in_processes(function: Callable[[int], Any], count: int, num_proc: int) -> Iterator[tuple[int, Any]]:
    """
    Call a function with each number below `count`, in forked processes if `num_proc` is above 1.

    Each process has one copy of the function, which need not be picklable; its results must be.

    Yields:
        (number, result), as they are ready.

    Raises:
        DataError: a process died.
    """
    if num_proc <= 1 or count < 2:
        for number in range(count):
            yield number, function(number)
        return
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("fork")  # other start methods import the whole package in every process
    # `multiprocessing.Pool` would wait forever for the result of a worker that died.
    with concurrent.futures.ProcessPoolExecutor(min(num_proc, count), context, _begin, (function,)) as pool:
        try:
            numbers = {pool.submit(_call, number): number for number in range(count)}
            for done in concurrent.futures.as_completed(numbers):
                yield numbers[done], done.result()
        except concurrent.futures.process.BrokenProcessPool as error:
            raise DataError(
                "a process that decodes recordings ended abruptly, often for lack of memory; run the command again, "
                "with fewer processes (num_proc; of a training, preprocessing_num_workers)"
            ) from error
        except BaseException:
            for worker in set(multiprocessing.active_children()) - others:  # none needs to finish its work
                worker.kill()
            raise


def _begin(function: Callable[[int], Any]) -> None:
    """Prepare a worker: its parent handles signals, and the worker ends with its parent."""
    global _work
    _work = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches all processes of a terminal
    for name in ("SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(number: int) -> Any:
    return _work(number)
