"""Tokens and passwords stay out of everything that is written or printed."""

import json

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from modeling_cnn10bert.cli import app as cli
from modeling_cnn10bert.errors import DataError, RecipeError, RetrievalError
from modeling_cnn10bert.files import check_local_folder
from modeling_cnn10bert.masking import is_secret, without_secrets
from modeling_cnn10bert.retrieval import stores
from modeling_cnn10bert.retrieval.stores.milvus_client import Address
from modeling_cnn10bert.training.command_line import run, write_or_say_why

PASSWORD = "planted-pass-word"
TOKEN = "hf_PlantedTokenOfNobodyAAAAAAAAAAAAA"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"http://root:{PASSWORD}@host:19530/sounds", "http://***@host:19530/sounds"),
        (f"http://root:a/{PASSWORD}?#@host:19530", "http://***@host:19530"),
        (f"http://root:one@{PASSWORD}@host/sounds", "http://***@host/sounds"),
        (f"postgresql+psycopg://me:{PASSWORD}@db/study is none", "postgresql+psycopg://***@db/study is none"),
        (f"https:/me:{PASSWORD}@host/file, as a path has it", "https:/***@host/file, as a path has it"),
        (f"https://host/file?name=rain&token={PASSWORD}#1", "https://host/file?name=rain&token=***#1"),
        (f"--seed 1 --hub_token {PASSWORD} --push_to_hub true", "--seed 1 --hub_token *** --push_to_hub true"),
        (f"not used: ['--hub_token', '{PASSWORD}']", "not used: ['--hub_token', '***']"),
        (f"--hub_token={PASSWORD}", "--hub_token=***"),
        (f"unrecognized: {TOKEN}", "unrecognized: ***"),
    ],
)  # fmt: skip
def test_secrets_in_a_text_are_masked_and_the_rest_stays(text, masked):
    assert without_secrets(text) == masked


@pytest.mark.parametrize(
    "text",
    ["http://host:19530/sounds", "http://host:19530/a@b", "write to me@example.org, not to http://example.org", "a: b"],
)
def test_a_text_without_secrets_stays(text):
    assert without_secrets(text) == text


def test_fields_are_masked_by_their_names_at_any_depth():
    given = {"hub_token": TOKEN, "seed": 1, "options": [{"api_key": PASSWORD}], "pad_token": None}
    assert without_secrets(given) == {"hub_token": "***", "seed": 1, "options": [{"api_key": "***"}], "pad_token": None}
    assert without_secrets(["--hub_token", PASSWORD, "--seed", 1]) == ["--hub_token", "***", "--seed", 1]
    assert not is_secret("include_num_input_tokens_seen") and is_secret("push_to_hub_token")


def test_an_address_gives_its_password_to_the_client_alone():
    address = Address.of(f"http://root:{PASSWORD}@host:19530/sounds")
    assert (address.uri, address.token) == ("http://host:19530", f"root:{PASSWORD}")
    assert PASSWORD not in repr(address)
    with pytest.raises(RetrievalError, match="%2F") as error:
        Address.of(f"http://root:a/{PASSWORD}@host:19530/sounds")
    assert PASSWORD not in str(error.value)


@pytest.fixture
def invoke():
    """Runs a command and returns all that it said."""

    def invoke(*arguments, code):
        result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
        assert result.exit_code == code, result.output + repr(result.exception)
        return result.stdout + result.stderr

    return invoke


@pytest.mark.parametrize("scheme", ["http", "ftp"])  # the second is no address of an index
@pytest.mark.parametrize("command", ["index", "info", "search", "similar", "duplicates", "tag"])
def test_no_command_of_an_index_says_its_password(command, scheme, invoke, tiny_folder, tmp_path):
    pytest.importorskip("pymilvus")
    (tmp_path / "labels.txt").write_text("rain\n")
    (tmp_path / "sounds").mkdir()
    words = {
        "index": ["index", tmp_path / "sounds", "--model", tiny_folder[0]],
        "similar": ["similar", tmp_path / "sounds"],
        "search": ["search", "rain"],
        "tag": ["tag", tmp_path / "labels.txt"],
    }.get(command, [command])
    # Port 1 of this machine: nothing listens there.
    said = invoke(*words, "--index", f"{scheme}://root:{PASSWORD}@127.0.0.1:1/sounds", code=1)
    assert f"{scheme}://" in said and PASSWORD not in said and said.count("\n") == 1


@pytest.mark.parametrize("output", ["table", "json", "csv"])
def test_info_shows_an_address_without_its_account(output, invoke, tiny_folder, tmp_path, monkeypatch):
    (tmp_path / "sounds").mkdir()
    soundfile.write(tmp_path / "sounds" / "a.wav", np.ones(8000), 8000)
    invoke("index", tmp_path / "sounds", "--index", tmp_path / "index", "--model", tiny_folder[0], code=0)
    open_store = stores.open_store
    monkeypatch.setattr(stores, "open_store", lambda location: open_store(str(tmp_path / "index")))
    location = f"http://root:{PASSWORD}@127.0.0.1:19530/sounds"
    said = invoke("info", "--index", location, "--output", output, code=0)
    assert "http://***@127.0.0.1:19530/sounds" in said and PASSWORD not in said
    invoke("info", "--index", location, "--output", output, "--out", tmp_path / "info", code=0)
    assert PASSWORD not in (tmp_path / "info").read_text()


def test_names_that_hold_a_password_are_masked_in_errors_of_models_and_data(invoke, tmp_path):
    address = f"https://me:{PASSWORD}@host/model"
    (tmp_path / "sounds").mkdir()
    for words in (
        ["evaluate", address, tmp_path / "sounds"],
        ["evaluate", tmp_path, address],
        ["export", address, tmp_path / "onnx"],
        ["publish", tmp_path / "sounds", "--to", address],
        ["submit", address, "--captions", address, "--audio", address, "--format", "dcase2025", "--out", "out"],
        ["score", address, address],
    ):  # fmt: skip
        assert PASSWORD not in invoke(*words, code=1)
    with pytest.raises(ValueError) as error:
        check_local_folder(address, "--cache_dir")
    assert PASSWORD not in str(error.value)


@pytest.mark.parametrize("kind", [RecipeError, DataError])
def test_the_last_line_of_a_training_holds_no_secret(kind):
    def main():
        raise kind(f"some arguments are not used: ['--hub_tokn', '{TOKEN}']")

    with pytest.raises(SystemExit) as ending:
        run(main)
    assert ending.value.code == "error: some arguments are not used: ['--hub_tokn', '***']"


def test_the_last_line_of_a_preparation_holds_no_secret(invoke, tmp_path):
    said = invoke("prepare", "clotho", tmp_path / "out", "--mirror", f"http://me:{PASSWORD}@127.0.0.1:9", code=1)
    assert PASSWORD not in said and "http://***@127.0.0.1:9" in said


def test_an_error_of_usage_holds_no_secret(invoke):
    assert PASSWORD not in invoke("search", "rain", f"http://root:{PASSWORD}@host:19530/sounds", code=2)
    said = invoke("prepare", "clotho", "out", "--hub_token", TOKEN, f"https://me:{PASSWORD}@host", code=2)
    assert TOKEN not in said and PASSWORD not in said


def test_a_warning_of_a_training_holds_no_secret(capsys):
    def write():
        raise OSError(json.dumps({"url": f"https://me:{PASSWORD}@host"}))

    assert PASSWORD not in write_or_say_why(write, "the card", "runs/x")
    assert PASSWORD not in capsys.readouterr().err
