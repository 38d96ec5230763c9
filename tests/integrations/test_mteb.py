"""A checkpoint as a model of mteb: its description, mteb's own checks of it, and the scores of both."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("mteb", reason="needs the extra `mteb`")
pytest.importorskip("torchaudio", reason="mteb resamples with it: the extra `torchaudio`")

import mteb  # noqa: E402
from mteb.mocks.mock_run import get_compatible_mock_tasks  # noqa: E402
from mteb.mocks.mock_tasks.retrieval import MockAny2AnyRetrievalT2ATask  # noqa: E402

from modeling_cnn10bert.data.prepare import prepare_dataset  # noqa: E402
from modeling_cnn10bert.data.recipes.audio_folder import own_recordings  # noqa: E402
from modeling_cnn10bert.errors import RetrievalError  # noqa: E402
from modeling_cnn10bert.evaluation.evaluate import evaluate_model  # noqa: E402
from modeling_cnn10bert.evaluation.recordings import load_evaluation_set  # noqa: E402
from modeling_cnn10bert.integrations.mteb import find_tasks, load_model, model_meta, run  # noqa: E402
from modeling_cnn10bert.publishing.hub import publish  # noqa: E402
from modeling_cnn10bert.retrieval.embedding import load_embedder  # noqa: E402

spec = importlib.util.spec_from_file_location(
    "integrations_publishing", Path(__file__).parents[1] / "publishing" / "conftest.py"
)
_publishing = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = _publishing
spec.loader.exec_module(_publishing)
hub, go_online, online, model_folder = (
    _publishing.hub,
    _publishing.go_online,
    _publishing.online,
    _publishing.model_folder,
)


@pytest.fixture
def prepared(tmp_path):
    """A prepared data set of 16 recordings of different lengths, one to three captions each, one of them repeated."""
    folder, generator = tmp_path / "sounds", np.random.default_rng(0)
    folder.mkdir()
    lines = []
    for number in range(16):
        noise = generator.standard_normal(16_000 + 1000 * number)
        kernel = np.hanning(3 + 3 * number)  # the more, the darker
        soundfile.write(folder / f"{number}.wav", 0.2 * np.convolve(noise, kernel, "same") / kernel.sum(), 44_100)
        captions = [f"a dog barks {number}", f"the siren {number} wails while rain drips", f"water {number * 7}"]
        captions = captions[: 1 + number % 3] + ["this is rain"] * (number in (3, 8))
        lines.append(json.dumps({"file_name": f"{number}.wav", "captions": captions}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    splits, features = own_recordings(str(folder))
    prepare_dataset({"test": splits["train"]}, features, tmp_path / "own_data")
    return tmp_path / "own_data"


def test_tasks_over_prepared_data_have_the_scores_of_evaluate(cnn10bert, model_folder, prepared, tmp_path):
    ours = evaluate_model(load_embedder(model_folder), load_evaluation_set(prepared).recordings, progress=False)
    cnn10bert("benchmark", model_folder, "--data", prepared, "--out", tmp_path / "out", "--device", "cpu")
    cache, meta = mteb.ResultCache(tmp_path / "out" / "local"), model_meta(str(model_folder))
    for task, prefix in (("own_data-test-T2ARetrieval", ""), ("own_data-test-A2TRetrieval", "a2t_")):
        scores = cache.load_task_result(task, meta).scores["test"][0]
        expected = [ours.metrics[prefix + name] for name in ("mAP@10", "R@1", "R@5", "R@10")]
        assert 0 < expected[0] < expected[3] < 1
        found = [scores[name] for name in ("map_at_10", "hit_rate_at_1", "hit_rate_at_5", "hit_rate_at_10")]
        assert found == pytest.approx(expected, abs=1e-5)  # mteb rounds to five digits


@pytest.fixture
def torchcodec():
    """What decodes the recordings of mteb's mock tasks."""
    try:
        import torchcodec
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"torchcodec or FFmpeg's libraries are not installed: {error}")
    return torchcodec


def test_a_model_passes_the_mock_tasks_of_mteb_for_audio(model_folder, torchcodec):
    model = load_model(str(model_folder), model_meta(str(model_folder)), device="cpu")
    tasks = [task for task in get_compatible_mock_tasks(model) if "audio" in task.metadata.modalities]
    assert {"a2t", "t2a", "a2a"} <= {task.metadata.category for task in tasks}
    found = mteb.evaluate(model, tasks, cache=None, raise_error=False, show_progress_bar=False)
    assert not found.exceptions
    assert len(found.task_results) == len(tasks) >= 10


