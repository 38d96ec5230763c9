"""Pairs of caption and recording, and the order in which an epoch visits them."""

import datasets
import numpy as np
import pytest
import torch

from modeling_cnn10bert.data.features import TABLE_FEATURES, log_mel_columns
from modeling_cnn10bert.data.pairs import PairSampler, SharedEpoch, caption_key, pair_rows

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
    with pytest.raises(ValueError, match="found 29 training examples, expected at least one batch of 30"):
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


# ------------------------------------------------------------------------------------ captions that come together


def _together(recordings, k, epoch=0, batch_size=12, grouped=False, lengths=None):
    shared = SharedEpoch()
    shared.set(epoch)
    lengths = np.asarray(recordings) if lengths is None else lengths
    sampler = PairSampler(lengths, batch_size, 5, shared, grouped, recordings=recordings, captions_per_recording=k)
    order = list(sampler)
    assert len(order) == len(sampler) == sampler.num_batches * batch_size
    return np.array(order)


CAPTIONS = np.repeat(np.arange(40), 5)  # five of each of 40 recordings


@pytest.mark.parametrize("grouped", [False, True], ids=["shuffled", "grouped by length"])
@pytest.mark.parametrize("k", [2, 3])
def test_pairs_of_a_recording_come_together(k, grouped):
    order = _together(CAPTIONS, k, grouped=grouped)
    assert len(set(order.tolist())) == len(order) == (160 if k == 2 else 120) // 12 * 12
    recordings = CAPTIONS[order].reshape(-1, k)
    assert (recordings == recordings[:, :1]).all()
    neighbours = (recordings[1:, 0] == recordings[:-1, 0]).sum()
    assert grouped or neighbours < 5  # two groups of a recording, which have the same length, seldom meet


def test_which_captions_come_together_is_drawn_anew_and_every_one_comes():
    groups = [{frozenset(row) for row in _together(CAPTIONS, 2, epoch).reshape(-1, 2).tolist()} for epoch in range(12)]
    assert groups[0] == {frozenset(row) for row in _together(CAPTIONS, 2, 0).reshape(-1, 2).tolist()}
    assert len(groups[0] & groups[1]) < len(groups[0]) / 2
    assert {pair for epoch in groups for group in epoch for pair in group} == set(range(200))


def test_a_recording_with_too_few_captions_is_left_out_as_a_whole():
    recordings = np.array([0, 1, 1, 2, 2, 2, 3, 3])
    assert set(_together(recordings, 2, batch_size=6).tolist()) <= {1, 2, 3, 4, 5, 6, 7}
    with pytest.raises(ValueError, match="found 6 training examples, expected at least one batch of 8"):
        _together(recordings, 2, batch_size=8)


def test_groups_of_captions_are_batched_by_length_too():
    lengths = np.random.default_rng(1).integers(500, 3000, size=40)[CAPTIONS]
    order = _together(CAPTIONS, 2, lengths=lengths, grouped=True).reshape(-1, 12)
    assert np.ptp(lengths[order], axis=1).mean() < np.ptp(lengths) / 3


def test_captions_of_the_same_words_have_one_key():
    # `printf "a dog barks" | b2sum -l 64` of GNU coreutils, as a signed number
    expected = int.from_bytes(bytes.fromhex("8cba0d5b69b18330"), "big", signed=True)
    for caption in ("a dog barks", "A dog barks.", " a  DOG, barks! ", "a dog \u201cbarks\u201d"):
        assert caption_key(caption) == expected
    assert len({caption_key(caption) for caption in ("a dog barks", "a dog bark", "a dogbarks", "barks a dog")}) == 4
    assert -(2**63) <= expected < 2**63
