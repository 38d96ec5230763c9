"""scripts/benchmark_search.py: what it counts as right, and a whole small run."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "benchmark_search.py"


@pytest.fixture
def script(monkeypatch):
    specification = importlib.util.spec_from_file_location("benchmark_search", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    # In this process: one of its own would import everything again.
    monkeypatch.setattr(module, "in_a_process", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(module, "BLOCK", 400)
    return module


@pytest.fixture
def vectors_file(tmp_path):
    vectors = np.random.default_rng(0).standard_normal((1100, 16)).astype(np.float32)
    np.save(tmp_path / "vectors.npy", vectors)
    return tmp_path / "vectors.npy"


@pytest.mark.parametrize("kind", ["windows", "recordings"])
def test_an_exact_search_has_a_recall_of_one(script, vectors_file, tmp_path, kind):
    arguments = ["--vectors", str(vectors_file), "--rows", "1000", "--queries", "20", "--folder", str(tmp_path / "b")]
    script.main([*arguments, "--kind", kind, "--out", str(tmp_path / "results.json")])
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["recall@10"] == 1.0
    assert (results["rows"], results["dimension"], results["recordings"]) == (1000, 16, 250)
    assert results["gigabytes_on_disk"] > 1000 * 16 * 4 / 1e9 and results["p95_ms"] >= results["p50_ms"] > 0


@pytest.mark.parametrize("kind", ["windows", "recordings"])
def test_the_least_score_is_that_of_the_tenth_result(script, vectors_file, kind):
    vectors = script.Vectors(str(vectors_file), 0)
    queries = script.draw_queries(vectors, 1000, 7)
    scores = queries @ vectors.rows(0, 1000).T
    if kind == "recordings":
        scores = scores.reshape(7, 250, 4).max(axis=2)
    expected = np.sort(scores, axis=1)[:, -10]
    assert script.least_scores(vectors, 1000, queries, kind) == pytest.approx(expected, abs=1e-6)


def test_random_vectors_are_the_same_in_every_process_and_no_query_is_among_them(script):
    vectors = script.Vectors("random", 24)
    block = vectors.rows(400, 800)
    assert np.array_equal(block, script.Vectors("random", 24).rows(400, 800))
    assert np.linalg.norm(block, axis=1) == pytest.approx(1, abs=1e-6)
    assert not np.array_equal(block, vectors.rows(800, 1200))
    queries = script.draw_queries(vectors, 1000, 5)
    assert (queries @ np.concatenate([vectors.rows(start, start + 400) for start in (0, 400, 800)]).T).max() < 0.999


def test_too_few_vectors_are_an_error(script, vectors_file, tmp_path, capsys):
    with pytest.raises(SystemExit):
        script.main(["--vectors", str(vectors_file), "--rows", "1100", "--folder", str(tmp_path)])
    assert "found 1100 rows, expected 1100 + 200" in capsys.readouterr().err
