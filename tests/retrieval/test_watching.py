"""A watched folder is indexed at once and after every change, and a file only when it is whole."""

import os
import queue
import signal
import threading
import time

import pytest

from modeling_cnn10bert.errors import RetrievalError
from modeling_cnn10bert.retrieval import watching
from modeling_cnn10bert.retrieval.indexing import index_folders
from modeling_cnn10bert.retrieval.watching import watch_folders

PATIENCE = 60  # seconds for what takes a fraction of one on an idle machine


@pytest.fixture
def watch(sounds):
    """Watches in a thread; each call's unfinished paths arrive in the queue that comes back."""
    stop, threads = threading.Event(), []

    def start(*paths, on_call=lambda unfinished: None, **options):
        calls = queue.Queue()

        def on_change(unfinished):
            on_call(unfinished)
            calls.put(unfinished)

        options = {"settle": 0.2, "step": 0.05, **options}
        thread = threading.Thread(
            target=watch_folders, args=(paths or (sounds,), on_change), kwargs={"stop": stop, **options}
        )
        thread.start()
        threads.append(thread)
        assert calls.get(timeout=PATIENCE) == frozenset()  # at once, without a change
        return calls

    yield start
    stop.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def test_a_recording_that_is_moved_into_the_watched_folder_is_renamed(watch, store, embedder, sounds, record, tmp_path):
    elsewhere = tmp_path.resolve() / "elsewhere"
    elsewhere.mkdir()
    record(elsewhere / "a.wav")
    index_folders(store, embedder, [elsewhere], progress=False)
    embedder.batches.clear()
    reports = []

    def index(unfinished):
        reports.append(index_folders(store, embedder, [sounds], progress=False, unfinished=unfinished))

    watch(sounds, on_call=index)
    (elsewhere / "a.wav").rename(sounds / "a.wav")
    wait_until(lambda: list(store.files()) == [str(sounds / "a.wav")])
    wait_until(lambda: sum(report.renamed for report in list(reports)) == 1)
    assert embedder.batches == []


def test_every_kind_of_change_is_followed_by_the_index(watch, store, embedder, sounds, record):
    def index(unfinished):
        index_folders(store, embedder, [sounds], progress=False, unfinished=unfinished, allow_empty=True)

    def holds(*names):
        return {os.path.relpath(path, sounds) for path in store.files()} == set(names)

    record(sounds / "a.wav")
    watch(on_call=index)
    assert holds("a.wav")
    (sounds / "deep").mkdir()
    record(sounds / "deep" / "b.wav")
    wait_until(lambda: holds("a.wav", "deep/b.wav"))
    record(sounds / "a.wav", seconds=2)
    wait_until(lambda: store.files()[str(sounds / "a.wav")].duration == 2)
    (sounds / "deep").rename(sounds / "vol. 2")
    wait_until(lambda: holds("a.wav", "vol. 2/b.wav"))
    (sounds / "a.wav").unlink()
    (sounds / "vol. 2" / "b.wav").unlink()
    (sounds / "vol. 2").rmdir()
    wait_until(holds)


def test_what_is_no_recording_is_ignored(watch, sounds, tmp_path, record):
    (sounds / "index").mkdir()
    calls = watch(ignored=[sounds / "index"])
    (sounds / "notes.txt").write_text("x")
    (sounds / ".hidden.wav").write_text("x")
    (sounds / "index" / "a.wav").write_text("x")
    (sounds / "index" / "a.wav").unlink()
    record(sounds / "last.wav")
    assert calls.get(timeout=PATIENCE) == frozenset()
    with pytest.raises(queue.Empty):
        calls.get(timeout=0.5)


def test_a_file_that_is_being_written_waits_and_comes_when_it_is_whole(watch, sounds, record, monkeypatch):
    monkeypatch.setattr(watching, "PATIENCE", 3)
    calls = watch()
    done = threading.Event()

    def write():
        with open(sounds / "growing.wav", "wb", buffering=0) as file:
            while not done.is_set():
                file.write(b"12345")
                time.sleep(0.01)

    writer = threading.Thread(target=write)
    writer.start()
    record(sounds / "whole.wav")
    first = calls.get(timeout=PATIENCE)  # the whole one does not wait for ever
    done.set()
    writer.join()
    assert first == {str(sounds / "growing.wav")}
    assert calls.get(timeout=PATIENCE) == frozenset()


def test_a_change_during_a_call_leads_to_another_call(watch, sounds, record):
    written = []

    def on_call(_):
        if not written:
            written.append(record(sounds / "a.wav"))

    calls = watch(on_call=on_call)
    assert calls.get(timeout=PATIENCE) == frozenset()


def test_a_given_file_is_watched_though_it_is_replaced(watch, sounds, record):
    path = record(sounds / "take.one", format="WAV")
    calls = watch(path)
    for number in range(2):
        os.replace(record(sounds / f"new-{number}", format="WAV"), path)
        assert calls.get(timeout=PATIENCE) == frozenset()


def test_a_name_that_is_no_utf8_ends_nothing(watch, sounds, record):
    calls = watch()
    try:
        record(os.path.join(sounds, os.fsdecode(b"\xff.wav")))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert calls.get(timeout=PATIENCE) == frozenset()
    record(sounds / "a.wav")
    assert calls.get(timeout=PATIENCE) == frozenset()


def test_a_folder_that_does_not_exist_is_an_error(sounds):
    with pytest.raises(RetrievalError, match="nowhere: found no such folder"):
        watch_folders([sounds / "nowhere"], lambda unfinished: None, step=0.05)


def test_an_error_of_the_caller_ends_the_watching(sounds):
    def fail(unfinished):
        raise OSError("the caller's own")

    with pytest.raises(OSError, match="the caller's own"):
        watch_folders([sounds], fail, step=0.05)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("while_it_waits", [True, False])
def test_control_c_ends_it_without_an_error(sounds, while_it_waits):
    calls = []

    def on_change(unfinished):
        calls.append(unfinished)
        if while_it_waits:
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        else:
            signal.raise_signal(signal.SIGINT)

    watch_folders([sounds], on_change, step=0.05)
    assert calls == [frozenset()]
