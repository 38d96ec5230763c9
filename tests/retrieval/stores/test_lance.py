"""What is special to an index in a folder: its index of vectors, several writers, a full disk."""

import dataclasses
import os
import resource
import subprocess

import numpy as np
import pytest

from modeling_cnn10bert.errors import RetrievalError
from modeling_cnn10bert.retrieval.records import SearchFilter
from modeling_cnn10bert.retrieval.stores import lance, open_store
from modeling_cnn10bert.retrieval.stores.lance import LanceStore


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "index"


@pytest.fixture
def store(folder, info):
    with LanceStore.open(str(folder), info) as store:
        yield store


@pytest.fixture
def clusters(recording):
    """1500 recordings of one window: 50 neighbours each around 30 directions, numbered by direction."""
    rng = np.random.default_rng(0)
    files = []
    for number in range(1500):
        file = recording(f"/{number // 50:02d}/{number:04d}.wav")
        direction = recording(f"/direction {number // 50}").embeds[0]
        embed = direction + 0.05 * rng.standard_normal(16)
        files.append(dataclasses.replace(file, embeds=(embed / np.linalg.norm(embed)).astype(np.float32)[None]))
    return files


@pytest.fixture
def indexed(store, clusters, monkeypatch):
    """A store so large that it has an index of its vectors, whose searches are not exact."""
    monkeypatch.setattr(lance, "INDEXED_ROWS", 1000)
    monkeypatch.setattr(lance, "PARTITION_ROWS", 40)
    monkeypatch.setattr(lance, "MIN_PROBES", 4)
    monkeypatch.setattr(lance, "EXACT_ROWS", 60)
    store.put(clusters[:1200])
    store.optimize()
    assert store._indexed_rows() == 1200
    return store


def exact_paths(files, query, k, admits=lambda record: True):
    files = [file for file in files if admits(file.record)]
    return [files[i].record.path for i in np.argsort([-float(file.embeds[0] @ query) for file in files])[:k]]


def test_a_small_index_is_searched_exactly(store, clusters):
    store.put(clusters[:100])
    store.optimize()
    assert store._indexed_rows() == 0


def test_the_approximate_index_finds_nearly_what_an_exact_search_does(indexed, clusters, recording):
    shares = []
    for number in range(20):
        query = recording(f"/direction {number}").embeds[0]
        found = {hit.file for hit in indexed.search(query, 10)}
        shares.append(len(found & set(exact_paths(clusters[:1200], query, 10))) / 10)
    assert np.mean(shares) > 0.95


def test_scores_behind_the_approximate_index_are_exact(indexed, clusters):
    embeds = {file.record.path: file.embeds[0] for file in clusters}
    query = 3 * clusters[700].embeds[0]
    for hit in indexed.search(query, 20):
        assert np.array_equal(hit.embed, embeds[hit.file])
        assert hit.score == pytest.approx(float(embeds[hit.file].astype(np.float64) @ query), abs=1e-6)


def test_what_was_put_or_removed_after_the_index_was_built_is_known_at_once(indexed, clusters):
    new, old = clusters[1300], clusters[100]
    indexed.put([new])
    assert indexed.search(new.embeds[0], 1)[0].file == new.record.path
    indexed.remove([old.record.path])
    assert old.record.path not in {hit.file for hit in indexed.search(old.embeds[0], 50)}
    moved = dataclasses.replace(old, record=clusters[200].record)  # other embeddings under a path that is there
    indexed.put([moved])
    assert indexed.search(old.embeds[0], 1)[0].file == clusters[200].record.path


def test_new_rows_enter_the_index_when_it_is_optimized(indexed, clusters):
    for number in range(1200, 1500, 100):
        indexed.put(clusters[number : number + 100])
        indexed.optimize()
    statistics = indexed._table.index_stats(lance.INDEX)
    assert (statistics.num_indexed_rows, statistics.num_unindexed_rows) == (1500, 0)
    found = [indexed.search(file.embeds[0], 1)[0].file for file in clusters[1200::10]]
    assert np.mean([path == file.record.path for path, file in zip(found, clusters[1200::10], strict=True)]) > 0.95


