"""Each way to train faster, or in less memory, takes the same steps and leaves a model that loads and scores."""

import json

import pytest
import torch
from safetensors.torch import load_file

from modeling_cnn10bert import CNN10BertModel

# Fields, and how far the losses of two steps may lie from those of the plain way; `None`: its batches are others.
PATHS = {
    "bfloat16": ({"bf16": True}, 3e-2),
    # Adam's first step follows the sign of a gradient, even of one that is only rounding.
    "compiled": ({"torch_compile": True, "torch_compile_backend": "aot_eager"}, 1e-3),
    "compiled, in bfloat16": ({"torch_compile": True, "torch_compile_backend": "aot_eager", "bf16": True}, 3e-2),
    "gradient checkpointing": ({"gradient_checkpointing": True}, 1e-5),
    "workers that stay": ({"dataloader_num_workers": 1, "dataloader_persistent_workers": True}, 1e-6),
    "grouped by length": ({"train_sampling_strategy": "group_by_length"}, None),
    "captions that share a pass": ({"captions_per_recording": 5}, None),
    "cached gradients": ({"contrastive_cache_chunk": 10}, None),
    "all together": (
        {
            "bf16": True,
            "gradient_checkpointing": True,
            "train_sampling_strategy": "group_by_length",
            "captions_per_recording": 2,
            "contrastive_cache_chunk": 10,
        },
        None,
    ),
}
# Nothing is dropped, as a compiled network draws in another order.
FIELDS = {"block_dropout": 0.0, "freeze_text_tower": True, "max_steps": 2, "save_strategy": "no"}


def _losses(folder):
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


@pytest.fixture(scope="module")
def plain(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "run"
    return run(folder, **FIELDS), _losses(folder)


@pytest.mark.parametrize("path", PATHS)
def test_it_takes_the_same_steps(path, plain, run, tmp_path):
    fields, tolerance = PATHS[path]
    results = run(tmp_path / "run", **{**FIELDS, **fields})
    losses = _losses(tmp_path / "run")
    assert len(losses) == len(plain[1]) == 2
    if tolerance is not None:
        assert losses == pytest.approx(plain[1], rel=tolerance)
    assert results["test_num_recordings"] == 24
    weights = load_file(tmp_path / "run" / "model.safetensors")
    assert all(weight.dtype == torch.float32 for name, weight in weights.items() if "num_batches" not in name)
    assert not any("_orig_mod" in name for name in weights)
    loaded, report = CNN10BertModel.from_pretrained(tmp_path / "run", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert all(torch.isfinite(weight).all() for weight in loaded.parameters())
