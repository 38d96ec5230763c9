"""A search of one question among many vectors, against numpy's matrix product and faiss, exact and HNSW."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from modeling_cnn10bert.retrieval.records import EmbeddedFile, FileRecord, IndexInfo, ModelIdentity
from modeling_cnn10bert.retrieval.stores.lance import LanceStore

from .report import Row, compared, figure, not_measured

SUBJECT = "search"
RESULTS = 10
CLUSTER_DIMENSIONS = 32
TIE = 1e-6  # scores that differ by less are equal
HNSW_LINKS, HNSW_CANDIDATES = 32, 64
NO_FAISS = "no faiss here: pip install faiss-cpu"


def measure(folder: Path, options) -> list[Row]:
    """The median time of a search in each engine, and how many of the exact ten it finds."""
    vectors, queries, remark = _vectors(options)
    engines, built = {}, {}
    for name, build in (("ours", _lance), ("numpy", _numpy), ("faiss flat", _flat), ("faiss HNSW", _hnsw)):
        started = time.perf_counter()
        try:
            engines[name] = build(vectors, folder, options.threads)
        except ImportError:
            continue
        built[name] = time.perf_counter() - started
    seconds, scores = _search_in_turns(engines, queries)
    exact = np.sort(queries @ vectors.T, axis=1)[:, -RESULTS]
    recall = {name: float(np.mean(np.array(found) >= exact[:, None] - TIE)) for name, found in scores.items()}
    note = f"{len(queries)} questions, one at a time, the engines in turns, {options.threads} threads; {remark}"
    what = f"{len(vectors):,} x {vectors.shape[1]}, ten results"
    milliseconds = {name: [1e3 * each for each in found] for name, found in seconds.items()}
    rows = []
    for name in ("numpy", "faiss flat", "faiss HNSW"):
        if name in engines:
            rows.append(compared(SUBJECT, what, "ms", milliseconds["ours"], name, milliseconds[name], note=note))
        else:
            rows.append(not_measured(SUBJECT, f"{what}, against {name}", NO_FAISS))
    for name in engines:
        rows.append(figure(SUBJECT, f"recall@10, {name}", recall[name], "", note=f"built in {built[name]:.1f} s"))
    return rows


def _vectors(options) -> tuple[np.ndarray, np.ndarray, str]:
    """Unit vectors [rows, D] and questions [queries, D] of the same kind, and of what kind they are."""
    rows, dimension, queries = (2000, 16, 20) if options.quick else (options.rows, 1024, 200)
    if options.vectors:
        found = np.load(options.vectors, mmap_mode="r")
        if len(found) < rows + queries:
            raise ValueError(f"{options.vectors}: found {len(found)} rows, expected {rows} and {queries} for questions")
        found, remark = np.array(found[: rows + queries], np.float32), str(options.vectors)
    else:
        # Embeddings fill few of their dimensions; among directions that are all alike, no index finds neighbours.
        rng = np.random.default_rng(0)
        inner = min(CLUSTER_DIMENSIONS, dimension)
        spread = rng.standard_normal((inner, dimension), dtype=np.float32)
        found = rng.standard_normal((rows + queries, inner), dtype=np.float32) @ spread
        found += 0.1 * rng.standard_normal(found.shape, dtype=np.float32)
        remark = f"drawn in {inner} dimensions and turned into {dimension}, with a tenth of noise"
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found[:rows], found[rows:], remark


def _search_in_turns(engines: dict[str, Callable], queries: np.ndarray) -> tuple[dict, dict]:
    """Seconds and scores of each search, the engines in turns; each searches once before."""
    seconds, scores = {name: [] for name in engines}, {name: [] for name in engines}
    for number, query in enumerate([queries[0], *queries]):
        for name in list(engines)[:: 1 if number % 2 else -1]:
            started = time.perf_counter()
            found = engines[name](query)
            if number:
                seconds[name].append(time.perf_counter() - started)
                scores[name].append(found)
    return seconds, scores


# --------------------------------------------------------------------------------------------------------- engines


def _lance(vectors: np.ndarray, folder: Path, threads: int) -> Callable[[np.ndarray], list[float]]:
    info = IndexInfo(ModelIdentity("benchmark", None, "benchmark", vectors.shape[1], {}))
    store = LanceStore.open(str(folder / "index"), info)
    for start in range(0, len(vectors), 8192):
        store.put([_file(start + number, vector) for number, vector in enumerate(vectors[start : start + 8192])])
    store.optimize()
    return lambda query: [hit.score for hit in store.search_windows(query, RESULTS)[0]]


def _file(number: int, vector: np.ndarray) -> EmbeddedFile:
    record = FileRecord(f"/sounds/{number:08d}.wav", f"{number:032x}", 1_000_000, 10**18 + number, 10.0)
    return EmbeddedFile(record, [(0.0, 10.0)], vector[None])


def _numpy(vectors: np.ndarray, folder: Path, threads: int) -> Callable[[np.ndarray], list[float]]:
    def search(query: np.ndarray) -> list[float]:
        scores = vectors @ query
        best = np.argpartition(scores, -RESULTS)[-RESULTS:]
        return scores[best[np.argsort(-scores[best])]].tolist()

    return search


def _flat(vectors: np.ndarray, folder: Path, threads: int) -> Callable[[np.ndarray], list[float]]:
    import faiss

    faiss.omp_set_num_threads(threads)
    return _faiss(faiss.IndexFlatIP(vectors.shape[1]), vectors)


def _hnsw(vectors: np.ndarray, folder: Path, threads: int) -> Callable[[np.ndarray], list[float]]:
    import faiss

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexHNSWFlat(vectors.shape[1], HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efSearch = HNSW_CANDIDATES
    return _faiss(index, vectors)


def _faiss(index, vectors: np.ndarray) -> Callable[[np.ndarray], list[float]]:
    index.add(vectors)
    return lambda query: index.search(query[None], RESULTS)[0][0].tolist()
