"""Read tables of captions and metadata as people and publishers write them: CSV files and JSON lines.

All tables are read here. UTF-8 and UTF-16 are recognized, and commas, semicolons and tabs between cells. Anything else
is refused with its line number, so that no cell is taken for another one.
"""

import ast
import contextlib
import csv
import io
import json
import os
import pathlib
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from ..errors import DataError
from ..processing_cnn10bert import caption_words

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
CAPTION_COLUMNS = ("captions", "caption")  # and caption_1, caption_2, ...
JSON_LINES = (".jsonl", ".ndjson")
QUOTED_TEXT = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
TABLES = (".csv", ".tsv", *JSON_LINES)


def read_text(path: str | os.PathLike, encoding: str | None = None) -> str:
    """
    Read a text file, with its line ends as they are.

    Args:
        path: the file.
        encoding: encoding of the file; by default UTF-8, or UTF-16 where the first bytes say so.

    Raises:
        DataError: the file cannot be read or is in another encoding; the message names the line.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # reading a pipe or a device may never end
            raise OSError("no file but a folder, a pipe or a device")
        content = pathlib.Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: found {error}, expected a text file; check the path") from error
    if encoding is None:
        encoding = "utf-8-sig"
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            encoding = "utf-16"
        elif content[:2].count(0) == 1:  # every other byte of ASCII in UTF-16 is zero
            encoding = "utf-16-le" if content[1] == 0 else "utf-16-be"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        if not encoding.startswith("utf-8"):
            raise DataError(f"{path}: found {error}, expected UTF-8 text; save the file as UTF-8") from error
        # A BOM was removed before the position was counted, which moves it within the first line only.
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}:{line}: found the byte 0x{content[error.start]:02x}, which is not UTF-8, expected UTF-8 or UTF-16 "
            "text; save the file as UTF-8 (spreadsheets call it CSV UTF-8)"
        ) from error


def read_rows(
    path: str | os.PathLike,
    columns: Collection[str] = (),
    encoding: str | None = None,
    faults: list[str] | None = None,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """
    Read a table: a CSV file with a header, or a file of JSON lines by its ending.

    Args:
        path: the file.
        columns: columns that it must have.
        encoding: as in `read_text`.
        faults: a list that takes the message of each faulty line, which is then left out. By default a faulty line is
            an error.

    Yields:
        The number of the line, and column -> cell: a text, or any JSON value. Empty lines are skipped.

    Raises:
        DataError: the file cannot be read, lacks a column, or has a faulty line: another number of cells than
            the header, an open quote, or no JSON object.
    """
    path = pathlib.Path(path)
    text = read_text(path, encoding)
    rows = _json_rows(text) if path.suffix.lower() in JSON_LINES else _csv_rows(path, text, columns)
    for number, row in rows:
        if isinstance(row, dict):
            yield number, row
        elif faults is None:
            raise DataError(f"{path}:{number}: {row}")
        else:
            faults.append(f"{path.name}:{number}: {row}")


def _json_rows(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield the number of the line, and the object or what is wrong with it."""
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines(): captions may hold U+2028
        row = None
        with contextlib.suppress(ValueError, RecursionError):
            row = read_json(line)
        if isinstance(row, dict):
            yield number, row
        elif line.strip():
            yield number, f"found {line.strip()[:80]!r}, expected one JSON object; correct the line"


def read_json(line: str) -> Any:
    """
    Read a line of JSON.

    Raises:
        ValueError, RecursionError: it is not JSON, or has half of a surrogate pair, which no text of a table can hold.
    """
    value = json.loads(line)
    if "\\u" in line:
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _csv_rows(path: pathlib.Path, text: str, columns: Collection[str]) -> Iterator[tuple[int, dict[str, str] | str]]:
    """Yield the number of the line, and column -> cell or what is wrong with the line."""
    # The right separator gives most of the columns, and then most cells. Commas win a tie.
    headers = {}
    for name in SEPARATORS:
        _, cells = next(read_cells(path, text, name), (1, []))
        headers[name] = [cell.strip() for cell in cells]
    separator = max(headers, key=lambda name: (len(set(columns) & set(headers[name])), len(headers[name])))
    header = headers[separator]
    if missing := set(columns) - set(header):
        raise DataError(
            f"{path}: found the columns {_shown(header) or 'none'}, expected {', '.join(sorted(missing))} too; "
            "correct the header, or fetch the file again"
        )
    if twice := {name for name in header if name and header.count(name) > 1}:
        raise DataError(f"{path}: found the column {sorted(twice)[0]!r} twice, expected it once; rename one")

    rows = read_cells(path, text, separator)
    next(rows, None)  # the header, which an empty file lacks
    for number, cells in rows:
        if not cells or (len(cells) > 1 and not any(cell.strip() for cell in cells)):
            continue
        if len(cells) != len(header):
            hint = f"the cells are separated by {SEPARATORS[separator]}, as in the header"
            if len(cells) > len(header):
                hint = f"a text with {SEPARATORS[separator]} in it needs quotes around it"
            found = f"found {len(cells)} cells ({', '.join(map(repr, cells))[:120]})"
            yield number, f"{found}, expected {len(header)} ({', '.join(header)}); {hint}"
            continue
        # A line inside a cell that could be its own row: a quote before it was not closed.
        lines = [line for cell in cells if "\n" in cell or "\r" in cell for line in cell.splitlines()[1:]]
        lines = [line for line in lines if line.count(separator) == len(header) - 1]
        swallowed = [line for line in lines if line.split(separator)[0].strip()]
        if swallowed:
            found = f"found a cell that holds a whole line more ({swallowed[0][:80]!r})"
            yield number, f"{found}, expected a quote that ends before it; close the quote, or write it in one line"
        else:
            yield number, dict(zip(header, cells, strict=True))


