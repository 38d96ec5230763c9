"""Tiny models, a tiny tokenizer and the real recordings that the tests share."""

import json
import os
import signal
import tempfile
from pathlib import Path

# Before transformers is imported: it reads these once. Nothing is looked up on the Hub, and the user's cache of remote
# code is neither read nor written.
_CACHE = tempfile.TemporaryDirectory(prefix="cnn10bert-tests-")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = _CACHE.name
os.environ["TRACKIO_DIR"] = str(Path(_CACHE.name) / "trackio")
os.environ["HF_MODULES_CACHE"] = str(Path(_CACHE.name) / "modules")
# Tiny models gain nothing from a second thread, and several processes with two each only wait for one another.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import soundfile  # noqa: E402
import soxr  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from transformers import BertConfig, BertTokenizer  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from modeling_cnn10bert import (  # noqa: E402
    CNN10BertConfig,
    CNN10BertModel,
    CNN10BertProcessor,
    CNN10Config,
    CNN10FeatureExtractor,
)
from modeling_cnn10bert.cli.app import app  # noqa: E402
from modeling_cnn10bert.cpu_kernels_cnn10bert import use_cpu_kernels  # noqa: E402

# In the background or under nohup, a shell has the tests ignore signals, and a process that ignores one stays so.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGTERM, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    signal.signal(_number, _handler)

WORDS = ["a", "the", "of", "this", "is", "sound", "dog", "bark", "rain", "siren", "wails", "while", "water", "drips"]


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real recordings, which stands beside the repository and is not part of it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real recordings are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def real_recordings(shared_data):
    """Name to waveform at 32 kHz: three ESC-10 clips of each class and the seven Clotho recordings."""
    files = [file for folder in sorted(shared_data.glob("esc10/0*")) for file in sorted(folder.glob("*.ogg"))[:3]]
    files += sorted(shared_data.glob("clotho/audio/*.wav"))
    recordings = {}
    for file in files:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
        recordings[file.name] = soxr.resample(samples.mean(axis=1), rate, 32_000)
    assert len(recordings) == 37
    return recordings


@pytest.fixture(scope="session")
def tiny_config():
    """Makes a configuration of the paper's layout at toy width; keywords are fields of `CNN10BertConfig`."""

    def make(audio=(), text=(), **fields):
        audio = {"hidden_sizes": [4, 6, 8, 10], **dict(audio)}
        text = {
            "vocab_size": 64,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 24,
            **dict(text),
        }
        fields = {"projection_hidden_size": 20, "projection_dim": 12, **fields}
        return CNN10BertConfig(audio_config=CNN10Config(**audio), text_config=BertConfig(**text), **fields)

    return make


@pytest.fixture(scope="session")
def randomise_norms():
    """Moves every batch normalisation far from its defaults, so that forgetting one, or its mask, shows."""

    def randomise(model, seed=0):
        generator = torch.Generator().manual_seed(seed)
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                is_input = name.endswith("input_norm")  # which sees decibels
                for tensor, mean, std in (
                    (module.weight.data, 1.0, 0.3),
                    (module.bias.data, 0.7, 0.5),  # so ReLU(norm(0)) > 0: padding would not stay silent
                    (module.running_mean, -40.0 if is_input else 0.2, 8.0 if is_input else 0.3),
                ):
                    tensor.copy_(mean + std * torch.randn(tensor.shape, generator=generator))
                spread = 0.5 + torch.rand(module.running_var.shape, generator=generator)
                module.running_var.copy_(spread * (300.0 if is_input else 1.0))
        return model

    return randomise


@pytest.fixture(scope="session")
def tiny_model(tiny_config, randomise_norms):
    """Makes a toy `CNN10BertModel` in evaluation mode with random, unusual normalisations."""

    def make(seed=0, **fields):
        torch.manual_seed(seed)
        return randomise_norms(CNN10BertModel(tiny_config(**fields)), seed).eval()

    return make


@pytest.fixture
def cpu_kernels():
    """Switches what is faster on a CPU on or off; after the test it is on again."""
    yield use_cpu_kernels
    use_cpu_kernels(True)


@pytest.fixture
def feature_extractor():
    return CNN10FeatureExtractor()


