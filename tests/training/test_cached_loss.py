"""Batches in chunks by cached gradients: what the weights get is what the whole batch would have given them."""

import contextlib
import copy

import pytest
import torch

from modeling_cnn10bert import contrastive_loss
from modeling_cnn10bert.training.build import build_trainer
from modeling_cnn10bert.training.cached_loss import backward_in_chunks
from modeling_cnn10bert.training.recipe import parse_recipe

AUDIO = {"num_mel_bins": 16}
AUDIO_IDS, TEXT_IDS = torch.tensor([3, 1, 4, 5, 9, 2]), torch.tensor([3, 3, 1, 1, 4, 4, 5, 5, 9, 9, 2, 2])


def _inputs():
    """Six recordings of several lengths, and two captions of each."""
    draws = torch.Generator().manual_seed(1)
    mask = (torch.arange(48) < torch.tensor([48, 40, 33, 48, 20, 31])[:, None]).int()
    return {
        "input_features": (-40 + 15 * torch.randn(6, 48, 16, generator=draws)) * mask[:, :, None],
        "input_features_mask": mask,
        "input_ids": torch.randint(5, 50, (12, 9), generator=draws),
        "attention_mask": (torch.arange(9) < torch.randint(3, 10, (12, 1), generator=draws)).int(),
    }


def _loss_of(model):
    def loss_of(audio, text):
        return contrastive_loss(model.similarity(audio, text), AUDIO_IDS, TEXT_IDS)

    return loss_of


def _in_chunks(model, num_chunks, inputs):
    learned = [model.logit_scale] if model.config.learnable_temperature else []
    loss = backward_in_chunks(
        model,
        inputs,
        num_chunks,
        _loss_of(model),
        other_weights=learned,
        backward=torch.Tensor.backward,
        no_sync=contextlib.nullcontext,
    )
    return loss, {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("learnable_temperature", [False, True])
@pytest.mark.parametrize("num_chunks", [1, 2, 4, 6])
def test_the_gradients_are_those_of_the_whole_batch(num_chunks, learnable_temperature, tiny_model):
    model = tiny_model(audio=AUDIO, learnable_temperature=learnable_temperature).double()
    whole = copy.deepcopy(model)
    outputs = whole(**_inputs())
    expected = _loss_of(whole)(outputs.audio_embeds, outputs.text_embeds)
    expected.backward()
    loss, gradients = _in_chunks(model, num_chunks, _inputs())
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=0)
    assert gradients.keys() == {name for name, weight in whole.named_parameters() if weight.grad is not None}
    assert ("logit_scale" in gradients) == learnable_temperature
    for name, weight in whole.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(gradients[name], weight.grad, rtol=1e-8, atol=1e-12, msg=name)


def test_dropout_and_statistics_are_those_of_chunks_that_were_each_computed_once(tiny_model):
    dropout = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3}
    model = tiny_model(audio={**AUDIO, "block_dropout": 0.3}, text=dropout).double().train()
    once, inputs = copy.deepcopy(model), _inputs()
    parts = zip(*(value.tensor_split(3) for value in inputs.values()), strict=True)
    torch.manual_seed(7)
    outputs = [once(**dict(zip(inputs, part, strict=True))) for part in parts]
    expected_draw = torch.rand(1)
    audio, text = (torch.cat([output[name] for output in outputs]) for name in ("audio_embeds", "text_embeds"))
    _loss_of(once)(audio, text).backward()

    torch.manual_seed(7)
    _, gradients = _in_chunks(model, 3, inputs)
    assert torch.equal(torch.rand(1), expected_draw)  # computing a chunk again takes no draws from what comes later
    for name, weight in once.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(gradients[name], weight.grad, rtol=1e-8, atol=1e-12, msg=name)
    for (name, buffer), expected in zip(model.named_buffers(), once.buffers(), strict=True):
        torch.testing.assert_close(buffer, expected, rtol=0, atol=0, msg=name)


def test_only_the_last_chunk_joins_the_gradients_of_processes(tiny_model):
    events = []

    @contextlib.contextmanager
    def no_sync():
        events.append("apart")
        yield
        events.append("end")

    model = tiny_model(audio=AUDIO)
    backward_in_chunks(
        model,
        _inputs(),
        3,
        _loss_of(model),
        other_weights=[],
        backward=lambda share: events.append("backward"),
        no_sync=no_sync,
    )
    assert events == ["apart", "backward", "end", "apart", "backward", "end", "backward"]


@pytest.fixture
def trainer(write_recipe, tmp_path):
    """Makes a trainer of the tiny recipe without dropout, whose audio tower, statistics included, stays as it is."""

    def make(**given):
        options = {"freeze_audio_tower": True, "freeze_text_tower": True, "save_strategy": "no", **given}
        recipe = write_recipe(tmp_path / "recipe.yaml", output_dir=str(tmp_path / "run"), **options)
        return build_trainer(*parse_recipe([str(recipe)]))[0]

    return make


@pytest.mark.parametrize(
    "given",
    [{}, {"gradient_accumulation_steps": 2}, {"captions_per_recording": 2, "equal_captions_are_positives": True}],
)
def test_a_training_in_chunks_takes_the_steps_of_one_without(given, trainer):
    runs = []
    for chunk in (None, 7):
        made = trainer(max_steps=2, contrastive_cache_chunk=chunk, **given)
        rows, forward = [], type(made.model).forward

        def counting(self, *args, rows=rows, forward=forward, **inputs):
            rows.append(len(inputs["input_ids"]))
            return forward(self, *args, **inputs)

        made.model.forward = counting.__get__(made.model)
        made.train()
        runs.append((rows, made.state.log_history, dict(made.model.named_parameters())))
    (whole, history, weights), (chunked, chunked_history, chunked_weights) = runs
    assert set(whole) == {30} and set(chunked) <= {5, 6} | {7, 8} and len(chunked) == 2 * 5 * len(whole)
    for entry, expected in zip(chunked_history[:2], history[:2], strict=True):
        assert entry["loss"] == pytest.approx(expected["loss"], rel=1e-4)
        assert entry["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-3)
    for name, weight in weights.items():
        torch.testing.assert_close(chunked_weights[name], weight, rtol=1e-3, atol=1e-4, msg=name)


def test_the_whole_recipe_trains_in_chunks(run, tmp_path):
    results = run(tmp_path / "run", contrastive_cache_chunk=8, max_steps=2, save_strategy="no")
    assert results["test_num_recordings"] == 24
