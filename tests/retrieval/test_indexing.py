"""An index follows its folders: the new is embedded, the moved renamed, the gone leaves, the rest is not even read."""

import csv
import dataclasses
import os
import shutil

import numpy as np
import pytest
import soundfile

from modeling_cnn10bert.data.audio_io import load_audio
from modeling_cnn10bert.errors import RetrievalError
from modeling_cnn10bert.retrieval import reading
from modeling_cnn10bert.retrieval.indexing import forget, index_folders
from modeling_cnn10bert.retrieval.records import ModelIdentity
from modeling_cnn10bert.retrieval.windows import content_hash, window_spans


@pytest.fixture
def index(store, embedder):
    """Indexes into `store`."""

    def run(*paths, **options):
        embedder.batches.clear()
        store.calls.clear()
        return index_folders(store, embedder, paths, progress=False, **options)

    return run


def counts(report):
    fields = ("added", "changed", "renamed", "removed", "unchanged", "skipped")
    return {name: getattr(report, name) for name in fields if getattr(report, name)}


def names(store, folder):
    return sorted(os.path.relpath(path, folder) for path in store.files())


def assert_same_index(one, other):
    assert one.files() == other.files()
    for path, file in one.contents.items():
        assert file.spans == other.contents[path].spans
        np.testing.assert_allclose(file.embeds, other.contents[path].embeds, atol=1e-5)


def test_new_recordings_are_added_with_all_that_is_known_of_them(index, store, embedder, sounds, record):
    (sounds / "deep").mkdir()
    path = record(sounds / "deep" / "a.flac", seconds=1.5, rate=16000)
    report = index(sounds)
    assert counts(report) == {"added": 1}
    assert report.audio_seconds == 1.5
    ((name, file),) = store.contents.items()
    status = path.stat()
    assert (name, file.record.path) == (str(path), str(path))
    assert (file.record.size, file.record.modified_ns) == (status.st_size, status.st_mtime_ns)
    assert file.record.content_hash == content_hash(path)
    assert file.record.duration == 1.5
    assert file.spans == [(0.0, 1.5)]
    waveform = load_audio(path, 8000)
    waveform /= np.abs(waveform).max()
    np.testing.assert_allclose(file.embeds, embedder.embed_audio([waveform]), atol=1e-6)


def test_a_long_recording_has_a_vector_for_each_window(index, store, embedder, sounds, record):
    path = record(sounds / "long.wav", seconds=7.3)
    index(sounds)
    file = store.contents[str(path)]
    np.testing.assert_allclose(file.spans, window_spans(7.3, 2.0, 0.5))
    whole = load_audio(path, 8000)
    pieces = [whole[round(start * 8000) : round(end * 8000)] for start, end in file.spans]
    pieces = [piece / np.abs(piece).max() for piece in pieces]
    np.testing.assert_allclose(file.embeds, embedder.embed_audio(pieces), atol=1e-6)


def test_what_is_unchanged_is_not_even_opened(index, store, embedder, sounds, record, monkeypatch):
    for number in range(3):
        record(sounds / f"{number}.wav")
    index(sounds)
    monkeypatch.setattr(reading, "content_hash", lambda path: pytest.fail(f"{path} was read"))
    report = index(sounds)
    assert counts(report) == {"unchanged": 3}
    assert store.calls == []
    assert embedder.batches == []


def test_a_changed_recording_is_embedded_anew_and_no_other(index, store, embedder, sounds, record):
    record(sounds / "a.wav")
    record(sounds / "b.wav")
    index(sounds)
    before = dict(store.contents)
    record(sounds / "b.wav", seconds=1.25)
    assert counts(index(sounds)) == {"changed": 1, "unchanged": 1}
    assert embedder.batches == [[10000]]
    assert store.contents[str(sounds / "a.wav")] is before[str(sounds / "a.wav")]
    assert store.files()[str(sounds / "b.wav")].duration == 1.25


def test_a_change_that_keeps_the_size_is_seen_by_its_time(index, store, sounds, record):
    path = record(sounds / "a.wav", seed=1)
    index(sounds)
    old = store.contents[str(path)].embeds
    record(path, seed=2)
    assert counts(index(sounds)) == {"changed": 1}
    assert np.abs(store.contents[str(path)].embeds - old).max() > 1e-3


