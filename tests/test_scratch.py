"""Unfinished files and folders go with their process, and those of killed ones with the next."""

import multiprocessing
import os
import signal

import pytest

from modeling_cnn10bert.scratch import replaced_whole, scratch_folder


def _hold(parent, made):
    with scratch_folder(parent, ".scratch-") as folder:
        (folder / "half").write_text("of it")
        made.send(folder)
        signal.pause()


def _start(parent):
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_hold, args=(parent, there))
    process.start()
    return process, here.recv()


def test_a_folder_is_there_for_the_block_alone(tmp_path):
    with scratch_folder(tmp_path / "deep" / "er", ".scratch-") as folder:
        (folder / "half").write_text("of it")
        assert folder.parent == tmp_path / "deep" / "er" and folder.name.startswith(".scratch-")
    assert list(folder.parent.iterdir()) == []


def test_what_a_killed_process_leaves_is_deleted_by_the_next_one_and_what_a_living_one_uses_is_not(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / ".scratch-link").symlink_to(tmp_path / "other")
    process, folder = _start(tmp_path)
    try:
        with scratch_folder(tmp_path, ".scratch-"):
            assert (folder / "half").is_file()
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert (folder / "half").is_file()
    with scratch_folder(tmp_path, ".scratch-"):
        assert not folder.exists()
    assert (tmp_path / "other").is_dir()


def test_a_file_is_replaced_by_a_whole_one_and_an_error_leaves_the_old_one_alone(tmp_path):
    for text in ("old", "new"):
        with replaced_whole(tmp_path / "deep" / "file") as unfinished:
            unfinished.write_text(text)
    with pytest.raises(KeyError), replaced_whole(tmp_path / "deep" / "file") as unfinished:
        unfinished.write_text("half")
        raise KeyError
    assert {path.name: path.read_text() for path in (tmp_path / "deep").iterdir()} == {"file": "new"}


def test_a_folder_is_replaced_by_a_whole_one_and_never_by_a_file(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").touch()
    with replaced_whole(tmp_path / "folder") as unfinished:
        unfinished.mkdir()
        (unfinished / "new").touch()
    with pytest.raises(OSError), replaced_whole(tmp_path / "folder") as unfinished:
        unfinished.touch()
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == ["folder", "folder/new"]


def test_what_a_killed_writer_leaves_goes_with_the_next_one_of_the_same_file(tmp_path):
    context = multiprocessing.get_context("fork")
    (tmp_path / ".file.unfinished-list").write_text("a file of somebody else")

    def write():
        with replaced_whole(tmp_path / "file") as unfinished:
            unfinished.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)

    process = context.Process(target=write)
    process.start()
    process.join()
    assert len(list(tmp_path.iterdir())) == 2 and not (tmp_path / "file").exists()
    with replaced_whole(tmp_path / "file") as unfinished:
        unfinished.write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".file.unfinished-list", "file"]
