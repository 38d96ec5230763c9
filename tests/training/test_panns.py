"""PANNs' Cnn10, built here from its paper, against what its checkpoint is converted to; and the command for it."""

import functools
import hashlib
import http.server
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, BertConfig

from modeling_cnn10bert import CNN10BertModel, CNN10FeatureExtractor, CNN10ForAudioClassification
from modeling_cnn10bert.data import download as downloads
from modeling_cnn10bert.data.audio_io import load_audio
from modeling_cnn10bert.errors import DataError
from modeling_cnn10bert.training import panns
from modeling_cnn10bert.training.arguments import ModelArguments
from modeling_cnn10bert.training.build import load_model_and_processor

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "convert_panns_checkpoint.py"
FLOOR = -80.0  # dB, below which float32 rounding of the STFT dominates
NARROW = (4, 6, 8, 10)


class PannsBlock(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return F.avg_pool2d(F.relu(self.bn2(self.conv2(x))), 2)


class PannsCnn10(nn.Module):
    """PANNs' Cnn10 in evaluation, with torchlibrosa's front end inside, as Kong et al. describe and name it."""

    def __init__(self, widths=(64, 128, 256, 512), blocks=4, **front_end):
        super().__init__()
        stft = pytest.importorskip("torchlibrosa.stft")
        front_end = {"sr": 32_000, "fmin": 50, "fmax": 14_000, "n_fft": 1024, "window": "hann"} | front_end
        n_fft, window = front_end["n_fft"], front_end.pop("window")
        self.spectrogram_extractor = stft.Spectrogram(n_fft=n_fft, hop_length=320, win_length=n_fft, window=window)
        self.logmel_extractor = stft.LogmelFilterBank(n_mels=64, ref=1.0, amin=1e-10, top_db=None, **front_end)
        self.bn0 = nn.BatchNorm2d(64)
        for number in range(blocks):
            block = PannsBlock(widths[number - 1] if number else 1, widths[number])
            self.add_module(f"conv_block{number + 1}", block)
        self.fc1 = nn.Linear(widths[-1], widths[-1])
        self.fc_audioset = nn.Linear(widths[-1], 527)

    @torch.no_grad()
    def log_mel(self, waveform):
        """[num_samples] to [T, 64] in dB."""
        return self.logmel_extractor(self.spectrogram_extractor(torch.as_tensor(waveform)[None]))[0, 0]

    @torch.no_grad()
    def forward(self, log_mel):
        """[T, 64] to the output [1, C, T, F] of each block, the clip's embedding [1, C], and the logits [1, 527]."""
        x = self.bn0(log_mel[None, None].transpose(1, 3)).transpose(1, 3)
        blocks = [x := block(x) for name, block in self.named_children() if name.startswith("conv_block")]
        x = x.mean(dim=3)
        embedding = x.amax(dim=2) + x.mean(dim=2)
        return blocks, embedding, self.fc_audioset(F.relu(self.fc1(embedding)))


@torch.no_grad()
def _with_random_weights(network, seed=0):
    """Values of size one everywhere, and normalisations far from their defaults."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor, mean, deviation):
        tensor.copy_(mean + deviation * torch.randn(tensor.shape, generator=generator))

    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            decibels = name == "bn0"
            normal(module.weight, 0.8, 0.2)
            normal(module.bias, 0.2, 0.3)
            normal(module.running_mean, -40.0 if decibels else 0.3, 8.0 if decibels else 0.3)
            spread = 0.5 + torch.rand(module.running_var.shape, generator=generator)
            module.running_var.copy_(spread * (300.0 if decibels else 1.5))
            module.num_batches_tracked.fill_(600_000)
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            normal(module.weight, 0.0, module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                normal(module.bias, 0.0, 0.3)
    return network.eval()


def _save(network, path, **options):
    torch.save({"iteration": 600_000, "model": network.state_dict()}, path, **options)
    return path


def convert(checkpoint, out, **options):
    panns.convert_panns_checkpoint(out, checkpoint, **options)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A network of the published widths, and what its checkpoint converts to: feature extractor and model."""
    folder = tmp_path_factory.mktemp("published")
    network = _with_random_weights(PannsCnn10())
    convert(_save(network, folder / "Cnn10_mAP=0.380.pth"), folder / "out")
    feature_extractor = AutoFeatureExtractor.from_pretrained(folder / "out")
    return network, feature_extractor, AutoModelForAudioClassification.from_pretrained(folder / "out")


@pytest.fixture
def narrow(tmp_path):
    """A narrow network and its checkpoint."""
    network = _with_random_weights(PannsCnn10(NARROW))
    return network, _save(network, tmp_path / "narrow.pth")


@pytest.fixture
def edited(narrow, tmp_path):
    """Makes a checkpoint of the narrow network with some tensors changed; `None` leaves one out."""

    def edit(changes):
        state = narrow[0].state_dict() | changes
        torch.save({"model": {name: value for name, value in state.items() if value is not None}}, tmp_path / "e.pth")
        return tmp_path / "e.pth"

    return edit


# -------------------------------------------------------------------------------------------------------- fidelity


@pytest.fixture
def sweep(noise):
    """Two seconds of a tone that rises, in noise."""
    seconds = np.arange(64_000) / 32_000
    return (0.3 * np.sin(2 * np.pi * (200 + 2000 * seconds) * seconds) + noise(64_000)).astype(np.float32)


@pytest.fixture
def recording(shared_data):
    """Reads the first two seconds of the first ESC-10 recording of a class."""
    return lambda name: load_audio(sorted((shared_data / "esc10" / name).glob("*.ogg"))[0], 32_000)[:64_000]


def _outputs(model, inputs):
    with torch.no_grad():
        outputs = model(**inputs, output_hidden_states=True)
    _, *blocks = outputs.hidden_states  # the first is the input of the first block
    return blocks, outputs.logits


def _assert_equal(ours, theirs):
    for our, their in zip(ours, theirs, strict=True):
        assert 0.1 < their.std() < 10  # so that 1e-4 is a small part of it
        torch.testing.assert_close(our, their, rtol=0, atol=1e-4)


@pytest.mark.parametrize("source", ["sweep", "003 - Sea waves"])
def test_a_recording_gets_the_same_values_from_its_waveform_to_its_logits(source, published, request):
    network, feature_extractor, model = published
    waveform = request.getfixturevalue("sweep") if source == "sweep" else request.getfixturevalue("recording")(source)
    inputs = feature_extractor(waveform, sampling_rate=32_000, return_tensors="pt")
    log_mel = network.log_mel(waveform)
    assert log_mel.min() > FLOOR
    torch.testing.assert_close(inputs["input_features"][0], log_mel, rtol=0, atol=1e-4)
    blocks, _, logits = network(log_mel)
    our_blocks, our_logits = _outputs(model, inputs)
    assert [tuple(block.shape) for block in our_blocks] == [
        (1, 64, 100, 32),  # 201 frames
        (1, 128, 50, 16),
        (1, 256, 25, 8),
        (1, 512, 12, 4),
    ]
    assert our_logits.shape == (1, 527)
    _assert_equal([*our_blocks, our_logits], [*blocks, logits])


@pytest.mark.parametrize("source", ["001 - Dog bark", "002 - Rain"])
def test_a_recording_with_silence_gets_the_same_values_above_the_floor(source, published, recording):
    network, feature_extractor, model = published
    waveform = recording(source)
    inputs = feature_extractor(waveform, sampling_rate=32_000, return_tensors="pt")
    ours, theirs = inputs["input_features"][0], network.log_mel(waveform)
    assert theirs.min() == -100
    audible = (ours > FLOOR) | (theirs > FLOOR)
    torch.testing.assert_close(ours[audible], theirs[audible], rtol=0, atol=0.01)
    our_blocks, our_logits = _outputs(model, inputs)
    _assert_equal([our_logits], [network(theirs)[2]])
    # What is below the floor is rounding, which a block sees too: the blocks are compared on one log-mel.
    blocks, _, logits = network(ours)
    _assert_equal([*our_blocks, our_logits], [*blocks, logits])


# ---------------------------------------------------------------------------------------------------- the converted


def test_it_is_panns_own_network_and_front_end(published):
    _, feature_extractor, model = published
    assert type(model) is CNN10ForAudioClassification
    assert type(feature_extractor) is CNN10FeatureExtractor
    assert model.config.hidden_sizes == [64, 128, 256, 512]
    assert (model.config.time_pooling, model.config.problem_type) == ("sum", "multi_label_classification")
    assert [block.dropout.p for block in model.cnn10.blocks] == [0.2] * 4
    assert model.dropout.p == 0.5
    # Convolutions, normalisations of them and of the input, and the two linear layers of Kong et al.'s table.
    assert model.num_parameters() == 4_682_304 + 3_840 + 128 + (512 * 512 + 512) + (512 * 527 + 527)


def test_the_folder_holds_safetensors_and_nothing_that_could_run_unasked(narrow, tmp_path):
    convert(narrow[1], tmp_path / "models" / "out")
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["out"]
    assert {path.name for path in (tmp_path / "models" / "out").iterdir()} == {
        "config.json",
        "configuration_cnn10bert.py",
        "cpu_kernels_cnn10bert.py",
        "data_facts.json",
        "feature_extraction_cnn10bert.py",
        "model.safetensors",
        "modeling_cnn10bert.py",
        "preprocessor_config.json",
    }


def test_a_narrow_checkpoint_gives_a_narrow_model_and_every_tensor_arrives(narrow, tmp_path):
    network, path = narrow
    convert(path, tmp_path / "out")
    model = AutoModelForAudioClassification.from_pretrained(tmp_path / "out")
    assert model.config.hidden_sizes == list(NARROW)
    front_end = 3  # real and imaginary part of the Fourier transform, mel filters
    assert len(model.state_dict()) == len(network.state_dict()) - front_end
    assert torch.equal(model.cnn10.input_norm.running_var, network.bn0.running_var)
    assert torch.equal(model.cnn10.blocks[2].norm1.running_mean, network.conv_block3.bn1.running_mean)
    assert torch.equal(model.cnn10.blocks[3].conv2.weight, network.conv_block4.conv2.weight)
    assert {int(value) for name, value in model.state_dict().items() if "num_batches" in name} == {600_000}


def test_a_checkpoint_without_counters_of_batches_converts(narrow, edited, tmp_path):
    network, _ = narrow
    counters = [name for name in network.state_dict() if name.endswith("num_batches_tracked")]
    assert len(counters) == 9
    convert(edited(dict.fromkeys(counters)), tmp_path / "out")
    model = AutoModelForAudioClassification.from_pretrained(tmp_path / "out")
    assert torch.equal(model.cnn10.blocks[0].norm2.running_mean, network.conv_block1.bn2.running_mean)


def test_a_checkpoint_in_the_format_before_pytorch_1_6_converts(narrow, tmp_path):
    network, path = narrow
    convert(_save(network, path, _use_new_zipfile_serialization=False), tmp_path / "out")
    model = AutoModelForAudioClassification.from_pretrained(tmp_path / "out")
    assert torch.equal(model.classifier.weight, network.fc_audioset.weight)


def test_the_classes_have_audiosets_names_where_its_list_is_given(narrow, tmp_path):
    rows = [f'{number},/m/{number:03d},"class, {number}"' for number in range(527)]
    (tmp_path / "labels.csv").write_text("\n".join(["index,mid,display_name", *rows]))
    convert(narrow[1], tmp_path / "named", labels=tmp_path / "labels.csv")
    convert(narrow[1], tmp_path / "unnamed")
    config = AutoModelForAudioClassification.from_pretrained(tmp_path / "named").config
    assert (config.num_labels, config.id2label[526], config.label2id["class, 3"]) == (527, "class, 526", 3)
    config = AutoModelForAudioClassification.from_pretrained(tmp_path / "unnamed").config
    assert (config.num_labels, config.id2label[526]) == (527, "LABEL_526")


# --------------------------------------------------------------------------------------------------------- transfer


@pytest.fixture
def retrieval(narrow, text_folder, tmp_path):
    """The retrieval model and processor that a recipe starts from, on top of the converted narrow network."""
    convert(narrow[1], tmp_path / "tagger")
    return load_model_and_processor(
        ModelArguments(
            audio_model_name_or_path=str(tmp_path / "tagger"),
            text_model_name_or_path=str(text_folder),
            block_dropout=0.3,
            projection_hidden_size=8,
            projection_dim=4,
        )
    )


def test_the_retrieval_model_starts_from_the_convolutions_and_the_input_norm(narrow, retrieval):
    network, (model, processor) = narrow[0], retrieval
    audio = model.audio_model
    for tensor in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(getattr(audio.input_norm, tensor), getattr(network.bn0, tensor))
    for number, block in enumerate(audio.blocks, start=1):
        theirs = getattr(network, f"conv_block{number}")
        assert torch.equal(block.conv1.weight, theirs.conv1.weight)
        assert torch.equal(block.conv2.weight, theirs.conv2.weight)
        assert torch.equal(block.norm1.running_var, theirs.bn1.running_var)
        assert torch.equal(block.norm2.bias, theirs.bn2.bias)
    assert processor.feature_extractor.hop_length == 320


def test_the_retrieval_model_pools_and_drops_as_the_recipe_says(narrow, retrieval, sweep):
    network, (model, processor) = narrow[0], retrieval
    assert model.config.audio_config.time_pooling == "average"
    assert [block.dropout.p for block in model.audio_model.blocks] == [0.3] * 4
    inputs = processor.feature_extractor(sweep, sampling_rate=32_000, return_tensors="pt")
    with torch.no_grad():
        pooled = model.audio_model(**inputs).pooler_output
    _, summed, _ = network(network.log_mel(sweep))
    torch.testing.assert_close(pooled, summed / 2, rtol=0, atol=1e-4)


def test_towers_are_joined_as_panns_own_network_unless_told_otherwise(narrow, tmp_path):
    convert(narrow[1], tmp_path / "out")
    text = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=16)
    model = CNN10BertModel.from_audio_text_pretrained(tmp_path / "out", text, projection_hidden_size=8)
    assert model.config.audio_config.time_pooling == "sum"
    assert torch.equal(model.audio_model.input_norm.running_mean, narrow[0].bn0.running_mean)


