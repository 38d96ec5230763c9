"""Low-rank adapters: what is trained, what a run leaves, and that every command opens it."""

import json
import shutil

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from modeling_cnn10bert import CNN10BertModel
from modeling_cnn10bert.errors import RecipeError, RetrievalError
from modeling_cnn10bert.retrieval.embedding import load_embedder
from modeling_cnn10bert.training.arguments import ModelArguments
from modeling_cnn10bert.training.build import load_model_and_processor

# Six recordings make one batch of 30 pairs: four epochs of one step, each evaluated.
STEPS = {"max_train_samples": 6, "max_eval_samples": 3, "num_train_epochs": 4, "learning_rate": 1e-2}
STEPS |= {"save_strategy": "epoch", "save_steps": None, "eval_strategy": "epoch", "load_best_model_at_end": True}


@pytest.fixture(scope="module")
def base(run, tmp_path_factory):
    """The folder of a model after one step."""
    folder = tmp_path_factory.mktemp("base") / "run"
    run(folder, max_steps=1, max_train_samples=6, max_eval_samples=3, save_strategy="no", do_eval=False)
    return folder


@pytest.fixture(scope="module")
def adapted(run, base, tmp_path_factory):
    """The folder of a run with low-rank matrices in the text network."""
    folder = tmp_path_factory.mktemp("adapted") / "run"
    run(folder, **STEPS, model_name_or_path=str(base), lora_rank=4)
    return folder


def test_dev(base, adapted):
    import subprocess
    print(subprocess.run(["find", str(adapted), "-type", "f"], capture_output=True, text=True).stdout)
    print((adapted / "adapter" / "adapter_config.json").read_text())
    for key, value in load_file(adapted / "adapter" / "adapter_model.safetensors").items():
        print(key, tuple(value.shape))
    print((adapted / "all_results.json").read_text())
    print((adapted / "README.md").read_text())
    print((adapted / "adapter" / "README.md").read_text())
