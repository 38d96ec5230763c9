"""Export models to ONNX, quantize them to 8 bits, and embed with ONNX Runtime."""

import dataclasses
import functools
import importlib.util
import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RetrievalError, one_line
from ..files import ADDRESS, check_local_folder, replaced_whole
from ..model_folder import check_model, read_object
from .model_inputs import Batch, ModelInputs, check_text, gather, model_faults
from .records import ModelIdentity

# torch and transformers take seconds to import and a search by ONNX needs neither, so they are imported where used.

CONFIG_NAME = "onnx_config.json"
FORMAT_VERSION = 1  # of an export; raise it when older code can no longer read new exports
MAX_TOKENS = 32  # of a text, as `CNN10BertProcessor` cuts it
CAPTIONS_IN_A_GROUP = 8  # of similar length: padding costs a CPU as much as words

OPSET = 18  # the one that torch's exporter writes; conversion to another may fail silently
FLOAT32_TOLERANCE = 1e-4  # maximum difference of an embedding's values from PyTorch's
INT8_SIMILARITY = 0.9  # minimum cosine to PyTorch's embedding
PACKAGES = ("onnx", "onnxscript", "onnxruntime")

CALIBRATION_RECORDINGS = 64
CALIBRATION_SECONDS = 30.0  # of each


