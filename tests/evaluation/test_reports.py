"""Results are summed up by arithmetic that fits on a napkin."""

import math

import pytest

from modeling_cnn10bert.evaluation.reports import (
    best_position,
    in_percent,
    markdown_table,
    mean_and_deviation,
    read_json,
)
from modeling_cnn10bert.files import write_text


def test_the_deviation_is_that_of_a_sample():
    # 1, 2, 6: the mean is 3, the squares of the deviations are 4, 1 and 9, and 14 / 2 = 7.
    assert mean_and_deviation([1, 2, 6]) == pytest.approx((3, math.sqrt(7)))
    mean, deviation = mean_and_deviation([0.5])
    assert mean == 0.5 and math.isnan(deviation)


@pytest.mark.parametrize(
    ("values", "text"),
    [([0.241, 0.243, 0.242], "24.20 ± 0.10"), ([0.2427], "24.27"), ([], "–"), ([1, 1], "100.00 ± 0.00")],
)
def test_shares_are_printed_as_the_paper_does(values, text):
    assert in_percent(values) == text


def test_a_table_is_aligned_also_as_plain_text():
    assert markdown_table(["", "R@1"], [["baseline", "6.63"], ["+ more", "13.18 ± 0.10"]]) == (
        "|          |          R@1 |\n"
        "| -------- | -----------: |\n"
        "| baseline |         6.63 |\n"
        "| + more   | 13.18 ± 0.10 |\n"
    )


def test_a_text_that_cannot_be_written_leaves_the_old_one(tmp_path):
    write_text(tmp_path / "new" / "table.md", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "new" / "table.md", "\ud800")
    assert [(path.name, path.read_text()) for path in (tmp_path / "new").iterdir()] == [("table.md", "old")]


def test_a_file_of_a_run_that_is_not_whole_is_passed_over_and_named(tmp_path, caplog):
    (tmp_path / "whole.json").write_text('{"train_loss": 0.5}')
    assert read_json(tmp_path / "whole.json") == {"train_loss": 0.5}
    assert read_json(tmp_path / "none.json") is None and not caplog.records
    for torn in ('{"train_lo', "", "[]"):
        (tmp_path / "torn.json").write_text(torn)
        caplog.clear()
        assert read_json(tmp_path / "torn.json") is None
        assert f"{tmp_path / 'torn.json'} is incomplete" in caplog.text


def test_of_values_that_are_equal_but_for_rounding_the_first_is_the_best():
    assert best_position([0.1, 0.0483333333333333, 0.1 + 1e-16, 0.09]) == 0
    assert best_position([0.0483333333333333, 0.04833333333333344]) == 0
    assert best_position([0.5, 0.5 + 6e-10, 0.5 + 1.2e-9]) == 2  # small steps add up
    assert best_position([3.0, 2.0, 2.0 - 1e-12, 2.5], greater_is_better=False) == 1
    nan = float("nan")
    assert best_position([nan, 0.1, nan, 0.2]) == 3
    assert best_position([nan]) is None and best_position([]) is None
