"""A recipe names an augmenter of nlpaug, or a flow, whose draws are keyed like all others."""

import random
import shutil
import sys

import numpy as np
import pytest
import torch

from modeling_cnn10bert.augmentation.text import TextAugmentation
from modeling_cnn10bert.augmentation.text_augmenter import TextAugmenter, load_text_augmenter
from modeling_cnn10bert.errors import RecipeError
from modeling_cnn10bert.training.arguments import AugmentationArguments
from modeling_cnn10bert.training.recipe import parse_recipe

CAPTION = "A dog barks, while rain falls."
FLOWS = '''
import random
import numpy as np
import torch
from nlpaug.augmenter.word import RandomWordAug
from nlpaug.flow import Sequential, Sometimes
from modeling_cnn10bert.integrations.nlpaug import InsertionAug, StoredBackTranslationAug, SwapAug

flow = Sequential([SwapAug(0.3), Sometimes([RandomWordAug(action="delete", aug_p=0.2)], aug_p=0.5)])
number = 3

class Draws:
    """Returns one draw of each global generator."""
    def augment(self, text):
        return [f"{random.random()} {np.random.random()} {torch.rand(())}"]

class Group:
    flow = flow

class Fails:
    def augment(self, text):
        raise KeyError("a word")

def of_captions(captions, back_translations):
    return Sequential([InsertionAug(1.0, captions), StoredBackTranslationAug(1.0, back_translations)])

def of_unknown(words):
    return flow

def nothing():
    return None
'''


