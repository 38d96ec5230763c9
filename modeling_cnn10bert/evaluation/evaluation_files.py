"""The files of an evaluation: results.json, ranks.csv and metrics.png."""

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_text
from .model_evaluation import ModelEvaluation

FOUND_SHOWN = 10  # the recordings that ranks.csv names for each query
RESULTS, RANKS, PICTURE = "results.json", "ranks.csv", "metrics.png"


def write_evaluation(evaluation: ModelEvaluation, folder: str | os.PathLike, **about: Any) -> dict[str, Path]:
    """
    Write results.json, ranks.csv and metrics.png, each whole or not at all.

    ranks.csv has a line a query: caption, its recording (`file_name`), the rank of that recording or, if other
    recordings carry the same words, of the best of them, which ties never improve, and the first ten recordings found
    with their scores, ties in the order of their names.

    Args:
        evaluation: what to write.
        folder: is made where it is not there.
        about: what results.json is to say besides, such as the data set.

    Returns:
        Name -> the file.
    """
    from .evaluation_pictures import plot_evaluation  # matplotlib

    folder = Path(folder)
    write_text(folder / RANKS, _ranks_table(evaluation))
    plot_evaluation(evaluation, folder / PICTURE, title=_title(evaluation, about))
    # Last: where it is, the others are.
    write_text(folder / RESULTS, json.dumps({**about, **evaluation.to_dict()}, indent=2, ensure_ascii=False) + "\n")
    return {name: folder / name for name in (RESULTS, RANKS, PICTURE)}


def best_first(similarity: np.ndarray, names: Sequence[str], count: int) -> np.ndarray:
    """
    Return the first items that each query finds: [queries, items] -> columns [queries, count], best first.

    Of items with equal scores, the one whose name comes first in the alphabet comes first.
    """
    by_name = np.array(sorted(range(len(names)), key=names.__getitem__))
    return by_name[np.argsort(-similarity[:, by_name], axis=1, kind="stable")[:, :count]]


def _title(evaluation: ModelEvaluation, about: dict[str, Any]) -> str:
    parts = [f"{name} {value}" if name == "split" else str(value) for name, value in about.items() if value]
    return " on ".join([evaluation.model.name, ", ".join(parts)] if parts else [evaluation.model.name])


def _ranks_table(evaluation: ModelEvaluation) -> str:
    ranked, names = evaluation.ranked, evaluation.recordings
    count = min(FOUND_SHOWN, len(names))
    found = best_first(ranked.similarity, names, count)
    scores = np.take_along_axis(ranked.similarity, found, axis=1)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    numbers = range(1, count + 1)
    header = ["caption", "file_name", "rank"]
    writer.writerow([*header, *(f"{what}_{number}" for number in numbers for what in ("file_name", "score"))])
    for caption, audio, rank, columns, cosines in zip(
        evaluation.captions, ranked.audio_of_text, ranked.text_to_audio, found, scores, strict=True
    ):
        cells = [cell for column, cosine in zip(columns, cosines, strict=True) for cell in (names[column], cosine)]
        writer.writerow([caption, names[audio], int(rank[0]), *(_cell(cell) for cell in cells)])
    return table.getvalue()


def _cell(value: str | np.float32) -> str:
    return value if isinstance(value, str) else f"{value:.6f}"
