"""A signal ends a command as Ctrl-C does: in order, with one line and the code that shells give it."""

import shlex
import signal
import sys

import pytest

from modeling_cnn10bert.interrupts import orderly_exit


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGTERM, 143, "ended by SIGTERM; continue with: "),
        (signal.SIGHUP, 129, "ended by SIGHUP; continue with: "),
        (signal.SIGINT, 130, "interrupted; continue with: "),
    ],
)
def test_a_signal_ends_a_command_in_order(number, code, line, monkeypatch, capsys):
    monkeypatch.setattr(sys, "orig_argv", ["python", "scripts/prepare_folder.py", "out of it", "in"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tidied = []
    with pytest.raises(SystemExit) as end, orderly_exit():
        try:
            signal.raise_signal(number)
        finally:
            tidied.append(True)
    assert end.value.code == code and tidied
    assert capsys.readouterr().err == f"{line}{shlex.join(sys.orig_argv)}\n"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_second_signal_does_not_break_off_what_the_first_one_tidies_up():
    tidied = []
    with pytest.raises(SystemExit) as end, orderly_exit():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGHUP)
            tidied.append(True)
    assert end.value.code == 143 and tidied


def test_a_hangup_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with orderly_exit():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_line_shows_no_token(monkeypatch, capsys):
    monkeypatch.setattr(sys, "orig_argv", ["python", "train_retrieval.py", "--hub_token", "hush"])
    with pytest.raises(SystemExit), orderly_exit():
        signal.raise_signal(signal.SIGTERM)
    assert "hush" not in capsys.readouterr().err
