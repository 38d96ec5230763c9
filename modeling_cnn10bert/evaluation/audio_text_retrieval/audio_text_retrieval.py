"""R@k, mAP@k and median rank of a retrieval system, as an `evaluate` module: `evaluate.load(<this folder>)`, offline.

The script imports only numpy, datasets and evaluate, because `evaluate` copies it out of its package before it runs it.
The computation is in plain functions that need no metric object: `ranks_of_relevant` (from similarities) or
`ranks_in_lists` (from ranked names), then `metrics_of_ranks`.

Conventions, for queries with R relevant items each:

* R@k is the share of queries with *at least one* relevant item in the first k ("hit rate", "success at k"). For R = 1
  it is the usual recall at k. For audio-to-text, where R = 5, it is what CLIP-like papers report.
* AP@k is the sum of the precisions at the ranks of the relevant items within the first k, divided by min(R, k); mAP@k
  is its mean over the queries. For R = 1, AP@k is 1/rank, or 0 beyond k, which is the measure of DCASE's language-based
  audio retrieval task. Dividing by min(R, k), not R, lets a perfect ranking reach 1 at any k.
* MedR is the median, over the queries, of the best rank of a relevant item (1 is first).
* Ties never count in the system's favor: an irrelevant item with an equal score ranks before a relevant one. A model
  that gives every item the same score is at the bottom, not at the top.
"""

from collections.abc import Hashable, Sequence

import datasets
import evaluate
import numpy as np

RECALL_AT = (1, 5, 10)
MAP_AT = (10,)

_DESCRIPTION = """
Retrieval metrics over a whole collection: R@1, R@5, R@10, mAP@10 and the median rank. R@k is the share of queries with
at least one relevant item in the first k; AP@k divides by min(number of relevant items, k); ties never count in the
system's favor.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: similarity of every query to every item, [queries, items], higher is better. NaN is an error.
    references: per query the index of its relevant item, or a list of such indices. With `rankings`: names instead.
    rankings: instead of `predictions`, per query its item names, best first; lists may be cut.
    recall_at: the k of R@k, (1, 5, 10) if not given.
    map_at: the k of mAP@k, (10,) if not given.
Returns:
    R@k and mAP@k for each k, between 0 and 1, and MedR, which starts at 1 and is left out where cut lists hide it.
Examples:
    >>> metric = evaluate.load("audio_text_retrieval")
    >>> metric.compute(predictions=[[0.9, 0.1], [0.8, 0.2]], references=[0, 1])
    {'R@1': 0.5, 'R@5': 1.0, 'R@10': 1.0, 'mAP@10': 0.75, 'MedR': 1.5}
    >>> metric.compute(rankings=[["a.wav", "b.wav"]], references=["b.wav"], recall_at=(1, 2), map_at=(2,))
    {'R@1': 0.0, 'R@2': 1.0, 'mAP@2': 0.5, 'MedR': 2.0}
"""

_CITATION = """
@inproceedings{primus2022,
  title = {Improving Natural-Language-based Audio Retrieval with Transfer Learning and Audio & Text Augmentations},
  author = {Primus, Paul and Widmer, Gerhard},
  booktitle = {Detection and Classification of Acoustic Scenes and Events Workshop (DCASE)},
  year = {2022},
}
"""


