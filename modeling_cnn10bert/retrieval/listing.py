"""Write search hits as a table, JSON, CSV, a playlist, Audacity labels or a Raven selection table."""

import csv
import datetime
import io
import json
import math
import os
import re
import sys
import unicodedata
import urllib.parse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .records import FileRecord, Hit, Tag

if TYPE_CHECKING:
    import pandas


FORMATS = ("table", "json", "csv", "m3u", "audacity", "raven")
HIT_FIELDS = ("rank", "score", "z_score", "file", "duration", "size", "modified", "start", "end")  # of JSON and CSV
RAVEN_COLUMNS = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Begin Path",
    "File Offset (s)",
    "Score",
)
RAVEN_HIGHEST = 16_000  # Hz; a hit spans all frequencies that the models of this package may hear
# Replacements for control characters, invisible characters and those that change the text direction.
UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
SURROGATES = re.compile("[\ud800-\udfff]")
WIDE = 10_000  # columns of a table that is not shown on a terminal: one line per hit


def listing(hits: Sequence[Hit], form: str, tags: Sequence[Sequence[Tag]] | None = None) -> bytes:
    """
    Return hits in one of `FORMATS`, encoded; the table has no colors.

    JSON and CSV are UTF-8. Bytes of a file name that are not UTF-8 are escaped: in JSON as by `os.fsdecode`, so that
    `os.fsencode` of the parsed value is the name; in CSV and the table as text. A playlist has the raw bytes.

    Args:
        hits: best first.
        form: one of `FORMATS`.
        tags: tags of each hit, best first.
    """
    if form == "json":
        return to_json(hit_rows(hits, tags))
    if form == "csv":
        return to_csv(hit_rows(hits, tags), HIT_FIELDS if tags is None else (*HIT_FIELDS, "tags"))
    if form == "m3u":
        return _playlist(hits)
    if form == "audacity":
        return _audacity_labels(hits)
    if form == "raven":
        return _raven_selections(hits)
    return table_text(hits_table(hits, tags)).encode("utf-8", "backslashreplace")


def hit_rows(hits: Sequence[Hit], tags: Sequence[Sequence[Tag]] | None = None) -> list[dict[str, Any]]:
    """Return each hit as a dictionary of JSON values; times in seconds."""
    rows = []
    for rank, hit in enumerate(hits, start=1):
        z_score = None if hit.z_score is None else round(hit.z_score, 3)
        row = {"rank": rank, "score": round(hit.score, 6), "z_score": z_score, **file_row(hit.record)}
        row |= {"start": round(hit.start, 3), "end": round(hit.end, 3)}
        if tags is not None:
            row["tags"] = tag_rows(tags[rank - 1])
        rows.append(row)
    return rows


def hits_to_dataframe(hits: Sequence[Hit]) -> "pandas.DataFrame":
    """Return hits as a table of one row per hit, with the fields of the JSON output; times in seconds."""
    import pandas

    return pandas.DataFrame(hit_rows(hits), columns=list(HIT_FIELDS))