def test_training_starts_from_a_converted_checkpoint(narrow, run, tmp_path):
    convert(narrow[1], tmp_path / "tagger")
    metrics = run(
        tmp_path / "run",
        audio_model_name_or_path=str(tmp_path / "tagger"),
        max_train_samples=6,
        max_eval_samples=4,
        do_predict=False,
        num_train_epochs=1,
        save_strategy="no",
    )
    assert np.isfinite(metrics["train_loss"])
    audio_config = json.loads((tmp_path / "run" / "config.json").read_text())["audio_config"]
    assert (audio_config["hidden_sizes"], audio_config["num_mel_bins"]) == (list(NARROW), 64)


# ------------------------------------------------------------------------------------------------- other checkpoints


def test_cnn14_is_refused_by_what_is_missing_unexpected_and_of_another_shape(tmp_path):
    cnn14 = _save(PannsCnn10((4, 6, 8, 10, 12, 14), blocks=6), tmp_path / "Cnn14_mAP=0.431.pth")
    with pytest.raises(DataError) as caught:
        convert(cnn14, tmp_path / "out")
    message = str(caught.value)
    assert str(cnn14) in message
    assert "24 unexpected (conv_block5.conv1.weight, " in message  # two blocks of 2 weights and 2 x 5 tensors
    assert "3 of another shape (fc1.weight [14, 14] for [10, 10], fc1.bias [14] for [10], fc_audioset" in message
    assert "missing" not in message
    assert "expected the tensors of Cnn10_mAP=0.380.pth" in message
    assert not (tmp_path / "out").exists()


