"""What is special to an index on Milvus: versions of a recording, addresses, the one process of Milvus Lite."""

import dataclasses
import os
import time

import numpy as np
import pytest

from modeling_cnn10bert.errors import RetrievalError

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")

from modeling_cnn10bert.retrieval.stores import milvus  # noqa: E402
from modeling_cnn10bert.retrieval.stores.milvus import MilvusStore  # noqa: E402
from modeling_cnn10bert.retrieval.stores.milvus_client import Address  # noqa: E402


@pytest.fixture
def location(tmp_path):
    return str(tmp_path / "index.db")


@pytest.fixture
def store(location, info):
    with MilvusStore.open(location, info) as store:
        yield store


def insert(store, file, version, rows=slice(None)):
    """Writes some of the rows of a version, as a writer that is killed does."""
    store._client.insert(store.address.collection, milvus._rows_of(file, version)[rows])


def version(seconds_ago):
    return f"{time.time_ns() - int(seconds_ago * 1e9):020d}-00000000"


def seen(store):
    """What a reader sees by each way of reading, which must agree: path -> digest."""
    files = {path: record.content_hash for path, record in store.files().items()}
    embedded = {file.record.path: file.record.content_hash for file in store.embedded()}
    searched = {hit.file: hit.record.content_hash for hit in store.search(np.ones(16, np.float32), 100)}
    assert files == embedded == searched
    return files


def test_a_recording_of_which_rows_are_missing_is_not_there(store, recording):
    file = recording("/a.wav", 3)
    insert(store, file, version(0), slice(0, 2))
    store.put([recording("/b.wav", 2)])
    assert seen(store) == {"/b.wav": recording("/b.wav").record.content_hash}


def test_until_all_rows_of_a_new_version_are_there_the_old_one_is_seen(store, recording):
    old, new = recording("/a.wav", 2), recording("/a.wav", 3, seed=1)
    store.put([old])
    name = version(-1)
    insert(store, new, name, slice(1, 3))
    assert seen(store) == {"/a.wav": old.record.content_hash}
    insert(store, new, name, slice(0, 1))
    assert seen(store) == {"/a.wav": new.record.content_hash}
    store.put([old])  # which clears up
    assert seen(store) == {"/a.wav": old.record.content_hash}
    assert len(store) == 2


def test_a_clock_that_goes_back_does_not_bring_back_the_old_version(store, recording):
    insert(store, recording("/a.wav", 2), version(-3600))
    new = recording("/a.wav", 1, seed=1)
    store.put([new])
    assert seen(store) == {"/a.wav": new.record.content_hash}
    assert len(store) == 1


def test_optimizing_deletes_what_killed_writers_left_and_nothing_that_is_under_way(store, recording):
    store.put([recording("/a.wav", 2)])
    insert(store, recording("/a.wav", 2, seed=1), version(50))  # older than the one that is seen, and whole
    insert(store, recording("/b.wav", 3), version(7200), slice(0, 2))  # never finished
    insert(store, recording("/c.wav", 3), version(1), slice(0, 2))  # may be under way
    before = seen(store)
    store.optimize()
    assert seen(store) == before
    assert len(store) == 2 + 2
    assert {row["path"] for row in store._rows("", ["path"])} == {"/a.wav", "/c.wav"}


def test_a_recording_too_large_for_a_request_is_written_in_several(store, recording, monkeypatch):
    requests = []
    insert_rows = store._client.insert
    monkeypatch.setattr(
        store._client, "insert", lambda name, rows: (requests.append(len(rows)), insert_rows(name, rows))
    )
    monkeypatch.setattr(milvus, "REQUEST_BYTES", 10 * milvus._row_bytes(16, "/long.wav"))
    store.put([recording("/a.wav", 4), recording("/long.wav", 25), recording("/b.wav", 4), recording("/c.wav", 4)])
    assert requests == [4, 10, 10, 5, 8]
    assert {path: len(file.spans) for file in store.embedded() for path in [file.record.path]} == {
        "/a.wav": 4,
        "/long.wav": 25,
        "/b.wav": 4,
        "/c.wav": 4,
    }


def test_more_rows_than_a_server_returns_at_once_are_found(store, many, monkeypatch):
    store.put(many)
    query = many[0].embeds[0]
    expected = store.search_windows(query, 140)
    assert len(store.files()) == 60
    monkeypatch.setattr(milvus, "MAX_LIMIT", 10)
    monkeypatch.setattr(milvus, "VECTOR_ROWS", 7)
    assert store.search_windows(query, 140) == expected
    monkeypatch.setattr(store._rows.__func__, "__defaults__", (10,))
    assert len(store.files()) == 60
    assert {file.record.path for file in store.embedded()} == {file.record.path for file in many}


def test_a_second_process_is_told_that_milvus_lite_serves_one(location, info, many, start_writer):
    MilvusStore.open(location, info).close()
    writer = start_writer(location, 0, 1, 0, 1_000_000)
    assert writer.stdout.readline()
    with pytest.raises(RetrievalError, match=f"{location}.*no other process.*LanceDB"):
        MilvusStore.open(location)
    writer.kill()
    writer.wait()
    with MilvusStore.open(location) as store:  # its lock went with it
        store.put(many)
        assert len(store.files()) >= 60


def test_a_store_may_be_open_twice_in_one_process(store, location, many):
    with MilvusStore.open(location) as other:
        store.put(many)
        assert len(other.files()) == 60
    assert len(store.files()) == 60


def test_a_server_that_does_not_answer_is_named_at_once(info):
    started = time.monotonic()
    with pytest.raises(RetrievalError, match="http://127.0.0.1:9: no Milvus server answers.*start one"):
        MilvusStore.open("http://127.0.0.1:9/sounds", info)
    assert time.monotonic() - started < 60


def test_an_address_names_server_account_and_collection():
    assert Address.of("http://host:19530") == Address("http://host:19530", "http://host:19530", "cnn10bert")
    address = Address.of("https://me:p%40ss@host:19530/my_sounds/")
    assert (address.uri, address.collection, address.token) == ("https://host:19530", "my_sounds", "me:p@ss")
    assert not address.is_lite and Address.of("some/index.db").is_lite
    with pytest.raises(RetrievalError, match="'my sounds'.*letters"):
        Address.of("http://host:19530/my sounds")


def test_a_collection_of_another_application_is_no_index(location, info, monkeypatch):
    from pymilvus import MilvusClient

    client = MilvusClient(location)
    client.create_collection("cnn10bert", dimension=4)
    client.close()
    for given in (None, info):
        with pytest.raises(RetrievalError, match="no index"):
            MilvusStore.open(location, given)


def test_a_full_disk_is_an_error_and_what_was_there_can_be_read(store, location, many, recording):
    resource = pytest.importorskip("resource")
    store.put(many)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(RetrievalError, match=f"{location}.*cannot be written"):
            store.put([recording(f"/large/{number}.wav", 64) for number in range(200)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(store.files()) >= 60
    assert store.search(many[3].embeds[0], 1)[0].file == many[3].record.path
    assert os.path.exists(location)


def test_relabelling_a_recording_of_another_version_keeps_one(store, recording):
    file = recording("/a.wav", 2)
    store.put([file])
    store.relabel({"/a.wav": dataclasses.replace(file.record, modified_ns=1)})
    assert len(store) == 2
    assert store.files()["/a.wav"].modified_ns == 1
