"""PANNs' Cnn10 (Kong et al. 2020, "PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern Recognition";
Zenodo 3987831), trained for tagging on AudioSet, as a `CNN10ForAudioClassification`.
"""

import hashlib
import os
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path

import filelock
import torch

from ..configuration_cnn10bert import CNN10Config
from ..data.download import RemoteFile, download
from ..data.recipes.audioset import NUM_CLASSES, read_class_names
from ..errors import DataError
from ..feature_extraction_cnn10bert import CNN10FeatureExtractor
from ..modeling_cnn10bert import CNN10ForAudioClassification
from .checkpoints import block_modules, block_widths, check_tensors, load_tensors, require_free, save_whole, some

MIRROR = "https://zenodo.org"
RECORD = 3987831
CHECKPOINT = "Cnn10_mAP=0.380.pth"
MD5 = "bfb1f1f9968938fa8ef4012b8471f5f6"

HIDDEN_SIZES = (64, 128, 256, 512)  # of the published network
DROPOUTS = {"block_dropout": 0.2, "head_dropout": 0.5}

# PANNs' modules -> ours. The tensors of a module have the same names in both.
MODULES = {
    "bn0": "cnn10.input_norm",
    **block_modules("", "cnn10.", len(HIDDEN_SIZES)),
    "fc1": "dense",
    "fc_audioset": "classifier",
}

# Maximum difference between PANNs' front end and ours: above rounding, far below other front ends (docs/notes.md).
FRONT_END_TOLERANCE = 1e-6


def convert_panns_checkpoint(
    out: Path, checkpoint: Path | None = None, labels: Path | None = None, mirror: str = MIRROR
) -> tuple[Path, CNN10ForAudioClassification]:
    """
    Convert PANNs' Cnn10 to a model for training to start from, saved with its feature extractor.

    Args:
        out: new folder of the model.
        checkpoint: PANNs' file; by default the published one, which is downloaded once.
        labels: AudioSet's class_labels_indices.csv, for the class names.
        mirror: server with Zenodo's files.

    Returns:
        The checkpoint and the model.

    Raises:
        DataError: `out` is not empty, or the checkpoint is missing, unreadable or of another network.
    """
    require_free(out)  # before the download, not after it
    class_names = read_class_names(labels) if labels else None
    file = checkpoint or fetch_checkpoint(default_folder(), mirror)
    model, feature_extractor = convert_state(read_checkpoint(file), file, class_names)
    save_whole(model, feature_extractor, out, data_facts(file))
    return file, model


# -------------------------------------------------------------------------------------------------------- fetching


def default_folder() -> Path:
    """Return the folder of the published checkpoint."""
    return Path.home() / ".cache" / "cnn10bert" / "panns"


def fetch_checkpoint(folder: Path, mirror: str = MIRROR) -> Path:
    """
    Return the published checkpoint (25 MB) in `folder`, verified; download it if it is missing, and resume an
    interrupted download.

    Raises:
        DataError: it cannot be downloaded, or is not the published one.
    """
    url = f"{mirror}/records/{RECORD}/files/{urllib.parse.quote(CHECKPOINT)}?download=1"
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / "lock"):  # two concurrent downloads would append to one file
        return download(RemoteFile(CHECKPOINT, url, MD5), folder)


# --------------------------------------------------------------------------------------------------------- reading


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """
    Read the state dict of a PANNs checkpoint, name -> tensor, to the CPU. Code in it is never run.

    Raises:
        DataError: the file is missing, damaged, of another kind, or holds more than plain data.
    """
    wanted = f"expected a checkpoint of PANNs' Cnn10 such as {CHECKPOINT}"
    if not path.is_file():
        raise DataError(f"{path}: found no such file, {wanted}; check the path")
    with path.open("rb") as file:
        content = load_tensors(file, path, wanted, f"{MIRROR}/records/{RECORD}")
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        found = f"a dict of {some(content)}" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise DataError(f"{path}: found {found}, {wanted}: a dict with the state dict under 'model'")
    state = content["model"]
    if odd := [key for key, value in state.items() if not (isinstance(key, str) and isinstance(value, torch.Tensor))]:
        raise DataError(f"{path}: found entries of 'model' that are no tensors ({some(odd)}), {wanted}")
    return dict(state)


