"""The blocks that README.md and docs/ mark as runnable run, and the other commands there exist."""

import contextlib
import importlib.util
import os
import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from modeling_cnn10bert.cli.app import app
from modeling_cnn10bert.cli.common import INDEX_VARIABLE, MODEL_VARIABLE
from modeling_cnn10bert.training.arguments import ARGUMENT_CLASSES, TAGGING_ARGUMENT_CLASSES
from modeling_cnn10bert.training.recipe import parse_recipe
from modeling_cnn10bert.training.search import SearchArguments

ROOT = Path(__file__).resolve().parents[2]
RECIPE_CLASSES = {  # verbs that a recipe is for
    "train": ARGUMENT_CLASSES,
    "train-tagger": TAGGING_ARGUMENT_CLASSES,
    "search-hyperparameters": (*ARGUMENT_CLASSES, SearchArguments),
}
DOCUMENTS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "model_cards").glob("clotho*.md")),
]


@pytest.fixture
def place(tmp_path, tiny_folder, run_docs, monkeypatch):
    """A working folder as a reader has it: the repository's scripts, a model in runs/demo, recordings in ~/sounds."""
    for name in ("scripts", "train_retrieval.py", "modeling_cnn10bert"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "runs").mkdir()
    tiny_folder[0].rename(tmp_path / "runs" / "demo")
    run_docs.lay_out(tmp_path, tmp_path / "home")
    monkeypatch.setattr(os, "environ", os.environ)  # a map of datasets in several processes leaves a copy in its place
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in (MODEL_VARIABLE, INDEX_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_is_marked_as_runnable_runs_from_top_to_bottom(place, run_docs, hub, online):
    steps = [step for step in run_docs.steps_of(ROOT) if not step.is_set_up]
    assert len(steps) > 15
    failed = []
    for step in steps:
        try:
            with online() if step.shown.startswith(run_docs.TO_A_HUB) else contextlib.nullcontext():
                _run(step)
        except (Exception, SystemExit) as error:
            failed.append(f"{step.place}: {step.command}: {type(error).__name__}: {error}")
    assert failed == []
    assert (place / "runs" / "mine" / "model.safetensors").is_file()
    assert [name for _, name in hub.repositories] == ["newcomer/my-sounds"]


def _run(step):
    """Run a step in this process."""
    if step.is_python:
        exec(compile(step.command, step.place, "exec"), {})
        return
    program, *words = [os.path.expanduser(word) for word in shlex.split(step.command)]
    if program == "cnn10bert":
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output + repr(result.exception)
    else:
        assert program == "python"
        path = ROOT / words[0]
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.main(words[1:])


def test_every_command_of_a_document_exists(run_docs, monkeypatch):
    monkeypatch.chdir(ROOT)
    commands, wrong = 0, []
    for document in DOCUMENTS:
        for _, begun, language, text in run_docs.blocks_of(document.read_text(encoding="utf-8")):
            for line, command in run_docs.commands_of(text, begun) if language == "bash" else ():
                if command.startswith("cnn10bert "):
                    commands += 1
                    try:
                        _parse(
                            shlex.split(
                                run_docs.fill_in(command).replace("[--field value ...]", "").replace("RECIPE", "demo")
                            )
                        )
                    except (Exception, SystemExit) as error:
                        wrong.append(f"{document.name}:{line}: {command}: {type(error).__name__}: {error}")
    assert commands > 40
    assert wrong == []


@pytest.mark.parametrize(
    "command",
    [
        "cnn10bert serch rain",
        "cnn10bert search rain --nowhere",
        "cnn10bert prepare folder OUT FOLDER --captions_column text",
        "cnn10bert prepare nothing OUT",
        "cnn10bert train clotho_nothing",
        "cnn10bert train demo --learning_rat 1",
    ],
)
def test_a_command_that_does_not_exist_is_found(command):
    with pytest.raises((Exception, SystemExit)):
        _parse(shlex.split(command))


def _parse(words):
    """Read a command line as the command would, and go no further; raise where it would refuse it."""
    words = [word for word in words[1:] if not re.fullmatch(r"\$[A-Z]+", word)]
    if words[0] in RECIPE_CLASSES:
        parse_recipe(words[1:], argument_classes=RECIPE_CLASSES[words[0]])
        return
    command, context, name = typer.main.get_command(app), None, "cnn10bert"
    while True:
        context = command.make_context(name, words, parent=context)
        if not hasattr(command, "resolve_command"):
            return
        name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
