"""Low-rank adapters: what is trained, what a run leaves, and that every command opens it."""

import json
import shutil
import sys

import numpy as np
import pytest
import soundfile
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from modeling_cnn10bert import CNN10BertModel, CNN10FeatureExtractor
from modeling_cnn10bert.errors import RecipeError, RetrievalError
from modeling_cnn10bert.retrieval.embedding import load_embedder
from modeling_cnn10bert.training.arguments import ModelArguments
from modeling_cnn10bert.training.build import load_model_and_processor
from modeling_cnn10bert.training.trainer import RetrievalTrainer

# Six recordings make one batch of 30 pairs: epochs of one step.
SMALL = {"max_train_samples": 6, "max_eval_samples": 3, "p_eda": None, "g_max": None, "p_ms": None}
STEPS = {**SMALL, "num_train_epochs": 4, "save_strategy": "epoch", "save_steps": None, "eval_strategy": "epoch"}
STEPS |= {"load_best_model_at_end": True, "lora_rank": 4}
CAPTIONS = ["a dog barks", "rain and a bird"]


@pytest.fixture(scope="module")
def base(run, tmp_path_factory):
    """The folder of a model whose batch normalization has seen some batches."""
    folder = tmp_path_factory.mktemp("base") / "run"
    run(folder, **SMALL, num_train_epochs=20, save_strategy="no", do_eval=False, do_predict=False)
    return folder


@pytest.fixture(scope="module")
def adapted(run, base, tmp_path_factory):
    """The folder of a run with low-rank matrices in the text network."""
    folder = tmp_path_factory.mktemp("adapted") / "run"
    run(folder, **STEPS, model_name_or_path=str(base))
    return folder


@pytest.fixture
def waveforms(noise):
    return [noise(32_000), noise(50_000, seed=1)]


def _changed(folder, base):
    """Names of the weights and buffers that differ between two models."""
    weights, others = (load_file(path / "model.safetensors") for path in (folder, base))
    assert weights.keys() == others.keys()
    return {name for name in weights if not torch.equal(weights[name], others[name])}


def _losses(folder):
    log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in log if "loss" in entry]


def _assert_same_embeddings(embedder, other, waveforms):
    np.testing.assert_allclose(embedder.embed_audio(waveforms), other.embed_audio(waveforms), atol=1e-6)
    np.testing.assert_allclose(embedder.embed_text(CAPTIONS), other.embed_text(CAPTIONS), atol=1e-6)


# ---------------------------------------------------------------------------------------------------- what is trained


def test_a_run_trains_the_attention_of_the_text_network_and_the_heads(adapted, base):
    attention = {f"text_model.encoder.layer.0.attention.self.{name}.weight" for name in ("query", "value")}
    heads = {
        f"{tower}_projection.{layer}.{kind}"
        for tower in ("audio", "text")
        for layer in ("dense", "out")
        for kind in ("weight", "bias")
    }
    assert _changed(adapted, base) == attention | heads
    assert _losses(adapted)[-1] < _losses(adapted)[0]


def test_low_rank_matrices_in_the_audio_network_leave_batch_normalization_as_it_is(run, base, tmp_path, waveforms):
    run(tmp_path / "run", **STEPS, model_name_or_path=str(base), lora_audio=True)
    changed = _changed(tmp_path / "run", base)
    convolutions = {f"audio_model.blocks.{block}.conv{number}.weight" for block in range(4) for number in (1, 2)}
    assert {name for name in changed if name.startswith("audio_model.")} == convolutions
    assert _losses(tmp_path / "run")[-1] < _losses(tmp_path / "run")[0]
    embedder, merged = load_embedder(tmp_path / "run" / "adapter"), load_embedder(tmp_path / "run")
    _assert_same_embeddings(embedder, merged, waveforms)
    embedder.model = PeftModel.from_pretrained(CNN10BertModel.from_pretrained(base), tmp_path / "run" / "adapter")
    _assert_same_embeddings(embedder, merged, waveforms)


def test_the_adapter_holds_only_what_is_trained(adapted):
    adapter = load_file(adapted / "adapter" / "adapter_model.safetensors")
    shapes = {name.removeprefix("base_model.model."): tuple(tensor.shape) for name, tensor in adapter.items()}
    matrices = {name: shape for name, shape in shapes.items() if "lora_" in name}
    layer = "text_model.encoder.layer.0.attention.self"
    assert matrices == {
        f"{layer}.{name}.lora_{part}.weight": shape
        for name in ("query", "value")
        for part, shape in (("A", (4, 32)), ("B", (32, 4)))
    }
    assert {name.split(".")[0] for name in shapes.keys() - matrices.keys()} == {"audio_projection", "text_projection"}


