"""Files of models and indices that were cut off, edited or mixed up: every command says which one, in one line."""

import contextlib
import io
import json
import os
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from modeling_cnn10bert.cli import app as cli
from modeling_cnn10bert.model_folder import check_model_folder

ROOT = Path(__file__).resolve().parents[1]
RATE = 32_000


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_model):
    """A folder with a model, recordings with captions, labels, and an index of the recordings."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "sounds").mkdir()
    for number in range(3):
        waveform = 0.1 * np.random.default_rng(number).standard_normal(RATE)
        soundfile.write(folder / "sounds" / f"{number}.wav", waveform, RATE)
    soundfile.write(folder / "question.wav", waveform[::-1], RATE)
    captions = "".join(f"{number}.wav,a dog barks\n" for number in range(3))
    (folder / "sounds" / "metadata.csv").write_text(f"file_name,caption\n{captions}")
    (folder / "labels.txt").write_text("rain\ndog\n")
    return folder


@pytest.fixture
def model(tiny_folder):
    return tiny_folder[0]


@pytest.fixture
def invoke():
    def invoke(*words):
        result = CliRunner().invoke(cli.app, [str(word) for word in words])
        assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
        return result.exit_code, result.stdout, result.stderr

    return invoke


@pytest.fixture
def run_script(monkeypatch):
    """Runs a script in this process; what it was, if it ended by an error."""

    def run(script, *words):
        monkeypatch.setattr(sys, "argv", [str(script), *map(str, words)])
        printed = io.StringIO()
        with (
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            pytest.raises(SystemExit) as ending,
        ):
            runpy.run_path(str(ROOT / script), run_name="__main__")
        return 1, "", f"{ending.value.code}\n"

    return run


def assert_one_line(outcome, name):
    code, output, said = outcome
    assert code == 1 and output == "", (code, output, said)
    assert said.startswith("error: ") and said.count("\n") == 1 and "Traceback" not in said, said
    assert name in said, said


def edit(path, change):
    """Changes a JSON file by a function of what it holds, or by `(field, value)`, the field with dots."""
    document = json.loads(path.read_text())
    fields, value = change
    *parents, last = fields.split(".")
    part = document
    for parent in parents:
        part = part[parent]
    if value is ...:
        del part[last]
    else:
        part[last] = value
    path.write_text(json.dumps(document))


WHOLE = {"no JSON": b"{no", "a list": b"[]", "empty": b"", "cut off": b'{"model_type": "cnn10b', "deep": b"[" * 100_000}
CASES = [
    *((name, text) for name in ("config.json", "processor_config.json", "tokenizer.json") for text in WHOLE),
    *(("config.json", change) for change in (
        ("model_type", ...), ("model_type", 5), ("audio_config", []), ("text_config", "x"), ("projection_dim", "x"),
        ("projection_dim", 10**9), ("projection_hidden_size", -1), ("audio_config.hidden_sizes", [10**9] * 4),
        ("audio_config.hidden_sizes", []), ("audio_config.num_mel_bins", True), ("text_config.hidden_size", 0),
        ("text_config.num_hidden_layers", 10**9), ("text_config.num_hidden_layers", 1),
        ("text_config.num_attention_heads", 3), ("text_config.vocab_size", 5),
        ("text_config.layer_norm_eps", None), ("text_pooling", "max"), ("audio_config.time_pooling", ["sum"]),
        ("temperature", 0), ("temperature", float("nan")), ("audio_config.batch_norm_eps", "x"),
    )),
    *(("processor_config.json", change) for change in (
        ("feature_extractor", []), ("feature_extractor.sampling_rate", ...), ("feature_extractor.sampling_rate", "x"),
        ("feature_extractor.hop_length", 0), ("feature_extractor.n_fft", 10**12), ("feature_extractor.n_fft", 1.5),
        ("feature_extractor.feature_size", 32), ("feature_extractor.min_frames", 1), ("feature_extractor.f_max", 1.0),
        ("feature_extractor.padding_value", None), ("feature_extractor.padding_side", "left"),
    )),
    ("tokenizer.json", ("model", 5)),
    ("tokenizer.json", ("model.vocab", {})),
    ("tokenizer_config.json", b"[]"),
    ("model.safetensors", b""),
    ("model.safetensors", b"\xff" * 100),
    ("model.safetensors", "half"),
    ("model.safetensors", "without the last layer"),
    ("model.safetensors", "of another width"),
]  # fmt: skip


def damage(folder, name, how):
    path = folder / name
    if isinstance(how, tuple):
        edit(path, how)
    elif how in WHOLE or isinstance(how, bytes):
        path.write_bytes(WHOLE.get(how, how))
    elif how == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        weights = load_file(path)
        if how == "without the last layer":
            weights = {name: value for name, value in weights.items() if ".layer.1." not in name}
        else:
            weights["text_projection.out.weight"] = weights["text_projection.out.weight"][:, :-1].copy()
        save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize(("name", "how"), CASES, ids=lambda value: str(value)[:50])
def test_a_damaged_model_is_one_line_that_names_the_file_and_no_fault_of_recordings(
    name, how, model, whole, invoke, tmp_path
):
    damage(model, name, how)
    assert_one_line(invoke("index", whole / "sounds", "--index", tmp_path / "new", "--model", model), str(model / name))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("config.json", "a list"),
        ("processor_config.json", ("feature_extractor.hop_length", 0)),
        ("tokenizer.json", "cut off"),
        ("model.safetensors", "half"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_every_command_that_opens_a_model_says_so(name, how, model, whole, invoke, run_script, tmp_path):
    index = tmp_path / "index"
    assert invoke("index", whole / "sounds", "--index", index, "--model", model)[0] == 0
    damage(model, name, how)
    sounds, file = whole / "sounds", str(model / name)
    commands = [
        ["index", whole, "--index", index],
        ["search", "a dog", "--index", index],
        ["similar", whole / "question.wav", "--index", index],
        ["tag", whole / "labels.txt", "--index", index],
        ["evaluate", model, sounds, "--out", tmp_path / "evaluation"],
        ["submit", model, sounds, "--format", "dcase2025", "--out", tmp_path / "output.csv"],
        ["export", model, tmp_path / "onnx"],
        ["publish", model, "--to", "org/name"],
    ]
    for words in commands:
        assert_one_line(invoke(*words), file if words[0] != "publish" else name)
    for field in ("model_name_or_path", "audio_model_name_or_path", "text_model_name_or_path"):
        recipe = tmp_path / "recipe.yaml"
        fields = {
            field: str(model),
            "dataset_name": str(tmp_path),
            "use_cpu": True,
            "output_dir": str(tmp_path / "run"),
        }
        recipe.write_text(json.dumps(fields))
        assert_one_line(run_script("train_retrieval.py", recipe), file)
    code, output, said = invoke("page", "--index", index)
    assert_one_line((code, output, said.removeprefix("Loading libraries ...\n")), file)


def test_a_model_whose_embeddings_are_no_numbers_is_at_fault_and_not_the_recordings(model, whole, invoke, tmp_path):
    weights = load_file(model / "model.safetensors")
    weights["audio_projection.out.bias"][:] = np.nan
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    outcome = invoke("index", whole / "sounds", "--index", tmp_path / "new", "--model", model)
    assert_one_line(outcome, "the model embeds no recording")


def test_whole_models_pass_also_without_what_a_library_may_do_without(model, tmp_path):
    check_model_folder(model)
    check_model_folder(tmp_path)  # which is none: that is said by what loads it
    (model / "tokenizer_config.json").unlink()
    extractor = json.loads((model / "processor_config.json").read_text())["feature_extractor"]
    (model / "processor_config.json").unlink()
    (model / "preprocessor_config.json").write_text(json.dumps(extractor))  # as earlier versions of transformers had it
    check_model_folder(model)


@pytest.mark.parametrize("name", ["config.json", "processor_config.json", "tokenizer.json", "model.safetensors"])
def test_what_is_no_file_is_not_opened(name, model):
    (model / name).unlink()
    os.mkfifo(model / name)
    with pytest.raises(ValueError, match=name):
        check_model_folder(model)


# ------------------------------------------------------------------------------------------------------------- indices


@pytest.fixture(scope="module")
def made(whole, tmp_path_factory):
    """An index of vectors that no model is needed for."""
    from modeling_cnn10bert.retrieval.records import EmbeddedFile, FileRecord, IndexInfo, ModelIdentity
    from modeling_cnn10bert.retrieval.stores import open_store

    location = tmp_path_factory.mktemp("made") / "index"
    info = IndexInfo(ModelIdentity(str(whole / "no-model"), None, "0123", 4, {}))
    record = FileRecord(str(whole / "sounds" / "0.wav"), "00", 1, 1, 1.0)
    with open_store(str(location), info) as store:
        store.put([EmbeddedFile(record, [(0.0, 1.0)], np.full((1, 4), 0.5, np.float32))])
    return location


@pytest.mark.parametrize(
    "how",
    [
        *WHOLE,
        b"\xff\xfe",
        *((field, ...) for field in ("model", "format_version", "model.dimension", "model.fingerprint")),
        *(("format_version", value) for value in (3, "1", True, None, [])),
        *(("model.dimension", value) for value in (-1, 10**9, "4", 4.0)),
        *(("model.features", 0), ("model.name", []), ("model.revision", 3), ("model.fingerprint", 1), ("model", "x")),
        *(("window", "30"), ("window", None), ("overlap", 40.0), ("window", 0), ("normalize_level", 1), ("unknown", 1)),
    ],
    ids=lambda value: str(value)[:50],
)
def test_an_edited_index_is_one_line_that_names_its_file(how, made, whole, invoke, tmp_path):
    index = tmp_path / "index"
    shutil.copytree(made, index)
    damage(index, "index.json", how)
    for words in (["info"], ["search", "a dog"], ["duplicates"], ["index", whole / "sounds"]):
        assert_one_line(invoke(*words, "--index", index), str(index / "index.json"))
