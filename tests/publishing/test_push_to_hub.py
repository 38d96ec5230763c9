"""`train_retrieval.py --push_to_hub` leaves a repository that anyone opens, or says at its start why it cannot."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from transformers import AutoModel, AutoProcessor
from typer.testing import CliRunner

from modeling_cnn10bert import CNN10BertModel, CNN10BertProcessor
from modeling_cnn10bert.cli import app as cli
from modeling_cnn10bert.errors import PublishError, RecipeError
from modeling_cnn10bert.training import publish
from modeling_cnn10bert.training.arguments import TAGGING_ARGUMENT_CLASSES
from modeling_cnn10bert.training.build import build_trainer
from modeling_cnn10bert.training.command_line import run as run_script
from modeling_cnn10bert.training.recipe import parse_recipe

ROOT = Path(__file__).resolve().parents[2]
FEW_STEPS = {"max_steps": 2, "save_steps": 1, "hub_model_id": "org/retriever"}

# Opens a model by the name it is given where the package is hidden even if it is installed, and another by its folder;
# prints whether they do the same.
OPEN = """
import importlib.abc, json, sys

class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "modeling_cnn10bert":
            raise ModuleNotFoundError(f"{name} is hidden", name=name)

sys.meta_path.insert(0, Hide())

import numpy as np
import torch
from transformers import AutoModel, AutoProcessor

audio = [np.random.default_rng(0).standard_normal(length).astype(np.float32) * 0.1 for length in (32_000, 9_999)]
answers = []
for name in sys.argv[1:]:
    model = AutoModel.from_pretrained(name, trust_remote_code=True).eval()
    processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
    inputs = processor(text=["a dog barks", "rain"], audio=audio, sampling_rate=32_000, return_tensors="pt")
    with torch.inference_mode():
        outputs = model(**inputs)
    answers.append([inputs["input_features"], inputs["input_ids"], outputs.audio_embeds, outputs.logits_per_text])
