"""Search filters in the languages of the stores: SQL for LanceDB, boolean expressions for Milvus."""

import datetime
import math
import numbers
from collections.abc import Callable, Iterable, Sequence

from ...errors import RetrievalError
from ..records import FIRST_NS, LAST_NS, SearchFilter
from .paths import encode_path, folder_range

_MILVUS_ESCAPES = {"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r"}
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def to_sql(where: SearchFilter | None) -> str | None:
    """Return a condition on the columns of LanceDB's table; `None` if the filter admits everything."""
    return _conjunction(where, sql_text, lambda values: f"({', '.join(values)})", ("AND", "OR", "IN"))


def to_milvus(where: SearchFilter | None) -> str:
    """Return an expression on the fields of a Milvus collection; empty if the filter admits everything."""
    return _conjunction(where, milvus_text, lambda values: f"[{', '.join(values)}]", ("and", "or", "in")) or ""


def sql_text(value: str) -> str:
    """Return an SQL string literal, in which only the quote is special."""
    return "'" + value.replace("'", "''") + "'"


def milvus_text(value: str) -> str:
    """
    Return a Milvus string literal.

    The escapes are those of C, but Milvus Lite knows only a few, so only what must be escaped is.
    """
    return '"' + "".join(_MILVUS_ESCAPES.get(character, character) for character in value) + '"'


def sql_in(column: str, values: Iterable[str]) -> str:
    return f"{column} IN ({', '.join(map(sql_text, values))})"


def milvus_in(field: str, values: Iterable[str]) -> str:
    return f"{field} in [{', '.join(map(milvus_text, values))}]"


def nanoseconds(moment: datetime.datetime) -> int:
    """Return the exact nanoseconds since 1970; a moment without a time zone is local time."""
    if moment.tzinfo is None:
        try:
            moment = moment.astimezone()
        except (OverflowError, ValueError, OSError):  # there is no local time at the ends of the calendar
            moment = moment.replace(tzinfo=datetime.timezone.utc)
    return (moment - _EPOCH) // datetime.timedelta(microseconds=1) * 1000


def _moment(name: str, value: datetime.datetime) -> int:
    if not isinstance(value, datetime.datetime):
        raise RetrievalError(f"{name}: found {value!r}, expected a datetime.datetime; leave it out for no limit")
    return nanoseconds(value)


def _seconds(name: str, value: float) -> str:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        raise RetrievalError(f"{name}: found {value!r}, expected a finite number of seconds; leave it out for no limit")
    return repr(float(value))


def _conjunction(
    where: SearchFilter | None,
    text: Callable[[str], str],
    listed: Callable[[Sequence[str]], str],
    words: tuple[str, str, str],
) -> str | None:
    if where is None:
        return None
    both, either, among = words
    terms = []
    if where.min_duration is not None:
        terms.append(f"duration >= {_seconds('min_duration', where.min_duration)}")
    if where.max_duration is not None:
        terms.append(f"duration <= {_seconds('max_duration', where.max_duration)}")
    if where.folders:
        ranges = [folder_range(folder) for folder in where.folders]
        below = [f"(path >= {text(first)} {both} path < {text(end)})" for first, end in ranges]
        terms.append(f"({f' {either} '.join(below)})")
    if where.formats:
        terms.append(f"format {among} {listed([text(encode_path(name)) for name in where.formats])}")
    # A limit outside the times that stores hold admits everything or nothing.
    nothing = f"modified_ns < {FIRST_NS}"
    if where.modified_after is not None:
        after = _moment("modified_after", where.modified_after)
        if after > FIRST_NS:
            terms.append(f"modified_ns >= {after}" if after <= LAST_NS else nothing)
    if where.modified_before is not None:
        before = _moment("modified_before", where.modified_before)
        if before <= LAST_NS:
            terms.append(f"modified_ns < {before}" if before > FIRST_NS else nothing)
    return f" {both} ".join(terms) or None
