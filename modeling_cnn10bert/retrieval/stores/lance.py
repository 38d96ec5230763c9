"""An index in a folder, by LanceDB: `index.json` describes it, and the table `windows` has one row per window.

Every write is one commit of the table, which readers see whole or not at all; after a kill, the previous commit is
valid. A lock file lets writers take turns. Readers take no lock: they read the newest commit, and versions that they
may still be reading are kept for `KEPT_VERSIONS`.
"""

import contextlib
import datetime
import functools
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import lancedb
import lancedb.index
import numpy as np
import pyarrow as pa

from ...errors import RetrievalError
from ...files import write_text
from ..records import EmbeddedFile, Hit, IndexInfo
from .base import VectorStore
from .filters import sql_in, to_sql
from .paths import encode_path
from .rows import COLUMN_TYPES, RECORD_COLUMNS, file_of, index_errors, missing_index, ranked_hits, read_info, rows_of

INFO = "index.json"
LOCK = ".lock"
TABLE = "windows"
KEPT_VERSIONS = datetime.timedelta(minutes=2)  # longer than any search; `embedded` continues with a newer version
BATCH_ROWS = 4096  # of 4 kB at 1024 dimensions

READ_ADVICE = "check the disk and your rights to the folder, or make the index again elsewhere"
WRITE_ADVICE = (
    "what was in it stays. Expected room on the disk and the right to write there: free some space, or check the "
    "rights, and run the same again"
)

HIT_FIELDS = (*RECORD_COLUMNS, "start", "end")
# `hit` holds these again as JSON, because every column that a search reads costs a millisecond.
HIT_COLUMNS = ["hit", "vector", "_distance"]
INDEX = "vectors"
INDEXED_ROWS = 10_000  # 1024 dimensions, one core: exact in 45 ms, by the index in 10 ms; equal at 2000 rows
PARTITION_ROWS = 1000
TRAINING_ITERATIONS = 10
MIN_PROBES, PROBED_SHARE = 10, 0.02  # of the partitions
REFINE, CANDIDATES = 2, 60  # rows whose vectors are read: times the number asked for, and at least
EXACT_ROWS = 2000  # if a filter admits fewer, all of them are read
PROBES_BEHIND_FILTER = 4  # times as many probes with a filter: the remaining neighbors are spread more widely
EVERY_PARTITION = 2**20


