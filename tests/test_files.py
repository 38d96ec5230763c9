"""Files and folders: names, full disks, and writing that is whole or not at all."""

import multiprocessing
import os
import signal

import pytest

from modeling_cnn10bert.errors import DataError, RetrievalError
from modeling_cnn10bert.files import (
    ADDRESS,
    check_local_folder,
    finish_replacement,
    replaced_whole,
    scratch_folder,
)


@pytest.mark.parametrize("name", ["a::b", "a::b/c", "/x/a::b", "s3://bucket/a", "file:///a"])
def test_a_name_that_is_read_as_an_address_is_refused(name):
    with pytest.raises(ValueError, match=f"^OUT {name}: found '::?/?/?' in the name of a folder.* another name$"):
        check_local_folder(name, "OUT")


@pytest.mark.parametrize("name", ["a:b", "data/clotho", "org/clotho", "/x/12:30:00", "C:/x", "a: :b"])
def test_any_other_name_is_a_folder(name):
    check_local_folder(name, "OUT")


def test_the_error_is_of_the_kind_that_is_asked_for():
    with pytest.raises(RetrievalError, match="^--index s3://a"):
        check_local_folder("s3://a", "--index", RetrievalError)
    check_local_folder("a::b", "--index", RetrievalError, marks=(ADDRESS,))


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


@pytest.fixture
def replace_folder(tmp_path):
    """Replaces a folder in a process of its own, which kills itself at the n-th call of a function."""
    folder = tmp_path / "sounds"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "content").write_text("old")

    def run(owner, name, number, after):
        function, calls = getattr(owner, name), []

        def kill(*arguments, **options):
            calls.append(arguments)
            if len(calls) == number and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            function(*arguments, **options)
            if len(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)

        with replaced_whole(folder) as unfinished:
            (unfinished / "inner").mkdir(parents=True)
            (unfinished / "inner" / "content").write_text("new")
            setattr(owner, name, kill)

    def replace(*arguments):
        process = multiprocessing.get_context("fork").Process(target=run, args=arguments)
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        return folder

    return replace


# The moments: target -> replaced, new -> target, and what the scratch folder deletes.
@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ((os, "replace", 1, False), "old"),
        ((os, "replace", 1, True), "new"),
        ((os, "replace", 2, False), "new"),
        ((os, "replace", 2, True), "new"),
        ((os, "unlink", 1, True), "new"),
        ((os, "rmdir", 1, True), "new"),
    ],
)
def test_a_kill_at_any_moment_of_a_replacement_leaves_one_whole_folder(moment, expected, replace_folder):
    folder = replace_folder(*moment)
    finish_replacement(folder)
    assert (folder / "inner" / "content").read_text() == expected
    with replaced_whole(folder) as unfinished:
        unfinished.mkdir()
    assert [path.name for path in folder.parent.iterdir()] == ["sounds"]


def test_a_ctrl_c_between_the_renames_leaves_the_old_folder(tmp_path, monkeypatch):
    (tmp_path / "sounds" / "inner").mkdir(parents=True)
    replace = os.replace

    def interrupt(source, target):
        replace(source, target)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), replaced_whole(tmp_path / "sounds") as unfinished:
        unfinished.mkdir()
        monkeypatch.setattr(os, "replace", lambda *paths: monkeypatch.undo() or interrupt(*paths))
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["sounds", "sounds/inner"]


def test_a_folder_that_was_made_again_meanwhile_is_not_overwritten(replace_folder):
    folder = replace_folder(os, "replace", 1, True)
    folder.mkdir()
    for act in (finish_replacement, lambda folder: replaced_whole(folder).__enter__()):
        with pytest.raises(DataError, match="found it, and at .*replaced the one .* move one away"):
            act(folder)
    (replaced,) = folder.parent.glob(".sounds.unfinished-*/replaced")
    assert (replaced / "inner" / "content").read_text() == "old"
    assert folder.is_dir()


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
