"""Every recipe of the package goes on where it was interrupted, and again when it has ended."""

import gc
import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from modeling_cnn10bert.training.recipe import read_recipe
from modeling_cnn10bert.training.trainer import KeyedTrainer

RECIPES = Path(__file__).resolve().parents[2] / "modeling_cnn10bert" / "recipes"
# One of each kind of checkpoints and loading: `test_the_other_recipes_keep_checkpoints_as_one_of_these_does`.
RETRIEVAL = ("demo", "soundscapes", "soundscapes_small", "clotho_baseline")
TAGGING = ("soundscapes_tagging", "audioset_tagging")


def _kind(name):
    """How a recipe keeps checkpoints, chooses among them and loads its data, whatever its numbers."""
    fields = read_recipe(RECIPES / f"{name}.yaml")
    kept = ("save_strategy", "save_total_limit", "load_best_model_at_end", "eval_strategy", "bf16")
    return tuple(fields.get(field) for field in (*kept, "dataloader_persistent_workers"))


def test_the_other_recipes_keep_checkpoints_as_one_of_these_does():
    names = [path.stem for path in RECIPES.glob("*.yaml")]
    assert len(names) >= 29
    tested = {_kind(name) for name in (*RETRIEVAL, *TAGGING)}
    assert [name for name in names if _kind(name) not in tested] == []


@pytest.fixture
def small(soundscapes, text_folder, fields, tmp_path):
    """Writes a recipe of ours over a few tiny scenes: six steps, and in mid of them three checkpoints."""

    def write(name):
        recipe = read_recipe(RECIPES / f"{name}.yaml")
        given = {
            **{field: fields[field] for field in ("manifests", "sources", "cache_dir", "use_cpu", "disable_tqdm")},
            "extends": str(RECIPES / f"{name}.yaml"),
            "output_dir": str(tmp_path / "run"),
            "dataset_name": None,
            **{field: fields[field] for field in ("hidden_sizes", "num_mel_bins", "hop_length")},
            "renderings": 1,
            "max_speed": 1.0,
            "total_train_batch_size": 10,
            "max_steps": 6,
            "logging_steps": 1,
            **({"save_steps": 2, "eval_steps": 2} if recipe["save_strategy"] == "steps" else {}),
            **({"dataloader_num_workers": 1} if recipe.get("dataloader_num_workers") else {}),
        }
        if name in RETRIEVAL:
            given |= {field: fields[field] for field in ("projection_hidden_size", "projection_dim")}
            given |= {"text_model_name_or_path": str(text_folder), "p_syn": 0.0}  # synonyms need WordNet
            given |= {"max_train_samples": 12, "max_eval_samples": 4, "freeze_text_layers": None}
            given |= {"total_train_batch_size": 30}  # two steps an epoch
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(given))
        return path

    return write


@pytest.mark.parametrize("name", [*RETRIEVAL, *TAGGING])
def test_it_goes_on_where_it_was_interrupted_and_once_it_has_ended_stays_as_it_is(
    name, small, train_retrieval, train_tagging, tmp_path, monkeypatch
):
    recipe, folder = str(small(name)), tmp_path / "run"
    main = (train_retrieval if name in RETRIEVAL else train_tagging).main
    train_a_step = KeyedTrainer.training_step

    def go_on(*arguments):
        gc.disable()  # as `run` does
        try:
            return main([recipe, *arguments])
        finally:
            _MultiProcessingDataLoaderIter._clean_up_persistent_workers_atexit()
            gc.enable()

    whole = go_on("--output_dir", str(tmp_path / "whole"))

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == 3:
            raise KeyboardInterrupt
        return train_a_step(self, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(KeyedTrainer, "training_step", interrupted)
        go_on()
    resumed = go_on("--resume_from_checkpoint", "true")
    assert json.loads((folder / "trainer_state.json").read_text())["global_step"] == 6
    scores = {key: value for key, value in whole.items() if "mAP" in key}
    assert scores and {key: resumed[key] for key in scores} == pytest.approx(scores, abs=1e-6)
    expected, weights = load_file(tmp_path / "whole" / "model.safetensors"), load_file(folder / "model.safetensors")
    assert all(torch.allclose(weights[key], expected[key], rtol=0, atol=1e-6) for key in expected)

    facts = folder / ("run_facts.json" if name in RETRIEVAL else "data_facts.json")
    kept = [folder / "train_results.json", folder / "trainer_state.json", folder / "model.safetensors"]
    before = [path.read_bytes() for path in kept]
    told = json.loads(facts.read_text())
    again = go_on("--resume_from_checkpoint", "true")
    assert again["train_loss"] == resumed["train_loss"] > 0 and again["train_runtime"] == resumed["train_runtime"]
    assert json.loads((folder / "all_results.json").read_text())["train_loss"] == resumed["train_loss"]
    assert [path.read_bytes() for path in kept] == before
    if name in RETRIEVAL:
        assert told["training"]["resumed_from_step"] == 2
        assert json.loads(facts.read_text())["training"] == told["training"]
        assert (folder / "README.md").is_file()