def _shown(header: Sequence[str]) -> str:
    """List columns on one line, however many there are and whatever their names hold."""
    names = ", ".join(name if name.isprintable() else repr(name) for name in header)
    return names if len(names) <= 300 else f"{names[:300]}..."


def read_cells(
    path: str | os.PathLike, text: str, separator: str = ",", spaces: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """
    Split CSV text into cells.

    Args:
        path: of the text, for errors.
        text: of the whole file.
        separator: between cells.
        spaces: whether a space may follow a separator.

    Yields:
        The number of the line where a row begins, and its cells; an empty line has none.

    Raises:
        DataError: a quote is not closed, or is followed by anything but a separator.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=spaces, strict=True)
    number = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{path}:{number}: found a faulty cell ({error}), expected quotes only around a whole cell, and two "
                'quotes ("") for one inside it; correct the line'
            ) from error
        yield number, cells
        number = reader.line_num + 1


# -------------------------------------------------------------------------------------------------------- captions


def has_word(text: str) -> bool:
    """Tell whether a caption has a word; without one, no token is left of it."""
    # An ASCII letter or digit always makes a word, and is found 50 times faster.
    return re.search("[A-Za-z0-9]", text) is not None or bool(caption_words(text))


def caption_columns_of(columns: Sequence[str], asked: Sequence[str], where: str) -> Sequence[str]:
    """
    Return the columns that hold captions: those asked for, or `captions`, or `caption` and `caption_1`, ...

    Raises:
        DataError: there are no such columns; the message lists those that exist.
    """
    missing = [name for name in asked if name not in columns]
    numbered = [name for name in columns if name == "caption" or name.removeprefix("caption_").isdigit()]
    found = asked or (["captions"] if "captions" in columns else numbered)
    if missing or not found:
        raise DataError(
            f"{where}: found no column {' or '.join(missing or CAPTION_COLUMNS)} for the captions, expected one of "
            f"{_shown(list(map(str, columns)))}; say which of them holds the captions, or rename it"
        )
    return found


def captions_of(values: Iterable[Any], where: str) -> list[str]:
    """
    Return the captions in cells, each a text, a list of texts, or a list written as text.

    Captions keep their spaces, because submissions are matched by them. Blank captions are dropped.

    Raises:
        DataError: a value is none of these.
    """
    captions: list[Any] = []
    for value in values:
        if isinstance(value, str):
            value = _written_list(value, where)
        captions += value if isinstance(value, list | tuple) else [value]
    for caption in captions:
        if not isinstance(caption, str | None):
            raise DataError(f"{where}: captions: found {caption!r}, expected texts; correct the line")
    return [caption for caption in captions if caption and caption.strip()]


def _written_list(text: str, where: str) -> str | list[str]:
    """Read a list of texts as JSON, Python or NumPy write it; any other text is returned as it is."""
    stripped = re.sub(r"^array\((.*?)(,\s*dtype=\w+)?\)$", r"\1", text.strip(), flags=re.DOTALL)
    if stripped[:1] + stripped[-1:] not in ("[]", "()", "{}") or len(stripped) < 2:
        return text
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(stripped)
        if isinstance(value, list):
            return value
    # NumPy puts no comma between texts. Python would join them, so they are read one by one.
    with contextlib.suppress(SyntaxError, ValueError):
        texts = [ast.literal_eval(quoted) for quoted in QUOTED_TEXT.findall(stripped)]
        if set(QUOTED_TEXT.sub("", stripped)) <= set("[](){}, \t\r\n"):
            return texts
    if stripped[1:].lstrip()[0] in "\"'" or (stripped[0] == "[" and ("," in stripped or '"' in stripped)):
        raise DataError(
            f"{where}: captions: found {text.strip()[:80]!r}, expected a list of texts as JSON writes it, such as "
            '["a dog barks", "rain falls"]; correct the line'
        )
    return text  # a caption in brackets, such as [music]
