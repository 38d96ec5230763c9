"""Progress is shown in seconds of audio: as a bar on a terminal, as lines in a log."""

import io
import re
import sys

import pytest

from modeling_cnn10bert.retrieval import progress
from modeling_cnn10bert.retrieval.indexing import index_folders
from modeling_cnn10bert.retrieval.progress import estimate_lengths


@pytest.fixture
def all_lines(monkeypatch):
    """Writes a line to a log whenever something is done, and not only every 30 s."""
    monkeypatch.setattr(progress, "FIRST_LINE_SECONDS", 0.0)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)


def test_a_long_recording_advances_before_its_end(all_lines, store, embedder, sounds, record, capsys):
    record(sounds / "long.wav", seconds=8)  # five windows of 2 s
    index_folders(store, embedder, [sounds], batch_seconds=2)
    lines = capsys.readouterr().err.splitlines()
    counts = [
        re.fullmatch(r"Indexing: (\d+)%, (.*) of 00:08 of audio, (\d) of 1 files, about .* left", line)
        for line in lines
    ]
    assert [match.groups() for match in counts] == [
        ("25", "00:02", "0"),
        ("44", "00:03", "0"),
        ("62", "00:05", "0"),
        ("81", "00:06", "0"),
        ("100", "00:08", "0"),
        ("100", "00:08", "1"),
    ]


def test_a_log_gets_no_line_of_a_short_run_and_no_bar(store, embedder, sounds, record, capsys):
    record(sounds / "a.wav")
    index_folders(store, embedder, [sounds])
    assert capsys.readouterr().err == ""


def test_files_that_are_not_embedded_count_as_done(all_lines, store, embedder, sounds, record, capsys):
    record(sounds / "a.wav", seconds=3, seed=1)
    record(sounds / "same.wav", seconds=3, seed=1)
    (sounds / "broken.wav").write_bytes(b"no sound")
    index_folders(store, embedder, [sounds])
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("Indexing: 100%") and "3 of 3 files, about 00:00 left" in last


def test_a_terminal_shows_a_bar_with_the_time_left(store, embedder, sounds, record, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    record(sounds / "a.wav", seconds=3)
    index_folders(store, embedder, [sounds])
    assert re.search(r"100%\|.*\| \[\d\d:\d\d<00:00, 00:03 of 00:03 of audio, 1 of 1 files\]", sys.stderr.getvalue())


def test_nothing_is_shown_on_demand(all_lines, store, embedder, sounds, record, capsys):
    record(sounds / "a.wav")
    index_folders(store, embedder, [sounds], progress=False)
    assert capsys.readouterr().err == ""


def test_lengths_are_read_from_headers_and_else_estimated_from_sizes(sounds, record):
    path = record(sounds / "a.wav", seconds=2)
    size = path.stat().st_size
    (sounds / "other.wav").write_bytes(b"no header")
    sizes = {str(path): size, str(sounds / "other.wav"): 3 * size, str(sounds / "other.m4a"): 32_000}
    found = estimate_lengths(sizes)
    assert found == pytest.approx({str(path): 2.0, str(sounds / "other.wav"): 6.0, str(sounds / "other.m4a"): 2.0})
    assert estimate_lengths(sizes, seconds=0)[str(path)] == pytest.approx(size / 16_000)
