"""Read recipes: YAML files of fields that extend one another, and that the command line overrides."""

import argparse
import difflib
import inspect
import json
import os
import re
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from transformers import HfArgumentParser

from ..errors import RecipeError
from ..masking import without_secrets
from .arguments import ARGUMENT_CLASSES

EXTENDS = "extends"  # names the recipe that a recipe differs from, relative to its own folder
RUNS = Path("runs")
RECIPES = Path(__file__).parents[1] / "recipes"  # included in the package
MAX_EXTENDED, MAX_BYTES, MAX_DEPTH = 20, 100_000, 10  # recipes in a chain, size and levels of each
_FAULTS_OF_VALUES = (ValueError, TypeError, AttributeError, LookupError, OverflowError)  # of PyYAML, by odd values


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the default of each field, and the description without reformatting."""


class _Parser(HfArgumentParser):
    """Raises an error instead of printing the usage, which has dozens of lines, and exiting."""

    def error(self, message: str) -> NoReturn:
        raise RecipeError(message)


def parse_recipe(
    argv: Sequence[str] | None = None,
    description: str | None = None,
    argument_classes: Sequence[type] = ARGUMENT_CLASSES,
) -> tuple[Any, ...]:
    """
    Read `[RECIPE] [--field value ...]`, where RECIPE is as for `find_recipe`; the command line overrides the recipe.

    Args:
        argv: the arguments; by default those of the process.
        description: shown by `--help`.
        argument_classes: dataclasses whose fields a recipe may set.

    Returns:
        One instance of each of `argument_classes`.

    Raises:
        RecipeError: the recipe cannot be read, a field is unknown, or a value does not fit its field.
    """
    description = inspect.cleandoc(description) if description else None
    parser = _Parser(argument_classes, description=description, usage=argparse.SUPPRESS, formatter_class=_HelpFormatter)
    try:
        return parser.parse_args_into_dataclasses(_without_recipe(argv, parser), look_for_args_file=False)
    except ValueError as error:
        raise RecipeError(without_secrets(str(error))) from error


def given_fields(
    argv: Sequence[str] | None = None, argument_classes: Sequence[type] = ARGUMENT_CLASSES
) -> dict[str, Any]:
    """
    Return the fields that `[RECIPE] [--field value ...]` sets, without those at their default.

    Raises:
        RecipeError: as `parse_recipe`.
    """
    parser = _Parser(argument_classes)
    words = _without_recipe(argv, parser)
    for action in parser._actions:
        action.default = argparse.SUPPRESS
    return vars(parser.parse_args(words))


def _without_recipe(argv: Sequence[str] | None, parser: HfArgumentParser) -> list[str]:
    """Replace the path of the recipe by its fields."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and not argv[0].startswith("-"):
        return _recipe_as_arguments(find_recipe(argv[0]), parser) + argv[1:]
    return argv


def find_recipe(name: str, folder: Path = Path()) -> Path:
    """Return the file of a recipe, given as a path or as the name of a packaged one, such as `clotho_baseline`."""
    path, shipped = folder / name, RECIPES / f"{os.path.basename(name)}.yaml"
    return shipped if os.path.basename(name) == name and not os.path.exists(path) and os.path.isfile(shipped) else path