def file_row(record: FileRecord) -> dict[str, Any]:
    """Return the record of a file as JSON values; a time outside the years 1 to 9999 is `None`."""
    modified: str | None
    try:
        moment = _EPOCH + datetime.timedelta(microseconds=record.modified_ns // 1000)
        modified = moment.astimezone().isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        modified = None
    return {
        "file": record.path,
        "duration": round(record.duration, 3),
        "size": record.size,
        "modified": modified,
    }


def tag_rows(tags: Sequence[Tag]) -> list[dict[str, Any]]:
    return [{"label": tag.label, "score": round(tag.score, 6)} for tag in tags]


def to_json(value: Any) -> bytes:
    """Encode as UTF-8 JSON; bytes of a name that are not UTF-8 are escaped, numbers that are not finite are `null`."""

    def finite(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: finite(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [finite(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    text = json.dumps(finite(value), ensure_ascii=False, indent=2)
    return (SURROGATES.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n").encode("utf-8")


def to_csv(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> bytes:
    """Write a table with a header; several tags in a cell are separated by semicolons."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        if isinstance(row.get("tags"), list):
            row = {**row, "tags": "; ".join(tag["label"] for tag in row["tags"])}
        writer.writerow(row)
    return file.getvalue().encode("utf-8", "backslashreplace")


def _playlist(hits: Sequence[Hit]) -> bytes:
    """Write an extended M3U; VLC starts at the window of a hit, other players at the beginning."""
    lines = [b"#EXTM3U"]
    for hit in hits:
        title = printable(os.path.basename(hit.file)).encode("utf-8")
        seconds = hit.record.duration
        length = max(1, round(seconds)) if math.isfinite(seconds) else -1  # unknown to a player
        lines.append(b"#EXTINF:%d,%b" % (length, title))
        if hit.start > 0:
            lines.append(b"#EXTVLCOPT:start-time=%b" % f"{hit.start:.3f}".encode())
        name = os.fsencode(hit.file)
        if any(byte < 32 for byte in name):  # would break the line, so write an address
            name = b"file://" + urllib.parse.quote(name).encode("ascii")
        lines.append(name)
    return b"\n".join(lines) + b"\n"


def _audacity_labels(hits: Sequence[Hit]) -> bytes:
    """Write a label track: start, end and, as the label, score and file name; a track belongs to one recording."""
    lines = [
        f"{hit.start:.6f}\t{hit.end:.6f}\t{hit.score:.3f} {printable(os.path.basename(hit.file))}\n" for hit in hits
    ]
    return "".join(lines).encode("utf-8")


def _raven_selections(hits: Sequence[Hit]) -> bytes:
    """Write a selection table, whose times count from the beginning of the first of the recordings in a row."""
    begins: dict[str, float] = {}
    total = 0.0
    for hit in hits:
        if hit.file not in begins:
            begins[hit.file] = total
            total += hit.record.duration
    lines = ["\t".join(RAVEN_COLUMNS)]
    for number, hit in enumerate(hits, start=1):
        times = [f"{begins[hit.file] + time:.6f}" for time in (hit.start, hit.end)]
        place = [printable(hit.file), f"{hit.start:.6f}", f"{hit.score:.6f}"]
        lines.append("\t".join([str(number), "Spectrogram 1", "1", *times, "0", str(RAVEN_HIGHEST), *place]))
    return ("\n".join(lines) + "\n").encode("utf-8")


# ------------------------------------------------------------------------------------------------------- terminal


def printable(text: str) -> str:
    """Escape control characters, invisible characters and bytes that are not UTF-8, for a terminal."""
    return "".join(
        _escape(character) if unicodedata.category(character) in UNPRINTABLE else character for character in text
    )


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte, as os.fsdecode has it
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def hits_table(hits: Sequence[Hit], tags: Sequence[Sequence[Tag]] | None = None):
    """Return hits as a rich table of plain text; a name with square brackets is shown as it is."""
    has_z_scores = any(hit.z_score is not None for hit in hits)
    columns = ["", ">score", *([">z"] if has_z_scores else []), "file", ">from", ">to", ">of"]
    columns += ["tags"] if tags is not None else []
    rows = []
    for rank, hit in enumerate(hits, start=1):
        row = [str(rank), f"{hit.score:.3f}"]
        if has_z_scores:
            row.append("" if hit.z_score is None else f"{hit.z_score:.1f}")
        row += [hit.file, clock(hit.start), clock(hit.end), clock(hit.record.duration)]
        if tags is not None:
            row.append(", ".join(f"{tag.label} {tag.score:.2f}" for tag in tags[rank - 1]))
        rows.append(row)
    return plain_table(columns, rows)


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]):
    """
    Return a rich table. A column whose name begins with `>` is right-aligned.

    Absolute paths in a column `file` are shown relative to the folder that they share, with a line above the table that
    names this folder.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column.startswith(">")
        table.add_column(Text(column[right:]), justify="right" if right else "left", overflow="fold", no_wrap=False)
    root = None
    if "file" in columns:
        place = columns.index("file")
        root = _shared_folder([row[place] for row in rows])
        if root is not None:
            rows = [[*row[:place], os.path.relpath(row[place], root), *row[place + 1 :]] for row in rows]
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table if root is None else Group(Text(f"in {printable(root)}:"), table)


def _shared_folder(paths: Sequence[str]) -> str | None:
    """Return the deepest folder that absolute paths share; `None` if it is the root of the file system."""
    if not paths or not all(map(os.path.isabs, paths)):
        return None
    try:
        root = os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError:  # several drives of Windows
        return None
    return None if root == os.path.dirname(root) else root


def table_text(table) -> str:
    """Return a rich table as text without colors, one line per row."""
    from rich.console import Console

    text = io.StringIO()
    Console(file=text, width=WIDE, color_system=None, force_terminal=False).print(table)
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def print_table(table) -> None:
    """Print a rich table, on a terminal in its width, to a pipe or file with one line per row."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(table)
    else:
        sys.stdout.buffer.write(table_text(table).encode("utf-8", "backslashreplace"))


def clock(seconds: float) -> str:
    """Format seconds as `3:07.5` or `1:03:07.5`; `?` if the length is unknown."""
    if not math.isfinite(seconds):
        return "?"
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    start = f"{hours}:{minutes:02d}" if hours else str(minutes)
    return f"{start}:{rest / 10:04.1f}"
