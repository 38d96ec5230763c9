"""The text augmentation pipeline of the paper (section 5, table 1) for one caption."""

from collections.abc import Sequence

import numpy as np

from .back_translation import choose_variant
from .eda import EDA
from .text_augmenter import TextAugmenter


class TextAugmentation:
    """
    Apply back-translation, then EDA (section 5 of the paper), then an augmenter that a recipe names.

    Args:
        p_bt: probability of a back-translation in place of the caption.
        eda: applied to either, or `None`.
        augmenter: applied to the result, or `None`.
    """

    def __init__(self, p_bt: float, eda: EDA | None, augmenter: TextAugmenter | None = None):
        self.p_bt, self.eda, self.augmenter = p_bt, eda, augmenter

    def __call__(self, caption: str, variants: Sequence[str], rng: np.random.Generator) -> str:
        """Augment a caption, given its back-translations, one per language, and the source of randomness."""
        if self.p_bt:
            caption = choose_variant(caption, variants, rng, self.p_bt)
        if self.eda is not None:
            caption = self.eda(caption, rng)
        return caption if self.augmenter is None else self.augmenter(caption, rng)
