"""A saved folder is enough: it loads in a fresh process, elsewhere, where this package cannot be imported."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForAudioClassification

from modeling_cnn10bert import CNN10Config, CNN10ForAudioClassification

# Runs where the package is hidden even if it is installed, and prints what it found as the last line.
SCRIPT = """
import importlib.abc
import json
import sys
import warnings


class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "modeling_cnn10bert":
            raise ModuleNotFoundError(f"{name} is hidden", name=name)


sys.meta_path.insert(0, Hide())

import numpy as np
import torch
from transformers import (
    AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification, AutoProcessor, AutoTokenizer, pipeline
)

retrieval, tagger, exchange = sys.argv[1:]
remote = {"trust_remote_code": True}
config = AutoConfig.from_pretrained(retrieval, **remote)
model = AutoModel.from_pretrained(retrieval, **remote)
processor = AutoProcessor.from_pretrained(retrieval, **remote)
extractor = AutoFeatureExtractor.from_pretrained(retrieval, **remote)
tagging = AutoModelForAudioClassification.from_pretrained(tagger, **remote)
tagging_extractor = AutoFeatureExtractor.from_pretrained(tagger, **remote)

given = np.load(exchange + "/given.npz")
captions = ["A dog, barks!", "rain"]
audio = [given["long"], given["short"]]
inputs = processor(text=captions, audio=audio, sampling_rate=32_000, return_tensors="pt")
features = tagging_extractor(audio, sampling_rate=32_000, return_tensors="pt")
with torch.no_grad():
    outputs = model(**inputs, return_loss=True)
    logits = tagging(**features).logits
network = type(tagging.cnn10).from_pretrained(tagger)
half = AutoModel.from_pretrained(retrieval, dtype=torch.bfloat16, **remote)
np.savez(
    exchange + "/found.npz",
    audio_embeds=outputs.audio_embeds, text_embeds=outputs.text_embeds, loss=outputs.loss, logits=logits,
    log_mel=extractor(audio, sampling_rate=32_000, return_tensors="np")["input_features"],
    pooled=network(**features).pooler_output.detach(),
)
# Trained a little further and saved from here, it must travel on.
model.train()(**inputs, return_loss=True).loss.backward()
joined = type(model).from_audio_text_pretrained(tagger, config.text_config, projection_dim=8, projection_hidden_size=8)
for name, saved in (("again", model), ("joined", joined)):
    saved.eval().save_pretrained(f"{exchange}/{name}")
    processor.save_pretrained(f"{exchange}/{name}")
    again = AutoModel.from_pretrained(f"{exchange}/{name}", **remote)
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits_per_audio, saved(**inputs).logits_per_audio)
pipe = pipeline("zero-shot-audio-classification", model=f"{exchange}/again", device="cpu", **remote)
scores = pipe(given["long"], candidate_labels=["dog", "rain"])
pipe = pipeline("audio-classification", model=tagger, device="cpu", **remote)
print()
print(json.dumps({
    "classes": [type(one).__name__ for one in (config, model, processor, extractor, tagging, network, again)],
    "modules": [type(one).__module__ for one in (config, model, processor, extractor, tagging, network, again)],
    "half": {str(half.audio_model.input_norm.weight.dtype), str(half.audio_projection.out.weight.dtype)}.__len__(),
    "scores": sum(entry["score"] for entry in scores),
    "tags": sorted(entry["label"] for entry in pipe(given["long"])),
    "tokens": AutoTokenizer.from_pretrained(retrieval, **remote)("The DOG.")["input_ids"],
    "package": "modeling_cnn10bert" in sys.modules,
}))
"""


@pytest.fixture
def folders(tiny_folder, tmp_path, randomise_norms, feature_extractor):
    """A saved retrieval model and a saved tagger."""
    retrieval, model = tiny_folder
    torch.manual_seed(1)
    names = {0: "dog", 1: "rain", 2: "siren"}
    config = CNN10Config(hidden_sizes=[4, 6, 8, 10], id2label=names, label2id={v: k for k, v in names.items()})
    tagger = randomise_norms(CNN10ForAudioClassification(config), seed=1).eval()
    tagger.save_pretrained(tmp_path / "tagger")
    feature_extractor.save_pretrained(tmp_path / "tagger")
    return retrieval, model, tmp_path / "tagger", tagger


def run_elsewhere(tmp_path, *arguments):
    """Runs the script in a process without this package, its folder, or any cache of remote code."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "script.py").write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_"))}
    environment.update(HF_HUB_OFFLINE="1", HF_HOME=str(elsewhere / "home"))
    command = [sys.executable, "-P", "script.py", *map(str, arguments)]
    return subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=300)


