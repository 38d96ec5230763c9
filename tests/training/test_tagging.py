"""train_tagging.py: what it optimises, leaves behind and starts from, and what train_retrieval.py takes of it."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification
from transformers.trainer_utils import EvalLoopOutput

from modeling_cnn10bert import CNN10BertModel
from modeling_cnn10bert.errors import RecipeError
from modeling_cnn10bert.training.arguments import TAGGING_ARGUMENT_CLASSES
from modeling_cnn10bert.training.recipe import parse_recipe
from modeling_cnn10bert.training.tagging import TaggingTrainer, build_tagging_trainer


@pytest.fixture(scope="module")
def main(train_tagging):
    return train_tagging.main


@pytest.fixture(scope="module")
def tagging_recipe(soundscapes, fields):
    """Writes a recipe of a tiny tagger: 40 clips, 4 steps an epoch; returns its path."""

    def write(folder, **given):
        known = {name for cls in TAGGING_ARGUMENT_CLASSES for name in cls.__dataclass_fields__}
        recipe = {
            **{name: value for name, value in fields.items() if name in known},
            "output_dir": str(folder),
            "block_dropout": 0.2,
            "total_train_batch_size": 10,
            "max_steps": 8,
            "save_steps": 3,
            **given,
        }
        path = Path(f"{folder}.yaml")
        path.write_text(yaml.safe_dump({name: value for name, value in recipe.items() if value is not None}))
        return str(path)

    return write


@pytest.fixture(scope="module")
def tagger(main, tagging_recipe, tmp_path_factory):
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("tagger") / "run"
    main([tagging_recipe(folder)])
    return folder


def test_a_run_leaves_a_tagger_its_scores_and_its_curve(tagger):
    results = json.loads((tagger / "all_results.json").read_text())
    assert {"train_loss", "eval_mAP", "eval_mAUC", "eval_loss", "test_mAP", "test_mAUC"} <= results.keys()
    assert (tagger / "curve.png").read_bytes().startswith(b"\x89PNG")
    model = AutoModelForAudioClassification.from_pretrained(tagger)
    assert model.config.problem_type == "multi_label_classification"
    assert {"dog", "rain", "siren"} <= set(model.config.label2id)  # kinds of the built-in synthesizers
    assert AutoFeatureExtractor.from_pretrained(tagger).feature_size == 16
    with (tagger / "test_classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["class"] for row in rows} == set(model.config.label2id)
    scores = [float(row["average_precision"]) for row in rows if row["average_precision"] != "nan"]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) / len(scores) == pytest.approx(results["test_mAP"], abs=1e-4)


def test_a_tagger_says_what_it_was_trained_on_and_a_card_of_what_starts_from_it_too(tagger, run, tmp_path):
    [facts] = json.loads((tagger / "data_facts.json").read_text())
    assert (facts["kind"], facts["synthetic"], facts["splits"]["train"]) == ("soundscapes", True, {"recordings": 40})
    folder = tmp_path / "retriever"
    run(folder, audio_model_name_or_path=str(tagger), max_steps=1, save_strategy="no", do_predict=False)
    start = json.loads((folder / "run_facts.json").read_text())["start"]
    assert [entry["part"] for entry in start["earlier_data"]] == ["text tower", "audio tower"]
    assert start["earlier_data"][1] == {**facts, "part": "audio tower"}
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"Behind the audio tower: `{facts['name']}`: scenes that a program mixed" in card


def test_the_defaults_are_those_of_panns():
    tagger_args, data_args, training_args = parse_recipe(
        ["--output_dir", "x", "--dataset_name", "y"], argument_classes=TAGGING_ARGUMENT_CLASSES
    )
    assert (tagger_args.block_dropout, tagger_args.head_dropout, tagger_args.time_pooling) == (0.2, 0.5, "sum")
    assert (data_args.mixup_alpha, data_args.class_balanced) == (1.0, True)
    assert (training_args.learning_rate, training_args.total_train_batch_size) == (1e-3, 32)
    assert (training_args.max_steps, training_args.learning_rate_schedule) == (600_000, "constant")
    optimizer, options = TaggingTrainer.get_optimizer_cls_and_kwargs(training_args)
    assert issubclass(optimizer, torch.optim.AdamW) and options["amsgrad"] is True
    assert training_args.weight_decay == 0.0 and training_args.max_grad_norm == 0.0  # then AdamW is Adam


def test_the_loss_is_binary_cross_entropy_with_the_mixed_targets(tagging_recipe, tmp_path):
    trainer, tables = build_tagging_trainer(
        *parse_recipe([tagging_recipe(tmp_path / "run")], argument_classes=TAGGING_ARGUMENT_CLASSES)
    )
    batch = next(iter(trainer.get_train_dataloader()))
    assert ((batch["labels"] > 0) & (batch["labels"] < 1)).any()  # mixed
    assert batch["labels"].shape == (10, len(tables.classes))
    model = trainer.model.eval()
    logits = model(**batch).logits.detach().double()
    y = batch["labels"].double()
    by_hand = -(y * torch.log(torch.sigmoid(logits)) + (1 - y) * torch.log(1 - torch.sigmoid(logits))).mean()
    assert float(trainer.compute_loss(model, batch).detach()) == pytest.approx(float(by_hand), rel=1e-5)


def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(main, tagging_recipe, tagger, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(tagger / "checkpoint-3", folder / "checkpoint-3")
    main([tagging_recipe(folder), "--resume_from_checkpoint", "true"])
    weights, expected = load_file(folder / "model.safetensors"), load_file(tagger / "model.safetensors")
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    results, others = (json.loads((path / "all_results.json").read_text()) for path in (folder, tagger))
    assert results["test_mAP"] == others["test_mAP"]


def test_a_run_whose_loss_no_longer_falls_ends_alike_also_when_resumed(tagging_recipe, tmp_path, monkeypatch):
    losses = [0.5, 0.4, 0.4 - 1e-12, 0.45, 0.1, 0.1]

    def evaluation_loop(self, *args, **kwargs):
        return EvalLoopOutput(None, None, {"eval_loss": losses[self.state.global_step - 1]}, num_samples=1)

    monkeypatch.setattr(TaggingTrainer, "evaluation_loop", evaluation_loop)
    steps = {"max_steps": 6, "eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "load_best_model_at_end": True}
    recipe = tagging_recipe(tmp_path / "run", **steps, metric_for_best_model="loss", early_stopping_patience=2)
    for step in (None, 1, 3, 4):
        checkpoint = step and str(tmp_path / "run" / f"checkpoint-{step}")
        trainer, _ = build_tagging_trainer(*parse_recipe([recipe], argument_classes=TAGGING_ARGUMENT_CLASSES))
        trainer.train_and_save(checkpoint)
        state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
        assert (state["global_step"], state["best_global_step"], state["best_metric"]) == (4, 2, 0.4), step


def test_a_folder_of_another_run_is_left_as_it_is(main, tagging_recipe, tagger):
    before = {path: path.stat().st_mtime_ns for path in tagger.iterdir() if path.name != ".lock"}
    with pytest.raises(RecipeError, match="holds another run"):
        main([tagging_recipe(tagger)])
    assert {path: path.stat().st_mtime_ns for path in tagger.iterdir() if path.name != ".lock"} == before


def test_retrieval_starts_from_the_convolutions_of_a_tagger_in_the_network_of_table_2(tagger, run, tmp_path):
    run(tmp_path / "run", audio_model_name_or_path=str(tagger), learning_rate=0.0, max_steps=2, num_train_epochs=None)
    model = CNN10BertModel.from_pretrained(tmp_path / "run")
    assert model.config.audio_config.time_pooling == "average"  # the tagger's is "sum"
    assert model.config.audio_config.block_dropout == 0.1  # the recipe's; the tagger's is 0.2
    tower = AutoModelForAudioClassification.from_pretrained(tagger).cnn10
    for name, expected in tower.named_parameters():  # the input normalisation is one of them
        assert torch.equal(model.audio_model.get_parameter(name), expected), name


def test_another_tagger_continues_on_the_same_classes_only(main, tagging_recipe, tagger, soundscapes, tmp_path):
    main([tagging_recipe(tmp_path / "on", model_name_or_path=str(tagger), max_steps=1)])
    other = shutil.copytree(soundscapes, tmp_path / "set")
    for split in ("train", "validation", "test"):
        scenes = [json.loads(line) for line in (other / f"{split}.jsonl").read_text().splitlines()]
        for scene in scenes:
            scene["labels"] = ["sound"]
        (other / f"{split}.jsonl").write_text("\n".join(map(json.dumps, scenes)))
    data = {"manifests": str(other), "sources": str(other / "sources"), "cache_dir": str(tmp_path / "cache")}
    with pytest.raises(RecipeError, match=r"knows \d+ classes .* the data has 1 \(sound"):
        main([tagging_recipe(tmp_path / "off", model_name_or_path=str(tagger), **data)])


ERRORS = {
    "no data": ({"manifests": None, "sources": None}, "dataset_name"),
    "half of the soundscapes": ({"sources": None}, "field sources is not set"),
    "two kinds of data": ({"dataset_name": "x"}, "either dataset_name"),
    "waveforms that are not there": ({"mixup_domain": "waveform"}, "mixup_domain is waveform"),
    "a negative alpha": ({"mixup_alpha": -1.0}, "mixup_alpha .* -1.0"),
    "batches by length": ({"train_sampling_strategy": "group_by_length"}, "train_sampling_strategy"),
    "a tagger that is not there": ({"model_name_or_path": "./nowhere"}, "model_name_or_path './nowhere'"),
    "AudioSet without its classes": ({"manifests": None, "sources": None, "dataset_name": "x"}, "field labels"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_does_not_fit_is_one_error_that_names_it(case, main, tagging_recipe, tmp_path):
    given, message = ERRORS[case]
    with pytest.raises(RecipeError, match=message):
        main([tagging_recipe(tmp_path / "run", **given)])
