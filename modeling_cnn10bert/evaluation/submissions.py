"""What a challenge is handed: the ranked recordings of DCASE 2022 task 6b, the scores of DCASE 2025 task 6."""

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ..data.tables import read_rows, read_text
from ..errors import DataError, RetrievalError
from ..files import write_text

RANKS = 10  # recordings that DCASE 2022 wants for a query
RANK_COLUMNS = [f"file_name_{rank}" for rank in range(1, RANKS + 1)]
QUERY_COLUMN = "index"  # of DCASE 2025's matrix


def write_dcase2022(
    path: str | os.PathLike, captions: Sequence[str], ranked_file_names: Sequence[Sequence[str]]
) -> None:
    """
    Writes a ranked output of DCASE 2022 task 6b: columns `caption` and `file_name_1` to `file_name_10`, a line a query.

    UTF-8, lines that end with a line feed, quotes only where a comma or a quote needs them: byte for byte the form of
    the challenge baseline's published output.

    Args:
        path: the CSV file; it appears whole or not at all.
        captions: [Q], the queries in the order of the challenge's file.
        ranked_file_names: [Q] of [10] or more, best first; the first ten are written.

    Raises:
        RetrievalError: fewer than ten recordings for a query, one of them twice, or not one ranking a query.
    """
    _check_count(path, "rankings", len(ranked_file_names), len(captions))
    rows = []
    for caption, names in zip(captions, ranked_file_names, strict=True):
        first = list(names[:RANKS])
        if len(set(first)) < RANKS:
            raise RetrievalError(
                f"{path}: found {len(set(first))} different recordings for the query {caption!r}, expected {RANKS}; "
                "the challenge ranks ten: search a set of at least ten recordings"
            )
        rows.append([caption, *first])
    _write_rows(path, ["caption", *RANK_COLUMNS], rows)


def write_dcase2025(
    path: str | os.PathLike, captions: Sequence[str], file_names: Sequence[str], scores: np.ndarray
) -> None:
    """
    Writes the scores of DCASE 2025 task 6: a line a query, a column a recording, the higher the better.

    The form is that of the challenge's baseline (d25_t6/predict.py in github.com/CPJKU/dcase2025_task6_baseline): a CSV
    file whose header is `index` and the file names without their folders, and whose lines are the caption and its
    score for each recording. Two things could not be verified: the example file resources/example_predictions.csv,
    which the copy of that repository at hand lacks, and the task's page on the columns' order, which the baseline
    leaves to the file system; here it is that of `file_names`. The baseline writes a caption that occurs twice once;
    here each query has its line.

    Args:
        path: the CSV file; it appears whole or not at all.
        captions: [Q].
        file_names: [A], no name twice.
        scores: [Q, A]; written with the digits that give the same float32 again.

    Raises:
        RetrievalError: shapes that do not fit, a score that is not finite, or a name twice.
    """
    scores = np.asarray(scores, dtype=np.float32)
    _check_count(path, "rows of scores", len(scores), len(captions))
    if scores.shape != (len(captions), len(file_names)):
        raise RetrievalError(
            f"{path}: found scores of shape {scores.shape}, expected {(len(captions), len(file_names))}: a row a "
            "query, a column a recording"
        )
    if not np.isfinite(scores).all():
        raise RetrievalError(f"{path}: found scores that are not finite, expected finite numbers")
    if len(set(file_names)) < len(file_names):
        twice = next(name for name in file_names if list(file_names).count(name) > 1)
        raise RetrievalError(f"{path}: found the recording {twice!r} twice, expected each once")
    # Nine digits tell every float32 from its neighbours; numpy's shortest form takes twice as long.
    rows = ([caption, *map("{:.9g}".format, row.tolist())] for caption, row in zip(captions, scores, strict=True))
    _write_rows(path, [QUERY_COLUMN, *file_names], rows)


def read_dcase2022(path: str | os.PathLike) -> tuple[list[str], list[list[str]]]:
    """
    Captions [Q] and their ranked file names [Q] of [10] of a ranked output of DCASE 2022.

    Raises:
        DataError: the file is missing or faulty.
    """
    rows = [row for _, row in read_rows(Path(path), ["caption", *RANK_COLUMNS])]
    return [row["caption"] for row in rows], [[row[name] for name in RANK_COLUMNS] for row in rows]


def read_dcase2025(path: str | os.PathLike) -> tuple[list[str], list[str], np.ndarray]:
    """
    Captions [Q], file names [A] and scores [Q, A] float32 of a score matrix of DCASE 2025.

    The header of the first column is not looked at.

    Raises:
        DataError: the file is missing or faulty; the message says in which line.
    """
    captions, scores = [], []
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    try:
        _, *file_names = next(reader, [""])
        if not file_names or len(set(file_names)) < len(file_names):
            raise DataError(
                f"{path}: found the columns {', '.join(file_names) or 'none'}, expected that of the captions and "
                "one for each recording, no name twice; write the file again"
            )
        for row in reader:
            if row:
                captions.append(row[0])
                scores.append(_scores(row[1:], len(file_names), f"{path}:{reader.line_num}"))
    except csv.Error as error:
        raise DataError(f"{path}: found {error}, expected a CSV file; write it again") from error
    if not captions:
        raise DataError(f"{path}: found no query, expected a line each; write the file again")
    return captions, file_names, np.stack(scores)


def _scores(cells: Sequence[str], expected: int, where: str) -> np.ndarray:
    if len(cells) != expected:
        raise DataError(f"{where}: found {len(cells)} scores, expected {expected}, one for each recording")
    try:
        scores = np.array(cells, dtype=np.float32)
    except ValueError as error:
        raise DataError(f"{where}: found {error}, expected numbers; write the file again") from error
    if not np.isfinite(scores).all():
        raise DataError(f"{where}: found a score that is not finite, expected finite numbers")
    return scores


def _check_count(path: str | os.PathLike, what: str, found: int, expected: int) -> None:
    if found != expected or not found:
        raise RetrievalError(f"{path}: found {found} {what} for {expected} queries, expected one for each, and a query")


def _write_rows(path: str | os.PathLike, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, table.getvalue())
