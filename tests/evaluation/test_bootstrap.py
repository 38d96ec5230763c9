"""Intervals against arithmetic by hand, against resamples that are written out, and against simulated test sets."""

import math

import numpy as np
import pytest

from modeling_cnn10bert.evaluation.audio_text_retrieval.audio_text_retrieval import metrics_of_ranks
from modeling_cnn10bert.evaluation.bootstrap import (
    Interval,
    bootstrap_intervals,
    bootstrap_means,
)


def as_ranks(best):
    return [np.array([float(rank)]) for rank in best]


def simulated(num_recordings, generator, captions=5, alike=0.5):
    """Best ranks [recordings * captions] of a system that hits at rank 1 with 0.4; captions may repeat the first."""
    hits = generator.random((num_recordings, captions)) < 0.4
    repeats = generator.random((num_recordings, captions)) < alike
    return np.where(np.where(repeats, hits[:, :1], hits), 1, 50).ravel(), np.repeat(np.arange(num_recordings), captions)


def test_the_values_are_the_metrics_themselves():
    best, recordings = simulated(40, np.random.default_rng(0))
    best = best + np.random.default_rng(1).integers(0, 20, len(best))
    intervals = bootstrap_intervals(as_ranks(best), recordings, map_at=(10, 16), resamples=50)
    assert {name: interval.value for name, interval in intervals.items()} == pytest.approx(
        metrics_of_ranks(as_ranks(best), map_at=(10, 16))
    )
    assert all(interval.low <= interval.value <= interval.high for interval in intervals.values())


def test_two_recordings_by_hand():
    # Of 2 recordings, 2 are drawn: twice the first (1/4), both (1/2), or twice the second (1/4): R@1 0, 1/3 or 1.
    ranks, recordings = as_ranks([7, 7, 1]), ["a", "a", "b"]
    intervals = bootstrap_intervals(ranks, recordings, resamples=400)
    assert intervals["R@1"] == Interval(1 / 3, 0.0, 1.0)
    assert intervals["MedR"] == Interval(7.0, 1.0, 7.0)
    middle = bootstrap_intervals(ranks, recordings, resamples=4000, confidence=0.4)  # between the 30 % and the 70 %
    assert middle["R@1"] == Interval(1 / 3, pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert middle["MedR"] == Interval(7.0, 7.0, 7.0)
    # two queries in the middle: 1, 2.5 or 4
    even = bootstrap_intervals(as_ranks([1, 4]), ["a", "b"], resamples=4000, confidence=0.4)
    assert even["MedR"] == Interval(2.5, 2.5, 2.5)


def test_each_resample_scores_as_if_it_were_written_out():
    generator = np.random.default_rng(2)
    recordings = generator.integers(0, 12, 50)  # recordings with unequally many captions, in no order
    best = generator.integers(1, 30, 50)
    # The same draws: multinomial, over the recordings in the order in which they first occur.
    numbers = {recording: number for number, recording in enumerate(dict.fromkeys(recordings.tolist()))}
    times = np.random.default_rng(5).multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), size=60)
    written_out = [
        metrics_of_ranks(as_ranks([b for b, r in zip(best, recordings, strict=True) for _ in range(row[numbers[r]])]))
        for row in times
    ]
    for confidence in (0.95, 0.5, 0.1):
        options = {"resamples": 60, "confidence": confidence, "seed": 5}
        for name, interval in bootstrap_intervals(as_ranks(best), recordings.tolist(), **options).items():
            tails = (1 - confidence) / 2, (1 + confidence) / 2
            expected = np.quantile([metrics[name] for metrics in written_out], tails)
            assert (interval.low, interval.high) == pytest.approx(tuple(expected)), name


def test_a_perfect_system_has_no_doubt_and_a_seed_repeats_itself():
    perfect = bootstrap_intervals(as_ranks([1] * 30), [number // 5 for number in range(30)])
    assert perfect == dict.fromkeys(["R@1", "R@5", "R@10", "mAP@10", "MedR"], Interval(1.0, 1.0, 1.0))
    best, recordings = simulated(30, np.random.default_rng(3))
    first, again, other = (bootstrap_intervals(as_ranks(best), recordings, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_captions_of_a_recording_that_are_alike_widen_the_interval_as_arithmetic_says():
    best, recordings = simulated(200, np.random.default_rng(4), alike=1.0)
    clustered = bootstrap_intervals(as_ranks(best), recordings)["R@1"]
    naive = bootstrap_intervals(as_ranks(best), np.arange(len(best)))["R@1"]
    # five equal captions are one: the standard error is that of 200 queries, not of 1000
    share = clustered.value
    error = math.sqrt(share * (1 - share) / 200)
    assert clustered.high - clustered.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert naive.high - naive.low == pytest.approx(2 * 1.96 * error / math.sqrt(5), rel=0.1)


def test_95_of_100_intervals_hold_the_truth_if_captions_are_drawn_with_their_recordings():
    generator, repetitions = np.random.default_rng(6), 150
    inside = {"clustered": 0, "naive": 0}
    for repetition in range(repetitions):
        best, recordings = simulated(100, generator, alike=0.8)
        for name, clusters in (("clustered", recordings), ("naive", np.arange(len(best)))):
            interval = bootstrap_intervals(as_ranks(best), clusters, resamples=300, seed=repetition)["R@1"]
            inside[name] += interval.low <= 0.4 <= interval.high
    # of 150 repetitions at 95 %, 142.5 +- 2.7; the naive interval is far too narrow
    assert 0.90 <= inside["clustered"] / repetitions <= 0.99
    assert inside["naive"] / repetitions < 0.85


def test_ranks_behind_the_end_of_a_list_leave_the_median_out():
    intervals = bootstrap_intervals(as_ranks([1, 2, np.inf, np.inf, np.inf, 3]), list("aabbcc"))
    assert set(intervals) == {"R@1", "R@5", "R@10", "mAP@10"}
    assert intervals["mAP@10"].value == pytest.approx((1 + 1 / 2 + 1 / 3) / 6)


def test_means_of_many_quantities_have_the_intervals_of_each():
    best, recordings = simulated(50, np.random.default_rng(8))
    low, high = bootstrap_means(np.stack([best <= 1, best <= 60], axis=1), recordings, seed=3)
    interval = bootstrap_intervals(as_ranks(best), recordings, seed=3)["R@1"]
    assert (low[0], high[0]) == pytest.approx((interval.low, interval.high))
    assert (low[1], high[1]) == (1, 1)


@pytest.mark.parametrize(
    ("recordings", "options", "message"),
    [
        (["a", "a"], {}, "found 1 recording, expected at least two"),
        (["a"], {}, "got 1 recordings for 2 queries"),
        (["a", "b"], {"resamples": 0}, "found 0 resamples"),
        (["a", "b"], {"confidence": 95}, "a confidence of 95"),
    ],
)
def test_what_cannot_be_resampled_is_an_error(recordings, options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_intervals(as_ranks([1, 2]), recordings, **options)
