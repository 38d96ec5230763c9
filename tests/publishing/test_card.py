"""The card of a tiny run: true to its results, free of secrets, and with code that runs."""

import copy
import json
import re
import shlex
import shutil
import subprocess
import sys

import jinja2
import jinja2.meta
import pytest
import soundfile
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from typer.testing import CliRunner

from modeling_cnn10bert.cli import app as cli
from modeling_cnn10bert.evaluation import reports
from modeling_cnn10bert.publishing import card as card_module
from modeling_cnn10bert.publishing.card import (
    EVAL_RESULTS,
    TEMPLATE,
    card_of_run,
    eval_entries,
    write_card_of_run,
)
from modeling_cnn10bert.publishing.facts import FACTS
from modeling_cnn10bert.training.build import build_trainer, evaluation_recordings
from modeling_cnn10bert.training.publish import write_model_card
from modeling_cnn10bert.training.recipe import given_fields, parse_recipe

TOKEN = "hf_AnotherSecretThatNobodyMaySee"
CODE = {"commit": "0123456789abcdef0123456789abcdef01234567", "changed": False}


@pytest.fixture(scope="module")
def finish(write_recipe):
    """Trains and scores a tiny recipe as train_retrieval.py does, and writes its card; returns the folder."""

    def finish(folder, checkpoint=None, **given):
        recipe = write_recipe(folder.with_suffix(".yaml"), output_dir=str(folder), **given)
        argv = [str(recipe), "--hub_token", TOKEN, *(["--resume_from_checkpoint", "true"] if checkpoint else [])]
        arguments = parse_recipe(argv)
        trainer, tables = build_trainer(*arguments)
        trainer.train_and_save(checkpoint and str(checkpoint))
        test = evaluation_recordings(tables.test, trainer.processing_class.feature_extractor)
        parts = [("eval", trainer.args.do_eval, None), ("test", trainer.args.do_predict, test)]
        for prefix, wanted, recordings in parts:
            if wanted:
                trainer.save_metrics(prefix, trainer.evaluate(recordings, metric_key_prefix=prefix))
        path = write_model_card(trainer, tables, argv, code=CODE)
        assert path == folder / "README.md"
        return folder

    return finish


@pytest.fixture
def finish_with(train_retrieval, write_recipe, tmp_path):
    """Runs train_retrieval.py on a tiny recipe with these fields, and returns its results."""
    return lambda **given: train_retrieval.main([str(write_recipe(tmp_path / "recipe.yaml", **given))])


@pytest.fixture(scope="module")
def best():
    """Fields of a run of 18 steps that keeps the best of its weights."""
    return {"eval_strategy": "steps", "eval_steps": 4, "load_best_model_at_end": True}


@pytest.fixture(scope="module")
def folder(finish, best, tmp_path_factory):
    """The folder of a run that has its card."""
    return finish(tmp_path_factory.mktemp("card") / "tiny-model", **best)


@pytest.fixture
def facts(folder):
    return json.loads((folder / FACTS).read_text())


@pytest.fixture
def results(folder):
    return json.loads((folder / "all_results.json").read_text())


def _blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


# ---------------------------------------------------------------------------------------------------------- metadata


def test_the_metadata_are_complete_and_survive_a_round_trip(folder):
    text = (folder / "README.md").read_text()
    card = ModelCard(text)
    data = yaml.safe_load(text.split("---\n")[1])
    assert ModelCard(str(card)).data.to_dict() == card.data.to_dict() == data
    assert {name: data[name] for name in ("language", "license", "library_name", "pipeline_tag")} == {
        "language": "en",
        "license": "apache-2.0",
        "library_name": "transformers",
        "pipeline_tag": "feature-extraction",
    }
    assert "text-to-audio-retrieval" in data["tags"]
    # A folder and synthetic scenes are not on the Hub.
    assert "base_model" not in data
    assert "datasets" not in data


def test_the_model_index_has_exactly_the_test_results(folder, results):
    card = ModelCard.load(folder / "README.md")
    assert card.data.model_name == "tiny-model"
    found = {(result.task_type, result.metric_name): result.metric_value for result in card.data.eval_results}
    metrics = ("R@1", "R@5", "R@10", "mAP@10")
    expected = {("text-to-audio-retrieval", metric): results[f"test_{metric}"] for metric in metrics}
    expected |= {("audio-to-text-retrieval", metric): results[f"test_a2t_{metric}"] for metric in metrics}
    assert found == expected
    assert {result.dataset_split for result in card.data.eval_results} == {"test"}