def ranks_of_relevant(similarity: np.ndarray, relevant: Sequence[int | Sequence[int]]) -> list[np.ndarray]:
    """Return the ranks of each query's relevant items, 1 being first; ties count against the system.

    The time is proportional to the number of (query, relevant item) pairs times the number of items.

    Args:
        similarity: [queries, items], any real type, higher is better; infinities are allowed.
        relevant: per query the index of its relevant item, or several of them (an index given twice counts once).

    Returns:
        Per query an ascending float64 array with one rank for each of its relevant items.

    Raises:
        ValueError: wrong shapes, NaN scores, a query without a relevant item, or an index out of range; the message
            names the row of a faulty query.
    """
    similarity = np.asarray(similarity)
    if similarity.ndim != 2 or 0 in similarity.shape or similarity.dtype.kind not in "fiu":
        raise ValueError(
            f"similarity must be a non-empty matrix of real numbers [queries, items]; "
            f"got shape {similarity.shape} of {similarity.dtype}"
        )
    if len(relevant) != len(similarity):
        raise ValueError(
            f"similarity has {len(similarity)} rows (queries), but relevant items came for {len(relevant)}"
        )
    ranks = []
    for query, (scores, wanted) in enumerate(zip(similarity, relevant, strict=True)):
        if np.isnan(scores).any():  # comparisons with NaN are false, which would put the relevant item first
            raise ValueError(f"similarity is NaN for query {query} and item {np.flatnonzero(np.isnan(scores))[0]}")
        own = np.sort(scores[_items(query, wanted, len(scores))])[::-1]
        # The j-th best relevant item ranks after j - 1 relevant ones and all irrelevant ones that score no lower.
        no_lower = np.count_nonzero(scores >= own[:, None], axis=1)
        relevant_no_lower = np.count_nonzero(own >= own[:, None], axis=1)
        ranks.append((np.arange(1, len(own) + 1) + no_lower - relevant_no_lower).astype(np.float64))
    return ranks


def ranks_in_lists(
    rankings: Sequence[Sequence[Hashable]], relevant: Sequence[Hashable | Sequence[Hashable]]
) -> list[np.ndarray]:
    """Return the ranks of each query's relevant names in a ranked list, as in the DCASE challenge's output files.

    Args:
        rankings: per query its item names, best first; a list may be truncated.
        relevant: per query the relevant name, or several of them (a str or other scalar is one name).

    Returns:
        Per query an ascending float64 array with one rank for each relevant name; infinite if the list lacks it.

    Raises:
        ValueError: different lengths, a query without a relevant name, or a name twice in one list; names the row.
    """
    if len(rankings) != len(relevant) or not len(rankings):
        raise ValueError(f"got {len(rankings)} rankings for {len(relevant)} queries; expected one for each")
    ranks = []
    for row, (names, wanted) in enumerate(zip(rankings, relevant, strict=True)):
        rank_of = {name: rank for rank, name in enumerate(names, start=1)}
        if len(rank_of) != len(names):
            raise ValueError(f"the ranking of query {row} holds an item twice, which could count twice: {list(names)}")
        items = set(wanted) if isinstance(wanted, list | tuple | set | np.ndarray) else {wanted}
        if not items:
            raise ValueError(f"query {row} has no relevant item, so no metric is defined for it: leave it out")
        ranks.append(np.sort([float(rank_of.get(name, np.inf)) for name in items]))
    return ranks


def average_precisions(ranks: Sequence[np.ndarray], k: int) -> np.ndarray:
    """Compute the AP@k of every query.

    Args:
        ranks: per query the ascending ranks of its relevant items, infinite if unknown and beyond k.
        k: number of items of a ranking that count.

    Returns:
        [queries] float64 between 0 and 1: sum of the precisions at the relevant ranks within k, over min(relevant, k).
    """
    count = np.array([len(row) for row in ranks])
    rank = np.concatenate(ranks)
    found = np.concatenate([np.arange(1, n + 1) for n in count])
    precision = np.where(rank <= k, found / rank, 0.0)
    query = np.repeat(np.arange(len(ranks)), count)
    return np.bincount(query, weights=precision, minlength=len(ranks)) / np.minimum(count, k)


