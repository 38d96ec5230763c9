"""A model of this package in a folder: questions at once, everything else by the whole model when it is needed."""

import json
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .identity import feature_fields, model_name, weights_fingerprint
from .model_inputs import check_text, model_faults
from .records import ModelIdentity
from .text_tower import TextTower

FEW_TEXTS = 8  # for more, batches and the time to load the whole model pay
MAX_TOKENS = 32  # that the model's processor reads of a text, as in section 6.1 of the paper


class CheckpointEmbedder:
    """
    The embedder of a folder that `TextTower.reads`.

    Args:
        folder: of the saved model and its processor.
        options: keyword arguments of `TorchEmbedder.from_pretrained`, which loads the whole model when recordings, or
            many texts, are to be embedded.
    """

    def __init__(self, folder: str, **options):
        self.folder = folder
        self._options = options
        self._whole = None
        self._tower: TextTower | None = None
        self._lock = threading.Lock()
        config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
        processor = json.loads(Path(folder, "processor_config.json").read_text(encoding="utf-8"))
        self.sampling_rate = int(processor["feature_extractor"]["sampling_rate"])
        self.identity = ModelIdentity(
            name=model_name(folder),
            revision=None,
            fingerprint=weights_fingerprint(folder),
            dimension=config["projection_dim"],
            features=feature_fields(processor["feature_extractor"]),
        )

    @staticmethod
    def reads(folder: str) -> bool:
        """Whether a folder holds such a model with its processor."""
        try:
            processor = json.loads(Path(folder, "processor_config.json").read_text(encoding="utf-8"))
            complete = processor["feature_extractor"]["feature_extractor_type"] == "CNN10FeatureExtractor"
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return complete and TextTower.reads(folder)

    def is_cut(self, text: str) -> bool:
        """Whether the model reads only the beginning of a text."""
        return bool(self._text_tower().tokenizer.encode(text).overflowing)

    def embed_audio(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Mono waveforms [samples] float32 at `sampling_rate` -> [N, D] float32, L2-normalised, in their order.

        Raises:
            RetrievalError: a waveform that is not mono, empty, or not of finite floats.
        """
        return self._whole_model().embed_audio(waveforms)

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """Captions -> [N, D] float32, L2-normalised, in their order.

        Raises:
            RetrievalError: a text without a word.
        """
        if len(texts) > FEW_TEXTS:
            return self._whole_model().embed_text(texts)
        for text in texts:
            check_text(text)
        if not len(texts):
            return np.zeros((0, self.identity.dimension), np.float32)
        with model_faults(self.identity):
            return self._text_tower()(texts)

    def _text_tower(self) -> TextTower:
        with self._lock:
            if self._tower is None:
                self._tower = TextTower.from_folder(self.folder, MAX_TOKENS)
            return self._tower

    def _whole_model(self):
        with self._lock:
            if self._whole is None:
                from .torch_embedding import TorchEmbedder

                self._whole = TorchEmbedder.from_pretrained(self.folder, **self._options)
            return self._whole
