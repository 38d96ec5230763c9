"""The command `cnn10bert`: what goes to standard output and error, and how it ends."""

import csv
import inspect
import io
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from modeling_cnn10bert import __version__
from modeling_cnn10bert.cli import app as cli
from modeling_cnn10bert.cli.common import INDEX_VARIABLE, MODEL_VARIABLE
from modeling_cnn10bert.errors import RecipeError
from modeling_cnn10bert.training.recipe import RECIPES, parse_recipe

RATE = 32_000
COMMANDS = [
    "index",
    "forget",
    "info",
    "search",
    "similar",
    "duplicates",
    "tag",
    "evaluate",
    "submit",
    "score",
    "benchmark",
    "export",
    "publish",
]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in (MODEL_VARIABLE, INDEX_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run():
    """Runs the command in this process; checks its exit code."""

    def invoke(*arguments, code=0):
        result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
        assert result.exit_code == code, result.output + repr(result.exception)
        return result

    return invoke


@pytest.fixture
def sounds(tmp_path, noise):
    """Five recordings of 1 to 3 s, one of them twice, and one with a name that is no UTF-8."""
    folder = (tmp_path / "sounds").resolve()
    (folder / "far").mkdir(parents=True)
    for number, name in enumerate([b"0.wav", b"1.flac", b"far/2.wav", b"caf\xe9.wav", b"[red]4.wav"]):
        waveform = np.convolve(noise(RATE * (number + 2) // 2, seed=number), np.hanning(3 + 5 * number), mode="same")
        soundfile.write(os.path.join(os.fsencode(folder), name), 0.2 * waveform, RATE)
    shutil.copy(folder / "0.wav", folder / "far" / "copy of 0.wav")
    return folder


@pytest.fixture
def index(tmp_path, run, tiny_folder, sounds):
    location = tmp_path / "sounds.index"
    result = run("index", sounds, "--index", location, "--model", tiny_folder[0])
    assert result.stdout.startswith("6 added, 0 changed, 0 renamed, 0 removed, 0 unchanged, 0 skipped")
    return location


def error_line(result):
    """What was said of an error: one line, and nothing on standard output."""
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("error: ")
    return result.stderr


# ------------------------------------------------------------------------------------------------------------ usage


def test_help_names_every_command_and_every_command_has_help(run):
    text = run("--help").stdout
    for name in COMMANDS:
        assert f" {name} " in text
        assert "Usage" in run(name, "--help").stdout


def test_every_help_fits_a_terminal_of_80_columns_and_has_an_example(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for name in COMMANDS:
        text = run(name, "--help").stdout
        assert max(map(len, text.splitlines())) <= 80 and "…" not in text, name
        assert f" cnn10bert {name}" in text.partition("Examples:")[2], name


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("cnn10bert forg", "forget"),
        ("cnn10bert search --max-d", "--max-duration"),
        ("cnn10bert search --output js", "json"),
    ],
)
def test_a_shell_completes_commands_options_and_choices(words, expected):
    env = {
        "_CNN10BERT_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    result = CliRunner().invoke(cli.app, prog_name="cnn10bert", env=env)
    assert result.stdout.split() == [expected], result.output


def test_completion_is_shown_and_installed_for_a_shell(tmp_path):
    env = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    # In a process of its own, because Typer reads the environment when it makes the options.
    script = "import sys; sys.argv[0] = 'cnn10bert'; from modeling_cnn10bert.cli.app import main; main()"
    for option in ("--show-completion", "--install-completion"):
        result = subprocess.run(
            [sys.executable, "-c", script, option, "bash"], env={**os.environ, **env}, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        assert "completion" in result.stdout
    assert "_CNN10BERT_COMPLETE" in (tmp_path / ".bash_completions" / "cnn10bert.sh").read_text()


def test_help_shows_the_form_of_a_date_and_how_to_install_completion(run):
    text = run("search", "--help").stdout
    for option in ("--after", "--before"):
        assert re.search(rf"{option} +YYYY-MM-DD", text)
    assert "--install-completion" in run("--help").stdout


def test_the_version_is_printed(run):
    assert run("--version").stdout == f"cnn10bert {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["search"],
        ["search", "rain", "-k", "0"],
        ["search", "rain", "-k", "1e20"],
        ["search", "rain", "-k", "nan"],
        ["evaluate", "model", "dataset", "--bootstrap-resamples", "0"],
        ["evaluate", "model", "dataset", "--bootstrap-resamples", "99999999999999999999"],
        ["evaluate", "model", "dataset", "--seed", "-1"],
        ["search", "rain", "--output", "xml"],
        ["search", "rain", "--after", "yesterday"],
        ["similar"],
        ["index"],
        ["submit", "model", "dataset"],
        ["export", "model", "out", "--format", "coreml"],
        ["unknown"],
    ],
)
def test_wrong_usage_ends_with_2(run, arguments):
    result = run(*arguments, code=2)
    assert result.stdout == ""
    assert "Usage" in result.stderr


# -------------------------------------------------------------------------------------------------------- the index


def test_index_again_does_only_what_changed(run, index, sounds, noise):
    assert run("index", sounds, "--index", index).stdout.startswith("0 added, 0 changed, 0 renamed, 0 removed, 6 un")
    soundfile.write(sounds / "0.wav", noise(RATE, seed=77), RATE)
    (sounds / "1.flac").unlink()
    assert run("index", sounds, "--index", index).stdout.startswith("0 added, 1 changed, 0 renamed, 1 removed, 4 un")
    files = [row["file"] for row in json.loads(run("search", "rain", "--index", index, "--output", "json").stdout)]
    assert len(files) == 5 and str(sounds / "1.flac") not in files


def test_what_cannot_be_indexed_is_counted_and_reported(run, index, sounds, tmp_path):
    (sounds / "broken.wav").write_bytes(b"no sound at all")
    result = run("index", sounds, "--index", index)
    assert "1 skipped" in result.stdout
    assert f"{sounds / 'broken.wav'}: found 15 bytes that do not decode" in result.stderr
    run("index", sounds, "--index", index, "--report", tmp_path / "report.csv")
    rows = list(csv.DictReader((tmp_path / "report.csv").read_text().splitlines()))
    assert [row["path"] for row in rows] == [str(sounds / "broken.wav")]


def test_the_first_five_failures_are_named_at_once_with_their_reasons(run, index, sounds):
    for number in range(7):
        (sounds / f"broken{number}.wav").write_bytes(b"no sound %d" % number)
    lines = run("index", sounds, "--index", index).stderr.splitlines()
    assert sum("broken" in line and "do not decode" in line for line in lines) == 5
    assert lines[-2:] == ["2 more could not be used", "--report FILE.csv lists all files that could not be used"]


def test_watching_names_a_failure_once(run, tmp_path, tiny_folder, sounds, monkeypatch):
    (sounds / "broken.wav").write_bytes(b"no sound")

    def watch_folders(paths, on_change, *, ignored):
        for _ in range(3):
            on_change(frozenset())

    monkeypatch.setattr("modeling_cnn10bert.retrieval.watching.watch_folders", watch_folders)
    result = run("index", sounds, "--index", tmp_path / "new", "--model", tiny_folder[0], "--watch")
    assert result.stderr.count("broken.wav: found 8 bytes") == 1


def cut(path):
    """Takes the second half of a file away."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def test_a_recording_that_is_cut_off_is_indexed_with_a_remark(run, index, sounds, tmp_path):
    shutil.copy(sounds / "far" / "2.wav", sounds / "cut.wav")
    cut(sounds / "cut.wav")
    result = run("index", sounds, "--index", index, "--report", tmp_path / "report.csv")
    assert result.stdout.startswith("1 added,") and result.stdout.strip().endswith("; 1 kept with a remark")
    (row,) = csv.DictReader((tmp_path / "report.csv").read_text().splitlines())
    assert row["path"] == str(sounds / "cut.wav") and row["outcome"] == "kept"
    assert row["reason"].startswith("1.0 of 2.0 s of sound were read, as the file is cut off")


def test_without_a_report_the_remark_is_told_at_once(run, index, sounds):
    shutil.copy(sounds / "far" / "2.wav", sounds / "cut.wav")
    cut(sounds / "cut.wav")
    result = run("index", sounds, "--index", index)
    assert f"{sounds / 'cut.wav'}: 1.0 of 2.0 s of sound were read" in result.stderr
    assert "could not be used" not in result.stderr


def test_similar_warns_of_a_recording_that_is_cut_off(run, index, sounds, tmp_path):
    shutil.copy(sounds / "far" / "2.wav", tmp_path / "cut.wav")
    cut(tmp_path / "cut.wav")
    result = run("similar", tmp_path / "cut.wav", "--index", index, "--output", "json")
    assert len(json.loads(result.stdout)) == 6
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"warning: {tmp_path / 'cut.wav'}: 1.0 of 2.0 s of sound were read")


def test_similar_refuses_samples_on_the_scale_of_integers_with_the_name_of_the_file(run, index, tmp_path):
    soundfile.write(tmp_path / "loud.wav", np.full(RATE, 2.0**31), RATE, subtype="FLOAT")
    line = error_line(run("similar", tmp_path / "loud.wav", "--index", index, code=1))
    assert f"{tmp_path / 'loud.wav'}: found samples up to 2.15e+09" in line


def test_a_folder_that_was_emptied_needs_allow_empty(run, index, sounds):
    shutil.rmtree(sounds)
    sounds.mkdir()
    assert "allow_empty" in error_line(run("index", sounds, "--index", index, code=1))
    assert "6 removed" in run("index", sounds, "--index", index, "--allow-empty").stdout
    result = run("search", "rain", "--index", index)
    assert result.stdout == ""
    assert f"the index is empty; fill it: cnn10bert index FOLDER --index {index}" in result.stderr


def test_a_folder_without_audio_files_is_named_and_leaves_no_index(run, tmp_path, tiny_folder):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("no sound")
    result = run("index", folder, "--index", tmp_path / "new", "--model", tiny_folder[0])
    assert f"{folder}: found no audio file among 1 other files; audio files end in .wav, .flac" in result.stderr
    assert not (tmp_path / "new").exists()


def test_a_failed_first_index_leaves_nothing(run, tmp_path, tiny_folder):
    error_line(run("index", tmp_path / "typo", "--index", tmp_path / "new", "--model", tiny_folder[0], code=1))
    assert not (tmp_path / "new").exists()


def test_an_interrupted_first_index_leaves_nothing(run, tmp_path, tiny_folder, sounds, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("modeling_cnn10bert.retrieval.indexing.scan", interrupt)
    run("index", sounds, "--index", tmp_path / "new", "--model", tiny_folder[0], code=130)
    assert not (tmp_path / "new").exists()


def test_a_failed_later_index_keeps_the_index(run, index, tmp_path):
    error_line(run("index", tmp_path / "typo", "--index", index, code=1))
    assert json.loads(run("info", "--index", index, "--output", "json").stdout)["recordings"] == 6


def test_a_port_in_use_is_an_error_before_the_address_is_printed(run, index):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        line = error_line(run("page", "--index", index, "--port", port, code=1))
    assert f"port {port} of 127.0.0.1 is in use" in line and "--port" in line


def test_watching_updates_at_once_and_again_and_a_drive_that_is_away_does_not_end_it(
    run, tmp_path, tiny_folder, sounds, monkeypatch
):
    watched = {}

    def watch_folders(paths, on_change, *, ignored):
        watched.update(paths=list(paths), ignored=list(ignored))
        on_change(frozenset())
        on_change(frozenset())  # nothing changed
        (sounds / "0.wav").unlink()
        on_change(frozenset({str(sounds / "1.flac")}))  # which is being written
        sounds.rename(tmp_path / "away")
        on_change(frozenset())
        (tmp_path / "away").rename(sounds)
        (sounds / "1.flac").unlink()
        on_change(frozenset())

    monkeypatch.setattr("modeling_cnn10bert.retrieval.watching.watch_folders", watch_folders)
    result = run("index", sounds, "--index", tmp_path / "new", "--model", tiny_folder[0], "--watch")
    assert watched == {"paths": [sounds], "ignored": [str(tmp_path / "new")]}
    first, second, third = result.stdout.splitlines()
    assert first.startswith("6 added") and "1 removed" in second and "1 removed" in third
    assert result.stderr.count("error: ") == 1 and "no such folder" in result.stderr


def test_watching_fails_at_once_where_there_is_nothing_to_watch(run, tmp_path, tiny_folder):
    arguments = ["index", tmp_path / "gone", "--index", tmp_path / "new", "--model", tiny_folder[0], "--watch"]
    error_line(run(*arguments, code=1))


def test_a_moved_library_is_renamed_and_nothing_is_embedded_again(run, index, sounds):
    moved = sounds.rename(sounds.parent / "elsewhere")
    result = run("index", moved, "--index", index)
    assert result.stdout == "0 added, 0 changed, 6 renamed, 0 removed, 0 unchanged, 0 skipped\n"
    rows = json.loads(run("search", "rain", "--index", index, "--output", "json").stdout)
    assert len(rows) == 6 and all(os.path.exists(row["file"]) for row in rows)


def test_forget_removes_recordings_below_a_path_and_no_file(run, index, sounds):
    before = sorted(os.walk(sounds))
    assert run("forget", sounds / "far", "--index", index).stdout == "2 removed from the index\n"
    assert json.loads(run("info", "--index", index, "--output", "json").stdout)["recordings"] == 4
    assert f"{sounds / 'far'}: no recording" in error_line(run("forget", sounds / "far", "--index", index, code=1))
    assert sorted(os.walk(sounds)) == before


def test_info_tells_what_is_in_an_index(run, index, tiny_folder):
    found = json.loads(run("info", "--index", index, "--output", "json").stdout)
    assert found["recordings"] == 6
    assert found["model"] == str(tiny_folder[0])
    assert found["formats"] == "5 wav, 1 flac"
    assert (found["window"], found["overlap"], found["dimension"]) == (30.0, 10.0, 12)
    assert "5 wav, 1 flac" in run("info", "--index", index).stdout


def test_the_default_model_of_a_new_index_can_be_a_variable(run, sounds, tmp_path, tiny_folder, monkeypatch):
    message = error_line(run("index", sounds, "--index", tmp_path / "new", code=1))
    for word in ("new index", "--model", MODEL_VARIABLE, "make demo"):
        assert word in message
    monkeypatch.setenv(MODEL_VARIABLE, str(tiny_folder[0]))
    monkeypatch.setenv(INDEX_VARIABLE, str(tmp_path / "new"))
    assert run("index", sounds).stdout.startswith("6 added")
    assert (tmp_path / "new").is_dir()


def test_a_folder_that_is_no_index_is_left_alone(run, sounds, tiny_folder):
    before = sorted(os.listdir(sounds))
    assert "no index" in error_line(run("index", sounds, "--index", sounds, "--model", tiny_folder[0], code=1))
    assert "no index" in error_line(run("index", sounds, "--index", sounds, code=1))  # and not that a model is missing
    assert "no index" in error_line(run("search", "rain", "--index", sounds, code=1))
    assert sorted(os.listdir(sounds)) == before


# -------------------------------------------------------------------------------------------------------- searching


def test_json_csv_playlist_and_table_name_the_same_recordings(run, index, sounds, tmp_path):
    rows = json.loads(run("search", "a dog bark", "--index", index, "-k", 5, "--output", "json").stdout)
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows == sorted(rows, key=lambda row: -row["score"])
    table = run("search", "a dog bark", "--index", index, "-k", 5).stdout
    assert table.splitlines()[0] == f"in {sounds}:" and len(table.splitlines()) == 7
    for form in ("csv", "m3u"):
        by_option = run("search", "a dog bark", "--index", index, "-k", 5, "--output", form).stdout_bytes
        out = tmp_path / f"hits.{form}"
        assert run("search", "a dog bark", "--index", index, "-k", 5, "--out", out).stdout == ""
        assert out.read_bytes() == by_option  # the ending tells what is wanted
    found = list(csv.DictReader((tmp_path / "hits.csv").read_text().splitlines()))
    assert [float(row["score"]) for row in found] == [row["score"] for row in rows]
    playlist = [line for line in (tmp_path / "hits.m3u").read_bytes().splitlines() if not line.startswith(b"#")]
    assert playlist == [os.fsencode(row["file"]) for row in rows]
    assert all(os.path.isfile(path) for path in playlist)


def test_names_that_are_no_utf8_and_markup_survive(run, index):
    rows = json.loads(run("search", "rain", "--index", index, "--output", "json").stdout)
    assert b"caf\xe9.wav" in [os.path.basename(os.fsencode(row["file"])) for row in rows]
    table = run("search", "rain", "--index", index).stdout
    assert "caf\\xe9.wav" in table and "[red]4.wav" in table


def test_filters_restrict_what_is_found(run, index, sounds):
    def names(*options):
        rows = json.loads(run("search", "rain", "--index", index, "--output", "json", *options).stdout)
        return sorted(os.path.basename(row["file"]) for row in rows)

    assert names("--folder", sounds / "far") == ["2.wav", "copy of 0.wav"]
    assert names("--format", "flac") == names("--format", ".FLAC") == ["1.flac"]
    assert names("--max-duration", 1.0) == ["0.wav", "copy of 0.wav"]
    assert names("--min-duration", 2.75) == ["[red]4.wav"]
    assert names("--before", "2001-01-01") == []
    assert len(names("--after", "2001-01-01")) == 6
    os.utime(sounds / "0.wav", (1_000_000_000, 1_000_000_000))  # 2001-09-09
    run("index", sounds, "--index", index)
    assert names("--after", "2001-09-01", "--before", "2001-09-30") == ["0.wav"]
    result = run("search", "rain", "--index", index, "--min-duration", 1000)
    assert (result.stdout, result.stderr) == ("", "nothing found: no recording that the filters admit\n")


def test_a_folder_filter_without_a_recording_of_the_index_is_named(run, index, sounds):
    result = run("search", "rain", "--index", index, "--folder", "/typo")
    assert (result.stdout, result.stderr) == ("", "warning: no recording of the index lies below /typo\n")
    result = run("search", "rain", "--index", index, "--folder", "/typo", "--folder", sounds, "--output", "json")
    assert len(json.loads(result.stdout)) == 6
    assert result.stderr == "warning: no recording of the index lies below /typo\n"
    assert run("similar", sounds / "0.wav", "--index", index, "--folder", sounds).stderr == ""


def test_without_changes_the_scores_and_can_be_repeated(run, index):
    def scores(*options):
        rows = json.loads(run("search", "rain", "--index", index, "--output", "json", *options).stdout)
        return {row["file"]: row["score"] for row in rows}

    assert scores() != scores("--without", "dog") != scores("--without", "dog", "--without", "siren wails")
    assert "both asked for and unwanted" in error_line(
        run("search", "rain", "--index", index, "--without", "Rain!", code=1)
    )


def test_similar_leaves_out_the_recording_itself(run, index, sounds):
    rows = json.loads(run("similar", sounds / "0.wav", "--index", index, "--output", "json").stdout)
    assert len(rows) == 5
    assert rows[0]["file"] == str(sounds / "far" / "copy of 0.wav")
    assert rows[0]["score"] == pytest.approx(1, abs=1e-4)
    assert "no such file" in error_line(run("similar", "a dog barks", "--index", index, code=1))


def test_tags_are_added_to_hits_and_to_a_whole_index(run, index, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("# sounds\ndog\nrain\nsiren\n")
    hits = json.loads(run("search", "water", "--index", index, "--tags", labels, "--output", "json").stdout)
    by_hit = {row["file"]: row["tags"][0]["label"] for row in hits}
    assert set(by_hit.values()) <= {"dog", "rain", "siren"}
    tagged = json.loads(run("tag", labels, "--index", index, "-k", 2, "--output", "json").stdout)
    assert {row["file"]: row["tags"][0]["label"] for row in tagged} == by_hit
    assert [len(row["tags"]) for row in tagged] == [2] * 6
    flat = list(csv.DictReader(io.StringIO(run("tag", labels, "--index", index, "--output", "csv").stdout)))
    assert list(flat[0]) == ["file", "label", "score"]
    assert len(run("tag", labels, "--index", index).stdout.splitlines()) == 8
    labels.write_text("# nothing\n")
    assert "found no label" in error_line(run("tag", labels, "--index", index, code=1))


def test_duplicates_are_listed_and_left_alone(run, index, sounds):
    (group,) = json.loads(run("duplicates", "--index", index, "--threshold", 1, "--output", "json").stdout)
    assert group["kind"] == "identical"
    assert [row["file"] for row in group["files"]] == [str(sounds / "0.wav"), str(sounds / "far" / "copy of 0.wav")]
    assert all(os.path.isfile(row["file"]) for row in group["files"])
    rows = list(csv.DictReader(io.StringIO(run("duplicates", "--index", index, "--output", "csv").stdout)))
    assert {"group", "kind", "similarity", "file"} <= set(rows[0])
    assert "identical" in run("duplicates", "--index", index, "--threshold", 1).stdout


# ----------------------------------------------------------------------------------------------------------- errors


def test_what_is_wrong_with_the_input_is_one_line(run, index, tmp_path):
    place = str(tmp_path / "my sounds")  # what is to be typed is quoted
    advice = error_line(run("search", "rain", "--index", place, code=1)).rpartition(": ")[2]
    assert shlex.split(advice) == ["cnn10bert", "index", "FOLDER", "--index", place]
    assert "expected words" in error_line(run("search", "?!", "--index", index, code=1))
    assert "none.txt" in error_line(run("search", "rain", "--index", index, "--tags", tmp_path / "none.txt", code=1))
    assert "cannot be written" in error_line(
        run("search", "rain", "--index", index, "--out", tmp_path / "no folder" / "a.csv", code=1)
    )
    assert "no such folder or file" in error_line(run("index", tmp_path / "gone", "--index", index, code=1))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["search", "rain", "--min-duration", "nan"], "min_duration: found nan"),
        (["search", "rain", "--max-duration", "-inf"], "max_duration: found -inf"),
        (["duplicates", "--threshold", "nan"], "threshold: found nan"),
    ],
)
def test_a_number_that_is_none_is_one_line(run, index, arguments, expected):
    assert expected in error_line(run(*arguments, "--index", index, code=1))


@pytest.mark.parametrize(
    "arguments",
    [
        ["index", ".", "--model", "m", "--index", "s3://bucket/sounds"],
        ["search", "rain", "--index", "s3://bucket/sounds"],
        ["export", "m", "s3://bucket/onnx"],
        ["evaluate", "m", "d", "--out", "s3://bucket/out"],
        ["submit", "m", "d", "--format", "dcase2022", "--out", "s3://bucket/out.csv"],
    ],
)
def test_an_address_is_no_folder_to_write_to(run, tmp_path, monkeypatch, tiny_folder, arguments):
    monkeypatch.chdir(tmp_path)
    arguments = [str(tiny_folder[0]) if word == "m" else word for word in arguments]
    assert "found '://' in the name of a folder" in error_line(run(*arguments, code=1))
    assert not list(tmp_path.glob("s3*"))


def test_a_folder_with_colons_in_its_name_can_hold_an_index(run, sounds, tmp_path, tiny_folder):
    place = tmp_path / "12:30::00" / "sounds.index"
    place.parent.mkdir()
    assert run("index", sounds, "--index", place, "--model", tiny_folder[0]).stdout.startswith("6 added")
    assert len(json.loads(run("search", "rain", "--index", place, "--output", "json").stdout)) == 6


@pytest.mark.parametrize(
    "arguments",
    [
        ["--before", "9999-12-31"],
        ["--after", "0001-01-01"],
        ["-k", "99999999999999999999"],
        ["--min-duration", "-1"],
        ["--max-duration", "1e300"],
    ],
)
def test_limits_beyond_any_recording_leave_none_out(run, index, arguments):
    rows = json.loads(run("search", "rain", "--index", index, "--output", "json", *arguments).stdout)
    assert len(rows) == 6


def test_another_model_is_refused(run, index, tmp_path, tiny_model, processor):
    other = tmp_path / "other"
    tiny_model(seed=1, text={"vocab_size": len(processor.tokenizer)}).save_pretrained(other)
    processor.save_pretrained(other)
    assert "cannot be compared" in error_line(run("search", "rain", "--index", index, "--model", other, code=1))


def test_an_interrupt_ends_with_130(run, index, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("modeling_cnn10bert.retrieval.retriever.AudioRetriever.search", interrupt)
    said = run("search", "rain", "--index", index, code=130).stderr
    assert said.startswith("interrupted; run it again with: ") and said.count("\n") == 1


def test_a_long_text_is_cut_with_a_warning(run, index):
    result = run("search", "rain " * 100, "--index", index, "--output", "json")
    assert len(json.loads(result.stdout)) == 6
    assert result.stderr.splitlines()[0].startswith("warning: the text 'rain rain")


def test_the_real_command_gives_json_alone_to_a_pipe(index, tiny_folder):
    command = [sys.executable, "-m", "modeling_cnn10bert", "search", "a dog bark", "--index", str(index)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CNN10BERT_")}
    done = subprocess.run([*command, "--output", "json"], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)) == 6


# ----------------------------------------------------------------------------------------------------------- models


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        (
            "evaluation.commands.run_evaluate",
            ["evaluate", "m", "d", "--split", "dev", "--skip-missing", "--bootstrap-resamples", "7"],
            {"model": "m", "dataset": "d", "split": "dev", "skip_missing": True, "bootstrap_resamples": 7},
        ),
        (
            "evaluation.commands.run_submit",
            ["submit", "m", "--captions", "c.csv", "--audio", "a", "--format", "dcase2025", "--out", "o.csv"],
            {"model": "m", "dataset": None, "captions": "c.csv", "audio": "a", "format": "dcase2025", "out": "o.csv"},
        ),
        ("evaluation.commands.run_score", ["score", "o.csv", "c.csv"], {"output": "o.csv", "captions": "c.csv"}),
        (
            "retrieval.onnx.export_onnx",
            ["export", "m", "o", "--int8", "--calibration", "sounds"],
            {"model": "m", "out": "o", "int8": True, "calibration": "sounds"},
        ),
    ],
)
def test_commands_for_models_hand_their_options_on(run, monkeypatch, function, arguments, expected):
    module, name = f"modeling_cnn10bert.{function}".rsplit(".", 1)
    signature = inspect.signature(getattr(pytest.importorskip(module), name))
    given = {}
    monkeypatch.setattr(f"{module}.{name}", lambda *a, **k: given.update(signature.bind(*a, **k).arguments))
    run(*arguments)
    assert {option: given[option] for option in expected} == expected


def test_faults_of_a_data_set_are_one_line_too(run, tiny_folder, tmp_path):
    assert "none" in error_line(run("evaluate", tiny_folder[0], tmp_path / "none", code=1))
    assert "none.csv" in error_line(run("score", tmp_path / "none.csv", tmp_path / "none2.csv", code=1))


@pytest.mark.parametrize(
    ("precision", "flags", "warned"),
    [("bfloat16", "avx2 fma", True), ("bfloat16", "avx2 avx512_bf16", False), ("float32", "avx2 fma", False)],
)
def test_bfloat16_on_a_cpu_that_has_no_instructions_for_it_is_warned_of(capsys, monkeypatch, precision, flags, warned):
    from modeling_cnn10bert.cli.common import warn_of_slow_bfloat16

    monkeypatch.setattr(Path, "is_file", lambda path: True)
    monkeypatch.setattr(Path, "read_text", lambda path: f"flags : {flags}")
    warn_of_slow_bfloat16(precision, "cpu")
    assert ("14 times slower" in capsys.readouterr().err) is warned


@pytest.mark.parametrize("verb", ["train", "train-tagger", "search-hyperparameters"])
def test_a_training_without_a_recipe_says_where_recipes_are(verb, run):
    [line] = run(verb, code=2).stderr.splitlines()
    assert line.startswith("error: found no recipe") and "cnn10bert recipes" in line


def test_a_recipe_of_the_package_is_found_by_its_name_and_a_close_one_is_proposed(run):
    with pytest.raises(RecipeError, match="did you mean clotho_baseline"):
        parse_recipe(["clotho_baselin"])
    assert parse_recipe(["clotho_baseline"])[3].output_dir == "runs/clotho_baseline"
    listed = run("recipes").stdout.splitlines()
    assert {line.split()[0] for line in listed} == {path.stem for path in RECIPES.glob("*.yaml")}


def test_options_may_be_written_with_underscores(run, tmp_path):
    said = run("prepare", "audiocaps", tmp_path, "--num_proc", "0", "--captions", "a", "--audio", "b", code=2).stderr
    assert "--num-proc" in said


def test_a_sound_and_a_text_are_searched_for_together(run, index):
    by_text = json.loads(run("search", "rain", "--index", index, "--output", "json").stdout)
    path, best = by_text[-1]["file"], by_text[0]
    words = ("--like", path, "--like-weight", "0.25", "--output", "json")
    hits = json.loads(run("search", "rain", "--index", index, *words).stdout)
    assert len(hits) == 5 and path not in [hit["file"] for hit in hits]
    assert best.keys() == {"rank", "score", "z_score", "file", "duration", "size", "modified", "start", "end"}
    least = run("search", "rain", "--index", index, "--min-score", best["score"] - 1e-4, "--output", "json")
    assert [hit["file"] for hit in json.loads(least.stdout)] == [best["file"]]
    none = run("search", "rain", "--index", index, "--min-score", "1.5")
    assert "nothing found: no recording has a score of at least 1.5" in none.stderr


def test_moments_are_listed_and_written_as_labels_and_selections(run, index, tmp_path):
    options = ("search", "a dog bark", "--index", index, "--moments", "-k", 3)
    rows = json.loads(run(*options, "--output", "json").stdout)
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert all(0 <= row["start"] < row["end"] <= row["duration"] + 0.001 for row in rows)
    for form, ending in (("audacity", "labels.txt"), ("raven", "selections.txt")):
        run(*options, "--out", tmp_path / f"dogs.{ending}")
        assert (tmp_path / f"dogs.{ending}").read_bytes() == run(*options, "--output", form).stdout_bytes
    assert len((tmp_path / "dogs.labels.txt").read_text().splitlines()) == 3