def test_a_recording_that_was_only_touched_is_read_and_not_embedded(index, store, embedder, sounds, record):
    path = record(sounds / "a.wav")
    index(sounds)
    embeds = store.contents[str(path)].embeds
    os.utime(path, ns=(5, 5))
    assert counts(index(sounds)) == {"unchanged": 1}
    assert embedder.batches == []
    assert store.files()[str(path)].modified_ns == 5
    assert store.files()[str(path)].duration == 1.0
    assert store.contents[str(path)].embeds is embeds


def test_a_change_behind_the_clock_is_found_by_a_full_check(index, store, sounds, record):
    path = record(sounds / "a.wav", seed=1)
    index(sounds)
    time = path.stat().st_mtime_ns
    record(path, seed=2)
    os.utime(path, ns=(time, time))
    assert counts(index(sounds)) == {"unchanged": 1}
    assert counts(index(sounds, full_check=True)) == {"changed": 1}
    assert store.files()[str(path)].content_hash == content_hash(path)


def test_a_renamed_recording_keeps_its_embeddings(index, store, embedder, sounds, record):
    path = record(sounds / "a.wav", seconds=3)
    index(sounds)
    embeds = store.contents[str(path)].embeds
    (sounds / "deep").mkdir()
    path.rename(sounds / "deep" / "b.wav")
    report = index(sounds)
    assert counts(report) == {"renamed": 1}
    assert report.audio_seconds == 0
    assert embedder.batches == []
    assert names(store, sounds) == ["deep/b.wav"]
    assert store.contents[str(sounds / "deep" / "b.wav")].embeds is embeds
    assert store.files()[str(sounds / "deep" / "b.wav")].duration == 3


def test_files_that_need_ffmpeg_are_one_line(index, sounds, monkeypatch):
    monkeypatch.setenv("PATH", "")  # no ffmpeg
    for number in range(3):
        (sounds / f"{number}.m4a").write_bytes(b"some format %d" % number)
    (sounds / "a.wma").write_bytes(b"another format")
    (sounds / "broken.wav").write_bytes(b"no sound")
    first, second, third = index(sounds).problem_lines()
    assert first == "3 m4a files need FFmpeg; install ffmpeg and run the same again"
    assert second == "1 wma file needs FFmpeg; install ffmpeg and run the same again"
    assert third.startswith(f"{sounds / 'broken.wav'}: found 8 bytes that do not decode")


def test_a_folder_moved_out_of_the_indexed_one_is_renamed(index, store, embedder, sounds, record, tmp_path):
    for number in range(3):
        record(sounds / f"{number}.wav")
    index(sounds)
    moved = sounds.rename(tmp_path.resolve() / "moved")
    assert counts(index(moved)) == {"renamed": 3}
    assert embedder.batches == []
    assert names(store, moved) == ["0.wav", "1.wav", "2.wav"]


def test_a_file_whose_old_copy_still_exists_is_no_move(index, store, embedder, sounds, record, tmp_path):
    record(sounds / "a.wav")
    index(sounds)
    copies = tmp_path.resolve() / "copies"
    shutil.copytree(sounds, copies)
    assert counts(index(copies)) == {"added": 1}
    assert embedder.batches == []
    assert store.files().keys() == {str(sounds / "a.wav"), str(copies / "a.wav")}


def test_a_copy_takes_the_record_of_a_missing_drive_and_the_rest_of_the_drive_stays(
    index, store, embedder, sounds, record, tmp_path
):
    record(sounds / "a.wav")
    record(sounds / "b.wav")
    index(sounds)
    copies = tmp_path.resolve() / "copies"
    copies.mkdir()
    shutil.copy(sounds / "a.wav", copies)
    away = sounds.rename(tmp_path / "unmounted")
    assert counts(index(copies)) == {"renamed": 1}
    assert store.files().keys() == {str(copies / "a.wav"), str(sounds / "b.wav")}
    away.rename(sounds)
    assert counts(index(sounds)) == {"added": 1, "unchanged": 1}
    assert embedder.batches == []


def test_a_file_of_the_same_size_and_other_content_is_no_move(index, store, sounds, record, tmp_path):
    record(sounds / "a.wav", seed=1)
    index(sounds)
    (sounds / "a.wav").unlink()
    other = tmp_path.resolve() / "other"
    other.mkdir()
    record(other / "a.wav", seed=2)
    assert counts(index(other)) == {"added": 1}
    assert store.files().keys() == {str(sounds / "a.wav"), str(other / "a.wav")}


