"""EDA manipulates as many captions and words as it is told, and leaves everything else alone."""

import csv
import random
from collections import Counter

import numpy as np
import pytest
import torch

from modeling_cnn10bert.augmentation.eda import (
    EDA,
    caption_words,
    delete_words,
    insert_words,
    replace_by_synonyms,
    swap_words,
    vocabulary,
)

WORDS = ["a", "dog", "barks", "twice", "while", "rain", "falls"]
THIRTY = [f"w{number}" for number in range(30)]


def _rng(*key):
    return np.random.default_rng(key)


def _eda(**options):
    probabilities = {"p_eda": 1.0, "p_syn": 0.5, "p_swp": 0.5, "p_ins": 0.5, "p_del": 0.5}
    return EDA(**{**probabilities, "vocabulary": ["tree", "42"], "synonyms": {"dog": ["domestic dog"]}, **options})


def _assert_share(count, trials, p):
    """Within four standard deviations of the binomial distribution: one false alarm in 16,000."""
    assert abs(count - trials * p) <= 4 * np.sqrt(trials * p * (1 - p)) + 1e-9


@pytest.fixture(scope="module")
def real_captions(shared_data):
    """20,000 AudioCaps captions."""
    with (shared_data / "audiocaps" / "train.csv").open(newline="", encoding="utf-8") as file:
        return [row["caption"] for row, _ in zip(csv.DictReader(file), range(20_000), strict=False)]


@pytest.fixture(scope="module")
def generated_captions():
    rng = _rng(9)
    return [" ".join(rng.choice(THIRTY, size=rng.integers(1, 31))) for _ in range(20_000)]


@pytest.fixture(params=["real", "generated"])
def captions(request):
    return request.getfixturevalue(f"{request.param}_captions")


# -------------------------------------------------------------------------------------------------- shares of words


@pytest.mark.parametrize("p", [0.0, 0.0085, 0.1944, 0.3, 1.0])
def test_the_share_of_words_changed_is_the_probability(p, captions):
    counts, total = Counter(), 0
    rng = _rng(1)
    for caption in captions:
        words = caption_words(caption)
        total += len(words)
        counts["inserted"] += len(insert_words(words, p, ["§"], rng)) - len(words)
        counts["deleted"] += len(words) - len(delete_words(words, p, rng))
        replaced = replace_by_synonyms(words, p, {word: ["§"] for word in words}, rng)
        counts["replaced"] += replaced.count("§")
    _assert_share(counts["inserted"], total, p)
    _assert_share(counts["replaced"], total, p)
    if p == 1.0:
        assert counts["deleted"] == total - len(captions)  # the one word that every caption keeps
    else:  # one-word captions keep theirs, so a little less is deleted
        single = sum(len(caption_words(caption)) == 1 for caption in captions)
        assert single < 0.05 * total
        _assert_share(counts["deleted"] + round(single * p), total, p)


@pytest.mark.parametrize("p", [0.0, 0.1, 1.0])
def test_each_word_starts_a_swap_with_its_probability(p):
    class Counting:
        """A generator that counts the single draws: one a swap, of its partner."""

        def __init__(self):
            self.rng, self.swaps = _rng(2), 0

        def random(self, *size):
            self.swaps += not size
            return self.rng.random(*size)

    rng = Counting()
    for _ in range(2000):
        assert sorted(swap_words(THIRTY, p, rng)) == sorted(THIRTY)
    _assert_share(rng.swaps, 2000 * 30, p)


def test_the_partner_of_a_swap_is_any_other_word():
    partners, runs = Counter(), 6000
    for seed in range(runs):
        words = list("abcd")
        swapped = swap_words(words, 0.05, _rng(3, seed))
        moved = tuple(here for here, (old, new) in enumerate(zip(words, swapped, strict=True)) if old != new)
        if len(moved) == 2:
            partners[moved] += 1
    assert set(partners) == {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}
    assert max(partners.values()) < 1.4 * min(partners.values())


def test_inserted_words_stand_behind_the_words_and_are_drawn_uniformly():
    drawn = Counter()
    for seed in range(500):
        result = insert_words(WORDS, 1.0, ["x", "y", "z"], _rng(4, seed))
        assert result[::2] == WORDS
        drawn.update(result[1::2])
    for word in "xyz":
        _assert_share(drawn[word], 3500, 1 / 3)


