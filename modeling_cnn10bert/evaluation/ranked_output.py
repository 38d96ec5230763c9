"""The ranked output of a system that others published, scored by the metric of this project."""

import pathlib

from ..data.clotho import read_captions
from ..data.entries import PreparationError
from ..data.tables import read_rows
from .audio_text_retrieval.audio_text_retrieval import ranking_metrics

RANKS = 10


def score_ranked_output(output: pathlib.Path, captions: pathlib.Path) -> dict[str, float]:
    """
    Scores a ranked output as participants of DCASE 2022 task 6b handed it in.

    Args:
        output: CSV file with the columns `caption` and `file_name_1` to `file_name_10`, best first, a line a query.
        captions: the ground truth, as Clotho's clotho_captions_evaluation.csv. The lines of `output` are all its
            captions in its order: captions repeat, so they are no keys.

    Returns:
        `R@1`, `R@5`, `R@10`, `mAP@10`, between 0 and 1.

    Raises:
        PreparationError: a file is missing or faulty, or the two do not belong together.
    """
    names = [f"file_name_{rank}" for rank in range(1, RANKS + 1)]
    lines = list(read_rows(output, ["caption", *names], "utf-8-sig"))
    truth = [(caption, file_name) for file_name, texts in read_captions(captions).items() for caption in texts]
    if len(lines) != len(truth):
        raise PreparationError(
            f"{output}: found {len(lines)} queries, expected the {len(truth)} captions of {captions}, a line each"
        )
    for (number, row), (caption, _) in zip(lines, truth, strict=True):
        if row["caption"].strip() != caption:
            raise PreparationError(
                f"{output}:{number}: found the caption {row['caption']!r}, expected {caption!r} as {captions} has it; "
                "give the two files of one test set"
            )
    return ranking_metrics([[row[name] for name in names] for _, row in lines], [name for _, name in truth])
