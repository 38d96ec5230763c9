"""CSV files of captions and metadata, as the publishers of data sets give them."""

import csv
import pathlib
from collections.abc import Collection, Iterator

from .entries import PreparationError


def read_rows(path: pathlib.Path, columns: Collection[str], encoding: str) -> Iterator[tuple[int, dict[str, str]]]:
    """
    The lines of a CSV file, each with its number: column -> cell, empty where a line is too short.

    Raises:
        PreparationError: the file cannot be read, or lacks one of the columns; the message lists those that it has.
    """
    try:
        with path.open(newline="", encoding=encoding) as file:
            reader = csv.DictReader(file, restval="")
            if missing := set(columns) - set(reader.fieldnames or ()):
                raise PreparationError(
                    f"{path}: found the columns {', '.join(reader.fieldnames or ())}, expected "
                    f"{', '.join(sorted(missing))} too; fetch the file again"
                )
            for row in reader:
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PreparationError(f"{path}: found {error}, expected a CSV file; fetch it again") from error
