"""Easy Data Augmentation (section 5 of the paper, after Wei & Zou, 2019): four manipulations of the words of a caption.

This is plain code and not nlpaug, whose word augmenters change a fixed share of the words, while the paper gives every
word its own probability. They also draw from the global random states, and `RandomWordAug` has no insertion.
`integrations/nlpaug.py` makes augmenters of nlpaug of it.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..processing_cnn10bert import caption_words


def vocabulary(captions: Iterable[str]) -> list[str]:
    """Return the distinct words of captions, sorted."""
    return sorted({word for caption in captions for word in caption_words(caption)})


def insert_words(words: Sequence[str], p_ins: float, vocabulary: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Insert after each word, with probability `p_ins`, one drawn uniformly from the vocabulary."""
    result = []
    for word, chosen in zip(words, _chosen(words, p_ins, rng), strict=True):
        result.append(word)
        if chosen:
            result.append(vocabulary[_uniform(len(vocabulary), rng)])
    return result


def delete_words(words: Sequence[str], p_del: float, rng: np.random.Generator) -> list[str]:
    """Delete each word with probability `p_del`. If none would be left, keep one, drawn uniformly."""
    kept = [word for word, chosen in zip(words, _chosen(words, p_del, rng), strict=True) if not chosen]
    return kept or [words[_uniform(len(words), rng)]]


def swap_words(words: Sequence[str], p_swp: float, rng: np.random.Generator) -> list[str]:
    """Swap each word, with probability `p_swp`, with another of the sentence, drawn uniformly. A single word stays."""
    words = list(words)
    for here, chosen in enumerate(_chosen(words, p_swp, rng)):
        if chosen and len(words) > 1:
            there = (here + 1 + _uniform(len(words) - 1, rng)) % len(words)
            words[here], words[there] = words[there], words[here]
    return words


def replace_by_synonyms(
    words: Sequence[str], p_syn: float, synonyms: Mapping[str, Sequence[str]], rng: np.random.Generator
) -> list[str]:
    """Replace each word that has synonyms, with probability `p_syn`, by one of them, drawn uniformly."""
    words = list(words)
    for index, chosen in enumerate(_chosen(words, p_syn, rng)):
        if chosen and (choices := synonyms.get(words[index])):
            words[index] = choices[_uniform(len(choices), rng)]
    return words


def _chosen(words: Sequence[str], probability: float, rng: np.random.Generator) -> list[bool]:
    """Draw for each word whether it is changed."""
    return [draw < probability for draw in rng.random(len(words)).tolist()]


def _uniform(count: int, rng: np.random.Generator) -> int:
    """Draw one of 0 ... count - 1, several times as fast as `rng.integers`."""
    return int(rng.random() * count)


class EDA:
    """
    Apply, with probability `p_eda`, one of the four manipulations, drawn uniformly (section 5 of the paper).

    Args:
        p_eda: share of the captions that are manipulated.
        p_syn, p_swp, p_ins, p_del: share of a caption's words that synonym replacement, swap, insertion and deletion
            apply to.
        vocabulary: the words to insert.
        synonyms: word -> its synonyms, for the words that have any.
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
        """Return a caption as it is, or normalized and manipulated; never empty unless it had no word."""
        if rng.random() >= self.p_eda:
            return caption
        words = caption_words(caption)
        if not words:
            return caption
        match _uniform(4, rng):
            case 0:
                words = insert_words(words, self.p_ins, self.vocabulary, rng)
            case 1:
                words = delete_words(words, self.p_del, rng)
            case 2:
                words = swap_words(words, self.p_swp, rng)
            case 3:
                words = replace_by_synonyms(words, self.p_syn, self.synonyms, rng)
        return " ".join(words)
