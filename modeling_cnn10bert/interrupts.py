"""An end from outside, by Ctrl-C or a signal, in order: unfinished files are deleted, and one line is said."""

import contextlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator

from .masking import without_secrets

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
_asked: int | None = None  # the signal by which the program was asked to end


class Ended(KeyboardInterrupt):
    """A signal asks the program to end; what a Ctrl-C tidies up is tidied up here too."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """
    Let SIGTERM and SIGHUP raise `Ended` in the block, once, and Ctrl-C each time; a signal that is ignored, as SIGHUP
    under nohup, stays so.
    """
    if threading.current_thread() is not threading.main_thread():  # where no handler can be set
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    before = {number: handler for number, handler in before.items() if handler == signal.SIG_DFL}
    ctrl_c = signal.getsignal(signal.SIGINT)

    def end(number, frame):
        global _asked
        _asked = number
        for other in before:  # a second one must not break off what the first one began
            signal.signal(other, signal.SIG_IGN)
        raise Ended(number)

    for number in before:
        signal.signal(number, end)
    if ctrl_c == signal.default_int_handler:
        signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        global _asked
        _asked = None
        for number, handler in (*before.items(), (signal.SIGINT, ctrl_c)):
            signal.signal(number, handler)


def raise_again() -> None:
    """
    Raise what a signal has raised before and somebody passed over: Python does so while it deletes an object, and some
    libraries replace it by an error of their own.

    Raises:
        Ended: a signal has asked the program to end.
    """
    if _asked is not None:
        raise Ended(_asked)


def command_again(option: str = "") -> str:
    """Give the command that runs now, without its secrets; with an option besides, unless it has it."""
    command = shlex.join(without_secrets(sys.orig_argv))
    if "RANK" in os.environ:  # one process of several
        command = f"accelerate launch [...] {shlex.join(without_secrets(sys.argv))}"
    return command if option in command else f"{command} {option}"


def say_interrupted(error: KeyboardInterrupt, advice: str = "go on with", option: str = "") -> int:
    """
    Say in one line what has ended the program, and the command to go on.

    Args:
        error: what was raised.
        advice: before the command.
        option: that the command needs to go on.

    Returns:
        The exit code: 128 and the number of the signal.
    """
    number = getattr(error, "number", signal.SIGINT)
    what = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(f"{what}; {advice}: {command_again(option)}", file=sys.stderr, flush=True)
    return 128 + number


@contextlib.contextmanager
def orderly_exit(advice: str = "go on with", option: str = "") -> Iterator[None]:
    """Run a command: Ctrl-C, SIGTERM and SIGHUP end it in order, as `say_interrupted` has it."""
    with signals_as_interrupts():
        try:
            yield
        except KeyboardInterrupt as error:
            sys.exit(say_interrupted(error, advice, option))
        except Exception:
            if _asked is None:
                raise
            sys.exit(say_interrupted(Ended(_asked), advice, option))  # an error that came of it