def test_one_missing_recording_and_two_copies_are_a_move_and_an_addition(
    index, store, embedder, sounds, record, tmp_path
):
    record(sounds / "a.wav")
    index(sounds)
    copies = tmp_path.resolve() / "copies"
    copies.mkdir()
    for name in "bc":
        shutil.copy(sounds / "a.wav", copies / f"{name}.wav")
    (sounds / "a.wav").unlink()
    assert counts(index(copies)) == {"added": 1, "renamed": 1}
    assert embedder.batches == []
    assert names(store, copies) == ["b.wav", "c.wav"]


def test_forgetting_removes_what_lies_at_or_below_paths(index, store, sounds, record):
    (sounds / "deep").mkdir()
    for name in ("deep/a.wav", "deep/b.wav", "deeper.wav", "deep.wav"):
        record(sounds / name)
    index(sounds)
    assert forget(store, [sounds / "deep", sounds / "deep.wav"]) == 3
    assert names(store, sounds) == ["deeper.wav"]
    assert (sounds / "deep" / "a.wav").exists()


def test_forgetting_an_unknown_path_is_an_error_and_changes_nothing(index, store, sounds, record):
    record(sounds / "a.wav")
    index(sounds)
    with pytest.raises(RetrievalError, match="typo: no recording of the index lies at or below it"):
        forget(store, [sounds / "a.wav", sounds / "typo"])
    assert names(store, sounds) == ["a.wav"]


def test_a_renamed_folder_is_renamed_in_the_index(index, store, embedder, sounds, record):
    (sounds / "one").mkdir()
    for number in range(4):
        record(sounds / "one" / f"{number}.wav")
    index(sounds)
    (sounds / "one").rename(sounds / "two")
    assert counts(index(sounds)) == {"renamed": 4}
    assert embedder.batches == []
    assert names(store, sounds) == [f"two/{number}.wav" for number in range(4)]


def test_recordings_that_swapped_names_are_not_embedded_again(index, store, embedder, new_store, sounds, record):
    record(sounds / "a.wav")
    record(sounds / "b.wav", seconds=1.5)
    index(sounds)
    (sounds / "a.wav").rename(sounds / "c")
    (sounds / "b.wav").rename(sounds / "a.wav")
    (sounds / "c").rename(sounds / "b.wav")
    assert counts(index(sounds)) == {"changed": 2}
    assert embedder.batches == []
    fresh = new_store()
    index_folders(fresh, embedder, [sounds], progress=False)
    assert_same_index(store, fresh)


def test_a_recording_that_replaced_another_takes_its_embeddings_along(index, store, embedder, sounds, record):
    record(sounds / "a.wav")
    record(sounds / "b.wav", seconds=1.5)
    index(sounds)
    (sounds / "b.wav").rename(sounds / "a.wav")
    assert counts(index(sounds)) == {"changed": 1, "removed": 1}
    assert embedder.batches == []
    assert names(store, sounds) == ["a.wav"]
    assert store.files()[str(sounds / "a.wav")].duration == 1.5


def test_what_is_gone_leaves_the_index(index, store, sounds, record):
    record(sounds / "a.wav")
    record(sounds / "b.wav")
    index(sounds)
    (sounds / "a.wav").unlink()
    assert counts(index(sounds)) == {"removed": 1, "unchanged": 1}
    assert names(store, sounds) == ["b.wav"]


def test_what_lies_outside_the_given_folders_stays_as_it_is(index, store, sounds, record):
    for folder in ("one", "two", "one more"):
        (sounds / folder).mkdir()
        record(sounds / folder / "a.wav")
        record(sounds / folder / "b.wav")
    index(sounds)
    for folder in ("one", "two", "one more"):
        (sounds / folder / "a.wav").unlink()
    assert counts(index(sounds / "one")) == {"removed": 1, "unchanged": 1}
    assert names(store, sounds) == ["one more/a.wav", "one more/b.wav", "one/b.wav", "two/a.wav", "two/b.wav"]


