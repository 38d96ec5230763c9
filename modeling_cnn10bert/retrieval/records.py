"""Records of an index, and hits of a search."""

import contextlib
import dataclasses
import datetime
import math
import numbers
import os
from typing import Any

import numpy as np

from ..errors import RetrievalError

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
MAX_DIMENSION = 1_000_000  # of an embedding; far above that of any model
FORMAT_VERSION = 2  # of an index; raise it when older code can no longer read new indices
READABLE_VERSIONS = (1, 2)  # 1: windows are embedded at their own level

# The stores hold nanoseconds since 1970 in 64 bits, which are the years 1677 to 2262. -2**63 is left out because Milvus
# has no literal for it.
FIRST_NS, LAST_NS = 1 - 2**63, 2**63 - 1


@dataclasses.dataclass(frozen=True)
class ModelIdentity:
    """
    Identity of the model that made the embeddings of an index.

    Attributes:
        name: its folder (absolute) or Hub id.
        revision: the Hub's commit, `None` for a folder.
        fingerprint: digest of its weights, which decides whether two models are the same.
        dimension: width of its embeddings.
        features: parameters of its feature extractor, as JSON values.
    """

    name: str
    revision: str | None
    fingerprint: str
    dimension: int
    features: dict[str, Any]

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "ModelIdentity":
        """
        Raises:
            TypeError, ValueError: fields that are missing, unknown or of another type.
        """
        identity = cls(**fields)
        kinds = {"name": str, "fingerprint": str, "revision": str | None, "features": dict, "dimension": int}
        for name, kind in kinds.items():
            if not isinstance(getattr(identity, name), kind) or isinstance(getattr(identity, name), bool):
                raise TypeError(f"model.{name} {getattr(identity, name)!r}")
        if not 1 <= identity.dimension <= MAX_DIMENSION:
            raise ValueError(f"model.dimension {identity.dimension}")
        return identity


