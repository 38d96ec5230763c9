"""Folders of unfinished files go with their process, and those of killed ones with the next."""

import multiprocessing
import os
import signal

from modeling_cnn10bert.scratch import scratch_folder


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