def test_a_single_file_can_be_indexed(index, store, sounds, record):
    record(sounds / "a.wav")
    record(sounds / "b.wav")
    assert counts(index(sounds / "b.wav")) == {"added": 1}
    assert names(store, sounds) == ["b.wav"]


def test_a_file_that_was_once_given_by_name_stays_when_its_folder_is_indexed(index, store, sounds, record):
    record(sounds / "a.wav")
    shutil.copy2(record(sounds / "b.wav"), sounds / "b.take1")
    (sounds / "b.wav").unlink()
    index(sounds / "b.take1")
    assert counts(index(sounds)) == {"added": 1, "unchanged": 1}
    (sounds / "b.take1").unlink()
    assert counts(index(sounds)) == {"removed": 1, "unchanged": 1}
    assert names(store, sounds) == ["a.wav"]


def test_a_copy_is_embedded_once(index, store, embedder, sounds, record):
    for name in ("b.wav", "c.wav", "d.wav"):
        shutil.copy(record(sounds / "a.wav", seed=1), sounds / name)
    report = index(sounds)
    assert counts(report) == {"added": 4}
    assert embedder.batches == [[8000]]
    assert report.audio_seconds == 1.0
    shutil.copy(sounds / "a.wav", sounds / "e.wav")
    assert counts(index(sounds)) == {"added": 1, "unchanged": 4}
    assert embedder.batches == []
    assert len(store) == 5
    assert all(file.record.duration == 1.0 for file in store.contents.values())


def test_a_path_that_does_not_exist_changes_nothing(index, store, sounds, record):
    record(sounds / "a.wav")
    record(sounds / "b.wav")
    index(sounds)
    (sounds / "a.wav").unlink()
    record(sounds / "c.wav")
    with pytest.raises(RetrievalError, match="unplugged: found no such folder or file"):
        index(sounds, sounds / "unplugged")
    assert names(store, sounds) == ["a.wav", "b.wav"]
    assert store.calls == []


def test_a_folder_that_lost_all_its_recordings_must_be_confirmed(index, store, sounds, record):
    for folder in ("drive", "home"):
        (sounds / folder).mkdir()
        record(sounds / folder / "a.wav")
        record(sounds / folder / "b.wav")
    index(sounds)
    for name in ("a.wav", "b.wav"):
        (sounds / "drive" / name).unlink()
    with pytest.raises(RetrievalError, match=r"drive: found no recording, while the index holds 2 .* allow_empty"):
        index(sounds / "home", sounds / "drive")
    assert len(store.files()) == 4
    assert counts(index(sounds / "home", sounds / "drive", allow_empty=True)) == {"removed": 2, "unchanged": 2}
    assert names(store, sounds) == ["home/a.wav", "home/b.wav"]


def test_an_empty_folder_is_no_error(index, store, sounds):
    assert counts(index(sounds)) == {}
    assert len(store) == 0


def test_another_model_is_refused(store, embedder, sounds, record):
    record(sounds / "a.wav")
    store.info = dataclasses.replace(store.info, model=ModelIdentity("other", None, "else", 16, {}))
    with pytest.raises(RetrievalError, match="other"):
        index_folders(store, embedder, [sounds], progress=False)
    assert len(store) == 0


def test_files_that_are_being_written_are_left_as_they_are(index, store, sounds, record):
    record(sounds / "a.wav")
    record(sounds / "b.wav")
    index(sounds)
    old = store.files()[str(sounds / "a.wav")]
    record(sounds / "a.wav", seconds=2)
    record(sounds / "c.wav")
    unfinished = {str(sounds / "a.wav"), str(sounds / "c.wav")}
    assert counts(index(sounds, unfinished=unfinished)) == {"unchanged": 1}
    assert store.files()[str(sounds / "a.wav")] == old
    assert counts(index(sounds)) == {"added": 1, "changed": 1, "unchanged": 1}


def test_batches_hold_windows_of_like_length(index, embedder, sounds, record):
    lengths = [0.5, 1.9, 0.6, 1.8, 0.5, 2.0, 0.6, 1.9]
    for number, seconds in enumerate(lengths):
        record(sounds / f"{number}.wav", seconds=seconds)
    index(sounds, batch_seconds=4.0)
    assert sorted(length for batch in embedder.batches for length in batch) == sorted(
        round(8000 * seconds) for seconds in lengths
    )
    for batch in embedder.batches:
        assert max(batch) * len(batch) <= 4 * 8000
        assert max(batch) - min(batch) <= 0.1 * 8000 + 1


