"""A model as ONNX: both towers, the processor and what they are, in one folder."""

import contextlib
import dataclasses
import importlib.util
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import RetrievalError
from ..files import ADDRESS, check_local_folder, replaced_whole
from ..model_folder import check_model
from .onnx_embedding import AUDIO_NAME, CONFIG_NAME, TEXT_NAME, OnnxConfig
from .onnx_quantisation import calibration_waveforms, quantise_audio, quantise_text
from .records import ModelIdentity

OPSET = 18  # what torch's exporter writes; it converts to later ones, and silently fails to convert to earlier ones
FLOAT32_TOLERANCE = 1e-4  # of an embedding's values, to PyTorch's
INT8_SIMILARITY = 0.9  # least cosine to PyTorch's embedding
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclasses.dataclass(frozen=True)
class _Tower:
    """One of the two networks: how it is called, and what its inputs look like."""

    name: str
    file: str
    method: str
    output: str
    inputs: dict[str, tuple[str, list]]  # name -> type and shape


def export_onnx(
    model: str | os.PathLike,
    out: str | os.PathLike,
    *,
    int8: bool = False,
    opset: int = OPSET,
    calibration: str | os.PathLike | Sequence[np.ndarray] = (),
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Path:
    """
    Writes both towers of a `CNN10BertModel` as ONNX, with its processor and `onnx_config.json`.

    The files take any number of recordings or texts of any length. They are checked, by onnx and against PyTorch on
    inputs of other shapes than they were exported with, before the folder appears under its name.

    Args:
        model: folder or Hub id.
        out: the folder to write; an export that is there is replaced.
        int8: 8-bit weights in the text tower, and in the audio tower where there are recordings to calibrate it with;
            without them it stays float32. `onnx_quantisation.py` says what it costs.
        opset: ONNX's, 18 or later.
        calibration: a folder of recordings such as are to be embedded, or mono waveforms [samples] at the model's
            sampling rate.
        revision: branch, tag or commit on the Hub.
        trust_remote_code: whether the model may bring code of its own.

    Returns:
        The folder.

    Raises:
        RetrievalError: a model that cannot be loaded or exported, a folder that holds something else, a missing
            package, or a file that does not compute what PyTorch does.
        AudioError: a recording to calibrate with cannot be used.
    """
    if missing := [package for package in PACKAGES if importlib.util.find_spec(package) is None]:
        raise RetrievalError(
            f'an export needs {", ".join(missing)}, not installed here; install them: pip install "cnn10bert[onnx]"'
        )
    if opset < OPSET:
        raise RetrievalError(f"opset is {opset}, expected {OPSET} or later; leave it out")
    check_local_folder(out, "OUT", RetrievalError, marks=(ADDRESS,))
    out = Path(os.path.abspath(out))
    _check_target(out)
    from .torch_embedding import TorchEmbedder

    check_model(model, RetrievalError)
    embedder = TorchEmbedder.from_pretrained(
        os.fspath(model), device="cpu", revision=revision, trust_remote_code=trust_remote_code
    )
    if embedder.model.config.model_type != "cnn10bert":
        raise RetrievalError(f"{model} is a {type(embedder.model).__name__}; only a CNN10BertModel can be exported")
    waveforms = calibration_waveforms(calibration, embedder.sampling_rate) if int8 else ()
    with replaced_whole(out) as folder:
        folder.mkdir()
        files = {}
        for tower in _towers(embedder.model.config):
            _export_tower(embedder.model, tower, folder / tower.file, opset)
            precision = _quantise(tower, folder / tower.file, embedder.processor, waveforms) if int8 else "float32"
            _describe(folder / tower.file, embedder.identity, opset)
            _check_tower(embedder.model, tower, folder / tower.file, precision)
            files[tower.name] = _file_entry(tower, precision, embedder.identity.dimension)
        embedder.processor.save_pretrained(folder)
        config = OnnxConfig(embedder.identity, opset, _project_version(), files)
        (folder / CONFIG_NAME).write_text(config.to_json(), encoding="utf-8")
    return out


def _project_version() -> str:
    from .. import __version__

    return __version__


def _towers(config) -> tuple[_Tower, _Tower]:
    frames = ["batch", "frames"]
    audio = {
        "input_features": ("float32", [*frames, config.audio_config.num_mel_bins]),
        "input_features_mask": ("int64", frames),
    }
    text = {"input_ids": ("int64", ["batch", "tokens"]), "attention_mask": ("int64", ["batch", "tokens"])}
    return (
        _Tower("audio", AUDIO_NAME, "get_audio_features", "audio_embeds", audio),
        _Tower("text", TEXT_NAME, "get_text_features", "text_embeds", text),
    )


def _file_entry(tower: _Tower, precision: str, dimension: int) -> dict:
    inputs = {name: {"dtype": dtype, "shape": shape} for name, (dtype, shape) in tower.inputs.items()}
    outputs = {tower.output: {"dtype": "float32", "shape": ["batch", dimension]}}
    return {"file": tower.file, "precision": precision, "inputs": inputs, "outputs": outputs}


# ---------------------------------------------------------------------------------------------------------- folders


def _check_target(out: Path) -> None:
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir() or out.is_symlink():
        raise RetrievalError(f"{out} is no folder; name another one to export to")
    if not (out / CONFIG_NAME).is_file() and any(out.iterdir()):
        raise RetrievalError(f"{out}: found a folder that is not empty and no export; name another one to export to")


# ------------------------------------------------------------------------------------------------------- the export


def _export_tower(model, tower: _Tower, path: Path, opset: int) -> None:
    import torch

    batch, length = torch.export.Dim("batch"), torch.export.Dim(next(iter(tower.inputs.values()))[1][1])
    dynamic = tuple({0: batch, 1: length} for _ in tower.inputs)
    arguments = tuple(torch.from_numpy(array) for array in _example(model.config, tower, 2, 100, seed=0).values())
    try:
        with _quiet_exporter():
            program = torch.onnx.export(
                _tower_module(model, tower),
                arguments,
                dynamo=True,
                input_names=list(tower.inputs),
                output_names=[tower.output],
                dynamic_shapes=dynamic,
                opset_version=opset,
                verbose=False,
            )
        program.save(str(path))
    except Exception as error:  # the exporter's own kinds are many
        first_line = (str(error).splitlines() or [repr(error)])[0]
        raise RetrievalError(f"cannot export the {tower.name} tower with opset {opset}: {first_line}") from error


def _tower_module(model, tower: _Tower):
    import torch

    class Embeds(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, inputs, mask):
            return getattr(self.model, tower.method)(inputs, mask).pooler_output

    return Embeds().eval()


@contextlib.contextmanager
def _quiet_exporter():
    """Without its notes on torchvision, and on two axes that share a name, which is meant."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _example(config, tower: _Tower, batch: int, length: int, seed: int) -> dict[str, np.ndarray]:
    """Random inputs of a tower, all rows but the first padded."""
    rng = np.random.default_rng(seed)
    mask = np.ones((batch, length), dtype=np.int64)
    mask[1:, length - length // 3 :] = 0
    if tower.name == "audio":
        values = rng.normal(-40, 15, (batch, length, config.audio_config.num_mel_bins)).astype(np.float32)
    else:
        values = rng.integers(0, config.text_config.vocab_size, (batch, length)) * mask
    return dict(zip(tower.inputs, (values, mask), strict=True))


def _quantise(tower: _Tower, path: Path, processor, waveforms: Sequence[np.ndarray]) -> str:
    """The precision that the file has after it was quantised, if it could be."""
    if tower.name == "text":
        quantise_text(path)
    elif len(waveforms):
        quantise_audio(path, processor, waveforms)
    else:
        return "float32"
    return "int8"


def _describe(path: Path, identity: ModelIdentity, opset: int) -> None:
    """Writes into the file which model it is.

    Raises:
        RetrievalError: the file has another opset than was asked for.
    """
    import onnx

    proto = onnx.load(path)
    written = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if written != opset:
        raise RetrievalError(f"opset is {opset}, but torch's exporter wrote {written}; ask for that, or leave it out")
    properties = {
        "model": identity.name,
        "revision": identity.revision or "",
        "fingerprint": identity.fingerprint,
        "project": f"cnn10bert {_project_version()}",
    }
    onnx.helper.set_model_props(proto, properties)
    onnx.save(proto, path)


def _check_tower(model, tower: _Tower, path: Path, precision: str) -> None:
    """
    Raises:
        RetrievalError: the file is not valid, or does not compute what PyTorch does.
    """
    import onnx
    import onnxruntime
    import torch

    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    module = _tower_module(model, tower)
    for seed, (batch, length) in enumerate([(1, 37), (3, 211)], start=1):
        inputs = _example(model.config, tower, batch, length, seed)
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
