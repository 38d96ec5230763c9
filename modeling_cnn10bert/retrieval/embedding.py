"""Recordings and captions to embeddings: what a search engine needs of a model, whatever runs it."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from .records import ModelIdentity


class Embedder(Protocol):
    """
    A model that embeds recordings and captions in one space.

    Attributes:
        identity: which model it is.
        sampling_rate: of the waveforms, in Hz.
    """

    identity: ModelIdentity
    sampling_rate: int

    def embed_audio(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Mono waveforms [samples] float32 at `sampling_rate` -> [N, D] float32, L2-normalised, in their order.

        An embedding does not depend on what else is embedded with it (1e-5).
        """

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """Captions -> [N, D] float32, L2-normalised, in their order.

        Raises:
            RetrievalError: a text without a word.
        """