def test_the_index_does_not_depend_on_batches_threads_or_commits(index, store, new_store, new_embedder, sounds, record):
    for number in range(12):
        record(sounds / f"{number}.wav", seconds=0.3 + 0.7 * number)
    index(sounds)
    other = new_store()
    options = {"workers": 1, "batch_seconds": 0.5, "commit_seconds": 0.0}
    index_folders(other, new_embedder(), [sounds], progress=False, **options)
    assert_same_index(store, other)
    assert len([call for call, _ in other.calls if call == "put"]) > 3
    assert len([call for call, _ in store.calls if call == "put"]) == 1


def test_many_small_changes_end_in_the_index_of_a_fresh_run(index, store, new_store, new_embedder, sounds, record):
    random = np.random.default_rng(0)
    for number in range(10):
        record(sounds / f"{number}.wav", seconds=0.2 + 0.1 * number)
    for step in range(12):
        files = sorted(path for path in sounds.iterdir() if path.suffix == ".wav")
        for _ in range(3):
            one, other = (files[number] for number in random.choice(len(files), 2, replace=False))
            kind = random.choice(["new", "change", "copy", "rename", "delete", "touch"])
            if kind == "new" or not one.exists():
                record(sounds / f"new-{step}.wav", seconds=0.5)
            elif kind == "change":
                record(one, seconds=0.7)
            elif kind == "copy":
                shutil.copy(one, other)
            elif kind == "rename":
                one.rename(sounds / f"renamed-{step}-{one.name}"[-60:])
            elif kind == "delete":
                one.unlink()
            else:
                os.utime(one, ns=(step, step))
        index(sounds)
        fresh = new_store()
        index_folders(fresh, new_embedder(), [sounds], progress=False)
        assert_same_index(store, fresh)


def test_the_store_is_made_fast_after_it_was_written(index, store, sounds, record):
    record(sounds / "a.wav")
    index(sounds)
    assert [call for call, _ in store.calls] == ["put", "optimize"]


def test_the_report_says_what_happened_and_lists_problems_in_a_file(index, sounds, record, tmp_path):
    record(sounds / "a.wav", seconds=36)
    name = os.path.join(sounds, os.fsdecode(b'\xff "odd", b.wav'))
    with open(name, "wb") as file:
        file.write(b"no sound")
    (sounds / "notes.txt").write_text("x")
    report = index(sounds)
    assert str(report).startswith(
        "1 added, 0 changed, 0 renamed, 0 removed, 0 unchanged, 1 skipped; 0.01 h of audio in"
    )
    assert report.other_files == 1
    assert report.hours_per_minute == pytest.approx(0.01 / (report.wall_seconds / 60))
    report.write_csv(tmp_path / "problems.csv")
    with open(tmp_path / "problems.csv", newline="", encoding="utf-8") as file:
        header, (path, reason, outcome) = csv.reader(file)
    assert header == ["path", "reason", "outcome"] and outcome == "left out"
    assert path == str(sounds / '\\xff "odd", b.wav')
    assert reason.startswith("found 8 bytes that do not decode")


def test_a_bar_is_shown_on_a_terminal_only(store, embedder, sounds, record, capfd):
    record(sounds / "a.wav")
    index_folders(store, embedder, [sounds], progress=True)
    assert capfd.readouterr().err == ""


def test_real_recordings_are_indexed(shared_data, new_store, new_embedder):
    files = sorted(shared_data.glob("esc10/0*/*.ogg"))[::20] + sorted(shared_data.glob("clotho/audio/*.wav"))
    if not files:
        pytest.skip("the real recordings are not at hand")
    store, embedder = new_store(window=10.0, overlap=2.0), new_embedder()
    report = index_folders(store, embedder, files, progress=False)
    assert counts(report) == {"added": len(files)}
    for path, file in store.contents.items():
        info = soundfile.info(path)
        assert file.record.duration == pytest.approx(info.frames / info.samplerate, abs=1e-3)
        assert len(file.spans) == len(window_spans(file.record.duration, 10.0, 2.0))
    assert counts(index_folders(store, embedder, files, progress=False)) == {"unchanged": len(files)}
