"""Convert checkpoints of other projects: read them without running code, compare their tensors, save the model."""

import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import torch
from transformers import PreTrainedModel

from ..errors import DataError
from ..feature_extraction_cnn10bert import CNN10FeatureExtractor
from ..files import replaced_whole
from ..publishing.facts import DATA_FACTS

NAMES_SHOWN = 5  # faulty tensors named in an error


def load_tensors(file: BinaryIO, source: str | os.PathLike, wanted: str, origin: str, allowed: Sequence = ()) -> Any:
    """
    Unpickle a file of tensors and plain data to the CPU. Code in it is never run.

    Args:
        file: the open file.
        source: its name, for error messages.
        wanted: what was expected in it, for error messages.
        origin: where the real file can be had, for error messages.
        allowed: further types that it may hold, as in `torch.serialization.safe_globals`.

    Raises:
        DataError: the file is damaged, of another kind, or holds more than plain data.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # on other files, the unpickler raises almost anything
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            raise DataError(
                f"{source}: found pickled code ({found[1]}), which was not run, {wanted}, of tensors alone; download "
                f"it from {origin}"
            ) from error
        raise DataError(
            f"{source}: found {size} bytes that do not read as tensors ({type(error).__name__}), {wanted}; it is "
            "damaged or another kind of file: download it again"
        ) from error


def check_tensors(
    state: Mapping[str, torch.Tensor],
    shapes: Mapping[str, Sequence[int]],
    source: str | os.PathLike,
    network: str,
    checkpoint: str,
    counters: Collection[str] = (),
) -> None:
    """
    Check that a state dict is that of a network and holds finite numbers.

    Args:
        state: name -> tensor.
        shapes: name -> shape, of the network.
        source: name of the file, for error messages.
        network: name of the network, for error messages.
        checkpoint: name of the published file, for error messages.
        counters: the names of whole numbers, which may be missing.

    Raises:
        DataError: tensors are missing, unexpected, of another shape or not finite.
    """
    kinds = {
        "missing": [name for name in shapes if name not in state and name not in counters],
        "unexpected": [name for name in state if name not in shapes],
        "of another shape": [
            f"{name} {list(state[name].shape)} for {list(shape)}"
            for name, shape in shapes.items()
            if name in state and state[name].shape != torch.Size(shape)
        ],
    }
    if found := [f"{len(names)} {kind} ({some(names)})" for kind, names in kinds.items() if names]:
        raise DataError(
            f"{source}: found another network than {network}: {'; '.join(found)}; expected the tensors of {checkpoint}"
        )
    if bad := [name for name, tensor in state.items() if name not in counters and not _is_finite(tensor)]:
        raise DataError(
            f"{source}: found values that are no finite floating-point numbers in {len(bad)} tensors ({some(bad)}), "
            "expected trained weights; download it again"
        )


def _is_finite(tensor: torch.Tensor) -> bool:
    plain = tensor.is_floating_point() and tensor.layout == torch.strided and tensor.device.type == "cpu"
    return plain and bool(tensor.isfinite().all())


def some(names: Sequence) -> str:
    """Join the first few names."""
    return ", ".join([*map(str, list(names)[:NAMES_SHOWN]), *(["..."] if len(names) > NAMES_SHOWN else [])])


def block_modules(theirs: str, ours: str, num_blocks: int) -> dict[str, str]:
    """Map the modules `conv_block1.conv1` and so on to ours, with a prefix each; PANNs and aisfx name them alike."""
    names = {"conv1": "conv1", "bn1": "norm1", "conv2": "conv2", "bn2": "norm2"}
    return {
        f"{theirs}conv_block{block + 1}.{name}": f"{ours}blocks.{block}.{our_name}"
        for block in range(num_blocks)
        for name, our_name in names.items()
    }


def block_widths(state: Mapping[str, torch.Tensor], prefix: str, published: Sequence[int]) -> list[int]:
    """Return the channels of each block, as in the checkpoint, or as published where that does not say."""
    widths = list(published)
    for block in range(len(widths)):
        weight = state.get(f"{prefix}conv_block{block + 1}.conv1.weight")
        if weight is not None and weight.ndim == 4 and len(weight) > 0:  # otherwise its shape is an error
            widths[block] = len(weight)
    return widths


def require_free(out: Path) -> None:
    """
    Refuse a folder that is not empty.

    Raises:
        DataError: there is something that a model would overwrite.
    """
    if not os.path.lexists(out) or (out.is_dir() and not any(out.iterdir())):
        return
    if (out / "config.json").is_file():
        found, remedy = "a model, which stays as it is", "use that model, or name another folder"
    elif out.is_dir():
        found, remedy = "a folder that holds something else", "name another folder"
    else:
        found, remedy = "a file", "name a folder"
    raise DataError(f"{out}: found {found}, expected a new folder; {remedy}")


def save_whole(
    model: PreTrainedModel, feature_extractor: CNN10FeatureExtractor, out: Path, data: Sequence[Mapping[str, Any]]
) -> None:
    """
    Save both, with the facts of the training data, to the folder `out`, which appears when it is complete.

    Raises:
        DataError: `out` is not empty, or cannot be written.
    """
    try:
        with replaced_whole(os.path.abspath(out)) as unfinished:
            model.save_pretrained(unfinished)
            feature_extractor.save_pretrained(unfinished)
            (unfinished / DATA_FACTS).write_text(json.dumps(list(data), indent=2) + "\n", encoding="utf-8")
            require_free(out)
    except (OSError, safetensors.SafetensorError) as error:
        raise DataError(
            f"{out}: found that it cannot be written ({error}), expected space and permission for 21 MB; make both, or "
            "name another folder, and run the command again"
        ) from error
