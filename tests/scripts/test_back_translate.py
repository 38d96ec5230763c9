"""The command that adds back-translations, end to end."""

import csv
import functools
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import datasets
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def back_translate(cnn10bert):
    """Runs the command in this process."""
    return functools.partial(cnn10bert, "back-translate")


def _save(captions, folder):
    """A prepared data set of five captions a recording."""
    rows = [
        {"file_name": f"{start}.wav", "recording_id": str(start), "captions": captions[start : start + 5]}
        for start in range(0, len(captions), 5)
    ]
    datasets.DatasetDict(train=datasets.Dataset.from_list(rows)).save_to_disk(folder)
    return folder


def _wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_killed_run_that_goes_on_equals_an_uninterrupted_one(back_translate, grammar_captions, opus_models, tmp_path):
    captions = grammar_captions(200)
    killed, whole = _save(captions, tmp_path / "killed"), _save(captions, tmp_path / "whole")
    options = ["de", "fr", "--models", str(opus_models), "--batch_size", "8", "--num_beams", "1"]
    options += ["--device", "cpu"]
    progress = tmp_path / ".killed-back_translations"

    def finished():
        return sum(file.read_bytes().count(b"\n") for file in progress.glob("progress-*"))

    process = subprocess.Popen(
        [sys.executable, "-m", "modeling_cnn10bert", "back-translate", str(killed), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    _wait_for(lambda: finished() >= 3, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    at_the_kill = finished()
    assert 3 <= at_the_kill < 25
    assert datasets.load_from_disk(killed)["train"].column_names == ["file_name", "recording_id", "captions"]

    result = back_translate(killed, *options)
    printed, shown = result.stdout, result.stderr
    assert "de: 200 different captions, " in printed
    assert "fr: 200 different captions, " in printed
    assert f"{8 * at_the_kill}/200" in shown  # the bar begins behind the work that was done
    back_translate(whole, *options)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]
    arrow = [path.read_bytes() for path in sorted(tmp_path.glob("*/train/*.arrow"))]
    assert len(arrow) == 2
    assert arrow[0] == arrow[1]
    table = datasets.load_from_disk(killed)["train"]
    assert [len(texts) for texts in table["back_translations_fr"]] == [5] * 40
    assert table["back_translations_fr"][:] != table["back_translations_de"][:]

    printed = back_translate(killed, *options).stdout
    assert printed == "de: already there, nothing to do\nfr: already there, nothing to do\n"


def test_apertium_adds_variants_of_200_real_captions(back_translate, shared_data, tmp_path):
    if shutil.which("apertium") is None:
        pytest.skip("apertium is not installed: apt-get install apertium apertium-eng-spa")
    with (shared_data / "audiocaps" / "train.csv").open(encoding="utf-8", newline="") as file:
        captions = [row["caption"] for row in csv.DictReader(file)][:200]
    folder = _save(captions, tmp_path / "captions")
    printed = back_translate(folder, "es", "--translator", "apertium", "--batch_size", "200").stdout
    assert f"es: {len(set(captions))} different captions, " in printed
    table = datasets.load_from_disk(folder)["train"]
    assert [len(texts) for texts in table["back_translations_es"]] == [5] * 40
    assert table["captions"][:] == [captions[start : start + 5] for start in range(0, 200, 5)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["de", "klingon"], "found 'klingon', expected one of de, es, fr, it, nl, sv"),
        (["de", "--translator", "apertium"], "found 'de', expected one of es"),
        (["de", "--models", "nowhere"], "nowhere: found no folder opus-mt-en-de"),
        (["de", "--split", "training"], "found the splits train, expected training"),
    ],
)
def test_bad_options_are_one_clear_error_each(options, message, back_translate, tmp_path):
    folder = _save(["a dog barks"] * 5, tmp_path / "captions")
    assert message in back_translate(folder, *options, code=1).stderr


def test_a_folder_that_is_not_there_is_one_line(back_translate, tmp_path):
    [line] = back_translate(tmp_path / "missing", "de", code=1).stderr.splitlines()
    assert line.startswith(f"error: {tmp_path / 'missing'}: found no such folder")
