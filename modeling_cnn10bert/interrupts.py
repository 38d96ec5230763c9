"""An end from outside, by Ctrl-C or a signal, in order: unfinished files are deleted, and one line is said."""

import contextlib
import shlex
import signal
import sys
import threading
from collections.abc import Iterator

from .masking import without_secrets

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Ended(KeyboardInterrupt):
    """A signal asks the program to end; what a Ctrl-C tidies up is tidied up here too."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise `Ended` in the block, once; a SIGHUP that is ignored, as under nohup, stays so."""
    if threading.current_thread() is not threading.main_thread():  # where no handler can be set
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    before = {number: handler for number, handler in before.items() if handler == signal.SIG_DFL}

    def end(number, frame):
        for other in before:  # a second one must not break off what the first one began
            signal.signal(other, signal.SIG_IGN)
        raise Ended(number)

    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say_interrupted(error: KeyboardInterrupt, advice: str = "go on with") -> int:
    """
    Say in one line what has ended the program, and the command to go on.

    Args:
        error: what was raised.
        advice: before the command.

    Returns:
        The exit code: 128 and the number of the signal.
    """
    number = getattr(error, "number", signal.SIGINT)
    what = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(f"{what}; {advice}: {shlex.join(without_secrets(sys.orig_argv))}", file=sys.stderr, flush=True)
    return 128 + number


@contextlib.contextmanager
def orderly_exit(advice: str = "go on with") -> Iterator[None]:
    """Run a command: Ctrl-C, SIGTERM and SIGHUP end it in order, as `say_interrupted` has it."""
    with signals_as_interrupts():
        try:
            yield
        except KeyboardInterrupt as error:
            sys.exit(say_interrupted(error, advice))
