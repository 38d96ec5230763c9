"""Indexes a folder into LanceDB again and again, and kills itself in the middle: what test_indexing_faults.py starts.

usage: killed_indexing.py MODEL SOUNDS INDEX WHOLE_INDEX SEED KILLS

Each attempt is a process of its own, forked after the slow imports. It dies by SIGKILL a random moment after a random
number of commits. The last attempt is left alone; so is one into WHOLE_INDEX. Prints one line an attempt.
"""

import contextlib
import os
import random
import signal
import sys
import time

import pyarrow.dataset  # noqa: F401 (LanceDB needs it, and its own import must wait for the fork)

from modeling_cnn10bert.retrieval.embedding import load_embedder
from modeling_cnn10bert.retrieval.indexing import index_folders
from modeling_cnn10bert.retrieval.records import IndexInfo

with contextlib.suppress(ImportError):
    import lance_namespace  # noqa: F401 (of LanceDB as well)


def index(embedder, sounds, location, told):
    """In the child: writes a byte to `told` before and after each commit."""
    from modeling_cnn10bert.retrieval.stores import open_store  # its threads do not survive a fork

    store = open_store(location, IndexInfo(embedder.identity, window=1.0, overlap=0.25))
    put = store.put

    def tell_and_put(files):
        os.write(told, b"<")
        put(files)
        os.write(told, b">")

    store.put = tell_and_put
    report = index_folders(store, embedder, [sounds], progress=False, batch_seconds=0.5, commit_seconds=0.0)
    assert not report.problems, report.problems


def attempt(embedder, sounds, location, kill_after=None, delay=0.0):
    """Whether a process came to its end before it was killed, `delay` seconds after so many bytes."""
    reading, told = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            index(embedder, sounds, location, told)
            code = 0
        finally:
            os._exit(code)
    os.close(told)
    if kill_after is not None:
        seen = 0
        while seen < kill_after and os.read(reading, 1):
            seen += 1
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)  # it is not waited for yet, so this is no other process
    _, status = os.waitpid(child, 0)
    os.close(reading)
    if kill_after is None and status != 0:
        raise SystemExit(f"an attempt that was left alone ended with status {status}")
    return os.WIFEXITED(status)


def main(model, sounds, location, whole, seed, kills):
    embedder = load_embedder(model)
    random.seed(int(seed))
    attempt(embedder, sounds, whole)
    for _ in range(int(kills)):
        ended = attempt(embedder, sounds, location, random.randint(1, 8), random.choice([0.0, 0.03 * random.random()]))
        print("ended" if ended else "killed", flush=True)
    attempt(embedder, sounds, location)
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
