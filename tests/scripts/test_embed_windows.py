"""scripts/embed_windows.py: rows are the model's own, the same however the work is split, resumed where stopped."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "embed_windows.py"


@pytest.fixture(scope="module")
def script():
    specification = importlib.util.spec_from_file_location("embed_windows", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def sources(tmp_path, noise):
    folder = tmp_path / "sources" / "deep"
    folder.mkdir(parents=True)
    for number, seconds in enumerate((0.3, 1.0, 2.5)):
        soundfile.write(folder / f"{number}.wav", noise(int(32_000 * seconds), seed=number), 32_000)
    return folder.parent


@pytest.fixture
def job(script, sources, tiny_folder):
    return script.Job(str(tiny_folder[0]), "digest", script.find_sources(sources), str(sources), 37, 1.0, seed=3)


@pytest.fixture
def in_this_process(script, job, monkeypatch):
    """The work without processes of its own, in blocks of 8 rows; returns the worker."""
    worker = script.Worker(job)
    monkeypatch.setattr(script, "BLOCK", 8)

    def embed_all(job, done, workers):
        for start in range(done, job.rows, script.BLOCK):
            yield worker.embed(range(start, min(start + script.BLOCK, job.rows)))

    monkeypatch.setattr(script, "embed_all", embed_all)
    return worker


def test_a_row_is_what_the_model_and_its_feature_extractor_make_of_the_window(script, job, tiny_folder, processor):
    worker = script.Worker(job)
    rows = worker.embed(range(5, 9))
    for row, embed in zip(range(5, 9), rows, strict=True):
        waveform = script.render(script.draw_scene(row, job, worker.bank), worker.bank)
        assert waveform.shape == (32_000,) and np.abs(waveform).max() > 0
        inputs = processor(audio=waveform, sampling_rate=32_000, return_tensors="pt")
        expected = tiny_folder[1].get_audio_features(**inputs).pooler_output[0].detach().numpy()
        assert np.allclose(embed, expected, atol=1e-5)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)


def test_a_row_is_the_same_in_whatever_block_and_different_from_the_others(script, job):
    worker = script.Worker(job)
    together = worker.embed(range(0, 12))
    assert np.allclose(together[7:10], script.Worker(job).embed(range(7, 10)), atol=1e-5)
    assert len(np.unique(together.round(5), axis=0)) == 12


def test_a_stopped_run_goes_on_and_ends_in_the_same_file(script, job, in_this_process, monkeypatch, tmp_path):
    script.write_rows(job, 12, tmp_path / "whole.npy", workers=1)
    whole = np.load(tmp_path / "whole.npy")
    assert whole.shape == (37, 12) and whole.dtype == np.float32
    assert np.allclose(whole, in_this_process.embed(range(37)), atol=1e-5)

    embed_all, out = script.embed_all, tmp_path / "out" / "stopped.npy"

    def stop_after_two_blocks(*arguments):
        blocks = embed_all(*arguments)
        yield next(blocks)
        yield next(blocks)
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "embed_all", stop_after_two_blocks)
    with pytest.raises(KeyboardInterrupt):
        script.write_rows(job, 12, out, workers=1)
    assert not out.exists()
    assert json.loads((out.parent / ".stopped.npy.state.json").read_text())["rows"] == 16
    started = []
    monkeypatch.setattr(
        script, "embed_all", lambda job, done, workers: (started.append(done), embed_all(job, done, 1))[1]
    )
    script.write_rows(job, 12, out, workers=1)
    assert started == [16]
    assert np.allclose(np.load(out), whole, atol=1e-5)
    assert [path.name for path in out.parent.iterdir()] == ["stopped.npy"]


def test_a_file_that_is_there_or_was_begun_for_another_job_is_left_alone(script, job, in_this_process, tmp_path):
    out = tmp_path / "rows.npy"
    out.write_bytes(b"mine")
    with pytest.raises(SystemExit, match="found a file, expected none"):
        script.write_rows(job, 12, out, workers=1)
    assert out.read_bytes() == b"mine"
    out.rename(tmp_path / ".rows.npy.part")
    (tmp_path / ".rows.npy.state.json").write_text(json.dumps({"digest": "another", "rows": 8}))
    with pytest.raises(SystemExit, match="another model"):
        script.write_rows(job, 12, out, workers=1)
    assert (tmp_path / ".rows.npy.part").read_bytes() == b"mine"
