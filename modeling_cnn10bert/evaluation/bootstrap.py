"""Confidence intervals of retrieval metrics, by drawing the recordings of a test set again (cluster bootstrap).

The captions of a recording are not independent: a recording that is hard to find is hard to find by all of them. So
recordings are drawn, with replacement, and a drawn recording brings all its captions along. An interval is the middle
part of the metric's values over the resamples (percentile interval; Efron & Tibshirani 1993, chapter 13).

What an interval covers: that the test set holds these recordings and captions and not others of their kind.

What it does not cover:

* other trainings: initialisation, order of the batches, the choice of a checkpoint. For that, train with several seeds;
* another number of candidates. Ranks are those among all recordings of the set and are not computed anew, as a
  resample with recordings in it twice would be an easier or harder search. That the queries share their candidates is
  left out of account;
* what never happened: a metric at 0 or 1 for every recording has an interval of width 0;
* few recordings: with less than about 30, percentile intervals are too narrow.
"""

import dataclasses
from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from .audio_text_retrieval.audio_text_retrieval import MAP_AT, RECALL_AT, values_of_queries

RESAMPLES = 1000
CONFIDENCE = 0.95
_CHUNK = 100  # resamples made at once: 4 bytes a query for each of them


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
    """The metrics of a system, each with its interval.

    Args:
        ranks: per query the ascending ranks of its relevant items, from `ranks_of_relevant` or `ranks_in_lists`.
        recording_of_query: which recording each query belongs to: it is drawn as one.
        recall_at: the k of R@k.
        map_at: the k of mAP@k.
        resamples: how often as many recordings are drawn as there are.
        confidence: the share of the resamples that lies within the interval, such as 0.95.
        seed: of the draws; the same draws for the same recordings, whatever the metrics.

    Returns:
        The metrics of `metrics_of_ranks` and their values; `MedR` is left out where it or an end is not finite.

    Raises:
        ValueError: fewer than two recordings, not one recording for each query, or a number out of its range.
    """
    values = _values(ranks, recording_of_query, recall_at, map_at)
    resampled = _resampled(values, recording_of_query, resamples, confidence, seed)
    return _intervals(_on_the_set(values), resampled, confidence)


def bootstrap_means(
    values: np.ndarray,
    recording_of_query: Sequence[Hashable],
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """The ends [K], [K] of the intervals of the means of K quantities [queries, K], such as hits at K depths."""
    cluster, num_clusters = _clusters(recording_of_query)
    means = _Means(values, cluster, num_clusters)
    resampled = np.concatenate([means(times) for times in _draws(num_clusters, resamples, confidence, seed)])
    low, high = np.quantile(resampled, _tails(confidence), axis=0)
    return low, high


def _values(ranks, recording_of_query, recall_at, map_at) -> dict[str, np.ndarray]:
    if len(ranks) != len(recording_of_query) or not len(ranks):
        raise ValueError(f"got {len(recording_of_query)} recordings for {len(ranks)} queries: expected one for each")
    return values_of_queries(ranks, recall_at, map_at)


def _on_the_set(values: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float((np.median if name == "MedR" else np.mean)(of_query)) for name, of_query in values.items()}


def _resampled(
    values: dict[str, np.ndarray], recording_of_query: Sequence[Hashable], resamples: int, confidence: float, seed: int
) -> dict[str, np.ndarray]:
    """Metric -> its value in each resample [resamples]."""
    averaged = [name for name in values if name != "MedR"]
    cluster, num_clusters = _clusters(recording_of_query)
    means_of = _Means(np.stack([values[name] for name in averaged], axis=1), cluster, num_clusters)
    medians_of = _Medians(values["MedR"], cluster)
    means, medians = [], []
    for times in _draws(num_clusters, resamples, confidence, seed):
        means.append(means_of(times))
        medians.append(medians_of(times))
    of_resample = np.concatenate(means)
    return {name: of_resample[:, number] for number, name in enumerate(averaged)} | {"MedR": np.concatenate(medians)}


def _clusters(recording_of_query: Sequence[Hashable]) -> tuple[np.ndarray, int]:
    """Per query the number of its recording [queries], and how many recordings there are."""
    number_of = {recording: number for number, recording in enumerate(dict.fromkeys(recording_of_query))}
    if len(number_of) < 2:
        raise ValueError(f"found {len(number_of)} recording, expected at least two: there is nothing to draw from")
    return np.array([number_of[recording] for recording in recording_of_query]), len(number_of)


def _draws(num_clusters: int, resamples: int, confidence: float, seed: int) -> Iterator[np.ndarray]:
    """How often each recording is in each resample, some resamples at a time: [chunk, recordings] int64."""
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"found {resamples} resamples and a confidence of {confidence}, expected at least 1, and between 0 and 1"
        )
    generator = np.random.default_rng(seed)
    equal = np.full(num_clusters, 1 / num_clusters)
    for start in range(0, resamples, _CHUNK):
        yield generator.multinomial(num_clusters, equal, size=min(_CHUNK, resamples - start))


class _Means:
    """[chunk, recordings] draws -> the means [chunk, K] of K quantities over the queries that were drawn."""

    def __init__(self, values: np.ndarray, cluster: np.ndarray, num_clusters: int):
        self.sums = np.zeros((num_clusters, values.shape[1]))
        np.add.at(self.sums, cluster, values)
        self.counts = np.bincount(cluster, minlength=num_clusters).astype(np.float64)

    def __call__(self, times: np.ndarray) -> np.ndarray:
        times = times.astype(np.float64)  # BLAS has no product of integers
        return times @ self.sums / (times @ self.counts)[:, None]


class _Medians:
    """[chunk, recordings] draws -> `np.median` [chunk] of a quantity over the queries that were drawn."""

    def __init__(self, values: np.ndarray, cluster: np.ndarray):
        order = np.argsort(values, kind="stable")
        self.ascending, self.cluster = values[order], cluster[order]

    def __call__(self, times: np.ndarray) -> np.ndarray:
        reached = np.cumsum(times.astype(np.int32)[:, self.cluster], axis=1, dtype=np.int32)
        total = reached[:, -1]
        # The one or two queries in the middle, by their place in the written-out resample.
        places = zip(reached, (total - 1) // 2, total // 2, strict=True)
        middle = np.array([np.searchsorted(row, (lower, upper), side="right") for row, lower, upper in places])
        return self.ascending[middle].mean(axis=1)


def _tails(confidence: float) -> tuple[float, float]:
    return (1 - confidence) / 2, (1 + confidence) / 2


def _intervals(values: dict[str, float], resampled: dict[str, np.ndarray], confidence: float) -> dict[str, Interval]:
    intervals = {}
    for name, value in values.items():
        if not np.isfinite(value) or (name == "MedR" and not np.isfinite(resampled[name]).all()):
            continue  # lists that are cut hide it
        low, high = np.quantile(resampled[name], _tails(confidence))
        intervals[name] = Interval(value, float(low), float(high))
    return intervals
