"""aisfx's network against what its checkpoint is converted to; and the command for it."""

import json
import math
import os
import zipfile

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from transformers import AutoFeatureExtractor, AutoModel

from modeling_cnn10bert import CNN10FeatureExtractor, CNN10Model
from modeling_cnn10bert.errors import DataError
from modeling_cnn10bert.training import aisfx
from modeling_cnn10bert.training.arguments import ModelArguments
from modeling_cnn10bert.training.build import load_model_and_processor

NARROW = (4, 6, 8, 10)
MEMBER = "aisfx/models/checkpoint.pth"


def _state(widths=NARROW, seed=0):
    """A state dict with aisfx's names: four blocks, and a head of three layers."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    state = {}
    for number, width in enumerate(widths):
        block = f"embedding_net.conv_block{number + 1}"
        for name, channels in (("1", widths[number - 1] if number else 1), ("2", width)):
            state[f"{block}.conv{name}.weight"] = normal(width, channels, 3, 3) / (3 * channels**0.5)
            state[f"{block}.bn{name}.weight"] = 1 + 0.1 * normal(width)
            state[f"{block}.bn{name}.bias"] = 0.1 * normal(width)
            state[f"{block}.bn{name}.running_mean"] = 0.3 * normal(width)
            state[f"{block}.bn{name}.running_var"] = 0.5 + normal(width).square()
            state[f"{block}.bn{name}.num_batches_tracked"] = torch.tensor(113_832)
    for layer in (0, 2, 4):
        state |= {f"fc.0.{layer}.weight": normal(5, 5), f"fc.0.{layer}.bias": normal(5)}
    return state


def _save(state, path, libraries=None):
    """Save as published: with numbers of the NumPy of its time, whose module had another name."""
    libraries = {"prosfx": (np.int64(0), 78)} if libraries is None else libraries
    torch.save((state, libraries), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n"))
    return path


@pytest.fixture
def narrow(tmp_path):
    """The state dict of a narrow network and its checkpoint."""
    state = _state()
    return state, _save(state, tmp_path / "checkpoint.pth")


# -------------------------------------------------------------------------------------------------------- fidelity


@pytest.fixture
def cnn2d():
    return pytest.importorskip("aisfx.models.cnn2d", reason="aisfx is not installed; it is not needed otherwise")


@pytest.fixture
def published(cnn2d):
    """The tensors of the installed checkpoint, and what they are converted to."""
    path = aisfx.installed_checkpoint()
    state = aisfx.read_state(aisfx.read_file(path), path)
    return state, aisfx.convert_state(state, path, CNN10FeatureExtractor())


@torch.no_grad()
def test_with_maxima_and_no_input_norm_it_computes_the_embeddings_of_aisfx(cnn2d, published, noise, tmp_path):
    pytest.importorskip("librosa")
    from aisfx.spectrogram.spectrogram_librosa import compute_spectrogram

    seconds = np.arange(88_200) / 44_100
    sound = 0.3 * np.sin(2 * np.pi * (200 + 2000 * seconds) * seconds) + noise(88_200)
    soundfile.write(tmp_path / "sound.wav", sound, 44_100)
    spectrogram = compute_spectrogram(tmp_path / "sound.wav", 44_100, 2048, 1024, 96, 0.0, 22_050.0) / aisfx.LOG_SCALE
    features = torch.from_numpy(spectrogram.T.copy()).float()[None]  # [1, T, 96]

    state, model = published
    network = cnn2d.EmbeddingNet("max", 3, 1, 64).eval()
    network.load_state_dict({name.removeprefix("embedding_net."): tensor for name, tensor in state.items()})
    theirs = network(features)

    hidden = features[:, None]
    for number, block in enumerate(model.blocks):
        hidden = F.relu(block.norm1(block.conv1(hidden)))
        hidden = F.relu(block.norm2(block.conv2(hidden)))
        hidden = F.max_pool2d(hidden, 2) if number < 3 else hidden
    assert theirs.std() > 0.1
    torch.testing.assert_close(hidden.mean(dim=3).amax(dim=2), theirs, rtol=0, atol=1e-5)


def test_the_scale_of_the_input_is_that_of_the_first_normalization(published):
    state, _ = published
    # A convolution of a stationary input has the mean of that input times the sum of its weights.
    sums = state["embedding_net.conv_block1.conv1.weight"].sum(dim=(1, 2, 3))
    means = state["embedding_net.conv_block1.bn1.running_mean"]
    assert float(sums @ means / (sums @ sums)) == pytest.approx(aisfx.INPUT_MEAN, abs=0.001)
    assert float(torch.corrcoef(torch.stack([sums, means]))[0, 1]) > 0.999


def test_the_published_network_is_known(published, tmp_path):
    path, model = aisfx.convert_aisfx_checkpoint(tmp_path / "out")
    assert path == aisfx.installed_checkpoint()
    assert model.num_parameters() == 4_682_304 + 3_840 + 128  # convolutions, their norms, the input norm
    assert json.loads((tmp_path / "out" / "data_facts.json").read_text()) == [{"kind": "known", "source": "aisfx"}]


@pytest.mark.parametrize(("n_fft", "hop_length"), [(1024, 320), (4096, 2048)])
def test_untrained_it_sees_noise_at_the_level_that_aisfx_does(n_fft, hop_length, narrow, tmp_path):
    librosa = pytest.importorskip("librosa")
    generator = np.random.default_rng(0)
    # One sound at two rates: the same power per Hz.
    at_44, at_32 = (generator.normal(0, 0.1 * math.sqrt(rate / 44_100), 2 * rate) for rate in (44_100, 32_000))
    mel = librosa.feature.melspectrogram(
        y=at_44, sr=44_100, n_fft=2048, hop_length=1024, n_mels=96, htk=True, norm=1.0, fmin=0, fmax=22_050
    )
    theirs = np.log10(1 + 1e4 * mel) / 9.457798957824707

    aisfx.convert_aisfx_checkpoint(tmp_path / "out", narrow[1], n_fft, hop_length)
    model = AutoModel.from_pretrained(tmp_path / "out")
    log_mel = AutoFeatureExtractor.from_pretrained(tmp_path / "out").log_mel(at_32)  # [T, 64]
    with torch.no_grad():
        ours = model.input_norm(log_mel.T[None, :, :, None])
    assert float(ours.mean()) == pytest.approx(theirs.mean(), abs=0.005)
    assert float(ours.mean()) > 2 * aisfx.INPUT_MEAN


# ---------------------------------------------------------------------------------------------------- the converted


def test_every_tensor_of_the_convolutions_arrives(narrow, tmp_path):
    state, path = narrow
    aisfx.convert_aisfx_checkpoint(tmp_path / "out", path)
    model = AutoModel.from_pretrained(tmp_path / "out")
    assert type(model) is CNN10Model
    assert (model.config.hidden_sizes, model.config.time_pooling) == (list(NARROW), "average")
    assert len(model.state_dict()) == sum(name.startswith("embedding_net") for name in state) + 5  # the input norm
    assert torch.equal(model.blocks[0].conv1.weight, state["embedding_net.conv_block1.conv1.weight"])
    assert torch.equal(model.blocks[2].norm1.running_mean, state["embedding_net.conv_block3.bn1.running_mean"])
    assert torch.equal(model.blocks[3].conv2.weight, state["embedding_net.conv_block4.conv2.weight"])
    assert torch.equal(model.blocks[3].norm2.bias, state["embedding_net.conv_block4.bn2.bias"])


def test_in_training_the_first_convolution_sees_the_scale_of_aisfx(narrow, tmp_path):
    aisfx.convert_aisfx_checkpoint(tmp_path / "out", narrow[1])
    model = AutoModel.from_pretrained(tmp_path / "out").train()
    decibels = -50 + 20 * torch.randn(4, 64, 100, 1, generator=torch.Generator().manual_seed(0))
    seen = model.input_norm(decibels).detach()
    assert float(seen.mean()) == pytest.approx(0.164, abs=1e-3)
    assert float(seen.std()) == pytest.approx(0.184, abs=1e-3)


def test_a_retrieval_model_starts_from_it_with_its_front_end(narrow, text_folder, tmp_path):
    aisfx.convert_aisfx_checkpoint(tmp_path / "audio", narrow[1], n_fft=4096, hop_length=2048, num_mel_bins=96)
    arguments = ModelArguments(
        audio_model_name_or_path=str(tmp_path / "audio"),
        text_model_name_or_path=str(text_folder),
        projection_hidden_size=8,
        projection_dim=4,
    )
    model, processor = load_model_and_processor(arguments)
    extractor = processor.feature_extractor
    assert (extractor.n_fft, extractor.hop_length, extractor.feature_size) == (4096, 2048, 96)
    weight = narrow[0]["embedding_net.conv_block2.conv1.weight"]
    assert torch.equal(model.audio_model.blocks[1].conv1.weight, weight)
    inputs = extractor(np.zeros(64_000, np.float32), sampling_rate=32_000, return_tensors="pt")
    assert model.get_audio_features(**inputs).pooler_output.shape == (1, 4)


def test_a_wheel_gives_the_same_model_as_its_checkpoint(narrow, tmp_path):
    wheel = tmp_path / "aisfx-0.1.2-py2.py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(narrow[1], MEMBER)
    for name, path in (("of_wheel", wheel), ("of_file", narrow[1])):
        aisfx.convert_aisfx_checkpoint(tmp_path / name, path)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("of_wheel", "of_file")]
    assert weights[0] == weights[1]


def test_of_another_checkpoint_the_training_data_is_not_known(narrow, tmp_path):
    aisfx.convert_aisfx_checkpoint(tmp_path / "out", narrow[1])
    [fact] = json.loads((tmp_path / "out" / "data_facts.json").read_text())
    assert fact == {"kind": "unknown", "name": "checkpoint.pth", "hub_id": None}


# --------------------------------------------------------------------------------------------------------- bad files


class _Code:
    """Pickled, it is a call that leaves a folder behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickled_code_is_refused_and_not_run(narrow, tmp_path):
    bad = _save(narrow[0], tmp_path / "bad.pth", libraries=_Code(tmp_path / "ran"))
    with pytest.raises(DataError, match=r"bad\.pth: found pickled code \(posix\.mkdir\), which was not run"):
        aisfx.convert_aisfx_checkpoint(tmp_path / "out", bad)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.999])
