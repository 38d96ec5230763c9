"""From the fields of a recipe to augmented pairs."""

import datasets
import pytest
import torch

from modeling_cnn10bert import CNN10FeatureExtractor
from modeling_cnn10bert.data.features import TABLE_FEATURES, log_mel_columns
from modeling_cnn10bert.data.pairs import SharedEpoch
from modeling_cnn10bert.errors import DataError, RecipeError
from modeling_cnn10bert.training.arguments import AugmentationArguments
from modeling_cnn10bert.training.build import RecordingTables, training_pairs

BEST = {  # table 4 of the paper; p_ms is lost in our copy of it
    "p_eda": 0.9936,
    "p_syn": 0.2962,
    "p_swp": 0.0085,
    "p_ins": 0.0269,
    "p_del": 0.1944,
    "p_bt": 0.1812,
    "n_f": 1,
    "w_f": 4,
    "n_t": 7,
    "w_t": 58,
    "g_max": 3,
    "p_ms": 0.5,
    "ms_alpha": 0.8286,
}
BOUNDS = {  # of the ranges of table 4
    "p_eda": (0.0, 1.0),
    "p_syn": (0.0, 0.3, 1.0),
    "p_swp": (0.0, 0.3, 1.0),
    "p_ins": (0.0, 0.3, 1.0),
    "p_del": (0.0, 0.3, 1.0),
    "p_bt": (0.0, 1.0),
    "n_f": (0, 1),
    "w_f": (0, 1, 32, 64),
    "n_t": (0, 8),
    "w_t": (0, 1, 64),
    "g_max": (0, 6),
    "p_ms": (0.0, 1.0),
    "ms_alpha": (0.0, 1.0),
}


@pytest.fixture(autouse=True)
def small_wordnet(monkeypatch):
    """Two synonyms in place of WordNet, which tests of its own look up."""
    monkeypatch.setattr("modeling_cnn10bert.training.build.load_wordnet", lambda: None)
    table = {"dog": ("hound",), "falls": ("comes down",)}
    monkeypatch.setattr("modeling_cnn10bert.training.build.synonyms_of", lambda words, wordnet: table)


@pytest.fixture(scope="module")
def tables():
    """Recordings from the shortest clip of 16 frames, narrower than most stripes, to one of 300."""
    generator = torch.Generator().manual_seed(0)
    captions = ["Thunder.", "A dog barks while it's 3 o'clock, and rain falls"]
    rows = [
        {
            "file_name": f"{length}.wav",
            "recording_id": str(length),
            "captions": captions,
            "back_translations_de": ["Donner", "A dog is barking at 3, and it rains"],
            "back_translations_fr": ["A thunder", "One dog barks, and at 3 the rain falls"],
            **log_mel_columns(-90 + 60 * torch.rand(length, 64, generator=generator)),
        }
        for length in (16, 40, 300)
    ]
    variants = {f"back_translations_{language}": TABLE_FEATURES["captions"] for language in ("de", "fr")}
    table = datasets.Dataset.from_list(rows, features=datasets.Features(TABLE_FEATURES | variants))
    return RecordingTables(table, table, table)


def _rows(tables, epoch=0, **fields):
    shared = SharedEpoch()
    shared.set(epoch)
    pairs = training_pairs(tables, AugmentationArguments(**fields), CNN10FeatureExtractor(), seed=1, epoch=shared)
    return pairs.__getitems__(list(range(6)))


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BOUNDS.items() for value in values])
def test_every_bound_of_table_4_runs(name, value, tables):
    for epoch in range(5):
        rows = _rows(tables, epoch, **{**BEST, name: value})
        assert [len(row["log_mel"]) for row in rows] == [16, 16, 40, 40, 300, 300]
        for row in rows:
            assert torch.isfinite(row["log_mel"]).all()
            assert row["captions"][0].strip()


def test_all_upper_bounds_together_run(tables):
    for row in _rows(tables, **{name: values[-1] for name, values in BOUNDS.items()}):
        assert torch.isfinite(row["log_mel"]).all() and row["captions"][0].strip()


def test_without_any_augmentation_the_pairs_are_as_they_are(tables):
    plain, best = _rows(tables), _rows(tables, **BEST)
    assert [row["captions"] for row in plain] == [
        [caption] for _ in range(3) for caption in tables.train[0]["captions"]
    ]
    assert all(torch.equal(plain[index]["log_mel"], plain[index + 1]["log_mel"]) for index in (0, 2, 4))
    assert not any(torch.equal(a["log_mel"], b["log_mel"]) for a, b in zip(plain, best, strict=True))


def test_back_translation_chooses_among_the_stored_languages(tables):
    seen = {row["captions"][0] for epoch in range(60) for row in _rows(tables, epoch, p_bt=0.8)}
    columns = ("captions", "back_translations_de", "back_translations_fr")
    assert seen == {text for column in columns for text in tables.train[0][column]}


