"""Run the tests on the lowest versions that pyproject.toml allows, or on the newest, each in a new environment.

    python scripts/check_dependencies.py lowest [TEST ...] [--over SITE_PACKAGES] [--set NAME==VERSION ...]
    python scripts/check_dependencies.py newest

Run it before a release. An environment takes 6 GB, most of it torch. `--over` reuses torch and torchaudio from the
packages of another environment, such as `.venv/lib/python3.11/site-packages`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("demo", "lora", "milvus", "mteb", "onnx", "postgresql", "reporting", "app")
TESTS = (
    "tests/test_modeling_cnn10bert.py",
    "tests/test_cli.py",
    "tests/retrieval",
    "tests/training/test_search.py",
    "tests/training/test_search_results.py",
    "tests/training/test_search_space.py",
)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", choices=["lowest", "newest"])
    parser.add_argument("tests", nargs="*", default=TESTS, metavar="TEST", help=f"by default {' '.join(TESTS)}")
    parser.add_argument("--over", type=Path, metavar="SITE_PACKAGES", help="installed packages to reuse")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME==VERSION", help="override the declared version")
    args = parser.parse_args(argv)
    packages = requirements(args.versions == "lowest", args.set, {"torch", "torchaudio"} if args.over else set())
    with tempfile.TemporaryDirectory(prefix="cnn10bert-check-") as folder:
        python = environment(Path(folder), args.over)
        print(*packages, sep="\n", flush=True)
        # Install the package's metadata too; its files are found by the folder that the tests run in.
        for what in (packages, ["--no-deps", str(ROOT)]):
            if code := subprocess.run([python, "-m", "pip", "install", "--quiet", *what], check=False).returncode:
                return code
        paths = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run([python, "-m", "pytest", "-q", *args.tests], cwd=ROOT, env=paths, check=False).returncode


def requirements(lowest: bool, chosen: Sequence[str], without: set[str]) -> list[str]:
    """List the packages to install: the lower bounds as exact versions, or the declared ranges."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    tools = extras["test"]
    lines = project["dependencies"] + [line for name in EXTRAS for line in extras[name]] + tools
    instead = {Requirement(line).name: line for line in chosen}
    found = []
    for line in lines:
        requirement = Requirement(line)
        if requirement.name in without or requirement.name == project["name"]:
            continue
        low = next(clause.version for clause in requirement.specifier if clause.operator == ">=")
        options = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
        is_tool = line in tools  # of the tests, whose lowest version does not matter
        pinned = f"{requirement.name}{options}=={low}" if lowest and not is_tool else line
        found.append(instead.get(requirement.name, pinned))
    return found


def environment(folder: Path, over: Path | None) -> str:
    """Make a virtual environment; return its Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    if over is not None:
        find = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        packages = subprocess.run(find, check=True, capture_output=True, text=True).stdout.strip()
        Path(packages, "zz_over.pth").write_text(f"{over.resolve()}\n", encoding="utf-8")
    return str(python)


if __name__ == "__main__":
    sys.exit(main())
