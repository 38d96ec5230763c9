"""Indices that an earlier version wrote open, answer as they did then, and take new recordings."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from modeling_cnn10bert.retrieval.records import EmbeddedFile, FileRecord, SearchFilter
from modeling_cnn10bert.retrieval.stores import open_store

# Seven recordings were put in two writes, one was removed, one renamed; then the index was optimized.
INDICES = Path(__file__).parents[1] / "assets" / "indices"
EXPECTED = json.loads((INDICES / "expected.json").read_text())
QUERY = np.eye(8, dtype=np.float32)[0]


@pytest.fixture(params=["lance", "milvus.db"])
def store(request, tmp_path):
    """A copy of an index."""
    if request.param == "milvus.db":
        pytest.importorskip("pymilvus")
        pytest.importorskip("milvus_lite")
    shutil.copytree(INDICES / request.param, tmp_path / request.param)
    with open_store(str(tmp_path / request.param)) as store:
        yield store


def assert_hits(hits, expected):
    assert [(hit.file, hit.start, hit.end) for hit in hits] == [(file, *span) for file, _, *span in expected]
    assert [hit.score for hit in hits] == pytest.approx([score for _, score, *_ in expected], abs=1e-6)


def test_it_says_what_it_was_made_with(store):
    assert (store.info.window, store.info.overlap) == (0.25, 0.05)
    assert not store.info.normalize_level  # its windows were embedded at their own level
    assert store.info.model.name == "/models/tiny" and store.info.model.dimension == 8


def test_it_lists_its_recordings_and_their_embeddings(store):
    assert {path: dataclasses.asdict(record) for path, record in store.files().items()} == EXPECTED["files"]
    assert {file.record.path: file.embeds.tolist() for file in store.embedded()} == EXPECTED["embeds"]


def test_it_finds_what_it_found(store):
    assert_hits(store.search(QUERY, 10), EXPECTED["hits"])
    assert_hits(store.search(QUERY, 10, SearchFilter(folders=("/sounds/dogs",))), EXPECTED["below /sounds/dogs"])


def test_it_takes_new_recordings_and_new_names(store):
    new = EmbeddedFile(FileRecord("/sounds/new.wav", "0a", 8044, 9, 0.25), [(0.0, 0.25)], QUERY[None])
    changed = EmbeddedFile(dataclasses.replace(new.record, path="/sounds/rain.wav"), new.spans, -QUERY[None])
    store.put([new, changed])
    bark = store.files()["/sounds/dogs/bark.flac"]
    store.relabel({bark.path: dataclasses.replace(bark, path="/sounds/wolf.flac")})
    store.remove(["/sounds/new name.mp3"])
    store.optimize()
    paths = EXPECTED["files"].keys() - {bark.path, "/sounds/new name.mp3"} | {"/sounds/new.wav", "/sounds/wolf.flac"}
    hits = store.search(QUERY, 10)
    assert {hit.file for hit in hits} == store.files().keys() == paths
    assert (hits[0].file, hits[-1].file) == ("/sounds/new.wav", "/sounds/rain.wav")