@pytest.mark.parametrize("folders", [("/03",), ("/03", "/04", "/05"), ("/none",)])
def test_behind_a_filter_the_approximate_index_loses_nothing(indexed, clusters, recording, folders):
    where = SearchFilter(folders=folders)
    query = recording("/direction 20").embeds[0]  # far from all that the filter admits
    expected = exact_paths(clusters[:1200], query, 1200, lambda record: record.folder in folders)
    assert [hit.file for hit in indexed.search(query, 1000, where)] == expected
    hits, complete = indexed.search_windows(query, len(expected) + 1, where)
    assert ([hit.file for hit in hits], complete) == (expected, True)
    if expected:
        hits, complete = indexed.search_windows(query, len(expected) - 1, where)
        assert (len(hits), complete) == (len(expected) - 1, False)


def test_all_windows_are_found_where_more_are_asked_for_than_there_are(indexed, clusters):
    query = clusters[0].embeds[0]
    assert [hit.file for hit in indexed.search(query, 5000)] == exact_paths(clusters[:1200], query, 5000)


def test_embeddings_of_an_odd_dimension_are_searched_exactly(folder, info, recording, monkeypatch):
    monkeypatch.setattr(lance, "INDEXED_ROWS", 100)
    odd = dataclasses.replace(info, model=dataclasses.replace(info.model, dimension=12))
    files = [recording(f"/{number:03d}.wav", dimension=12) for number in range(300)]
    with LanceStore.open(str(folder), odd) as store:
        store.put(files)
        store.optimize()
        query = files[7].embeds[0]
        assert [hit.file for hit in store.search(query, 300)] == exact_paths(files, query, 300)


def test_every_write_is_one_commit(store, many, recording):
    def commits(write):
        before = store._table.version
        write()
        return store._table.version - before

    assert commits(lambda: store.put(many)) == 1
    assert commits(lambda: store.put([recording(many[3].record.path, 1, seed=9), *many[10:20]])) == 1
    renamed = {file.record.path: dataclasses.replace(file.record, path=file.record.path + "x") for file in many[:9]}
    assert commits(lambda: store.relabel(renamed)) == 1
    assert commits(lambda: store.remove([file.record.path for file in many[20:40]])) == 1


def test_a_reader_sees_what_another_has_written_since(store, folder, many):
    with LanceStore.open(str(folder)) as reader:
        store.put(many[:10])
        assert len(reader.files()) == 10
        store.put(many)
        store.optimize()
        assert len(reader.files()) == 60
        assert reader.search(many[50].embeds[0], 1)[0].file == many[50].record.path


def test_a_stream_of_embeddings_survives_writing_and_optimizing(store, many, monkeypatch):
    monkeypatch.setattr(lance, "BATCH_ROWS", 8)
    store.put(many)
    stream = store.embedded()
    found = [next(stream)]
    store.remove([file.record.path for file in many[:30]])
    store.optimize()
    found += stream
    assert {file.record.path for file in found} == {file.record.path for file in many}


def test_a_stream_whose_version_is_deleted_goes_on_with_the_newest(store, many, recording, monkeypatch):
    store.put(many)
    read, added = store._embedded_where, recording("/added.wav")

    def read_until_the_version_is_gone(condition):
        files = read(condition)
        yield from (next(files) for _ in range(7))
        monkeypatch.setattr(store, "_embedded_where", read)
        store.put([added])
        store.remove([many[-1].record.path])
        raise OSError("Not found: index/windows.lance/data/0.lance")

    monkeypatch.setattr(store, "_embedded_where", read_until_the_version_is_gone)
    found = [file.record.path for file in store.embedded()]
    assert sorted(found) == sorted([file.record.path for file in many[:-1]] + ["/added.wav"])


def test_a_stream_that_cannot_be_read_is_an_error(store, many, monkeypatch):
    store.put(many)

    def fail(condition):
        raise OSError("the disk is gone")

    monkeypatch.setattr(store, "_embedded_where", fail)
    with pytest.raises(RetrievalError, match="cannot be read.*the disk is gone"):
        list(store.embedded())


