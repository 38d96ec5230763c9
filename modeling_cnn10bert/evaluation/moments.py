"""Score moments: passages of recordings that were found for a text, against the passages that it describes."""

from collections.abc import Sequence

import numpy as np

THRESHOLDS = np.arange(50, 100, 5) / 100  # of the intersection over union, 0.5 to 0.95
MAX_FOUND = 10  # passages of a query that count for the mean average precision


def moment_metrics(
    found: Sequence[Sequence[Sequence[float]]], truth: Sequence[Sequence[Sequence[float]]]
) -> dict[str, float]:
    """
    Compute the metrics of DCASE 2026 task 6, as its baseline does (github.com/awkrail/dcase2026_task6_baseline).

    Args:
        found: [Q] of [N, 2], per query the start and end of the passages that were found in seconds, best first.
        truth: [Q] of [M, 2], the passages that the query describes, at least one.

    Returns:
        `R1@0.5` and `R1@0.7`: the share of queries whose first passage has an intersection over union of at least 0.5
        or 0.7 with one of the truth. `mAP@0.5` and `mAP@0.75`: the mean over queries of the interpolated average
        precision, where each passage of the truth is found once. `mAP`: its mean over the thresholds 0.5, 0.55 to
        0.95. All are between 0 and 1.
    """
    first, precision = np.zeros((len(truth), len(THRESHOLDS))), np.zeros((len(truth), len(THRESHOLDS)))
    for query, (passages, right) in enumerate(zip(found, truth, strict=True)):
        if not len(passages):
            continue
        overlap = overlaps(np.asarray(passages, float)[:MAX_FOUND, :2], np.asarray(right, float))
        first[query] = overlap[0].max() >= THRESHOLDS
        precision[query] = [_average_precision(overlap, threshold) for threshold in THRESHOLDS]
    recall, mean = (
        dict(zip(THRESHOLDS, first.mean(axis=0), strict=True)),
        dict(zip(THRESHOLDS, precision.mean(axis=0), strict=True)),
    )
    return {
        "R1@0.5": float(recall[0.5]),
        "R1@0.7": float(recall[0.7]),
        "mAP": float(precision.mean()),
        "mAP@0.5": float(mean[0.5]),
        "mAP@0.75": float(mean[0.75]),
    }


def overlaps(spans: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the intersection over union of spans [N, 2] and others [M, 2] -> [N, M]."""
    ends = np.minimum(spans[:, None, 1], others[None, :, 1])
    shared = np.maximum(ends - np.maximum(spans[:, None, 0], others[None, :, 0]), 0)
    union = np.ptp(spans, axis=1)[:, None] + np.ptp(others, axis=1)[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _average_precision(overlap: np.ndarray, threshold: float) -> float:
    """Average the interpolated precision of [found, right] overlaps over recall, as ActivityNet and PASCAL VOC do."""
    free = np.ones(overlap.shape[1], bool)
    hits = np.zeros(len(overlap))
    for row, shares in enumerate(overlap):
        # The passage of the truth that it covers best, of those which no better one has taken.
        candidates = np.where(free, shares, -1.0)
        if candidates.max() >= threshold:
            free[candidates.argmax()] = False
            hits[row] = 1
    precision = hits.cumsum() / np.arange(1, len(hits) + 1)
    # The best precision at this recall or a higher one.
    interpolated = np.maximum.accumulate(precision[::-1])[::-1]
    return float((interpolated * hits).sum() / overlap.shape[1])
