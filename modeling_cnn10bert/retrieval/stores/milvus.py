"""An index in a Milvus collection, on a server or in a `.db` folder on disk by Milvus Lite.

Milvus has no transaction over the rows of a recording. So each write of a recording is a version of its own, whose rows
hold their number. Readers see the newest version that is complete. A write inserts the new version, then deletes the
older ones. If it is killed in between, it leaves rows that no reader of this class uses, and that the next `put` of the
recording or `optimize` deletes.
"""

import collections
import functools
import hashlib
import heapq
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import RetrievalError
from ..records import EmbeddedFile, Hit, IndexInfo
from .base import VectorStore
from .filters import milvus_in, milvus_text, to_milvus
from .milvus_client import Address, connect, disconnect
from .paths import encode_path
from .rows import (
    COLUMN_TYPES,
    RECORD_COLUMNS,
    WINDOW_COLUMNS,
    chunked,
    file_of,
    index_errors,
    missing_index,
    ranked_hits,
    read_info,
    rows_of,
)

INFO = "cnn10bert.index"  # property of the collection, repeated in its description
REQUEST_BYTES = 32 * 2**20  # of rows per request; a server takes 64 MB
ROW_BYTES = 1024  # upper estimate of a row without its vector and path
MAX_LIMIT = 16_384  # rows that a server returns at once
VECTOR_ROWS = 2048  # rows with vectors per request: 8 MB at 1024 dimensions
PATHS_IN_A_QUERY = 200
UNFINISHED_SECONDS = 3600  # a write that has been unfinished for so long was killed
ADVICE = (
    "what was in it stays. Check that the server runs, its disk has room and you have the right to, then run the same "
    "again"
)
HIT_FIELDS = ["version", *RECORD_COLUMNS, *WINDOW_COLUMNS]


