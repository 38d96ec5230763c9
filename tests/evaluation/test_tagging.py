"""Scores of a tagger by class."""

import numpy as np
import pytest

from modeling_cnn10bert.evaluation.tagging import score_classes, tagging_metrics, write_class_scores


def test_average_precision_and_auc_of_a_class_are_those_by_hand():
    # ranked: right, wrong, right, wrong: precisions 1/1 and 2/3; of the 4 pairs of a right and a wrong one, 3 in order
    scores, targets = np.array([[4.0], [3.0], [2.0], [1.0]]), np.array([[1], [0], [1], [0]])
    (score,) = score_classes(scores, targets, ["dog"])
    assert (score.name, score.clips) == ("dog", 2)
    assert score.average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert score.auc == pytest.approx(3 / 4)


def test_classes_without_clips_do_not_count():
    scores = np.array([[4.0, 1.0, 1.0], [3.0, 2.0, 2.0]])
    targets = np.array([[1, 0, 1], [0, 0, 1]])
    classes = score_classes(scores, targets, ["dog", "no clip", "every clip"])
    assert np.isnan(classes[1].average_precision) and np.isnan(classes[1].auc) and np.isnan(classes[2].auc)
    assert tagging_metrics(classes) == {"mAP": pytest.approx(1.0), "mAUC": pytest.approx(1.0)}


def test_the_table_of_classes_begins_with_the_best(tmp_path):
    scores = np.array([[4.0, 1.0], [3.0, 2.0], [2.0, 0.0]])
    classes = score_classes(scores, np.array([[0, 0], [1, 1], [0, 0]]), ["rain, heavy", "dog"])
    write_class_scores(classes, tmp_path / "classes.csv")
    assert (tmp_path / "classes.csv").read_text().splitlines() == [
        "class,clips,average_precision,auc",
        "dog,1,1.0000,1.0000",
        '"rain, heavy",1,0.5000,0.5000',
    ]


@pytest.mark.parametrize(
    ("scores", "message"), [(np.zeros((2, 3)), "2 classes"), (np.array([[0.0, np.nan]] * 2), "not finite")]
)
def test_scores_that_do_not_fit_are_an_error(scores, message):
    with pytest.raises(ValueError, match=message):
        score_classes(scores, np.zeros((2, 2)), ["a", "b"])
