"""Write, read and score the submission files of DCASE 2022 task 6b and DCASE 2025 task 6, and write those of 2026."""

import ast
import csv
import dataclasses
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ..data.recipes.clotho import CAPTION_COLUMNS, read_captions
from ..data.tables import read_rows, read_text
from ..errors import DataError, RetrievalError
from ..files import write_text
from ..processing_cnn10bert import caption_words
from .metric import load_retrieval_metric
from .moments import MAX_FOUND

RANKS = 10  # recordings per query in DCASE 2022
RANK_COLUMNS = [f"file_name_{rank}" for rank in range(1, RANKS + 1)]
QUERY_COLUMN = "index"  # of DCASE 2025's matrix
MATRIX_MAP_AT = (10, 16)  # 16: the measure of DCASE 2025
RANKED, ANNOTATIONS, CAPTIONS = "a ranked output of DCASE 2022", "annotations of DCASE 2025", "a caption file"
COLUMNS_OF_KIND = {
    RANKED: {"caption", *RANK_COLUMNS},
    ANNOTATIONS: {"query", "audio_filenames"},
    CAPTIONS: {"file_name", *CAPTION_COLUMNS},
}
PAIRS = (
    f"a ranked output of DCASE 2022 (caption, file_name_1 to file_name_{RANKS}) goes with a caption file (file_name, "
    "caption_1 to caption_5); a matrix of scores of DCASE 2025 (a column for each recording) goes with a caption file "
    "or with annotations (query, audio_filenames)"
)


def write_dcase2022(
    path: str | os.PathLike, captions: Sequence[str], ranked_file_names: Sequence[Sequence[str]]
) -> None:
    """
    Write a DCASE 2022 task 6b output: columns `caption` and `file_name_1` to `file_name_10`, one line per query.

    The file is UTF-8 with line feeds, and has quotes only if a comma or a quote needs them. This is byte for byte the
    form of the challenge baseline's published output.

    Args:
        path: the CSV file; it appears whole or not at all.
        captions: [Q], the queries in the order of the challenge's file.
        ranked_file_names: [Q] of [10] or more, best first; the first ten are written.

    Raises:
        RetrievalError: fewer than ten recordings for a query, one of them twice, or not one ranking per query.
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
    Write the scores of DCASE 2025 task 6: one line per query, one column per recording, higher is better.

    The form is that of the challenge's baseline (d25_t6/predict.py in github.com/CPJKU/dcase2025_task6_baseline): a CSV
    file whose header is `index` and the file names without their folders, and whose lines are the caption and its
    score for each recording. The form was not compared with resources/example_predictions.csv, which our copy of that
    repository lacks, nor with the order of columns on the task's page. The baseline leaves the order to the file
    system; here it is that of `file_names`. The baseline writes a repeated caption once; here each query has its line.

    Args:
        path: the CSV file; it appears whole or not at all.
        captions: [Q].
        file_names: [A], no name twice.
        scores: [Q, A]; written with enough digits to restore the same float32.

    Raises:
        RetrievalError: shapes that do not fit, a score that is not finite, or a name twice.
    """
    scores = np.asarray(scores, dtype=np.float32)
    _check_count(path, "rows of scores", len(scores), len(captions))
    if scores.shape != (len(captions), len(file_names)):
        raise RetrievalError(
            f"{path}: found scores of shape {scores.shape}, expected {(len(captions), len(file_names))}: one "
            "row per query, one column per recording"
        )
    if not np.isfinite(scores).all():
        raise RetrievalError(f"{path}: found scores that are not finite, expected finite numbers")
    if len(set(file_names)) < len(file_names):
        twice = next(name for name in file_names if list(file_names).count(name) > 1)
        raise RetrievalError(f"{path}: found the recording {twice!r} twice, expected each once")
    # Nine digits tell every float32 from its neighbors; numpy's shortest form takes twice as long.
    rows = ([caption, *map("{:.9g}".format, row.tolist())] for caption, row in zip(captions, scores, strict=True))
    _write_rows(path, [QUERY_COLUMN, *file_names], rows)


@dataclasses.dataclass(frozen=True)
class MomentQuery:
    """A query of DCASE 2026 task 6: which passages of the recording `vid` does the text `query` describe?"""

    qid: str | int
    query: str
    vid: str


