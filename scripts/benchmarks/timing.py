"""Rounds in turns: what is compared is run A B, B A, A B ..., so that other work on the machine meets both alike."""

import multiprocessing
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import torch

Round = Callable[[], dict[str, float]]  # runs once; returns its figures, such as `seconds`


class Contender:
    """
    One of those that are compared, in a process of its own: what it sets, or keeps in memory, is not the others'.

    Args:
        build: called with `arguments`; returns what runs a round.
        threads: of PyTorch in that process.
        apart: `False` runs it in this process, as tests do.
    """

    def __init__(self, build: Callable[..., Round], *arguments, threads: int, apart: bool = True):
        self._process = None
        if not apart:
            torch.set_num_threads(threads)
            self._run = build(*arguments)
            return
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, build, arguments, threads))
        self._process.start()
        self._receive()  # built: the next is not built beside it

    def round(self) -> dict[str, float]:
        """Runs once.

        Raises:
            RuntimeError: with the traceback of the process.
        """
        if self._process is None:
            return self._run()
        self._pipe.send("round")
        return self._receive()

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()  # it waits for the next round, and has nothing to tidy up
            self._process.join()

    def _receive(self) -> Any:
        try:
            answer, fault = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"a contender ended by itself, exit status {self._process.exitcode}") from None
        if fault:
            raise RuntimeError(fault)
        return answer


def _serve(pipe, build: Callable[..., Round], arguments: tuple, threads: int) -> None:
    torch.set_num_threads(threads)
    try:
        run = build(*arguments)
        pipe.send((None, None))
        while pipe.recv():
            pipe.send((run(), None))
    except EOFError:
        pass
    except Exception:
        pipe.send((None, traceback.format_exc()))


def in_turns(contenders: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int = 1) -> dict[str, list[Any]]:
    """What each contender returned in each round; those of the warm-up are left out."""
    results: dict[str, list[Any]] = {name: [] for name in contenders}
    for number in range(warm_up + rounds):
        names = list(contenders) if number % 2 == 0 else list(contenders)[::-1]
        for name in names:
            result = contenders[name]()
            if number >= warm_up:
                results[name].append(result)
    return results


def compete(contenders: Mapping[str, Contender], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Name -> figure -> its values, one a round; the processes are ended."""
    try:
        results = in_turns({name: contender.round for name, contender in contenders.items()}, rounds)
    finally:
        for contender in contenders.values():
            contender.close()
    return {name: {key: [one[key] for one in found] for key in found[0]} for name, found in results.items()}


def timed(function: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> Callable[[], float]:
    """A function that calls `function` and returns how many seconds it took."""

    def call() -> float:
        started = clock()
        function()
        return clock() - started

    return call
