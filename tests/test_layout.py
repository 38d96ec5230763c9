"""The package's files import each other in one direction only."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

PACKAGE = "modeling_cnn10bert"
ROOT = Path(__file__).resolve().parents[1]
TRAVELLING = {  # to the Hub, with a checkpoint
    "configuration_cnn10bert",
    "cpu_kernels_cnn10bert",
    "feature_extraction_cnn10bert",
    "modeling_cnn10bert",
    "processing_cnn10bert",
}
# From the bottom to the top: a file or folder imports those of its own row and of the rows before it.
ORDER = [
    TRAVELLING,
    {"__init__", "registration"},
    {"adapters", "bars", "errors", "files", "interrupts", "masking", "memory", "model_folder"},
    {"augmentation"},
    {"data"},
    {"retrieval"},
    {"evaluation"},
    {"publishing"},
    {"integrations"},
    {"training"},
    {"__main__", "cli", "page"},
]


def _imports():
    """Map each module of the package to those that it imports, also within functions and for type checkers."""
    paths = {path.relative_to(ROOT).with_suffix("").parts: path for path in (ROOT / PACKAGE).rglob("*.py")}
    modules = {".".join(parts).removesuffix(".__init__"): path for parts, path in paths.items()}
    found = {name: set() for name in modules}
    for name, path in modules.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                named = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
                source = ".".join([*above, *([node.module] if node.module else [])])
                # `from package import x` imports the module x if there is one, and else the package.
                named = [f"{source}.{alias.name}" for alias in node.names]
                named = [module if module in modules else source for module in named]
            else:
                continue
            found[name] |= {module for module in named if module in modules and module != name}
    return found


def _part(module):
    """The folder or file of the package that a module is in."""
    return [*module.split("."), "__init__"][1]


@pytest.fixture(scope="module")
def imports():
    found = _imports()
    assert f"{PACKAGE}.masking" in found[f"{PACKAGE}.files"]  # the imports are really read
    return found


def test_no_files_import_each_other_in_a_circle(imports):
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_every_import_goes_down(imports):
    place = {part: number for number, parts in enumerate(ORDER) for part in parts}
    assert {_part(module) for module in imports} <= place.keys(), "a new file or folder needs its place in ORDER"
    upward = [
        f"{module} imports {other}"
        for module, others in imports.items()
        for other in others
        if place[_part(other)] > place[_part(module)]
    ]
    assert not upward


def test_the_files_of_a_checkpoint_import_only_each_other(imports):
    for part in TRAVELLING:
        assert {_part(other) for other in imports.get(f"{PACKAGE}.{part}", ())} <= TRAVELLING


def test_nlpaug_is_imported_only_by_what_a_recipe_names(imports):
    adapter = f"{PACKAGE}.integrations.nlpaug"
    assert not [module for module, others in imports.items() if adapter in others]
    files = (ROOT / PACKAGE).rglob("*.py")
    lines = {path: re.search(r"^ *(from|import) nlpaug", path.read_text(encoding="utf-8"), re.M) for path in files}
    assert [path for path, line in lines.items() if line] == [ROOT / PACKAGE / "integrations" / "nlpaug.py"]
