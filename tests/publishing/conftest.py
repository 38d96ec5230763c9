"""A Hub on loopback, and a tiny run of train_retrieval.py to publish there."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import transformers
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from modeling_cnn10bert.publishing import hub as hub_module


def _load(path):
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look there for their annotations
    spec.loader.exec_module(module)
    return module


Hub = _load(Path(__file__).with_name("hub_server.py")).Hub
_training = _load(Path(__file__).parents[1] / "training" / "conftest.py")
one_thread, soundscapes, text_folder, fields = (
    _training.one_thread,
    _training.soundscapes,
    _training.text_folder,
    _training.fields,
)
write_recipe, train_retrieval, train_tagging = (
    _training.write_recipe,
    _training.train_retrieval,
    _training.train_tagging,
)
run, start_process, start_two_processes = _training.run, _training.start_process, _training.start_two_processes

TOKEN = "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"
READER = "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"


@pytest.fixture(scope="session")
def token():
    """Of somebody, who may write under their name and in org, and only read in closed."""
    return TOKEN


@pytest.fixture(scope="session")
def reading_token():
    """Of the same user, to read only."""
    return READER


@pytest.fixture
def hub():
    """A Hub without repositories."""
    with new_hub() as hub:
        yield hub


def new_hub():
    hub = Hub()
    somebody = hub.add_user("somebody", TOKEN, org="write", closed="read")
    hub.add_user("somebody", READER, role="read", **somebody.organisations)
    return hub


@pytest.fixture(scope="session")
def make_hub():
    """Makes a Hub that is not started."""
    return new_hub


@pytest.fixture(scope="session")
def go_online():
    """Makes this process talk to the Hub on loopback, and not wait long between two tries."""

    def go(hub, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the server offers git LFS
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        # transformers keeps its client, which would talk to the Hub of an earlier test
        monkeypatch.setattr(transformers.utils.hub, "_hf_api", None, raising=False)
        monkeypatch.setattr(hub_module, "WAITS", (0.01, 0.01, 0.01, 0.01))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        close_session()

    return go


@pytest.fixture
def online(hub, go_online, monkeypatch):
    """The Hub on loopback, which this process talks to, logged in there."""
    go_online(hub, monkeypatch)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield hub
    close_session()


@pytest.fixture
def environment(tmp_path):
    """Makes what the environment of a process of its own has, so that it talks to a Hub, with an empty cache."""

    def make(hub, token=TOKEN):
        home = tmp_path / "home"
        return {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(home),
            "HF_MODULES_CACHE": str(home / "modules"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": token,
        }

    return make


@pytest.fixture
def model_folder(tiny_folder):
    """The folder of a saved toy model with its processor and a card."""
    folder, _ = tiny_folder
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A toy\n", encoding="utf-8")
    return folder
