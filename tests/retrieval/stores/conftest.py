"""Recordings of random embeddings, stores of both kinds, and processes that write into them."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from modeling_cnn10bert.retrieval.records import EmbeddedFile, FileRecord, IndexInfo, ModelIdentity
from modeling_cnn10bert.retrieval.stores import open_store

DIMENSION = 16
WRITER = Path(__file__).with_name("writer.py")


@pytest.fixture
def info():
    return IndexInfo(ModelIdentity("/models/a", None, "0123", DIMENSION, {"n_fft": 1024}), window=4.0, overlap=1.0)


@pytest.fixture(params=["lance", "milvus"])
def location(request, tmp_path):
    """Where an index may be made, of one kind after the other."""
    if request.param == "milvus":
        pytest.importorskip("pymilvus")
        pytest.importorskip("milvus_lite")
        return str(tmp_path / "index.db")
    return str(tmp_path / "index")


@pytest.fixture
def store(location, info):
    with open_store(location, info) as store:
        yield store


@pytest.fixture
def recording():
    """Makes a recording with random unit embeddings; keywords are fields of `FileRecord`."""

    def make(path, windows=1, seed=0, dimension=DIMENSION, **fields):
        rng = np.random.default_rng([seed, *path.encode("utf-8", "surrogatepass")])
        embeds = rng.standard_normal((windows, dimension), dtype=np.float32)
        embeds /= np.linalg.norm(embeds, axis=1, keepdims=True)
        record = FileRecord(
            path=path, content_hash=f"{seed:032x}", size=1000 + seed, modified_ns=10**18 + seed, duration=3.0 * windows
        )
        spans = [(3.0 * window, 3.0 * window + 4.0) for window in range(windows)]
        return EmbeddedFile(dataclasses.replace(record, **fields), spans, embeds)

    return make


@pytest.fixture
def many(recording):
    """60 recordings of one to four windows in three folders."""
    endings = ("wav", "flac", "ogg")
    return [
        recording(f"/sounds/{'abc'[number % 3]}/{number}.{endings[number % 2]}", windows=1 + number % 4, seed=number)
        for number in range(60)
    ]


@pytest.fixture
def start_writer():
    """Starts processes that run `writer.py`, which end with the test."""
    started = []

    def start(*arguments):
        command = [sys.executable, str(WRITER), *map(str, arguments)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def assert_whole():
    """Checks that every recording of an index written by `writer.py` is there in one version."""

    def check(store):
        files = store.files()
        found = {file.record.path: file for file in store.embedded()}
        assert found.keys() == files.keys()
        for path, file in found.items():
            version = int(files[path].content_hash)
            assert file.record == files[path]
            # The writer makes version v of 1 + v % 5 windows, whose embeddings have one value in the place v % 16.
            assert len(file.spans) == 1 + version % 5
            assert np.array_equal(file.embeds, np.tile(np.eye(DIMENSION)[version % DIMENSION], (len(file.spans), 1)))

    return check
