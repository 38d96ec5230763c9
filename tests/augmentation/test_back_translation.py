"""Variants are chosen by the caller's generator; translators keep captions apart, whatever else is in the batch."""

import csv
import json
import os
import re
import shutil
from collections import Counter

import numpy as np
import pytest

from modeling_cnn10bert.augmentation.back_translation import (
    MAX_TOKENS,
    WINDOW,
    ApertiumTranslator,
    MarianTranslator,
    apertium_pair,
    back_translation_languages,
    choose_variant,
    length_batches,
    marian_pair,
    round_trip,
)
from modeling_cnn10bert.augmentation.eda import caption_words
from modeling_cnn10bert.errors import DataError

ODD = [
    "A dog barks",
    "",
    "birds; sing. And a car",
    "Mr.",  # a word of two lines would be "car Mr."
    "  leading and trailing ",
    "two\tsea\nlions\r\n",
    "50% of 3.5 kHz, it's a cat's \"meow\"",
    "日本語 😀 café",
    "a\u2028line separator, a\0zero",
    "A man [speaks] ^loud$ \\ /x @ <b> {curly} ~ *star #hash",
    "...",
    ".[]",
    "[[t:b:abc]]dog[[/]]",
    "a cow moos",
]


@pytest.fixture(scope="module")
def real_captions(shared_data):
    """The first 200 captions of AudioCaps' test split."""
    with (shared_data / "audiocaps" / "test.csv").open(encoding="utf-8", newline="") as file:
        captions = [row["caption"] for row in csv.DictReader(file)][:200]
    assert len(captions) == 200
    return captions


@pytest.fixture
def apertium():
    if shutil.which("apertium") is None:
        pytest.skip("apertium is not installed: apt-get install apertium apertium-eng-spa")
    return apertium_pair("es")


def _program(folder, script):
    """A folder with a program named `apertium`."""
    path = folder / "bin" / "apertium"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return f"{path.parent}{os.pathsep}/usr/bin{os.pathsep}/bin"


# --------------------------------------------------------------------------------------------------------- choosing


def test_a_share_of_p_bt_becomes_variants_each_language_as_often():
    rng = np.random.default_rng(0)
    drawn = Counter(choose_variant("caption", ["de", "es", "fr"], rng, 0.3) for _ in range(20_000))
    assert drawn["caption"] == pytest.approx(14_000, abs=4 * np.sqrt(20_000 * 0.3 * 0.7))
    for language in ("de", "es", "fr"):
        assert drawn[language] == pytest.approx(2_000, abs=4 * np.sqrt(20_000 * 0.1 * 0.9))


def test_p_bt_0_never_and_1_always_chooses_a_variant():
    rng = np.random.default_rng(0)
    assert {choose_variant("caption", ["de", "es"], rng, 0.0) for _ in range(100)} == {"caption"}
    assert {choose_variant("caption", ["de", "es"], rng, 1.0) for _ in range(100)} == {"de", "es"}


@pytest.mark.parametrize(
    ("variants", "chosen"), [([None, "es"], {"es"}), ([None, None], {"caption"}), ([], {"caption"})]
)
def test_a_language_without_a_variant_is_never_chosen(variants, chosen):
    rng = np.random.default_rng(0)
    assert {choose_variant("caption", variants, rng, 1.0) for _ in range(50)} == chosen


def test_the_choice_is_the_callers_generator_s_alone():
    state = np.random.get_state()[1].copy()
    first, second = ([choose_variant("c", list("abc"), rng, 0.5) for _ in range(50)] for rng in _two_generators(7))
    assert first == second
    assert (np.random.get_state()[1] == state).all()


def _two_generators(seed):
    return np.random.default_rng(seed), np.random.default_rng(seed)


def test_languages_are_read_off_the_columns():
    columns = ["captions", "back_translations_fr", "length", "back_translations_de", "back_translations"]
    assert back_translation_languages(columns) == ["de", "fr"]


