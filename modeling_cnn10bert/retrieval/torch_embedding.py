"""Embed with PyTorch, using any transformers model with an audio and a text tower."""

import functools
import inspect
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, AutoProcessor
from transformers.utils import logging

from ..adapters import adapter_base, merge_adapter
from ..errors import RetrievalError, one_line
from ..registration import register
from .identity import feature_parameters, hub_commit, weights_fingerprint
from .model_inputs import ModelInputs, gather, model_faults
from .records import ModelIdentity

METHODS = ("get_audio_features", "get_text_features")


class TorchEmbedder:
    """
    A transformers model with `get_audio_features` and `get_text_features`, and its processor.

    Args:
        model: is moved to `device` and set to evaluation mode.
        processor: holds a `feature_extractor` and a `tokenizer`.
        identity: identifies the model.
        device: the device it runs on.
        dtype: `float32`, or `bfloat16` by autocast.
        batch_size: maximum number of recordings or texts in a batch.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        processor,
        identity: ModelIdentity,
        *,
        device: str | torch.device = "cpu",
        dtype: str = "float32",
        batch_size: int = 32,
    ):
        self.identity = identity
        self.device = torch.device(device)
        self.dtype = getattr(torch, dtype)
        self.model = model.to(self.device).eval()
        if self.device.type == "cpu":  # a tenth to a half faster through CNN10
            self.model.to(memory_format=torch.channels_last)
        self.processor = processor
        self._inputs = ModelInputs(processor, _longest_text(model.config), batch_size, str(self.device))
        self.sampling_rate = self._inputs.sampling_rate

    @classmethod
    def from_pretrained(
        cls,
        model: str,
        *,
        device: str | None = None,
        dtype: str = "float32",
        revision: str | None = None,
        trust_remote_code: bool = False,
        batch_size: int = 32,
    ) -> "TorchEmbedder":
        """Load a folder or Hub id; see `load_embedder`."""
        register()
        given = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            torch.empty(0, device=given)
        except (RuntimeError, AssertionError, NotImplementedError) as error:  # a build without CUDA asserts
            raise RetrievalError(
                f"device is {given!r}, which cannot be used here ({str(error).splitlines()[0]}); leave it out"
            ) from error
        in_folder = os.path.isdir(model)
        with ThreadPoolExecutor(1) as executor:  # hashing 460 MB takes 0.4 s, in which a second core can load them
            digest = executor.submit(weights_fingerprint, model) if in_folder else None
            network, config, processor = _load_whole(model, revision, trust_remote_code)
        identity = ModelIdentity(
            name=os.path.abspath(model) if in_folder else model,
            revision=hub_commit(model, revision),
            fingerprint=weights_fingerprint(model, revision) if digest is None else digest.result(),
            dimension=_dimension(network, config),
            features=feature_parameters(processor.feature_extractor),
        )
        return cls(network, processor, identity, device=given, dtype=dtype, batch_size=batch_size)

    def embed_audio(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Embed mono waveforms [samples] float32 at `sampling_rate` -> [N, D] float32, L2-normalized, in their order.

        Raises:
            RetrievalError: a waveform is not mono, is empty, or is not of finite floats.
        """
        return self._embed(self.model.get_audio_features, self._inputs.audio(waveforms), len(waveforms))

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """Embed captions -> [N, D] float32, L2-normalized, in their order.

        Raises:
            RetrievalError: a text without a word.
        """
        return self._embed(self.model.get_text_features, self._inputs.text(texts), len(texts))

    @property
    def frame_samples(self) -> int:
        """Return the samples from one frame of `embed_frames` to the next.

        Raises:
            RetrievalError: the model has no embeddings of frames.
        """
        if not hasattr(self.model, "get_audio_frame_features"):
            raise RetrievalError(
                f"{self.identity.name} is a {type(self.model).__name__}, which embeds whole recordings only; expected "
                "a CNN10BertModel, which embeds frames too; make an index with such a model, or search without moments"
            )
        # Each block halves the number of frames.
        config: Any = self.model.config
        return config.audio_config.min_frames * self._inputs.feature_extractor.hop_length

    def embed_frames(self, waveform: np.ndarray, context_frames: int = 1) -> np.ndarray:
        """
        Embed each frame of a mono waveform [samples] float32 -> [T, D] float32, L2-normalized.

        Args:
            waveform: at `sampling_rate`. Frame t begins at sample t * `frame_samples`.
            context_frames: odd; see `CNN10BertModel.get_audio_frame_features`.

        Raises:
            RetrievalError: the model has no embeddings of frames, or the waveform is not as in `embed_audio`.
        """
        [batch] = self._inputs.audio([waveform])
        frame_features: Any = self.model.get_audio_frame_features
        tower = functools.partial(frame_features, context_frames=context_frames)
        with model_faults(self.identity):
            return self._run(tower, batch.arguments)[0]

    def is_cut(self, text: str) -> bool:
        """Tell whether the model truncates a text."""
        return self._inputs.is_cut(text)

    def unknown_words(self, text: str) -> list[str]:
        """Return the words of a text that the tokenizer does not know."""
        return self._inputs.unknown_words(text)

    def _embed(self, tower, batches, count: int) -> np.ndarray:
        # A tokenizer may return inputs that the model does not take.
        names = inspect.signature(tower).parameters
        embeds = (
            (batch.rows, self._run(tower, {name: array for name, array in batch.arguments.items() if name in names}))
            for batch in batches
        )
        with model_faults(self.identity):
            return gather(embeds, count, self.identity.dimension)

    @torch.inference_mode()
    def _run(self, tower, arguments: dict[str, np.ndarray]) -> np.ndarray:
        tensors = {name: torch.from_numpy(array).to(self.device) for name, array in arguments.items()}
        half = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16)
        # On CUDA, convolutions would round float32 to TF32's 10 bits.
        exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with half, exact:
            output = tower(**tensors)
        embeds = output if isinstance(output, torch.Tensor) else output.pooler_output
        return F.normalize(embeds.float(), dim=-1).cpu().numpy()


