"""What is faster on a CPU equals the plain functions of the model, in values and in gradients."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modeling_cnn10bert import CNN10Config, CNN10Model
from modeling_cnn10bert.cpu_kernels_cnn10bert import (
    block_masks_on_cpu,
    conv3x3_in_tiles,
    conv_norm_relu_on_cpu,
    encode_captions_on_cpu,
    masked_batch_norm_on_cpu,
)
from modeling_cnn10bert.modeling_cnn10bert import CNN10BatchNorm, conv_norm_relu, masked_batch_norm

LAYOUTS = [torch.contiguous_format, torch.channels_last]
LENGTHS = [13, 5, 9]  # in frames


def frames_mask(lengths=LENGTHS):
    return (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])[:, None, :, None]


def both_ways(cpu_kernels, function):
    """What a function returns with the kernels, and without them."""
    results = []
    for enabled in (True, False):
        cpu_kernels(enabled)
        results.append(function())
    return results


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("lengths", [LENGTHS, [13, 13, 13], None], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_batch_normalization_has_the_same_values_and_gradients(cpu_kernels, layout, lengths, dtype):
    torch.manual_seed(0)
    mask = None if lengths is None else frames_mask(lengths)
    values = (5 + 2 * torch.randn(3, 6, 13, 4, dtype=dtype)).to(memory_format=layout)
    weight, bias = torch.rand(6).to(dtype) + 0.5, torch.randn(6).to(dtype)
    outer = torch.randn(values.shape, dtype=dtype)

    def run():
        inputs = [tensor.clone().requires_grad_() for tensor in (values, weight, bias)]
        output, mean, variance = masked_batch_norm(inputs[0], mask, *inputs[1:], 1e-5)
        assert not mean.requires_grad and not variance.requires_grad
        return [output, mean, variance, *torch.autograd.grad((output * outer).sum(), inputs)]

    tolerance = {torch.float32: 2e-5, torch.float64: 1e-12, torch.bfloat16: 5e-2}[dtype]
    for found, expected in zip(*both_ways(cpu_kernels, run), strict=True):
        found, expected = found.double(), expected.double()
        assert (found - expected).abs().max() <= tolerance * expected.abs().max()


# Below and above the sizes from which a convolution is done in tiles; the last takes several chunks.
SHAPES = [(3, 4, 6, 13, 5), (1, 64, 128, 40, 16), (3, 128, 64, 53, 5), (2, 96, 96, 64, 4), (1, 64, 128, 2100, 2)]


def conv_and_norm(channels_in, channels, layout):
    torch.manual_seed(0)
    conv = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False).to(memory_format=layout)
    norm = CNN10BatchNorm(channels).eval()
    for tensor in (norm.weight.data, norm.running_var):
        tensor.uniform_(0.5, 2.0)
    for tensor in (norm.bias.data, norm.running_mean):
        tensor.normal_()
    return conv, norm


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_convolution_in_evaluation_has_the_same_values_and_gradients(cpu_kernels, shape, layout, masked):
    batch_size, channels_in, channels, frames, bins = shape
    conv, norm = conv_and_norm(channels_in, channels, layout)
    cells = torch.randn(batch_size, channels_in, frames, bins).to(memory_format=layout)
    mask = frames_mask([frames, frames // 2, frames - 3][:batch_size]) if masked else None

    def run():
        with torch.no_grad():
            output = conv_norm_relu(conv, norm, cells, mask)
        given = cells.clone().requires_grad_()
        with_gradients = conv_norm_relu(conv, norm, given, mask)
        inputs = [given, conv.weight, norm.weight, norm.bias]
        return [output, with_gradients, *torch.autograd.grad(with_gradients.square().sum(), inputs)]

    for found, expected in zip(*both_ways(cpu_kernels, run), strict=True):
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= 2e-5 * expected.abs().max()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [*SHAPES, (1, 128, 128, 1, 1), (2, 64, 128, 131, 2)], ids=str)
def test_a_convolution_in_tiles_is_a_convolution(shape, layout):
    batch_size, channels_in, channels, frames, bins = shape
    torch.manual_seed(0)
    cells = torch.randn(batch_size, channels_in, frames, bins).to(memory_format=layout)
    weight = (torch.randn(channels, channels_in, 3, 3) / channels_in**0.5).to(memory_format=layout)
    bias = torch.randn(channels)
    expected = F.conv2d(cells.double(), weight.double(), bias.double(), padding=1)
    found = conv3x3_in_tiles(cells, weight, bias)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 2e-5 * expected.abs().max()


@pytest.fixture
def full_width(randomise_norms):
    torch.manual_seed(0)
    return randomise_norms(CNN10Model(CNN10Config())).eval()


@torch.no_grad()
def test_embeddings_are_as_close_to_exact_ones_as_the_plain_way(cpu_kernels, full_width, log_mels):
    features, mask, _ = log_mels([301, 180, 333])
    exact = copy.deepcopy(full_width).double()(features.double(), mask).pooler_output
    found, plain = both_ways(cpu_kernels, lambda: full_width(features, mask).pooler_output)
    assert not torch.equal(found, plain)  # they are computed in two ways
    error, plain_error = ((embeds - exact).norm() / exact.norm() for embeds in (found, plain))
    assert plain_error < 1e-6 and error < 2e-6


@torch.no_grad()
def test_a_clip_gets_the_same_embedding_alone_and_in_a_batch(full_width, log_mels):
    features, mask, clips = log_mels([530, 900, 871])
    together = F.normalize(full_width(features, mask).pooler_output, dim=-1)
    alone = torch.cat([F.normalize(full_width(clip[None]).pooler_output, dim=-1) for clip in clips])
    assert (together - alone).abs().max() <= 1e-5


def batch_of(log_mels):
    features, mask, _ = log_mels([37, 53, 20])
    attention_mask = torch.tensor([[1] * 9, [1] * 5 + [0] * 4, [1] * 7 + [0] * 2])
    input_ids = torch.randint(5, 64, (3, 9), generator=torch.Generator().manual_seed(0)) * attention_mask
    return {
        "input_features": features,
        "input_features_mask": mask,
        "input_ids": input_ids,
        "attention_mask": attention_mask,
    }


@pytest.mark.parametrize("way", ["plain", "checkpointing", "channels_last", "frozen audio tower"])
def test_a_training_step_is_the_same(cpu_kernels, tiny_model, log_mels, way):
    batch = batch_of(log_mels)
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}

    def step():
        model = tiny_model(text=no_dropout).train()
        if way == "checkpointing":
            model.activation_checkpointing_enable()
        elif way == "channels_last":
            model.to(memory_format=torch.channels_last)
        elif way == "frozen audio tower":
            model.freeze_audio_tower()
        loss = model(**batch, return_loss=True).loss
        loss.backward()
        gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
        return {"loss": loss.detach(), **gradients, **dict(model.named_buffers())}

    found, expected = both_ways(cpu_kernels, step)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def autograd_nodes(tensor):
    """The names of the operations whose gradients lead to a tensor."""
    names, seen, waiting = set(), set(), [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            names.add(node.name())
            waiting += [following for following, _ in node.next_functions]
    return names


def test_the_gradient_by_hand_is_for_a_cpu_alone(cpu_kernels, tiny_model, log_mels):
    batch = batch_of(log_mels)
    del batch["attention_mask"]  # BERT looks at it, which the meta device does not allow
    with_kernels, plain = both_ways(
        cpu_kernels, lambda: autograd_nodes(tiny_model().train()(**batch, return_loss=True).loss)
    )
    assert any("MaskedBatchNorm" in name for name in with_kernels)
    assert not any("MaskedBatchNorm" in name for name in plain)
    cpu_kernels(True)
    # The meta device stands for every device that is not a CPU.
    elsewhere = tiny_model().train().to("meta")
    loss = elsewhere(**{name: value.to("meta") for name, value in batch.items()}, return_loss=True).loss
    assert autograd_nodes(loss) == plain


def test_no_kernel_applies_to_another_device(tiny_model):
    with torch.device("meta"):
        cells, mask, weight = torch.zeros(2, 4, 9, 8), torch.ones(2, 1, 9, 1), torch.ones(4)
        conv, norm = nn.Conv2d(4, 4, 3, padding=1, bias=False), CNN10BatchNorm(4).eval()
        tokens = torch.ones(2, 9, dtype=torch.int64)
    assert masked_batch_norm_on_cpu(cells, mask, weight, weight, 1e-5) is NotImplemented
    assert conv_norm_relu_on_cpu(conv, norm, cells, mask) is NotImplemented
    assert block_masks_on_cpu(mask[:, 0, :, 0], 4) is NotImplemented
    assert encode_captions_on_cpu(tiny_model().text_model, tokens, tokens) is NotImplemented
