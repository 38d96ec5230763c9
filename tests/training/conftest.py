"""A tiny set of soundscapes, a tiny BERT, and runs of train_retrieval.py that the tests of training share."""

import gc
import importlib.util
import json
import os
import shutil
import string
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter
from transformers import BertConfig, BertModel, BertTokenizer

from demo.synthesizers import generate_soundscapes
from modeling_cnn10bert.training import commands
from modeling_cnn10bert.training.build import build_trainer
from modeling_cnn10bert.training.recipe import parse_recipe

ROOT = Path(__file__).resolve().parents[2]
# 40 scenes x 5 captions = 200 pairs, of which 6 batches of 30 are whole: 18 steps in 3 epochs. Checkpoints 4, 8 and 16
# lie within an epoch, 12 at the end of one.
SAVE_STEPS = 4


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """In this process as in those it starts, so that their sums are rounded alike."""
    before, threads = os.environ.get("OMP_NUM_THREADS"), torch.get_num_threads()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    if before is None:
        del os.environ["OMP_NUM_THREADS"]


@pytest.fixture(scope="session")
def soundscapes(tmp_path_factory):
    """The folder of 40 training, 24 validation and 24 test scenes of synthetic sounds."""
    folder = tmp_path_factory.mktemp("soundscapes") / "set"
    return generate_soundscapes(folder, num_train=40, num_validation=24, num_test=24, clips_per_kind=3)


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory, soundscapes):
    """A saved BERT of one layer with random weights, whose vocabulary is the words of the captions."""
    # Of all splits: captions of unknown words would be equal, and equal embeddings tie but for rounding.
    lines = [line for path in sorted(soundscapes.glob("*.jsonl")) for line in path.read_text().splitlines()]
    captions = " ".join(caption for line in lines for caption in json.loads(line)["captions"])
    words = sorted(set(captions.lower().translate(str.maketrans("", "", string.punctuation)).split()))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=40,
    )
    assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == 0.1  # resuming must restore its draws
    folder = tmp_path_factory.mktemp("text")
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    BertTokenizer(vocab={piece: index for index, piece in enumerate(pieces)}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def fields(soundscapes, text_folder, tmp_path_factory):
    """The fields of a recipe that trains a tiny model with everything random switched on."""
    return {
        "do_train": True,
        "do_eval": True,
        "do_predict": True,
        "seed": 3,
        "use_cpu": True,
        "disable_tqdm": True,
        "text_model_name_or_path": str(text_folder),
        "hidden_sizes": [4, 4, 8, 8],
        "temporal_moments": 1,
        "hard_negatives": 0.5,
        "block_dropout": 0.1,
        "num_mel_bins": 16,
        "hop_length": 1280,
        "projection_hidden_size": 24,
        "projection_dim": 16,
        "manifests": str(soundscapes),
        "sources": str(soundscapes / "sources"),
        "cache_dir": str(tmp_path_factory.mktemp("cache")),
        "learning_rate": 1e-3,
        "num_train_epochs": 3,
        "save_strategy": "steps",
        "save_steps": SAVE_STEPS,
        "logging_steps": 1,
        "p_eda": 0.9,
        "p_swp": 0.2,
        "p_ins": 0.2,
        "p_del": 0.2,
        "g_max": 6.0,
        "p_ms": 0.5,
        "ms_alpha": 0.8,
        "n_f": 1,
        "w_f": 4,
        "n_t": 2,
        "w_t": 30,
    }


@pytest.fixture(scope="session")
def write_recipe(fields):
    """Writes a recipe of the tiny fields and of those given, and returns its path; `None` leaves a field out."""

    def write(path, **given):
        path.parent.mkdir(parents=True, exist_ok=True)
        recipe = {name: value for name, value in {**fields, **given}.items() if value is not None}
        path.write_text(yaml.safe_dump(recipe))
        return path

    return write


@pytest.fixture(scope="session")
def train_retrieval():
    """The module train_retrieval.py."""
    return _load(ROOT / "train_retrieval.py")


@pytest.fixture(scope="session")
def train_tagging():
    """The module scripts/train_tagging.py."""
    return _load(ROOT / "scripts" / "train_tagging.py")


def _load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def run(train_retrieval, write_recipe):
    """Runs a recipe of the tiny fields in this process and returns its metrics; `output_dir` is its folder."""

    def run(output_dir, *arguments, **given):
        recipe = write_recipe(Path(f"{output_dir}.yaml"), output_dir=str(output_dir), **given)
        gc.disable()  # it takes five seconds to end a persistent worker; torch's own way at the end of a process, none
        try:
            return train_retrieval.main([str(recipe), *arguments])
        finally:
            _MultiProcessingDataLoaderIter._clean_up_persistent_workers_atexit()
            gc.enable()

    return run


@pytest.fixture(scope="session")
def start_process(tmp_path_factory):
    """Starts train_retrieval.py, or another script, in a process of its own; its output goes to `process.log`."""
    processes = []

    def start(*arguments, script=ROOT / "train_retrieval.py", launcher=(sys.executable,), **environment):
        log = tmp_path_factory.mktemp("process") / "output.txt"
        with log.open("w") as output:
            process = subprocess.Popen(
                [*map(str, launcher), str(script), *map(str, arguments)],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT), **environment},
            )
        process.log = log
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def start_two_processes(start_process):
    """Starts a script in two processes that train together on the CPU."""
    launch = (sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2")

    def start(*arguments, **options):
        # Port 0: any that is free, so that two test runs on a machine do not meet.
        launcher = (*launch, "--main_process_port", "0")
        return start_process(*arguments, launcher=launcher, ACCELERATE_USE_CPU="true", **options)

    return start


@pytest.fixture(scope="session")
def uninterrupted(run, tmp_path_factory):
    """The folder of a run of three epochs that nothing interrupted."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    run(folder)
    return folder


@pytest.fixture(scope="session")
def trained(run, tmp_path_factory):
    """The folder of a run that learnt enough for its similarities to differ by more than rounding."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    plain = {"p_eda": None, "g_max": None, "p_ms": None, "n_f": None, "n_t": None}  # learns faster
    run(folder, **plain, learning_rate=3e-3, num_train_epochs=20, save_strategy="no", logging_steps=10)
    losses = [
        entry["loss"]
        for entry in json.loads((folder / "trainer_state.json").read_text())["log_history"]
        if "loss" in entry
    ]
    # The loss tells it on any processor; the rank of two dozen recordings differs from one to another.
    assert losses[-1] < 0.8 * losses[0]
    return folder


@pytest.fixture
def interrupted_at(uninterrupted, tmp_path):
    """Makes the folder of a run as it stands when it is killed behind a checkpoint."""

    def make(step):
        folder = tmp_path / f"interrupted-{step}"
        for checkpoint in uninterrupted.glob("checkpoint-*"):
            if int(checkpoint.name.removeprefix("checkpoint-")) <= step:
                shutil.copytree(checkpoint, folder / checkpoint.name)
        assert (folder / f"checkpoint-{step}").is_dir()
        return folder

    return make


@pytest.fixture(scope="session")
def assert_same_outcome():
    """Asserts that two run folders hold equal test metrics and equal weights."""

    def check(folder, other, tolerance=1e-6):
        results, others = (json.loads((f / "all_results.json").read_text()) for f in (folder, other))
        timing = ("runtime", "per_second", "flos")  # those of the part after the resume
        names = {name for name in others if not name.endswith(timing)}
        assert {"test_mAP@10", "test_R@1", "test_a2t_R@10", "eval_mAP@10"} <= names
        assert {name: results[name] for name in names} == pytest.approx(
            {name: others[name] for name in names}, abs=1e-6
        )
        weights, expected = load_file(folder / "model.safetensors"), load_file(other / "model.safetensors")
        assert weights.keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(
                weights[name], expected[name], rtol=0, atol=tolerance, msg=lambda m, n=name: n + m
            )

    return check


@pytest.fixture(scope="session")
def augmented_batches(write_recipe, tmp_path_factory):
    """Makes the first two batches of each of two epochs, as the trainer's data loader gives them to one process."""

    def make(num_workers, epochs=2, **given):
        folder = tmp_path_factory.mktemp("batches")
        workers = {"dataloader_num_workers": num_workers, "dataloader_persistent_workers": num_workers > 0}
        recipe = write_recipe(folder / "recipe.yaml", output_dir=str(folder / "run"), **workers, **given)
        trainer, _ = build_trainer(*parse_recipe([str(recipe)]))
        loader, batches = trainer.get_train_dataloader(), []
        for number in range(epochs):
            trainer.epoch.set(number)
            batches.append([batch for batch, _ in zip(loader, range(2), strict=False)])
        _MultiProcessingDataLoaderIter._clean_up_persistent_workers_atexit()
        return batches

    return make


@pytest.fixture(scope="session")
def search_script():
    """The command that searches, as `main`, and the function that makes its trainer."""
    return commands
