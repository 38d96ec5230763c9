"""Measures an index of embeddings at scale: time to build it, size on disk, memory, speed and recall of a search.

    python scripts/benchmark_search.py --vectors random --rows 1000000 --dimension 1024 --folder DIR
    python scripts/benchmark_search.py --vectors FILE.npy --rows 1000000 --folder DIR [--out results.json]

The vectors are drawn from all directions alike, or are those of a file [N, D] float32 such as
scripts/embed_windows.py writes; the queries are the rows behind the first `--rows`, so that none is in the index. All
goes through `LanceStore` as in `cnn10bert index` and `cnn10bert search`: a recording has 4 windows, a search wants 10
results. `--kind windows` (the default) counts the windows that are found, `--kind recordings` the recordings.

`--reuse` measures an index that an earlier run has left. Memory and time are those of processes of their own, one that
builds and one that searches; recall is against all inner products, computed in blocks.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

from modeling_cnn10bert.files import write_text  # noqa: E402
from modeling_cnn10bert.retrieval.records import EmbeddedFile, FileRecord, Hit, IndexInfo, ModelIdentity  # noqa: E402
from modeling_cnn10bert.retrieval.stores.lance import LanceStore  # noqa: E402

WINDOWS = 4  # of a recording
BLOCK = 8192  # rows that are drawn, put and compared at a time: 32 MB at 1024 dimensions
RESULTS = 10
WARM_UP = 10  # searches before the clock starts
TIE = 1e-6  # scores that differ by less are equal


class Vectors:
    """
    Unit vectors, by blocks: random ones, each block from its own seed, or those of a file.

    Args:
        source: `random` or the path of an .npy file [N, D].
        dimension: of random ones.
    """

    def __init__(self, source: str, dimension: int):
        self.file = None if source == "random" else np.load(source, mmap_mode="r")
        self.dimension = dimension if self.file is None else self.file.shape[1]

    def rows(self, start: int, end: int) -> np.ndarray:
        """[end - start, D] float32, L2-normalised; `start` is a multiple of `BLOCK`."""
        if self.file is not None:
            rows = np.array(self.file[start:end], dtype=np.float32)
        else:
            rng = np.random.default_rng(start // BLOCK)
            rows = rng.standard_normal((end - start, self.dimension), dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    vectors = Vectors(args.vectors, args.dimension)
    folder = args.folder / "index"
    results: dict[str, Any] = {
        "vectors": args.vectors,
        "rows": args.rows,
        "dimension": vectors.dimension,
        "kind": args.kind,
        "processors": os.cpu_count(),
    }
    if not args.reuse:
        shutil.rmtree(folder, ignore_errors=True)
        results |= in_a_process(build, folder, args.vectors, vectors.dimension, args.rows)
    results["gigabytes_on_disk"] = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e9
    queries = draw_queries(vectors, args.rows, args.queries)
    results |= in_a_process(search, folder, queries, args.kind)
    least = least_scores(vectors, args.rows, queries, args.kind)  # [queries]
    results["recall@10"] = float(np.mean(results.pop("scores") >= least[:, None] - TIE))
    for name, value in results.items():
        print(f"{name:28}{value:.4g}" if isinstance(value, float) else f"{name:28}{value}")
    if args.out:
        write_text(args.out, json.dumps(results, indent=2) + "\n")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", default="random", help="random, or an .npy file")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=1024, help="of random vectors")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--kind", choices=("windows", "recordings"), default="windows")
    parser.add_argument("--folder", type=Path, required=True, help="for the index, which stays there")
    parser.add_argument("--reuse", action="store_true", help="the index that is there")
    parser.add_argument("--out", type=Path, help="a JSON file of the results")
    args = parser.parse_args(argv)
    if args.vectors != "random":
        available = len(np.load(args.vectors, mmap_mode="r"))
        if available < args.rows + args.queries:
            parser.error(f"{args.vectors}: found {available} rows, expected {args.rows} + {args.queries} for queries")
    if args.reuse and not (args.folder / "index").is_dir():
        parser.error(f"{args.folder / 'index'}: found no index to reuse")
    return args


def in_a_process(function: Callable[..., dict[str, Any]], *arguments) -> dict[str, Any]:
    """What the function returns, run in a fresh process, whose peak memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def peak_gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def path_of(recording: int) -> str:
    return f"/sounds/{recording // 1000:04d}/{recording:08d}.wav"


