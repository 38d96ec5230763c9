"""Common code of the stores: recordings to rows, one per window, and back; exact scores; checks of the input."""

import contextlib
import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import MissingIndexError, RetrievalError
from ..records import READABLE_VERSIONS, EmbeddedFile, FileRecord, Hit, IndexInfo
from .paths import decode_path, encode_path

RECORD_COLUMNS = ("path", "content_hash", "size", "modified_ns", "duration")  # the fields of a `FileRecord`
# Columns of every store, by their Arrow names; each store adds its vectors and its own columns.
COLUMN_TYPES = {
    "path": "string",
    "content_hash": "string",
    "size": "int64",
    "modified_ns": "int64",
    "duration": "float64",
    "folder": "string",
    "format": "string",
    "window": "int32",
    "windows": "int32",
    "start": "float64",
    "end": "float64",
}
WINDOW_COLUMNS = ("window", "windows", "start", "end", "vector")  # number and count of windows, seconds, embedding


def chunked(values: Iterable[str], size: int) -> Iterator[list[str]]:
    """Cut values into lists of at most `size`."""
    values = list(values)
    for start in range(0, len(values), size):
        yield values[start : start + size]


def rows_of(file: EmbeddedFile) -> list[dict[str, Any]]:
    """Convert a recording to rows, one per window; each row repeats the record."""
    record = {
        "path": encode_path(file.record.path),
        "content_hash": file.record.content_hash,
        "size": file.record.size,
        "modified_ns": file.record.modified_ns,
        "duration": file.record.duration,
        "folder": encode_path(file.record.folder),  # to filter by, as is the format
        "format": encode_path(file.record.format),
    }
    return [
        {**record, "window": window, "windows": len(file.spans), "start": start, "end": end, "vector": embed}
        for window, ((start, end), embed) in enumerate(
            zip(file.spans, np.asarray(file.embeds, dtype=np.float32), strict=True)
        )
    ]


def record_of(row: Mapping[str, Any]) -> FileRecord:
    values = {name: row[name] for name in RECORD_COLUMNS}
    return FileRecord(**{**values, "path": decode_path(values["path"])})


def file_of(rows: Sequence[Mapping[str, Any]], embeds: np.ndarray) -> EmbeddedFile:
    """Convert all rows of one recording, in any order, and their embeddings [W, D] to the recording."""
    order = sorted(range(len(rows)), key=lambda position: rows[position]["window"])
    spans = [(rows[position]["start"], rows[position]["end"]) for position in order]
    return EmbeddedFile(record_of(rows[0]), spans, np.ascontiguousarray(embeds[order], dtype=np.float32))


def ranked_hits(rows: Iterable[Mapping[str, Any]], embeds: np.ndarray, query: np.ndarray) -> list[Hit]:
    """
    Convert the rows that a search found to hits, best first; equal scores are sorted by path and start.

    Args:
        rows: N rows, in any order.
        embeds: [N, D] float32, their vectors.
        query: [D].
    """
    rows = list(rows)
    if not rows:
        return []
    # The rounding of a matrix product depends on the position of a row, so scores are computed row by row: the same
    # vector always has the same score.
    scores = (embeds.astype(np.float64) * query.astype(np.float64)).sum(axis=1).tolist()
    hits = [
        Hit(record_of(row), score, row["start"], row["end"], embed)
        for row, score, embed in zip(rows, scores, embeds, strict=True)
    ]
    return sorted(hits, key=lambda hit: (-hit.score, hit.record.path, hit.start))


@contextlib.contextmanager
def index_errors(location: str, done: str, advice: str, reason: Callable[[Exception], str] = str) -> Iterator[None]:
    """
    Convert any exception of a store's library into one error class.

    Args:
        location: location of the index.
        done: the failed action: "opened", "read" or "written".
        advice: what the user should do.
        reason: the library's exception -> its message.
    """
    try:
        yield
    except RetrievalError:
        raise
    except Exception as error:
        raise RetrievalError(f"{location}: the index cannot be {done} ({reason(error)}); {advice}") from error


# ---------------------------------------------------------------------------------------------------------- checks


def checked_files(files: Sequence[EmbeddedFile], info: IndexInfo, location: str) -> list[EmbeddedFile]:
    """Check the recordings for an index; of two with the same path, keep the last.

    Raises:
        RetrievalError: a recording has no windows, or its embeddings are not from the index's model.
    """
    for file in files:
        path, dimension = file.record.path, info.model.dimension
        if not file.spans:
            raise RetrievalError(f"{path!r}: found no window, expected at least one; leave the recording out")
        if file.embeds.shape != (len(file.spans), dimension):
            raise RetrievalError(
                f"{path!r}: found embeddings {list(file.embeds.shape)}, expected {[len(file.spans), dimension]}, one "
                f"per window, by the model of {location}, {info.model.name}; embed it with that model, or make another "
                "index"
            )
        if not np.isfinite(file.embeds).all():
            raise RetrievalError(f"{path!r}: found NaN or infinite values in its embeddings; check the model")
    return list({file.record.path: file for file in files}.values())


def checked_query(query: np.ndarray, info: IndexInfo, location: str) -> np.ndarray:
    """Check a query and return it as [D] float32.

    Raises:
        RetrievalError: it is not an embedding by the index's model.
    """
    query = np.asarray(query, dtype=np.float32)
    if query.shape != (info.model.dimension,) or not np.isfinite(query).all():
        found = list(query.shape) if np.isfinite(query).all() else "NaN or infinite values"
        raise RetrievalError(
            f"query: found {found}, expected the {info.model.dimension} values of an embedding by the model of "
            f"{location}, {info.model.name}; embed it with that model"
        )
    return query


def checked_records(records: Mapping[str, FileRecord]) -> Mapping[str, FileRecord]:
    """Check that in old path -> record, the new paths differ from one another.

    Raises:
        RetrievalError: two recordings would have one path.
    """
    seen: dict[str, str] = {}
    for old, record in records.items():
        if seen.setdefault(record.path, old) != old:
            raise RetrievalError(
                f"{record.path!r}: found two recordings to get this path, {seen[record.path]!r} and {old!r}; "
                "a file is one recording"
            )
    return records


def read_info(text: str | bytes, location: str) -> IndexInfo:
    """Read the `IndexInfo` that an index holds as JSON.

    Raises:
        RetrievalError: it is not JSON, or its format is not readable by this version.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RetrievalError(
            f"{location}: found no JSON ({error}), expected what an index was made with; this is no index, or a "
            "damaged one: make the index again elsewhere"
        ) from error
    version = fields.get("format_version") if isinstance(fields, dict) else None
    try:
        if version in READABLE_VERSIONS and not isinstance(version, bool):
            return IndexInfo.from_dict(fields)
        found = f"format {version!r}"
    except (TypeError, ValueError, KeyError) as error:
        found = f"fields that do not belong to format {version} ({str(error)[:200]})"
    raise RetrievalError(
        f"{location}: found an index of {found}, expected format {' or '.join(map(str, READABLE_VERSIONS))}; "
        "make a new index with this version, in another place"
    )


def missing_index(location: str) -> MissingIndexError:
    return MissingIndexError(
        f"{location}: found no index; make one of a folder of recordings: "
        f"cnn10bert index FOLDER --index {shlex.quote(location)}"
    )
