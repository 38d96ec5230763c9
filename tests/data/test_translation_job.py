"""A kill at any moment leaves the old folder or the new one, whole, and the finished pieces of the work."""

import json
import multiprocessing
import pathlib

import pytest

from modeling_cnn10bert.data.translation_job import Progress, Workshop
from modeling_cnn10bert.errors import DataError


class Killed(BaseException):
    """Nothing of the code under test catches it."""


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "sounds"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "content").write_text("old")
    return folder


def _exchange(target):
    with Workshop.beside(target, "test") as workshop:
        unfinished = workshop.empty("unfinished")
        (unfinished / "inner").mkdir(parents=True)
        (unfinished / "inner" / "content").write_text("new")
        workshop.exchange(unfinished)


def _repair(target):
    with Workshop.beside(target, "test"):
        return (target / "inner" / "content").read_text()


def _kill_at_rename(monkeypatch, number, before):
    """Kills before or behind the rename of that number, counted from 0."""
    rename, calls = pathlib.Path.rename, []

    def renaming(self, destination):
        calls.append(destination)
        if before and len(calls) == number + 1:
            raise Killed
        result = rename(self, destination)
        if not before and len(calls) == number + 1:
            raise Killed
        return result

    monkeypatch.setattr(pathlib.Path, "rename", renaming)


def test_a_folder_is_exchanged_and_nothing_stays_beside_it(target):
    _exchange(target)
    assert (target / "inner" / "content").read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["sounds"]


# The renames: unfinished -> new, target -> old, new -> target, old -> discarded.
@pytest.mark.parametrize(
    ("number", "before", "expected"),
    [
        (0, True, "old"),
        (0, False, "old"),
        (1, True, "old"),
        (1, False, "new"),
        (2, True, "new"),
        (2, False, "new"),
        (3, True, "new"),
        (3, False, "new"),
    ],
)
def test_a_kill_at_any_rename_is_repaired(number, before, expected, target, monkeypatch):
    _kill_at_rename(monkeypatch, number, before)
    with pytest.raises(Killed):
        _exchange(target)
    monkeypatch.undo()
    assert _repair(target) == expected
    assert [path.name for path in target.parent.iterdir()] == ["sounds"]


def test_a_kill_while_the_old_folder_is_deleted_is_repaired(target, monkeypatch):
    def rmtree(path):
        (path / "inner" / "content").unlink()
        raise Killed

    monkeypatch.setattr("modeling_cnn10bert.data.translation_job.shutil.rmtree", rmtree)
    with pytest.raises(Killed):
        _exchange(target)
    monkeypatch.undo()
    assert _repair(target) == "new"
    assert [path.name for path in target.parent.iterdir()] == ["sounds"]


def test_a_folder_that_was_made_anew_meanwhile_is_not_overwritten(target, monkeypatch):
    _kill_at_rename(monkeypatch, 1, before=False)
    with pytest.raises(Killed):
        _exchange(target)
    monkeypatch.undo()
    target.mkdir()
    with pytest.raises(DataError, match="found it, and at .*old the one .* move one away"):
        _exchange(target)
    assert (target.parent / ".sounds-test" / "old" / "inner" / "content").read_text() == "old"
    assert target.is_dir()


def _hold(target, held, done):
    with Workshop.beside(target, "test"):
        held.set()
        done.wait(60)


def test_one_run_at_a_time(target):
    context = multiprocessing.get_context("fork")
    held, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(target, held, done))
    other.start()
    assert held.wait(60)
    with pytest.raises(DataError, match="found another run at work on it"):
        _exchange(target)
    done.set()
    other.join(60)
    _exchange(target)
    assert (target / "inner" / "content").read_text() == "new"


def test_no_folder_is_one_clear_error_and_makes_none(tmp_path):
    with pytest.raises(DataError, match="missing: found no such folder"):
        _exchange(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "broken", ['{"piece": 2, "resul', "\0\0\0\n", '{"piece": 2, "results": ["c"]}', "[]\n", '{"piece": 2}\n']
)
def test_a_line_that_a_kill_broke_off_is_written_again(broken, tmp_path):
    path = tmp_path / "progress.jsonl"
    with Progress(path) as progress:
        progress.append(0, ["a\u2028é", ""])
        progress.append(1, ["b"])
    whole = path.read_bytes()
    with path.open("a") as file:
        file.write(broken)
    with Progress(path) as progress:
        assert progress.done == {0: ["a\u2028é", ""], 1: ["b"]}
        progress.append(2, ["c"])
    assert path.read_bytes() == whole + json.dumps({"piece": 2, "results": ["c"]}).encode() + b"\n"


def test_a_piece_is_on_disk_as_soon_as_it_is_finished(tmp_path):
    with Progress(tmp_path / "progress.jsonl") as progress:
        progress.append(0, ["a"])
        assert (tmp_path / "progress.jsonl").read_bytes().count(b"\n") == 1