def values_of_queries(
    ranks: Sequence[np.ndarray], recall_at: Sequence[int] = RECALL_AT, map_at: Sequence[int] = MAP_AT
) -> dict[str, np.ndarray]:
    """Return each query's contribution to each metric, to average over a part or a resample of the queries.

    Args:
        ranks: per query the ascending ranks of its relevant items, from `ranks_of_relevant` or `ranks_in_lists`.
        recall_at: the k of R@k.
        map_at: the k of mAP@k.

    Returns:
        Metric -> [queries]: for `R@k` whether there is a hit and for `mAP@k` the AP@k, whose means are the metrics; for
        `MedR` the best rank, whose median is the metric.
    """
    _check_cutoffs(recall_at, map_at)
    best = np.array([row[0] for row in ranks])
    values = {f"R@{k}": best <= k for k in recall_at}
    return values | {f"mAP@{k}": average_precisions(ranks, k) for k in map_at} | {"MedR": best}


def metrics_of_ranks(
    ranks: Sequence[np.ndarray], recall_at: Sequence[int] = RECALL_AT, map_at: Sequence[int] = MAP_AT
) -> dict[str, float]:
    """Compute the metrics of a system from the ranks of its relevant items.

    Args:
        ranks, recall_at, map_at: as for `values_of_queries`.

    Returns:
        `R@k` and `mAP@k` for each k, between 0 and 1, and `MedR`, left out where it is not finite.
    """
    values = values_of_queries(ranks, recall_at, map_at)
    median = float(np.median(values.pop("MedR")))
    metrics = {name: float(np.mean(of_query)) for name, of_query in values.items()}
    return metrics | ({"MedR": median} if np.isfinite(median) else {})


def retrieval_metrics(
    similarity: np.ndarray,
    relevant: Sequence[int | Sequence[int]],
    recall_at: Sequence[int] = RECALL_AT,
    map_at: Sequence[int] = MAP_AT,
) -> dict[str, float]:
    """Compute the metrics of a similarity matrix [queries, items]; arguments and errors as in `ranks_of_relevant`."""
    return metrics_of_ranks(ranks_of_relevant(similarity, relevant), recall_at, map_at)


def ranking_metrics(
    rankings: Sequence[Sequence[Hashable]],
    relevant: Sequence[Hashable | Sequence[Hashable]],
    recall_at: Sequence[int] = RECALL_AT,
    map_at: Sequence[int] = MAP_AT,
) -> dict[str, float]:
    """Compute the metrics of ranked lists of names; arguments and errors as in `ranks_in_lists`.

    Raises:
        ValueError: also if a list is truncated before a given k and lacks a relevant name, so that the metric is
            unknown.
    """
    ranks = ranks_in_lists(rankings, relevant)
    deepest = max([*recall_at, *map_at], default=0)
    for row, (names, found) in enumerate(zip(rankings, ranks, strict=True)):
        if len(names) < deepest and not np.isfinite(found).all():
            raise ValueError(
                f"the ranking of query {row} ends after {len(names)} items and lacks a relevant one, so nothing can be "
                f"said at {deepest}: give at least {deepest} items or ask for smaller k"
            )
    return metrics_of_ranks(ranks, recall_at, map_at)


def chance_metrics(
    num_relevant: Sequence[int], num_items: int, recall_at: Sequence[int] = RECALL_AT, map_at: Sequence[int] = MAP_AT
) -> dict[str, float]:
    """Compute the exact expected R@k and mAP@k under a uniformly random ranking of the items.

    With R of N items relevant, rank r holds a relevant item with probability R/N, and then each of the r - 1 ranks
    before it with (R-1)/(N-1). So E[AP@k] is the sum over r = 1..min(k, N) of R/N * (1 + (r-1)(R-1)/(N-1)) / r,
    divided by min(R, k); for R = 1 that is the sum of 1/(rN). E[R@k] = 1 - C(N-R, k) / C(N, k).

    Args:
        num_relevant: [queries] number of relevant items of each query, 1 to `num_items`.
        num_items: N.
        recall_at: the k of R@k.
        map_at: the k of mAP@k.

    Returns:
        `R@k` and `mAP@k` for each k. (MedR has no entry: the expectation of a median depends on how queries correlate.)
    """
    _check_cutoffs(recall_at, map_at)
    relevant = np.asarray(num_relevant, dtype=np.float64)
    if not relevant.size or relevant.min() < 1 or relevant.max() > num_items:
        raise ValueError(f"each query needs 1 to {num_items} relevant items; got {num_relevant}")
    metrics = {f"R@{k}": float(np.mean(_chance_hit(relevant, num_items, k))) for k in recall_at}
    return metrics | {f"mAP@{k}": float(np.mean(_chance_ap(relevant, num_items, k))) for k in map_at}