@pytest.fixture
def tokenizer():
    """A BERT tokenizer of some whole words and of every letter."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *WORDS,
        *letters[1:],
        *("##" + letter for letter in letters),
    ]
    return BertTokenizer(vocab={piece: index for index, piece in enumerate(pieces)})


@pytest.fixture
def processor(feature_extractor, tokenizer):
    return CNN10BertProcessor(feature_extractor, CNN10BertProcessor.caption_tokenizer(tokenizer))


@pytest.fixture
def tiny_folder(tmp_path, tiny_model, processor):
    """A saved toy model with its processor, and the model."""
    model = tiny_model(text={"vocab_size": len(processor.tokenizer)})
    model.save_pretrained(tmp_path / "checkpoint")
    processor.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint", model


@pytest.fixture
def noise():
    """Makes white noise of a length in samples: float32 at -20 dB."""

    def make(num_samples, seed=0):
        return (0.1 * np.random.default_rng([seed, num_samples]).standard_normal(num_samples)).astype(np.float32)

    return make


@pytest.fixture
def log_mels():
    """Makes a padded batch of random log-mels in dB from lengths in frames: features, mask, and the single clips."""

    def make(lengths, num_frames=None, seed=0, dtype=torch.float32):
        generator = torch.Generator().manual_seed(seed)
        clips = [-40 + 15 * torch.randn(length, 64, generator=generator, dtype=dtype) for length in lengths]
        features = torch.full((len(clips), num_frames or max(lengths), 64), -100.0, dtype=dtype)
        mask = torch.zeros(features.shape[:2], dtype=torch.int32)
        for row, clip in enumerate(clips):
            features[row, : len(clip)] = clip
            mask[row, : len(clip)] = 1
        return features, mask, clips

    return make


@pytest.fixture
def reference_cnn10():
    """CNN10 as table 2 of the paper prints it, in plain torch and without a mask anywhere.

    Every convolution and pooling sees one unpadded clip alone, every batch normalisation the joined frames of all.
    """

    def norm(layer, clips):
        joined = torch.cat(clips, dim=2)
        joined = F.batch_norm(
            joined,
            layer.running_mean,
            layer.running_var,
            layer.weight,
            layer.bias,
            layer.training,
            layer.momentum,
            layer.eps,
        )
        return joined.split([clip.shape[2] for clip in clips], dim=2)

    def forward(model, clips):
        clips = norm(model.input_norm, [clip.T[None, :, :, None] for clip in clips])  # [1, mel bins, T, 1]
        clips = [clip.permute(0, 3, 2, 1) for clip in clips]  # [1, 1, T, mel bins]
        for block in model.blocks:
            for conv, layer in ((block.conv1, block.norm1), (block.conv2, block.norm2)):
                clips = norm(layer, [F.conv2d(clip, conv.weight, padding=1) for clip in clips])
                clips = [F.relu(clip) for clip in clips]
            clips = [F.avg_pool2d(clip, 2) for clip in clips]
        frames = [clip.mean(dim=3)[0] for clip in clips]  # [C, T]
        return torch.stack([(clip.mean(dim=1) + clip.amax(dim=1)) / 2 for clip in frames])

    return forward


@pytest.fixture(scope="session")
def compile_backend():
    """Inductor where a C++ compiler is at hand; without one the same graphs run by "aot_eager"."""
    import shutil

    if any(shutil.which(compiler) for compiler in ("g++", "clang++", "c++")):
        return "inductor"
    print("no C++ compiler found: torch.compile is tested with the backend aot_eager")
    return "aot_eager"


@pytest.fixture(scope="session")
def grammar_captions():
    """Makes so many different English captions out of a small grammar."""

    def make(count):
        subjects = ["a dog", "the heavy rain", "an old engine", "a woman", "a flock of birds", "the crowd", "water"]
        verbs = ["barks", "is heard", "rumbles", "speaks softly", "sings", "gets louder and louder", "drips"]
        endings = ["", " in the distance", " while a siren wails", ", then it is silent", " near a busy road at night"]
        every = [f"{s} {v}{e}." for e in endings for v in verbs for s in subjects]
        order = np.random.default_rng(0).permutation(len(every))[:count]
        return [every[number].capitalize() for number in order]

    return make


@pytest.fixture(scope="session")
def opus_models(tmp_path_factory, grammar_captions):
    """A folder of tiny MarianMT models with random weights, named as those of opus-mt for German and French."""
    import sentencepiece
    from transformers import MarianConfig, MarianMTModel, MarianTokenizer

    folder = tmp_path_factory.mktemp("opus")
    for seed, name in enumerate(["en-de", "de-en", "en-fr", "fr-en"]):
        target = folder / f"opus-mt-{name}"
        target.mkdir()
        (folder / "captions.txt").write_text("\n".join(grammar_captions(200)))
        for side in ("source", "target"):
            sentencepiece.SentencePieceTrainer.train(
                input=str(folder / "captions.txt"),
                model_prefix=str(folder / side),
                vocab_size=60,
                minloglevel=2,
            )
            (folder / f"{side}.model").rename(target / f"{side}.spm")
        pieces = sentencepiece.SentencePieceProcessor(str(target / "source.spm"))
        names = [pieces.IdToPiece(number) for number in range(len(pieces))]
        names = ["</s>", "<unk>", *(piece for piece in names if not piece.startswith("<")), "<pad>"]
        vocab = {piece: number for number, piece in enumerate(names)}
        (folder / "vocab.json").write_text(json.dumps(vocab))
        MarianTokenizer(
            source_spm=str(target / "source.spm"), target_spm=str(target / "target.spm"), vocab=folder / "vocab.json"
        ).save_pretrained(target)
        torch.manual_seed(seed)
        config = MarianConfig(
            vocab_size=len(names),
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            max_position_embeddings=128,
            init_std=1.0,  # far from zero, so that every sentence gets another translation
            eos_token_id=0,
            forced_eos_token_id=0,
            pad_token_id=len(names) - 1,
            decoder_start_token_id=len(names) - 1,
        )
        model = MarianMTModel(config)
        model.final_logits_bias[0, -1] = -1e9  # and never padding, as in opus-mt
        # The end comes after a few words, and not at once.
        model.generation_config.update(min_length=4, exponential_decay_length_penalty=(4, 2.0))
        model.save_pretrained(target)
    return folder


@pytest.fixture(scope="session")
def cnn10bert():
    """Runs the command `cnn10bert` in this process, checks its exit code, and returns what it wrote."""

    def invoke(*words, code=0):
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == code, result.output + repr(result.exception)
        return result

    return invoke