# --------------------------------------------------------------------------------------------------------- building


def build(folder: Path, source: str, dimension: int, rows: int) -> dict[str, Any]:
    """Puts all rows, block by block, and optimises once; a block is one write, as of a thousand recordings or more."""
    vectors = Vectors(source, dimension)
    before = peak_gigabytes()
    seconds_put = 0.0
    with LanceStore.open(str(folder), IndexInfo(ModelIdentity(source, None, source, dimension, {}))) as store:
        for start in tqdm(range(0, rows, BLOCK), desc="put", unit="block", file=sys.stderr):
            embeds = vectors.rows(start, min(start + BLOCK, rows))
            files = [
                as_file(start + first, embeds[first : first + WINDOWS]) for first in range(0, len(embeds), WINDOWS)
            ]
            started = time.perf_counter()
            store.put(files)
            seconds_put += time.perf_counter() - started
        started = time.perf_counter()
        store.optimize()
        seconds_optimize = time.perf_counter() - started
        assert len(store) == rows
    return {
        "seconds_put": seconds_put,
        "seconds_optimize": seconds_optimize,
        "gigabytes_memory_build": peak_gigabytes(),
        "gigabytes_memory_before": before,
    }


def as_file(first_row: int, embeds: np.ndarray) -> EmbeddedFile:
    recording = first_row // WINDOWS
    record = FileRecord(
        path_of(recording), f"{recording:032x}", size=1_000_000, modified_ns=10**18 + recording, duration=16.0
    )
    return EmbeddedFile(record, [(4.0 * number, 4.0 * number + 4.0) for number in range(len(embeds))], embeds)


# -------------------------------------------------------------------------------------------------------- searching


def draw_queries(vectors: Vectors, rows: int, count: int) -> np.ndarray:
    """[count, D]: the rows behind those of the index."""
    if vectors.file is None:
        return vectors.rows((rows // BLOCK + 1) * BLOCK, (rows // BLOCK + 1) * BLOCK + count)
    return vectors.rows(rows, rows + count)


def search(folder: Path, queries: np.ndarray, kind: str) -> dict[str, Any]:
    """One query after the other, in a process that has searched before."""
    started = time.perf_counter()
    with LanceStore.open(str(folder)) as store:
        search_once(store, queries[0], kind)
        seconds_first = time.perf_counter() - started
        for query in queries[:WARM_UP]:
            search_once(store, query, kind)
        scores, milliseconds = [], []
        for query in queries:
            started = time.perf_counter()
            hits = search_once(store, query, kind)
            milliseconds.append(1e3 * (time.perf_counter() - started))
            scores.append([hit.score for hit in hits])
        started = time.perf_counter()
        num_files = len(store.files())
        seconds_files = time.perf_counter() - started
    return {
        "seconds_open_and_first": seconds_first,
        "p50_ms": float(np.percentile(milliseconds, 50)),
        "p95_ms": float(np.percentile(milliseconds, 95)),
        "gigabytes_memory_search": peak_gigabytes(),
        "recordings": num_files,
        "seconds_files": seconds_files,
        "scores": np.array(scores),
    }


def search_once(store: LanceStore, query: np.ndarray, kind: str) -> list[Hit]:
    return store.search(query, RESULTS) if kind == "recordings" else store.search_windows(query, RESULTS)[0]


def least_scores(vectors: Vectors, rows: int, queries: np.ndarray, kind: str) -> np.ndarray:
    """
    The score of each query's tenth result among all inner products, computed a block of rows at a time: [queries].

    A result that reaches it is right. That counts results and not names: windows of silence have equal embeddings, and
    any of them is as good as another.
    """
    scores = np.full((len(queries), RESULTS), -np.inf, dtype=np.float32)
    for start in tqdm(range(0, rows, BLOCK), desc="exact", unit="block", file=sys.stderr):
        block = queries @ vectors.rows(start, min(start + BLOCK, rows)).T  # [queries, rows of the block]
        if kind == "recordings":
            block = np.maximum.reduceat(block, range(0, block.shape[1], WINDOWS), axis=1)  # its best window
        scores = np.sort(np.concatenate([scores, block], axis=1), axis=1)[:, -RESULTS:]
    return scores[:, 0]


if __name__ == "__main__":
    main()
