"""Measures a search from the text to ten results, in a warm process and as a command that starts cold.

    python scripts/benchmark_retriever.py MODEL [--rows 100000] [--vectors FILE.npy] [--cold 5]

The index holds that many windows, one a recording, of the first rows of FILE.npy (as scripts/embed_windows.py writes
it), or of random unit vectors. Times of the warm process are medians and 95th percentiles over texts; those of
the command are from its start to its end, beside the processor time, which other work on the machine changes less.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from modeling_cnn10bert.retrieval import AudioRetriever
from modeling_cnn10bert.retrieval.records import EmbeddedFile, FileRecord
from modeling_cnn10bert.retrieval.stores import VectorStore

SOUNDS = ["a dog barks", "rain falls on a tin roof", "waves break on the shore", "a siren wails in the distance"]
PLACES = ["", " while people talk", " at night in a forest", " and a clock ticks", ", then a door is shut"]
ROWS_AT_ONCE = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or Hub id")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--vectors", type=Path, help="an .npy file of embeddings, as wide as the model's")
    parser.add_argument("--index", help="where to make the index, by default in a folder for temporary files")
    parser.add_argument("--queries", type=int, default=100, help="searches that are measured")
    parser.add_argument("--cold", type=int, default=5, help="starts of the command that are measured")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="benchmark-retriever-") as folder:
        location = args.index or str(Path(folder) / "index")
        with AudioRetriever.from_pretrained(args.model, location) as retriever:
            store = retriever.open_or_make()
            started = time.perf_counter()
            fill(store, vectors(args.vectors, args.rows, store.info.model.dimension))
            store.optimize()
            print(f"{len(store)} windows of {store.info.model.dimension} values: {cores()} cores", end=", ")
            print(f"stored in {time.perf_counter() - started:.1f} s")
            measure_warm(retriever, texts(args.queries))
        measure_cold(location, args.cold)


def cores() -> int:
    return len(os.sched_getaffinity(0))


def vectors(path: Path | None, rows: int, dimension: int) -> Iterator[np.ndarray]:
    """[rows, D] float32 in pieces."""
    given = None if path is None else np.load(path, mmap_mode="r")
    if given is not None and (given.shape[0] < rows or given.shape[1] != dimension):
        raise SystemExit(f"{path}: found {given.shape}, expected at least {rows} rows of {dimension} values")
    rng = np.random.default_rng(0)
    for start in range(0, rows, ROWS_AT_ONCE):
        count = min(ROWS_AT_ONCE, rows - start)
        piece = rng.standard_normal((count, dimension)) if given is None else given[start : start + count]
        yield (piece / np.linalg.norm(piece, axis=1, keepdims=True)).astype(np.float32)


def fill(store: VectorStore, pieces: Iterator[np.ndarray]) -> None:
    number = 0
    for piece in pieces:
        files = []
        for embed in piece:
            record = FileRecord(f"/sounds/{number // 1000:04d}/{number:08d}.wav", f"{number:032x}", 1, 1, 10.0)
            files.append(EmbeddedFile(record, [(0.0, 10.0)], embed[None]))
            number += 1
        store.put(files)


def texts(count: int) -> list[str]:
    """So many captions of which the first twenty differ."""
    different = [sound + place for place in PLACES for sound in SOUNDS]
    return [different[number % len(different)] for number in range(count)]


def measure_warm(retriever: AudioRetriever, queries: Sequence[str]) -> None:
    for query in queries[:10]:
        retriever.search(query)
    embeds = [retriever.embed_text([query])[0] for query in queries]
    report("text to embedding", lambda query: retriever.embed_text([query]), queries)
    report("embedding to ten results", lambda embed: retriever.store.search(embed, 10), embeds)
    report("text to ten results", lambda query: retriever.search(query, 10), queries)


def report(what: str, function: Callable, arguments: Sequence) -> None:
    wall, processor = [], []
    for argument in arguments:
        started, began = time.perf_counter(), time.process_time()
        function(argument)
        wall.append(1e3 * (time.perf_counter() - started))
        processor.append(1e3 * (time.process_time() - began))
    middle, high = np.percentile(wall, [50, 95])
    print(f"{what}: {middle:.1f} ms (p50), {high:.1f} ms (p95); processor {np.median(processor):.1f} ms (p50)")


def measure_cold(location: str, runs: int) -> None:
    command = [Path(sys.executable).with_name("cnn10bert"), "search", "a dog barks", "--index", location]
    wall, processor = [], []
    for _ in range(runs):
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        wall.append(time.perf_counter() - started)
        processor.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    if runs:
        print("cold start of `cnn10bert search`: " + ", ".join(f"{seconds:.1f}" for seconds in wall), end=" s; ")
        print(f"median {np.median(wall):.1f} s, processor {np.median(processor):.1f} s")


if __name__ == "__main__":
    main()
