"""End in order on Ctrl-C or a signal: delete unfinished files and print one line."""

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
    """Request of a signal to end the program. It runs the same cleanup as Ctrl-C."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """
    Make SIGTERM and SIGHUP raise `Ended` in the block, once, and Ctrl-C each time. Ignored signals, such as SIGHUP
    under nohup, stay ignored.
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
        for other in before:  # a second signal must not interrupt the cleanup of the first
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
    Raise `Ended` again where it was lost: Python ignores it while it deletes an object, and some libraries replace it
    by their own error.

    Raises:
        Ended: a signal has asked the program to end.
    """
    if _asked is not None:
        raise Ended(_asked)


def command_again(option: str = "") -> str:
    """Return the running command without its secrets, with `option` added unless it is already there."""
    command = shlex.join(without_secrets(sys.orig_argv))
    if "RANK" in os.environ:  # one process of several
        command = f"accelerate launch [...] {shlex.join(without_secrets(sys.argv))}"
    return command if option in command else f"{command} {option}"


def say_interrupted(error: KeyboardInterrupt, advice: str = "continue with", option: str = "") -> int:
    """
    Print one line: what ended the program, and the command to continue.

    Args:
        error: the exception that ended it.
        advice: words before the command.
        option: option that the command needs to continue.

    Returns:
        The exit code: 128 plus the signal number.
    """
    number = getattr(error, "number", signal.SIGINT)
    what = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(f"{what}; {advice}: {command_again(option)}", file=sys.stderr, flush=True)
    return 128 + number


@contextlib.contextmanager
def orderly_exit(advice: str = "continue with", option: str = "") -> Iterator[None]:
    """Run a command that Ctrl-C, SIGTERM and SIGHUP end in order, with the line of `say_interrupted`."""
    with signals_as_interrupts():
        try:
            yield
        except KeyboardInterrupt as error:
            sys.exit(say_interrupted(error, advice, option))
        except Exception:
            if _asked is None:
                raise
            sys.exit(say_interrupted(Ended(_asked), advice, option))  # an error that the signal caused
