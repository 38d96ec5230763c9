"""The retrieval metric against published scores, scikit-learn and arithmetic by hand."""

import csv
import pathlib
from itertools import permutations

import evaluate
import numpy as np
import pytest

from modeling_cnn10bert.evaluation.audio_text_retrieval import audio_text_retrieval as module
from modeling_cnn10bert.evaluation.audio_text_retrieval.audio_text_retrieval import (
    average_precisions,
    chance_metrics,
    metrics_of_ranks,
    ranking_metrics,
    ranks_in_lists,
    ranks_of_relevant,
    retrieval_metrics,
)

SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"
FOLDER = pathlib.Path(module.__file__).parent


@pytest.fixture(scope="module")
def metric(tmp_path_factory):
    return evaluate.load(str(FOLDER), cache_dir=str(tmp_path_factory.mktemp("evaluate")))


def as_lists(ranks):
    return [list(row) for row in ranks]


def read_golden():
    """(rankings, relevant names) of the 2022 challenge baseline, aligned by row: captions are no keys."""
    output = SHARED / "golden_metrics" / "dcase2022_baseline_output.csv"
    truth = SHARED / "clotho" / "clotho_captions_evaluation.csv"
    for path in (output, truth):
        if not path.exists():
            pytest.skip(f"needs {path}")
    with output.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with truth.open(encoding="utf-8", newline="") as file:
        pairs = [(r[f"caption_{i}"], r["file_name"]) for r in csv.DictReader(file) for i in range(1, 6)]
    assert [row["caption"] for row in rows] == [caption for caption, _ in pairs]
    return [[row[f"file_name_{i}"] for i in range(1, 11)] for row in rows], [name for _, name in pairs]


def test_the_challenge_baseline_gets_its_published_scores(metric):
    rankings, relevant = read_golden()
    scores = metric.compute(rankings=rankings, references=relevant)
    assert {name: round(value, 6) for name, value in scores.items()} == {
        "R@1": 0.031579,
        "R@5": 0.109474,
        "R@10": 0.188325,
        "mAP@10": 0.067934,
    }  # no MedR: the median query's recording is not among the ten names published


def test_the_challenge_baseline_gets_the_same_scores_as_a_matrix():
    rankings, relevant = read_golden()
    items = sorted({*relevant, *(name for names in rankings for name in names)})
    column = {name: i for i, name in enumerate(items)}
    similarity = np.zeros((len(rankings), len(items)), dtype=np.float32)
    for row, names in enumerate(rankings):
        similarity[row, [column[name] for name in names]] = np.arange(10, 0, -1)
    scores = retrieval_metrics(similarity, [column[name] for name in relevant])
    expected = ranking_metrics(rankings, relevant)
    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_one_relevant_item_scores_one_over_its_rank_up_to_ten():
    similarity = np.tile(-np.arange(12.0), (4, 1))  # item i has rank i + 1
    ranks = ranks_of_relevant(similarity, [0, 3, 9, 10])
    assert as_lists(ranks) == [[1], [4], [10], [11]]
    assert average_precisions(ranks, 10).tolist() == [1, 1 / 4, 1 / 10, 0]
    assert metrics_of_ranks(ranks) == {"R@1": 0.25, "R@5": 0.5, "R@10": 0.75, "mAP@10": 1.35 / 4, "MedR": 7.0}


def test_a_tie_puts_irrelevant_items_first():
    similarity = np.array([[0.5, 0.5, 0.5, 0.1], [0.9, 0.5, 0.5, 0.5]])
    assert as_lists(ranks_of_relevant(similarity, [1, 2])) == [[3], [4]]


def test_a_model_that_scores_everything_alike_is_last():
    scores = retrieval_metrics(np.zeros((20, 20)), np.arange(20))
    assert scores == {"R@1": 0, "R@5": 0, "R@10": 0, "mAP@10": 0, "MedR": 20}


def test_tied_relevant_items_stand_behind_the_irrelevant_of_the_same_score():
    similarity = np.array([[0.7, 0.7, 0.7, 0.7, 0.9, 0.1]])
    # 4 (irrelevant), then 1 and 3 (irrelevant, tied), then 0 and 2 (relevant, tied), then 5 (relevant)
    assert as_lists(ranks_of_relevant(similarity, [[0, 2, 5]])) == [[4, 5, 6]]


