"""Score a tagger by class: average precision and area under the ROC curve, as AudioSet and PANNs report them."""

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from ..files import write_text
from .metric import DivergedError


@dataclass(frozen=True)
class ClassScore:
    """Scores of a tagger on one class.

    Attributes:
        name: name of the class.
        clips: number of clips with the class.
        average_precision: not interpolated, as in scikit-learn; NaN if no clip has the class.
        auc: area under the ROC curve; NaN if no clip or every clip has the class.
    """

    name: str
    clips: int
    average_precision: float
    auc: float


def score_classes(scores: np.ndarray, targets: np.ndarray, names: Sequence[str]) -> list[ClassScore]:
    """Score each class of a tagger.

    Args:
        scores: [N, C], higher if the class is likelier; logits and probabilities give the same result.
        targets: [N, C] of 0 and 1.
        names: names of the C classes.

    Raises:
        ValueError: shapes that do not fit; DivergedError: a score that is not a finite number.
    """
    if scores.shape != targets.shape or scores.shape[1:] != (len(names),):
        raise ValueError(f"found scores {scores.shape} and targets {targets.shape} of {len(names)} classes")
    if not np.isfinite(scores).all():
        raise DivergedError("found scores that are not finite, expected finite numbers")
    columns = zip(scores.T, targets.T.astype(bool), names, strict=True)
    return [_score_class(of_class, target, name) for of_class, target, name in columns]


def _score_class(scores: np.ndarray, targets: np.ndarray, name: str) -> ClassScore:
    clips = int(targets.sum())
    return ClassScore(
        name=name,
        clips=clips,
        average_precision=float(average_precision_score(targets, scores)) if clips else float("nan"),
        auc=float(roc_auc_score(targets, scores)) if 0 < clips < len(targets) else float("nan"),
    )


def tagging_metrics(classes: Sequence[ClassScore]) -> dict[str, float]:
    """Return `mAP` and `mAUC`, the means over the classes that have a score."""
    return {
        "mAP": float(np.nanmean([score.average_precision for score in classes])),
        "mAUC": float(np.nanmean([score.auc for score in classes])),
    }


def write_class_scores(classes: Sequence[ClassScore], path: str | os.PathLike) -> None:
    """Write a CSV file of one line per class, best average precision first; it appears complete or not at all."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["class", "clips", "average_precision", "auc"])
    for score in sorted(classes, key=lambda score: -np.nan_to_num(score.average_precision, nan=-1.0)):
        writer.writerow([score.name, score.clips, f"{score.average_precision:.4f}", f"{score.auc:.4f}"])
    write_text(path, table.getvalue())
