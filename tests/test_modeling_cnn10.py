"""The audio network: its size, outputs, losses and errors. (What it computes is compared in test_padding.py.)"""

import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForAudioClassification

from modeling_cnn10bert import CNN10Config, CNN10ForAudioClassification, CNN10Model

TINY = {"hidden_sizes": [4, 6, 8, 10]}


def tagger(randomise_norms, **fields):
    torch.manual_seed(0)
    return randomise_norms(CNN10ForAudioClassification(CNN10Config(**TINY, **fields))).eval()


def test_the_size_follows_from_table_2():
    # 3x3 convolutions without bias, a scale and a shift a channel, and the normalisation of the 64 mel bins.
    widths = [1, 64, 128, 256, 512]
    pairs = zip(widths[:-1], widths[1:], strict=True)
    expected = 2 * 64 + sum(9 * c_in * c_out + 9 * c_out * c_out + 4 * c_out for c_in, c_out in pairs)
    with torch.device("meta"):
        model = CNN10Model(CNN10Config())
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_shapes_halve_with_every_block(randomise_norms, log_mels):
    model = tagger(randomise_norms).cnn10
    features, mask, _ = log_mels([37, 53])
    outputs = model(features, mask, output_hidden_states=True)
    assert outputs.last_hidden_state.shape == (2, 3, 10)
    assert outputs.pooler_output.shape == (2, 10)
    shapes = [tuple(state.shape) for state in outputs.hidden_states]
    assert shapes == [(2, 1, 53, 64), (2, 4, 26, 32), (2, 6, 13, 16), (2, 8, 6, 8), (2, 10, 3, 4)]
    torch.testing.assert_close(outputs.hidden_states[-1].mean(dim=3).transpose(1, 2), outputs.last_hidden_state)
    assert model(features, mask).hidden_states is None
    assert len(tagger(randomise_norms)(features, mask, output_hidden_states=True).hidden_states) == 5


def test_sum_pooling_is_twice_the_average(randomise_norms, log_mels):
    features, mask, _ = log_mels([37, 53])
    average = tagger(randomise_norms).cnn10(features, mask).pooler_output
    total = tagger(randomise_norms, time_pooling="sum").cnn10(features, mask).pooler_output
    torch.testing.assert_close(total, 2 * average)


def test_the_time_pooling_joins_mean_and_maximum(randomise_norms, log_mels):
    features, _, _ = log_mels([53])
    outputs = tagger(randomise_norms).cnn10(features)
    frames = outputs.last_hidden_state
    torch.testing.assert_close(outputs.pooler_output, (frames.mean(dim=1) + frames.max(dim=1).values) / 2)


def test_the_temporal_moment_follows_the_pooled_frames(randomise_norms, log_mels):
    features, mask, _ = log_mels([160, 96])  # 10 and 6 frames after the blocks
    plain = tagger(randomise_norms).cnn10(features, mask).pooler_output
    outputs = tagger(randomise_norms, temporal_moments=1).cnn10(features, mask)
    torch.testing.assert_close(outputs.pooler_output[:, :10], plain)
    for pooled, frames, length in zip(outputs.pooler_output, outputs.last_hidden_state, [10, 6], strict=True):
        weights = torch.linspace(-1, 1, length)
        expected = 2 * sum(weight * frame for weight, frame in zip(weights, frames[:length], strict=True)) / length
        torch.testing.assert_close(pooled[10:], expected)


def test_the_temporal_moment_of_a_single_frame_is_zero(randomise_norms, log_mels):
    network = tagger(randomise_norms, temporal_moments=1).cnn10
    features, mask, _ = log_mels([16, 70])
    assert torch.equal(network(features, mask).pooler_output[0, 10:], torch.zeros(10))


def test_a_tagger_can_have_a_temporal_moment(randomise_norms, log_mels):
    assert tagger(randomise_norms, temporal_moments=1, num_labels=3)(log_mels([53])[0]).logits.shape == (1, 3)


def test_in_evaluation_a_block_is_its_convolutions_normalisations_and_poolings(randomise_norms, log_mels):
    model = randomise_norms(CNN10Model(CNN10Config(hidden_sizes=[4, 4, 8, 8]))).eval()
    hidden_states = log_mels([33, 33])[0][:, None] / 20
    block = model.blocks[0]
    expected = hidden_states
    for conv, norm in ((block.conv1, block.norm1), (block.conv2, block.norm2)):
        expected = F.conv2d(expected, conv.weight, padding=1)
        mean, std = norm.running_mean.view(1, -1, 1, 1), (norm.running_var + 1e-5).sqrt().view(1, -1, 1, 1)
        expected = (expected - mean) / std * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)
        expected = F.relu(expected)
    with torch.no_grad():
        found = block(hidden_states)
    torch.testing.assert_close(found, F.avg_pool2d(expected, 2).detach(), atol=1e-4, rtol=1e-5)


def test_arguments_come_in_the_usual_order():
    assert list(inspect.signature(CNN10Model.forward).parameters)[:3] == [
        "self",
        "input_features",
        "input_features_mask",
    ]
    parameters = list(inspect.signature(CNN10ForAudioClassification.forward).parameters)
    assert parameters[:4] == ["self", "input_features", "input_features_mask", "labels"]
    assert CNN10Model.main_input_name == "input_features"


