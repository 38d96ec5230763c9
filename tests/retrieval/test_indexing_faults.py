"""Whatever goes wrong with one file, the run goes on; whatever goes wrong with the run, the index stays whole."""

import csv
import errno
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import soundfile

from modeling_cnn10bert.data import ffmpeg
from modeling_cnn10bert.errors import RetrievalError
from modeling_cnn10bert.retrieval import reading
from modeling_cnn10bert.retrieval.embedding import load_embedder
from modeling_cnn10bert.retrieval.indexing import index_folders
from modeling_cnn10bert.retrieval.records import IndexInfo


@pytest.fixture
def index(store, embedder):
    def run(*paths, **options):
        return index_folders(store, embedder, paths, progress=False, **options)

    return run


@pytest.fixture
def before_decoding(monkeypatch):
    """Has something happen to a file of this name after it was hashed and before it is decoded, once."""

    def happen(name, what):
        read_windows, happened = reading.read_windows, []

        def wrapped(path, *arguments):
            if os.path.basename(path) == name and not happened:
                happened.append(path)
                what(path)
            return read_windows(path, *arguments)

        monkeypatch.setattr(reading, "read_windows", wrapped)

    return happen


def names(store, sounds):
    return sorted(os.path.relpath(path, sounds) for path in store.files())


def problems(report):
    return {os.path.basename(path): reason for path, reason in report.problems}


# ------------------------------------------------------------------------------------------------- what is in a file


def test_files_that_are_no_recordings_are_listed_with_their_reasons(index, store, sounds, record):
    record(sounds / "good.wav")
    (sounds / "empty.wav").touch()
    (sounds / "text.wav").write_text("this is no sound")
    (sounds / "text.m4a").write_text("nor is this")
    soundfile.write(sounds / "silent.wav", np.zeros(0), 8000)
    soundfile.write(sounds / "nan.wav", np.full(100, np.nan), 8000, subtype="FLOAT")
    header = bytearray(record(sounds / "damaged.wav").read_bytes())
    header[24:28] = (1).to_bytes(4, "little")  # the sampling rate
    (sounds / "damaged.wav").write_bytes(header)
    whole = record(sounds / "broken.flac").read_bytes()
    (sounds / "broken.flac").write_bytes(whole[:40] + bytes(len(whole) - 40))
    os.mkfifo(sounds / "pipe.wav")
    report = index(sounds)
    assert names(store, sounds) == ["good.wav"]
    assert (report.added, report.skipped) == (1, 8)
    reasons = problems(report)
    for name, reason in {
        "empty.wav": "found 0 bytes that do not decode",
        "text.wav": "found 16 bytes that do not decode",
        "text.m4a": "found 11 bytes that do not decode",
        "silent.wav": "found 0 samples",
        "nan.wav": "found 100 of 100 samples NaN or infinite",
        "damaged.wav": "found a sampling rate of 1 Hz",
        "broken.flac": "found ",
        "pipe.wav": "a device, pipe or socket",
    }.items():
        assert reasons[name].startswith(reason)
    assert index(sounds).skipped == 8  # they are tried again, as nothing is known of them


def test_a_truncated_recording_is_indexed_as_far_as_it_goes(index, store, sounds, record):
    whole = record(sounds / "cut.wav", seconds=1.5).read_bytes()
    (sounds / "cut.wav").write_bytes(whole[: 44 + 2 * 8000])
    assert index(sounds).added == 1
    assert store.files()[str(sounds / "cut.wav")].duration == 1.0


def test_a_recording_that_became_something_else_leaves_the_index(index, store, sounds, record):
    path = record(sounds / "a.wav")
    record(sounds / "b.wav")
    index(sounds)
    path.write_text("not a sound any more")
    report = index(sounds)
    assert (report.removed, report.skipped, report.unchanged) == (1, 1, 1)
    assert names(store, sounds) == ["b.wav"]


