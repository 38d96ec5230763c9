"""Questions are embedded without the whole model, and as the whole model embeds them."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from modeling_cnn10bert.retrieval.checkpoint_embedding import FEW_TEXTS, CheckpointEmbedder
from modeling_cnn10bert.retrieval.embedding import load_embedder
from modeling_cnn10bert.retrieval.records import RetrievalError
from modeling_cnn10bert.retrieval.torch_embedding import TorchEmbedder

TEXTS = ["a dog barks", "Rain; while the SIREN wails!", "this is the sound of water " * 9, "x"]


@pytest.fixture
def saved(tmp_path, tiny_model, processor):
    """Saves a toy model with its processor; keywords are fields of its configuration."""

    def make(name="model", dtype=torch.float32, **fields):
        text = {"vocab_size": len(processor.tokenizer), **fields.pop("text", {})}
        tiny_model(text=text, **fields).to(dtype).save_pretrained(tmp_path / name)
        processor.save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    return make


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_text_has_the_embedding_that_the_model_gives_it(saved, pooling):
    folder = saved(text_pooling=pooling)
    quick, whole = load_embedder(folder), TorchEmbedder.from_pretrained(folder)
    assert isinstance(quick, CheckpointEmbedder)
    np.testing.assert_allclose(quick.embed_text(TEXTS), whole.embed_text(TEXTS), atol=1e-6)
    assert quick._whole is None


def test_its_identity_is_that_of_the_model(saved):
    folder = saved()
    assert load_embedder(folder).identity == TorchEmbedder.from_pretrained(folder).identity


def test_recordings_and_many_texts_are_embedded_by_the_whole_model(saved, noise):
    folder = saved()
    quick, whole = load_embedder(folder), TorchEmbedder.from_pretrained(folder)
    many = TEXTS * FEW_TEXTS
    np.testing.assert_array_equal(quick.embed_text(many), whole.embed_text(many))
    np.testing.assert_array_equal(quick.embed_audio([noise(40_000)]), whole.embed_audio([noise(40_000)]))


def test_both_know_which_texts_are_cut(saved):
    folder = saved()
    embedders = load_embedder(folder), TorchEmbedder.from_pretrained(folder)
    assert [[embedder.is_cut(text) for text in TEXTS] for embedder in embedders] == [[False, False, True, False]] * 2


@pytest.mark.parametrize("text", ["", "?!"])
def test_a_text_without_a_word_is_refused(saved, text):
    with pytest.raises(RetrievalError, match="holds no word"):
        load_embedder(saved()).embed_text(["a dog barks", text])


def test_no_texts_have_no_embeddings(saved):
    assert load_embedder(saved()).embed_text([]).shape == (0, 12)


def test_what_numpy_cannot_run_is_left_to_the_whole_model(saved, tmp_path):
    for name, fields in (("half", {"dtype": torch.bfloat16}), ("other", {"text": {"hidden_act": "relu"}})):
        assert isinstance(load_embedder(saved(name, **fields)), TorchEmbedder)
    assert isinstance(load_embedder(saved("named device"), device="cpu"), TorchEmbedder)
    assert not CheckpointEmbedder.reads(str(tmp_path / "nowhere"))


def _run(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True).stdout


def test_the_command_embeds_a_text_without_torch_and_transformers(saved):
    code = """
import sys
import modeling_cnn10bert.cli
from modeling_cnn10bert.retrieval.embedding import load_embedder
print(load_embedder(sys.argv[1]).embed_text(["a dog barks"]).shape, {"torch", "transformers"} & set(sys.modules))
"""
    assert _run(code, saved()) == "(1, 12) set()\n"