# --------------------------------------------------------------------------------------------------------- batching


def test_batches_hold_every_caption_once_and_captions_of_similar_length():
    rng = np.random.default_rng(0)
    captions = ["x" * length for length in rng.integers(5, 200, size=1000)]
    batches = length_batches(captions, 8)
    assert sorted(number for batch in batches for number in batch) == list(range(1000))
    assert all(len(batch) == 8 for batch in batches)
    spread = [max(map(len, texts)) - min(map(len, texts)) for texts in ([captions[i] for i in b] for b in batches)]
    assert np.mean(spread) < 10  # of 8 in random order, 7/9 of 195


def test_a_batch_never_reaches_beyond_its_window():
    batches = length_batches(["x" * (length % 97) for length in range(2 * WINDOW * 4 + 3)], 4)
    assert {number // (4 * WINDOW) for number in batches[0]} == {0}
    assert [len(batch) for batch in batches] == [4] * (2 * WINDOW) + [3]


def back_translate(captions, forth, back, batch_size=32):
    """Variants in the order of the captions."""
    variants = {}
    for batch in length_batches(captions, batch_size):
        variants |= zip(batch, round_trip([captions[number] for number in batch], forth, back), strict=True)
    return [variants[number] for number in range(len(captions))]


# ----------------------------------------------------------------------------------------------------------- Marian


def test_a_translation_does_not_depend_on_the_rest_of_its_batch(opus_models, grammar_captions):
    forth, back = marian_pair("de", opus_models, num_beams=2, device="cpu")
    captions = grammar_captions(24)
    together = back_translate(captions, forth, back, batch_size=8)
    assert [back_translate([caption], forth, back)[0] for caption in captions] == together
    assert len(set(together)) > 5


def test_200_captions_go_forth_and_back(opus_models, grammar_captions):
    captions = grammar_captions(200)
    variants = back_translate(captions, *marian_pair("fr", opus_models, num_beams=1, device="cpu"))
    assert len(variants) == 200
    assert all(variant == " ".join(variant.split()) for variant in variants)
    assert len(set(variants)) > 10


def test_200_real_captions_go_forth_and_back(opus_models, real_captions):
    pair = marian_pair("de", opus_models, num_beams=1, device="cpu")
    variants = back_translate(real_captions, *pair)
    assert len(variants) == 200
    assert variants == back_translate(real_captions, *pair)


def test_what_has_no_end_is_cut(opus_models):
    translator = MarianTranslator(opus_models / "opus-mt-en-de", num_beams=1, device="cpu")
    translator.model.generation_config.update(exponential_decay_length_penalty=None)
    translator.model.final_logits_bias[0, 0] = -1e9
    (translation,) = translator(["a dog barks " * 500])
    assert 0 < len(translator.tokenizer.tokenize(translation)) <= 2 * MAX_TOKENS  # it is cut into other pieces again


def test_the_identity_is_the_model_s_and_not_its_place_s(opus_models, tmp_path):
    model = MarianTranslator(opus_models / "opus-mt-en-de", device="cpu")
    shutil.copytree(opus_models / "opus-mt-en-de", tmp_path / "copy")
    assert MarianTranslator(tmp_path / "copy", device="cpu").identity == model.identity
    vocab = json.loads((tmp_path / "copy" / "vocab.json").read_text())
    first, second = list(vocab)[10:12]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    (tmp_path / "copy" / "vocab.json").write_text(json.dumps(vocab))
    others = [
        MarianTranslator(opus_models / "opus-mt-en-de", num_beams=1, device="cpu"),
        MarianTranslator(opus_models / "opus-mt-en-fr", device="cpu"),  # other weights
        MarianTranslator(tmp_path / "copy", device="cpu"),  # another vocabulary
    ]
    assert len({model.identity, *(other.identity for other in others)}) == 4


@pytest.mark.parametrize("language", ["xx", "en", "deu", ""])
def test_an_unknown_language_names_the_known(language):
    with pytest.raises(DataError, match=f"found {language!r}, expected one of de, es, fr, it, nl, sv"):
        marian_pair(language)
    with pytest.raises(DataError, match=f"found {language!r}, expected one of es"):
        apertium_pair(language)


def test_a_folder_without_the_models_names_them(tmp_path, opus_models):
    with pytest.raises(DataError, match="found no folder opus-mt-en-de, expected opus-mt-en-de and opus-mt"):
        marian_pair("de", tmp_path)
    shutil.copytree(opus_models / "opus-mt-en-de", tmp_path / "opus-mt-en-de")
    (tmp_path / "opus-mt-de-en").mkdir()
    with pytest.raises(DataError, match="opus-mt-de-en: found no MarianMT model .* folder as models"):
        marian_pair("de", tmp_path)


def test_a_hub_that_does_not_answer_is_one_clear_error():
    with pytest.raises(DataError, match="^Helsinki-NLP/opus-mt-en-de: found no MarianMT model .*$"):
        marian_pair("de")


def test_an_unknown_device_is_one_clear_error(opus_models):
    with pytest.raises(DataError, match="device gramophone"):
        marian_pair("de", opus_models, device="gramophone")


# --------------------------------------------------------------------------------------------------------- apertium


def test_apertium_keeps_odd_captions_apart(apertium):
    forth, back = apertium
    together = forth(ODD)
    for row in (2, 3, 8, 9, len(ODD) - 1):
        assert together[row] == forth([ODD[row]])[0]
    assert not re.search("[\n\r\t\0\u2028]", "".join(together + back(together)))
    assert [bool(caption_words(text)) for text in back(together)] == [bool(caption_words(text)) for text in ODD]


def test_apertium_translates(apertium):
    forth, back = apertium
    assert forth(["A dog and a cat", "it rains"]) == ["Un perro y un gato", "Llueve"]
    assert back(["Un perro y un gato"]) == ["A dog and a cat"]


def test_apertium_on_200_real_captions(apertium, real_captions):
    variants = back_translate(real_captions, *apertium, batch_size=200)
    assert len(variants) == 200
    assert all(caption_words(variant) for variant in variants)
    unchanged = sum(
        caption_words(variant) == caption_words(caption)
        for variant, caption in zip(variants, real_captions, strict=True)
    )
    assert 0 < unchanged < 100
    shared = [
        len({*caption_words(a)} & {*caption_words(b)}) / len({*caption_words(b)})
        for a, b in zip(variants, real_captions, strict=True)
    ]
    assert np.mean(shared) > 0.5  # each is its own caption's variant
    some = real_captions[100:140]
    assert back_translate(some, *apertium) == variants[100:140]


def test_apertium_that_is_not_installed_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="not found .* apt-get install apertium apertium-eng-spa"):
        apertium_pair("es")


def test_apertium_without_the_direction_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", _program(tmp_path, "echo '  eng-cat'"))
    with pytest.raises(
        DataError,
        match="found the modes eng-cat, expected eng-spa; apt-get install apertium apertium-eng-spa",
    ):
        apertium_pair("es")


def test_apertium_that_fails_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", _program(tmp_path, "case $1 in -u) echo no dictionary >&2; exit 3;; esac; echo eng-spa"))
    with pytest.raises(DataError, match=r"exit status 3 \(no dictionary\)"):
        ApertiumTranslator("eng-spa", "apertium-eng-spa")(["a dog"])


def test_captions_that_a_translator_runs_together_are_translated_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", _program(tmp_path, "case $1 in -u) tr -s '\\n' ' ';; *) echo eng-spa;; esac"))
    assert ApertiumTranslator("eng-spa", "apertium-eng-spa")(["a dog", "", "rain"]) == ["a dog", "", "rain"]
