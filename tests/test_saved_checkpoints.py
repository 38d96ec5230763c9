"""Checkpoints that an earlier version saved load and give the numbers that they gave then, in use and in training."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForAudioClassification, AutoProcessor

CHECKPOINTS = Path(__file__).parent / "assets" / "checkpoints"
CAPTIONS = ["This is the sound of a siren.", "Rain, while a dog barks!"]
RETRIEVAL = ["retrieval", "retrieval_learnable_temperature"]


def load(name):
    """The model, its inputs as keyword arguments, and what it computed when it was saved."""
    auto_class = AutoModelForAudioClassification if name == "tagger" else AutoModel
    model, report = auto_class.from_pretrained(CHECKPOINTS / name, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    expected = load_file(CHECKPOINTS / name / "expected.safetensors")
    inputs = ("input_features", "input_features_mask", "input_ids", "attention_mask", "labels")
    inputs = {key: expected.pop(key) for key in inputs if key in expected}
    inputs["input_features"] = inputs["input_features"].float()  # kept in 16 bits
    return model, inputs | ({} if name == "tagger" else {"return_loss": True}), expected


@pytest.mark.parametrize("name", [*RETRIEVAL, "tagger"])
def test_a_checkpoint_computes_what_it_did_when_it_was_saved(name):
    model, inputs, expected = load(name)
    with torch.no_grad():
        outputs = model(**inputs)
    names = ["loss", "logits"] if name == "tagger" else ["loss", "logits_per_audio", "audio_embeds", "text_embeds"]
    for key in names:
        tolerance = 1e-6 * max(1.0, expected[key].abs().max().item())
        torch.testing.assert_close(outputs[key], expected[key], rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", RETRIEVAL)
def test_its_processor_still_makes_the_same_tokens(name):
    _, inputs, _ = load(name)
    tokens = AutoProcessor.from_pretrained(CHECKPOINTS / name)(text=CAPTIONS, return_tensors="pt")
    assert torch.equal(tokens["input_ids"], inputs["input_ids"])
    assert torch.equal(tokens["attention_mask"], inputs["attention_mask"])


@pytest.mark.parametrize("name", [*RETRIEVAL, "tagger"])
def test_it_trains_on_as_it_would_have_then(name):
    model, inputs, expected = load(name)
    loss = model.train()(**inputs).loss
    loss.backward()
    torch.testing.assert_close(loss, expected["training_loss"], rtol=1e-5, atol=0)
    buffers = dict(model.named_buffers())
    for key, value in expected.items():
        if key.endswith(("running_mean", "running_var")):
            torch.testing.assert_close(buffers[key], value, rtol=1e-6, atol=1e-6)
        elif key.startswith("gradient of "):
            gradient = model.get_parameter(key.removeprefix("gradient of ")).grad
            torch.testing.assert_close(gradient, value, rtol=1e-3, atol=1e-4 * value.abs().max().item())
