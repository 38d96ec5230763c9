"""Easy Data Augmentation (section 5 of the paper, after Wei & Zou, 2019): four manipulations of the words of a caption.

Plain code, not nlpaug: its word augmenters change a drawn number of words between a least and a most, where the paper
gives every word a probability of its own; they draw from Python's global random state; and its `RandomWordAug` has no
insertion.
"""

import string
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def caption_words(caption: str) -> list[str]:
    """The words of a caption, normalised as section 6.1 of the paper says: lower-case, punctuation deleted."""
    return caption.lower().translate(_NO_PUNCTUATION).split()


def vocabulary(captions: Iterable[str]) -> list[str]:
    """The distinct words of captions, sorted."""
    return sorted({word for caption in captions for word in caption_words(caption)})


def insert_words(words: Sequence[str], p_ins: float, vocabulary: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Behind each word, with probability `p_ins`, inserts one drawn uniformly from the vocabulary."""
    chosen = rng.random(len(words)) < p_ins
    inserted = iter(rng.integers(len(vocabulary), size=chosen.sum()))
    result = []
    for word, insert in zip(words, chosen, strict=True):
        result.append(word)
        if insert:
            result.append(vocabulary[next(inserted)])
    return result


def delete_words(words: Sequence[str], p_del: float, rng: np.random.Generator) -> list[str]:
    """Deletes each word with probability `p_del`; should none be left, one drawn uniformly stays."""
    kept = [word for word, drawn in zip(words, rng.random(len(words)), strict=True) if drawn >= p_del]
    return kept or [words[rng.integers(len(words))]]


def swap_words(words: Sequence[str], p_swp: float, rng: np.random.Generator) -> list[str]:
    """Swaps each word, with probability `p_swp`, with another of the sentence, drawn uniformly. A single word stays."""
    words = list(words)
    if len(words) < 2:
        return words
    for here in np.flatnonzero(rng.random(len(words)) < p_swp):
        there = (here + rng.integers(1, len(words))) % len(words)
        words[here], words[there] = words[there], words[here]
    return words


def replace_by_synonyms(
    words: Sequence[str], p_syn: float, synonyms: Mapping[str, Sequence[str]], rng: np.random.Generator
) -> list[str]:
    """Replaces each word that has synonyms, with probability `p_syn`, by one of them, drawn uniformly."""
    words = list(words)
    for index in np.flatnonzero(rng.random(len(words)) < p_syn):
        choices = synonyms.get(words[index])
        if choices:
            words[index] = choices[rng.integers(len(choices))]
    return words


class EDA:
    """
    With probability `p_eda`, one of the four manipulations, each as likely as the others (section 5 of the paper).

    Args:
        p_eda: share of the captions that are manipulated.
        p_syn, p_swp, p_ins, p_del: share of the words that synonym replacement, swap, insertion and deletion each apply
            to in the captions that it is chosen for.
        vocabulary: the words to insert.
        synonyms: of the words that have any.
    """

    def __init__(
        self,
        p_eda: float,
        p_syn: float,
        p_swp: float,
        p_ins: float,
        p_del: float,
        vocabulary: Sequence[str],
        synonyms: Mapping[str, Sequence[str]],
    ):
        self.p_eda, self.p_syn, self.p_swp, self.p_ins, self.p_del = p_eda, p_syn, p_swp, p_ins, p_del
        self.vocabulary, self.synonyms = vocabulary, synonyms

    def __call__(self, caption: str, rng: np.random.Generator) -> str:
        """A caption as it is, or normalised and manipulated; never empty unless it had no word."""
        if rng.random() >= self.p_eda:
            return caption
        words = caption_words(caption)
        if not words:
            return caption
        match rng.integers(4):
            case 0:
                words = insert_words(words, self.p_ins, self.vocabulary, rng)
            case 1:
                words = delete_words(words, self.p_del, rng)
            case 2:
                words = swap_words(words, self.p_swp, rng)
            case 3:
                words = replace_by_synonyms(words, self.p_syn, self.synonyms, rng)
        return " ".join(words)