def test_a_synonym_is_any_of_those_of_the_word():
    synonyms = {"dog": ["hound", "domestic dog"]}
    drawn = Counter(replace_by_synonyms(["dog"], 1.0, synonyms, _rng(5, seed))[0] for seed in range(1000))
    assert set(drawn) == {"hound", "domestic dog"}
    _assert_share(drawn["hound"], 1000, 0.5)


# ----------------------------------------------------------------------------------------------- shares of captions


@pytest.mark.parametrize("p_eda", [0.0, 0.4, 0.9936, 1.0])
def test_the_share_of_captions_manipulated_is_p_eda_and_the_four_ways_are_equally_likely(p_eda, captions):
    # At probability 1 each way leaves its mark: a word of the vocabulary, a single word, a synonym, the same words.
    eda = _eda(p_eda=p_eda, p_ins=1.0, p_del=1.0, p_syn=1.0, p_swp=1.0, vocabulary=["§"])
    ways, rng = Counter(), _rng(6)
    captions = [caption for caption in captions if len(set(caption_words(caption))) > 2]
    for caption in captions:
        words = caption_words(caption)
        eda.synonyms = dict.fromkeys(words, ["%"])
        found = eda(caption, rng)
        if found == caption:  # the real ones are written with a capital letter, so this is no chance result of a swap
            ways["none"] += 1
        elif "§" in found:
            ways["insert"] += 1
        elif "%" in found:
            ways["synonym"] += 1
        elif len(found.split()) == 1:
            ways["delete"] += 1
        else:
            assert sorted(found.split()) == sorted(words)
            ways["swap"] += 1
    lost = 0.002 * len(captions)  # swaps in captions of few words that end where they began
    assert abs(ways["none"] - (1 - p_eda) * len(captions)) <= 4 * np.sqrt(len(captions) / 4) * min(1, p_eda) + lost
    for way in ("insert", "synonym", "delete", "swap"):
        assert abs(ways[way] - p_eda / 4 * len(captions)) <= 4 * np.sqrt(len(captions) * 3 / 16) * min(1, p_eda) + lost


def test_no_caption_becomes_empty(captions):
    eda, rng = _eda(p_del=1.0), _rng(7)
    assert all(eda(caption, rng).strip() for caption in captions)


# --------------------------------------------------------------------------------------------------------- captions


def test_captions_are_normalised_as_the_paper_does():
    assert caption_words("A man's dog -- 2 of them!  Barks.") == ["a", "mans", "dog", "2", "of", "them", "barks"]
    assert vocabulary(["A dog.", "The dog's 2 barks"]) == ["2", "a", "barks", "dog", "dogs", "the"]


@pytest.mark.parametrize("caption", ["Thunder", "It's 3 o'clock!", " ".join(THIRTY), "a of the", "The, the."])
def test_any_caption_stays_a_caption(caption):
    known = {*caption_words(caption), "tree", "42"}
    for seed in range(300):
        found = _eda(p_del=0.9)(caption, _rng(8, seed))
        assert found.strip()
        assert set(caption_words(found)) <= known


def test_a_single_word_survives_deletion_and_swap():
    assert delete_words(["thunder"], 1.0, _rng(0)) == ["thunder"]
    assert swap_words(["thunder"], 1.0, _rng(0)) == ["thunder"]


@pytest.mark.parametrize("caption", ["", "  ", "?!"])
def test_a_caption_without_words_is_returned_as_it_is(caption):
    assert all(_eda()(caption, _rng(seed)) == caption for seed in range(20))


def test_nothing_changes_at_probability_zero_but_the_normalisation():
    eda = _eda(p_syn=0.0, p_swp=0.0, p_ins=0.0, p_del=0.0)
    assert {eda("A dog barks.", _rng(seed)) for seed in range(50)} == {"a dog barks"}
    assert _eda(p_eda=0.0)("A dog barks.", _rng(0)) == "A dog barks."


# ----------------------------------------------------------------------------------------------------- random state


def test_the_random_state_is_the_callers_and_the_global_ones_stay_untouched():
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    first = [_eda()(" ".join(WORDS), _rng(seed)) for seed in range(50)]
    assert random.getstate() == before[0]
    assert all(np.array_equal(now, then) for now, then in zip(np.random.get_state(), before[1], strict=True))
    assert torch.equal(torch.get_rng_state(), before[2])
    random.seed(1), np.random.seed(1)
    assert [_eda()(" ".join(WORDS), _rng(seed)) for seed in range(50)] == first
    assert len(set(first)) > 20