def test_chunks_and_checkpointing_work_with_low_rank_matrices(run, base, tmp_path):
    memory = {"contrastive_cache_chunk": 10, "gradient_checkpointing": True}
    run(tmp_path / "run", **STEPS | {"num_train_epochs": 2}, **memory, model_name_or_path=str(base))
    assert any("query" in name for name in _changed(tmp_path / "run", base))


# --------------------------------------------------------------------------------------------------- what a run leaves


def test_the_run_is_the_base_with_its_adapter(adapted, base, waveforms):
    assert not json.loads((adapted / "config.json").read_text()).keys() & {"peft_config"}
    merged = PeftModel.from_pretrained(CNN10BertModel.from_pretrained(base), adapted / "adapter").merge_and_unload()
    saved = load_file(adapted / "model.safetensors")
    for name, tensor in merged.state_dict().items():
        torch.testing.assert_close(tensor, saved[name], rtol=0, atol=1e-6, msg=lambda m, n=name: n + m)
    _assert_same_embeddings(load_embedder(adapted / "adapter"), load_embedder(adapted), waveforms)


def test_the_card_tells_the_rank_and_how_much_was_trained(adapted):
    facts = json.loads((adapted / "run_facts.json").read_text())
    assert facts["fields"]["lora_rank"] == 4
    weights = load_file(adapted / "model.safetensors")
    trained = [
        t.numel()
        for name, t in weights.items()
        if "text_proj" in name or name.endswith(("query.weight", "value.weight"))
    ]
    assert facts["model"]["text"]["trained"] == sum(trained) < facts["model"]["text"]["parameters"]


def test_two_towers_are_saved_as_the_base_which_moves_with_the_run(run, base, tmp_path, waveforms):
    whole = CNN10BertModel.from_pretrained(base)
    whole.audio_model.save_pretrained(tmp_path / "audio")
    CNN10FeatureExtractor.from_pretrained(base).save_pretrained(tmp_path / "audio")
    run(tmp_path / "run", **STEPS, audio_model_name_or_path=str(tmp_path / "audio"))
    (tmp_path / "run").rename(tmp_path / "moved")
    embedder = load_embedder(tmp_path / "moved" / "adapter")
    _assert_same_embeddings(embedder, load_embedder(tmp_path / "moved"), waveforms)
    for part in ("audio_model", "text_model.embeddings"):
        found, expected = (load_file(path / "model.safetensors") for path in (tmp_path / "moved" / "base", base))
        assert part == "text_model.embeddings" or all(
            torch.equal(found[name], expected[name]) for name in found if name.startswith(part)
        )


# ----------------------------------------------------------------------------------------------------------- resuming


def test_an_interrupted_run_ends_with_the_same_weights(run, base, tmp_path, monkeypatch):
    evaluation_loop = RetrievalTrainer.evaluation_loop

    def given(self, *args, **kwargs):
        output = evaluation_loop(self, *args, **kwargs)
        output.metrics["eval_mAP@10"] = [0.1, 0.3, 0.9, 0.2][self.state.global_step - 1]  # the third is the best
        return output

    monkeypatch.setattr(RetrievalTrainer, "evaluation_loop", given)
    whole = tmp_path / "whole"
    fields = {**STEPS, "model_name_or_path": str(base), "do_eval": False, "do_predict": False}
    run(whole, **fields)
    best, adapter = (load_file(whole / part / "adapter_model.safetensors") for part in ("checkpoint-3", "adapter"))
    assert all(torch.equal(adapter[name], best[name]) for name in best)
    for step in (2, 4):
        folder = tmp_path / f"interrupted-{step}"
        for before in range(1, step + 1):
            shutil.copytree(whole / f"checkpoint-{before}", folder / f"checkpoint-{before}")
        run(folder, "--resume_from_checkpoint", "true", **fields)
        assert json.loads((folder / "trainer_state.json").read_text())["best_global_step"] == 3
        assert _changed(folder, whole) == set()


# ---------------------------------------------------------------------------------------------------------- opening it


def test_an_adapter_is_another_model_than_its_base(adapted, base, waveforms):
    of_base, of_run, of_adapter = (load_embedder(path) for path in (base, adapted, adapted / "adapter"))
    of_checkpoint = load_embedder(adapted / "checkpoint-4")
    fingerprints = [embedder.identity.fingerprint for embedder in (of_base, of_run, of_adapter)]
    assert len(set(fingerprints)) == 3
    assert of_adapter.identity.features == of_base.identity.features
    assert of_checkpoint.identity.dimension == 16
    assert np.abs(of_adapter.embed_text(CAPTIONS) - of_base.embed_text(CAPTIONS)).max() > 1e-3


def test_the_scaling_of_the_matrices_is_part_of_the_fingerprint(adapted, tmp_path):
    shutil.copytree(adapted / "adapter", tmp_path / "adapter")
    edit = tmp_path / "adapter" / "adapter_config.json"
    edit.write_text(edit.read_text().replace('"lora_alpha": 8', '"lora_alpha": 9'))
    one, other = (load_embedder(path).identity.fingerprint for path in (adapted / "adapter", tmp_path / "adapter"))
    assert one != other


