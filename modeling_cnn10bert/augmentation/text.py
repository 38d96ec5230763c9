"""The text augmentation pipeline of the paper (section 5, table 1) for one caption."""

from collections.abc import Sequence

import numpy as np

from .back_translation import choose_variant
from .eda import EDA


class TextAugmentation:
    """
    Apply back-translation, then EDA (section 5 of the paper).

    Args:
        p_bt: probability of a back-translation in place of the caption.
        eda: applied to either, or `None`.
    """

    def __init__(self, p_bt: float, eda: EDA | None):
        self.p_bt, self.eda = p_bt, eda

    def __call__(self, caption: str, variants: Sequence[str], rng: np.random.Generator) -> str:
        """Augment a caption, given its back-translations, one per language, and the source of randomness."""
        if self.p_bt:
            caption = choose_variant(caption, variants, rng, self.p_bt)
        return caption if self.eda is None else self.eda(caption, rng)