def test_copies_of_a_broken_file_are_each_listed(index, store, sounds):
    for name in ("a.wav", "b.wav", "c.wav"):
        (sounds / name).write_text("no sound")
    report = index(sounds)
    assert report.skipped == 3
    assert set(problems(report)) == {"a.wav", "b.wav", "c.wav"}
    assert len(store) == 0


def test_names_in_any_encoding_are_indexed(index, store, sounds, record):
    try:
        path = record(os.path.join(sounds, os.fsdecode(b"caf\xe9\xff.wav")))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert index(sounds).added == 1
    assert list(store.files()) == [path]
    assert index(sounds).unchanged == 1


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg is installed")
def test_what_only_ffmpeg_decodes_is_indexed_beside_the_rest(index, store, sounds, record):
    path = record(sounds / "a.wav", seconds=3)
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-i", path, sounds / "b.m4a"], check=True)
    index(sounds)
    a, b = (store.contents[str(sounds / name)] for name in ("a.wav", "b.m4a"))
    assert b.record.duration == pytest.approx(3, abs=0.3)
    assert float(a.embeds[0] @ b.embeds[0]) > 0.9


def test_without_ffmpeg_its_formats_are_listed_with_what_is_missing(index, sounds, monkeypatch):
    (sounds / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    monkeypatch.setattr(ffmpeg.shutil, "which", lambda name: None)
    assert "no ffmpeg is installed" in problems(index(sounds))["a.m4a"]


# ------------------------------------------------------------------------------- what happens to a file meanwhile


def test_a_file_that_is_deleted_while_it_is_indexed_is_listed(index, store, sounds, record, before_decoding):
    record(sounds / "a.wav")
    record(sounds / "b.wav")
    before_decoding("a.wav", os.unlink)
    report = index(sounds)
    assert problems(report) == {"a.wav": "deleted while it was indexed"}
    assert names(store, sounds) == ["b.wav"]


def test_a_file_that_is_deleted_before_its_turn_is_listed(index, store, sounds, record, monkeypatch):
    record(sounds / "a.wav")
    record(sounds / "b.wav")
    content_hash = reading.content_hash

    def delete_the_other(path):
        (sounds / "b.wav").unlink(missing_ok=True)
        return content_hash(path)

    monkeypatch.setattr(reading, "content_hash", delete_the_other)
    assert problems(index(sounds, workers=1)) == {"b.wav": "deleted while it was indexed"}
    assert names(store, sounds) == ["a.wav"]


def test_a_file_that_changes_while_it_is_read_keeps_its_old_entry(index, store, sounds, record, before_decoding):
    path = record(sounds / "a.wav")
    index(sounds)
    old = store.contents[str(path)]
    record(path, seconds=3)
    before_decoding("a.wav", lambda path: record(path, seconds=5))
    assert problems(index(sounds))["a.wav"].startswith("it changed while it was read")
    assert store.contents[str(path)] is old
    assert index(sounds).changed == 1
    assert store.files()[str(path)].duration == 5


def test_a_copy_takes_the_place_of_a_file_that_changed_while_it_was_read(index, store, sounds, record, before_decoding):
    record(sounds / "a.wav", seed=1)
    for name in ("b.wav", "c.wav"):
        shutil.copy(sounds / "a.wav", sounds / name)
    before_decoding("a.wav", os.unlink)
    report = index(sounds, workers=1)
    assert (report.added, report.skipped) == (2, 1)
    assert names(store, sounds) == ["b.wav", "c.wav"]


def test_copies_of_files_that_change_one_after_the_other_are_all_dealt_with(index, store, sounds, record, monkeypatch):
    record(sounds / "a.wav", seed=1)
    for name in ("b.wav", "c.wav", "d.wav"):
        shutil.copy(sounds / "a.wav", sounds / name)
    read_windows, changes = (
        reading.read_windows,
        iter([lambda: record(sounds / "a.wav"), lambda: record(sounds / "b.wav")]),
    )

    def wrapped(path, *arguments):
        next(changes, lambda: None)()  # before a.wav is decoded; then b.wav, in its place
        return read_windows(path, *arguments)

    monkeypatch.setattr(reading, "read_windows", wrapped)
    report = index(sounds, workers=1)
    assert report.added + report.skipped == 4
    assert {"c.wav", "d.wav"} <= set(names(store, sounds))


@pytest.mark.parametrize("where", ["content_hash", "read_windows"])
def test_a_file_that_cannot_be_read_now_stays_in_the_index(index, store, sounds, record, monkeypatch, where):
    record(sounds / "a.wav")
    record(sounds / "b.wav")
    index(sounds)
    old = store.contents[str(sounds / "a.wav")]
    record(sounds / "a.wav")
    function = getattr(reading, where)

    def refuse(path, *arguments):
        if path == str(sounds / "a.wav"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return function(path, *arguments)

    monkeypatch.setattr(reading, where, refuse)
    assert problems(index(sounds)) == {"a.wav": "Permission denied"}
    assert store.contents[str(sounds / "a.wav")] is old


def test_recordings_below_an_unreadable_folder_stay_in_the_index(index, store, sounds, record, monkeypatch):
    (sounds / "locked").mkdir()
    record(sounds / "locked" / "a.wav")
    record(sounds / "b.wav")
    index(sounds)
    scandir = os.scandir

    def refuse(path):
        if os.path.basename(path) == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    report = index(sounds)
    assert problems(report) == {"locked": "Permission denied"}
    assert (report.removed, report.unchanged) == (0, 1)
    assert names(store, sounds) == ["b.wav", "locked/a.wav"]


def test_too_many_open_files_condemn_no_recording(index, store, sounds, record, monkeypatch):
    path = record(sounds / "a.wav")
    index(sounds)
    record(path)

    def refuse(*arguments, **options):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("modeling_cnn10bert.data.audio_io.soundfile.SoundFile", refuse)
    monkeypatch.setattr(ffmpeg.subprocess, "Popen", refuse)
    assert "Too many open files" in problems(index(sounds))["a.wav"]
    assert names(store, sounds) == ["a.wav"]


# ------------------------------------------------------------------------------------------ what happens to the run


def test_a_recording_that_the_model_refuses_is_listed_and_its_neighbours_are_embedded(
    index, store, embedder, sounds, record
):
    for number in range(6):
        record(sounds / f"{number}.wav", seconds=7 if number == 3 else 1)
    shutil.copy(sounds / "3.wav", sounds / "copy.wav")
    embed = embedder._embed

    def refuse(waveform):
        if len(waveform) == 16000:  # a whole window
            raise RuntimeError("out of memory")
        return embed(waveform)

    embedder._embed = refuse
    report = index(sounds)
    assert names(store, sounds) == ["0.wav", "1.wav", "2.wav", "4.wav", "5.wav"]
    assert problems(report) == dict.fromkeys(
        ("3.wav", "copy.wav"), "the model does not embed it (RuntimeError: out of memory)"
    )


def test_an_embedding_that_is_no_number_is_never_stored(index, store, embedder, sounds, record):
    record(sounds / "a.wav", seconds=0.5)
    record(sounds / "b.wav", seconds=5)
    embed = embedder._embed
    embedder._embed = lambda waveform: embed(waveform) * (np.nan if len(waveform) == 16000 else 1)
    report = index(sounds)
    assert problems(report) == {"b.wav": "the model's embedding of it is NaN or infinite"}
    assert names(store, sounds) == ["a.wav"]


def test_a_full_disk_is_one_error_and_what_was_stored_stays(index, store, new_store, embedder, sounds, record):
    for number in range(8):
        record(sounds / f"{number}.wav")
    put, puts = store.put, []

    def fill(files):
        if len(puts) == 3:
            raise RetrievalError("the disk is full")
        puts.append(files)
        put(files)

    store.put = fill
    with pytest.raises(RetrievalError, match="the disk is full"):
        index(sounds, commit_seconds=0.0, batch_seconds=0.25)
    stored = names(store, sounds)
    assert 0 < len(stored) < 8
    store.put = put
    report = index(sounds)
    assert (report.unchanged, report.added) == (len(stored), 8 - len(stored))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(reading.THREAD)]


@pytest.mark.usefixtures("interruptible")
def test_control_c_keeps_what_is_whole_and_ends_the_threads(index, store, embedder, sounds, record):
    for number in range(8):
        record(sounds / f"{number}.wav")
    embed = embedder._embed

    def interrupt(waveform):
        if len(embedder.batches) == 3:
            signal.raise_signal(signal.SIGINT)
        return embed(waveform)

    embedder._embed = interrupt
    with pytest.raises(KeyboardInterrupt):
        index(sounds, batch_seconds=0.25, workers=1)
    assert 0 < len(names(store, sounds)) < 8
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(reading.THREAD)]