class LanceStore(VectorStore):
    """
    An index in a folder.

    Args:
        folder: the folder.
        info: its settings.
        table: its rows.
    """

    condition = staticmethod(lambda where: to_sql(where) or "")
    among = staticmethod(functools.partial(sql_in, "path"))
    advice = {"read": READ_ADVICE, "written": WRITE_ADVICE}
    paths_in_a_query = 1000

    def __init__(self, folder: Path, info: IndexInfo, table: lancedb.table.Table):
        self.location = str(folder)
        self.info = info
        self._table = table
        self._lock = filelock.FileLock(folder / LOCK)

    @classmethod
    def open(cls, location: str, info: IndexInfo | None = None) -> "LanceStore":
        """
        Open the index in a folder; with `info`, create it if there is none.

        Raises:
            RetrievalError: there is no index and no `info`, the folder holds something else, or it cannot be read.
        """
        folder = Path(location)
        with index_errors(location, "opened", READ_ADVICE):
            if not (folder / INFO).is_file():
                _make(folder, info)
            found = read_info((folder / INFO).read_bytes(), str(folder / INFO))
            return cls(folder, found, _open_table(folder, found))

    # ----------------------------------------------------------------------------------------------------- reading

    def _count(self, condition: str) -> int:
        return self._table.count_rows(condition or None)

    def _first_rows(self) -> Iterator[Mapping[str, Any]]:
        rows = self._table.search().where("window = 0").select(list(RECORD_COLUMNS))
        for batch in rows.to_batches():
            yield from batch.to_pylist()

    def _embedded(self, paths: Sequence[str] | None) -> Iterator[EmbeddedFile]:
        left = paths
        given: set[str] = set()
        while True:
            version = self._table.version
            try:
                for file in super()._embedded(left):
                    given.add(file.record.path)
                    yield file
                return
            except Exception:
                if self._table.version == version:
                    raise
                # The version being read was deleted, because reading it took longer than versions are kept.
                left = [path for path in (self.files() if paths is None else paths) if path not in given]

    def _embedded_where(self, condition: str) -> Iterator[EmbeddedFile]:
        """Read recordings; a file's rows mostly lie together, so few files are incomplete at a time."""
        rows = self._table.search().where(condition) if condition else self._table.search()
        waiting: dict[str, list[tuple[dict[str, Any], np.ndarray]]] = {}
        for batch in rows.to_batches(BATCH_ROWS):
            columns, embeds = _without_vectors(pa.Table.from_batches([batch]))
            for row, embed in zip(columns, embeds, strict=True):
                windows = waiting.setdefault(row["path"], [])
                windows.append((row, embed))
                if len(windows) == row["windows"]:
                    del waiting[row["path"]]
                    yield file_of([row for row, _ in windows], np.stack([embed for _, embed in windows]))

    def _find(self, query: np.ndarray, count: int, condition: str) -> tuple[list[Hit], bool]:
        search: Any = self._table.search(query, vector_column_name="vector")
        search = search.distance_type("dot").limit(count).select(HIT_COLUMNS)
        if condition:
            search = search.where(condition, prefilter=True)
        found = None
        indexed = self._indexed_rows()
        if indexed:
            admitted = self._count(condition)
            probes, candidates = _effort_of_search(indexed, admitted if condition else None)
            found = search.nprobes(probes).refine_factor(max(REFINE, math.ceil(candidates / count))).to_arrow()
            if found.num_rows < min(count, admitted):  # the others lie in partitions that were not searched
                found = None
        if found is None:
            found = search.bypass_vector_index().to_arrow()
        columns, embeds = _without_vectors(found)
        rows = [dict(zip(HIT_FIELDS, json.loads(row["hit"]), strict=True)) for row in columns]
        return ranked_hits(rows, embeds, query), found.num_rows < count

    def _indexed_rows(self) -> int:
        """Return the number of rows in the vector index, 0 if there is none."""
        return sum(index.num_indexed_rows or 0 for index in self._table.list_indices() if index.name == INDEX)

    # ----------------------------------------------------------------------------------------------------- writing

    def _write(self, files: Sequence[EmbeddedFile], old_paths: Sequence[str] = ()) -> None:
        """Write recordings in one commit, which also deletes all other rows of their paths and the old ones."""
        rows = [row for file in files for row in rows_of(file)]
        for row in rows:  # as JSON, which keeps every float64 and int64 exactly
            row["hit"] = json.dumps([row[name] for name in HIT_FIELDS], ensure_ascii=False)
        after = {row["path"]: row["windows"] for row in rows}
        condition = f"window = 0 AND {sql_in('path', {*after, *old_paths})}"
        before = self._table.search().where(condition).select(["path", "windows"]).to_list()
        table = pa.Table.from_pylist(rows, schema=self._table.schema)
        if not before:  # a hundred times as fast as a merge, which scans the whole table
            self._table.add(table)
            return
        merge = self._table.merge_insert(["path", "window"]).when_matched_update_all().when_not_matched_insert_all()
        shrunk = [row["path"] for row in before if row["windows"] > after.get(row["path"], 0)]
        if shrunk:  # only if needed, because the merge then reads every vector of the table
            merge = merge.when_not_matched_by_source_delete(sql_in("path", shrunk))
        merge.execute(table)

    def _delete(self, paths: Sequence[str]) -> None:
        self._table.delete(self.among(paths))

    def _optimize(self) -> None:
        """
        Merge small files, and build the vector index or add new rows to it.

        There is no vector index below `INDEXED_ROWS`, where an exact search is fast enough, or if the dimension is not
        a multiple of 8. Files that only versions older than `KEPT_VERSIONS` use are deleted.
        """
        self._tidy()
        wanted = self._table.count_rows() >= INDEXED_ROWS and self.info.model.dimension % 8 == 0
        if wanted and not self._indexed_rows():
            # RaBitQ has one bit per dimension. It selects the candidates whose vectors are then read. Given the size
            # of the partitions instead of their number, Lance splits them as rows are added.
            config = lancedb.index.IvfRq(
                distance_type="dot", target_partition_size=PARTITION_ROWS, max_iterations=TRAINING_ITERATIONS
            )
            self._table.create_index("vector", config=config, name=INDEX)
            self._tidy()  # building takes so long that the previous versions are old by now

    def _delete_if_empty(self) -> None:
        folder = Path(self.location)
        with self._lock:  # no other process writes
            if self._count(""):
                return
            (folder / INFO).unlink()  # first, because what is left without it is no index
            shutil.rmtree(folder / f"{TABLE}.lance")
        (folder / LOCK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another process has made an index in it again
            folder.rmdir()

    def close(self) -> None:
        """Do nothing, because LanceDB keeps no file open."""

    def _tidy(self) -> None:
        # Unverified files belong to writes in progress or killed ones; as we hold the lock, no write is in progress.
        self._table.optimize(cleanup_older_than=KEPT_VERSIONS, delete_unverified=True)


def _effort_of_search(indexed: int, admitted: int | None = None) -> tuple[int, int]:
    """Return probes and candidates for an index of `indexed` rows, of which a filter admits `admitted`."""
    probes = max(MIN_PROBES, round(PROBED_SHARE * indexed / PARTITION_ROWS))
    if admitted is None:
        return probes, CANDIDATES
    if admitted <= EXACT_ROWS:  # all of them are candidates, so the search is exact
        return EVERY_PARTITION, admitted
    return PROBES_BEHIND_FILTER * probes, CANDIDATES


def _make(folder: Path, info: IndexInfo | None) -> None:
    """Make an index without rows; the folder is created if missing, and must be empty if it exists."""
    if folder.exists():
        others = sorted(name for name in os.listdir(folder) if name != LOCK and not name.startswith(f".{INFO}."))
        if others:
            raise RetrievalError(
                f"{folder}: found a folder that is no index ({', '.join(map(repr, others[:3]))}), expected "
                "an index, or an empty or new folder to make one in; give the index another place"
            )
    if info is None:
        raise missing_index(str(folder))
    # Lance takes a backslash for a separator, and names that are not UTF-8 have no address.
    name = str(folder.absolute())
    if os.sep == "/" and ("\\" in name or encode_path(name) != name):
        raise RetrievalError(
            f"{name!r}: found a backslash or bytes that are no UTF-8 in the name, expected none of "
            "them in the name of an index; give the index another place"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / LOCK):
        if not (folder / INFO).is_file():
            write_text(folder / INFO, json.dumps(info.to_dict(), indent=2) + "\n")


def _open_table(folder: Path, info: IndexInfo) -> lancedb.table.Table:
    # With an interval of 0, every read looks for the newest commit, because other processes may write too.
    database = lancedb.connect(str(folder.absolute()), read_consistency_interval=datetime.timedelta(0))
    if not any((folder / f"{TABLE}.lance" / "_versions").glob("*.manifest")):  # a new index, or killed before this
        with filelock.FileLock(folder / LOCK):
            return database.create_table(TABLE, schema=_schema(info.model.dimension), exist_ok=True)
    return database.open_table(TABLE)


def _schema(dimension: int) -> pa.Schema:
    types = {name: pa.type_for_alias(kind) for name, kind in COLUMN_TYPES.items()}
    types |= {"hit": pa.string(), "vector": pa.list_(pa.float32(), dimension)}
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()])


def _without_vectors(rows: pa.Table) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Split rows into dictionaries without the vectors, and the vectors [N, D] float32."""
    vectors = rows["vector"].combine_chunks()
    embeds = vectors.flatten().to_numpy(zero_copy_only=False).reshape(rows.num_rows, vectors.type.list_size)
    return rows.drop_columns(["vector"]).to_pylist(), embeds
