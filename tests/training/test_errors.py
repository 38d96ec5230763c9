"""What a user can get wrong ends train_retrieval.py with one line that says what, and no traceback."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest

from modeling_cnn10bert.errors import RecipeError

SCRIPT = Path(__file__).resolve().parents[2] / "train_retrieval.py"


@pytest.fixture
def broken_set(soundscapes, tmp_path):
    """A copy of the soundscapes to break."""
    shutil.copytree(soundscapes, tmp_path / "set")
    return tmp_path / "set"


@pytest.fixture
def broken_recipe(write_recipe, broken_set, tmp_path):
    """The recipe of the soundscapes to break; nothing of them is in its feature cache."""
    return write_recipe(
        tmp_path / "recipe.yaml",
        output_dir=str(tmp_path / "run"),
        manifests=str(broken_set),
        sources=str(broken_set / "sources"),
        cache_dir=str(tmp_path / "cache"),
    )


def _no_folder(recipe, folder):
    return ["--manifests", "nowhere"], ["nowhere"]


def _no_json(recipe, folder):
    lines = (folder / "validation.jsonl").read_text().splitlines()
    lines[3] = lines[3][:-5]
    (folder / "validation.jsonl").write_text("\n".join(lines))
    return [], ["validation.jsonl", "4"]


def _no_sound(recipe, folder):
    source = json.loads((folder / "train.jsonl").read_text().splitlines()[0])["events"][0]["source"]
    (folder / "sources" / source).write_bytes(b"no sound at all" * 100)
    return [], [source, "scene 'train-"]


def _wrong_value(recipe, folder):
    recipe.write_text(recipe.read_text().replace("learning_rate: 0.001", "learning_rate: fast"))
    return [], [str(recipe), "learning_rate", "fast"]


@pytest.mark.parametrize("case", [_no_folder, _no_json, _no_sound, _wrong_value], ids=lambda case: case.__name__[1:])
def test_bad_input_ends_the_program_with_a_line_that_names_it(case, broken_recipe, broken_set, monkeypatch):
    arguments, named = case(broken_recipe, broken_set)
    monkeypatch.setattr(sys, "argv", ["train_retrieval.py", str(broken_recipe), *arguments])
    with pytest.raises(SystemExit) as ending:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    message = ending.value.code  # a text, which Python prints before it exits with 1
    assert message.startswith("error: ") and "\n" not in message
    assert all(word in message for word in named), message


def test_bad_input_leaves_one_line_and_no_traceback(start_process, broken_recipe, broken_set):
    _no_sound(broken_recipe, broken_set)
    process = start_process(broken_recipe)
    assert process.wait(timeout=300) == 1
    log = process.log.read_text()
    assert "Traceback" not in log, log
    (line,) = [line for line in log.splitlines() if line.startswith("error: ")]
    assert log.rstrip().endswith(line)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_train_samples": 5}, "found 25 training examples, .* batch of 30; .*total_train_batch_size"),
        ({"manifests": None}, "field manifests is not set"),
        ({"sources": None}, "field sources is not set"),
        (
            {"text_model_name_or_path": "./no-such-model"},
            "text_model_name_or_path: ./no-such-model: found no such folder",
        ),
        ({"model_name_or_path": "./no-such-model"}, "model_name_or_path: ./no-such-model: found no such folder"),
        (
            {"audio_model_name_or_path": "./no-such-model"},
            "audio_model_name_or_path: ./no-such-model: found no such folder",
        ),
        (
            {"captions_per_recording": 6},
            "captions_per_recording is 6, but 40 of 40 training recordings have fewer captions, such as .* with 5; "
            "set it to 5",
        ),
        ({"captions_per_recording": 5, "max_train_samples": 5}, "found 25 training examples, .* batch of 30"),
        ({"freeze_text_layers": 3}, "freeze_text_layers.* has 1 layers, found 3"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "error",
)
def test_other_mistakes_raise_what_the_program_prints(given, message, run, tmp_path):
    with pytest.raises(RecipeError, match=message):
        run(tmp_path / "run", **given)


def test_a_folder_of_another_run_is_left_as_it_is(run, trained, train_retrieval):
    before = {path: path.stat().st_mtime_ns for path in trained.iterdir() if path.name != ".lock"}
    with pytest.raises(RecipeError, match="holds another run"):
        run(trained)
    assert {path: path.stat().st_mtime_ns for path in trained.iterdir() if path.name != ".lock"} == before