class MilvusStore(VectorStore):
    """
    An index in a Milvus collection.

    Args:
        address: address of the collection.
        info: settings of the index.
        client: a connection to it.
    """

    condition = staticmethod(to_milvus)
    among = staticmethod(functools.partial(milvus_in, "path"))
    advice = {"read": ADVICE, "written": ADVICE}
    paths_in_a_query = PATHS_IN_A_QUERY

    def __init__(self, address: Address, info: IndexInfo, client):
        self.address = address
        self.location = address.location
        self.info = info
        self._client = client

    @classmethod
    def open(cls, location: str, info: IndexInfo | None = None) -> "MilvusStore":
        """
        Open the index at an address; with `info`, create it if there is none.

        Raises:
            RetrievalError: there is no index and no `info`, no server answers, another process has the `.db` open, or
                the collection is not an index.
        """
        address = Address.of(location)
        if address.is_lite:  # check first, because Milvus Lite would create a folder or write into any existing one
            folder = Path(address.uri)
            if folder.is_dir() and any(folder.iterdir()) and not (folder / "collections").is_dir():
                raise RetrievalError(
                    f"{address.location}: found a folder that is not Milvus Lite's, expected an index or a new name; "
                    "give the index another place"
                )
            if not folder.exists() and info is None:
                raise missing_index(address.location)
            folder.parent.mkdir(parents=True, exist_ok=True)
        client = connect(address)
        try:
            with index_errors(address.location, "opened", ADVICE, address.reason):
                if not client.has_collection(address.collection):
                    if info is None:
                        raise missing_index(address.location)
                    _make(client, address, info)
                description = client.describe_collection(address.collection)
                text = (description.get("properties") or {}).get(INFO) or description.get("description") or ""
                found = read_info(text, f"{address.location}, collection {address.collection!r}")
                client.load_collection(address.collection)
        except BaseException:
            disconnect(address, client)
            raise
        return cls(address, found, client)

    # ----------------------------------------------------------------------------------------------------- reading

    def _reason(self, error: Exception) -> str:
        return self.address.reason(error)

    def _first_rows(self) -> Iterator[Mapping[str, Any]]:
        visible = _newest_whole(self._versions(""))
        for row in self._rows("window == 0", [*RECORD_COLUMNS, "version"]):
            if visible.get(row["path"]) == row["version"]:
                yield row

    def _embedded_where(self, condition: str) -> Iterator[EmbeddedFile]:
        """Read recordings; rows are sorted by id, so those of a recording are adjacent, versions from old to new."""
        for _, rows in groupby(self._rows(condition, HIT_FIELDS, VECTOR_ROWS), key=lambda row: row["path"]):
            newest = None
            for _, version in groupby(rows, key=lambda row: row["version"]):
                windows = list(version)
                if len(windows) == windows[0]["windows"]:
                    newest = windows
            if newest is not None:
                yield file_of(newest, _vectors(newest))

    def _find(self, query: np.ndarray, count: int, condition: str) -> tuple[list[Hit], bool]:
        rows = self._nearest(query, count, condition)
        visible: dict[str, str] = {}
        for chunk in chunked({row["path"] for row in rows}, PATHS_IN_A_QUERY):
            visible |= _newest_whole(self._versions(self.among(chunk)))
        seen = [row for row in rows if visible.get(row["path"]) == row["version"]]
        return ranked_hits(seen, _vectors(seen), query), len(rows) < count

    def _nearest(self, query: np.ndarray, count: int, condition: str) -> list[dict[str, Any]]:
        """Find rows of any version with the largest inner products, unordered; fewer only if there are no more."""
        if count <= MAX_LIMIT:
            found = self._client.search(
                self.address.collection,
                data=[query.tolist()],
                limit=count,
                filter=condition,
                output_fields=HIT_FIELDS,
                search_params={"metric_type": "IP"},
            )[0]
            # An approximate index may miss rows when there is a filter.
            if len(found) == count or len(found) == self._count(condition):
                return [hit["entity"] for hit in found]
        rows = self._rows(condition, HIT_FIELDS, VECTOR_ROWS)
        return heapq.nlargest(count, rows, key=lambda row: float(np.dot(np.float32(row["vector"]), query)))

    def _count(self, condition: str) -> int:
        """Count rows, including those of unfinished writes until `optimize`."""
        rows = self._client.query(self.address.collection, filter=condition, output_fields=["count(*)"])
        return rows[0]["count(*)"]

    def _rows(self, condition: str, fields: Sequence[str], batch_rows: int = MAX_LIMIT) -> Iterator[dict[str, Any]]:
        """Yield all rows that a condition admits, sorted by id."""
        rows = self._client.query_iterator(
            self.address.collection, batch_size=batch_rows, filter=condition, output_fields=list(fields)
        )
        try:
            while batch := rows.next():
                yield from batch
        finally:
            rows.close()

    def _versions(self, condition: str) -> dict[str, dict[str, tuple[int, int]]]:
        """Return encoded path -> version -> the number of rows found, and expected."""
        versions: dict[str, dict[str, tuple[int, int]]] = collections.defaultdict(dict)
        for row in self._rows(condition, ["path", "version", "windows"]):
            present, _ = versions[row["path"]].get(row["version"], (0, 0))
            versions[row["path"]][row["version"]] = present + 1, row["windows"]
        return versions

    # ----------------------------------------------------------------------------------------------------- writing

    def _write(self, files: Sequence[EmbeddedFile], old_paths: Sequence[str] = ()) -> None:
        """Write as `VectorStore`; for a moment readers may see a renamed recording under both paths."""
        for batch in _batches(files, self.info.model.dimension):
            paths = self.among([encode_path(file.record.path) for file in batch])
            older = [version for versions in self._versions(paths).values() for version in versions]
            # Versions are named by time, but always sort after older ones, even if the clock was set back.
            written_ns = max([time.time_ns(), *(_written_ns(version) + 1 for version in older)])
            version = f"{written_ns:020d}-{os.urandom(4).hex()}"
            rows = [row for file in batch for row in _rows_of(file, version)]
            # One request. Only a recording that exceeds it alone is split, and is not seen until it is complete.
            at_once = len(rows)
            if len(batch) == 1:
                at_once = REQUEST_BYTES // _row_bytes(self.info.model.dimension, rows[0]["path"])
            for start in range(0, len(rows), at_once):
                self._client.insert(self.address.collection, rows[start : start + at_once])
            if older:
                self._delete_where(f"{paths} and version < {milvus_text(version)}")
        self._delete(sorted(set(old_paths) - {encode_path(file.record.path) for file in files}))

    def _delete(self, paths: Sequence[str]) -> None:
        for chunk in chunked(paths, PATHS_IN_A_QUERY):
            self._delete_where(self.among(chunk))

    def _delete_where(self, condition: str) -> None:
        self._client.delete(self.address.collection, filter=condition)

    def _optimize(self) -> None:
        """Delete rows of interrupted writes; a server compacts and builds its index by itself."""
        versions = self._versions("")
        visible = _newest_whole(versions)
        now = time.time_ns()
        for path, found in versions.items():
            seen = visible.get(path, "")
            for version in found:
                is_old = now - _written_ns(version) > UNFINISHED_SECONDS * 10**9
                if version < seen or (is_old and version != seen):
                    self._delete_where(f"path == {milvus_text(path)} and version == {milvus_text(version)}")
        self._client.flush(self.address.collection)

    def _delete_if_empty(self) -> None:
        if self._count(""):
            return
        self._client.drop_collection(self.address.collection)
        is_unused = not self._client.list_collections()
        self.close()
        if self.address.is_lite and is_unused:
            shutil.rmtree(self.address.uri)

    def close(self) -> None:
        if self._client is not None:
            disconnect(self.address, self._client)
            self._client = None


