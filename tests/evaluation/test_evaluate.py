"""An evaluation agrees with the trainer's, its files with its metrics, and what is missing is never passed over."""

import csv
import json

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, ClapProcessor

from modeling_cnn10bert.data.pairs import RetrievalCollator
from modeling_cnn10bert.data.recordings_table import load_prepared_split, recordings_table
from modeling_cnn10bert.errors import AudioError, RetrievalError
from modeling_cnn10bert.evaluation import plots
from modeling_cnn10bert.evaluation.commands import best_first, write_evaluation
from modeling_cnn10bert.evaluation.evaluate import evaluate_model
from modeling_cnn10bert.evaluation.metric import rank_both_directions
from modeling_cnn10bert.evaluation.recordings import Recording, load_evaluation_set
from modeling_cnn10bert.retrieval.embedding import load_embedder
from modeling_cnn10bert.training.arguments import RetrievalTrainingArguments
from modeling_cnn10bert.training.build import evaluation_recordings
from modeling_cnn10bert.training.trainer import RetrievalTrainer

QUIET = {"progress": False, "resamples": 100}


@pytest.fixture
def case(given_embeddings):
    """An embedder, 40 recordings with three captions each, and what it was called with."""
    generator = np.random.default_rng(0)
    audio = generator.standard_normal((40, 8))
    recording_of_text = np.repeat(np.arange(40), 3)
    text = audio[recording_of_text] + 1.2 * generator.standard_normal((120, 8))
    return (*given_embeddings(audio, text, recording_of_text), (audio, text, recording_of_text))


def read_ranks(folder):
    with (folder / "ranks.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_it_equals_the_trainers_evaluation_of_the_same_model(tiny_folder, prepared_folder, processor, tmp_path):
    folder, model = tiny_folder
    evaluation = evaluate_model(load_embedder(folder, device="cpu"), load_evaluation_set(prepared_folder).recordings)
    _, prepared = load_prepared_split(str(prepared_folder), "test")
    # No log-mels in the cache: they are rounded there, and a rank may differ.
    table = recordings_table(prepared, processor.feature_extractor, tmp_path / "cache", keep_log_mel=False)
    trainer = RetrievalTrainer(
        model=model,
        args=RetrievalTrainingArguments(output_dir=str(tmp_path / "run"), use_cpu=True, disable_tqdm=True),
        data_collator=RetrievalCollator(processor),
        eval_dataset=evaluation_recordings(table, processor.feature_extractor),
        processing_class=processor,
    )
    expected = trainer.evaluate(metric_key_prefix="test")
    found = {f"test_{name}": value for name, value in evaluation.metrics.items() if "mAP@16" not in name}
    assert max(map(len, evaluation.ranked.text_to_audio)) > 1  # some captions are those of several recordings
    assert {"test_mAP@10", "test_a2t_R@5", "test_chance_a2t_mAP@10", "test_MedR"} <= set(found)
    assert found == pytest.approx({name: expected[name] for name in found}, abs=1e-6)
    assert (len(evaluation.recordings), len(evaluation.captions)) == (
        expected["test_num_recordings"],
        expected["test_num_captions"],
    )


def test_each_recording_and_each_caption_is_embedded_once_and_scored_by_the_metric(case):
    embedder, recordings, calls, (audio, text, recording_of_text) = case
    evaluation = evaluate_model(embedder, recordings, **QUIET)
    assert (calls.audio, len(calls.text), len(set(calls.text))) == (40, 120, 120)
    expected = rank_both_directions(audio, text, range(40), recording_of_text).metrics()
    assert {name: evaluation.metrics[name] for name in expected} == pytest.approx(expected)
    assert evaluation.metrics["mAP@10"] <= evaluation.metrics["mAP@16"] < 1
    assert set(evaluation.intervals) == {name for name in evaluation.metrics if not name.startswith("chance_")}
    for name, interval in evaluation.intervals.items():
        assert interval.value == evaluation.metrics[name]
        assert interval.low <= interval.value <= interval.high


def test_ranks_csv_gives_the_metrics_again_and_the_first_ten_found(case, tmp_path):
    embedder, recordings, _, _ = case
    evaluation = evaluate_model(embedder, recordings, **QUIET)
    write_evaluation(evaluation, tmp_path, dataset="given")
    rows = read_ranks(tmp_path)
    ranks = np.array([int(row["rank"]) for row in rows])
    assert len(rows) == 120
    assert np.mean(np.where(ranks <= 10, 1 / ranks, 0)) == pytest.approx(evaluation.metrics["mAP@10"])
    assert np.mean(ranks <= 5) == pytest.approx(evaluation.metrics["R@5"])
    for row, rank in zip(rows, ranks, strict=True):
        found = [row[f"file_name_{place}"] for place in range(1, 11)]
        scores = [float(row[f"score_{place}"]) for place in range(1, 11)]
        assert scores == sorted(scores, reverse=True)
        assert (found.index(row["file_name"]) + 1 if row["file_name"] in found else 11) == min(rank, 11)


def test_a_caption_of_several_recordings_has_the_rank_of_the_best_of_them(given_embeddings, tmp_path):
    embedder, (first, second, third), _ = given_embeddings(np.eye(3), np.eye(3)[[0, 0, 2]], [0, 1, 2])
    second = Recording(second.name, ("Caption 0!",), second.load)  # the words of the first one's
    embedder.embed_text = lambda texts: np.eye(3)[[2 if "2" in text else 0 for text in texts]]
    evaluation = evaluate_model(embedder, [first, second, third], **QUIET)
    assert (evaluation.metrics["R@1"], evaluation.metrics["a2t_R@1"]) == (1.0, 2 / 3)
    assert evaluation.metrics["chance_R@1"] == pytest.approx((2 / 3 + 2 / 3 + 1 / 3) / 3)
    write_evaluation(evaluation, tmp_path)
    rows = [(row["caption"], row["file_name"], row["rank"]) for row in read_ranks(tmp_path)]
    assert rows == [("caption 0", "0.wav", "1"), ("Caption 0!", "1.wav", "1"), ("caption 2", "2.wav", "1")]


def test_results_json_says_what_was_evaluated_and_how(case, tmp_path):
    embedder, recordings, _, _ = case
    evaluation = evaluate_model(embedder, recordings, seed=3, **QUIET)
    files = write_evaluation(evaluation, tmp_path / "new", dataset="given", split="test")
    results = json.loads(files["results.json"].read_text())
    assert (results["dataset"], results["split"], results["model"]["name"]) == ("given", "test", "given vectors")
    assert (results["num_recordings"], results["num_captions"], results["num_left_out"]) == (40, 120, 0)
    assert results["metrics"] == evaluation.metrics
    low, high = results["intervals"]["mAP@10"]
    assert low < results["metrics"]["mAP@10"] < high
    assert results["bootstrap"] == {"resamples": 100, "confidence": 0.95, "seed": 3, "drawn": "recordings"}
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"results.json", "ranks.csv", "metrics.png"}