print()
print(json.dumps({
    "equal": [torch.equal(*pair) for pair in zip(*answers)],
    "module": type(model).__module__.partition(".")[0],
    "package": "modeling_cnn10bert" in sys.modules,
}))
"""


@pytest.fixture(scope="module")
def published(make_hub, go_online, run, token, tmp_path_factory):
    """The Hub and the folder of a run that was published there in spite of two 500s and an upload that was cut."""
    folder = tmp_path_factory.mktemp("published") / "run"
    with make_hub() as hub:
        with pytest.MonkeyPatch.context() as patch:
            go_online(hub, patch)
            hub.fail("commit", 500, times=2)
            hub.cut("upload", after=2000)
            run(folder, **FEW_STEPS, push_to_hub=True, hub_token=token)
        yield hub, folder


@pytest.fixture
def untrained(online, write_recipe, tmp_path):
    """Makes the trainer of a run that has not begun."""

    def make(**given):
        recipe = write_recipe(tmp_path / "recipe.yaml", output_dir=str(tmp_path / "run"), **FEW_STEPS, **given)
        return build_trainer(*parse_recipe([str(recipe)]))[0]

    return make


# ------------------------------------------------------------------------------------------------- a run that is pushed


def test_a_run_is_published_in_one_commit(published):
    hub, folder = published
    repository = hub.repository("org/retriever")
    assert [commit.title for commit in repository.commits] == ["initial commit", "End of training"]
    assert {
        "README.md",
        "config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "modeling_cnn10bert.py",
        "processing_cnn10bert.py",
        "all_results.json",
        "run_facts.json",
        "curve.png",
    } <= repository.files.keys()
    for name in repository.files.keys() - {".gitattributes"}:
        assert repository.files[name] == (folder / name).read_bytes(), name
    assert {"training_args.bin", "checkpoint-1"} <= {path.name for path in folder.iterdir()}
    assert not any(name.startswith(("training_args", "checkpoint", "trainer")) for name in repository.files)


def test_the_card_opens_the_model_by_its_name_and_has_its_results(published):
    hub, folder = published
    card = hub.repository("org/retriever").files["README.md"].decode()
    assert 'from_pretrained("org/retriever"' in card
    index = yaml.safe_load(card.split("---")[1])["model-index"][0]["results"]
    found = {metric["type"]: metric["value"] for result in index[:1] for metric in result["metrics"]}
    assert found["map_at_10"] == json.loads((folder / "all_results.json").read_text())["test_mAP@10"]


def test_the_token_is_in_no_file(published, token):
    hub, folder = published
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.name == "training_args.bin" for path in files) == 3  # of the run and of both checkpoints
    for path in files:
        assert token.encode() not in path.read_bytes(), path
    assert hub.tokens_seen_elsewhere == []  # where large files go


def test_anyone_opens_it_by_its_name_and_gets_the_same_to_the_bit(published, environment, tmp_path):
    hub, folder = published
    command = [sys.executable, "-P", "-c", OPEN, "org/retriever", str(folder)]
    options = {"cwd": tmp_path, "env": environment(hub), "capture_output": True, "text": True, "timeout": 300}
    done = subprocess.run(command, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.strip().rpartition("\n")[2])
    assert report == {"equal": [True] * 4, "module": "transformers_modules", "package": False}
    assert hub.tokens_seen_elsewhere == []


def test_with_the_package_it_opens_without_trust(published, go_online, monkeypatch, noise, tmp_path):
    hub, folder = published
    go_online(hub, monkeypatch)
    model = AutoModel.from_pretrained("org/retriever", cache_dir=tmp_path).eval()
    processor = AutoProcessor.from_pretrained("org/retriever", cache_dir=tmp_path)
    assert type(model) is CNN10BertModel and type(processor) is CNN10BertProcessor
    inputs = processor(text="a dog barks", audio=noise(32_000), sampling_rate=32_000, return_tensors="pt")
    with torch.inference_mode():
        found, expected = model(**inputs), CNN10BertModel.from_pretrained(folder).eval()(**inputs)
    assert torch.equal(found.audio_embeds, expected.audio_embeds)
    assert torch.equal(found.text_embeds, expected.text_embeds)


def test_two_processes_publish_once(start_two_processes, write_recipe, hub, environment, tmp_path):
    recipe = write_recipe(tmp_path / "two.yaml", output_dir=str(tmp_path / "run"), push_to_hub=True, **FEW_STEPS)
    process = start_two_processes(recipe, **environment(hub))
    assert process.wait(timeout=400) == 0, process.log.read_text()[-3000:]
    assert [commit.title for commit in hub.repository("org/retriever").commits] == ["initial commit", "End of training"]
    assert hub.count("create") == 1
    assert json.loads(hub.repository("org/retriever").files["run_facts.json"])["hardware"]["processes"] == 2


# ------------------------------------------------------------------------------------------- what is told at the start


def _no_token(hub, monkeypatch, tokens):
    monkeypatch.delenv("HF_TOKEN")
    return {}, "found no token, expected one that may write"


def _unknown_token(hub, monkeypatch, tokens):
    return {"hub_token": "hf_unknown"}, "does not know (401)"


def _reading_token(hub, monkeypatch, tokens):
    return {"hub_token": tokens[1]}, "that may only read, expected one that may write"


def _no_right(hub, monkeypatch, tokens):
    return {"hub_model_id": "closed/retriever"}, "found no right to create it"


def _bad_name(hub, monkeypatch, tokens):
    return {"hub_model_id": "a/b/c"}, "found 'a/b/c', expected NAME or ORGANISATION/NAME"


def _gone(hub, monkeypatch, tokens):
    hub.stop()
    return {}, "cannot be reached (ConnectError"


@pytest.mark.parametrize(
    "case", [_no_token, _unknown_token, _reading_token, _no_right, _bad_name, _gone], ids=lambda case: case.__name__[1:]
)
def test_without_access_nothing_is_trained_and_nothing_written(
    case, online, monkeypatch, write_recipe, train_retrieval, train_tagging, token, reading_token, tmp_path
):
    given, expected = case(online, monkeypatch, (token, reading_token))
    given = {"hub_model_id": "org/retriever", **given}
    recipe = write_recipe(tmp_path / "recipe.yaml", output_dir=str(tmp_path / "run"), push_to_hub=True, **given)
    options = [f"--{name}={value}" for name, value in given.items()]
    tagging = ["--output_dir", str(tmp_path / "run"), "--dataset_name", "x", "--push_to_hub", "--use_cpu", *options]
    for script, arguments in ((train_retrieval, [str(recipe)]), (train_tagging, tagging)):
        with pytest.raises(SystemExit) as ending:
            run_script(lambda script=script, arguments=arguments: script.main(arguments))
        message = ending.value.code
        assert message.startswith("error: ") and "\n" not in message and expected in message, message
        assert message.endswith(" (nothing was trained)")
        assert token not in message and reading_token not in message
    assert not (tmp_path / "run").exists()
    assert not online.repositories


def test_another_process_than_the_first_asks_nothing_and_ends_with_it(online, monkeypatch):
    def broadcast(objects):
        objects[:] = [None, "what the first process found"]

    monkeypatch.setattr(publish, "broadcast_object_list", broadcast)
    arguments = SimpleNamespace(push_to_hub=True, process_index=1)
    with pytest.raises(PublishError, match="what the first process found"):
        publish.check_before_training(arguments)
    assert not online.requests


def test_a_push_at_every_save_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="hub_strategy must be end, found every_save: a run is published once"):
        parse_recipe(["--output_dir", str(tmp_path), "--hub_strategy", "every_save"])


# -------------------------------------------------------------------------------------------------------- from Python


def test_a_trainer_pushes_its_model_in_one_commit(untrained, online):
    trainer = untrained(hub_private_repo=True)
    commit = trainer.push_to_hub("By hand", blocking=False).result()
    repository = online.repository("org/retriever")
    assert [commit.title for commit in repository.commits] == ["initial commit", "By hand"] and repository.private
    assert commit.oid == repository.branches["main"]
    assert {"README.md", "model.safetensors", "modeling_cnn10bert.py"} <= repository.files.keys()


def test_a_trainer_that_is_to_push_does_not_before_it_is_told(untrained, online, token):
    trainer = untrained(push_to_hub=True, hub_token=token, num_train_epochs=1)
    trainer.train()
    trainer.save_model()
    assert not online.requests
    Path(trainer.args.output_dir, "README.md").write_text("# By hand")
    trainer.push_to_hub()
    repository = online.repository("org/retriever")
    assert len(repository.commits) == 2
    assert repository.files["README.md"] == b"# By hand"


def test_without_its_card_a_run_is_not_published_but_can_be(online, write_recipe, train_retrieval, tmp_path):
    folder = tmp_path / "run"
    (folder / "README.md").mkdir(parents=True)  # where the card is to be written
    recipe = write_recipe(tmp_path / "recipe.yaml", output_dir=str(folder), push_to_hub=True, **FEW_STEPS)
    with pytest.raises(PublishError, match="IsADirectoryError.*nothing was published; the model is whole in") as error:
        train_retrieval.main([str(recipe), "--hub_model_id", "org/retriever"])
    assert json.loads((folder / "all_results.json").read_text())["train_loss"] > 0
    [command] = re.findall(r"publish it by `cnn10bert (.+)`$", str(error.value))
    (folder / "README.md").rmdir()
    result = CliRunner().invoke(cli.app, shlex.split(command))
    assert result.exit_code == 0, result.output
    repository = online.repository("org/retriever")
    assert "model.safetensors" in repository.files


def test_a_tagger_is_published_too(online, train_tagging, fields, tmp_path):
    known = {name for cls in TAGGING_ARGUMENT_CLASSES for name in cls.__dataclass_fields__}
    recipe = {name: value for name, value in fields.items() if name in known}
    recipe |= {"output_dir": str(tmp_path / "tagger"), "max_steps": 1, "total_train_batch_size": 10}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"push_to_hub": True, "save_strategy": "no"}))
    train_tagging.main([str(tmp_path / "recipe.yaml")])
    repository = online.repository("somebody/tagger")  # named as its folder
    assert len(repository.commits) == 2
    assert {"README.md", "model.safetensors", "preprocessor_config.json", "test_classes.csv"} <= repository.files.keys()


# ---------------------------------------------------------------------------------------------------- when all is done

# Runs a script whose tries follow each other at once.
HASTY = """
import runpy, sys
from modeling_cnn10bert.publishing import hub
hub.WAITS = (0.01,) * 4
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_hub_that_is_gone_leaves_the_model_and_the_command_that_publishes_it(
    published, write_recipe, make_hub, hub, environment, tmp_path
):
    folder = tmp_path / "a run"
    given = {**FEW_STEPS, "model_name_or_path": str(published[1]), "do_predict": False}
    recipe = write_recipe(tmp_path / "recipe.yaml", output_dir=str(folder), push_to_hub=True, **given)
    hub.die_at("commit")
    command = [sys.executable, "-c", HASTY, str(ROOT / "train_retrieval.py"), str(recipe)]
    done = subprocess.run(command, cwd=ROOT, env=environment(hub), capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    line = done.stderr.rstrip().rpartition("\n")[2]
    assert line.startswith("error: hub_model_id org/retriever: ") and "cannot be reached" in line
    assert "Traceback" not in done.stderr
    told = re.search(r"the model is whole in (.+); publish it by `(.+)`$", line)
    assert told[1] == str(folder) and (folder / "model.safetensors").is_file()

    with make_hub() as again:
        words = shlex.split(told[2])
        assert words[0] == "cnn10bert"
        words[0] = str(Path(sys.executable).with_name("cnn10bert"))
        done = subprocess.run(words, env=environment(again), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        repository = again.repository("org/retriever")
        assert len(repository.commits) == 2
        assert repository.files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
        assert done.stdout == f"{again.url}/org/retriever/commit/{repository.branches['main']}\n"


def test_the_command_ends_with_one_line_where_it_cannot_publish(online, tmp_path):
    result = CliRunner().invoke(cli.app, ["publish", str(tmp_path), "--to", "org/retriever"])
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.startswith(
        f"error: {tmp_path}: found no config.json, model.safetensors, processor_config.json"
    )
    assert result.stderr.count("\n") == 1


def test_under_another_name_the_card_opens_the_model_by_that_name(published, online, tmp_path):
    folder = shutil.copytree(published[1], tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint-*"))
    for _ in range(2):  # the second time, nothing is left to do
        result = CliRunner().invoke(cli.app, ["publish", str(folder), "--to", "renamed", "--private"])
        assert result.exit_code == 0, result.output
        repository = online.repository("somebody/renamed")
        card = repository.files["README.md"].decode()
        assert 'from_pretrained("somebody/renamed"' in card and "org/retriever" not in card
        assert len(repository.commits) == 2 and repository.private
    assert "changed by hand" not in result.stderr


def test_a_card_that_was_changed_by_hand_stays(published, online, tmp_path):
    folder = shutil.copytree(published[1], tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint-*"))
    card = (folder / "README.md").read_text() + "\nA word of mine.\n"
    (folder / "README.md").write_text(card)
    result = CliRunner().invoke(cli.app, ["publish", str(folder), "--to", "org/renamed"])
    assert "README.md was changed by hand: see that it opens the model as org/renamed" in result.stderr
    assert online.repository("org/renamed").files["README.md"].decode() == card