# ------------------------------------------------------------------------------------------------------------ rows


def _rows_of(file: EmbeddedFile, version: str) -> list[dict[str, Any]]:
    rows = rows_of(file)
    name = hashlib.blake2b(rows[0]["path"].encode(), digest_size=16).hexdigest()  # ids are short and need no escapes
    return [{"id": f"{name}-{version}-{row['window']:08d}", **row, "version": version} for row in rows]


def _written_ns(version: str) -> int:
    return int(version.partition("-")[0])


def _newest_whole(versions: Mapping[str, Mapping[str, tuple[int, int]]]) -> dict[str, str]:
    """Return path -> its newest complete version, for the paths that have one."""
    whole = {
        path: [version for version, (present, expected) in found.items() if present == expected]
        for path, found in versions.items()
    }
    return {path: max(names) for path, names in whole.items() if names}


def _vectors(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Return the vectors [N, D] float32."""
    return np.array([row["vector"] for row in rows], dtype=np.float32)


def _row_bytes(dimension: int, path: str) -> int:
    return 4 * dimension + 2 * len(path.encode()) + ROW_BYTES


def _batches(files: Sequence[EmbeddedFile], dimension: int) -> Iterator[list[EmbeddedFile]]:
    """Batch recordings to fit into one request; one that exceeds a request is a batch of its own."""
    batch: list[EmbeddedFile] = []
    size = 0
    for file in files:
        needed = len(file.spans) * _row_bytes(dimension, encode_path(file.record.path))
        if batch and (size + needed > REQUEST_BYTES or len(batch) == PATHS_IN_A_QUERY):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += needed
    if batch:
        yield batch


def _make(client, address: Address, info: IndexInfo) -> None:
    from pymilvus import DataType

    text = json.dumps(info.to_dict())
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False, description=text)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=128)
    kinds = {"int64": DataType.INT64, "int32": DataType.INT32, "float64": DataType.DOUBLE}
    for name, kind in {**COLUMN_TYPES, "version": "string"}.items():
        if kind == "string":
            schema.add_field(name, DataType.VARCHAR, max_length=65_535)
        else:
            schema.add_field(name, kinds[kind])
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=info.model.dimension)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT" if address.is_lite else "AUTOINDEX", metric_type="IP")
    client.create_collection(
        address.collection,
        schema=schema,
        index_params=index,
        properties={INFO: text},
        consistency_level="Strong",  # searches find what was just put
        num_shards=1,  # the rows of a request become visible together
    )