def test_commands_take_an_adapter_for_a_model(adapted, cnn10bert, soundscapes, noise, tmp_path):
    (tmp_path / "sounds").mkdir()
    soundfile.write(tmp_path / "sounds" / "noise.wav", noise(32_000), 32_000)
    model, index = adapted / "adapter", tmp_path / "index"
    cnn10bert("index", tmp_path / "sounds", "--index", index, "--model", model)
    assert "noise.wav" in cnn10bert("search", "rain", "--index", index, "--model", model).stdout
    refused = cnn10bert("search", "rain", "--index", index, "--model", adapted, code=1)
    assert "fingerprint" in refused.stderr
    sources = ("--sources", soundscapes / "sources", "--bootstrap-resamples", 10)
    for name in ("adapter", "."):
        cnn10bert("evaluate", adapted / name, soundscapes, *sources, "--out", tmp_path / f"scores-{name}")
    scores = [
        json.loads((tmp_path / f"scores-{name}" / "results.json").read_text())["metrics"] for name in ("adapter", ".")
    ]
    assert scores[0] == pytest.approx(scores[1], abs=0.01)


def test_training_continues_from_an_adapter(run, adapted, tmp_path):
    folder = tmp_path / "run"
    run(folder, **SMALL, max_steps=1, save_strategy="no", model_name_or_path=str(adapted / "adapter"), lora_rank=2)
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(folder / "base")
    assert _changed(folder / "base", adapted) == set()


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lora_audio": True}, "lora_audio needs a rank"),
        ({"lora_rank": 0}, "lora_rank must be at least 1"),
        ({"lora_rank": 4}, "random weights, which would stay frozen"),
        ({"lora_rank": 4, "freeze_text_tower": True}, "freeze_text_tower must be left out"),
        ({"lora_rank": 4, "lora_audio": True, "freeze_audio_tower": True}, "freeze_audio_tower must be left out"),
        ({"lora_rank": 4, "learnable_temperature": True}, "learnable_temperature must be left out"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ModelArguments(**fields)


def test_freezing_all_layers_leaves_no_place_for_low_rank_matrices(base):
    with pytest.raises(RecipeError, match="freeze_text_layers is 1, which are all layers"):
        load_model_and_processor(ModelArguments(model_name_or_path=str(base), lora_rank=4, freeze_text_layers=1))


def test_without_peft_the_message_names_the_extra(run, adapted, base, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.delitem(sys.modules, "modeling_cnn10bert.integrations.lora", raising=False)
    with pytest.raises(RecipeError, match=r"lora_rank is 4, but peft is not installed.*cnn10bert\[lora\]"):
        run(tmp_path / "run", **STEPS, model_name_or_path=str(base))
    with pytest.raises(RetrievalError, match=r"adapter is an adapter, which needs peft.*cnn10bert\[lora\]"):
        load_embedder(adapted / "adapter")


def _edit_config(adapter, field, value):
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {field: value}))


def _drop(adapter, part):
    weights = load_file(adapter / "adapter_model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if part not in name}
    save_file(kept, adapter / "adapter_model.safetensors")


FAULTS = {
    "no base": (
        lambda adapter: _edit_config(adapter, "base_model_name_or_path", None),
        "expected the folder or Hub id",
    ),
    "a base that is gone": (
        lambda adapter: _edit_config(adapter, "base_model_name_or_path", "/gone/model"),
        "/gone/model",
    ),
    "an adapter as its base": (
        lambda adapter: _edit_config(adapter, "base_model_name_or_path", str(adapter)),
        "an adapter, expected an ordinary model",
    ),
    "half a file": (
        lambda adapter: (adapter / "adapter_model.safetensors").write_bytes(b"half"),
        "adapter_model.safetensors: found a damaged file",
    ),
    "no weights": (
        lambda adapter: (adapter / "adapter_model.safetensors").unlink(),
        "adapter_model.safetensors: found",
    ),
    "another rank": (lambda adapter: _edit_config(adapter, "r", 3), "an adapter that does not fit its base"),
    "a layer of a head that is missing": (lambda adapter: _drop(adapter, "text_projection.out"), "text_projection.out"),
    "matrices that are missing": (lambda adapter: _drop(adapter, "lora_B"), "Found missing adapter keys"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_adapter_is_one_error_that_names_the_file(fault, adapted, tmp_path):
    shutil.copytree(adapted / "adapter", tmp_path / "adapter")
    change, message = FAULTS[fault]
    change(tmp_path / "adapter")
    with pytest.raises(RetrievalError, match=message) as error:
        load_embedder(tmp_path / "adapter")
    assert "\n" not in str(error.value) and str(tmp_path / "adapter") in str(error.value)
