"""Padding changes nothing: a clip's embedding is the same alone, padded, and in any batch, trained or not."""

import copy

import numpy as np
import pytest
import torch

from modeling_cnn10bert import CNN10Config, CNN10Model
from modeling_cnn10bert.modeling_cnn10bert import CNN10BatchNorm

# In samples at 32 kHz; no pooling divides the frames of most of them, and one holds a single sample.
LENGTHS = [1, 4_801, 5_440, 9_999, 16_000, 31_999, 48_017]
FRAMES = [16, 17, 23, 31, 40, 97]


def embed(model, features):
    with torch.no_grad():
        return model.get_audio_features(**features).pooler_output


@pytest.fixture(params=[0, 1], ids=["paper", "moment"])
def alone_and_longest(tiny_model, feature_extractor, noise, request):
    """A model, its embeddings of clips that came alone, and the clips."""
    model = tiny_model(audio={"temporal_moments": request.param})
    clips = [noise(length) for length in LENGTHS]
    single = [feature_extractor(clip, sampling_rate=32_000, return_tensors="pt") for clip in clips]
    return model, torch.cat([embed(model, features) for features in single]), clips


def test_a_batch_with_longer_clips_leaves_an_embedding_as_it_is(alone_and_longest, feature_extractor):
    model, alone, clips = alone_and_longest
    features = feature_extractor(clips, sampling_rate=32_000, return_tensors="pt")
    worst = (embed(model, features) - alone).abs().max().item()
    assert worst <= 1e-5


def test_the_full_width_network_does_not_see_padding_either(randomise_norms, log_mels):
    torch.manual_seed(0)
    model = randomise_norms(CNN10Model(CNN10Config())).eval()
    features, mask, clips = log_mels([17, 45, 90])
    with torch.no_grad():
        together = model(features, mask).pooler_output
        alone = torch.cat([model(clip[None]).pooler_output for clip in clips])
    normalised = [torch.nn.functional.normalize(pooled, dim=-1) for pooled in (together, alone)]
    assert (normalised[0] - normalised[1]).abs().max() <= 1e-5


def test_twenty_seconds_of_padding_leave_an_embedding_as_it_is(alone_and_longest, feature_extractor):
    model, alone, clips = alone_and_longest
    worst = 0.0
    for clip, expected in zip(clips, alone, strict=True):
        options = {"padding": "max_length", "max_length": feature_extractor.num_frames(len(clip)) + 2_000}
        features = feature_extractor(clip, sampling_rate=32_000, return_tensors="pt", **options)
        worst = max(worst, (embed(model, features)[0] - expected).abs().max().item())
    assert worst <= 1e-5


def test_without_the_mask_padding_would_show(alone_and_longest, feature_extractor):
    # Shows that the network of these tests can tell: the two tests above compare more than zeros.
    model, alone, clips = alone_and_longest
    features = feature_extractor(clips, sampling_rate=32_000, return_tensors="pt")
    unmasked = embed(model, {"input_features": features["input_features"]})
    assert (unmasked[:-1] - alone[:-1]).abs().max(dim=1).values.min() > 1e-3


def test_what_stands_in_the_padding_is_never_read(tiny_model, log_mels):
    model = tiny_model()
    features, mask, _ = log_mels(FRAMES)
    garbage = torch.where(mask[:, :, None] == 1, features, torch.full_like(features, 55.0))
    expected = embed(model, {"input_features": features, "input_features_mask": mask})
    assert torch.equal(embed(model, {"input_features": garbage, "input_features_mask": mask}), expected)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.bool, torch.float32])
def test_any_type_of_mask_will_do(tiny_model, log_mels, dtype):
    model = tiny_model()
    features, mask, _ = log_mels(FRAMES)
    expected = embed(model, {"input_features": features, "input_features_mask": mask})
    assert torch.equal(embed(model, {"input_features": features, "input_features_mask": mask.to(dtype)}), expected)


def test_a_full_mask_equals_none(tiny_model, log_mels):
    model = tiny_model()
    features, mask, _ = log_mels([48, 48])
    expected = embed(model, {"input_features": features})
    torch.testing.assert_close(embed(model, {"input_features": features, "input_features_mask": mask}), expected)


