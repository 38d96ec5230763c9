"""Pairs of caption and recording, and the order in which an epoch visits them."""

import datasets
import numpy as np
import pytest
import torch

from modeling_cnn10bert.data.feature_cache import TABLE_FEATURES, log_mel_columns
from modeling_cnn10bert.data.pairs import PairSampler, SharedEpoch, pair_rows

LENGTHS = np.random.default_rng(0).integers(500, 3000, size=1013)


def _order(epoch=0, seed=5, lengths=LENGTHS, batch_size=30, grouped=False):
    shared = SharedEpoch()
    shared.set(epoch)
    return list(PairSampler(lengths, batch_size, seed, shared, group_by_length=grouped))


def _padding(order, batch_size=30):
    """Share of padded frames when each batch is padded to its longest clip."""
    batches = LENGTHS[np.array(order).reshape(-1, batch_size)]
    return 1 - batches.sum() / (batches.max(axis=1) * batch_size).sum()


@pytest.mark.parametrize("grouped", [False, True], ids=["shuffled", "grouped by length"])
def test_an_epoch_draws_whole_batches_of_distinct_pairs(grouped):
    order = _order(grouped=grouped)
    assert len(order) == 33 * 30  # of 1013 pairs, 23 wait for another epoch
    assert len(set(order)) == len(order)
    assert set(order) <= set(range(1013))


@pytest.mark.parametrize("grouped", [False, True], ids=["shuffled", "grouped by length"])
def test_the_order_depends_on_seed_and_epoch_alone(grouped):
    torch.manual_seed(0)
    first = _order(epoch=3, grouped=grouped)
    torch.manual_seed(1)
    np.random.seed(1)
    assert _order(epoch=3, grouped=grouped) == first
    assert _order(epoch=4, grouped=grouped) != first
    assert _order(epoch=3, seed=6, grouped=grouped) != first


def test_every_pair_is_drawn_in_one_epoch_or_another():
    seen = set().union(*(_order(epoch=epoch) for epoch in range(5)))
    assert seen == set(range(1013))


def test_a_sampler_follows_the_epoch_that_it_shares():
    epoch = SharedEpoch()
    sampler = PairSampler(LENGTHS, 30, seed=5, epoch=epoch)
    orders = []
    for number in range(3):
        epoch.set(number)
        orders.append(list(sampler))
    assert orders == [_order(epoch=number) for number in range(3)]


def test_grouping_by_length_spares_most_of_the_padding():
    grouped, shuffled = _padding(_order(grouped=True)), _padding(_order())
    assert shuffled > 0.35  # lengths are uniform in 500..3000: a mean of 1750 beside a longest of nearly 3000
    assert grouped < shuffled / 3


def test_grouped_batches_do_not_come_in_the_order_of_their_lengths():
    longest = LENGTHS[np.array(_order(grouped=True)).reshape(-1, 30)].max(axis=1)
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.5


def test_fewer_pairs_than_a_batch_is_one_clear_error():
    with pytest.raises(ValueError, match="found 29 pairs of caption and recording, expected at least a batch of 30"):
        PairSampler(LENGTHS[:29], 30, seed=0, epoch=SharedEpoch())
    assert len(_order(lengths=LENGTHS[:30])) == 30


def test_pair_rows_name_each_caption_and_copy_nothing_of_its_recording():
    frames = [700, 900]
    table = datasets.Dataset.from_list(
        [
            {
                "file_name": f"{number}.wav",
                "recording_id": f"r{number}",
                "captions": captions,
                **log_mel_columns(torch.full((frames[number], 64), -40.0)),
            }
            for number, captions in enumerate([["a dog barks", "barking"], ["rain", "it rains", "drops fall"]])
        ],
        features=TABLE_FEATURES,
    )
    pairs = pair_rows(table)
    assert pairs.to_dict() == {
        "caption": ["a dog barks", "barking", "rain", "it rains", "drops fall"],
        "recording": [0, 0, 1, 1, 1],
        "length": [700, 700, 900, 900, 900],
        "row_id": [0, 1, 2, 3, 4],
    }
    assert pairs.data.nbytes < 1000 < table.data.nbytes


@pytest.mark.parametrize("order", [["de", "fr"], ["fr", "de"]])
def test_pair_rows_carry_the_variants_of_their_caption(order):
    columns = {
        f"back_translations_{language}": [[f"a {language}", f"b {language}"], [f"c {language}"]] for language in order
    }
    table = datasets.Dataset.from_dict({"captions": [["a", "b"], ["c"]], "length": [700, 900], **columns})
    pairs = pair_rows(table)
    assert pairs.column_names == ["caption", "recording", "length", "row_id", "back_translations"]
    assert pairs["back_translations"][:] == [["a de", "a fr"], ["b de", "b fr"], ["c de", "c fr"]]


def test_a_recording_that_was_added_since_has_none():
    columns = {"captions": [["a", "b"], ["c"]], "length": [700, 900], "back_translations_de": [None, ["c de"]]}
    assert pair_rows(datasets.Dataset.from_dict(columns))["back_translations"][:] == [[None], [None], ["c de"]]


def test_variants_that_do_not_match_the_captions_are_one_clear_error():
    columns = {"captions": [["a", "b"], ["c"]], "length": [700, 900], "back_translations_de": [["a"], ["b", "c"]]}
    with pytest.raises(
        ValueError, match="row 0: back_translations_de: found 1 texts, expected 2, one for each caption"
    ):
        pair_rows(datasets.Dataset.from_dict(columns))
