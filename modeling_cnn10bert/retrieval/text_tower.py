"""The text half of a saved `CNN10BertModel` in numpy: a question is embedded without torch and transformers, whose
import takes five seconds."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .identity import SAFETENSORS, safetensors_arrays

PREFIXES = ("text_model.", "text_projection.")


class TextTower:
    """
    Embeds texts one by one, as `CNN10BertModel.get_text_features` does (1e-6).

    Args:
        config: of the model, as its config.json holds it.
        weights: name to array of the text network and its projection head, float32.
        tokenizer: a `tokenizers.Tokenizer` that adds [CLS] and [SEP] and truncates.
    """

    def __init__(self, config: dict, weights: dict[str, np.ndarray], tokenizer):
        self.config = config
        self.weights = weights
        self.tokenizer = tokenizer

    @staticmethod
    def reads(folder: str) -> bool:
        """Whether a folder holds a model that can be run here: ours, with a plain BERT, in one file of float32."""
        paths = [os.path.join(folder, name) for name in ("config.json", "tokenizer.json", SAFETENSORS)]
        if not all(map(os.path.isfile, paths)):
            return False
        try:
            config = json.loads(Path(paths[0]).read_text(encoding="utf-8"))
            text = config["text_config"]
            plain = (config["model_type"], text["model_type"], text["hidden_act"]) == ("cnn10bert", "bert", "gelu")
            names = [name for name, array in safetensors_arrays(paths[2]) if array is not None]
        except (OSError, ValueError, KeyError, TypeError):
            return False  # loading it the usual way says what is wrong
        return (
            plain
            and text.get("position_embedding_type", "absolute") == "absolute"
            and f"text_model.encoder.layer.{text['num_hidden_layers'] - 1}.output.LayerNorm.bias" in names
            and "text_projection.out.weight" in names
        )

    @classmethod
    def from_folder(cls, folder: str, max_tokens: int) -> "TextTower":
        """A folder that it `reads`; texts are cut to `max_tokens`, [CLS] and [SEP] among them."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens)
        config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
        arrays = safetensors_arrays(os.path.join(folder, SAFETENSORS))
        return cls(config, {name: array for name, array in arrays if name.startswith(PREFIXES)}, tokenizer)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> [N, D] float32, L2-normalised."""
        return np.stack([self._embed(self.tokenizer.encode(text).ids) for text in texts])

    def _embed(self, tokens: list[int]) -> np.ndarray:
        """Tokens [L] -> [D]."""
        hidden = self._embeddings(tokens)
        for layer in range(self.config["text_config"]["num_hidden_layers"]):
            hidden = self._layer(hidden, f"text_model.encoder.layer.{layer}.")
        pooled = hidden[0] if self.config["text_pooling"] == "cls" else hidden.mean(axis=0)
        projected = np.maximum(self._linear(pooled, "text_projection.dense"), 0)
        projected = self._linear(projected, "text_projection.out")
        return projected / max(float(np.linalg.norm(projected)), 1e-12)

    def _embeddings(self, tokens: list[int]) -> np.ndarray:
        """Tokens [L] -> [L, H]."""
        prefix = "text_model.embeddings."
        words = self.weights[prefix + "word_embeddings.weight"][tokens]
        positions = self.weights[prefix + "position_embeddings.weight"][: len(tokens)]
        first_sentence = self.weights[prefix + "token_type_embeddings.weight"][0]
        return self._norm(words + positions + first_sentence, prefix + "LayerNorm")

    def _layer(self, hidden: np.ndarray, prefix: str) -> np.ndarray:
        """One transformer layer (Devlin et al. 2019): [L, H] to [L, H]."""
        attended = self._linear(self._attention(hidden, prefix + "attention.self."), prefix + "attention.output.dense")
        hidden = self._norm(hidden + attended, prefix + "attention.output.LayerNorm")
        inner = _gelu(self._linear(hidden, prefix + "intermediate.dense"))
        return self._norm(hidden + self._linear(inner, prefix + "output.dense"), prefix + "output.LayerNorm")

    def _attention(self, hidden: np.ndarray, prefix: str) -> np.ndarray:
        """[L, H] to [L, H], the heads side by side."""
        heads = self.config["text_config"]["num_attention_heads"]
        query, key, value = (
            self._linear(hidden, prefix + name).reshape(len(hidden), heads, -1).swapaxes(0, 1)  # [heads, L, H / heads]
            for name in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1])  # [heads, L, L]
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return (weights @ value).swapaxes(0, 1).reshape(len(hidden), -1)

    def _linear(self, rows: np.ndarray, name: str) -> np.ndarray:
        return rows @ self.weights[name + ".weight"].T + self.weights[name + ".bias"]

    def _norm(self, rows: np.ndarray, name: str) -> np.ndarray:
        centred = rows - rows.mean(axis=-1, keepdims=True)
        variance = np.square(centred).mean(axis=-1, keepdims=True)
        scale = np.float32(1) / np.sqrt(variance + np.float32(self.config["text_config"]["layer_norm_eps"]))
        return centred * scale * self.weights[name + ".weight"] + self.weights[name + ".bias"]


def _gelu(rows: np.ndarray) -> np.ndarray:
    from scipy.special import erf

    return rows * (erf(rows * np.float32(math.sqrt(0.5))) + 1) * np.float32(0.5)