def test_the_picture_shows_both_directions_their_values_and_chance(case, tmp_path):
    embedder, recordings, _, _ = case
    evaluation = evaluate_model(embedder, recordings, **QUIET)
    plots.plot_evaluation(evaluation, tmp_path / "metrics.png", title="model_with_$ on a set")
    assert imread(tmp_path / "metrics.png").shape[2] == 4
    figure = plots._evaluation_figure(evaluation, "model on a set")
    bars, curves = figure.axes
    texts = [text.get_text() for text in bars.texts]
    names = ["R@1", "R@5", "R@10", "mAP@10", "mAP@16"]
    assert texts == [f"{100 * evaluation.metrics[prefix + name]:.1f}" for prefix in ("", "a2t_") for name in names]
    assert [label.get_text() for label in bars.get_xticklabels()] == names
    found, by_chance, *_ = [line.get_xydata() for line in curves.get_lines()]
    assert found[0] == pytest.approx((1, evaluation.metrics["R@1"]))
    assert by_chance[0] == pytest.approx((1, 1 / 40))
    assert tuple(found[-1]) == tuple(by_chance[-1]) == (40, 1)
    keys = {text.get_text() for text in bars.get_legend().get_texts()}
    assert keys == {"a caption finds its recording", "a recording finds its captions", "by chance"}


def test_the_table_gives_percent_and_ranks_with_their_intervals(case):
    embedder, recordings, _, _ = case
    evaluation = evaluate_model(embedder, recordings, **QUIET)
    lines = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in evaluation.table().splitlines()}
    cells = [cell.strip() for cell in lines["mAP@16"]]
    interval = evaluation.intervals["mAP@16"]
    assert cells[:2] == [f"{100 * interval.value:.2f}", f"{100 * interval.low:.2f}-{100 * interval.high:.2f}"]
    assert cells[5] == f"{100 * evaluation.metrics['chance_a2t_mAP@16']:.2f}"
    assert lines["MedR"][0].strip() == f"{evaluation.metrics['MedR']:.1f}" and not lines["MedR"][2].strip()


def test_fewer_than_ten_recordings_are_all_named(given_embeddings, tmp_path):
    embedder, recordings, _ = given_embeddings(np.eye(3), np.eye(3)[[0, 1, 1]], [0, 1, 2], names=["b", "a", "c"])
    evaluation = evaluate_model(embedder, recordings, **QUIET)
    write_evaluation(evaluation, tmp_path)
    rows = read_ranks(tmp_path)
    assert [row["rank"] for row in rows] == ["1", "1", "3"]  # the third ties with the first: it loses
    assert [rows[2][f"file_name_{place}"] for place in (1, 2, 3)] == ["a", "b", "c"]  # ties in the order of their names
    assert "file_name_4" not in rows[0]


