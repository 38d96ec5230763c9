"""Identify a model by a digest of its weights, and compare two models."""

import hashlib
import json
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_base
from ..errors import RetrievalError
from .records import ModelIdentity

SAFETENSORS = "model.safetensors"
PICKLED = "pytorch_model.bin"
# Fields of an adapter that change the weights which it makes of its base.
ADAPTER_FIELDS = ("peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern")
# Fields of an extractor's dictionary that name the class it was saved from and do not change what it computes.
CLASS_FIELDS = {"auto_map", "feature_extractor_type", "processor_class", "image_processor_type"}


def weights_fingerprint(model: str, revision: str | None = None) -> str:
    """
    Return the SHA-256 of the names, types, shapes and bytes of a model's weights, in hexadecimal.

    Tensors are sorted by name, so neither their order in a file nor the number of files matters. For weights in
    PyTorch's old format, the bytes of the files are hashed. For an adapter, they are the tensors of the adapter and the
    fingerprint of its base.

    Args:
        model: folder or Hub id; its files are looked up where transformers looks for them.
        revision: branch, tag or commit on the Hub.

    Raises:
        RetrievalError: the model has no weights.
    """
    digest = hashlib.sha256()
    if (base := adapter_base(model)) is not None:
        fields = json.loads((Path(model) / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        digest.update(json.dumps([weights_fingerprint(base), [fields.get(name) for name in ADAPTER_FIELDS]]).encode())
        _add_tensors(digest, [os.path.join(model, ADAPTER_WEIGHTS)])
        return digest.hexdigest()
    for name, add in ((SAFETENSORS, _add_tensors), (PICKLED, _add_files)):
        if path := model_file(model, name, revision):
            paths: list[str | None] = [path]
        elif index := model_file(model, f"{name}.index.json", revision):
            shards = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values()
            paths = [model_file(model, shard, revision) for shard in sorted(set(shards))]
        else:
            continue
        add(digest, [path for path in paths if path is not None])
        return digest.hexdigest()
    raise RetrievalError(f"{model}: found no weights, expected {SAFETENSORS}; save the model again")


def hub_commit(model: str, revision: str | None = None) -> str | None:
    """Return the commit of a model on the Hub; `None` for a folder, or if it cannot be told."""
    from transformers.utils.hub import extract_commit_hash

    return None if os.path.isdir(model) else extract_commit_hash(model_file(model, "config.json", revision), None)


def model_file(model: str, name: str, revision: str | None) -> str | None:
    """Find a file in a model's folder or in its repository on the Hub; `None` if there is none."""
    if os.path.isdir(model):
        path = os.path.join(model, name)
        return path if os.path.isfile(path) else None
    from transformers.utils import cached_file

    return cached_file(
        model,
        name,
        revision=revision,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )


def _add_files(digest, paths: list[str]) -> None:
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)


def _add_tensors(digest, paths: list[str]) -> None:
    tensors = sorted((tensor for path in paths for tensor in _tensors(path)), key=lambda tensor: tensor[0])
    for name, description, values in tensors:
        digest.update(json.dumps([name, *description]).encode())
        digest.update(values)


def _tensors(path: str) -> Iterator[tuple[str, tuple[str, list[int]], memoryview]]:
    """Yield name, type and shape, and memory-mapped bytes of every tensor in a safetensors file."""
    with open(path, "rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    header_size = int.from_bytes(content[:8], "little")
    header = json.loads(bytes(content[8 : 8 + header_size]))
    for name, tensor in header.items():
        if name != "__metadata__":
            start, end = (8 + header_size + offset for offset in tensor["data_offsets"])
            yield name, (tensor["dtype"], tensor["shape"]), content[start:end]


def feature_parameters(feature_extractor) -> dict[str, Any]:
    """Return the parameters of a feature extractor as JSON values, without the class or commit it was loaded from."""
    fields = feature_extractor.to_dict()
    kept = {name: value for name, value in fields.items() if name not in CLASS_FIELDS and not name.startswith("_")}
    return json.loads(json.dumps(kept, default=str, sort_keys=True))


def check_same_model(stored: ModelIdentity, given: ModelIdentity) -> None:
    """
    Refuse a model whose embeddings cannot be compared with those of an index.

    Weights, feature extractor and dimension must be equal. The model's name and location do not matter.

    Raises:
        RetrievalError: the models differ; the message names both and the differences.
    """
    differences = []
    if stored.fingerprint != given.fingerprint:
        differences.append(f"weights (fingerprint {stored.fingerprint[:12]} and {given.fingerprint[:12]})")
    if stored.dimension != given.dimension:
        differences.append(f"dimension ({stored.dimension} and {given.dimension})")
    if stored.features != given.features:
        names = sorted(stored.features.keys() | given.features.keys())
        pairs = [(name, stored.features.get(name), given.features.get(name)) for name in names]
        changed = ", ".join(f"{name} {one!r} and {other!r}" for name, one, other in pairs if one != other)
        differences.append(f"feature extractor ({changed})")
    if differences:
        old, new = (model.name + (f" at {model.revision}" if model.revision else "") for model in (stored, given))
        raise RetrievalError(
            f"the index was made by {old}, but the model given is {new}; they differ in "
            f"{', '.join(differences)}, so their embeddings cannot be compared. Search with the model of the index, "
            "or index the recordings again with this one, in another folder"
        )