def _chance_hit(relevant: np.ndarray, num_items: int, k: int) -> np.ndarray:
    """Return the probability [queries] that at least one of the first k of a random ranking is relevant."""
    drawn = np.arange(min(k, num_items))
    missed = np.clip(num_items - relevant[:, None] - drawn, 0, None) / (num_items - drawn)
    return 1 - missed.prod(axis=1)


def _chance_ap(relevant: np.ndarray, num_items: int, k: int) -> np.ndarray:
    """Return the expected AP@k [queries] of a random ranking."""
    rank = np.arange(1, min(k, num_items) + 1)
    others = (relevant[:, None] - 1) / max(num_items - 1, 1)
    expected = (relevant[:, None] / num_items * (1 + (rank - 1) * others) / rank).sum(axis=1)
    return expected / np.minimum(relevant, k)


def _check_cutoffs(recall_at: Sequence[int], map_at: Sequence[int]) -> None:
    for k in [*recall_at, *map_at]:
        if k != int(k) or k < 1:
            raise ValueError(f"the k of R@k and mAP@k must be a whole number from 1; got {k}")


def _items(query: int, wanted: int | Sequence[int], num_items: int) -> np.ndarray:
    """Return the relevant items of a query, each once."""
    items = np.atleast_1d(np.asarray(wanted))
    if items.size == 0:
        raise ValueError(f"query {query} has no relevant item, so no metric is defined for it: leave it out")
    if items.ndim != 1 or items.dtype.kind not in "iu":
        raise ValueError(f"relevant items of query {query} must be indices (whole numbers); got {wanted!r}")
    if items.min() < 0 or items.max() >= num_items:
        raise ValueError(f"query {query} names relevant item {wanted!r}, but items are 0 to {num_items - 1}")
    return np.unique(items)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class AudioTextRetrieval(evaluate.Metric):
    """R@k, mAP@k and MedR with `evaluate`'s interface; the functions of this module compute them."""

    def _info(self) -> evaluate.MetricInfo:
        scores = datasets.Sequence(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=[
                datasets.Features({"predictions": scores, "references": datasets.Sequence(datasets.Value("int64"))}),
                datasets.Features({"predictions": scores, "references": datasets.Value("int64")}),
            ],
            reference_urls=["https://dcase.community/challenge2022/task-language-based-audio-retrieval"],
        )

    def compute(self, *, predictions=None, references=None, rankings=None, **options) -> dict[str, float] | None:
        """Score one similarity matrix, ranked lists, or what `add` and `add_batch` have collected.

        A whole matrix skips `evaluate`'s Arrow file, because reading it back makes a Python object of every score,
        which is about forty times slower than the metric itself.
        """
        if predictions is not None and rankings is not None:
            raise ValueError("give predictions (a similarity matrix) or rankings (lists of names), not both")
        if (predictions is not None or rankings is not None) and references is None:
            raise ValueError("references are missing: per query its relevant item, or a list of them")
        if rankings is not None:
            return ranking_metrics(rankings, references, **options)
        if predictions is None and not len(self):
            raise ValueError("nothing to score: give predictions (a similarity matrix) or rankings (lists of names)")
        if predictions is None or len(self) or self.num_process > 1:
            return super().compute(predictions=predictions, references=references, **options)
        return self._compute(predictions=predictions, references=references, **options)

    def _compute(self, predictions, references, recall_at=RECALL_AT, map_at=MAP_AT) -> dict[str, float]:
        return retrieval_metrics(predictions, references, recall_at, map_at)
