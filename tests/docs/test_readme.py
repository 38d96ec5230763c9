"""The README's commands and code run, or exist: on a model and recordings of toy size, as a reader would."""

import argparse
import contextlib
import functools
import importlib.util
import os
import re
import shlex
from pathlib import Path

import pytest
import typer
from accelerate.commands.launch import launch_command_parser
from typer.testing import CliRunner

from modeling_cnn10bert.cli import app as cli
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
SHELL_LANGUAGES, CODE_LANGUAGES, TEXT_LANGUAGES = {"bash"}, {"python"}, {"", "bibtex", "csv", "json"}


class Parsed(BaseException):
    """Ends a script behind its reading of the command line; no handler of errors takes it for one."""


@pytest.fixture
def place(tmp_path, tiny_folder, readme_commands, monkeypatch):
    """A working folder as a reader has it: the repository's scripts, a model in runs/demo, recordings in ~/sounds."""
    for name in ("scripts", "train_retrieval.py", "modeling_cnn10bert"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "runs").mkdir()
    tiny_folder[0].rename(tmp_path / "runs" / "demo")
    readme_commands.lay_out(tmp_path, tmp_path / "home")
    monkeypatch.setattr(os, "environ", os.environ)  # a map of datasets in several processes leaves a copy in its place
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in (MODEL_VARIABLE, INDEX_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def all_commands(readme, readme_commands):
    blocks = [block for block in readme_commands.read_blocks(readme) if block.language in SHELL_LANGUAGES]
    return [command for block in blocks for command in readme_commands.commands_of(block)]


# ---------------------------------------------------------------------------------------------------------- tables


def test_every_command_is_tried_or_says_why_not(all_commands, readme_commands):
    new = [f"README.md:{one.line}: {one.text}" for one in all_commands if not readme_commands.list_of(one.text)[0]]
    assert new == [], (
        "these commands are in no list of scripts/readme_commands.py; add how each begins to TRIED, with the options "
        "that make it cost seconds, or to SHOWN, with the reason why it cannot be tried"
    )


def test_every_entry_of_the_lists_is_of_a_command_of_the_readme(all_commands, readme_commands):
    starts = [*readme_commands.TRIED, *readme_commands.SET_UP, *readme_commands.SHOWN]
    used = {max((start for start in starts if one.text.startswith(start)), key=len, default="") for one in all_commands}
    assert [start for start in starts if start not in used] == []


def test_every_block_is_of_a_language_that_is_checked_or_no_code(readme, readme_commands):
    languages = {block.language for block in readme_commands.read_blocks(readme)}
    assert languages <= SHELL_LANGUAGES | CODE_LANGUAGES | TEXT_LANGUAGES


def test_commands_are_read_without_comments_and_on_one_line(readme_commands):
    text = '# Title\n\n```bash\na "b # c" # d\n\n# e\nf \\\n    --g h   # i\n```\n'
    (block,) = readme_commands.read_blocks(text)
    assert (block.heading, block.language, block.line) == ("Title", "bash", 4)
    commands = [(one.line, one.text) for one in readme_commands.commands_of(block)]
    assert commands == [(4, 'a "b # c"'), (7, "f --g h")]


# ------------------------------------------------------------------------------------------------------ for real


def test_the_readme_runs_from_top_to_bottom(place, readme, readme_commands, hub, online):
    steps = list(_steps(readme, readme_commands))
    assert len(steps) > 15
    failed = []
    for line, shown, step in steps:
        try:
            with online() if shown.startswith(readme_commands.TO_A_HUB) else contextlib.nullcontext():
                step()
        except (Exception, SystemExit) as error:
            failed.append(f"README.md:{line}: {shown}: {type(error).__name__}: {error}")
    assert failed == []
    assert (place / "runs" / "mine" / "model.safetensors").is_file()
    assert [name for _, name in hub.repositories] == ["newcomer/my-sounds"]


def _steps(readme, readme_commands):
    """The line, the text and the run of all code and of each command that is tried, in the order of the README."""
    for block in readme_commands.read_blocks(readme):
        if block.language in CODE_LANGUAGES:
            yield block.line, "the Python there", functools.partial(exec, compile(block.text, "README.md", "exec"), {})
        elif block.language in SHELL_LANGUAGES:
            for command in readme_commands.commands_of(block):
                if readme_commands.list_of(command.text)[0] == "TRIED":
                    words = shlex.split(readme_commands.on_small_data(command.text))
                    yield command.line, command.text, functools.partial(_run, words)


def _run(words):
    """Runs a command in this process."""
    words = [os.path.expanduser(word) for word in words]
    if words[0] == "cnn10bert":
        result = CliRunner().invoke(cli.app, words[1:])
        assert result.exit_code == 0, result.output + repr(result.exception)
    elif words[:2] == ["python", "-m"]:
        importlib.import_module(words[2]).main(words[3:])
    else:
        assert words[0] == "python"
        _load(words[1]).main(words[2:])


def _load(script):
    path = ROOT / script
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------------------------------------- that they exist


def test_every_command_that_is_only_shown_exists(all_commands, readme_commands, monkeypatch):
    monkeypatch.chdir(ROOT)
    shown = [one for one in all_commands if readme_commands.list_of(one.text)[0] != "TRIED"]
    assert len(shown) > 20
    _check([(f"README.md:{one.line}", one.text) for one in shown], readme_commands)


def test_every_command_within_a_sentence_exists(readme, readme_commands, monkeypatch):
    monkeypatch.chdir(ROOT)
    prose = re.sub(r"^```.*?^```", "", readme, flags=re.MULTILINE | re.DOTALL)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    commands = [span for span in spans if re.match(r"(cnn10bert|python|pip install|make) \S", span)]
    assert len(commands) > 12
    _check([("README.md", text) for text in commands], readme_commands)


@pytest.mark.parametrize(
    "command",
    [
        "cnn10bert serch rain",
        "cnn10bert search rain --nowhere",
        "cnn10bert prepare folder OUT FOLDER --captions_column text",
        "cnn10bert prepare nothing OUT",
        "cnn10bert train clotho_nothing",
        "cnn10bert train RECIPE --learning_rat 1",
        "accelerate launch --multi_gpus train_retrieval.py RECIPE",
        "accelerate launch --multi_gpu train_retrieval.py RECIPE --learning_rat 1",
        "python -m modeling_cnn10bert.data.nothing OUT",
        "make nothing",
        'pip install -e ".[nothing]"',
        "curl https://example.org",
    ],
)
def test_a_command_that_does_not_exist_is_found(command, readme_commands, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(AssertionError, match=re.escape(command)):
        _check([("here", command)], readme_commands)


def _check(commands, readme_commands):
    wrong = []
    for where, text in commands:
        try:
            _parse(shlex.split(readme_commands.fill_in(text)))
        except (Exception, SystemExit) as error:
            wrong.append(f"{where}: {text}: {type(error).__name__}: {error}")
    assert wrong == []


def _parse(words):
    """Reads a command line as its program would, and goes no further; raises where the program would refuse it."""
    words = [os.path.expanduser(word) for word in words]
    while "=" in words[0]:  # variables of the environment
        words = words[1:]
    match words:
        case ["cnn10bert", verb, *rest] if verb in RECIPE_CLASSES:
            parse_recipe(rest, argument_classes=RECIPE_CLASSES[verb])
        case ["cnn10bert", *rest]:
            _parse_cnn10bert(rest)
        case ["accelerate", "launch", *rest]:
            launched = launch_command_parser().parse_args(rest)
            assert (ROOT / launched.training_script).is_file()
            parse_recipe(launched.training_script_args)
        case ["python", "-m", "nltk.downloader", _]:
            pass
        case ["python", "-m", module, *rest]:
            assert importlib.util.find_spec(module), f"found no module {module}"
            _stop_behind_the_arguments(importlib.import_module(module).main, rest)
        case ["python", "scripts/reproduce_tables.py", *rest]:
            _load("scripts/reproduce_tables.py").main([*rest, "--dry_run"])
        case ["python", script, *rest]:
            _stop_behind_the_arguments(_load(script).main, rest)
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        case ["pip", "install", "-e", what]:
            extras = re.fullmatch(r"\.\[([\w,]+)\]", what)[1].split(",")
            project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
            assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras)
        case ["python3", "-m", "venv", ".venv"] | ["source", ".venv/bin/activate"] | ["hf", "auth", "login"]:
            pass
        case ["hf", "upload", _, _, ".", "--repo-type", "space"]:
            pass
        case _:
            raise ValueError("nothing here knows how to check this; see _parse")


def _parse_cnn10bert(words):
    command, context, name, rest = typer.main.get_command(cli.app), None, "cnn10bert", list(words)
    while True:
        context = command.make_context(name, rest, parent=context)
        if not hasattr(command, "resolve_command"):
            return
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])


def _stop_behind_the_arguments(main, words):
    """Runs a script as far as it has read its arguments."""

    def stopping(method):
        def parse(*args, **kwargs):
            method(*args, **kwargs)
            raise Parsed

        return parse

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Parsed):
        for name in ("parse_args", "parse_intermixed_args"):
            patch.setattr(argparse.ArgumentParser, name, stopping(getattr(argparse.ArgumentParser, name)))
        main(words)
        raise AssertionError("the script read no arguments")