def test_what_is_on_the_hub_is_linked(facts, results):
    facts["start"]["text_model"] = {"name": "bert-base-uncased", "hub_id": "bert-base-uncased"}
    facts["start"]["audio_model"] = {"name": "org/cnn10", "hub_id": "org/cnn10"}
    facts["data"] |= {"kind": "prepared", "hub_id": "org/clotho", "name": "org/clotho", "source": "Clotho"}
    data = card_of_run(facts, results).data
    assert data.base_model == ["google-bert/bert-base-uncased", "org/cnn10"]
    assert data.datasets == ["org/clotho"]
    assert {result.dataset_type for result in data.eval_results} == {"org/clotho"}


# -------------------------------------------------------------------------------------------------------------- text


def test_the_table_shows_the_test_results_beside_chance(folder, results):
    text = (folder / "README.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    shown = {
        name: [float(value) for value in cells] for name, *cells in rows if name in ("Text to audio", "Audio to text")
    }
    for name, direction in (("Text to audio", ""), ("Audio to text", "a2t_")):
        expected = [100 * results[f"test_{direction}{metric}"] for metric in ("R@1", "R@5", "R@10", "mAP@10")]
        assert shown[name] == pytest.approx(expected, abs=0.005)
    # 24 recordings, 120 captions: a random ranking has the recording first once in 24.
    assert ["a random ranking", "4.17"] in [row[:2] for row in rows]
    assert "24 recordings and 120 captions of the test set of the synthetic soundscapes `set`" in text


def test_it_says_how_the_model_was_made(folder, facts):
    text = (folder / "README.md").read_text()
    assert facts["training"]["steps"] == 18
    assert "18 steps of 30 pairs" in text
    assert "seed 3" in text
    state = json.loads((folder / "trainer_state.json").read_text())
    assert f"the weights of step {state['best_global_step']} were chosen by mAP@10 on the validation set" in text
    assert f"commit `{CODE['commit']}` |" in text
    assert f"torch {facts['versions']['torch']}" in text
    assert "audio tower: random weights; text tower: `text" in text


def test_every_place_of_the_template_is_filled(facts, results, monkeypatch):
    names = jinja2.meta.find_undeclared_variables(jinja2.Environment().parse(TEMPLATE.read_text()))
    given = {}
    monkeypatch.setattr(card_module, "render_card", lambda data, **context: given.update(context))
    card_of_run(facts, results)
    assert names == {"card_data", *given}


@pytest.mark.parametrize("name", ["README.md", FACTS])
def test_no_secret_and_no_folder_of_the_machine_is_published(name, folder, fields):
    text = (folder / name).read_text()
    assert TOKEN not in text
    assert str(folder.parent) not in text
    assert str(fields["manifests"]) not in text
    assert str(fields["cache_dir"]) not in text


def test_the_recipe_and_the_command_of_the_card_are_those_of_the_run(folder, tmp_path):
    text = (folder / "README.md").read_text()
    [block] = _blocks(text, "yaml")
    (tmp_path / "card.yaml").write_text(block)
    again, given = given_fields([str(tmp_path / "card.yaml")]), given_fields([str(folder.with_suffix(".yaml"))])
    for name in ("manifests", "sources", "text_model_name_or_path"):
        assert again.pop(name) == given.pop(name).rsplit("/", 1)[-1]
    for name in ("output_dir", "cache_dir", "disable_tqdm"):  # where it lies and what is shown
        again.pop(name, None), given.pop(name)
    assert again == given
    assert "cnn10bert train tiny-model.yaml\n" in _blocks(text, "bash")


# -------------------------------------------------------------------------------------------------------------- code


def test_its_python_runs_where_the_package_is_not_imported(folder):
    blocks = _blocks((folder / "README.md").read_text(), "python")
    assert len(blocks) == 3
    code = "\n".join([*blocks, "import sys; assert 'modeling_cnn10bert' not in sys.modules"])
    process = subprocess.run([sys.executable, "-c", code], cwd=folder.parent, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert re.search(r"tensor\(\[\[.+\],\s+\[.+\]\]\)", process.stdout)
    assert "'label': 'a dog barks'" in process.stdout


def test_its_commands_run(folder, tmp_path, noise, monkeypatch):
    (tmp_path / "sounds").mkdir()
    for number in range(3):
        soundfile.write(tmp_path / "sounds" / f"{number}.wav", noise(40_000, seed=number), 32_000)
    shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("checkpoint-*"))
    monkeypatch.chdir(tmp_path)
    [commands] = [block for block in _blocks((folder / "README.md").read_text(), "bash") if "cnn10bert index" in block]
    for line in commands.replace("~/sounds", "sounds").splitlines():
        name, *words = shlex.split(line)
        assert name == "cnn10bert"
        result = CliRunner().invoke(cli.app, words)
        assert result.exit_code == 0, result.output
    assert all(f"{number}.wav" in result.output for number in range(3))


# ---------------------------------------------------------------------------------------------------- other runs


