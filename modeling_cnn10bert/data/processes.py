"""Work that is dealt out to processes, which end with the one that started them, however that ends."""

import concurrent.futures
import concurrent.futures.process
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import DataError

WATCH_SECONDS = 0.1
_work: Callable[[int], Any] | None = None  # of a worker


def in_processes(function: Callable[[int], Any], count: int, num_proc: int) -> Iterator[tuple[int, Any]]:
    """
    Call a function with each number below `count`, in forked processes where there is more than one.

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
    context = multiprocessing.get_context("fork")  # another start imports the whole package in every process
    is_over = context.RawValue("b", 0)
    with concurrent.futures.ProcessPoolExecutor(
        min(num_proc, count), context, initializer=_begin, initargs=(function, os.getpid(), is_over)
    ) as pool:
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
            is_over.value = 1  # none has to end what it is at
            pool.shutdown(cancel_futures=True)
            raise


def _begin(function: Callable[[int], Any], parent: int, is_over) -> None:
    """Prepare a worker: signals are its parent's to answer, with whom it ends."""
    global _work
    _work = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches all processes of a terminal
    for name in ("SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(parent, is_over), daemon=True).start()


def _end_with(parent: int, is_over) -> None:
    while os.getppid() == parent and not is_over.value:
        time.sleep(WATCH_SECONDS)
    os._exit(1)


def _call(number: int) -> Any:
    return _work(number)
