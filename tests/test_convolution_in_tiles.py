"""On a CPU, wide convolutions are done in tiles by Winograd's algorithm: another way to the same numbers."""

import copy

import pytest
import torch
import torch.nn.functional as F

from modeling_cnn10bert import CNN10Config, CNN10Model, cpu_kernels_cnn10bert, modeling_cnn10bert

SHAPES = [(1, 64, 128, 20, 8), (3, 128, 64, 13, 5), (2, 96, 96, 4, 4), (1, 128, 128, 1, 1), (2, 64, 128, 131, 2)]


@pytest.fixture
def full_width(randomise_norms):
    torch.manual_seed(0)
    return randomise_norms(CNN10Model(CNN10Config())).eval()


@pytest.fixture
def tiled(monkeypatch):
    """The shapes of what was convolved in tiles."""
    shapes, convolve = [], modeling_cnn10bert.convolve_in_tiles

    def record(hidden_states, *args, **keywords):
        shapes.append(tuple(hidden_states.shape))
        return convolve(hidden_states, *args, **keywords)

    monkeypatch.setattr(modeling_cnn10bert, "convolve_in_tiles", record)
    return shapes


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("at_once", [1, 1 << 30])
def test_it_is_a_convolution(shape, layout, at_once, monkeypatch):
    monkeypatch.setattr(cpu_kernels_cnn10bert, "CACHED_VALUES", at_once)
    batch_size, channels_in, channels, frames, bins = shape
    torch.manual_seed(0)
    cells = torch.randn(batch_size, channels_in, frames, bins).to(memory_format=layout)
    weight = (torch.randn(channels, channels_in, 3, 3) / channels_in**0.5).to(memory_format=layout)
    bias = torch.randn(channels)
    expected = F.conv2d(cells.double(), weight.double(), bias.double(), padding=1)
    found = modeling_cnn10bert.convolve_in_tiles(cells, weight, bias)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 2e-5 * expected.abs().max()


def test_the_embeddings_are_as_near_the_exact_ones_as_the_usual_way_gets(full_width, tiled, log_mels):
    features, mask, _ = log_mels([301, 180, 333])
    with torch.no_grad():
        exact = copy.deepcopy(full_width).double()(features.double(), mask).pooler_output
        assert not tiled
        in_tiles = full_width(features, mask).pooler_output
    assert [shape[1] for shape in tiled] == [64, 128, 128, 256, 256, 512]  # all but the first block
    with torch.enable_grad():
        usual = full_width(features, mask).pooler_output.detach()
    assert len(tiled) == 6
    error, usual_error = ((found - exact).norm() / exact.norm() for found in (in_tiles, usual))
    assert usual_error < 1e-6 and error < 2e-6


def test_a_clip_gets_the_same_embedding_alone_and_in_a_batch(full_width, tiled, log_mels):
    features, mask, clips = log_mels([530, 900, 871])
    with torch.no_grad():
        together = F.normalize(full_width(features, mask).pooler_output, dim=-1)
        alone = torch.cat([F.normalize(full_width(clip[None]).pooler_output, dim=-1) for clip in clips])
    assert len(tiled) == 4 * 6
    assert (together - alone).abs().max() <= 1e-5


def test_it_is_left_alone_where_it_would_not_pay_or_not_do(full_width, tiled, log_mels):
    features, mask, _ = log_mels([333, 280])
    training = copy.deepcopy(full_width).train()
    half = copy.deepcopy(full_width).to(torch.bfloat16)
    narrow = CNN10Model(CNN10Config(hidden_sizes=[16, 32, 64, 64])).eval()
    with torch.no_grad():
        training(features, mask)
        half(features, mask)
        narrow(features, mask)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            full_width(features, mask)
        full_width(features[:1, :30])  # a clip so short that its weights would be the greater part
    assert not tiled
