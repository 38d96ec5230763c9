"""Records of an index, and hits of a search."""

import dataclasses
import datetime
import os
from typing import Any

import numpy as np

MAX_DIMENSION = 1_000_000  # of an embedding; far above that of any model
FORMAT_VERSION = 1  # of an index; raise it when older code can no longer read new indices

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
        format_version: `FORMAT_VERSION` of the code that made it.
    """

    model: ModelIdentity
    window: float = 30.0
    overlap: float = 10.0
    format_version: int = FORMAT_VERSION

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "IndexInfo":
        """
        Raises:
            TypeError, ValueError: fields that are missing, unknown or of another type.
        """
        info = cls(**{**fields, "model": ModelIdentity.from_dict(fields["model"])})
        for name in ("window", "overlap"):
            value = getattr(info, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{name} {value!r}")
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

    Attributes:
        min_duration, max_duration: of the whole recording in seconds, inclusive.
        folders: absolute paths; a recording must lie below one of them, at any depth.
        formats: allowed file extensions, lower case without the dot, such as `wav`.
        modified_after, modified_before: the first inclusive, the second exclusive; aware, or local time.
    """

    min_duration: float | None = None
    max_duration: float | None = None
    folders: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    modified_after: datetime.datetime | None = None
    modified_before: datetime.datetime | None = None


@dataclasses.dataclass(frozen=True)
class Hit:
    """
    A recording that a search found.

    Attributes:
        record: the recording.
        score: inner product of the query with its best window; the cosine if the query has length 1.
        start, end: start and end of that window, in seconds.
        embed: [D] float32, the embedding of that window.
    """

    record: FileRecord
    score: float
    start: float
    end: float
    embed: np.ndarray = dataclasses.field(repr=False, compare=False)

    @property
    def file(self) -> str:
        return self.record.path