def test_another_head_is_refused(narrow, edited, tmp_path):
    weight = narrow[0].fc_audioset.weight
    renamed = {"fc_audioset.weight": None, "fc_transfer.weight": weight}
    with pytest.raises(
        DataError, match=r"1 missing \(fc_audioset\.weight\); 1 unexpected \(fc_transfer\.weight\); expected"
    ):
        convert(edited(renamed), tmp_path / "out")
    with pytest.raises(DataError, match=r"1 of another shape \(fc_audioset\.weight \[50, 10\] for \[527, 10\]\)"):
        convert(edited({"fc_audioset.weight": weight[:50]}), tmp_path / "out")


@pytest.mark.parametrize(
    ("front_end", "name"),
    [
        ({"sr": 44_100}, "logmel_extractor.melW"),
        ({"fmin": 49}, "logmel_extractor.melW"),
        ({"fmax": 14_100}, "logmel_extractor.melW"),
        ({"window": "hamming"}, "spectrogram_extractor.stft.conv_real.weight"),
    ],
)
def test_another_front_end_is_refused_by_the_constant(front_end, name, tmp_path):
    with pytest.raises(DataError, match=rf"found {name} to differ by up to .* trained with another front end"):
        convert(_save(PannsCnn10(NARROW, **front_end), tmp_path / "other.pth"), tmp_path / "out")