def test_a_truncated_checkpoint_is_refused(kept, narrow, tmp_path):
    content = narrow[1].read_bytes()
    narrow[1].write_bytes(content[: round(kept * len(content))])
    with pytest.raises(DataError, match=r"checkpoint\.pth: found \d+ bytes that do not read as .*download it again"):
        aisfx.convert_aisfx_checkpoint(tmp_path / "out", narrow[1])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_damaged_wheel_is_refused(kept, narrow, tmp_path):
    wheel = tmp_path / "aisfx.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(narrow[1], MEMBER)
    content = wheel.read_bytes()
    wheel.write_bytes(content[: round(kept * len(content))])
    with pytest.raises(DataError, match=r"aisfx\.whl: found a file without a readable .*expected the wheel of aisfx"):
        aisfx.convert_aisfx_checkpoint(tmp_path / "out", wheel)


def test_the_wheel_of_another_package_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("other/__init__.py", "")
    with pytest.raises(DataError, match=r"other\.whl: found a file without a readable aisfx/models/checkpoint\.pth"):
        aisfx.convert_aisfx_checkpoint(tmp_path / "out", tmp_path / "other.whl")


def test_another_network_is_refused_by_what_differs(narrow, tmp_path):
    state = narrow[0] | {
        "embedding_net.conv_block5.conv1.weight": torch.ones(3),
        "embedding_net.conv_block2.conv2.weight": torch.ones(6, 6, 5, 5),
    }
    del state["embedding_net.conv_block1.bn1.bias"]
    with pytest.raises(DataError) as caught:
        aisfx.convert_aisfx_checkpoint(tmp_path / "out", _save(state, tmp_path / "other.pth"))
    assert "1 missing (embedding_net.conv_block1.bn1.bias); 1 unexpected (embedding_net.conv_block5" in str(
        caught.value
    )
    assert "conv_block2.conv2.weight [6, 6, 5, 5] for [6, 6, 3, 3]" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"model": {}}, "found a dict"),
        (([1], {}), "found a tuple"),
        (({"embedding_net.conv_block1.bn1.bias": "none"}, {}), "that are no tensors"),
    ],
)
def test_a_checkpoint_of_another_structure_is_refused(content, found, tmp_path):
    torch.save(content, tmp_path / "bad.pth")
    with pytest.raises(DataError, match=rf"bad\.pth: {found}|bad\.pth: found entries .*{found}"):
        aisfx.convert_aisfx_checkpoint(tmp_path / "out", tmp_path / "bad.pth")


