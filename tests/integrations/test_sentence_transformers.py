"""A checkpoint is a model of Sentence Transformers, also where this package is not installed."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from modeling_cnn10bert.data.audio_io import load_audio
from modeling_cnn10bert.integrations.sentence_transformers import write_configuration

# Runs where the package is hidden even if it is installed.
SCRIPT = """
import importlib.abc
import json
import sys


class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "modeling_cnn10bert":
            raise ModuleNotFoundError(f"{name} is hidden", name=name)


sys.meta_path.insert(0, Hide())

import datasets
import numpy as np
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers import losses
from sentence_transformers.util import semantic_search

folder, exchange = sys.argv[1:]
model = SentenceTransformer(folder, trust_remote_code=True, device="cpu")
given = np.load(exchange + "/given.npz")
long, short, other_rate = (given[name] for name in ("long", "short", "other_rate"))
captions = ["A dog, barks!", "rain"]
found = {
    "arrays": model.encode([long, short]),
    "other_rate": model.encode([{"array": other_rate, "sampling_rate": 44_100}]),
    "files": model.encode([exchange + "/mono.wav", exchange + "/stereo.flac"]),
    "captions": model.encode(captions),
    "queries": model.encode_query(captions),
    "documents": model.encode_document([long, short]),
}
found["similarity"] = model.similarity(found["queries"], found["documents"])
hits = semantic_search(found["queries"], found["documents"], top_k=2)
np.savez(exchange + "/found.npz", **found)

pairs = {"caption": captions * 3, "recording": [{"array": long, "sampling_rate": 32_000}] * 6}
for loss in (losses.MultipleNegativesRankingLoss(model), losses.CachedMultipleNegativesRankingLoss(model)):
    arguments = SentenceTransformerTrainingArguments(
        exchange + "/training", max_steps=3, per_device_train_batch_size=2, report_to="none", save_strategy="no",
        use_cpu=True, disable_tqdm=True,
    )
    trainer = SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=datasets.Dataset.from_dict(pairs), loss=loss
    )
    trainer.train()
model.eval().save_pretrained(exchange + "/trained")
again = SentenceTransformer(exchange + "/trained", trust_remote_code=True, device="cpu")
print()
print(json.dumps({
    "moved": float(np.abs(model.encode(captions) - found["captions"]).max()),
    "reloaded": float(np.abs(again.encode([long]) - model.encode([long])).max()),
    "hits": [[hit["corpus_id"] for hit in row] for row in hits],
    "similarity": model.similarity_fn_name,
    "modalities": sorted(model.modalities),
}))
"""


@pytest.fixture
def checkpoint(tiny_folder):
    folder, model = tiny_folder
    write_configuration(folder)
    return folder, model


def test_embeddings_equal_ours_and_training_runs_without_this_package(checkpoint, processor, noise, tmp_path):
    pytest.importorskip("sentence_transformers")
    folder, model = checkpoint
    clips = {"long": noise(40_000), "short": noise(18_000), "other_rate": noise(30_000)}
    np.savez(tmp_path / "given.npz", **clips)
    soundfile.write(tmp_path / "mono.wav", noise(20_000), 22_050)
    soundfile.write(tmp_path / "stereo.flac", noise(64_000).reshape(-1, 2), 32_000)
    completed = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), str(tmp_path)], capture_output=True, text=True, cwd=tmp_path
    )
    assert completed.returncode == 0, completed.stderr
    found, report = np.load(tmp_path / "found.npz"), json.loads(completed.stdout.splitlines()[-1])

    def embed(*clips):
        with torch.no_grad():
            inputs = processor(audio=list(clips), sampling_rate=32_000, return_tensors="pt")
            return model.get_audio_features(**inputs).pooler_output.numpy()

    with torch.no_grad():
        inputs = processor(text=["A dog, barks!", "rain"], return_tensors="pt")
        captions = model.get_text_features(**inputs).pooler_output.numpy()
    recordings = embed(clips["long"], clips["short"])
    resampled = processor._read_audio({"array": clips["other_rate"], "sampling_rate": 44_100}, None)[0][0]
    files = [load_audio(tmp_path / name, 32_000) for name in ("mono.wav", "stereo.flac")]
    expected = {"arrays": recordings, "other_rate": embed(resampled), "files": embed(*files), "captions": captions}
    expected |= {"queries": captions, "documents": recordings, "similarity": captions @ recordings.T}
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-6, err_msg=name)
    assert report["hits"] == np.argsort(-expected["similarity"], axis=1).tolist()
    assert report["similarity"] == "cosine"
    assert report["modalities"] == ["audio", "text"]
    assert report["moved"] > 1e-5
    assert report["reloaded"] < 1e-6


def test_the_configuration_is_what_the_library_writes_itself(checkpoint, tmp_path):
    library = pytest.importorskip("sentence_transformers")
    folder, _ = checkpoint
    library.SentenceTransformer(str(folder), trust_remote_code=True, device="cpu").save_pretrained(
        str(tmp_path / "again")
    )
    for name in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
        ours, theirs = (json.loads((path / name).read_text()) for path in (folder, tmp_path / "again"))
        if isinstance(theirs, dict):
            theirs.pop("__version__", None)
        assert ours == theirs