def test_another_window_length_is_refused_by_the_constants(tmp_path):
    shapes = r"conv_real\.weight \[257, 1, 512\] for \[513, 1, 1024\].*melW \[257, 64\] for \[513, 64\]"
    with pytest.raises(DataError, match=shapes):
        convert(_save(PannsCnn10(NARROW, n_fft=512), tmp_path / "other.pth"), tmp_path / "out")


def test_an_imaginary_part_that_differs_is_refused(narrow, edited, tmp_path):
    name = "spectrogram_extractor.stft.conv_imag.weight"
    with pytest.raises(DataError, match=f"found {name} to differ by up to 1e-05"):
        convert(edited({name: narrow[0].state_dict()[name] + 1e-5}), tmp_path / "out")


# --------------------------------------------------------------------------------------------------------- bad files


class _Code:
    """Pickled, it is a call that leaves a folder behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_is_refused_and_not_run(zipped, narrow, tmp_path):
    content = {"model": narrow[0].state_dict(), "sampler": _Code(tmp_path / "ran")}
    torch.save(content, tmp_path / "bad.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(DataError, match=r"bad\.pth: found pickled code \(posix\.mkdir\), which was not run"):
        convert(tmp_path / "bad.pth", tmp_path / "out")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0.0, 0.0001, 0.3, 0.999])
def test_a_truncated_checkpoint_is_refused(kept, zipped, narrow, tmp_path):
    network, path = narrow
    content = _save(network, path, _use_new_zipfile_serialization=zipped).read_bytes()
    path.write_bytes(content[: round(kept * len(content))])
    with pytest.raises(DataError, match=r"narrow\.pth: found \d+ bytes that do not read as .*download it again"):
        convert(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([1, 2], "found a list"),
        ({"state_dict": {}, "epoch": 3}, "found a dict of state_dict, epoch"),
        ({"model": [1]}, "found a dict of model"),
        ({"model": {"bn0.weight": torch.ones(64), "bn0.bias": "none"}}, r"that are no tensors \(bn0\.bias\)"),
    ],
)
def test_a_checkpoint_of_another_structure_is_refused(content, found, tmp_path):
    torch.save(content, tmp_path / "bad.pth")
    with pytest.raises(DataError, match=rf"bad\.pth: .*{found}.*, expected a checkpoint of PANNs' Cnn10"):
        convert(tmp_path / "bad.pth", tmp_path / "out")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1])
def test_values_that_no_training_ended_with_are_refused(value, edited, tmp_path):
    bad = edited({"conv_block2.bn1.bias": torch.full((6,), value)})
    with pytest.raises(DataError, match=r"no finite floating-point numbers in 1 tensors \(conv_block2\.bn1\.bias\)"):
        convert(bad, tmp_path / "out")


# ------------------------------------------------------------------------------------------------------- the output


def test_what_is_there_already_is_left_as_it_is(narrow, tmp_path):
    out = tmp_path / "out"
    convert(narrow[1], out)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir()}
    with pytest.raises(DataError, match="out: found a model, which stays as it is, expected a new folder"):
        convert(narrow[1], out)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir()} == before

    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="notes: found a folder that holds something else"):
        convert(narrow[1], tmp_path / "notes")
    with pytest.raises(DataError, match=r"notes\.txt: found a file, expected a new folder; name a folder"):
        convert(narrow[1], tmp_path / "notes" / "notes.txt")
    assert (tmp_path / "notes" / "notes.txt").read_text() == "mine"


def test_what_appeared_meanwhile_is_left_as_it_is(narrow, tmp_path, monkeypatch):
    out, save = tmp_path / "out", CNN10FeatureExtractor.save_pretrained

    def save_slowly(self, folder):
        save(self, folder)
        out.mkdir()
        (out / "notes.txt").write_text("mine")

    monkeypatch.setattr(CNN10FeatureExtractor, "save_pretrained", save_slowly)
    with pytest.raises(DataError, match="out: found a folder that holds something else"):
        convert(narrow[1], out)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["narrow.pth", "out"]


def test_an_interrupted_conversion_leaves_nothing_behind(narrow, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(CNN10FeatureExtractor, "save_pretrained", full)  # the weights are on disk by then
        with pytest.raises(DataError, match="out: found that it cannot be written .*No space left on device"):
            convert(narrow[1], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["narrow.pth"]
    convert(narrow[1], tmp_path / "out")
    AutoModelForAudioClassification.from_pretrained(tmp_path / "out")


# ------------------------------------------------------------------------------------------------------ the command


@pytest.fixture
def zenodo(tmp_path, monkeypatch):
    """The address of a server that has the file that it keeps at `zenodo.path`, and its requests."""
    monkeypatch.setattr(downloads, "PAUSE", 0.0)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "server" / "records" / "3987831" / "files"
    folder.mkdir(parents=True)
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            requests.append(self.path)

    handler = functools.partial(Handler, directory=str(tmp_path / "server"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.path, server.requests = folder / "Cnn10_mAP=0.380.pth", requests
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_without_a_checkpoint_the_published_one_is_downloaded_once(zenodo, narrow, tmp_path, monkeypatch):
    content = _save(narrow[0], zenodo.path).read_bytes()
    monkeypatch.setattr(panns, "MD5", hashlib.md5(content).hexdigest())
    for number in range(2):
        convert(None, tmp_path / f"out{number}", mirror=zenodo.url)
        model = AutoModelForAudioClassification.from_pretrained(tmp_path / f"out{number}")
        assert torch.equal(model.classifier.bias, narrow[0].fc_audioset.bias)
    assert len(zenodo.requests) == 1
    assert (tmp_path / "home/.cache/cnn10bert/panns/Cnn10_mAP=0.380.pth").read_bytes() == content


def test_a_download_that_is_not_the_published_file_is_refused(zenodo, narrow, tmp_path):
    _save(narrow[0], zenodo.path)
    with pytest.raises(DataError, match="found the MD5 .* expected bfb1f1f9968938fa8ef4012b8471f5f6; .* deleted"):
        convert(None, tmp_path / "out", mirror=zenodo.url)
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "home").rglob("Cnn10*"))


def test_nothing_is_downloaded_where_the_output_is_taken(zenodo, narrow, tmp_path):
    convert(narrow[1], tmp_path / "out")
    with pytest.raises(DataError, match="found a model"):
        convert(None, tmp_path / "out", mirror=zenodo.url)
    assert not zenodo.requests


def test_the_command_says_what_it_converted(cnn10bert, narrow, tmp_path):
    printed = cnn10bert("convert-panns", tmp_path / "out", "--checkpoint", narrow[1]).stdout
    assert printed == (
        f"{tmp_path / 'out'}: PANNs' Cnn10 of {narrow[1]}, blocks of 4, 6, 8, 10 channels, 527 classes\n"
    )


def test_the_folder_says_what_the_network_was_trained_on(narrow, tmp_path, monkeypatch):
    convert(narrow[1], tmp_path / "narrow")
    audioset = {"kind": "known", "source": "AudioSet"}
    assert json.loads((tmp_path / "narrow" / "data_facts.json").read_text()) == [audioset]
    # Only of the published file the licence is known.
    monkeypatch.setattr(panns, "MD5", hashlib.md5(narrow[1].read_bytes()).hexdigest())
    convert(narrow[1], tmp_path / "published")
    facts = json.loads((tmp_path / "published" / "data_facts.json").read_text())
    assert facts == [audioset, {"kind": "known", "source": "PANNs"}]


def test_a_checkpoint_that_is_not_there_is_one_line(cnn10bert, tmp_path):
    missing = tmp_path / "missing.pth"
    [line] = cnn10bert("convert-panns", tmp_path / "out", "--checkpoint", missing, code=1).stderr.splitlines()
    assert line.startswith(f"error: {missing}: found no such file, ")