@dataclasses.dataclass(frozen=True)
class IndexInfo:
    """
    Settings that are fixed when an index is made, and stored in it.

    Attributes:
        model: the model that made its embeddings.
        window: maximum length of a window, in seconds.
        overlap: overlap of neighboring windows, in seconds.
        normalize_level: whether each window is scaled by `windows.normalize_level` before it is embedded.
        format_version: `FORMAT_VERSION` of the code that made it.
    """

    model: ModelIdentity
    window: float = 30.0
    overlap: float = 10.0
    normalize_level: bool = True
    format_version: int = FORMAT_VERSION

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "IndexInfo":
        """
        Raises:
            TypeError, ValueError: fields that are missing, unknown or of another type.
        """
        # Version 1 has no `normalize_level`.
        info = cls(**{"normalize_level": False, **fields, "model": ModelIdentity.from_dict(fields["model"])})
        for name in ("window", "overlap"):
            value = getattr(info, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{name} {value!r}")
        if not isinstance(info.normalize_level, bool):
            raise TypeError(f"normalize_level {info.normalize_level!r}")
        if not 0 <= info.overlap < info.window < float("inf"):
            raise ValueError(f"window {info.window} and overlap {info.overlap}")
        return info


@dataclasses.dataclass(frozen=True)
class FileRecord:
    """
    One recording of an index.

    Attributes:
        path: absolute, as the file system has it; bytes that are not UTF-8 are surrogate escapes, as by
            `os.fsdecode`.
        content_hash: digest of its bytes.
        size: in bytes.
        modified_ns: modification time in nanoseconds since 1970, from `FIRST_NS` to `LAST_NS`.
        duration: in seconds.
    """

    path: str
    content_hash: str
    size: int
    modified_ns: int
    duration: float

    @property
    def folder(self) -> str:
        return os.path.dirname(self.path)

    @property
    def format(self) -> str:
        """Return the file extension in lower case, without the dot."""
        return os.path.splitext(self.path)[1][1:].lower()


def file_stamp(status: os.stat_result) -> tuple[int, int]:
    """Return size and modification time as in a `FileRecord`; later years than 64 bits allow are clipped."""
    return status.st_size, min(max(status.st_mtime_ns, FIRST_NS), LAST_NS)


@dataclasses.dataclass(frozen=True)
class EmbeddedFile:
    """
    A recording with the embeddings of its windows.

    Attributes:
        record: the recording.
        spans: [W] start and end of each window in seconds.
        embeds: [W, D] float32, L2-normalized.
    """

    record: FileRecord
    spans: list[tuple[float, float]]
    embeds: np.ndarray


@dataclasses.dataclass(frozen=True)
class SearchFilter:
    """
    Filter of the recordings that a search may find; a field that is `None` or empty does not restrict.

    Args:
        min_duration, max_duration: of the whole recording in seconds, inclusive.
        folders: one or several; a recording must lie below one of them, at any depth. They become absolute paths, with
            `~` expanded and links resolved.
        formats: one or several allowed file extensions, such as `wav`. They become lower case, without the dot.
        modified_after, modified_before: the first inclusive, the second exclusive; aware, or local time. A date, or the
            text of either such as `2024-07-01`, becomes a `datetime`.

    Raises:
        RetrievalError: a field is of another kind, or a minimum is above its maximum.
    """

    min_duration: float | None = None
    max_duration: float | None = None
    # The types after `__post_init__`
    folders: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    modified_after: datetime.datetime | None = None
    modified_before: datetime.datetime | None = None

    def __post_init__(self):
        for name in ("min_duration", "max_duration"):
            _check_seconds(name, getattr(self, name))
        folders = [os.path.realpath(os.path.expanduser(folder)) for folder in _texts("folders", self.folders)]
        formats = [name.strip().lower().lstrip("*.") for name in _texts("formats", self.formats)]
        if wrong := [name for name in formats if os.sep in name]:
            raise RetrievalError(f"formats: found {wrong[0]!r}, expected file extensions, such as wav")
        # A frozen dataclass is set in this way.
        object.__setattr__(self, "folders", tuple(folders))
        object.__setattr__(self, "formats", tuple(formats))
        for name in ("modified_after", "modified_before"):
            object.__setattr__(self, name, _moment(name, getattr(self, name)))
        if None not in (self.min_duration, self.max_duration) and self.min_duration > self.max_duration:
            raise RetrievalError(
                f"min_duration is {self.min_duration} and max_duration {self.max_duration}, expected a minimum that is "
                "not above the maximum"
            )
        times = [as_nanoseconds(moment) for moment in (self.modified_after, self.modified_before) if moment is not None]
        if len(times) == 2 and times[0] >= times[1]:
            raise RetrievalError(
                f"modified_after is {self.modified_after} and modified_before {self.modified_before}, expected an "
                "earlier and a later time"
            )


def _check_seconds(name: str, value: Any) -> None:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if value is not None and not (is_number and math.isfinite(value)):
        raise RetrievalError(f"{name}: found {value!r}, expected a finite number of seconds; leave it out for no limit")


def _texts(name: str, values: Any) -> list[str]:
    """Return the texts of a field that holds one or several."""
    values = [values] if isinstance(values, str | os.PathLike) else list(values or ())
    if wrong := [value for value in values if not isinstance(value, str | os.PathLike)]:
        raise RetrievalError(f"{name}: found {wrong[0]!r}, expected texts")
    return [os.fsdecode(value) for value in values]


def _moment(name: str, value: Any) -> datetime.datetime | None:
    """Return the moment of a field that holds one, a day, which begins at midnight, or the text of either."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = datetime.datetime.fromisoformat(value)
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day)
    if value is not None and not isinstance(value, datetime.datetime):
        raise RetrievalError(
            f"{name}: found {value!r}, expected a datetime.datetime, or a text such as 2024-07-01 or 2024-07-01T12:30; "
            "leave it out for no limit"
        )
    return value


def as_nanoseconds(moment: datetime.datetime) -> int:
    """Return the exact nanoseconds since 1970; a moment without a time zone is local time."""
    if moment.tzinfo is None:
        try:
            moment = moment.astimezone()
        except (OverflowError, ValueError, OSError):  # there is no local time at the ends of the calendar
            moment = moment.replace(tzinfo=datetime.timezone.utc)
    return (moment - EPOCH) // datetime.timedelta(microseconds=1) * 1000


@dataclasses.dataclass(frozen=True)
class Hit:
    """
    A recording that a search found, or a moment of one.

    Attributes:
        record: the recording.
        score: inner product of the query with its best window; the cosine if the query has length 1. For a moment, with
            its best frame.
        start, end: start and end of that window or moment, in seconds.
        embed: [D] float32, the embedding of that window or frame.
        z_score: standard deviations by which the score is above the scores of `embed` with descriptions of everyday
            sounds (the test normalization of speaker verification); `None` for a hit of a sound alone.
    """

    record: FileRecord
    score: float
    start: float
    end: float
    embed: np.ndarray = dataclasses.field(repr=False, compare=False)
    z_score: float | None = None

    def __repr__(self) -> str:
        z_score = "" if self.z_score is None else f", z_score={self.z_score:.2f}"
        return f"Hit({self.file!r}, score={self.score:.3f}{z_score}, start={self.start:g}, end={self.end:g})"

    @property
    def file(self) -> str:
        return self.record.path


@dataclasses.dataclass(frozen=True)
class Tag:
    """
    A label that fits a recording.

    Attributes:
        label: the label as given.
        score: cosine of the label with the recording's window that it fits best.
    """

    label: str
    score: float