def test_the_card_of_a_resumed_run_is_of_the_whole_run(folder, finish, best, tmp_path):
    resumed = tmp_path / "tiny-model"
    shutil.copytree(folder / "checkpoint-12", resumed / "checkpoint-12")
    finish(resumed, checkpoint=resumed / "checkpoint-12", **best)
    text = (resumed / "README.md").read_text()
    assert "18 steps of 30 pairs" in text
    assert "from step 12 on, where the run was resumed; what came before was not noted" in text
    assert "resume_from_checkpoint" not in text
    assert ModelCard(text).data.eval_results == ModelCard.load(folder / "README.md").data.eval_results


def test_without_a_test_the_card_has_no_test_results_also_where_older_ones_lie(facts, results):
    facts["scored"]["test"] = False
    card = card_of_run(facts, results)
    assert card.data.eval_results is None
    assert "**The test set was not scored.**" in card.text
    assert f"{100 * results['eval_mAP@10']:.2f}" in card.text
    assert "test, in percent" not in card.text


def test_a_run_that_scored_nothing_says_so(facts):
    facts["scored"] = {"validation": False, "test": False}
    card = card_of_run(facts, {})
    assert "The run that made this model scored nothing." in card.text
    assert "in percent" not in card.text


def test_a_run_on_accelerators_that_continues_another(facts, results):
    facts["hardware"] |= {"accelerator": "NVIDIA X", "num_accelerators": 4, "processes": 4}
    facts["training"] |= {"seconds": 7384.0, "best": None}
    facts["start"] |= {
        "model": {"name": "audiocaps_pretraining", "hub_id": None},
        "earlier_data": [_prepared("AudioCaps")],
    }
    facts["data"] = {**facts["data"], **_prepared("Clotho"), "limits": {"max_eval_samples": 24}}
    facts["code"] = {"commit": "abc", "changed": True}
    text = card_of_run(facts, results).text
    assert "4 x NVIDIA X" in text
    assert "4 processes" in text
    assert "2 h 3 min" in text
    assert "with the weights of the last step" in text
    assert "the whole model `audiocaps_pretraining`" in text
    assert "the first 24 of the set: not comparable" in text
    assert "commit `abc`, with changes that were not committed" in text
    assert text.index("- AudioCaps: ") < text.index("- Clotho v2.1 (")
    assert "http://by (3)" in text


def _prepared(source):
    return {"kind": "prepared", "name": source.lower(), "hub_id": None, "source": source, "licences": {"http://by": 3}}


def test_a_data_set_that_does_not_say_its_licence(facts, results):
    facts["data"] = {**facts["data"], **_prepared("own"), "source": None, "licences": {}}
    assert "`own`: its prepared form does not say under which licence it stands." in card_of_run(facts, results).text


# ------------------------------------------------------------------------------------------------------ .eval_results


def test_a_data_set_of_the_hub_gets_an_entry_for_each_direction(folder, facts, results, tmp_path):
    facts["data"] |= {"kind": "prepared", "hub_id": "org/clotho", "source": "Clotho", "licences": {}}
    (tmp_path / FACTS).write_text(json.dumps(facts))
    shutil.copy(folder / "all_results.json", tmp_path)
    write_card_of_run(tmp_path)
    entries = parse_eval_result_entries(yaml.safe_load((tmp_path / EVAL_RESULTS / "clotho.yaml").read_text()))
    assert [(entry.dataset_id, entry.task_id, entry.value) for entry in entries] == [
        ("org/clotho", "text-to-audio-retrieval", results["test_mAP@10"]),
        ("org/clotho", "audio-to-text-retrieval", results["test_a2t_mAP@10"]),
    ]
    assert f"R@1 {results['test_R@1']}, " in entries[0].notes

    facts["scored"]["test"] = False  # run again without a test: what lies there is not of this run
    (tmp_path / FACTS).write_text(json.dumps(facts))
    write_card_of_run(tmp_path)
    assert list((tmp_path / EVAL_RESULTS).iterdir()) == []


def test_a_part_of_a_benchmark_and_a_folder_get_no_entry(facts, results):
    assert eval_entries(facts, results) == []
    facts["data"] |= {"hub_id": "org/clotho", "limits": {"max_eval_samples": 5}}
    assert eval_entries(facts, results) == []


# ------------------------------------------------------------------------------------------------------------ writing


@pytest.fixture
def copied(folder, tmp_path):
    """A folder with the facts, results and card of the run."""
    for name in (FACTS, "all_results.json", "README.md"):
        shutil.copy(folder / name, tmp_path)
    return tmp_path


def test_the_card_can_be_written_again_from_the_folder_alone(copied, folder):
    (copied / "README.md").unlink()
    write_card_of_run(copied)
    assert (copied / "README.md").read_text() == (folder / "README.md").read_text()


