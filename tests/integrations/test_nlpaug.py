"""The paper's text augmentations are augmenters of nlpaug, alone and in its flows."""

import random
from collections import Counter

import numpy as np
import pytest
from nlpaug.augmenter.char import KeyboardAug
from nlpaug.augmenter.word import RandomWordAug
from nlpaug.flow import Sequential, Sometimes

from modeling_cnn10bert.augmentation.eda import EDA
from modeling_cnn10bert.integrations.nlpaug import (
    BackTranslationAug,
    DeletionAug,
    EDAAug,
    InsertionAug,
    StoredBackTranslationAug,
    SwapAug,
    SynonymAug,
)

CAPTION = "A dog barks, while rain falls."
WORDS = ["a", "dog", "barks", "while", "rain", "falls"]
ALWAYS = {  # at probability 1, what holds for each result
    "insertion": (InsertionAug(1.0, ["tree"]), lambda words: words[::2] == WORDS and set(words[1::2]) == {"tree"}),
    "deletion": (DeletionAug(1.0), lambda words: len(words) == 1 and words[0] in WORDS),
    "swap": (SwapAug(1.0), lambda words: sorted(words) == sorted(WORDS)),
    "synonym": (SynonymAug(1.0, {"dog": ["hound"]}), lambda words: words == ["a", "hound", *WORDS[2:]]),
}


@pytest.fixture(autouse=True)
def seeds():
    """nlpaug draws from the global states."""
    states = random.getstate(), np.random.get_state()
    random.seed(0)
    np.random.seed(0)
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])


@pytest.mark.parametrize("in_a_flow", [False, True])
@pytest.mark.parametrize("name", ALWAYS)
def test_each_manipulation_changes_the_words_as_its_name_says(name, in_a_flow):
    augmenter, holds = ALWAYS[name]
    augmenter = Sequential([augmenter]) if in_a_flow else augmenter
    results = [augmenter.augment(CAPTION) for _ in range(20)]
    assert all(len(texts) == 1 and holds(texts[0].split()) for texts in results)
    several = augmenter.augment([CAPTION] * 3) if not in_a_flow else []
    assert all(holds(text.split()) for text in several)


@pytest.mark.parametrize("augmenter", [augmenter for augmenter, _ in ALWAYS.values()], ids=ALWAYS)
def test_a_caption_without_a_word_stays(augmenter):
    assert augmenter.augment("...") == ["..."]
    assert augmenter.augment("") == []  # as nlpaug's own


def test_a_probability_is_that_of_each_word():
    counts = Counter(len(DeletionAug(0.25).augment(" ".join(["word"] * 100))[0].split()) for _ in range(200))
    mean = sum(left * count for left, count in counts.items()) / 200
    assert abs(mean - 75) < 4 * np.sqrt(100 * 0.25 * 0.75 / 200)  # four standard errors


def test_eda_as_a_whole_is_the_plain_one():
    eda = EDA(0.8, 0.3, 0.3, 0.3, 0.3, ["tree", "car"], {"dog": ["hound"]})
    seeds = [np.random.RandomState(3).randint(2**32, size=4, dtype=np.uint32)]
    np.random.seed(3)
    assert EDAAug(eda).augment(CAPTION) == [eda(CAPTION, np.random.default_rng(seeds[0]))]
    unchanged = sum(EDAAug(EDA(0.5, 0, 0, 0, 0, [], {})).augment(CAPTION) == [CAPTION] for _ in range(400))
    assert abs(unchanged - 200) < 40  # four standard deviations; the others are normalized


def test_a_flow_combines_ours_with_those_of_nlpaug():
    flow = Sequential([Sometimes([RandomWordAug(action="swap")]), SwapAug(0.5), DeletionAug(0.3), KeyboardAug()])
    texts = {flow.augment(CAPTION)[0] for _ in range(20)}
    assert len(texts) > 15 and all(isinstance(text, str) for text in texts)
    random.seed(1)
    np.random.seed(1)
    once = [flow.augment(CAPTION) for _ in range(5)]
    random.seed(1)
    np.random.seed(1)
    assert [flow.augment(CAPTION) for _ in range(5)] == once


def test_stored_back_translations_are_chosen_with_their_probability():
    augmenter = StoredBackTranslationAug(0.5, {CAPTION: ["one", "two"]})
    counts = Counter(augmenter.augment(CAPTION)[0] for _ in range(800))
    assert counts.keys() == {CAPTION, "one", "two"}
    assert abs(counts[CAPTION] - 400) < 4 * np.sqrt(200)
    assert augmenter.augment("another caption") == ["another caption"]


def test_captions_are_translated_in_one_batch():
    batches = []

    def upper(sentences):
        batches.append(list(sentences))
        return [sentence.upper() for sentence in sentences]

    def back(sentences):
        return ["" if "RAIN" in sentence else f"{sentence} \n again" for sentence in sentences]

    augmenter = BackTranslationAug(upper, back)
    assert augmenter.augment(["a dog", "rain"]) == ["A DOG again", "rain"]
    assert augmenter.augment("a dog") == ["A DOG again"]
    assert Sequential([augmenter]).augment("a dog") == ["A DOG again"]
    assert batches[0] == ["a dog", "rain"]