def test_ties_are_in_the_order_of_the_names_whatever_that_of_the_recordings():
    scores = np.array([[0.5, 0.5, 0.9, 0.5]], dtype=np.float32)
    assert best_first(scores, ["d", "b", "x", "c"], 4).tolist() == [[2, 1, 3, 0]]
    assert best_first(scores, ["d", "b", "x", "c"], 2).tolist() == [[2, 1]]


def unusable(names, case):
    """The recordings, of which those named do not decode."""

    def load(rate):
        raise AudioError("broken.wav: found 3 bytes that do not decode")

    return [
        Recording(recording.name, recording.captions, load) if recording.name in names else recording
        for recording in case[1]
    ]


def test_a_recording_that_does_not_decode_is_an_error_or_counted(case, tmp_path):
    embedder, *_, (audio, text, recording_of_text) = case
    recordings = unusable({"5.wav", "39.wav"}, case)
    with pytest.raises(AudioError, match="broken.wav: found 3 bytes"):
        evaluate_model(embedder, recordings, **QUIET)
    evaluation = evaluate_model(embedder, recordings, skip_missing=True, **QUIET)
    kept = ~np.isin(recording_of_text, [5, 39])
    rows = [number for number in range(40) if number not in (5, 39)]
    expected = rank_both_directions(audio[rows], text[kept], rows, recording_of_text[kept]).metrics()
    assert {name: evaluation.metrics[name] for name in expected} == pytest.approx(expected)
    results = json.loads(write_evaluation(evaluation, tmp_path)["results.json"].read_text())
    assert (results["num_recordings"], results["num_captions"], results["num_left_out"]) == (38, 114, 2)
    assert set(results["left_out"]) == {"5.wav", "39.wav"} and "do not decode" in results["left_out"]["5.wav"]


def test_missing_files_and_captions_are_found_before_anything_is_embedded(case):
    embedder, recordings, calls, _ = case
    first, second, *others = recordings
    recordings = [Recording(first.name, (), first.load), *others]
    recordings.append(Recording(second.name, second.captions, second.load, absence="1.wav: found no such file in DIR"))
    with pytest.raises(AudioError, match="0.wav: found no caption, .*; 2 of 40 recordings cannot be used"):
        evaluate_model(embedder, recordings, **QUIET)
    assert calls.audio == 0
    evaluation = evaluate_model(embedder, recordings, skip_missing=True, **QUIET)
    assert evaluation.left_out["1.wav"] == "1.wav: found no such file in DIR"
    assert len(evaluation.recordings) == 38
    with pytest.raises(RetrievalError, match="found 1 usable recordings of 1, expected at least two"):
        evaluate_model(embedder, others[:1], **QUIET)


def test_a_caption_without_a_word_is_found_before_anything_is_embedded(case):
    embedder, (first, *others), calls, _ = case
    recordings = [Recording(first.name, (*first.captions, "..."), first.load), *others]
    with pytest.raises(AudioError, match="0.wav: found the caption '...', expected one with a word"):
        evaluate_model(embedder, recordings, **QUIET)
    assert calls.audio == 0 and not calls.text
    assert set(evaluate_model(embedder, recordings, skip_missing=True, **QUIET).left_out) == {"0.wav"}


def test_a_model_that_diverged_is_an_error_that_names_it(case):
    embedder, recordings, _, (audio, _, _) = case
    audio[7] = np.nan
    with pytest.raises(RetrievalError, match="given vectors: row 7 of audio_embeds has norm nan"):
        evaluate_model(embedder, recordings, **QUIET)


def test_a_clap_is_evaluated_by_the_same_code_at_its_own_sampling_rate(soundscapes, tokenizer, tmp_path):
    torch.manual_seed(0)
    text = {"vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"intermediate_size": 20, "max_position_embeddings": 40, "pad_token_id": 1}
    audio = {"depths": [1, 1], "num_attention_heads": [1, 2], "patch_embeds_hidden_size": 8, "hidden_size": 16}
    ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=12)).save_pretrained(tmp_path)
    ClapProcessor(ClapFeatureExtractor(truncation="rand_trunc"), tokenizer).save_pretrained(tmp_path)
    embedder = load_embedder(tmp_path, device="cpu")
    assert embedder.sampling_rate == 48_000
    evaluation = evaluate_model(embedder, load_evaluation_set(soundscapes).recordings, **QUIET)
    assert (len(evaluation.recordings), evaluation.ranked.similarity.shape) == (14, (35, 14))
    assert 0 < evaluation.metrics["mAP@10"] < 1