def test_several_relevant_items_by_hand():
    similarity = np.tile(-np.arange(12.0), (2, 1))
    ranks = ranks_of_relevant(similarity, [[0, 2, 5], [11, 1]])
    assert as_lists(ranks) == [[1, 3, 6], [2, 12]]
    # first: (1/1 + 2/3 + 3/6) / 3; second: (1/2) / 2, as rank 12 is beyond the cut
    assert average_precisions(ranks, 10) == pytest.approx([13 / 18, 1 / 4])
    # cut at 2: only rank 1 counts for the first, divided by min(3, 2)
    assert average_precisions(ranks, 2) == pytest.approx([1 / 2, 1 / 4])
    assert metrics_of_ranks(ranks, recall_at=(1, 2), map_at=(16,)) == pytest.approx(
        {"R@1": 0.5, "R@2": 1, "mAP@16": (13 / 18 + (1 / 2 + 2 / 12) / 2) / 2, "MedR": 1.5}
    )


def test_a_perfect_ranking_of_more_relevant_items_than_the_cut_scores_one():
    assert average_precisions([np.arange(1.0, 21.0)], 10).tolist() == [1]


def test_an_item_named_twice_as_relevant_counts_once():
    assert as_lists(ranks_of_relevant(np.array([[3.0, 2.0, 1.0]]), [[1, 1, 2]])) == [[2, 3]]


def test_average_precision_agrees_with_scikit_learn():
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    similarity = rng.standard_normal((50, 40))
    truth = rng.random((50, 40)) < 0.1
    truth[np.arange(50), rng.integers(40, size=50)] = True
    ranks = ranks_of_relevant(similarity, [np.flatnonzero(row) for row in truth])
    ours = average_precisions(ranks, 40)
    theirs = [sklearn_metrics.average_precision_score(t, s) for t, s in zip(truth, similarity, strict=True)]
    assert ours == pytest.approx(theirs)


def test_recall_agrees_with_scikit_learn():
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    similarity, relevant = rng.standard_normal((200, 30)), rng.integers(30, size=200)
    scores = retrieval_metrics(similarity, relevant, recall_at=(1, 5, 10))
    for k in (1, 5, 10):
        expected = sklearn_metrics.top_k_accuracy_score(relevant, similarity, k=k, labels=np.arange(30))
        assert scores[f"R@{k}"] == pytest.approx(expected)


def test_ranks_agree_with_a_sort_on_data_full_of_ties():
    rng = np.random.default_rng(2)
    similarity = rng.integers(0, 4, size=(60, 25)).astype(np.float32)
    truth = rng.random((60, 25)) < 0.2
    truth[:, 0] = True
    ranks = ranks_of_relevant(similarity, [np.flatnonzero(row) for row in truth])
    for scores, wanted, found in zip(similarity, truth, ranks, strict=True):
        order = sorted(range(25), key=lambda i: (-scores[i], wanted[i]))  # irrelevant first among equals
        assert list(found) == [rank for rank, item in enumerate(order, start=1) if wanted[item]]


def test_infinite_scores_are_ranked():
    assert as_lists(ranks_of_relevant(np.array([[np.inf, 0.0, -np.inf]]), [[0, 2]])) == [[1, 3]]


def test_ranked_lists_may_lack_the_relevant_name():
    ranks = ranks_in_lists([["a", "b"], ["b", "c"], ["c", "a"]], ["b", "a", ["a", "c"]])
    assert as_lists(ranks) == [[2], [np.inf], [1, 2]]


@pytest.mark.parametrize(
    ("similarity", "relevant", "message"),
    [
        ([[0.1, 0.2], [0.3, float("nan")]], [0, 0], "NaN for query 1 and item 1"),
        ([[0.1, 0.2], [0.3, 0.4]], [0, []], "query 1 has no relevant item"),
        ([[0.1, 0.2], [0.3, 0.4]], [0, 2], "query 1 names relevant item 2, but items are 0 to 1"),
        ([[0.1, 0.2], [0.3, 0.4]], [-1, 0], "query 0 names relevant item -1"),
        ([[0.1, 0.2], [0.3, 0.4]], [0, 0.5], "items of query 1 must be indices"),
        ([[0.1, 0.2], [0.3, 0.4]], [0], r"2 rows \(queries\), but relevant items came for 1"),
        ([0.1, 0.2], [0, 0], r"shape \(2,\)"),
        (np.zeros((0, 3)), [], "non-empty"),
        ([["a", "b"]], [0], "real numbers"),
    ],
)
def test_a_wrong_similarity_matrix_is_an_error_that_says_where(similarity, relevant, message):
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(similarity, relevant)