def test_the_network_is_table_2_of_the_paper(tiny_model, log_mels, reference_cnn10):
    model = tiny_model().audio_model.double()
    features, mask, clips = log_mels(FRAMES, dtype=torch.float64)
    with torch.no_grad():
        found, expected = model(features, mask).pooler_output, reference_cnn10(model, clips)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def train_step(model, forward):
    """Pooled output, gradients and buffers after a forward and backward pass in training mode."""
    model.train().zero_grad()
    pooled = forward()
    # Weights that differ by row and channel, so that no gradient cancels.
    (pooled * torch.linspace(-1, 2, pooled.numel(), dtype=pooled.dtype).view_as(pooled)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return pooled.detach(), gradients, dict(model.named_buffers())


def assert_same_step(found, expected, ignore=(), **tolerance):
    torch.testing.assert_close(found[0], expected[0], **tolerance)
    for part in (1, 2):
        assert found[part].keys() == expected[part].keys()
        for name, value in expected[part].items():
            if not name.endswith(ignore):
                torch.testing.assert_close(
                    found[part][name], value, **tolerance, msg=lambda text, n=name: f"{n}: {text}"
                )


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("num_frames", [None, 160])
def test_a_training_step_counts_valid_frames_only(tiny_model, log_mels, reference_cnn10, checkpointing, num_frames):
    model = tiny_model().audio_model.double()
    reference = copy.deepcopy(model)
    features, mask, clips = log_mels(FRAMES, num_frames, dtype=torch.float64)
    if checkpointing:
        model.activation_checkpointing_enable()
    found = train_step(model, lambda: model(features, mask).pooler_output)
    expected = train_step(reference, lambda: reference_cnn10(reference, clips))
    # F.batch_norm, of which the reference is made, does not count batches.
    assert_same_step(found, expected, ignore=("num_batches_tracked",), rtol=1e-8, atol=1e-8)
    assert all(value == 1 for name, value in found[2].items() if name.endswith("num_batches_tracked"))


def test_an_unpadded_training_step_is_plain_batch_normalisation(tiny_model, log_mels, reference_cnn10):
    model = tiny_model().audio_model.double()
    reference = copy.deepcopy(model)
    features, mask, clips = log_mels([40, 40, 40], dtype=torch.float64)
    expected = train_step(reference, lambda: reference_cnn10(reference, clips))
    for passed in (mask, None):
        candidate = copy.deepcopy(model)
        found = train_step(candidate, lambda c=candidate, m=passed: c(features, m).pooler_output)
        assert_same_step(found, expected, ignore=("num_batches_tracked",), rtol=1e-8, atol=1e-8)


def test_padding_a_float32_training_batch_changes_nothing(tiny_model, log_mels):
    model = tiny_model().audio_model
    other = copy.deepcopy(model)
    features, mask, _ = log_mels(FRAMES)
    padded, padded_mask, _ = log_mels(FRAMES, num_frames=max(FRAMES) + 211)
    expected = train_step(model, lambda: model(features, mask).pooler_output)
    found = train_step(other, lambda: other(padded, padded_mask).pooler_output)
    assert_same_step(found, expected, rtol=1e-3, atol=1e-4)  # of gradients of up to 10


@pytest.mark.parametrize("enabled", [True, False], ids=["kernel", "plain"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normalizing_valid_frames_has_the_gradients_of_its_formula(layout, enabled, cpu_kernels):
    cpu_kernels(enabled)
    torch.manual_seed(0)
    norm = CNN10BatchNorm(3).double().train()
    norm.weight.data.uniform_(0.5, 2.0)
    norm.bias.data.normal_()
    mask = (torch.arange(7) < torch.tensor([7, 3, 5])[:, None])[:, None, :, None]
    values = (5 + torch.randn(3, 3, 7, 4, dtype=torch.float64)).to(memory_format=layout).requires_grad_()

    def normalise(values, weight, bias):
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (values, mask))

    output = normalise(values, norm.weight, norm.bias)
    assert (output.masked_select(~mask) == 0).all()
    valid = values.permute(1, 0, 2, 3)[:, mask[:, 0, :, 0]].flatten(1)  # [C, N]
    expected = (valid - valid.mean(1, keepdim=True)) / (valid.var(1, keepdim=True, correction=0) + norm.eps).sqrt()
    expected = expected * norm.weight[:, None] + norm.bias[:, None]
    torch.testing.assert_close(output.permute(1, 0, 2, 3)[:, mask[:, 0, :, 0]].flatten(1), expected)
    assert torch.autograd.gradcheck(normalise, (values, norm.weight, norm.bias))


def test_padding_changes_nothing_under_torch_compile(randomise_norms, log_mels, compile_backend):
    torch.manual_seed(0)
    model = randomise_norms(CNN10Model(CNN10Config(hidden_sizes=[4, 6]))).eval()
    compiled = torch.compile(model, backend=compile_backend, fullgraph=True)
    features, mask, clips = log_mels([9, 30, 41])
    with torch.no_grad():
        found = compiled(features, mask).pooler_output
        alone = torch.cat([model(clip[None]).pooler_output for clip in clips])
    torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-5)


def test_a_compiled_training_step_counts_valid_frames_only(randomise_norms, log_mels):
    torch.manual_seed(0)
    model = randomise_norms(CNN10Model(CNN10Config(hidden_sizes=[4, 6])))
    other = copy.deepcopy(model)
    features, mask, _ = log_mels([9, 30, 41])
    padded, padded_mask, _ = log_mels([9, 30, 41], num_frames=64)
    # The graphs and not the generated code are in question here, so the quick backend will do.
    compiled = torch.compile(model, backend="aot_eager")
    found = train_step(model, lambda: compiled(padded, padded_mask).pooler_output)
    expected = train_step(other, lambda: other(features, mask).pooler_output)
    assert_same_step(found, expected, rtol=1e-3, atol=1e-4)


def test_real_recordings_embed_alike_alone_and_together(tiny_model, feature_extractor, real_recordings):
    model = tiny_model()
    clips = list(real_recordings.values())[::6]  # 5 s and up to 30 s
    together = embed(model, feature_extractor(clips, sampling_rate=32_000, return_tensors="pt"))
    alone = [embed(model, feature_extractor(clip, sampling_rate=32_000, return_tensors="pt")) for clip in clips]
    worst = (together - torch.cat(alone)).abs().max().item()
    assert worst <= 1e-5
    assert np.unique([len(clip) for clip in clips]).size > 1