def test_decoding_waits_for_the_model(index, embedder, sounds, record, monkeypatch):
    for number in range(40):
        record(sounds / f"{number:02}.wav")
    record(sounds / "long.wav", seconds=60)
    read_windows, embed_audio = reading.read_windows, embedder.embed_audio
    decoded, embedded, waiting = [], [], []

    def count_decoded(*arguments):
        for start, end, waveform in read_windows(*arguments):
            decoded.append(end - start)
            yield start, end, waveform

    def count_embedded(waveforms):
        time.sleep(0.005)  # enough to decode far more
        waiting.append(sum(decoded) - sum(embedded))
        embedded.extend(len(waveform) / 8000 for waveform in waveforms)
        return embed_audio(waveforms)

    monkeypatch.setattr(reading, "read_windows", count_decoded)
    monkeypatch.setattr(embedder, "embed_audio", count_embedded)
    assert index(sounds, workers=3, batch_seconds=2.0).added == 41
    # Four batches wait for the model, four for their turn, and one window for each of the three threads.
    assert 8.0 < max(waiting) <= 2 * (4 * 2.0 + 2.0) + 3 * 2.0


# ------------------------------------------------------------------------------------------------------ with LanceDB


@pytest.fixture
def lance(embedder, tmp_path):
    pytest.importorskip("lancedb")
    from modeling_cnn10bert.retrieval.stores import open_store

    with open_store(str(tmp_path / "index"), IndexInfo(embedder.identity, window=2.0, overlap=0.5)) as store:
        yield store


