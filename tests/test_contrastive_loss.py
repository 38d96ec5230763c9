"""The contrastive loss against arithmetic by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from modeling_cnn10bert import contrastive_loss


def log_softmax(row, index):
    return row[index] - math.log(sum(math.exp(value) for value in row))


def test_the_loss_averages_both_directions():
    # Each audio against the captions: log(1 + e^-1). Caption 0: log(1 + e^0), caption 1: log(1 + e^-2).
    logits = torch.tensor([[2.0, 1.0], [2.0, 3.0]])
    per_audio = math.log(1 + math.exp(-1))
    per_text = (math.log(2) + math.log(1 + math.exp(-2))) / 2
    assert abs(per_audio - per_text) > 0.05  # a loss of one direction alone would show
    assert contrastive_loss(logits).item() == pytest.approx((per_audio + per_text) / 2, abs=1e-6)


def test_swapping_the_modalities_keeps_the_loss():
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([3, 1, 3, 2, 0])
    torch.testing.assert_close(contrastive_loss(logits, ids), contrastive_loss(logits.T, ids))


def test_distinct_recordings_give_cross_entropy_with_identity_targets():
    logits = 20 * torch.randn(7, 7, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(7)
    expected = (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2
    torch.testing.assert_close(contrastive_loss(logits), expected)
    torch.testing.assert_close(contrastive_loss(logits, torch.tensor([9, 4, 7, 1, 0, 3, 2])), expected)


def test_two_captions_of_a_recording_are_both_positive():
    rows = [[1.0, 2.0, 0.5], [0.3, -1.0, 0.7], [-1.0, 2.5, 1.5]]
    ids = torch.tensor([8, 5, 8])  # rows 0 and 2 are one recording
    positives = {0: (0, 2), 1: (1,), 2: (0, 2)}
    columns = [list(column) for column in zip(*rows, strict=True)]

    def one_direction(table):
        means = [sum(log_softmax(table[row], i) for i in own) / len(own) for row, own in positives.items()]
        return -sum(means) / len(means)

    expected = (one_direction(rows) + one_direction(columns)) / 2
    assert contrastive_loss(torch.tensor(rows), ids).item() == pytest.approx(expected, abs=1e-6)
    assert contrastive_loss(torch.tensor(rows)).item() != pytest.approx(expected, abs=1e-2)


def test_audios_and_captions_may_differ_in_number():
    # One audio with both captions, as when captions are gathered from more processes than audios.
    rows = [[1.0, 2.0, 0.5], [0.3, -1.0, 0.7]]
    audio_ids, text_ids = torch.tensor([4, 6]), torch.tensor([6, 4, 4])
    per_audio = -((log_softmax(rows[0], 1) + log_softmax(rows[0], 2)) / 2 + log_softmax(rows[1], 0)) / 2
    columns = [list(column) for column in zip(*rows, strict=True)]
    per_text = -(log_softmax(columns[0], 1) + log_softmax(columns[1], 0) + log_softmax(columns[2], 0)) / 3
    loss = contrastive_loss(torch.tensor(rows), audio_ids, text_ids)
    assert loss.item() == pytest.approx((per_audio + per_text) / 2, abs=1e-6)


def test_gradients_are_those_of_the_loss():
    logits = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    ids = torch.tensor([0, 1, 0, 2])
    assert torch.autograd.gradcheck(lambda logits: contrastive_loss(logits, ids), logits)


def test_half_precision_logits_give_a_float32_loss():
    logits = 5 * torch.eye(4, dtype=torch.bfloat16)
    loss = contrastive_loss(logits)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(1 + 3 * math.exp(-5)), rel=1e-5)  # bfloat16 is good to 4e-3


def test_ids_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"logits_per_audio is \(2, 3\).*ids for 2 audios and 2 captions"):
        contrastive_loss(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"logits_per_audio is \(3, 3\).*ids for 2 audios and 2 captions"):
        contrastive_loss(torch.zeros(3, 3), torch.tensor([0, 1]))


def test_given_positives_take_the_place_of_the_ids():
    rows = [[1.0, 2.0, 0.5], [0.3, -1.0, 0.7], [-1.0, 2.5, 1.5]]
    positives = torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 1]], dtype=torch.bool)
    by_ids = contrastive_loss(torch.tensor(rows), torch.tensor([8, 5, 8]))
    assert contrastive_loss(torch.tensor(rows), positives=positives).item() == by_ids.item()
    assert contrastive_loss(torch.tensor(rows), torch.arange(3), positives=positives).item() == by_ids.item()
