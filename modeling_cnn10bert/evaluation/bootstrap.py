"""Confidence intervals of retrieval metrics by resampling the recordings of a test set (cluster bootstrap).

The captions of a recording are not independent: a recording that is hard to find is hard to find by all of them. So
recordings are drawn with replacement, each with all its captions. An interval is the central part of the metric's
values over the resamples (percentile interval; Efron & Tibshirani 1993, chapter 13).

An interval covers the choice of the recordings and captions of the test set.

It does not cover:

* other trainings: initialization, order of the batches, choice of the checkpoint. For that, train with several seeds;
* another number of candidates. Ranks are among all recordings of the set and are not recomputed, because a resample
  with duplicate recordings would be an easier or harder search. The dependence of queries through their shared
  candidates is ignored;
* unobserved events: a metric that is 0 or 1 for every recording has an interval of width 0;
* few recordings: with fewer than about 30, percentile intervals are too narrow.
"""

import dataclasses
from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from ..errors import RetrievalError
from .audio_text_retrieval.audio_text_retrieval import MAP_AT, RECALL_AT, values_of_queries

RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Interval:
    """
    A metric with its confidence interval.

    Attributes:
        value: on the test set itself.
        low, high: the ends of the interval.
    """

    value: float
    low: float
    high: float


def bootstrap_intervals(
    ranks: Sequence[np.ndarray],
    recording_of_query: Sequence[Hashable],
    recall_at: Sequence[int] = RECALL_AT,
    map_at: Sequence[int] = MAP_AT,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> dict[str, Interval]:
    """Compute the metrics of a system with their confidence intervals.

    Args:
        ranks: per query the ascending ranks of its relevant items, from `ranks_of_relevant` or `ranks_in_lists`.
        recording_of_query: the recording of each query; its queries are drawn together.
        recall_at: the k of R@k.
        map_at: the k of mAP@k.
        resamples: number of resamples; each draws as many recordings as there are.
        confidence: the share of the resamples that lies within the interval, such as 0.95.
        seed: seed of the draws; the draws depend on the recordings, not on the metrics.

    Returns:
        The metrics of `metrics_of_ranks` with intervals; `MedR` is left out if it or an end is not finite.

    Raises:
        ValueError: fewer than two recordings, not one recording for each query, or invalid for `check_bootstrap`.
    """
    if len(ranks) != len(recording_of_query) or not len(ranks):
        raise ValueError(f"got {len(recording_of_query)} recordings for {len(ranks)} queries: expected one for each")
    values = values_of_queries(ranks, recall_at, map_at)
    resampled: dict[str, list[float]] = {name: [] for name in values}
    for times in _draws(recording_of_query, resamples, confidence, seed):
        for name, of_query in values.items():
            drawn = np.median(np.repeat(of_query, times)) if name == "MedR" else np.average(of_query, weights=times)
            resampled[name].append(float(drawn))
    intervals = {}
    for name, of_query in values.items():
        value = float((np.median if name == "MedR" else np.mean)(of_query))
        if np.isfinite([value, *resampled[name]]).all():  # truncated lists may hide the median
            low, high = np.quantile(resampled[name], _tails(confidence))
            intervals[name] = Interval(value, float(low), float(high))
    return intervals


def bootstrap_means(
    values: np.ndarray,
    recording_of_query: Sequence[Hashable],
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends [K], [K] of the intervals of the means of K quantities [queries, K], such as hits at K depths."""
    draws = _draws(recording_of_query, resamples, confidence, seed)
    low, high = np.quantile([times @ values / times.sum() for times in draws], _tails(confidence), axis=0)
    return low, high


def check_bootstrap(resamples: int, confidence: float) -> None:
    """
    Raises:
        RetrievalError: a value is out of range.
    """
    if resamples < 1 or not 0 < confidence < 1:
        raise RetrievalError(
            f"found {resamples} resamples and a confidence of {confidence}, expected at least 1 resample and a "
            "confidence between 0 and 1, such as 0.95"
        )


def _draws(
    recording_of_query: Sequence[Hashable], resamples: int, confidence: float, seed: int
) -> Iterator[np.ndarray]:
    """Yield for each resample how often it holds each query, [queries] int64."""
    check_bootstrap(resamples, confidence)
    number_of = {recording: number for number, recording in enumerate(dict.fromkeys(recording_of_query))}
    if len(number_of) < 2:
        raise ValueError(f"found {len(number_of)} recording, expected at least two: there is nothing to draw from")
    cluster = np.array([number_of[recording] for recording in recording_of_query])
    generator, equal = np.random.default_rng(seed), np.full(len(number_of), 1 / len(number_of))
    for _ in range(resamples):
        yield generator.multinomial(len(number_of), equal)[cluster]


def _tails(confidence: float) -> tuple[float, float]:
    return (1 - confidence) / 2, (1 + confidence) / 2