def shipped_recipes() -> dict[str, str]:
    """Return the names of the packaged recipes, each with the first sentence of its comment."""
    described = {}
    for path in sorted(RECIPES.glob("*.yaml")):
        lines = [line[2:] for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
        described[path.stem] = re.split(r"(?<=[.:;])\s", " ".join(lines), maxsplit=1)[0].rstrip(":;.")
    return described


def read_recipe(path: Path) -> dict[str, Any]:
    """
    Read the fields of a recipe and their values, including those of the recipes that it extends.

    `extends: OTHER` inherits the fields of another recipe, given as a path relative to this one's folder or as the name
    of a packaged one. `null` resets a field to its default. The output folder is not inherited: if the recipe does not
    name it, it is `runs/<name of the recipe>`.

    Raises:
        RecipeError: the recipe, or one that it extends, cannot be read, or they extend each other.
    """
    return {name: value for name, (value, _) in _read(path).items()}


def _read(path: Path, above: tuple[Path, ...] = ()) -> dict[str, tuple[Any, Path]]:
    """Map each field to its value and the file that sets it; `above` are the recipes that extend this one."""
    extended = f"{above[-1]}: field {EXTENDS}: " if above else ""
    try:
        recipe = yaml.load(_text_of(path), _Loader)
    except (OSError, yaml.YAMLError, RecursionError, *_FAULTS_OF_VALUES) as error:
        reason = " ".join(f"{error}".split())[:500]
        is_ours = isinstance(error, FileNotFoundError) and os.path.isfile(RECIPES / path.name)
        hint = f"; `{path.stem}` without a folder is the recipe of the package" if is_ours else ""
        if isinstance(error, FileNotFoundError) and not is_ours:
            close = difflib.get_close_matches(path.stem, shipped_recipes(), n=3)
            hint = (
                f"; did you mean {' or '.join(close)}?" if close else "; `cnn10bert recipes` lists those of the package"
            )
        raise RecipeError(f"{extended}{str(path)[:300]}: not a readable YAML file ({reason}){hint}") from error
    if not isinstance(recipe, dict):
        raise RecipeError(f"{path}: found {type(recipe).__name__}, expected lines of `field: value`")
    fields = {}
    if (base := recipe.pop(EXTENDS, None)) is not None:
        above = (*above, path)
        if not isinstance(base, str):
            raise RecipeError(f"{path}: field {EXTENDS} is {_shown(base)}, expected the path of one other recipe")
        extended_path = find_recipe(base, path.parent)
        if any(os.path.realpath(extended_path) == os.path.realpath(other) for other in above):
            raise RecipeError(f"{path}: field {EXTENDS} is {base!r}, which extends this recipe; remove one of the two")
        if len(above) > MAX_EXTENDED:
            raise RecipeError(
                f"{above[0]}: found a chain of more than {MAX_EXTENDED} recipes by the field {EXTENDS}, the last one "
                f"{path}; expected at most so many"
            )
        fields = _read(extended_path, above)
    return fields | {"output_dir": (str(RUNS / path.stem), path)} | {name: (v, path) for name, v in recipe.items()}


def _text_of(path: Path) -> str:
    """Read a recipe; only files of a reasonable size are opened, because reading a pipe might never end."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("found no file but a folder, a pipe or a device")
    if status.st_size > MAX_BYTES:
        raise OSError(f"found {status.st_size} bytes, expected a recipe, which has at most {MAX_BYTES}")
    return path.read_text(encoding="utf-8-sig")


class _Loader(yaml.SafeLoader):
    """Refuses valid YAML that is a mistake in a recipe: duplicate fields, repeated lists or mappings, deep nesting."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        event = self.peek_event()
        self.depth = getattr(self, "depth", 0) + 1
        if self.depth > MAX_DEPTH:  # PyYAML's time grows with the square of the depth
            raise yaml.composer.ComposerError(None, None, f"found more than {MAX_DEPTH} levels", event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if isinstance(event, yaml.AliasEvent) and not isinstance(node, yaml.ScalarNode):
            raise yaml.composer.ComposerError(
                None, None, f"found a repetition, *{event.anchor}, of a list or mapping", event.start_mark
            )
        return node

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """Refuse numbers that YAML 1.1 reads in another base, where 010 is eight and 1:30 is ninety."""
        number = self.construct_yaml_int(node) if node.tag.endswith(":int") else self.construct_yaml_float(node)
        if ":" in node.value or (isinstance(number, int) and re.match(r"[-+]?0[\d_]", node.value)):
            raise yaml.constructor.ConstructorError(
                None, None, f"found {node.value}, which YAML reads as {number}; write a decimal number", node.start_mark
            )
        return number

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # not a field, which is reported later
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"found the field {key.value!r} twice, expected it once", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_number)


def check_recipe(path: Path, argument_classes: Sequence[type] = ARGUMENT_CLASSES, given: Sequence[str] = ()) -> None:
    """
    Check that the fields of a recipe, and those `given` as `--field value ...`, exist and that their values fit them.

    Raises:
        RecipeError: as `parse_recipe`.
    """
    parser = _Parser(argument_classes)
    _recipe_as_arguments(path, parser)
    parser.parse_known_args(list(given))


def _recipe_as_arguments(path: Path, parser: HfArgumentParser) -> list[str]:
    """Convert the recipe's fields to command-line arguments, so that both are checked in one place."""
    known = sorted({name for cls in parser.dataclass_types for name in cls.__dataclass_fields__})
    arguments = []
    for name, (value, source) in _read(path).items():
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else "`--help` lists all fields"
            raise RecipeError(f"{source}: unknown field {_shown(name)} (value {_shown(value, name)}); {hint}")
        if value is None:
            continue
        if value == []:  # argparse would switch the field on
            raise RecipeError(f"{source}: field {name} is an empty list, expected a value, or null for its default")
        if name == "text_augmenter" and (folder := os.path.abspath(source.parent)) not in sys.path:
            sys.path.append(folder)  # its module may be there
        text = json.dumps(value) if isinstance(value, dict) else value
        # With "=", because the value may begin with a dash.
        words = [f"--{name}", *map(str, value)] if isinstance(value, list) else [f"--{name}={text}"]
        try:
            _, surplus = parser.parse_known_args(words)  # alone, so that an error is certain to be the recipe's
        except RecipeError as error:
            reason = without_secrets({name: str(error)})[name]
            raise RecipeError(f"{source}: field {name} is {_shown(value, name)}: {reason[:500]}") from error
        if surplus:
            raise RecipeError(f"{source}: field {name} is {_shown(value, name)}: expected one value")
        arguments += words
    return arguments


def _shown(value: Any, name: Any = "") -> str:
    """Format a value for an error message: secrets are hidden, and long values truncated."""
    text = repr(without_secrets({str(name): value})[str(name)])
    return text if len(text) <= 100 else f"{text[:100]}..."