def test_a_folder_of_any_name_can_hold_an_index(tmp_path, info, many):
    folder = tmp_path / "a b%20#?'é"
    with open_store(str(folder), info) as store:
        store.put(many)
    with open_store(str(folder)) as store:
        assert len(store.files()) == 60
    assert sorted(os.listdir(tmp_path)) == [folder.name]


@pytest.mark.parametrize("name", ["back\\slash", "\udcff"])
def test_a_folder_that_lance_would_look_for_elsewhere_is_refused(tmp_path, info, name):
    with pytest.raises(RetrievalError, match="found a backslash or bytes that are no UTF-8"):
        open_store(str(tmp_path / name), info)
    assert os.listdir(tmp_path) == []


def test_what_a_kill_leaves_of_a_new_index_is_taken_up(folder, info, many):
    folder.mkdir()
    (folder / lance.LOCK).touch()
    (folder / f".{lance.INFO}.123.tmp").write_text("{")
    LanceStore.open(str(folder), info).close()
    for left in (folder / f"{lance.TABLE}.lance").rglob("*.manifest"):  # killed before the table was there
        left.unlink()
    with LanceStore.open(str(folder)) as store:
        store.put(many)
        assert len(store.files()) == 60


def test_an_index_that_is_damaged_is_an_error_that_says_so(folder, info):
    LanceStore.open(str(folder), info).close()
    (folder / lance.INFO).write_text("{")
    with pytest.raises(RetrievalError, match=f"{folder}/index.json: found no JSON"):
        LanceStore.open(str(folder))


def test_two_processes_that_write_at_once_lose_and_double_nothing(folder, info, start_writer, assert_whole):
    LanceStore.open(str(folder), info).close()
    writers = [start_writer(folder, 0, 6, 0, 25), start_writer(folder, 4, 6, 1000, 25)]  # 4 and 5 are both's
    with LanceStore.open(str(folder)) as reader:
        while any(writer.poll() is None for writer in writers):
            assert_whole_or_newer(reader)
            reader.optimize()
        assert [writer.returncode for writer in writers] == [0, 0]
        versions = {path: int(record.content_hash) for path, record in reader.files().items()}
        assert {path: versions[path] for path in versions if path not in ("/sounds/4.wav", "/sounds/5.wav")} == {
            **{f"/sounds/{number}.wav": 24 for number in range(4)},
            **{f"/sounds/{number}.wav": 1024 for number in range(6, 10)},
        }
        assert versions["/sounds/4.wav"] == versions["/sounds/5.wav"] and versions["/sounds/4.wav"] in (24, 1024)
        assert_whole(reader)
        assert len(reader) == sum(1 + version % 5 for version in versions.values())


def assert_whole_or_newer(reader):
    """Every recording in one version, while others write: 1 + v % 5 windows of version v."""
    for file in reader.embedded():
        assert len(file.spans) == 1 + int(file.record.content_hash) % 5
        assert (file.embeds == file.embeds[0]).all()


def test_a_full_disk_is_an_error_and_what_was_there_can_be_read(store, folder, many, recording):
    store.put(many)
    large = [recording(f"/large/{number}.wav", 64) for number in range(200)]  # 0.8 MB
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # no file may grow beyond it
    try:
        with pytest.raises(RetrievalError, match=f"{folder}.*cannot be written.*free some space"):
            store.put(large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(store.files()) == 60
    with LanceStore.open(str(folder)) as again:
        assert again.search(many[3].embeds[0], 1)[0].file == many[3].record.path
    store.put(large)  # once there is room
    assert len(store.files()) == 260


def test_a_disk_without_room_left_is_an_error_and_what_was_there_can_be_read(tmp_path, info, many, recording):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no right to mount a small disk: {mounted.stderr.strip()}")
    try:
        with LanceStore.open(str(disk / "index"), info) as store:
            store.put(many)
            with pytest.raises(RetrievalError, match="index cannot be written"):
                store.put([recording(f"/large/{number}.wav", 64) for number in range(1000)])  # 4 MB
            assert len(store.files()) == 60
            assert store.search(many[3].embeds[0], 1)[0].file == many[3].record.path
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
