"""The paper's text augmentations as augmenters of nlpaug, to be combined with nlpaug's own in its flows.

    from nlpaug.augmenter.char import KeyboardAug
    from nlpaug.flow import Sequential
    from modeling_cnn10bert.integrations.nlpaug import DeletionAug, SwapAug

    flow = Sequential([SwapAug(0.1), DeletionAug(0.2), KeyboardAug()])
    flow.augment("A dog barks while rain falls.")

The augmentations themselves are the plain code of `augmentation`. Like nlpaug's, these augmenters draw from numpy's
global state. A recipe names a flow in the field `text_augmenter`, which keys all draws.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from nlpaug.augmenter.word import WordAugmenter
from nlpaug.util import Action

from ..augmentation.back_translation import Translator, choose_variant, round_trip
from ..augmentation.eda import EDA, delete_words, insert_words, replace_by_synonyms, swap_words
from ..processing_cnn10bert import caption_words


class CaptionAugmenter(WordAugmenter):
    """Base of our augmenters, which implement `change`."""

    def __init__(self, action: str, probability: float):
        super().__init__(action=action, name=type(self).__name__, aug_p=probability)

    def change(self, caption: str, rng: np.random.Generator) -> str:
        """Augment a caption that has a word."""
        return " ".join(self.change_words(caption_words(caption), rng))

    def change_words(self, words: list[str], rng: np.random.Generator) -> list[str]:
        """Augment the normalized words of a caption, of which there is at least one."""
        raise NotImplementedError

    def _changed(self, caption: str) -> str:
        if not caption_words(caption):
            return caption
        return self.change(caption, np.random.default_rng(np.random.randint(2**32, size=4, dtype=np.uint32)))

    # nlpaug calls the method that is named after the action.
    insert = substitute = swap = delete = _changed


class InsertionAug(CaptionAugmenter):
    """Insert after each word, with probability `p_ins`, one drawn from `vocabulary`."""

    def __init__(self, p_ins: float, vocabulary: Sequence[str]):
        super().__init__(Action.INSERT, p_ins)
        self.vocabulary = vocabulary

    def change_words(self, words: list[str], rng: np.random.Generator) -> list[str]:
        return insert_words(words, self.aug_p, self.vocabulary, rng)


class DeletionAug(CaptionAugmenter):
    """Delete each word with probability `p_del`, but never all."""

    def __init__(self, p_del: float):
        super().__init__(Action.DELETE, p_del)

    def change_words(self, words: list[str], rng: np.random.Generator) -> list[str]:
        return delete_words(words, self.aug_p, rng)


class SwapAug(CaptionAugmenter):
    """Swap each word, with probability `p_swp`, with another one of the caption."""

    def __init__(self, p_swp: float):
        super().__init__(Action.SWAP, p_swp)

    def change_words(self, words: list[str], rng: np.random.Generator) -> list[str]:
        return swap_words(words, self.aug_p, rng)


class SynonymAug(CaptionAugmenter):
    """Replace each word that has synonyms, with probability `p_syn`, by one of them."""

    def __init__(self, p_syn: float, synonyms: Mapping[str, Sequence[str]]):
        super().__init__(Action.SUBSTITUTE, p_syn)
        self.synonyms = synonyms

    def change_words(self, words: list[str], rng: np.random.Generator) -> list[str]:
        return replace_by_synonyms(words, self.aug_p, self.synonyms, rng)


class EDAAug(CaptionAugmenter):
    """Apply the whole EDA, whose probabilities and words are those of `eda`."""

    def __init__(self, eda: EDA):
        super().__init__(Action.SUBSTITUTE, eda.p_eda)
        self.eda = eda

    def change(self, caption: str, rng: np.random.Generator) -> str:
        return self.eda(caption, rng)


class StoredBackTranslationAug(CaptionAugmenter):
    """Choose, with probability `p_bt`, one of the back-translations of the caption, where it has any."""

    def __init__(self, p_bt: float, back_translations: Mapping[str, Sequence[str]]):
        super().__init__(Action.SUBSTITUTE, p_bt)
        self.back_translations = back_translations

    def change(self, caption: str, rng: np.random.Generator) -> str:
        return choose_variant(caption, self.back_translations.get(caption, ()), rng, self.aug_p)


class BackTranslationAug(WordAugmenter):
    """
    Translate captions to another language and back, such as by `marian_pair("de")`.

    This is far too slow to be a part of training: `cnn10bert back-translate` stores the translations once. nlpaug hands
    all captions at once to a class of this name.
    """

    def __init__(self, forth: Translator, back: Translator):
        super().__init__(Action.SUBSTITUTE, name=type(self).__name__, aug_p=1.0)
        self.forth, self.back = forth, back

    def substitute(self, data: str | list[str]) -> list[str]:
        captions = [data] if isinstance(data, str) else data
        variants = round_trip(captions, self.forth, self.back)
        return [variant if caption_words(variant) else text for text, variant in zip(captions, variants, strict=True)]
