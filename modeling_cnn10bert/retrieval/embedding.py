"""The interface of an embedding model, for PyTorch and ONNX alike."""

import os
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ..errors import RetrievalError
from ..model_folder import check_model
from .identity import check_same_model
from .records import ModelIdentity

BATCH_SIZE = 32
DTYPES = ("float32", "bfloat16")
BACKENDS = ("auto", "torch", "onnx")


class Embedder(Protocol):
    """
    A model that embeds recordings and captions in one space.

    Attributes:
        identity: identifies the model.
        sampling_rate: sampling rate of the waveforms, in Hz.
    """

    identity: ModelIdentity
    sampling_rate: int

    def embed_audio(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Embed mono waveforms [samples] float32 at `sampling_rate` -> [N, D] float32, L2-normalized, in their order.

        An embedding does not depend on the rest of the batch (1e-5).
        """

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """Embed captions -> [N, D] float32, L2-normalized, in their order.

        Raises:
            RetrievalError: a text without a word.
        """

    def is_cut(self, text: str) -> bool:
        """Tell whether the model truncates a text."""

    def unknown_words(self, text: str) -> list[str]:
        """Return the words of a text that the tokenizer does not know."""


def load_embedder(
    model: str | os.PathLike,
    *,
    device: str | None = None,
    dtype: str = "float32",
    backend: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    batch_size: int = BATCH_SIZE,
) -> Embedder:
    """
    Load a model as an embedder.

    Args:
        model: folder or Hub id of a `CNN10BertModel`, of any transformers model that has `get_audio_features` and
            `get_text_features`, such as CLAP, or the folder of an ONNX export.
        device: such as `cpu` or `cuda:1`; by default the first CUDA device if there is one.
        dtype: `float32`, which is exact, or `bfloat16` by autocast; the log-mel is always computed in float32.
        backend: `torch`, `onnx`, or `auto`: ONNX if the folder is an export.
        revision: branch, tag or commit on the Hub.
        trust_remote_code: whether to run code that comes with a model.
        batch_size: maximum number of recordings or texts in a batch.

    Raises:
        RetrievalError: no such model, an unsupported kind of model, an unavailable device or precision, or a missing
            package. The message says what to do.
    """
    model = os.fspath(model)
    for name, value, choices in (("dtype", dtype, DTYPES), ("backend", backend, BACKENDS)):
        if value not in choices:
            raise RetrievalError(f"{name} is {value!r}, expected one of {', '.join(choices)}")
    check_model(model, RetrievalError)
    exported = os.path.isfile(os.path.join(model, "onnx_config.json"))
    if backend == "onnx" or (backend == "auto" and exported):
        from .onnx import OnnxEmbedder

        if dtype != "float32":
            raise RetrievalError(f"dtype is {dtype!r}, but an ONNX export runs as it was exported; leave dtype out")
        return OnnxEmbedder(model, device=device, batch_size=batch_size)
    if exported:
        raise RetrievalError(f"{model} is an ONNX export, but backend is 'torch'; leave backend out, or name the model")
    from .torch_embedding import TorchEmbedder  # imports torch and transformers, which a search by ONNX does not need

    return TorchEmbedder.from_pretrained(
        model,
        device=device,
        dtype=dtype,
        revision=revision,
        trust_remote_code=trust_remote_code,
        batch_size=batch_size,
    )


__all__ = ["Embedder", "check_same_model", "load_embedder"]