def _load_whole(model: str, revision: str | None, trust_remote_code: bool):
    """Load the network, its configuration and its processor, and check that they can embed."""
    adapter, base = model, adapter_base(model)
    source = {"revision": revision, "trust_remote_code": trust_remote_code}
    if base is not None:
        model, source["revision"] = base, None
    config = _load(AutoConfig, model, **source)
    bar_was_shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        network, report = _load(
            AutoModel, model, config=config, dtype=torch.float32, output_loading_info=True, **source
        )
    finally:
        if bar_was_shown:
            logging.enable_progress_bar()
    if missing := [method for method in METHODS if not hasattr(network, method)]:
        raise RetrievalError(
            f"{model} is a {type(network).__name__}, which has no {' and no '.join(missing)}; expected a model "
            "that embeds recordings and captions in one space, such as CNN10BertModel or ClapModel"
        )
    if missing := sorted(report["missing_keys"]):  # they would silently be random
        raise RetrievalError(
            f"{model} lacks {len(missing)} weights of a {type(network).__name__} ({', '.join(missing[:5])}, ...); "
            "save the whole model again"
        )
    processor = _load(AutoProcessor, model, **source)
    if not hasattr(processor, "feature_extractor") or not hasattr(processor, "tokenizer"):
        raise RetrievalError(
            f"{model}: found a {type(processor).__name__}, expected a processor with a feature extractor and a "
            "tokenizer; save the model's processor into its folder"
        )
    if base is not None:
        network = merge_adapter(network, adapter)
    return network, config, processor


def _load(auto_class, model: str, **arguments):
    """Load from a folder or Hub id with an Auto class."""
    try:
        return auto_class.from_pretrained(model, **arguments)
    except Exception as error:  # the code of a model may raise anything
        reason = one_line(error)
        raise RetrievalError(
            f"cannot load {model} by {auto_class.__name__}: {reason} Give the folder of a saved model with its "
            "processor, or the id of one on the Hub that this machine can reach or has in its cache"
        ) from error


def _dimension(network, config) -> int:
    """Return the width of the embeddings from the configuration, or else from a probe."""
    if isinstance(width := getattr(config, "projection_dim", None), int):
        return width
    with torch.inference_mode():
        output = network.eval().get_text_features(input_ids=torch.tensor([[0]]))
    return int((output if isinstance(output, torch.Tensor) else output.pooler_output).shape[-1])


def _longest_text(config) -> int | None:
    """Return the number of positions of the text tower; RoBERTa's begin after the padding token."""
    text = getattr(config, "text_config", config)
    positions = getattr(text, "max_position_embeddings", None)
    if positions is None:
        return None
    offset = text.model_type == "clap_text_model" or "roberta" in text.model_type
    return positions - (text.pad_token_id + 1 if offset else 0)
