"""A published ranked output is scored only against its own ground truth."""

import csv

import pytest

from modeling_cnn10bert.errors import DataError
from modeling_cnn10bert.evaluation.submissions import score_ranked_output

NAMES = [f"{letter}.wav" for letter in "abcdefghijkl"]


@pytest.fixture
def files(tmp_path):
    """Two recordings of five captions each; the first is at rank 2 for each of its captions, the second nowhere."""
    with (tmp_path / "captions.csv").open("w", newline="") as file:
        rows = [["file_name", *(f"caption_{i}" for i in range(1, 6))]]
        rows += [[name, *(f"{name} caption {i}" for i in range(5))] for name in ("b.wav", "k.wav")]
        csv.writer(file).writerows(rows)
    with (tmp_path / "output.csv").open("w", newline="") as file:
        rows = [["caption", *(f"file_name_{i}" for i in range(1, 11))]]
        rows += [[f"{name} caption {i}", *NAMES[:10]] for name in ("b.wav", "k.wav") for i in range(5)]
        csv.writer(file).writerows(rows)
    return tmp_path / "output.csv", tmp_path / "captions.csv"


def test_five_queries_at_rank_two_and_five_nowhere_are_a_quarter(files):
    assert score_ranked_output(*files) == {"R@1": 0, "R@5": 0.5, "R@10": 0.5, "mAP@10": 0.25}


def test_files_that_do_not_belong_together_are_an_error_that_says_where(files):
    output, captions = files
    lines = output.read_text().splitlines(keepends=True)
    output.write_text("".join([*lines[:3], lines[4], lines[3], *lines[5:]]))
    with pytest.raises(DataError, match="output.csv:4: found the caption 'b.wav caption 3', expected 'b.wav cap.* 2'"):
        score_ranked_output(output, captions)
    output.write_text("".join(lines[:-1]))
    with pytest.raises(DataError, match="found 9 queries, expected the 10 captions"):
        score_ranked_output(output, captions)
    with pytest.raises(DataError, match="nowhere.csv: found .*No such file"):
        score_ranked_output(output.with_name("nowhere.csv"), captions)