def read_dcase2026_queries(path: str | os.PathLike) -> list[MomentQuery]:
    """
    Read the queries of DCASE 2026 task 6, such as dcase2026_evaluation.jsonl: JSON lines with `qid`, `query` and `vid`.

    Raises:
        DataError: the file cannot be read, a line is faulty, or it has no line.
    """
    queries = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            query = MomentQuery(row["qid"], row["query"], row["vid"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}:{number}: found {error!r}, expected a JSON object with qid, query and vid; fetch it again"
            ) from error
        if not isinstance(query.vid, str) or not isinstance(query.query, str) or not caption_words(query.query):
            raise DataError(f"{path}:{number}: found {query}, expected texts with a word; correct the line")
        queries.append(query)
    if not queries:
        raise DataError(f"{path}: found no query, expected one per line; fetch the file again")
    return queries


def write_dcase2026(
    path: str | os.PathLike, queries: Sequence[MomentQuery], passages: Sequence[Sequence[tuple[float, float]]]
) -> None:
    """
    Write a submission of DCASE 2026 task 6: JSON lines with `qid`, `query`, `vid` and `pred_relevant_windows`.

    The form is that of the challenge's baseline (src/standalone_eval/README.md in
    github.com/awkrail/dcase2026_task6_baseline): pairs of start and end in seconds, best first, at most ten.

    Args:
        path: the file; it appears whole or not at all.
        queries: [Q].
        passages: [Q] of [N, 2], at least one for each query.
    """
    lines = []
    for query, spans in zip(queries, passages, strict=True):
        row = dataclasses.asdict(query)
        row["pred_relevant_windows"] = [[round(start, 3), round(end, 3)] for start, end in spans[:MAX_FOUND]]
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))


def read_dcase2022(path: str | os.PathLike) -> tuple[list[str], list[list[str]]]:
    """
    Read the captions [Q] and their ranked file names [Q] of [10] from a ranked output of DCASE 2022.

    Raises:
        DataError: the file is missing or faulty.
    """
    rows = [row for _, row in read_rows(Path(path), ["caption", *RANK_COLUMNS])]
    return [row["caption"] for row in rows], [[row[name] for name in RANK_COLUMNS] for row in rows]


