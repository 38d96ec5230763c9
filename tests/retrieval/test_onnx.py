"""ONNX exports: they compute what PyTorch does, say what they are, and never overwrite anything else."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from modeling_cnn10bert.errors import RetrievalError
from modeling_cnn10bert.retrieval.embedding import check_same_model, load_embedder

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from modeling_cnn10bert.retrieval import onnx as onnx_export  # noqa: E402

CAPTIONS = ["a dog", "The rain of this dog is a siren!", "water drips while a siren wails", "rain", "a bark, a bark"]


@pytest.fixture(scope="module")
def exports():
    """By whether they are of 8 bits: made by whichever test asks first, as it takes some seconds."""
    return {}


@pytest.fixture
def exported(exports, tiny_model, processor, tmp_path_factory, noise, monkeypatch):
    """Makes a saved toy model with a temporal moment and its export, in float32 or 8 bits: their folders."""

    def make(int8=False):
        if False not in exports:
            source = tmp_path_factory.mktemp("model") / "model"
            model = tiny_model(audio={"temporal_moments": 1}, text={"vocab_size": len(processor.tokenizer)})
            model.save_pretrained(source)
            processor.save_pretrained(source)
            exports[False] = source, onnx_export.export_onnx(source, source.with_name("exported"))
        if int8 and True not in exports:
            source, folder = exports[False]
            calibration = [noise(length) for length in (5_000, 32_000, 90_000)]
            with monkeypatch.context() as patch:
                patch.setattr(onnx_export, "_export_tower", export_of_before(folder))
                out = source.with_name("8-bit")
                exports[True] = source, onnx_export.export_onnx(source, out, int8=True, calibration=calibration)
        return exports[int8]

    return make


def export_of_before(folder):
    """In the place of `_export_tower`, which takes seconds: the files of a float32 export."""
    return lambda model, tower, path: shutil.copyfile(folder / tower.file, path)


def test_recordings_of_all_lengths_get_the_embeddings_of_pytorch(exported, real_recordings, noise):
    source, folder = exported()
    lengths = (1, 100, 5_119, 5_120, 31_999, 77_777)
    waveforms = [noise(length) for length in lengths]
    waveforms += [clip[: 9_000 * number + 4_000] for number, clip in enumerate(real_recordings.values())][::3]
    expected = load_embedder(source, device="cpu").embed_audio(waveforms)
    found = load_embedder(folder, batch_size=5).embed_audio(waveforms)
    assert found.shape == expected.shape and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_texts_get_the_embeddings_of_pytorch_alone_and_among_others(exported):
    source, folder = exported()
    expected = load_embedder(source, device="cpu").embed_text([*CAPTIONS, "rain " * 5_000])
    embedder = load_embedder(folder)
    np.testing.assert_allclose(embedder.embed_text([*CAPTIONS, "rain " * 5_000]), expected, atol=1e-4)
    np.testing.assert_allclose(
        np.concatenate([embedder.embed_text([text]) for text in CAPTIONS]), expected[:-1], atol=1e-4
    )


def test_an_export_is_the_model_that_it_was_made_from(exported):
    source, folder = exported()
    model, export = load_embedder(source, device="cpu"), load_embedder(folder)
    assert isinstance(export, onnx_export.OnnxEmbedder)
    assert export.identity == model.identity and export.sampling_rate == model.sampling_rate == 32_000
    check_same_model(model.identity, export.identity)


def test_the_files_say_what_they_are(exported):
    source, folder = exported()
    config = json.loads((folder / "onnx_config.json").read_text())
    assert config["opset"] == 18
    for tower, length, output in (("audio", "frames", "audio_embeds"), ("text", "tokens", "text_embeds")):
        entry = config["files"][tower]
        proto = onnx.load(folder / entry["file"])
        assert [opset.version for opset in proto.opset_import if not opset.domain] == [18]
        assert b"modeling_cnn10bert.py" not in proto.SerializeToString()  # as the exporter's stack traces would be
        properties = {entry.key: entry.value for entry in proto.metadata_props}
        assert properties["fingerprint"] == config["model"]["fingerprint"]
        assert properties["model"] == str(source) and properties["project"].startswith("cnn10bert ")
        shapes = {
            value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
            for value in [*proto.graph.input, *proto.graph.output]
        }
        assert shapes == {name: of["shape"] for name, of in (entry["inputs"] | entry["outputs"]).items()}
        assert shapes[output] == ["batch", 12]
        assert all(shape[:2] == ["batch", length] for name, shape in shapes.items() if name != output)


def test_eight_bits_stay_close_and_take_less_room(exported, real_recordings):
    source, folder = exported(int8=True)
    files = json.loads((folder / "onnx_config.json").read_text())["files"]
    assert {entry["precision"] for entry in files.values()} == {"int8"}
    model, export = load_embedder(source, device="cpu"), load_embedder(folder)
    waveforms = list(real_recordings.values())[::4]
    for expected, found in (
        (model.embed_audio(waveforms), export.embed_audio(waveforms)),
        (model.embed_text(CAPTIONS), export.embed_text(CAPTIONS)),
    ):
        assert not np.allclose(found, expected, atol=1e-6)
        assert (found * expected).sum(axis=1).min() > 0.98
    for file in ("audio_model.onnx", "text_model.onnx"):
        assert share_of_eight_bits(folder / file) > 0.8 > 0 == share_of_eight_bits(exported()[1] / file)


def share_of_eight_bits(path):
    """Of the weights of a file, biases and norms among them."""
    weights = [onnx.numpy_helper.to_array(value) for value in onnx.load(path).graph.initializer]
    weights = [value for value in weights if value.dtype in (np.float32, np.int8, np.uint8)]
    return sum(value.size for value in weights if value.itemsize == 1) / sum(value.size for value in weights)


def test_eight_bits_of_the_weights_alone_stay_closer_and_independent_of_the_batch(exported, tmp_path, monkeypatch):
    source, eight_bits = exported(int8=True)
    monkeypatch.setattr(onnx_export, "_export_tower", export_of_before(exported()[1]))
    folder = onnx_export.export_onnx(source, tmp_path / "weights", int8=True, weights_only=True)
    assert json.loads((folder / "onnx_config.json").read_text())["files"]["text"]["precision"] == "int8_weights"
    types = {tensor.name: tensor.data_type for tensor in onnx.load(folder / "text_model.onnx").graph.initializer}
    tables = [name for name in types if "embeddings" in name and name.endswith("_int8")]
    assert len(tables) == 3 and all(types[name] == onnx.TensorProto.INT8 for name in tables)
    expected = load_embedder(source, device="cpu").embed_text(CAPTIONS)
    cosines = {
        name: (load_embedder(name).embed_text(CAPTIONS) * expected).sum(1).min() for name in (folder, eight_bits)
    }
    assert cosines[eight_bits] < cosines[folder] < 1 - 1e-7 and cosines[folder] > 0.9999
    embedder = load_embedder(folder)
    alone = np.concatenate([embedder.embed_text([caption]) for caption in CAPTIONS])
    np.testing.assert_allclose(embedder.embed_text(CAPTIONS), alone, atol=1e-6)


def test_without_recordings_to_calibrate_with_the_audio_tower_stays_float32(exported, tmp_path, monkeypatch):
    source, folder = exported()
    monkeypatch.setattr(onnx_export, "_export_tower", export_of_before(folder))
    onnx_export.export_onnx(source, tmp_path / "out", int8=True)
    files = json.loads((tmp_path / "out" / "onnx_config.json").read_text())["files"]
    assert {tower: entry["precision"] for tower, entry in files.items()} == {"audio": "float32", "text": "int8"}
    assert share_of_eight_bits(tmp_path / "out" / "audio_model.onnx") == 0


def test_the_first_convolution_keeps_its_precision(exported):
    proto = onnx.load(exported(int8=True)[1] / "audio_model.onnx")
    made_by = {output: node for node in proto.graph.node for output in node.output}
    weights = [made_by.get(node.input[1]) for node in proto.graph.node if node.op_type == "Conv"]
    assert [node is not None and node.op_type == "DequantizeLinear" for node in weights] == [False] + [True] * 7


def test_recordings_of_a_folder_calibrate_from_their_beginnings(tmp_path, noise):
    soundfile = pytest.importorskip("soundfile")
    (tmp_path / "deeper").mkdir()
    for number in range(70):
        soundfile.write(tmp_path / "deeper" / f"{number:02}.wav", noise(400 + number), 16_000)
    waveforms = onnx_export.calibration_waveforms(tmp_path, 16_000)
    lengths = [len(waveform) for waveform in waveforms]
    assert len(lengths) == 64 and lengths[0] == 400 and lengths[-1] == 469 and lengths == sorted(lengths)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RetrievalError, match="found no recording"):
        onnx_export.calibration_waveforms(tmp_path / "empty", 16_000)


def test_a_folder_that_is_no_export_is_left_alone(tiny_folder, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for out, message in ((tmp_path / "mine", "not empty"), (tmp_path / "mine" / "thesis.txt", "no folder")):
        with pytest.raises(RetrievalError, match=message):
            onnx_export.export_onnx(tiny_folder[0], out)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_an_export_that_fails_leaves_the_one_before(exported, tmp_path, monkeypatch):
    source, _ = exported()
    out = tmp_path / "out"
    out.mkdir()
    (out / "onnx_config.json").write_text("{}")

    def fail(*_):
        raise RetrievalError("no room")

    monkeypatch.setattr(onnx_export, "_export_tower", fail)
    with pytest.raises(RetrievalError, match="no room"):
        onnx_export.export_onnx(source, out)
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == ["out"]
    assert (out / "onnx_config.json").read_text() == "{}"


def test_a_new_export_takes_the_place_of_an_old_one(exported, tmp_path, monkeypatch):
    source, folder = exported()
    out = tmp_path / "out"
    out.mkdir()
    (out / "onnx_config.json").write_text("{}")
    (out / "old").write_text("old")
    monkeypatch.setattr(onnx_export, "_export_tower", export_of_before(folder))
    assert onnx_export.export_onnx(source, out) == out
    assert not (out / "old").exists()
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == ["out"]
    assert load_embedder(out).embed_text(["a dog"]).shape == (1, 12)


def test_a_file_that_computes_something_else_is_refused(exported, tiny_model, processor, tmp_path, monkeypatch):
    source, folder = exported()
    other = tiny_model(seed=5, text={"vocab_size": len(processor.tokenizer)})
    other.save_pretrained(tmp_path / "other")
    processor.save_pretrained(tmp_path / "other")
    monkeypatch.setattr(onnx_export, "_export_tower", export_of_before(folder))
    with pytest.raises(RetrievalError, match="differs from PyTorch"):
        onnx_export.export_onnx(tmp_path / "other", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("package", ["onnxruntime", "onnxscript"])
def test_a_missing_package_is_named_with_the_way_to_install_it(exported, tmp_path, package, monkeypatch):
    source, folder = exported()
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(onnx_export.importlib.util, "find_spec", lambda name: None if name == package else object())
    with pytest.raises(RetrievalError, match=rf"{package}.*pip install \"cnn10bert\[onnx\]\""):
        onnx_export.export_onnx(source, tmp_path / "out")
    if package == "onnxruntime":
        with pytest.raises(RetrievalError, match=r"pip install \"cnn10bert\[onnx\]\""):
            load_embedder(folder)


def test_what_is_no_export_or_a_newer_one_is_named(exported, tmp_path):
    with pytest.raises(RetrievalError, match="no onnx_config.json, expected an export"):
        load_embedder(tmp_path, backend="onnx")
    config = json.loads((exported()[1] / "onnx_config.json").read_text())
    (tmp_path / "onnx_config.json").write_text(json.dumps({**config, "format_version": 99}))
    with pytest.raises(RetrievalError, match="format_version 99, expected at most 1"):
        load_embedder(tmp_path)
    (tmp_path / "onnx_config.json").write_text("{}")
    with pytest.raises(RetrievalError, match="export the model again"):
        load_embedder(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"device": "tpu"}, "device is 'tpu'"), ({"dtype": "bfloat16"}, "dtype"), ({"backend": "torch"}, "ONNX export")],
)
def test_what_an_export_cannot_do_is_refused(exported, arguments, message):
    with pytest.raises(RetrievalError, match=message):
        load_embedder(exported()[1], **arguments)


def test_a_damaged_file_is_named(exported, tmp_path):
    for file in exported()[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "text_model.onnx").write_bytes(b"nothing")
    with pytest.raises(RetrievalError, match="text_model.onnx.*export the model again"):
        load_embedder(tmp_path).embed_text(["a dog"])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *(("onnx_config.json", text) for text in ("{no", "[]", "", "[" * 100_000)),
        *(("onnx_config.json", {field: None}) for field in ("files", "model", "format_version", "unknown")),
        *(("onnx_config.json", {"format_version": value}) for value in ("1", True, 0)),
        *(("onnx_config.json", {"files": dict.fromkeys(("audio", "text"), {"file": file})}) for file in ("../x", 5)),
        *(("processor_config.json", change) for change in ("[]", {"feature_extractor": 3})),
        *(("tokenizer.json", change) for change in ("{", {"model": {}})),
        *(("audio_model.onnx", text) for text in ("", "no model")),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_a_damaged_export_is_an_error_that_names_its_file(name, change, exported, tmp_path, noise):
    folder = tmp_path / "damaged"
    shutil.copytree(exported()[1], folder)
    text = change if isinstance(change, str) else json.dumps({**json.loads((folder / name).read_text()), **change})
    (folder / name).write_text(text)
    with pytest.raises(RetrievalError, match=str(folder / name)):
        load_embedder(folder).embed_audio([noise(32_000)])


def test_a_text_is_embedded_without_torch_and_transformers_whose_import_takes_seconds(exported):
    code = """
import sys
folder, sys.argv = sys.argv[1], ["cnn10bert"]
from modeling_cnn10bert.retrieval.embedding import load_embedder
print(load_embedder(folder).embed_text(["a dog barks"]).shape, {"torch", "transformers"} & set(sys.modules))
"""
    arguments = [sys.executable, "-c", code, str(exported()[1])]
    assert subprocess.run(arguments, check=True, capture_output=True, text=True).stdout == "(1, 12) set()\n"


def test_texts_are_cut_where_the_processor_cuts_them(exported):
    source, folder = exported()
    texts = ["a dog barks", "this is the sound of water " * 9, "rain " * 30, "rain " * 31]
    embedders = load_embedder(source), load_embedder(folder)
    assert [[embedder.is_cut(text) for text in texts] for embedder in embedders] == [[False, True, False, True]] * 2
    np.testing.assert_allclose(embedders[1].embed_text(texts), embedders[0].embed_text(texts), atol=1e-5)


@pytest.mark.parametrize("text", ["", "?!"])
def test_a_text_without_a_word_is_refused(exported, text):
    with pytest.raises(RetrievalError, match="holds no word"):
        load_embedder(exported()[1]).embed_text(["a dog barks", text])
