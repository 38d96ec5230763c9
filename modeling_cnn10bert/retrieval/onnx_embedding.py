"""Embeddings by ONNX Runtime, of the folder that `export_onnx` writes."""

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RetrievalError, one_line
from ..model_folder import read_object
from .model_inputs import Batch, ModelInputs, check_text, gather, model_faults
from .records import ModelIdentity

CONFIG_NAME = "onnx_config.json"
AUDIO_NAME, TEXT_NAME = "audio_model.onnx", "text_model.onnx"
FORMAT_VERSION = 1  # of an export; raise it when older code could no longer read what is written
MAX_TOKENS = 32  # of a text, as `CNN10BertProcessor` cuts it
CAPTIONS_IN_A_GROUP = 8  # of similar length: padding costs a CPU as much as words


@dataclasses.dataclass(frozen=True)
class OnnxConfig:
    """
    What `onnx_config.json` says of an export.

    Attributes:
        model: the model that it was made from.
        opset: ONNX's, of both files.
        project_version: that made it.
        files: by tower, `audio` and `text`: `file`, `precision` (`float32` or `int8`), `inputs` and `outputs`, each
            by name with type and shape, of which a name stands for any size.
        format_version: `FORMAT_VERSION` of the code that made it.
    """

    model: ModelIdentity
    opset: int
    project_version: str
    files: dict[str, dict[str, Any]]
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def read(cls, folder: str | os.PathLike) -> "OnnxConfig":
        """
        Raises:
            RetrievalError: the folder holds no export, or one of a newer version.
        """
        path = Path(folder) / CONFIG_NAME
        try:
            path.stat()
            fields = read_object(path, RetrievalError)
            version = fields["format_version"]
            if isinstance(version, bool) or not isinstance(version, int) or version < 1:
                raise TypeError(f"format_version {version!r}")
            if version > FORMAT_VERSION:
                raise RetrievalError(
                    f"{path}: found format_version {version}, expected at most {FORMAT_VERSION}; upgrade cnn10bert"
                )
            for tower in ("audio", "text"):
                file = fields["files"][tower]["file"]
                if not isinstance(file, str) or os.path.basename(file) != file or not (path.parent / file).is_file():
                    raise ValueError(f"{file!r} as the file of the {tower} tower")
            return cls(**{**fields, "model": ModelIdentity.from_dict(fields["model"])})
        except FileNotFoundError as error:
            raise RetrievalError(
                f"{folder}: found no {CONFIG_NAME}, expected an export; export a model there first"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, RetrievalError):
                raise
            raise RetrievalError(f"{path}: found {error!r}, expected an export; export the model again") from error