@pytest.mark.parametrize(
    ("rankings", "relevant", "options", "message"),
    [
        ([["a", "b"], ["a", "a"]], ["a", "b"], {}, "ranking of query 1 holds an item twice"),
        ([["a", "b"], ["a", "b"]], ["a", []], {}, "query 1 has no relevant item"),
        ([["a", "b"]], ["a", "b"], {}, "got 1 rankings for 2 queries"),
        ([["b", "c"]], ["a"], {}, "ranking of query 0 ends after 2 items"),
        ([list("abcdefghij")], ["z"], {"map_at": (16,)}, "ends after 10 items"),
        ([["a"]], ["a"], {"recall_at": (0,)}, "whole number from 1; got 0"),
    ],
)
def test_a_wrong_ranked_list_is_an_error_that_says_where(rankings, relevant, options, message):
    with pytest.raises(ValueError, match=message):
        ranking_metrics(rankings, relevant, **options)


def test_a_short_list_with_every_relevant_name_can_be_scored():
    assert ranking_metrics([["b", "a"]], ["a"])["mAP@10"] == 0.5


def test_evaluate_loads_the_folder_offline_and_scores_a_matrix(metric, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the metric went to the network"))
    loaded = evaluate.load(str(FOLDER))
    assert loaded.name == "audio_text_retrieval"
    scores = loaded.compute(predictions=[[0.9, 0.1], [0.8, 0.2]], references=[0, 1])
    assert scores == {"R@1": 0.5, "R@5": 1.0, "R@10": 1.0, "mAP@10": 0.75, "MedR": 1.5}


def test_the_loaded_metric_takes_torch_tensors_and_other_cutoffs(metric):
    torch = pytest.importorskip("torch")
    scores = metric.compute(predictions=torch.eye(20), references=torch.arange(20), recall_at=(3,), map_at=(10, 16))
    assert scores == {"R@3": 1, "mAP@10": 1, "mAP@16": 1, "MedR": 1}


def test_batches_collected_by_the_loaded_metric_score_as_the_whole(metric):
    rng = np.random.default_rng(4)
    similarity = rng.standard_normal((12, 15)).astype(np.float32)
    relevant = [sorted(rng.choice(15, size=1 + row % 3, replace=False).tolist()) for row in range(12)]
    whole = metric.compute(predictions=similarity, references=relevant)
    for start in (0, 5):
        metric.add_batch(predictions=similarity[start : start + 5], references=relevant[start : start + 5])
    assert metric.compute(predictions=similarity[10:], references=relevant[10:]) == whole
    metric.add(prediction=similarity[0], reference=3)
    assert metric.compute()["MedR"] == 1 + (similarity[0] > similarity[0, 3]).sum()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "nothing to score"),
        ({"predictions": [[1.0]]}, "references are missing"),
        ({"rankings": [["a"]]}, "references are missing"),
        ({"predictions": [[1.0]], "rankings": [["a"]], "references": [0]}, "not both"),
    ],
)
def test_missing_inputs_of_the_loaded_metric_are_named(metric, inputs, message):
    with pytest.raises(ValueError, match=message):
        metric.compute(**inputs)


def test_chance_with_one_relevant_item_by_hand():
    chance = chance_metrics([1, 1], 200)
    harmonic_10 = 7381 / 2520
    assert chance == pytest.approx({"R@1": 1 / 200, "R@5": 5 / 200, "R@10": 10 / 200, "mAP@10": harmonic_10 / 200})


@pytest.mark.parametrize(("num_relevant", "num_items"), [([1], 30), ([5], 40), ([2, 7, 1], 20), ([4], 4), ([12], 15)])
def test_chance_agrees_with_random_rankings(num_relevant, num_items):
    rng = np.random.default_rng(5)
    trials = 6000
    similarity = rng.random((trials * len(num_relevant), num_items))
    relevant = [list(range(n)) for n in num_relevant] * trials
    simulated = retrieval_metrics(similarity, relevant)
    chance = chance_metrics(num_relevant, num_items)
    # four standard errors of a share are at most 4 * sqrt(0.25 / 6000) = 0.026
    assert chance == pytest.approx({name: simulated[name] for name in chance}, abs=0.026)


def test_chance_is_exact_over_every_ranking_of_a_small_collection():
    similarity = np.array(list(permutations(range(6))), dtype=float)
    exact = retrieval_metrics(similarity, [[0, 1, 2]] * len(similarity), recall_at=(1, 2), map_at=(2, 4, 10))
    chance = chance_metrics([3], 6, recall_at=(1, 2), map_at=(2, 4, 10))
    assert chance == pytest.approx({name: exact[name] for name in chance}, abs=1e-12)


def test_chance_needs_relevant_items():
    with pytest.raises(ValueError, match="1 to 5 relevant items"):
        chance_metrics([1, 0], 5)