@dataclasses.dataclass(frozen=True)
class OnnxConfig:
    """
    Contents of an export's `onnx_config.json`.

    Attributes:
        model: the exported model.
        opset: ONNX opset of both files.
        project_version: version of this package that made the export.
        files: tower (`audio` or `text`) -> `file`, `precision` (`float32`, `int8` or `int8_weights`), `inputs` and
            `outputs`; the last two map a name to type and shape, in which a named axis has any size.
        format_version: `FORMAT_VERSION` of the code that made it.
    """

    model: ModelIdentity
    opset: int
    project_version: str
    files: dict[str, dict[str, Any]]
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """Return it as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def read(cls, folder: str | os.PathLike) -> "OnnxConfig":
        """
        Read it from the folder of an export.

        Raises:
            RetrievalError: the folder holds no export, or one in a newer format.
        """
        path = Path(folder) / CONFIG_NAME
        if not path.exists():
            raise RetrievalError(f"{folder}: found no {CONFIG_NAME}, expected an export; export a model there first")
        try:
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
        except RetrievalError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise RetrievalError(f"{path}: found {error!r}, expected an export; export the model again") from error


# ----------------------------------------------------------------------------------------------------- the embedder


class OnnxEmbedder:
    """
    An exported model in ONNX Runtime. Each tower is loaded on first use.

    Args:
        folder: the folder that `export_onnx` wrote.
        device: `cpu` (the default), or `cuda` with onnxruntime-gpu.
        batch_size: maximum number of recordings in a batch.
        threads: threads per operation, by default as many as there are cores.

    Raises:
        RetrievalError: the folder holds no export, or a package or device is missing.
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
        self._sessions: dict[str, Any] = {}  # by tower
        self._tokenizer = _tokenizer(self.folder)
        path = self.folder / "processor_config.json"
        extractor = read_object(path, RetrievalError).get("feature_extractor")
        rate = extractor.get("sampling_rate") if isinstance(extractor, dict) else None
        if type(rate) is not int or rate <= 0:
            raise RetrievalError(
                f"{path}: found the sampling rate {rate!r}, expected one in Hz; export the model again"
            )
        self.sampling_rate = rate

    def embed_audio(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Embed mono waveforms [samples] float32 at `sampling_rate` -> [N, D] float32, L2-normalized, in their order.

        Raises:
            RetrievalError: a waveform is not mono, is empty, or is not of finite floats.
        """
        return self._embed("audio", self._audio_inputs.audio(waveforms), len(waveforms))

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """Embed captions -> [N, D] float32, L2-normalized, in their order.

        Raises:
            RetrievalError: a text without a word.
        """
        return self._embed("text", self._text_inputs(texts), len(texts))

    def is_cut(self, text: str) -> bool:
        """Tell whether the model truncates a text."""
        return bool(self._tokenizer.encode(text).overflowing)

    def unknown_words(self, text: str) -> list[str]:
        """Return the words of a text that the tokenizer does not know."""
        encoded = self._tokenizer.encode(text, add_special_tokens=False)
        spans = zip(encoded.tokens, encoded.offsets, strict=True)
        return [text[start:end] for token, (start, end) in spans if token == "[UNK]"]

    @functools.cached_property
    def _audio_inputs(self) -> ModelInputs:
        from ..processing_cnn10bert import CNN10BertProcessor

        try:
            processor = CNN10BertProcessor.from_pretrained(self.folder)
        except Exception as error:  # transformers may raise anything
            raise RetrievalError(
                f"{self.folder}: cannot load its processor: {one_line(error)}; export the model again"
            ) from error
        return ModelInputs(processor, batch_size=self._batch_size)

    def _text_inputs(self, texts: Sequence[str]) -> Iterator[Batch]:
        """Batch texts of similar length."""
        for text in texts:
            check_text(text)
        order = np.argsort([len(text) for text in texts], kind="stable")
        size = min(self._batch_size, CAPTIONS_IN_A_GROUP)
        for start in range(0, len(texts), size):
            rows = order[start : start + size]
            encoded = self._tokenizer.encode_batch([texts[row] for row in rows])
            tokens = {
                "input_ids": np.array([line.ids for line in encoded]),
                "attention_mask": np.array([line.attention_mask for line in encoded]),
            }
            yield Batch(rows, tokens)

    def _embed(self, tower: str, batches: Iterator[Batch], count: int) -> np.ndarray:
        def embeds() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for batch in batches:
                session = self._session(tower)
                names = [given.name for given in session.get_inputs()]
                (output,) = session.run(None, {name: as_declared(batch.arguments[name]) for name in names})
                yield batch.rows, output

        with model_faults(self.identity):
            return gather(embeds(), count, self.identity.dimension)

    def _session(self, tower: str):
        if tower in self._sessions:
            return self._sessions[tower]
        runtime = _onnxruntime()
        options = runtime.SessionOptions()
        if self.threads is not None:
            options.intra_op_num_threads = self.threads
        if self.config.files[tower].get("precision") == "int8_weights":
            # Otherwise, products of these weights are computed with inputs of 8 bits, and tables converted each time.
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        path = self.folder / self.config.files[tower]["file"]
        try:
            self._sessions[tower] = runtime.InferenceSession(str(path), options, providers=self._providers)
        except Exception as error:  # its exceptions have no common class of their own
            raise RetrievalError(f"{path}: {error}; export the model again") from error
        return self._sessions[tower]


def as_declared(array: np.ndarray) -> np.ndarray:
    """Convert features to float32, and tokens and masks to int64."""
    return array.astype(np.float32 if np.issubdtype(array.dtype, np.floating) else np.int64, copy=False)


def _tokenizer(folder: Path):
    """Load the tokenizer of the processor without transformers."""
    from tokenizers import Tokenizer

    path, fields_path = folder / "tokenizer.json", folder / "tokenizer_config.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # it raises no class of its own
        raise RetrievalError(f"{path}: cannot load it: {error}; export the model again") from error
    padding = read_object(fields_path, RetrievalError).get("pad_token")
    if not isinstance(padding, str) or tokenizer.token_to_id(padding) is None:
        raise RetrievalError(
            f"{fields_path}: found pad_token {padding!r}, expected a token of {path.name}; export the model again"
        )
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(padding), pad_token=padding)
    return tokenizer


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


# ------------------------------------------------------------------------------------------------------- the export


@dataclasses.dataclass(frozen=True)
class _Tower:
    """One of the two networks: its name and its inputs."""

    name: str
    inputs: dict[str, tuple[str, list]]  # name -> type and shape

    @property
    def file(self) -> str:
        return f"{self.name}_model.onnx"

    def module(self, model):
        """Return the part of the model that computes this tower's embeddings."""
        import torch

        class Embeds(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.model = model

            def forward(self, inputs, mask):
                return getattr(self.model, method)(inputs, mask).pooler_output

        method = f"get_{self.name}_features"
        return Embeds().eval()

    def example(self, config, batch: int, length: int, seed: int) -> dict[str, np.ndarray]:
        """Draw random inputs, all rows but the first padded."""
        rng = np.random.default_rng(seed)
        mask = np.ones((batch, length), dtype=np.int64)
        mask[1:, length - length // 3 :] = 0
        values: np.ndarray
        if self.name == "audio":
            values = rng.normal(-40, 15, (batch, length, config.audio_config.num_mel_bins)).astype(np.float32)
        else:
            values = rng.integers(0, config.text_config.vocab_size, (batch, length)) * mask
        return dict(zip(self.inputs, (values, mask), strict=True))


def export_onnx(
    model: str | os.PathLike,
    out: str | os.PathLike,
    *,
    int8: bool = False,
    weights_only: bool = False,
    calibration: str | os.PathLike | Sequence[np.ndarray] = (),
    revision: str | None = None,
    trust_remote_code: bool = False,
    name: str | None = None,
) -> Path:
    """
    Write both towers of a `CNN10BertModel` as ONNX, with its processor and `onnx_config.json`.

    The files take any number of recordings or texts of any length. Before the folder gets its final name, they are
    checked by onnx and compared with PyTorch on inputs of other shapes than those of the export.

    Args:
        model: folder or Hub id.
        out: the folder to write; an existing export is replaced.
        int8: use 8-bit weights in the text tower, and in the audio tower if `calibration` is given; otherwise the
            audio tower stays float32. docs/notes.md has the loss in accuracy.
        weights_only: with `int8`, compute the text tower in float32. Its embeddings are then closer to PyTorch's, and
            the same in every runtime and batch, but take longer.
        calibration: a folder of typical recordings, or mono waveforms [samples] at the model's sampling rate, to
            calibrate the audio tower.
        revision: branch, tag or commit on the Hub.
        trust_remote_code: whether to run code that comes with the model.
        name: name of the model in the export; by default its path or Hub id.

    Returns:
        The folder.

    Raises:
        RetrievalError: the model cannot be loaded or exported, `out` holds something else, a package is missing, or
            a file does not compute what PyTorch does.
        AudioError: a calibration recording cannot be used.
    """
    # Check the arguments
    if missing := [package for package in PACKAGES if importlib.util.find_spec(package) is None]:
        raise RetrievalError(
            f'an export needs {", ".join(missing)}, not installed here; install them: pip install "cnn10bert[onnx]"'
        )
    out = replaceable_folder(out, CONFIG_NAME)

    # The model
    from .. import __version__
    from .torch_embedding import TorchEmbedder

    check_model(model, RetrievalError)
    embedder = TorchEmbedder.from_pretrained(
        os.fspath(model), device="cpu", revision=revision, trust_remote_code=trust_remote_code
    )
    identity = embedder.identity if name is None else dataclasses.replace(embedder.identity, name=name)
    network: Any = embedder.model
    if network.config.model_type != "cnn10bert":
        raise RetrievalError(f"{model} is a {type(network).__name__}; only a CNN10BertModel can be exported")
    waveforms = calibration_waveforms(calibration, embedder.sampling_rate) if int8 else ()

    # Its towers
    audio_shape = ["batch", "frames", network.config.audio_config.num_mel_bins]
    audio = {"input_features": ("float32", audio_shape), "input_features_mask": ("int64", audio_shape[:2])}
    text = {"input_ids": ("int64", ["batch", "tokens"]), "attention_mask": ("int64", ["batch", "tokens"])}
    with replaced_whole(out) as folder:
        folder.mkdir()
        files = {}
        for tower in (_Tower("audio", audio), _Tower("text", text)):
            path = folder / tower.file
            _export_tower(network, tower, path)
            precision = "float32"
            if int8 and tower.name == "text":
                (quantize_weights if weights_only else quantize_text)(path)
                precision = "int8_weights" if weights_only else "int8"
            elif int8 and len(waveforms):
                quantize_audio(path, embedder.processor, waveforms)
                precision = "int8"
            _describe(path, identity, __version__)
            _check_tower(network, tower, path, precision)
            files[tower.name] = {
                "file": tower.file,
                "precision": precision,
                "inputs": {name: {"dtype": dtype, "shape": shape} for name, (dtype, shape) in tower.inputs.items()},
                "outputs": {f"{tower.name}_embeds": {"dtype": "float32", "shape": ["batch", identity.dimension]}},
            }
        embedder.processor.save_pretrained(folder)
        config = OnnxConfig(identity, OPSET, __version__, files)
        (folder / CONFIG_NAME).write_text(config.to_json(), encoding="utf-8")
    return out


def replaceable_folder(out: str | os.PathLike, mark: str) -> Path:
    """
    Return the absolute path of a folder to export to.

    Args:
        out: path of the folder.
        mark: name of a file that every export of this kind holds.

    Raises:
        RetrievalError: there is something else than an empty folder or an earlier export.
    """
    check_local_folder(out, "OUT", RetrievalError, marks=(ADDRESS,))
    out = Path(os.path.abspath(out))
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise RetrievalError(f"{out} is no folder; name another one to export to")
    if out.exists() and not (out / mark).is_file() and any(out.iterdir()):
        raise RetrievalError(f"{out}: found a folder that is not empty and no export; name another one to export to")
    return out


def _export_tower(model, tower: _Tower, path: Path) -> None:
    import torch

    # Hide the exporter's notes on torchvision, and on two axes that share a name, which is intended.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    batch, length = torch.export.Dim("batch"), torch.export.Dim(next(iter(tower.inputs.values()))[1][1])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                tower.module(model),
                tuple(torch.from_numpy(array) for array in tower.example(model.config, 2, 100, seed=0).values()),
                dynamo=True,
                input_names=list(tower.inputs),
                output_names=[f"{tower.name}_embeds"],
                dynamic_shapes=tuple({0: batch, 1: length} for _ in tower.inputs),
                opset_version=OPSET,
                verbose=False,
            )
        program.save(str(path))
    except Exception as error:  # the exporter's own kinds are many
        first_line = (str(error).splitlines() or [repr(error)])[0]
        raise RetrievalError(f"cannot export the {tower.name} tower: {first_line}") from error


def _describe(path: Path, identity: ModelIdentity, version: str) -> None:
    """Write the identity of the model into the file. Remove the exporter's notes, which name files of this machine."""
    import onnx

    properties = {
        "model": identity.name,
        "revision": identity.revision or "",
        "fingerprint": identity.fingerprint,
        "project": f"cnn10bert {version}",
    }
    proto = onnx.load(path)
    for part in (*proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output, proto.graph):
        del part.metadata_props[:]
    onnx.helper.set_model_props(proto, properties)
    onnx.save(proto, path)


def _check_tower(model, tower: _Tower, path: Path, precision: str) -> None:
    """
    Compare the file with PyTorch.

    Raises:
        RetrievalError: the file is not valid, or does not compute what PyTorch does.
    """
    import onnx
    import onnxruntime
    import torch

    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    module = tower.module(model)
    for seed, (batch, length) in enumerate([(1, 37), (3, 211)], start=1):
        inputs = tower.example(model.config, batch, length, seed)
        (found,) = session.run(None, inputs)
        with torch.inference_mode():
            expected = module(*map(torch.from_numpy, inputs.values())).numpy()
        difference = np.abs(found - expected).max()
        similarity = (found * expected).sum(axis=1).min()
        fits = difference <= FLOAT32_TOLERANCE if precision == "float32" else similarity >= INT8_SIMILARITY
        if not fits:
            raise RetrievalError(
                f"the {precision} {tower.name} tower differs from PyTorch by {difference:.2g} (least cosine "
                f"{similarity:.4f}) on {batch} inputs of length {length}; export it in float32, and report this"
            )


# ---------------------------------------------------------------------------------------------------- 8-bit weights

# Which layers are 8-bit was chosen by mAP@10 on a validation set (docs/notes.md): the first convolution sees decibels,
# for which 8 bits are too coarse, and convolutions quantized on the fly are slow.


def calibration_waveforms(
    recordings: str | os.PathLike | Sequence[np.ndarray], sampling_rate: int
) -> Sequence[np.ndarray]:
    """
    Return the given waveforms, or the beginnings of 64 recordings spread evenly over a folder.

    Args:
        recordings: waveforms [samples], or the folder.
        sampling_rate: sampling rate of the result, in Hz.

    Raises:
        RetrievalError: there is no such folder, or no recording below it.
        AudioError: a recording cannot be used.
    """
    if not isinstance(recordings, str | os.PathLike):
        return recordings
    from .scanning import scan
    from .windows import read_windows

    files = sorted(scan([recordings]).files)
    if not files:
        raise RetrievalError(f"{recordings}: found no recording, expected some to calibrate the 8-bit audio tower with")
    chosen = np.linspace(0, len(files) - 1, min(len(files), CALIBRATION_RECORDINGS)).round().astype(int)
    return [next(read_windows(files[i], sampling_rate, CALIBRATION_SECONDS, 0.0))[2] for i in chosen]


def quantize_text(path: Path) -> None:
    """Rewrite a text tower with 8-bit weights in its matrix products and embedding tables.

    The input of each matrix product is rounded to 8 bits on the fly, with its own scale.
    """
    from onnxruntime.quantization import quantize_dynamic

    source = _prepared(path)
    quantize_dynamic(source, path, op_types_to_quantize=["MatMul", "Gemm", "Gather"], per_channel=True)
    source.unlink()


def quantize_weights(path: Path) -> None:
    """
    Rewrite a tower with its matrices and embedding tables in 8 bits, with a scale per output or row of the table.

    They are converted to float32 before they are used, so that only their rounding changes the result.
    """
    import onnx

    proto = onnx.load(path)
    graph = proto.graph
    used_by = {name: node.op_type for node in graph.node for name in node.input}
    for weight in [weight for weight in graph.initializer if len(weight.dims) == 2]:
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype != np.float32:
            continue
        axis = 1 if used_by[weight.name] == "MatMul" else 0  # the exporter transposes the matrices of Gemm
        scales = np.maximum(np.abs(values).max(axis=1 - axis, keepdims=True) / 127, np.finfo(np.float32).tiny)
        integers = np.round(values / scales).astype(np.int8)
        names = [f"{weight.name}_int8", f"{weight.name}_scales"]
        graph.initializer.remove(weight)
        graph.initializer.extend(map(onnx.numpy_helper.from_array, (integers, scales.ravel()), names))
        graph.node.insert(0, onnx.helper.make_node("DequantizeLinear", names, [weight.name], axis=axis))
    onnx.save(proto, path)


def quantize_audio(path: Path, processor, waveforms: Sequence[np.ndarray]) -> None:
    """Rewrite an audio tower with an 8-bit head and 8-bit convolutions, except for the first.

    Args:
        path: the file.
        processor: the processor of the model.
        waveforms: [samples] each; they determine the input range of each layer.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    batches = ModelInputs(processor, batch_size=1).audio(waveforms)

    class Reader(CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(batches, None)
            if batch is None:
                return None
            return {name: as_declared(array) for name, array in batch.arguments.items()}

    source = _prepared(path)
    nodes = onnx.load(source, load_external_data=False).graph.node
    quantize_static(
        source,
        path,
        Reader(),
        op_types_to_quantize=["Conv", "Gemm"],
        nodes_to_exclude=[next(node.name for node in nodes if node.op_type == "Conv")],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    source.unlink()


def _prepared(path: Path) -> Path:
    """Write a copy with the shapes and constants that the quantizer asks for."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = path.with_name(f"{path.stem}.prepared.onnx")
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    return prepared
