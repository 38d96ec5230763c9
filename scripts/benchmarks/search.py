"""Measure an index on disk against other engines: build time, size, memory, and speed and recall of a search.

A recording has four windows. Building and searching are measured in processes of their own; other engines are measured
in turns with ours if their vectors fit into memory.
"""

import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil
from tqdm import tqdm

from modeling_cnn10bert.retrieval.records import IndexInfo, ModelIdentity
from modeling_cnn10bert.retrieval.stores.lance import LanceStore

from .harness import Row, compared, figure, in_a_process, not_measured
from .inputs import BLOCK, embedded_files, vectors

WINDOWS = 4  # of a recording
RESULTS = 10
WARM_UP = 10  # searches before the clock starts
TIE = 1e-6  # scores that differ by less are equal
HNSW_LINKS, HNSW_CANDIDATES = 32, 64
NO_FAISS = "no faiss here: pip install faiss-cpu"


def measure(folder: Path, options) -> list[Row]:
    size = options.size
    count = options.rows or size.rows
    found, kind = vectors(folder, options.vectors, count, size.dimension, size.queries)
    rows, queries = found[:count], np.array(found[count:], np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    what = f"{count:,} x {rows.shape[1]}"

    index = folder / "index"
    built = in_a_process(build, index, rows, apart=size.apart)
    on_disk = sum(file.stat().st_size for file in index.rglob("*") if file.is_file()) / 1e9
    searched = in_a_process(search, index, queries, apart=size.apart)
    note = f"{len(queries)} queries one at a time; {kind}"
    table = [
        figure(f"put, {what}", built["seconds_put"], "s", note=kind),
        figure("optimize, the index included", built["seconds_optimize"], "s"),
        figure("peak memory of building", built["memory"], "GB", note=f"{built['memory_before']:.2f} GB of it imports"),
        figure("on disk", on_disk, "GB"),
        figure("open and first search", 1e3 * searched["first"], "ms"),
        figure("peak memory of searching", searched["memory"], "GB"),
    ]
    for name in ("windows", "recordings"):
        recall = recall_of(searched[f"{name} scores"], rows, queries, name)
        middle, high = np.percentile(searched[f"{name} ms"], [50, 95])
        table.append(figure(f"a search for {name}, p50", middle, "ms", note=f"p95 {high:.1f} ms; {note}"))
        table.append(figure(f"recall@10, {name}", recall))
    if 3 * rows.nbytes > psutil.virtual_memory().available:
        return [*table, not_measured("other engines in memory", "too many vectors")]
    return table + _beside_others(index, np.array(rows, np.float32), queries, options.threads, note)


# -------------------------------------------------------------------------------------------------------------- ours


def build(folder: Path, rows: np.ndarray) -> dict[str, float]:
    """Put all rows block by block, then optimize once."""
    memory_before, seconds_put = peak_gigabytes(), 0.0
    with LanceStore.open(str(folder), IndexInfo(ModelIdentity("benchmark", None, "", rows.shape[1], {}))) as store:
        for start in tqdm(range(0, len(rows), BLOCK), desc="put", unit="block", disable=None):
            files = embedded_files(np.array(rows[start : start + BLOCK], np.float32), start, WINDOWS)
            started = time.perf_counter()
            store.put(files)
            seconds_put += time.perf_counter() - started
        started = time.perf_counter()
        store.optimize()
        seconds_optimize = time.perf_counter() - started
    return {
        "seconds_put": seconds_put,
        "seconds_optimize": seconds_optimize,
        "memory_before": memory_before,
        "memory": peak_gigabytes(),
    }


def search(folder: Path, queries: np.ndarray) -> dict:
    """Search one query after the other, in a process that has searched before."""
    started = time.perf_counter()
    with LanceStore.open(str(folder)) as store:
        calls = {
            "windows": lambda query: store.search_windows(query, RESULTS)[0],
            "recordings": lambda query: store.search(query, RESULTS),
        }
        calls["windows"](queries[0])
        found = {"first": time.perf_counter() - started}
        for name, call in calls.items():
            milliseconds, scores = [], []
            for query in [*queries[:WARM_UP], *queries]:
                started = time.perf_counter()
                hits = call(query)
                milliseconds.append(1e3 * (time.perf_counter() - started))
                scores.append([hit.score for hit in hits])
            found |= {f"{name} ms": milliseconds[-len(queries) :], f"{name} scores": scores[-len(queries) :]}
    return {**found, "memory": peak_gigabytes()}


def peak_gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def recall_of(scores: Sequence[Sequence[float]], rows: np.ndarray, queries: np.ndarray, kind: str) -> float:
    """
    Return the share of results that reach the exact tenth score.

    Scores are compared instead of names, because windows with equal embeddings, such as silence, are interchangeable.
    """
    return float(np.mean(np.array(scores) >= tenth_scores(rows, queries, kind)[:, None] - TIE))


def tenth_scores(rows: np.ndarray, queries: np.ndarray, kind: str) -> np.ndarray:
    """Return each query's tenth score [queries] among all inner products, computed a block of rows at a time."""
    best = np.full((len(queries), RESULTS), -np.inf, dtype=np.float32)
    for start in tqdm(range(0, len(rows), BLOCK), desc="exact", unit="block", disable=None):
        block = np.array(rows[start : start + BLOCK], np.float32)
        block = queries @ (block / np.linalg.norm(block, axis=1, keepdims=True)).T  # [queries, rows of the block]
        if kind == "recordings":
            block = np.maximum.reduceat(block, range(0, block.shape[1], WINDOWS), axis=1)  # its best window
        best = np.sort(np.concatenate([best, block], axis=1), axis=1)[:, -RESULTS:]
    return best[:, 0]


# ------------------------------------------------------------------------------------------------------------ others


def _beside_others(folder: Path, rows: np.ndarray, queries: np.ndarray, threads: int, note: str) -> list[Row]:
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    store = LanceStore.open(str(folder))
    engines = {"ours": lambda query: [hit.score for hit in store.search_windows(query, RESULTS)[0]]}
    built = {}
    for name, make in (("numpy", _numpy), ("faiss flat", _flat), ("faiss HNSW", _hnsw)):
        started = time.perf_counter()
        try:
            engines[name] = make(rows, threads)
        except ImportError:
            continue
        built[name] = time.perf_counter() - started
    milliseconds, scores = {name: [] for name in engines}, {name: [] for name in engines}
    for number, query in enumerate([queries[0], *queries]):  # the first search does not count
        for name in list(engines)[:: -1 if number % 2 else 1]:
            started = time.perf_counter()
            found = engines[name](query)
            if number:
                milliseconds[name].append(1e3 * (time.perf_counter() - started))
                scores[name].append(found)
    store.close()
    table = []
    for name in ("numpy", "faiss flat", "faiss HNSW"):
        if name in engines:
            recall = recall_of(scores[name], rows, queries, "windows")
            remark = f"recall {recall:.3f}, built in {built[name]:.1f} s; in turns; {note}"
            table.append(compared("ten windows", "ms", milliseconds["ours"], name, milliseconds[name], note=remark))
        else:
            table.append(not_measured(f"against {name}", NO_FAISS))
    return table


def _numpy(rows: np.ndarray, threads: int) -> Callable[[np.ndarray], list[float]]:
    def search(query: np.ndarray) -> list[float]:
        scores = rows @ query
        best = np.argpartition(scores, -RESULTS)[-RESULTS:]
        return scores[best[np.argsort(-scores[best])]].tolist()

    return search


def _flat(rows: np.ndarray, threads: int) -> Callable[[np.ndarray], list[float]]:
    import faiss

    return _faiss(faiss.IndexFlatIP(rows.shape[1]), rows, threads)


def _hnsw(rows: np.ndarray, threads: int) -> Callable[[np.ndarray], list[float]]:
    import faiss

    index = faiss.IndexHNSWFlat(rows.shape[1], HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efSearch = HNSW_CANDIDATES
    return _faiss(index, rows, threads)


def _faiss(index, rows: np.ndarray, threads: int) -> Callable[[np.ndarray], list[float]]:
    import faiss

    faiss.omp_set_num_threads(threads)
    index.add(rows)
    return lambda query: index.search(query[None], RESULTS)[0][0].tolist()