def test_the_name_on_the_hub_may_be_given_later(copied):
    text = write_card_of_run(copied, model_id="org/cnn10-bert").read_text()
    assert 'AutoModel.from_pretrained("org/cnn10-bert", trust_remote_code=True)' in text
    assert "--model org/cnn10-bert\n" in text
    assert ModelCard(text).data.model_name == "cnn10-bert"


def test_a_card_is_never_half_written(copied, monkeypatch):
    before = sorted((path.name, path.read_bytes()) for path in copied.iterdir())

    def killed(*names):
        raise KeyboardInterrupt

    monkeypatch.setattr(reports.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_card_of_run(copied, model_id="org/other")
    assert sorted((path.name, path.read_bytes()) for path in copied.iterdir()) == before


@pytest.mark.parametrize(("name", "message"), [(FACTS, "found no facts of a run"), ("all_results.json", "no results")])
def test_a_folder_without_facts_or_results_is_refused(name, message, copied):
    (copied / name).write_text("{half")
    with pytest.raises(ValueError, match=message):
        write_card_of_run(copied)


def test_gathering_does_not_change_the_facts(facts, results):
    before = copy.deepcopy(facts)
    card_of_run(facts, results)
    assert facts == before


# -------------------------------------------------------------------------------------------------- what it builds on


def test_what_the_towers_were_trained_on_is_named_with_its_licences(facts, results):
    facts["start"]["earlier_data"] = [
        {"kind": "known", "source": "BERT", "part": "text tower"},
        {"kind": "known", "source": "AudioSet", "part": "audio tower"},
        {"kind": "known", "source": "PANNs", "part": "audio tower"},
        _prepared("AudioCaps"),
    ]
    facts["data"] = {**facts["data"], **_prepared("Clotho")}
    card = card_of_run(facts, results)
    assert card.data.datasets == ["bookcorpus", "wikipedia", "AudioSet", "AudioCaps", "Clotho"]
    licences = card.text[card.text.index("## Data and licences") : card.text.index("## Limits")]
    for part in (
        "Apache-2.0",
        "BookCorpus",
        "- AudioSet, from which the audio tower starts",
        "Zenodo 3987831",
        "CC BY 4.0",
    ):
        assert part in licences


def test_a_tower_that_started_from_aisfx_names_its_authors_paper_and_licence(facts, results):
    facts["start"]["earlier_data"] = [{"kind": "known", "source": "aisfx", "part": "audio tower"}]
    card = card_of_run(facts, results)
    licences = card.text[card.text.index("## Data and licences") : card.text.index("## Limits")]
    assert "- The weights of [aisfx](https://github.com/alisonbma/aisfx) 0.1.2 by A. B. Ma and A. Lerch" in licences
    for part in ("ISMIR 2022", "CC BY 4.0", "training changed"):
        assert part in licences


def test_of_weights_of_others_the_card_tells_what_theirs_says_or_that_nothing_is_known(facts, results):
    facts["start"]["earlier_data"] = [
        {"kind": "card", "name": "org/bert", "hub_id": "org/bert", "licence": "mit", "datasets": ["snli"]}
        | {"part": "text tower"},
        {"kind": "unknown", "name": "tagger", "hub_id": None, "part": "audio tower"},
    ]
    card = card_of_run(facts, results)
    assert card.data.datasets == ["snli"]
    assert (
        "[org/bert](https://huggingface.co/org/bert), from which the text tower starts: its own card names the licence "
        "mit and, of what it was trained on, snli."
    ) in card.text
    assert "`tagger`, from which the audio tower starts: what it was trained on is not known" in card.text


def test_soundscapes_behind_the_audio_tower_are_told_as_such(facts, results):
    facts["start"]["earlier_data"] = [{**facts["data"], "name": "first scenes", "part": "audio tower"}]
    assert "- Behind the audio tower: `first scenes`: scenes that a program mixed" in card_of_run(facts, results).text


def test_of_a_hundred_licences_the_first_are_named_and_the_rest_counted(facts, results):
    facts["data"] |= {**_prepared("Clotho"), "licences": {f"licence {number}": 1 for number in range(100)}}
    text = card_of_run(facts, results).text
    assert "licence 19 (1), and 80 more." in text and "licence 20" not in text


def test_a_card_that_cannot_be_written_costs_no_results(finish_with, tmp_path, capsys):
    (tmp_path / "run" / "README.md").mkdir(parents=True)  # where the card is to be written
    results = finish_with(output_dir=str(tmp_path / "run"), num_train_epochs=1, save_strategy="no")
    assert results["test_mAP@10"] >= 0
    assert json.loads((tmp_path / "run" / "all_results.json").read_text())["test_mAP@10"] == results["test_mAP@10"]
    assert (tmp_path / "run" / "model.safetensors").is_file()
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert "the model card could not be written (IsADirectoryError" in line
    assert line.endswith(f"; the model and its results are whole in {tmp_path / 'run'}")
