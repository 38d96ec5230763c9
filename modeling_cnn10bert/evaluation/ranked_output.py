"""Scores of a challenge's output files, ours or published ones, by the metric of this project."""

import ast
import pathlib
from collections.abc import Sequence

from ..data.recipes.clotho import CAPTION_COLUMNS, read_captions
from ..data.tables import read_rows
from ..errors import DataError
from .metric import load_retrieval_metric
from .submissions import RANK_COLUMNS, RANKS, read_dcase2022, read_dcase2025

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


def score_ranked_output(output: pathlib.Path, captions: pathlib.Path) -> dict[str, float]:
    """
    Score a ranked output as participants of DCASE 2022 task 6b handed it in.

    As in the challenge, each caption has one right recording, its own, also where other recordings have equal captions.

    Args:
        output: CSV file with the columns `caption` and `file_name_1` to `file_name_10`, best first, a line a query.
        captions: the ground truth, as Clotho's clotho_captions_evaluation.csv. The lines of `output` are all its
            captions in its order: captions repeat, so they are no keys.

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
    except ValueError as error:  # a recording twice in a line
        raise DataError(f"{output}: {error}; write the file again") from error


def score_matrix(output: pathlib.Path, captions: pathlib.Path) -> dict[str, float]:
    """
    Score a matrix of scores as participants of DCASE 2025 task 6 handed it in.

    As in the challenge, the right recordings of a query are those that `captions` names for it, also where other
    recordings have equal captions.

    Args:
        output: CSV file of a line a query, a column a recording, see `write_dcase2025`.
        captions: the ground truth, either as Clotho's clotho_captions_evaluation.csv, all of whose captions are the
            lines of `output` in its order, or the challenge's annotations: columns `query` and `audio_filenames`, the
            latter a list as Python writes it of all recordings that the query describes. Then the annotated queries
            are scored; each is looked up in `output` by its text.

    Returns:
        `R@1`, `R@5`, `R@10`, `mAP@10`, `mAP@16`, between 0 and 1, and `MedR`. AP@k is divided by the number of relevant
        recordings or by k, if that is less; the challenge's baseline always divides by the former, which is the same
        for mAP@16 on its annotations, as none has more than 12.

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


def is_ranked_output(output: pathlib.Path) -> bool:
    """
    Tell by its columns whether a file is a ranked output of DCASE 2022, and not a matrix of DCASE 2025.

    Raises:
        DataError: the file cannot be read.
    """
    return _kind(output) == RANKED


def _kind(path: pathlib.Path) -> str | None:
    """Find which of the files with known columns this is; none of them has the columns of a matrix."""
    columns = set(_columns(path))
    return next((kind for kind, known in COLUMNS_OF_KIND.items() if known <= columns), None)


def _check_pair(output: pathlib.Path, captions: pathlib.Path, expected: str | None, truths: Sequence[str]) -> None:
    """
    Raises:
        DataError: the files are not of kinds that belong together.
    """
    kinds = {path: _kind(path) for path in (output, captions)}
    if kinds[output] != expected or kinds[captions] not in truths:
        found = " and ".join(f"{kind or _other(path)} ({path})" for path, kind in kinds.items())
        raise DataError(f"found {found}, expected two files that belong together: {PAIRS}")


def _other(path: pathlib.Path) -> str:
    columns = _columns(path)
    return f"a table of the columns {', '.join(columns[:5])}{', ...' if len(columns) > 5 else ''}"


def _columns(path: pathlib.Path) -> list[str]:
    for _, row in read_rows(path):
        return [name for name in row if name is not None]
    raise DataError(f"{path}: found no line, expected a CSV file with a header; fetch it again")


def _recordings_of(queries: Sequence[str], output: pathlib.Path, captions: pathlib.Path) -> list[str]:
    """
    The recording that each query describes.

    Raises:
        DataError: the queries are not all the captions in their order.
    """
    truth = [(caption, file_name) for file_name, texts in read_captions(captions).items() for caption in texts]
    if len(queries) != len(truth):
        raise DataError(
            f"{output}: found {len(queries)} queries, expected the {len(truth)} captions of {captions}, a line each; "
            "give the two files of one test set"
        )
    for number, (query, (caption, _)) in enumerate(zip(queries, truth, strict=True), start=2):
        if query.strip() != caption.strip():
            raise DataError(
                f"{output}:{number}: found the caption {query!r}, expected {caption!r} as {captions} has it; "
                "give the two files of one test set"
            )
    return [file_name for _, file_name in truth]


def _annotated(
    queries: Sequence[str], output: pathlib.Path, annotations: pathlib.Path
) -> tuple[list[int], list[list[str]]]:
    """The row of each annotated query, and its relevant recordings."""
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
