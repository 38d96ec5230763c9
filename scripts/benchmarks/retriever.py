"""Measure a search from the text to ten results, in a warm process and as a command that starts cold.

The index holds one window per recording. For the command, both wall time and processor time are measured.
"""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil

from modeling_cnn10bert.retrieval.retriever import AudioRetriever

from .harness import Row, figure
from .inputs import BLOCK, embedded_files, save_model, vectors

SOUNDS = ("a dog barks", "rain falls on a tin roof", "waves break on the shore", "a siren wails in the distance")
PLACES = ("", " while people talk", " at night in a forest", " and a clock ticks", ", then a door is shut")


def measure(folder: Path, options) -> list[Row]:
    size = options.size
    model = options.model or save_model(folder / "model", "soundscapes_small.yaml", tiny=not size.apart)
    texts = [sound + place for place in PLACES for sound in SOUNDS]
    texts = [texts[number % len(texts)] for number in range(min(100, size.queries))]
    with AudioRetriever.from_pretrained(model, folder / "index") as retriever:
        store = retriever.open_or_make()
        count, dimension = options.rows or size.rows, store.info.model.dimension
        rows, kind = vectors(folder, options.vectors, count, dimension, 0)
        for start in range(0, count, BLOCK):
            store.put(embedded_files(np.array(rows[start : start + BLOCK], np.float32), start, windows=1))
        store.optimize()
        for text in texts[:10]:  # to warm up
            retriever.search(text)
        embeds = [retriever.embed_text([text])[0] for text in texts]
        calls = {
            "text to embedding": (lambda text: retriever.embed_text([text]), texts),
            "embedding to ten results": (lambda embed: store.search(embed, 10), embeds),
            "text to ten results": (lambda text: retriever.search(text, 10), texts),
        }
        table = []
        for what, (call, arguments) in calls.items():
            milliseconds, processor = [], []
            for argument in arguments:
                started, began = time.perf_counter(), time.process_time()
                call(argument)
                milliseconds.append(1e3 * (time.perf_counter() - started))
                processor.append(1e3 * (time.process_time() - began))
            middle, high = np.percentile(milliseconds, [50, 95])
            note = f"p95 {high:.1f} ms, processor time {np.median(processor):.1f} ms; {count:,} x {dimension}, {kind}"
            table.append(figure(f"{what}, p50", middle, "ms", note=note))

    seconds, processor = [], []
    command = [str(Path(sys.executable).with_name("cnn10bert")), "search", "a dog barks", "--index", folder / "index"]
    if not size.starts:
        return table
    for _ in range(size.starts):
        started, before = time.perf_counter(), psutil.Process().cpu_times()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = psutil.Process().cpu_times()
        seconds.append(time.perf_counter() - started)
        processor.append(after.children_user + after.children_system - before.children_user - before.children_system)
    note = f"median of {size.starts}; processor time {np.median(processor):.1f} s"
    return [*table, figure("`cnn10bert search` from its start", float(np.median(seconds)), "s", note=note)]