def test_values_that_no_training_ended_with_are_refused(narrow, tmp_path):
    bad = narrow[0] | {"embedding_net.conv_block3.bn2.bias": torch.full((8,), math.nan)}
    with pytest.raises(DataError, match=r"no finite floating-point numbers in 1 tensors \(embedding_net\.conv_block3"):
        aisfx.convert_aisfx_checkpoint(tmp_path / "out", _save(bad, tmp_path / "bad.pth"))


def test_a_folder_that_holds_something_is_left_as_it_is(narrow, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="notes: found a folder that holds something else"):
        aisfx.convert_aisfx_checkpoint(tmp_path / "notes", narrow[1])
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["notes.txt"]


# ------------------------------------------------------------------------------------------------------ the command


def test_the_command_says_what_it_converted(cnn10bert, narrow, tmp_path):
    words = ("--checkpoint", narrow[1], "--n-fft", 4096, "--hop-length", 2048, "--num-mel-bins", 96)
    printed = cnn10bert("convert-aisfx", tmp_path / "out", *words).stdout
    assert printed == f"{tmp_path / 'out'}: the convolutions of {narrow[1]}, blocks of 4, 6, 8, 10 channels\n"
    saved = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert [saved[name] for name in ("n_fft", "hop_length", "feature_size")] == [4096, 2048, 96]


def test_without_the_package_the_command_says_how_to_get_it(cnn10bert, monkeypatch, tmp_path):
    monkeypatch.setattr(aisfx, "PACKAGE", "no_such_package_of_sounds")
    [line] = cnn10bert("convert-aisfx", tmp_path / "out", code=1).stderr.splitlines()
    assert line.startswith("error: found no installed package no_such_package_of_sounds, ")
    assert "pip download --no-deps" in line


def test_a_checkpoint_that_is_not_there_is_one_line(cnn10bert, tmp_path):
    missing = tmp_path / "missing.pth"
    [line] = cnn10bert("convert-aisfx", tmp_path / "out", "--checkpoint", missing, code=1).stderr.splitlines()
    assert line.startswith(f"error: {missing}: found no such file, ")
