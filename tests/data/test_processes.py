"""Whatever ends a command in the middle: no process of it is left, and the next run ends as if nothing had been."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile

from modeling_cnn10bert.data import prepare as preparation
from modeling_cnn10bert.data.processes import in_processes
from modeling_cnn10bert.errors import DataError

SCRIPT = Path(__file__).with_name("killed_preparation.py")
ROOT = Path(__file__).parents[2]
PATIENCE = 60  # seconds, for a machine that is busy


@pytest.fixture(scope="module")
def commands():
    """The module of what is ended."""
    spec = importlib.util.spec_from_file_location("killed_preparation", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """A folder of sixteen recordings."""
    folder = tmp_path_factory.mktemp("recordings") / "sounds"
    folder.mkdir()
    for number in range(16):
        noise = 0.1 * np.random.default_rng(number).standard_normal(3200)
        soundfile.write(folder / f"{number:02d}.wav", noise, 32_000)
    return folder


@pytest.fixture(scope="module")
def prepared(sounds, commands):
    """They, prepared without an interruption."""
    commands.prepare(sounds, sounds.parent / "prepared")
    return sounds.parent / "prepared"


@pytest.fixture
def end_in_the_middle(tmp_path):
    """Runs a command, ends it by a signal when its workers have begun, and checks that no process of it is left."""

    def end(number, work, source, out, has_begun):
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), work, str(source), str(out)],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        wait_for(lambda: process.poll() is not None or has_begun())
        assert process.poll() is None, process.stderr.read()
        workers = [pid for pid in processes() if os.getpgid(pid) == process.pid and pid != process.pid]
        process.send_signal(number)
        said = process.stderr.read()  # to its end: every process that had it is gone
        process.wait()
        wait_for(lambda: not set(workers) & set(processes()))
        assert len(workers) == 2
        return process.returncode, said.splitlines()[-1] if said else ""

    return end


def processes():
    """The processes of this machine that run."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and (folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                os.getpgid(int(folder.name))
                found.append(int(folder.name))
        except (OSError, ValueError):
            pass
    return found


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


KILL, TERM = (signal.SIGKILL, -9, ""), (signal.SIGTERM, 143, "ended by SIGTERM")
CTRL_C = (signal.SIGINT, 130, "interrupted")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc to list processes")
@pytest.mark.parametrize(("number", "code", "name"), [KILL, TERM, CTRL_C])
def test_a_preparation_that_is_ended_leaves_no_process_and_goes_on(
    number, code, name, sounds, prepared, tmp_path, end_in_the_middle, commands, monkeypatch
):
    out = tmp_path / "out"
    begun = out / ".preparation" / "shards"
    ended, said = end_in_the_middle(
        number, "prepare", sounds, out, lambda: list(begun.glob("train*.json")) and len(list(begun.glob(".*"))) == 2
    )
    assert ended == code
    if number != signal.SIGKILL:
        assert f"continue with: {sys.executable} {SCRIPT} prepare {sounds} {out}" in said and name in said
    monkeypatch.setattr(preparation, "ENTRIES_OF_A_SHARD", 2)
    commands.prepare(sounds, out)
    assert datasets.load_from_disk(out)["train"].to_dict() == datasets.load_from_disk(prepared)["train"].to_dict()
    names = [{path.relative_to(folder) for path in folder.rglob("*")} for folder in (out, prepared)]
    assert names[0] == names[1]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc to list processes")
@pytest.mark.parametrize(("number", "code", "name"), [KILL, TERM])
def test_a_cache_whose_computation_is_ended_leaves_no_process_and_no_scratch(
    number, code, name, prepared, tmp_path, end_in_the_middle, commands
):
    cache, whole = tmp_path / "cache", tmp_path / "whole"
    ended, said = end_in_the_middle(
        number, "compute", prepared, cache, lambda: len(list(cache.glob(".unfinished-*/part-*"))) == 2
    )
    assert ended == code and name in said
    assert len(list(cache.iterdir())) == (1 if number == signal.SIGKILL else 0)
    for folder in (cache, whole):
        commands.compute(prepared, folder)
    assert [path.name for path in cache.iterdir()] == [path.name for path in whole.iterdir()]
    tables = [datasets.load_from_disk(next(folder.iterdir()) / "table") for folder in (cache, whole)]
    assert tables[0].to_dict() == tables[1].to_dict() and len(tables[0]) == 16


def test_results_of_any_number_of_processes_are_the_same():
    for num_proc in (1, 3):
        assert sorted(in_processes(lambda number: number**2, 5, num_proc)) == [(0, 0), (1, 1), (2, 4), (3, 9), (4, 16)]


def test_a_process_that_dies_is_an_error_in_one_line():
    with pytest.raises(DataError, match="ended abruptly, often for lack of memory"):
        list(in_processes(lambda number: os._exit(1), 2, 2))


def test_an_error_in_one_process_does_not_wait_for_the_others():
    def work(number):
        if number == 0:
            raise ValueError("the first")
        time.sleep(10 * PATIENCE)

    begun = time.monotonic()
    with pytest.raises(ValueError, match="the first"):
        list(in_processes(work, 2, 2))
    assert time.monotonic() - begun < PATIENCE