@pytest.mark.parametrize("by", ["argument", "configuration"])
def test_tuple_and_dict_outputs_agree(randomise_norms, log_mels, by):
    features, mask, _ = log_mels([37, 53])
    for model in (tagger(randomise_norms), tagger(randomise_norms).cnn10):
        expected = model(features, mask)
        if by == "configuration":
            model.config.return_dict = False
            found = model(features, mask)
        else:
            found = model(features, mask, return_dict=False)
        assert isinstance(found, tuple)
        assert len(found) == len(expected.to_tuple())
        assert all(torch.equal(left, right) for left, right in zip(found, expected.to_tuple(), strict=True))


def test_single_label_loss_is_cross_entropy(randomise_norms, log_mels):
    features, mask, _ = log_mels([37, 53])
    labels = torch.tensor([2, 0])
    model = tagger(randomise_norms, num_labels=3, problem_type="single_label_classification")
    outputs = model(features, mask, labels=labels)
    rows = outputs.logits.tolist()
    by_hand = [math.log(sum(map(math.exp, row))) - row[label] for row, label in zip(rows, [2, 0], strict=True)]
    assert outputs.loss.item() == pytest.approx(sum(by_hand) / 2, rel=1e-5)


def test_multi_label_loss_is_binary_cross_entropy(randomise_norms, log_mels):
    features, mask, _ = log_mels([37, 53])
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    model = tagger(randomise_norms, num_labels=3, problem_type="multi_label_classification")
    outputs = model(features, mask, labels=labels)
    by_hand = [
        math.log1p(math.exp(-logit if label else logit))
        for logit, label in zip(outputs.logits.flatten().tolist(), labels.flatten().tolist(), strict=True)
    ]
    assert outputs.loss.item() == pytest.approx(sum(by_hand) / 6, rel=1e-5)


def test_the_tagging_head_is_panns(randomise_norms, log_mels):
    # dropout, linear, ReLU, dropout, linear
    model = tagger(randomise_norms, num_labels=3, head_dropout=0.5)
    features, mask, _ = log_mels([37, 53])
    pooled = model.cnn10(features, mask).pooler_output
    expected = F.linear(
        F.relu(F.linear(pooled, model.dense.weight, model.dense.bias)), model.classifier.weight, model.classifier.bias
    )
    torch.testing.assert_close(model(features, mask).logits, expected)
    model.dropout.train()
    assert not torch.equal(model(features, mask).logits, model(features, mask).logits)


def test_block_dropout_acts_in_training_only(randomise_norms, log_mels):
    model = tagger(randomise_norms, block_dropout=0.2).cnn10
    features, mask, _ = log_mels([37, 53])
    assert torch.equal(model(features, mask).pooler_output, model(features, mask).pooler_output)
    model.train()
    assert not torch.equal(model(features, mask).pooler_output, model(features, mask).pooler_output)


def test_the_network_below_a_tagging_head_loads_alone_and_back(randomise_norms, log_mels, tmp_path):
    model = tagger(randomise_norms, num_labels=3)
    features, mask, _ = log_mels([37, 53])
    expected = model.cnn10(features, mask).pooler_output
    model.save_pretrained(tmp_path / "tagger")
    for network in (
        CNN10Model.from_pretrained(tmp_path / "tagger"),
        AutoModel.from_pretrained(tmp_path / "tagger"),
        AutoModelForAudioClassification.from_pretrained(tmp_path / "tagger").cnn10,
    ):
        assert type(network) is CNN10Model
        assert torch.equal(network(features, mask).pooler_output, expected)
    network.save_pretrained(tmp_path / "network")
    headed = CNN10ForAudioClassification.from_pretrained(tmp_path / "network", num_labels=5)
    assert torch.equal(headed.cnn10(features, mask).pooler_output, expected)
    assert headed(features, mask).logits.shape == (2, 5)


def test_labels_keep_their_names(randomise_norms, tmp_path):
    names = {0: "dog", 1: "rain", 2: "siren"}
    tagger(randomise_norms, id2label=names, label2id={v: k for k, v in names.items()}).save_pretrained(tmp_path)
    reloaded = AutoModelForAudioClassification.from_pretrained(tmp_path)
    assert reloaded.config.id2label == names
    assert reloaded.classifier.out_features == 3


def test_a_checkpoint_holds_safetensors_with_the_running_statistics(randomise_norms, tmp_path):
    model = tagger(randomise_norms)
    model.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.bin")) + list(tmp_path.glob("*.pt"))
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors.keys() == model.state_dict().keys()
    assert torch.equal(tensors["cnn10.input_norm.running_mean"], model.cnn10.input_norm.running_mean)


@pytest.mark.parametrize(
    ("features", "mask", "message"),
    [
        (torch.zeros(2, 50, 40), None, r"must be \(batch_size, num_frames, 64\), found \(2, 50, 40\)"),
        (torch.zeros(50, 64), None, r"must be \(batch_size, num_frames, 64\), found \(50, 64\)"),
        (torch.zeros(2, 15, 64), None, "holds 15 frames, but 4 poolings need at least 16"),
        (torch.zeros(2, 50, 64), torch.ones(2, 49), r"mask must be \(2, 50\).*found \(2, 49\)"),
        (torch.zeros(2, 50, 64), torch.ones(2, 50, 64), r"mask must be \(2, 50\).*found \(2, 50, 64\)"),
    ],
)
def test_input_that_does_not_fit_is_refused_by_its_shape(randomise_norms, features, mask, message):
    with pytest.raises(ValueError, match=message):
        tagger(randomise_norms)(features, mask)
