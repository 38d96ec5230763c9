"""Names and numbers of the README are those of the code."""

import dataclasses
import fnmatch
import re
from pathlib import Path

import pytest
import typer
from accelerate.commands.launch import launch_command_parser

from modeling_cnn10bert.cli.app import app
from modeling_cnn10bert.training.arguments import ARGUMENT_CLASSES, TAGGING_ARGUMENT_CLASSES, AugmentationArguments
from modeling_cnn10bert.training.recipe import read_recipe
from modeling_cnn10bert.training.search import SearchArguments

tomllib = pytest.importorskip("tomllib", reason="Python reads TOML from 3.11 on")

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "modeling_cnn10bert" / "recipes"


def _project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _rows(readme, title):
    """The rows of the table whose head begins so: cell texts."""
    lines = readme[readme.index(f"| {title}") :].splitlines()
    table = lines[2 : next((number for number, line in enumerate(lines) if not line.startswith("|")), len(lines))]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]


def test_the_table_of_recipes_lists_all_of_them_and_no_other(readme):
    rows = _rows(readme, "recipe | what")
    named = {name for row in rows for cell in row for name in re.findall(r"`([\w*]+)`", cell)}
    recipes = {path.stem for path in RECIPES.glob("*.yaml")}
    found = {recipe: [name for name in named if fnmatch.fnmatch(recipe, name)] for recipe in recipes}
    assert [recipe for recipe in sorted(recipes) if not found[recipe]] == [], "recipes that the table does not list"
    assert [name for name in sorted(named) if not fnmatch.filter(recipes, name)] == [], "no such recipes"


def test_fields_and_best_values_of_the_augmentations_are_those_of_the_recipe(readme):
    rows = _rows(readme, "what | fields | best values")
    recipe = read_recipe(RECIPES / "clotho_augmented.yaml")
    fields = {field.name for field in dataclasses.fields(AugmentationArguments)} - {"augment_audio", "augment_text"}
    listed = []
    for _, names, values in rows:
        listed += zip(re.findall(r"`(\w+)`", names), values.split(", "), strict=True)
    assert {name for name, _ in listed} == fields
    values = {name: re.match(r"[\d.]+", value)[0] for name, value in listed if value[0].isdigit()}
    assert {name: float(value) for name, value in values.items()} == {name: recipe[name] for name in values}
    assert fields - values.keys() == {"p_ms"}  # which is lost


def test_every_option_exists(readme):
    ours = re.sub(r"^hf .*$", "", readme, flags=re.MULTILINE)
    named = set(re.findall(r"(?<![\w-])--([a-z][\w-]*)", ours))
    assert len(named) > 40
    assert sorted(named - _options()) == []


def _options():
    """All options of our commands, recipes and scripts, and of accelerate."""
    classes = (*ARGUMENT_CLASSES, *TAGGING_ARGUMENT_CLASSES, SearchArguments)
    names = {"field", *(field.name for cls in classes for field in dataclasses.fields(cls))}
    names |= {f"no_{name}" for name in names}
    commands = list(typer.main.get_command(app).commands.values())
    commands += typer.main.get_command(app).commands["prepare"].commands.values()
    for command in commands:
        options = {option.lstrip("-") for parameter in command.params for option in parameter.opts}
        names |= options | {option.replace("-", "_") for option in options}
    for folder in ("scripts", "modeling_cnn10bert"):
        for path in (ROOT / folder).rglob("*.py"):
            names |= set(re.findall(r'add_argument\(\s*"--([\w-]+)"', path.read_text(encoding="utf-8")))
    accelerate = launch_command_parser()._actions
    return names | {option.lstrip("-") for action in accelerate for option in action.option_strings}


def test_python_and_torch_are_those_of_pyproject(readme):
    project = _project()
    assert f"Python {project['requires-python'].removeprefix('>=')} or newer" in readme
    torch = next(name for name in project["dependencies"] if name.startswith("torch>"))
    assert f"torch ({torch.split('<')[1]})" in readme


def test_every_extra_that_is_named_exists_and_every_one_is_named(readme):
    extras = set(_project()["optional-dependencies"])
    named = {name for names in re.findall(r"pip install [^`\n]*\[([\w,]+)\]", readme) for name in names.split(",")}
    assert named <= extras
    assert [name for name in sorted(extras) if f"`{name}`" not in readme and name not in named] == []


def test_every_target_of_make_that_is_named_exists(readme):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = set(re.findall(r"(?:^|`)make ([\w-]+)", readme, re.MULTILINE))
    assert {"demo", "test"} <= named <= set(targets)