def read_dcase2025(path: str | os.PathLike) -> tuple[list[str], list[str], np.ndarray]:
    """
    Read captions [Q], file names [A] and scores [Q, A] float32 from a score matrix of DCASE 2025.

    The header of the first column is ignored.

    Raises:
        DataError: the file is missing or faulty; the message names the line.
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
        raise DataError(f"{path}: found no query, expected one per line; write the file again")
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


# --------------------------------------------------------------------------------------------------------------- scores


def score_ranked_output(output: Path, captions: Path) -> dict[str, float]:
    """
    Score a ranked output in the submission format of DCASE 2022 task 6b.

    As in the challenge, only a caption's own recording is relevant, even if other recordings have an equal caption.

    Args:
        output: CSV file with the columns `caption` and `file_name_1` to `file_name_10`, best first, one line per query.
        captions: the ground truth, such as Clotho's clotho_captions_evaluation.csv. The lines of `output` must be all
            its captions in its order, because captions repeat and cannot be keys.

    Returns:
        `R@1`, `R@5`, `R@10`, `mAP@10`, between 0 and 1.

    Raises:
        DataError: a file is missing or faulty, or the two do not belong together.
    """
    _check_pair(output, captions, RANKED, [CAPTIONS])
    queries, rankings = read_dcase2022(output)
    relevant = _recordings_of(queries, output, captions)
    try:
        return load_retrieval_metric().compute(rankings=rankings, references=relevant)
    except ValueError as error:  # a recording is twice in a line
        raise DataError(f"{output}: {error}; write the file again") from error


def score_matrix(output: Path, captions: Path) -> dict[str, float]:
    """
    Score a matrix of scores in the submission format of DCASE 2025 task 6.

    As in the challenge, the relevant recordings of a query are those that `captions` names for it, even if other
    recordings have equal captions.

    Args:
        output: CSV file with one line per query and one column per recording, see `write_dcase2025`.
        captions: the ground truth. Either a file like Clotho's clotho_captions_evaluation.csv, all of whose captions
            are the lines of `output` in order; or the challenge's annotations with the columns `query` and
            `audio_filenames`, a Python list of all recordings that the query describes. With annotations, only the
            annotated queries are scored; each is looked up in `output` by its text.

    Returns:
        `R@1`, `R@5`, `R@10`, `mAP@10`, `mAP@16`, between 0 and 1, and `MedR`. AP@k is divided by the number of relevant
        recordings or by k, whichever is less. The challenge's baseline always divides by the former, which is the same
        for mAP@16 on its annotations, because none has more than 12.

    Raises:
        DataError: a file is missing or faulty, or the two do not belong together.
    """
    _check_pair(output, captions, None, [CAPTIONS, ANNOTATIONS])
    queries, file_names, scores = read_dcase2025(output)
    column_of = {name: column for column, name in enumerate(file_names)}
    if _kind(captions) == ANNOTATIONS:
        rows, relevant = _annotated(queries, output, captions)
    else:
        rows, relevant = list(range(len(queries))), [[name] for name in _recordings_of(queries, output, captions)]
    if missing := {name for names in relevant for name in names if name not in column_of}:
        raise DataError(
            f"{output}: found no column {sorted(missing)[0]!r}, expected one for each recording of {captions} "
            f"({len(missing)} are missing); write the scores of all of them"
        )
    columns = [[column_of[name] for name in names] for names in relevant]
    return load_retrieval_metric().compute(predictions=scores[rows], references=columns, map_at=MATRIX_MAP_AT)


def is_ranked_output(output: Path) -> bool:
    """
    Tell by its columns whether a file is a ranked output of DCASE 2022 rather than a matrix of DCASE 2025.

    Raises:
        DataError: the file cannot be read.
    """
    return _kind(output) == RANKED


def _kind(path: Path) -> str | None:
    """Return which of the files with known columns this is; a matrix is none of them."""
    columns = set(_columns(path))
    return next((kind for kind, known in COLUMNS_OF_KIND.items() if known <= columns), None)


def _check_pair(output: Path, captions: Path, expected: str | None, truths: Sequence[str]) -> None:
    """
    Raises:
        DataError: the kinds of the files do not belong together.
    """
    kinds = {path: _kind(path) for path in (output, captions)}
    if kinds[output] != expected or kinds[captions] not in truths:
        found = " and ".join(f"{kind or _other(path)} ({path})" for path, kind in kinds.items())
        raise DataError(f"found {found}, expected two files that belong together: {PAIRS}")


def _other(path: Path) -> str:
    columns = _columns(path)
    return f"a table of the columns {', '.join(columns[:5])}{', ...' if len(columns) > 5 else ''}"


def _columns(path: Path) -> list[str]:
    for _, row in read_rows(path):
        return [name for name in row if name is not None]
    raise DataError(f"{path}: found no line, expected a CSV file with a header; fetch it again")


def _recordings_of(queries: Sequence[str], output: Path, captions: Path) -> list[str]:
    """
    Return the recording that each query describes.

    Raises:
        DataError: the queries are not all the captions in order.
    """
    truth = [(caption, file_name) for file_name, texts in read_captions(captions).items() for caption in texts]
    if len(queries) != len(truth):
        raise DataError(
            f"{output}: found {len(queries)} queries, expected the {len(truth)} captions of {captions}, one per line; "
            "give the two files of one test set"
        )
    for number, (query, (caption, _)) in enumerate(zip(queries, truth, strict=True), start=2):
        if query.strip() != caption.strip():
            raise DataError(
                f"{output}:{number}: found the caption {query!r}, expected {caption!r} as {captions} has it; "
                "give the two files of one test set"
            )
    return [file_name for _, file_name in truth]


def _annotated(queries: Sequence[str], output: Path, annotations: Path) -> tuple[list[int], list[list[str]]]:
    """Return the row of each annotated query, and its relevant recordings."""
    row_of = {query.strip(): row for row, query in reversed(list(enumerate(queries)))}  # equal queries: the first
    rows, relevant = [], []
    for number, row in read_rows(annotations, ["query", "audio_filenames"]):
        try:
            names = ast.literal_eval(row["audio_filenames"])
        except (ValueError, SyntaxError) as error:
            names = error
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise DataError(
                f"{annotations}:{number}: audio_filenames: found {row['audio_filenames']!r}, expected a list of file "
                "names; fetch the file again"
            )
        if row["query"].strip() not in row_of:
            raise DataError(
                f"{output}: found no line for the query {row['query']!r} of {annotations}:{number}, expected one for "
                "each; give the two files of one test set"
            )
        rows.append(row_of[row["query"].strip()])
        relevant.append(names)
    return rows, relevant
