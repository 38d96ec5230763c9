"""Progress bars in a log, which is what standard error is in these tests."""

import re

from modeling_cnn10bert import bars


def test_a_log_gets_the_first_and_the_last_state_and_little_between(capsys):
    for _ in bars.progress_bar(range(1000), desc="Embedding", unit=" rows"):
        pass
    states = capsys.readouterr().err.strip().split("\r")
    assert len(states) == 2 and "0/1000" in states[0] and "1000/1000" in states[1]


def test_a_log_gets_the_state_every_now_and_then_with_the_time_left(capsys, monkeypatch):
    monkeypatch.setattr(bars, "LOG_SECONDS", 0.0)
    bar = bars.progress_bar(total=4, desc="Embedding", unit=" rows")
    bar.update(2)
    assert re.search(r"50%.* 2/4 \[\d+:\d+<\d+:\d+", capsys.readouterr().err)  # time taken < time left
    bar.close()