@pytest.fixture(autouse=True)
def flows(tmp_path, monkeypatch):
    """The module `our_flows` in the working directory."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    (tmp_path / "our_flows.py").write_text(FLOWS)
    (tmp_path / "broken_flows.py").write_text("import a_library_that_is_missing")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("our_flows", "broken_flows"):
        sys.modules.pop(name, None)


def _load(name, captions=(), back_translations=None):
    return load_text_augmenter(name, captions, back_translations or {})


class _Returns:
    """Augmenter that returns a given value."""

    def __init__(self, value):
        self.value = value

    def augment(self, data):
        return self.value


# ------------------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize("name", ["our_flows:flow", "our_flows:Group.flow", "nlpaug.augmenter.word:RandomWordAug"])
def test_an_object_or_a_class_is_found_by_its_name(name):
    found = {_load(name)(CAPTION, np.random.default_rng(seed)) for seed in range(10)}
    assert len(found) > 2 and all(isinstance(text, str) for text in found)


def test_a_function_is_given_what_its_parameters_name():
    flow = _load("our_flows:of_captions", ["tree"], {"tree": ["a tree"]}).augmenter
    assert flow[0].vocabulary == ["tree"] and flow[1].back_translations == {"tree": ["a tree"]}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:flow", r"the module no_such_module cannot be imported \(ModuleNotFoundError.*directory"),
        ("broken_flows:flow", "the module broken_flows cannot be imported .*a_library_that_is_missing"),
        ("our_flows:missing", "found no missing in our_flows"),
        ("our_flows:number", r"found '3' \(int\), which has no method augment"),
        ("our_flows:nothing", r"found 'None' \(NoneType\), which has no method augment"),
        ("our_flows:of_unknown", "it could not be made .*'words'.*expected a function without parameters"),
    ],
)
def test_what_is_no_augmenter_is_an_error_that_says_why(name, message):
    with pytest.raises(RecipeError, match=f"field text_augmenter is '{name}': {message}"):
        _load(name)


def test_an_augmenter_that_fails_is_an_error_before_training():
    with pytest.raises(RecipeError, match="failed at the caption 'rain' .KeyError: 'a word'"):
        _load("our_flows:Fails", ["rain"])


@pytest.mark.parametrize("name", ["flow", "our flows:flow", ":flow", "our_flows:", "a:b:c", ""])
def test_a_name_of_another_form_is_refused_with_the_recipe(name):
    with pytest.raises(ValueError, match="text_augmenter must be MODULE:NAME"):
        AugmentationArguments(text_augmenter=name)


def test_the_module_may_be_in_the_folder_of_the_recipe(flows, monkeypatch):
    folder = flows / "recipes"
    folder.mkdir()
    (flows / "our_flows.py").rename(folder / "our_flows.py")
    (folder / "recipe.yaml").write_text("text_augmenter: our_flows:flow\n")
    (flows / "other.yaml").write_text("extends: recipes/recipe.yaml\n")
    with pytest.raises(RecipeError, match="cannot be imported"):
        _load("our_flows:flow")
    name = parse_recipe([str(flows / "other.yaml")])[2].text_augmenter
    assert _load(name)(CAPTION, np.random.default_rng(0))


# ---------------------------------------------------------------------------------------------------------- results


@pytest.mark.parametrize("nothing", [None, [], "", [""], [[]], ["..."], (None,)])
def test_a_caption_stays_where_nothing_comes_back(nothing):
    assert TextAugmenter("name", _Returns(nothing))(CAPTION, np.random.default_rng(0)) == CAPTION


@pytest.mark.parametrize("value", ["rain", ["rain"], [["rain"]], ("rain", [])])
def test_a_text_is_taken_out_of_the_lists_around_it(value):
    assert TextAugmenter("name", _Returns(value))(CAPTION, np.random.default_rng(0)) == "rain"


def test_what_is_no_text_or_fails_is_an_error_that_names_the_augmenter():
    with pytest.raises(RecipeError, match=r"text_augmenter is a:b: it returned '3' \(int\) for the caption 'A dog"):
        TextAugmenter("a:b", _Returns(3))(CAPTION, np.random.default_rng(0))
    with pytest.raises(RecipeError, match=r"text_augmenter is a:b: it failed at the caption 'A dog.*AttributeError"):
        TextAugmenter("a:b", None)(CAPTION, np.random.default_rng(0))


def test_it_comes_after_back_translation_and_eda():
    seen = []

    class Records:
        def augment(self, data):
            seen.append(data)
            return "rain"

    augmentation = TextAugmentation(1.0, lambda caption, rng: f"{caption} by EDA", TextAugmenter("a:b", Records()))
    assert augmentation(CAPTION, ["a variant"], np.random.default_rng(0)) == "rain"
    assert seen == ["a variant by EDA"]


# ------------------------------------------------------------------------------------------------------------ draws


def test_all_draws_come_from_the_given_generator_and_no_other_draw_is_shifted():
    draws = _load("our_flows:Draws")
    first, second = (draws(CAPTION, np.random.default_rng(seed)) for seed in (1, 2))
    assert not set(first.split()) & set(second.split())
    for seed in (5, 6):
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        assert draws(CAPTION, np.random.default_rng(1)) == first
        assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_the_global_states_are_restored_after_an_error_too():
    np.random.seed(4)
    expected = np.random.RandomState(4).random()
    with pytest.raises(RecipeError):
        TextAugmenter("a:b", None)(CAPTION, np.random.default_rng(0))
    assert np.random.random() == expected


def test_captions_are_augmented_alike_by_any_number_of_workers(augmented_batches):
    alone, shared, without = (
        augmented_batches(workers, text_augmenter=name)
        for workers, name in ((0, "our_flows:flow"), (2, "our_flows:flow"), (0, None))
    )
    for epoch, other_epoch, plain_epoch in zip(alone, shared, without, strict=True):
        for batch, other, plain in zip(epoch, other_epoch, plain_epoch, strict=True):
            assert all(torch.equal(batch[name], other[name]) for name in batch)
            assert torch.equal(batch["input_features"], plain["input_features"])
            assert not torch.equal(batch["input_ids"], plain["input_ids"])


def test_a_resumed_run_with_a_flow_ends_as_an_uninterrupted_one(run, tmp_path, assert_same_outcome):
    given = {"num_train_epochs": 2, "text_augmenter": "our_flows:flow"}
    run(tmp_path / "whole", **given)
    shutil.copytree(tmp_path / "whole" / "checkpoint-8", tmp_path / "run" / "checkpoint-8")
    run(tmp_path / "run", "--resume_from_checkpoint", "true", dataloader_num_workers=2, **given)
    assert_same_outcome(tmp_path / "run", tmp_path / "whole")