def test_an_entry_describes_the_published_model(cnn10bert, online, model_folder, tmp_path):
    commit = publish(model_folder, "somebody/toy-sounds").oid
    cnn10bert("benchmark", "somebody/toy-sounds", "--entry", tmp_path / "entry.py")
    entry = {}
    exec((tmp_path / "entry.py").read_text(), entry)
    meta = entry["model_toy_sounds"]
    assert meta == model_meta("somebody/toy-sounds")
    assert (meta.name, meta.revision) == ("somebody/toy-sounds", commit)
    assert (meta.embed_dim, meta.max_tokens, meta.license, meta.modalities) == (12, 32, "apache-2.0", ["audio", "text"])
    assert meta.loader_kwargs == {"trust_remote_code": True, "target_sampling_rate": 32_000}


def test_different_weights_are_different_revisions(model_folder, tiny_model, processor):
    first = model_meta(str(model_folder))
    tiny_model(seed=1, text={"vocab_size": len(processor.tokenizer)}).save_pretrained(model_folder)
    assert first.name == model_meta(str(model_folder)).name
    assert first.revision != model_meta(str(model_folder)).revision


@pytest.mark.parametrize("metadata", ["license: my-own", "license: [apache-2.0]", "- no mapping", "{"])
def test_a_license_that_mteb_does_not_know_is_left_open(model_folder, metadata):
    (model_folder / "README.md").write_text(f"---\n{metadata}\n---\n# A toy\n", encoding="utf-8")
    assert model_meta(str(model_folder)).license is None


@pytest.mark.parametrize(
    "sources, included, excluded",
    [
        (["BERT", "Clotho"], "ClothoT2ARetrieval", "AudioCapsT2ARetrieval"),
        (["BERT", "AudioSet", "AudioCaps"], "AudioCapsA2TRetrieval", "ClothoT2ARetrieval.v2"),
    ],
)
def test_the_training_data_are_named_as_mteb_names_its_tasks(model_folder, sources, included, excluded):
    *earlier, last = [{"kind": "known", "source": source, "part": None} for source in sources]
    facts = {"start": {"model": None, "text_model": None, "audio_model": None, "earlier_data": earlier}, "data": last}
    (model_folder / "run_facts.json").write_text(json.dumps(facts))
    found = model_meta(str(model_folder)).training_datasets
    assert included in found and excluded not in found


def test_training_data_that_are_not_known_are_not_declared_as_none(model_folder):
    assert model_meta(str(model_folder)).training_datasets is None


def test_by_default_the_tasks_are_retrieval_of_sounds_in_both_directions():
    tasks = {task.metadata.name: task.metadata for task in find_tasks()}
    assert {"ClothoT2ARetrieval.v2", "ClothoA2TRetrieval.v2", "AudioCapsT2ARetrieval"} <= tasks.keys()
    assert {task.category for task in tasks.values()} == {"t2a", "a2t"}
    assert all("eng" in task.languages for task in tasks.values())
    assert not [name for name, task in tasks.items() if task.superseded_by or {"Spoken", "Music"} == set(task.domains)]


def test_a_benchmark_stands_for_its_tasks():
    assert len(find_tasks(["MAEB", "ESC50", "BirdCLEF"])) == len(mteb.get_benchmark("MAEB").tasks) + 1


class EmptyCaption(MockAny2AnyRetrievalT2ATask):
    metadata = MockAny2AnyRetrievalT2ATask.metadata.model_copy(update={"name": "EmptyCaption"})

    def load_data(self, **kwargs):
        super().load_data(**kwargs)
        self.queries["test"] = self.queries["test"].map(lambda row: {"text": ""})


def test_a_task_that_the_model_refuses_does_not_stop_the_others(model_folder, tmp_path, torchcodec):
    model = load_model(str(model_folder), model_meta(str(model_folder)), device="cpu")
    with pytest.raises(
        RetrievalError, match="on 1 of 2 tasks .EmptyCaption: Expected a caption with at least one word"
    ):
        run(model, [EmptyCaption(), MockAny2AnyRetrievalT2ATask()], tmp_path, progress=False)
    cache = mteb.ResultCache(tmp_path)
    assert cache.load_task_result("MockAny2AnyRetrievalT2A", model.mteb_model_meta) is not None
    assert cache.load_task_result("EmptyCaption", model.mteb_model_meta) is None


def test_what_cannot_be_run_is_one_clear_error(cnn10bert, model_folder, tmp_path):
    with pytest.raises(RetrievalError, match="ClotoT2ARetrieval: found no task.*Clotho"):
        find_tasks(["ClotoT2ARetrieval"])
    with pytest.raises(RetrievalError, match="CIFAR10: found a task with image, expected one with audio or text"):
        find_tasks(["CIFAR10"])
    # Without a network
    done = cnn10bert("benchmark", model_folder, "--tasks", "ESC50", "--out", tmp_path, "--device", "cpu", code=1)
    assert done.stderr.splitlines()[-1].startswith("error: ESC50: its data cannot be loaded (")
    done = cnn10bert("benchmark", model_folder, "--split", "test", code=1)
    assert done.stderr == "error: split is 'test', but mteb's tasks have their own data; leave it out, or give data\n"