def data_facts(path: Path) -> list[dict[str, str]]:
    """List the training data of a checkpoint; the license is known only for the published file."""
    with path.open("rb") as file:
        is_published = hashlib.file_digest(file, "md5").hexdigest() == MD5
    return [{"kind": "known", "source": source} for source in ("AudioSet", *(["PANNs"] if is_published else []))]


# ------------------------------------------------------------------------------------------------------ converting


def convert_state(
    state: Mapping[str, torch.Tensor], source: str | os.PathLike, class_names: Sequence[str] | None = None
) -> tuple[CNN10ForAudioClassification, CNN10FeatureExtractor]:
    """
    Make PANNs' network with the weights of a checkpoint, in evaluation mode, and its feature extractor.

    The block widths are those of the checkpoint; all else is as in the published network. Every tensor of the
    checkpoint is used or compared, but a checkpoint does not hold the hop, centering and padding of its front end.

    Args:
        state: from `read_checkpoint`.
        source: name of the checkpoint, for error messages.
        class_names: AudioSet's class names in order; without them, `LABEL_0` and so on.

    Raises:
        DataError: the checkpoint is of another network, or has another front end.
    """
    # The model with these widths, and PANNs' name of each tensor -> ours.
    feature_extractor = CNN10FeatureExtractor()
    model = CNN10ForAudioClassification(_config(state, feature_extractor, class_names)).eval()
    theirs = {ours: theirs for theirs, ours in MODULES.items()}
    split = [name.rpartition(".") for name in model.state_dict()]
    names = {f"{theirs[module]}.{tensor}": f"{module}.{tensor}" for module, _, tensor in split}
    # Batch counters: PyTorch before 0.4.1 had none, so a missing one is 0.
    counters = {name for name in names if name.endswith(".num_batches_tracked")}

    # PANNs' front end is a layer of its network. These values compute our log-mel.
    window = torch.hann_window(feature_extractor.n_fft, dtype=torch.float64)
    fourier = torch.fft.rfft(torch.diag(window)).T[:, None]  # [n_fft // 2 + 1, 1, n_fft], as a convolution
    constants = {
        "spectrogram_extractor.stft.conv_real.weight": fourier.real,
        "spectrogram_extractor.stft.conv_imag.weight": fourier.imag,
        "logmel_extractor.melW": torch.from_numpy(feature_extractor.mel_filters),  # [n_fft // 2 + 1, n_mels]
    }

    # Names, shapes and values.
    shapes = {name: tensor.shape for name, tensor in constants.items()}
    shapes |= {theirs: model.state_dict()[ours].shape for theirs, ours in names.items()}
    check_tensors(state, shapes, source, "PANNs' Cnn10", CHECKPOINT, counters)

    # Constants must equal those of our front end.
    for name, ours in constants.items():
        difference = (state[name].double() - ours.double()).abs().max().item()
        if difference > FRONT_END_TOLERANCE:
            raise DataError(
                f"{source}: found {name} to differ by up to {difference:.2g} from that of 32 kHz, a Hann window of "
                f"1024 and 64 mel bins from 50 to 14000 Hz, expected at most {FRONT_END_TOLERANCE:g}: the network was "
                "trained with another front end and cannot be converted"
            )

    model.load_state_dict({ours: state[theirs] for theirs, ours in names.items() if theirs in state})
    return model, feature_extractor


def _config(
    state: Mapping[str, torch.Tensor], feature_extractor: CNN10FeatureExtractor, class_names: Sequence[str] | None
) -> CNN10Config:
    classes = dict(enumerate(class_names)) if class_names else {n: f"LABEL_{n}" for n in range(NUM_CLASSES)}
    return CNN10Config(
        num_mel_bins=feature_extractor.feature_size,
        hidden_sizes=block_widths(state, "", HIDDEN_SIZES),
        time_pooling="sum",
        problem_type="multi_label_classification",
        id2label=classes,
        label2id={name: number for number, name in classes.items()},
        **DROPOUTS,
    )