def test_back_translation_comes_before_eda(tables):
    known = {"donner", "thunder", "a"}  # the words of both variants of the first caption
    for epoch in range(40):
        row = _rows(tables, epoch, p_bt=1.0, p_eda=1.0, p_syn=0.0, p_swp=1.0, p_del=0.5)[0]
        assert set(row["captions"][0].split()) <= known  # a variant, normalised and manipulated
        assert row["captions"][0] == row["captions"][0].lower()


def test_synonyms_are_looked_up_for_the_words_of_the_variants_too(tables, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "modeling_cnn10bert.training.build.synonyms_of", lambda words, wordnet: asked.extend(words) or {}
    )
    _rows(tables, **{**BEST, "p_bt": 0.0})
    assert "donner" not in asked
    _rows(tables, **BEST)
    assert "donner" in asked


def test_back_translation_without_a_stored_one_is_an_error_that_names_the_script(tables):
    table = tables.train.remove_columns(["back_translations_de", "back_translations_fr"])
    with pytest.raises(RecipeError, match=r"field p_bt is 0.1812, .*cnn10bert back-translate"):
        _rows(RecordingTables(table, table, table), **BEST)
    assert _rows(RecordingTables(table, table, table), **{**BEST, "p_bt": 0.0})


def test_back_translations_that_some_recordings_lack_are_an_error_too(tables):
    variants = [[["Donner", "Ein Hund"], None, ["Donner", "Ein Hund"]]]
    table = tables.train.remove_columns(["back_translations_de", "back_translations_fr"])
    table = table.add_column("back_translations_de", *variants)
    with pytest.raises(RecipeError, match="p_bt is 0.1812, but 2 of 6 captions of the training set have no"):
        _rows(RecordingTables(table, table, table), **BEST)


@pytest.mark.parametrize("text", ["p_eda", "p_del"])
def test_switching_the_text_augmentation_changes_no_draw_of_the_audio(text, tables):
    both, audio_alone = _rows(tables, **BEST), _rows(tables, **{**BEST, text: 0.0})
    assert all(torch.equal(a["log_mel"], b["log_mel"]) for a, b in zip(both, audio_alone, strict=True))


def test_inserted_words_come_from_the_training_captions(tables):
    known = {"thunder", "a", "dog", "barks", "while", "its", "3", "oclock", "and", "rain", "falls"}
    seen = set()
    for epoch in range(40):
        for row in _rows(tables, epoch, p_eda=1.0, p_ins=1.0):
            seen |= set(row["captions"][0].split())
    assert seen == known


def test_synonyms_without_wordnet_are_an_error_that_names_the_field(tables, monkeypatch):
    def missing():
        raise DataError("found no WordNet; get it")

    monkeypatch.setattr("modeling_cnn10bert.training.build.load_wordnet", missing)
    with pytest.raises(RecipeError, match=r"field p_syn is 0.2962: found no WordNet; get it"):
        _rows(tables, **BEST)
    assert _rows(tables, **{**BEST, "p_syn": 0.0})  # which needs none


@pytest.mark.parametrize("part", ["audio", "text"])
def test_all_audio_or_all_text_augmentations_are_switched_off_at_once(part, tables):
    off = {f"augment_{part}": False, "n_t": 2, "w_t": 10, "p_bt": 0.9}
    values = ("g_max", "p_ms", "n_f", "n_t") if part == "audio" else ("p_eda", "p_bt")
    by_hand = {**BEST, "n_t": 2, "w_t": 10, "p_bt": 0.9, **dict.fromkeys(values, 0)}
    found, expected = _rows(tables, **{**BEST, **off}), _rows(tables, **by_hand)
    changed = _rows(tables, **{**BEST, "n_t": 2, "w_t": 10, "p_bt": 0.9})
    assert [row["captions"] for row in found] == [row["captions"] for row in expected]
    assert all(torch.equal(a["log_mel"], b["log_mel"]) for a, b in zip(found, expected, strict=True))
    assert any(
        a["captions"] != b["captions"] or not torch.equal(a["log_mel"], b["log_mel"])
        for a, b in zip(found, changed, strict=True)
    )


@pytest.mark.parametrize("variant", ["...", "", "-"])
def test_a_back_translation_without_a_word_is_an_error_before_training(variant, tables):
    texts = [[variant, "A dog is barking"]] + [["Donner", "A dog is barking"]] * 2
    column = "back_translations_de"
    train = tables.train.remove_columns([column]).add_column(column, texts, feature=TABLE_FEATURES["captions"])
    tables = RecordingTables(train, tables.validation, tables.test)
    with pytest.raises(
        RecipeError, match=f"1 back-translations have no word, such as '{variant}'; delete their column"
    ):
        _rows(tables, p_bt=0.5)
    assert len(_rows(tables, p_bt=0.0)) == 6
