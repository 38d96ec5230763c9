"""Small generated recordings that the tests of preparation share."""

import csv
import multiprocessing

import numpy as np
import pytest
import soundfile


@pytest.fixture(scope="session")
def write_tone():
    """Writes a recording of a tone, at -6 dB, by its path, frequency in Hz, seconds, sampling rate and channels."""

    def write(path, frequency=440, seconds=0.5, rate=44_100, channels=1, **options):
        path.parent.mkdir(parents=True, exist_ok=True)
        tone = 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)
        soundfile.write(path, np.tile(tone[:, None], (1, channels)), rate, **options)
        return path

    return write


@pytest.fixture(scope="session")
def write_csv():
    """Writes a CSV file of rows."""

    def write(path, *rows, encoding="utf-8", lineterminator="\n"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding=encoding) as file:
            csv.writer(file, lineterminator=lineterminator).writerows(rows)
        return path

    return write


@pytest.fixture(scope="session")
def read_csv():
    """Reads a CSV file as a list of rows."""

    def read(path):
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.reader(file))

    return read


@pytest.fixture
def start():
    """Starts a function in a process of its own, which imports nothing anew."""
    processes = []

    def start(function, *arguments):
        process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
        process.start()
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.join()


@pytest.fixture
def snapshot():
    """Maps every file below a folder, but not the lock, to its content and time of modification."""

    def take(folder):
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "lock"]
        return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    return take