def test_the_index_in_a_folder_goes_through_every_change(lance, embedder, sounds, record):
    def update(**options):
        report = index_folders(lance, embedder, [sounds], progress=False, **options)
        counts = (report.added, report.changed, report.renamed, report.removed, report.unchanged)
        return counts, names(lance, sounds)

    for name in ("a.wav", "b.wav", "c.wav"):
        record(sounds / name, seconds=3)
    shutil.copy(sounds / "a.wav", sounds / "copy of a.wav")
    assert update() == ((4, 0, 0, 0, 0), ["a.wav", "b.wav", "c.wav", "copy of a.wav"])
    (sounds / "a.wav").rename(sounds / "d.wav")
    record(sounds / "b.wav", seconds=5)
    (sounds / "c.wav").unlink()
    os.utime(sounds / "copy of a.wav", ns=(7, 7))
    shutil.copy(sounds / "d.wav", sounds / "e.wav")
    counts, found = update()
    assert found == ["b.wav", "copy of a.wav", "d.wav", "e.wav"]
    assert counts[1] == 1 and counts[3] == 1 and counts[4] == 1
    assert counts[0] + counts[2] == 2 and counts[2] == 1
    assert update() == ((0, 0, 0, 0, 4), found)
    for file in lance.embedded():
        assert file.record.modified_ns == os.stat(file.record.path).st_mtime_ns
        windows = list(reading.read_windows(file.record.path, 8000, 2.0, 0.5, level_normalized=True))
        np.testing.assert_allclose(file.spans, [window[:2] for window in windows], atol=1e-6)
        np.testing.assert_allclose(file.embeds, embedder.embed_audio([window[2] for window in windows]), atol=1e-5)