def test_saved_folders_load_elsewhere_without_the_package(folders, processor, noise, tmp_path):
    retrieval, model, tagger_folder, tagger = folders
    moved = tmp_path / "another place" / "my-retriever.v2"  # a name that is no Python identifier
    shutil.copytree(retrieval, moved)
    shutil.rmtree(retrieval)
    exchange = tmp_path / "exchange"
    exchange.mkdir()
    audio = [noise(32_000), noise(9_999)]
    np.savez(exchange / "given.npz", long=audio[0], short=audio[1])
    inputs = processor(text=["A dog, barks!", "rain"], audio=audio, sampling_rate=32_000, return_tensors="pt")
    features = {name: inputs[name] for name in ("input_features", "input_features_mask")}
    with torch.no_grad():
        outputs, logits = model(**inputs, return_loss=True), tagger(**features).logits
        pooled = tagger.cnn10(**features).pooler_output

    done = run_elsewhere(tmp_path, moved, tagger_folder, exchange)
    assert done.returncode == 0, done.stderr[-3000:]
    printed, _, report = done.stdout.strip().rpartition("\n")
    report = json.loads(report)
    assert report["classes"] == [
        "CNN10BertConfig",
        "CNN10BertModel",
        "CNN10BertProcessor",
        "CNN10FeatureExtractor",
        "CNN10ForAudioClassification",
        "CNN10Model",
        "CNN10BertModel",
    ]
    assert all(module.startswith("transformers_modules.") for module in report["modules"])
    assert report["package"] is False
    assert report["half"] == 2  # the input normalisation in float32, the rest in bfloat16
    assert report["scores"] == pytest.approx(1)
    assert report["tags"] == ["dog", "rain", "siren"]
    assert report["tokens"] == processor(text="the dog")["input_ids"]

    found = np.load(exchange / "found.npz")
    for name, expected in (
        ("log_mel", inputs["input_features"]),
        ("audio_embeds", outputs.audio_embeds),
        ("text_embeds", outputs.text_embeds),
        ("loss", outputs.loss),
        ("logits", logits),
        ("pooled", pooled),
    ):
        np.testing.assert_array_equal(found[name], expected.numpy(), err_msg=name)
    # Documentation decorators complain on standard output, missing weights and clashing versions on standard error.
    assert printed.strip() == ""
    for complaint in ("MISSING", "MISMATCH", "newly initialized", "[ERROR]", "Traceback"):
        assert complaint not in done.stderr.replace("text_model.pooler", ""), done.stderr[-3000:]


def test_the_imported_package_needs_no_trust(folders, processor, noise):
    retrieval, model, tagger_folder, tagger = folders
    loaded = AutoModel.from_pretrained(retrieval)
    assert type(loaded) is type(model)  # the package's class and no copy of it
    assert type(AutoModelForAudioClassification.from_pretrained(tagger_folder)) is type(tagger)
    inputs = processor(text="a dog", audio=noise(9_999), sampling_rate=32_000, return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits_per_audio, model(**inputs).logits_per_audio)


def test_only_the_five_files_travel(folders):
    retrieval, _, tagger, _ = folders
    roles = ("configuration", "modeling", "cpu_kernels", "feature_extraction", "processing")
    travelling = {f"{role}_cnn10bert.py" for role in roles}
    assert {file.name for file in retrieval.glob("*.py")} == travelling
    assert {file.name for file in tagger.glob("*.py")} <= travelling
    config = json.loads((retrieval / "config.json").read_text())
    assert config["auto_map"]["AutoModel"] == "modeling_cnn10bert.CNN10BertModel"
    assert "--" not in json.dumps(config["auto_map"])  # no reference to another repository
