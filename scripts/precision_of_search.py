"""Measure the precision of searches on a folder of recordings sorted into classes, with a question per class.

    python scripts/precision_of_search.py MODEL FOLDER QUESTIONS.csv [--only GLOB] [--index LOCATION]

FOLDER has a folder of recordings for each class; QUESTIONS.csv the columns `class` (the folder's name) and `question`.
`--only '5-*'` counts only recordings with such names, for example if a model was trained on the others. Prints a table
of precision@10 and of R-precision, which is the share of right ones among the first n if n recordings are of the class.
"""

import argparse
import csv
import fnmatch
import os
import sys
import tempfile
from pathlib import Path

from modeling_cnn10bert.errors import RetrievalError
from modeling_cnn10bert.evaluation.reports import markdown_table
from modeling_cnn10bert.retrieval.retriever import AudioRetriever

K = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("questions", type=Path)
    parser.add_argument("--only", default="*", help="names of the recordings that count; by default all")
    parser.add_argument("--index", help="where to keep the index; by default it is temporary")
    options = parser.parse_args()
    with options.questions.open(newline="", encoding="utf-8") as lines:
        questions = {row["class"]: row["question"] for row in csv.DictReader(lines)}
    with tempfile.TemporaryDirectory() as scratch:
        retriever = AudioRetriever.from_pretrained(options.model, index=options.index or f"{scratch}/index")
        print(retriever.index([options.folder]), file=sys.stderr)
        rows = [_row(retriever, options, *item) for item in questions.items()]
    total = [sum(values) / len(rows) for values in zip(*(row[2:] for row in rows), strict=True)]
    print(markdown_table(("class", "question", f"precision@{K}", "R-precision"), [*map(_cells, rows)]))
    print(f"mean: precision@{K} {total[0]:.3f}, R-precision {total[1]:.3f}, {options.only} of {options.folder.name}")


def _row(
    retriever: AudioRetriever, options: argparse.Namespace, name: str, question: str
) -> tuple[str, str, float, float]:
    of_class = fnmatch.filter(os.listdir(options.folder / name), options.only)
    found = [Path(hit.file) for hit in retriever.search(question, k=len(retriever.store))]
    right = [path.parent.name == name for path in found if fnmatch.fnmatch(path.name, options.only)]
    return name, question, sum(right[:K]) / K, sum(right[: len(of_class)]) / len(of_class)


def _cells(row: tuple[str, str, float, float]) -> tuple[str, str, str, str]:
    return (*row[:2], *(f"{value:.2f}" for value in row[2:]))


if __name__ == "__main__":
    try:
        main()
    except (RetrievalError, OSError) as error:
        sys.exit(f"error: {error}")