@pytest.mark.parametrize("year", [1901, 1969, 2106, 2400])
def test_times_of_modification_that_a_file_can_have_stop_no_folder(lance, embedder, sounds, record, year):
    path = record(sounds / "a.wav")
    seconds = int((year - 1970) * 365.2425 * 86400)
    try:
        os.utime(path, ns=(seconds * 10**9, seconds * 10**9))
    except (OSError, OverflowError):
        pytest.skip(f"this file system has no times of the year {year}")
    record(sounds / "b.wav")
    report = index_folders(lance, embedder, [sounds], progress=False)
    assert report.added == 2
    assert index_folders(lance, embedder, [sounds], progress=False).unchanged == 2
    assert len(lance.search(embedder.embed_audio([np.ones(8000, np.float32)])[0], 2)) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_run_that_is_killed_ten_times_ends_in_the_index_of_an_uninterrupted_one(
    tiny_folder, sounds, record, tmp_path
):
    pytest.importorskip("lancedb")
    from modeling_cnn10bert.retrieval.stores import open_store

    random = np.random.default_rng(0)
    for number in range(60):
        record(sounds / f"{number:02}.wav", seconds=random.choice([0.2, 0.4, 0.7, 1.6, 2.9]))
    arguments = [tiny_folder[0], sounds, tmp_path / "index", tmp_path / "whole", 0, 10]
    process = subprocess.Popen(
        [sys.executable, pathlib.Path(__file__).with_name("killed_indexing.py"), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    ends, sizes = [], []
    try:
        for line in process.stdout:  # a reader looks in between, while the next attempt is already writing
            ends.append(line.strip())
            if (tmp_path / "index" / "index.json").exists():
                with open_store(str(tmp_path / "index")) as store:
                    sizes.append(check_whole(store))
        assert process.wait() == 0, process.stderr.read()
    finally:
        process.kill()
        process.communicate()
    assert ends[-1] == "done"
    assert ends.count("killed") >= 5  # the others were too quick
    assert sizes == sorted(sizes)
    assert any(0 < size < 60 for size in sizes)
    with open_store(str(tmp_path / "index")) as store, open_store(str(tmp_path / "whole")) as whole:
        assert store.files() == whole.files()
        assert len(store.files()) == 60
        expected = {file.record.path: file for file in whole.embedded()}
        for file in store.embedded():
            np.testing.assert_allclose(file.spans, expected[file.record.path].spans, atol=1e-6)
            np.testing.assert_allclose(file.embeds, expected[file.record.path].embeds, atol=1e-5)
        path = str(sounds / "07.wav")
        waveforms = [window[2] for window in reading.read_windows(path, 32000, 1.0, 0.25, level_normalized=True)]
        embeds = load_embedder(str(tiny_folder[0])).embed_audio(waveforms)
        np.testing.assert_allclose(expected[path].embeds, embeds, atol=1e-5)


def check_whole(store):
    """How many recordings a reader sees, each with all its windows."""
    files = list(store.embedded())
    for file in files:
        windows = [window[:2] for window in reading.read_windows(file.record.path, 32000, 1.0, 0.25)]
        np.testing.assert_allclose(file.spans, windows, atol=1e-6)
        assert file.embeds.shape == (len(windows), store.info.model.dimension)
        np.testing.assert_allclose(np.linalg.norm(file.embeds, axis=1), 1, atol=1e-4)
    return len(files)


# ------------------------------------------------------------------------------------- what is used with a remark


def test_a_recording_that_is_used_with_a_remark_is_in_the_index_and_in_the_report(
    index, store, sounds, record, tmp_path
):
    whole = record(sounds / "cut.wav", seconds=4).read_bytes()
    (sounds / "cut.wav").write_bytes(whole[: len(whole) // 2])
    shutil.copy(sounds / "cut.wav", sounds / "copy.wav")
    record(sounds / "good.wav")
    (sounds / "text.wav").write_text("no sound")
    report = index(sounds)
    assert names(store, sounds) == ["copy.wav", "cut.wav", "good.wav"]
    note = "2.0 of 4.0 s of sound were read, as the file is cut off; fetch or export it again"
    assert sorted(report.notes) == [(str(sounds / "copy.wav"), note), (str(sounds / "cut.wav"), note)]
    assert str(report).endswith("; 2 kept with a remark")
    report.write_csv(tmp_path / "report.csv")
    with open(tmp_path / "report.csv", newline="", encoding="utf-8") as file:
        rows = {os.path.basename(row["path"]): (row["outcome"], row["reason"]) for row in csv.DictReader(file)}
    assert rows["cut.wav"] == rows["copy.wav"] == ("kept", note)
    assert rows["text.wav"][0] == "left out" and len(rows) == 3
    shutil.copy(sounds / "cut.wav", sounds / "later.wav")  # its content is known, so it is not decoded
    assert index(sounds).notes == []


@pytest.mark.parametrize("path", ["", os.environ.get("PATH", "")], ids=["without ffmpeg", "as installed"])
@pytest.mark.parametrize(
    "error", [OSError(errno.ENFILE, "Too many open files in system"), MemoryError(), soundfile.LibsndfileError(2)]
)
def test_what_the_system_refuses_condemns_no_recording(index, store, sounds, record, monkeypatch, error, path):
    record(sounds / "a.wav")
    index(sounds)
    old = store.contents[str(sounds / "a.wav")]
    record(sounds / "a.wav")

    def refuse(*arguments, **options):
        raise error

    monkeypatch.setenv("PATH", path)
    with monkeypatch.context() as patch:
        patch.setattr(soundfile, "SoundFile", refuse)
        patch.setattr(ffmpeg.subprocess, "Popen", refuse if isinstance(error, OSError) else subprocess.Popen)
        report = index(sounds)
    if report.skipped:  # else an installed ffmpeg read it
        assert "does not read now" in problems(report)["a.wav"]
        assert store.contents[str(sounds / "a.wav")] is old
    assert names(store, sounds) == ["a.wav"]
    assert index(sounds).skipped == 0


def test_numbers_that_a_header_can_hold_stop_no_folder(index, store, sounds, record):
    def header(name, start, value):
        content = bytearray(record(sounds / name).read_bytes())
        content[start : start + len(value)] = value
        (sounds / name).write_bytes(content)

    header("rate 0.wav", 24, bytes(4))
    header("rate 1.wav", 24, b"\1\0\0\0")
    header("rate of billions.wav", 24, b"\xff\xff\xff\x7f")
    header("no channel.wav", 22, bytes(2))
    header("channels.wav", 22, b"\xff\xff")
    header("length.wav", 40, b"\xff\xff\xff\xff")
    soundfile.write(sounds / "thousand.wav", np.full((800, 1000), 0.1), 8000)
    soundfile.write(sounds / "loud.wav", np.full(800, 1e25), 8000, subtype="FLOAT")
    record(sounds / "good.wav")
    report = index(sounds)
    assert {"good.wav", "length.wav", "thousand.wav"} <= set(names(store, sounds))
    assert {"rate 1.wav", "rate of billions.wav", "loud.wav"} <= set(problems(report))
    assert report.added + report.skipped == 9
    assert problems(report)["loud.wav"].startswith("found samples up to 1e+25, expected about -1 to 1")
