"""After `import modeling_cnn10bert`, transformers' Auto classes know its models, whichever was imported first."""

import subprocess
import sys

import pytest

import modeling_cnn10bert

# Runs in a fresh process behind a few imports, which it is given as code.
CHECKS = """
import pickle
import sys
import modeling_cnn10bert
from transformers import (
    AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification, AutoProcessor, AutoTokenizer, pipeline
)
folder = sys.argv[1]
config = AutoConfig.from_pretrained(folder)
model = AutoModel.from_pretrained(folder)
assert type(config) is modeling_cnn10bert.CNN10BertConfig
assert type(model) is modeling_cnn10bert.CNN10BertModel
assert type(AutoModel.from_config(config.audio_config)) is modeling_cnn10bert.CNN10Model
assert type(AutoModel.from_pretrained(folder, trust_remote_code=True)) is type(model)  # what is installed, not a copy
assert type(AutoProcessor.from_pretrained(folder)) is modeling_cnn10bert.CNN10BertProcessor
assert type(AutoFeatureExtractor.from_pretrained(folder)) is modeling_cnn10bert.CNN10FeatureExtractor
assert AutoTokenizer.from_pretrained(folder)("rain").input_ids
tagger = AutoModelForAudioClassification.from_config(config.audio_config)
assert type(tagger) is modeling_cnn10bert.CNN10ForAudioClassification
assert pickle.loads(pickle.dumps(config)).to_dict() == config.to_dict()
assert type(pickle.loads(pickle.dumps(model))) is type(model)
assert type(pipeline("zero-shot-audio-classification", model=folder).model) is type(model)
print("all known")
"""


def run(code, *arguments):
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "first",
    [
        "",
        "import modeling_cnn10bert; from transformers import BertModel",
        "from transformers import AutoConfig",
        "from transformers import AutoModel, pipeline",
        "from modeling_cnn10bert import CNN10BertModel",
    ],
)
def test_the_auto_classes_load_a_saved_folder_whatever_was_imported_first(first, tiny_folder):
    assert run(f"{first}\n{CHECKS}", tiny_folder[0]) == "all known"


def test_the_command_imports_no_large_library_before_it_needs_one():
    code = """
import sys
sys.argv = ["/somewhere/bin/cnn10bert", "--help"]
import modeling_cnn10bert.cli.app
print(sorted({"torch", "transformers", "datasets", "lancedb", "numpy"} & set(sys.modules)))
"""
    assert run(code) == "[]"


def test_a_star_import_brings_all_that_the_package_names():
    names = {}
    exec("from modeling_cnn10bert import *", names)
    assert names.keys() - {"__builtins__"} == set(modeling_cnn10bert.__all__)
    assert set(modeling_cnn10bert.__all__) <= set(dir(modeling_cnn10bert))
    for name in modeling_cnn10bert.__all__:
        assert names[name].__name__ == name
