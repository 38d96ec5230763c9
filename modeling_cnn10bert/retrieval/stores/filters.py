"""Search filters in the languages of the stores: SQL for LanceDB, boolean expressions for Milvus."""

from collections.abc import Callable, Iterable, Sequence

from ..records import FIRST_NS, LAST_NS, SearchFilter, as_nanoseconds
from .paths import encode_path, folder_range

_MILVUS_ESCAPES = {"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r"}


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
        terms.append(f"duration >= {float(where.min_duration)!r}")
    if where.max_duration is not None:
        terms.append(f"duration <= {float(where.max_duration)!r}")
    if where.folders:
        ranges = [folder_range(folder) for folder in where.folders]
        below = [f"(path >= {text(first)} {both} path < {text(end)})" for first, end in ranges]
        terms.append(f"({f' {either} '.join(below)})")
    if where.formats:
        terms.append(f"format {among} {listed([text(encode_path(name)) for name in where.formats])}")
    # A limit outside the times that stores hold admits everything or nothing.
    nothing = f"modified_ns < {FIRST_NS}"
    if where.modified_after is not None:
        after = as_nanoseconds(where.modified_after)
        if after > FIRST_NS:
            terms.append(f"modified_ns >= {after}" if after <= LAST_NS else nothing)
    if where.modified_before is not None:
        before = as_nanoseconds(where.modified_before)
        if before <= LAST_NS:
            terms.append(f"modified_ns < {before}" if before > FIRST_NS else nothing)
    return f" {both} ".join(terms) or None
