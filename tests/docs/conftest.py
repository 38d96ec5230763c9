"""The README's blocks, how they are tried, and the repository's files."""

import contextlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

ROOT = Path(__file__).resolve().parents[2]
NOT_OURS = {".git", ".venv", "runs", "data", "models", "build", "dist", "node_modules", "__pycache__"}


def _load(path):
    spec = importlib.util.spec_from_file_location(f"docs_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look there for their annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def run_docs():
    """The module scripts/run_docs.py."""
    return _load(ROOT / "scripts" / "run_docs.py")


@pytest.fixture
def hub(run_docs):
    """A Hub on loopback, where a newcomer may write."""
    with _load(ROOT / run_docs.HUB_SERVER).Hub() as hub:
        hub.add_user("newcomer", run_docs.HUB_TOKEN)
        yield hub


@pytest.fixture
def online(hub, run_docs):
    """Makes this process talk to that Hub for a while."""

    @contextlib.contextmanager
    def go_online():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(constants, "HF_HUB_OFFLINE", False)
            patch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the server offers git LFS
            patch.setattr(constants, "ENDPOINT", hub.url)
            patch.setenv("HF_TOKEN", run_docs.HUB_TOKEN)
            close_session()
            yield
        close_session()

    return go_online


@pytest.fixture(scope="session")
def readme():
    return (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def files():
    """The paths of the repository's files, relative to it: those that git tracks or would, or else all."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return sorted({line for line in done.stdout.splitlines() if (ROOT / line).is_file()})
    paths = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    return sorted(str(path) for path in paths if not NOT_OURS & set(path.parts))
