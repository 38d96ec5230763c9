"""The commands write what they say, print a table, and never write over what is something else."""

import csv
import json
import shutil

import datasets
import numpy as np
import pytest
import soundfile

from modeling_cnn10bert.data.audio_io import load_audio
from modeling_cnn10bert.data.prepare import prepare_dataset
from modeling_cnn10bert.data.recipes.audio_folder import own_recordings
from modeling_cnn10bert.errors import DataError, RetrievalError
from modeling_cnn10bert.evaluation.commands import run_evaluate, run_score, run_submit
from modeling_cnn10bert.evaluation.submissions import read_dcase2022, read_dcase2025
from modeling_cnn10bert.retrieval.embedding import load_embedder

QUIET = {"device": "cpu", "progress": False}


def test_evaluate_prints_the_metrics_and_leaves_files_where_it_says(
    tiny_folder, soundscapes, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    model = str(tiny_folder[0])
    evaluation = run_evaluate(model, str(soundscapes), bootstrap_resamples=50, seed=1, **QUIET)
    printed = capsys.readouterr().out
    assert f"{model} on {soundscapes}, split test:\n14 recordings, 35 captions\n" in printed
    assert max(len(line) for line in printed.splitlines() if line.startswith("|")) <= 80
    assert f"{100 * evaluation.metrics['mAP@10']:.2f}" in printed and "chance" in printed
    (results,) = tmp_path.glob("runs/evaluation/*checkpoint*-test/results.json")
    assert str(results.relative_to(tmp_path)) in printed
    content = json.loads(results.read_text())
    assert (content["metrics"], content["split"]) == (evaluation.metrics, "test")
    assert content["bootstrap"]["resamples"] == 50
    again = run_evaluate(model, str(soundscapes), bootstrap_resamples=50, seed=1, **QUIET)
    assert json.loads(results.read_text()) == content and again.metrics == evaluation.metrics


def test_evaluate_does_not_write_over_another_evaluation(tiny_folder, soundscapes, metadata_folder, tmp_path):
    model, out = str(tiny_folder[0]), tmp_path / "out"
    run_evaluate(model, str(soundscapes), out=str(out), bootstrap_resamples=10, **QUIET)
    before = (out / "results.json").read_bytes()
    with pytest.raises(
        RetrievalError, match="results.json: found the evaluation of another split .*name another folder"
    ):
        run_evaluate(model, str(soundscapes), split="validation", out=str(out), **QUIET)
    with pytest.raises(RetrievalError, match="found the evaluation of another dataset"):
        run_evaluate(model, str(metadata_folder), out=str(out), **QUIET)
    assert (out / "results.json").read_bytes() == before
    (out / "results.json").write_text("[]")
    with pytest.raises(RetrievalError, match="found a file that is no evaluation"):
        run_evaluate(model, str(soundscapes), out=str(out), **QUIET)
    with pytest.raises(RetrievalError, match="found 0 resamples"):
        run_evaluate(model, str(soundscapes), out=str(out), bootstrap_resamples=0, **QUIET)


def test_a_recording_that_is_cut_off_is_evaluated_and_listed(tiny_folder, metadata_folder, tmp_path, capsys):
    folder = tmp_path / "sounds"
    shutil.copytree(metadata_folder, folder)
    whole = (folder / "test-3.wav").read_bytes()
    (folder / "test-3.wav").write_bytes(whole[: len(whole) // 3])
    run_evaluate(str(tiny_folder[0]), str(folder), out=str(tmp_path / "out"), bootstrap_resamples=10, **QUIET)
    assert "1 recordings were used with a remark, see notes in results.json." in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["num_recordings"] == 14
    assert results["notes"] == {
        "test-3.wav": ["0.5 of 1.5 s of sound were read, as the file is cut off; fetch or export it again"]
    }


def test_a_submission_of_either_form_scores_as_the_evaluation_does(
    tiny_folder, scenes, metadata_folder, write_csv, tmp_path, capsys
):
    # Five captions each, as Clotho; no two are equal.
    rows = [
        [name, *(f"{text} {number}" for number in range(5) for text in captions[:1])]
        for name, (_, captions) in scenes.items()
    ]
    dataset = write_csv(tmp_path / "captions.csv", ["file_name", *(f"caption_{i}" for i in range(1, 6))], *rows)
    model, options = str(tiny_folder[0]), {"audio": str(metadata_folder), **QUIET}
    evaluation = run_evaluate(model, str(dataset), out=str(tmp_path / "out"), bootstrap_resamples=10, **options)
    for form, names in (
        ("dcase2022", ["R@1", "R@5", "R@10", "mAP@10"]),
        ("dcase2025", ["R@1", "mAP@10", "mAP@16", "MedR"]),
    ):
        output = run_submit(model, str(dataset), format=form, out=str(tmp_path / f"{form}.csv"), **options)
        capsys.readouterr()
        metrics = run_score(str(output), str(dataset))
        assert {name: metrics[name] for name in names} == pytest.approx(
            {name: evaluation.metrics[name] for name in names}
        )
        assert f"{100 * metrics['mAP@10']:.2f}" in capsys.readouterr().out
        with pytest.raises(RetrievalError, match="found it there already, expected a new file"):
            run_submit(model, str(dataset), format=form, out=str(output), **options)


def test_unpaired_queries_search_all_recordings_of_the_folder(tiny_folder, metadata_folder, write_csv, tmp_path):
    queries = ["rain", "a dog, a dog", "rain"]
    captions = write_csv(tmp_path / "retrieval_captions.csv", ["caption"], *([query] for query in queries))
    model, options = str(tiny_folder[0]), {"captions": str(captions), "audio": str(metadata_folder), **QUIET}
    ranked = run_submit(model, format="dcase2022", out=str(tmp_path / "ranked.csv"), **options)
    matrix = run_submit(model, format="dcase2025", out=str(tmp_path / "matrix.csv"), **options)
    found_captions, found = read_dcase2022(ranked)
    _, names, scores = read_dcase2025(matrix)
    assert found_captions == queries and len(names) == 14
    assert found[0] == found[2] == [names[column] for column in np.argsort(-scores[0], kind="stable")[:10]]
    files = sorted(metadata_folder.glob("*.wav"))
    assert names == [path.name for path in files]
    embedder = load_embedder(model, device="cpu")
    audio = embedder.embed_audio([load_audio(path, 32_000) for path in files])
    np.testing.assert_allclose(scores, embedder.embed_text(queries) @ audio.T, atol=1e-5)
    with ranked.open(newline="") as file:
        assert next(csv.reader(file)) == ["caption", *(f"file_name_{rank}" for rank in range(1, 11))]


def test_a_submission_has_the_captions_of_a_folder_or_a_prepared_set_with_their_spaces(
    tiny_folder, metadata_folder, tmp_path
):
    folder, model = tmp_path / "own", str(tiny_folder[0])
    shutil.copytree(metadata_folder, folder)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    for row in rows:
        row["captions"] = [f" {caption.replace(' ', '  ')} " for caption in row["captions"]]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    splits, features = own_recordings(str(folder))
    prepare_dataset({"test": splits["train"]}, features, tmp_path / "prepared")
    expected = [caption for row in rows for caption in row["captions"]]
    for dataset in (folder, tmp_path / "prepared"):
        ranked = run_submit(model, str(dataset), format="dcase2022", out=f"{dataset}-ranked.csv", **QUIET)
        matrix = run_submit(model, str(dataset), format="dcase2025", out=f"{dataset}-matrix.csv", **QUIET)
        assert read_dcase2022(ranked)[0] == read_dcase2025(matrix)[0] == expected


def test_a_submission_that_cannot_be_made_is_an_error_that_says_what_to_do(
    tiny_folder, soundscapes, metadata_folder, write_csv, tmp_path
):
    model, out = str(tiny_folder[0]), str(tmp_path / "out.csv")
    with pytest.raises(RetrievalError, match="found 3 recordings, expected at least 10"):
        run_submit(model, str(soundscapes), split="validation", format="dcase2022", out=out, **QUIET)
    with pytest.raises(RetrievalError, match="format is 'dcase2023', expected dcase2022 or dcase2025"):
        run_submit(model, str(soundscapes), format="dcase2023", out=out, **QUIET)
    with pytest.raises(DataError, match="found no data set, expected one, or captions"):
        run_submit(model, format="dcase2022", out=out, audio=str(metadata_folder), **QUIET)
    with pytest.raises(DataError, match="found both the data set .* and captions 'x.csv'"):
        run_submit(model, str(soundscapes), format="dcase2022", captions="x.csv", out=out, **QUIET)
    prepared = datasets.Dataset.from_dict(
        {"file_name": ["a"], "recording_id": ["a"], "audio": ["a"], "captions": [["-"]]}
    )
    datasets.DatasetDict({"test": prepared}).save_to_disk(tmp_path / "prepared")
    with pytest.raises(DataError, match="found the caption '-' of a in .*prepared, split test, row 0"):
        run_submit("no model is loaded", str(tmp_path / "prepared"), format="dcase2025", out=out, **QUIET)
    captions = write_csv(tmp_path / "c.csv", ["file_name", *(f"caption_{i}" for i in range(1, 6))], ["z.wav", *"abcde"])
    with pytest.raises(DataError, match="z.wav: found no such file"):
        run_submit(model, str(captions), format="dcase2025", audio=str(metadata_folder), out=out, **QUIET)
    assert not (tmp_path / "out.csv").exists()


def test_a_missing_output_or_truth_is_an_error_that_names_it(tmp_path, write_csv):
    with pytest.raises(DataError, match="nowhere.csv: found .*No such file"):
        run_score(str(tmp_path / "nowhere.csv"), str(tmp_path / "truth.csv"))
    output = write_csv(tmp_path / "matrix.csv", ["index", "a.wav"], ["a dog", "0.5"])
    with pytest.raises(DataError, match="truth.csv: found .*No such file"):
        run_score(str(output), str(tmp_path / "truth.csv"))


def test_dcase2026_has_the_passages_of_each_query_in_its_own_recording(tiny_folder, tmp_path, noise):
    (tmp_path / "audio").mkdir()
    for number in range(2):
        soundfile.write(tmp_path / "audio" / f"vid_{number}.wav", noise(32_000 * (number + 2), seed=number), 32_000)
    queries = [
        {"qid": "q1", "query": "A dog barks", "duration": 3, "vid": "vid_1"},
        {"qid": "q2", "query": "Rain falls", "duration": 2, "vid": "vid_0"},
    ]
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    given = {"captions": str(tmp_path / "queries.jsonl"), "audio": str(tmp_path / "audio"), "progress": False}
    out = run_submit(str(tiny_folder[0]), format="dcase2026", out=str(tmp_path / "submission.jsonl"), **given)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["qid"], row["query"], row["vid"]) for row in rows] == [
        ("q1", "A dog barks", "vid_1"),
        ("q2", "Rain falls", "vid_0"),
    ]
    for row, duration in zip(rows, (3, 2), strict=True):
        assert 1 <= len(row["pred_relevant_windows"]) <= 10
        assert all(0 <= start < end <= duration for start, end in row["pred_relevant_windows"])
    (tmp_path / "audio" / "vid_0.wav").unlink()
    with pytest.raises(DataError, match="no recording 'vid_0'"):
        run_submit(str(tiny_folder[0]), format="dcase2026", out=str(tmp_path / "again.jsonl"), **given)
