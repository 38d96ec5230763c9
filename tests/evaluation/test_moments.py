"""The metrics of DCASE 2026 task 6, with values worked out by hand."""

import pytest

from modeling_cnn10bert.evaluation.moments import moment_metrics


def test_one_right_passage_scores_by_its_overlap():
    # 6 of 10 s are shared: right up to a threshold of 0.6, which is three of the ten.
    metrics = moment_metrics([[(0, 6)]], [[(0, 10)]])
    assert metrics == pytest.approx({"R1@0.5": 1, "R1@0.7": 0, "mAP": 0.3, "mAP@0.5": 1, "mAP@0.75": 0})


def test_a_passage_of_the_truth_is_found_once():
    metrics = moment_metrics([[(0, 10), (0, 10), (20, 30)]], [[(0, 10), (20, 30)]])
    assert metrics["mAP"] == pytest.approx((1 + 2 / 3) / 2)


def test_the_first_passage_alone_counts_for_recall():
    assert moment_metrics([[(50, 60), (0, 10)]], [[(0, 10)]])["R1@0.5"] == 0
    assert moment_metrics([[], [(0, 10)]], [[(0, 10)], [(0, 10)]])["R1@0.7"] == 0.5


def test_passages_after_the_tenth_do_not_count():
    wrong = [(100 + number, 100.5 + number) for number in range(10)]
    assert moment_metrics([[*wrong, (0, 10)]], [[(0, 10)]])["mAP"] == 0
    assert moment_metrics([[*wrong[1:], (0, 10)]], [[(0, 10)]])["mAP"] == pytest.approx(0.1)