class OnnxEmbedder:
    """
    An exported model in ONNX Runtime. Each tower is loaded when it is first used.

    Args:
        folder: that `export_onnx` wrote.
        device: `cpu` (the default), or `cuda` with onnxruntime-gpu.
        batch_size: most recordings in a batch.
        threads: of one operation, by default ONNX Runtime's choice: as many as there are cores.

    Raises:
        RetrievalError: no export there, or a package or device that is missing.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        device: str | None = None,
        batch_size: int = 32,
        threads: int | None = None,
    ):
        self.folder = Path(folder)
        self.config = OnnxConfig.read(self.folder)
        self.identity = self.config.model
        self.threads = threads
        self._providers = _providers(device)
        self._batch_size = batch_size
        self._tokenizer = _tokenizer(self.folder)
        self.sampling_rate = _sampling_rate(self.folder)

    def embed_audio(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Mono waveforms [samples] float32 at `sampling_rate` -> [N, D] float32, L2-normalised, in their order.

        Raises:
            RetrievalError: a waveform that is not mono, empty, or not of finite floats.
        """
        batches = self._run(lambda: self._audio_session, self._audio_inputs.audio(waveforms))
        with model_faults(self.identity):
            return gather(batches, len(waveforms), self.identity.dimension)

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """Captions -> [N, D] float32, L2-normalised, in their order.

        Raises:
            RetrievalError: a text without a word.
        """
        batches = self._run(lambda: self._text_session, self._tokens(texts))
        with model_faults(self.identity):
            return gather(batches, len(texts), self.identity.dimension)

    def is_cut(self, text: str) -> bool:
        """Whether the model reads only the beginning of a text."""
        return bool(self._tokenizer.encode(text).overflowing)

    def _tokens(self, texts: Sequence[str]) -> Iterator[Batch]:
        """Texts -> batches of similar length."""
        for text in texts:
            check_text(text)
        order = np.argsort([len(text) for text in texts], kind="stable")
        size = min(self._batch_size, CAPTIONS_IN_A_GROUP)
        for start in range(0, len(texts), size):
            rows = order[start : start + size]
            encoded = self._tokenizer.encode_batch([texts[row] for row in rows])
            tokens = {
                "input_ids": [line.ids for line in encoded],
                "attention_mask": [line.attention_mask for line in encoded],
            }
            yield Batch(rows, {name: np.array(values) for name, values in tokens.items()})

    @functools.cached_property
    def _audio_inputs(self) -> ModelInputs:
        return ModelInputs(_processor(self.folder), batch_size=self._batch_size)

    def _run(self, session: Callable, batches: Iterator[Batch]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for batch in batches:
            names = [given.name for given in session().get_inputs()]
            (embeds,) = session().run(None, {name: as_declared(batch.arguments[name]) for name in names})
            yield batch.rows, embeds

    @functools.cached_property
    def _audio_session(self):
        return self._session("audio")

    @functools.cached_property
    def _text_session(self):
        return self._session("text")

    def _session(self, tower: str):
        runtime = _onnxruntime()
        options = runtime.SessionOptions()
        if self.threads is not None:
            options.intra_op_num_threads = self.threads
        path = self.folder / self.config.files[tower]["file"]
        try:
            return runtime.InferenceSession(str(path), options, providers=self._providers)
        except Exception as error:  # its exceptions have no common class of their own
            raise RetrievalError(f"{path}: {error}; export the model again") from error


def as_declared(array: np.ndarray) -> np.ndarray:
    """Features are float32, tokens and masks int64, whatever a processor makes of them."""
    return array.astype(np.float32 if np.issubdtype(array.dtype, np.floating) else np.int64, copy=False)


def _tokenizer(folder: Path):
    """The tokenizer of the processor, without transformers, which takes seconds to import."""
    from tokenizers import Tokenizer

    path, fields_path = folder / "tokenizer.json", folder / "tokenizer_config.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # it raises no class of its own
        raise RetrievalError(f"{path}: cannot load it: {error}; export the model again") from error
    fields = read_object(fields_path, RetrievalError)
    padding = fields.get("pad_token")
    if not isinstance(padding, str) or tokenizer.token_to_id(padding) is None:
        raise RetrievalError(
            f"{fields_path}: found pad_token {padding!r}, expected a token of {path.name}; export the model again"
        )
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(padding), pad_token=padding)
    return tokenizer


def _sampling_rate(folder: Path) -> int:
    path = folder / "processor_config.json"
    fields = read_object(path, RetrievalError).get("feature_extractor")
    rate = fields.get("sampling_rate") if isinstance(fields, dict) else None
    if type(rate) is not int or rate <= 0:
        raise RetrievalError(f"{path}: found the sampling rate {rate!r}, expected one in Hz; export the model again")
    return rate


def _processor(folder: Path):
    from ..processing_cnn10bert import CNN10BertProcessor

    try:
        return CNN10BertProcessor.from_pretrained(folder)
    except Exception as error:  # whatever transformers raises at what its files say
        reason = one_line(error)
        raise RetrievalError(f"{folder}: cannot load its processor: {reason}; export the model again") from error


def _onnxruntime():
    try:
        import onnxruntime
    except ImportError as error:
        raise RetrievalError(
            'an ONNX export needs onnxruntime, which is not installed; install it: pip install "cnn10bert[onnx]"'
        ) from error
    return onnxruntime


def _providers(device: str | None) -> list[str]:
    available = _onnxruntime().get_available_providers()
    kind = (device or "cpu").split(":")[0]
    wanted = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(kind)
    if wanted is None or wanted not in available:
        raise RetrievalError(
            f"device is {device!r}, but this ONNX Runtime has {', '.join(available)}; leave device out, or install "
            "onnxruntime-gpu for cuda"
        )
    return [wanted] if kind == "cpu" else [wanted, "CPUExecutionProvider"]
