"""AudioRetriever: what a text or a recording finds, and what it refuses."""

import datetime
import math
import os
import re
import shutil
import threading
import time
import warnings

import numpy as np
import pytest
import soundfile
import torch

from modeling_cnn10bert.errors import AudioError, RetrievalError
from modeling_cnn10bert.retrieval import AudioRetriever, SearchFilter, hits_to_dataframe
from modeling_cnn10bert.retrieval import retriever as retriever_module
from modeling_cnn10bert.retrieval.everyday_sounds import EVERYDAY_SOUNDS
from modeling_cnn10bert.retrieval.records import EmbeddedFile, FileRecord, IndexInfo, ModelIdentity
from modeling_cnn10bert.retrieval.retriever import RetrievalWarning, without_words
from modeling_cnn10bert.retrieval.stores import open_store

RATE = 32_000


@pytest.fixture
def recordings(sounds, noise):
    """Six recordings of 0.5 to 3 s, each of its own spectrum, in two folders."""
    (sounds / "far").mkdir()
    for number in range(6):
        waveform = noise(RATE * (number + 1) // 2, seed=number)
        waveform = np.convolve(waveform, np.hanning(2 + 3 * number) if number else [1.0], mode="same")
        folder = sounds / "far" if number > 3 else sounds
        soundfile.write(folder / f"{number}.wav", waveform.astype(np.float32), RATE, subtype="FLOAT")
    return sounds


@pytest.fixture
def retriever(tmp_path, tiny_folder, recordings):
    folder, _ = tiny_folder
    with AudioRetriever.from_pretrained(folder, tmp_path / "index") as retriever:
        retriever.index([recordings], progress=False)
        yield retriever


class TwoWords:
    """A model of which we know what it says: an angle for every word."""

    sampling_rate = RATE
    identity = ModelIdentity("angles", None, "angles", 2, {})

    def embed_text(self, texts):
        words = [text.split()[0] for text in texts]
        angles = [math.radians(float(word) if word.isdecimal() else 45) for word in words]
        return np.array([[math.cos(angle), math.sin(angle)] for angle in angles], np.float32)


@pytest.fixture
def circle(tmp_path):
    """An index with a recording at every tenth degree from 0 to 90, and the model to ask it with."""
    store = open_store(str(tmp_path / "circle"), IndexInfo(TwoWords.identity))
    store.put(
        [
            EmbeddedFile(
                FileRecord(f"/sounds/{degrees}.wav", str(degrees), 1, 1, 1.0),
                [(0.0, 1.0)],
                np.array([[math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]], np.float32),
            )
            for degrees in range(0, 100, 10)
        ]
    )
    with AudioRetriever(store, TwoWords()) as retriever:
        yield retriever


def names(hits):
    return [os.path.basename(hit.file) for hit in hits]


# ------------------------------------------------------------------------------------------------------------ texts


def test_a_text_finds_recordings_in_the_order_of_their_cosine_by_the_model(
    retriever, tiny_folder, processor, recordings
):
    model = tiny_folder[1]
    cosine = {}
    with torch.inference_mode():
        query = model.get_text_features(**processor(text=["a dog bark"], return_tensors="pt")).pooler_output[0]
        for path in recordings.rglob("*.wav"):
            waveform, _ = soundfile.read(path, dtype="float32")
            waveform /= np.abs(waveform).max()
            inputs = processor(audio=waveform, sampling_rate=RATE, return_tensors="pt")
            cosine[str(path)] = float(model.get_audio_features(**inputs).pooler_output[0] @ query)
    hits = retriever.search("a dog bark", k=4)
    assert [hit.file for hit in hits] == sorted(cosine, key=cosine.get, reverse=True)[:4]
    assert [hit.score for hit in hits] == pytest.approx([cosine[hit.file] for hit in hits], abs=1e-4)


def test_several_texts_get_a_list_of_hits_each(retriever):
    texts = ["a dog bark", "rain", "siren wails"]
    found, expected = retriever.search(texts, 3), [retriever.search(text, 3) for text in texts]
    assert [names(hits) for hits in found] == [names(hits) for hits in expected]
    assert [hits[0].score for hits in found] == pytest.approx([hits[0].score for hits in expected], abs=1e-5)
    assert retriever.search([], 3) == []


def test_what_is_forgotten_is_no_longer_found_and_its_files_stay(retriever, recordings):
    assert retriever.forget(recordings / "far") == 2
    assert retriever.forget([recordings / "0.wav"]) == 1
    assert sorted(os.path.basename(hit.file) for hit in retriever.search("rain", k=10)) == ["1.wav", "2.wav", "3.wav"]
    assert (recordings / "far" / "4.wav").exists() and (recordings / "0.wav").exists()


def test_a_model_that_embeds_nothing_leaves_no_index(tmp_path, recordings):
    class Broken(TwoWords):
        def embed_audio(self, waveforms):
            raise ValueError("no weights")

    with AudioRetriever(str(tmp_path / "index"), Broken()) as retriever:
        with pytest.raises(RetrievalError, match="the model embeds no recording"):
            retriever.index([recordings], progress=False)
        assert (tmp_path / "index").exists()  # until the retriever is closed
    assert not (tmp_path / "index").exists()


def test_k_beyond_the_index_gives_all_there_is(retriever):
    assert len(retriever.search("rain", k=1000)) == 6
    assert len(retriever.search("rain", k=10**20)) == 6
    assert len(retriever.similar(retriever.search("rain", k=1)[0].file, k=10**20)) == 5


@pytest.mark.parametrize("k", [0, -1, 2.5, True, None, 1e20, math.nan, "3"])
def test_k_must_be_a_whole_number_of_at_least_one(retriever, k):
    with pytest.raises(RetrievalError, match="expected a whole number of at least 1"):
        retriever.search("rain", k)
    with pytest.raises(RetrievalError, match="expected a whole number of at least 1"):
        retriever.similar("any.wav", k)


@pytest.mark.parametrize("text", ["", "   ", "?!...", "\n\t", ["rain", "--"]])
def test_a_text_without_a_word_is_refused_before_anything_is_loaded(retriever, text, monkeypatch):
    monkeypatch.setattr(retriever, "_loaded", None)
    monkeypatch.setattr(retriever_module, "load_embedder", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(RetrievalError, match="expected words that describe a sound"):
        retriever.search(text)
    with pytest.raises(RetrievalError, match="expected words that describe a sound"):
        retriever.search("rain", without=text)


def test_five_thousand_words_find_what_their_beginning_finds_and_say_so(retriever):
    long = "a dog bark while rain drips " * 834
    started = time.monotonic()
    with pytest.warns(RetrievalWarning, match="5004 words is longer than the model reads"):
        hits = retriever.search(long)
    assert time.monotonic() - started < 20  # it takes milliseconds; a quadratic pass over the words would not
    with pytest.warns(RetrievalWarning):
        assert names(hits) == names(retriever.search("a dog bark while rain drips " * 20))


def test_a_text_that_just_fits_is_no_warning_and_one_word_more_is_one(retriever):
    fits = " ".join(["rain"] * 30)  # and [CLS] and [SEP] make 32 tokens
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always", RetrievalWarning)
        retriever.search(fits)
    assert not any("longer than the model reads" in str(warning.message) for warning in shown)
    with pytest.warns(RetrievalWarning, match="31 words"):
        retriever.search(fits + " rain")


def test_a_text_is_never_taken_for_a_path(retriever, recordings, monkeypatch):
    monkeypatch.chdir(recordings)
    assert len(retriever.search("0.wav")) == 6  # a word like any other: it does not leave out the file
    with pytest.raises(RetrievalError, match="found the path .* expected a text; `similar` takes recordings"):
        retriever.search(recordings / "0.wav")
    with pytest.raises(RetrievalError, match="found ndarray, expected a text"):
        retriever.search([np.zeros(3)])


def test_the_score_of_a_hit_is_compared_with_those_of_everyday_sounds(retriever):
    hits = retriever.search("rain", k=6)
    everyday = retriever.embedder.embed_text(list(EVERYDAY_SOUNDS))
    for hit in hits:
        scores = everyday @ hit.embed
        assert hit.z_score == pytest.approx((hit.score - scores.mean()) / scores.std(), abs=1e-3)
    assert retriever.similar(hits[0].file)[0].z_score is None


def test_a_text_that_everyday_sounds_fit_better_is_a_warning(retriever, monkeypatch):
    (hit,) = retriever.search("rain", k=1)
    for embeds, warned in ((np.stack([hit.embed, -hit.embed]), 1), (np.stack([-hit.embed, 0 * hit.embed]), 0)):
        monkeypatch.setattr(retriever, "_everyday_embeds", embeds)
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("always", RetrievalWarning)
            (found,) = retriever.search("rain", k=1)
        assert (found.z_score < 1) == bool(warned)
        assert sum("no recording of the index fits 'rain'" in str(warning.message) for warning in shown) == warned


def test_hits_below_the_least_score_are_left_out(retriever):
    hits = retriever.search("rain", k=6)
    assert names(retriever.search("rain", k=6, min_score=hits[2].score)) == names(hits[:3])
    assert retriever.search("rain", min_score=1.1) == []
    similar = retriever.similar(hits[0].file, k=6)
    assert names(retriever.similar(hits[0].file, k=6, min_score=similar[1].score)) == names(similar[:2])


@pytest.mark.parametrize("text", ["rain without wind", "no rain", "a dog that doesn't bark", "Not a siren"])
def test_a_negation_in_a_text_is_answered_with_a_hint(retriever, text):
    with pytest.warns(RetrievalWarning, match="name the sound to exclude separately"):
        retriever.search(text)


def test_words_that_only_contain_a_negation_are_no_hint(retriever):
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always", RetrievalWarning)
        retriever.search("a snort of a northern notary", without="no noise")
    assert not any("exclude separately" in str(warning.message) for warning in shown)


def test_words_that_the_tokenizer_does_not_know_are_named(retriever):
    with pytest.warns(RetrievalWarning, match="does not know '\u0e1d\u0e19', '\u96e8'; use other words"):
        retriever.search("rain \u0e1d\u0e19 \u96e8")


def test_a_sound_and_a_text_are_one_weighted_query(retriever, recordings):
    text, sound = retriever.embed_text(["rain"])[0], retriever.search("rain", k=6)
    path = sound[-1].file
    by_file = retriever.search("rain", k=6, like=path, like_weight=0.25)
    query = 0.75 * text + 0.25 * sound[-1].embed
    assert [hit.score for hit in by_file] == pytest.approx(
        sorted((float(hit.embed @ query) / np.linalg.norm(query) for hit in sound[:-1]), reverse=True), abs=1e-4
    )
    assert path not in [hit.file for hit in by_file]
    waveform, _ = soundfile.read(path, dtype="float32")
    tensor = retriever.search("rain", k=6, like=torch.from_numpy(waveform), like_weight=0.25, sampling_rate=RATE)
    assert names([hit for hit in tensor if hit.file != path]) == names(by_file)
    assert names(retriever.search("rain", k=6, like=waveform, like_weight=0, sampling_rate=RATE)) == names(sound)
    with pytest.raises(RetrievalError, match="like_weight: found 2, expected a number from 0 to 1"):
        retriever.search("rain", like=path, like_weight=2)


def test_a_tensor_has_its_channels_first_as_torchaudio_loads_it(retriever, recordings):
    waveform, _ = soundfile.read(recordings / "2.wav", dtype="float32")
    stereo = np.stack([waveform, 0.5 * waveform], axis=1)
    expected = retriever.similar(stereo, k=6, sampling_rate=RATE)
    given = retriever.similar(torch.from_numpy(stereo.T.copy()).requires_grad_(), k=6, sampling_rate=RATE)
    assert [(hit.file, hit.score) for hit in given] == [(hit.file, hit.score) for hit in expected]


def test_hits_become_a_flat_table(retriever):
    hits = retriever.search("rain", k=3)
    table = hits_to_dataframe(hits)
    assert list(table.columns) == list(hits_to_dataframe([]).columns)
    assert table.file.tolist() == [hit.file for hit in hits] and table["rank"].tolist() == [1, 2, 3]
    assert table.score.tolist() == pytest.approx([hit.score for hit in hits], abs=1e-6)


def test_a_closed_retriever_says_so(retriever):
    assert re.fullmatch(r"AudioRetriever\(index='.*index', model='.*'\)", repr(retriever))
    retriever.close()
    assert repr(retriever).endswith("closed)")
    for use in (lambda: retriever.search("rain"), lambda: retriever.index(["."]), lambda: retriever.store):
        with pytest.raises(RetrievalError, match="this retriever was closed"):
            use()


def test_a_filter_restricts_what_a_text_finds(retriever, recordings):
    where = SearchFilter(min_duration=1.5, folders=(str(recordings / "far"),))
    assert sorted(names(retriever.search("rain", where=where))) == ["4.wav", "5.wav"]
    assert sorted(names(retriever.search("rain", where=SearchFilter(max_duration=1.0)))) == ["0.wav", "1.wav"]


# ---------------------------------------------------------------------------------------------------------- without


def test_without_searches_for_the_difference_of_the_two_directions(circle):
    # 50 degrees without 90: (cos 50, sin 50 - 0.8) = (0.643, -0.034), at -3 degrees; so 0, 10, 20 come first
    assert names(circle.search("50", k=1)) == ["50.wav"]
    hits = circle.search("50", k=3, without="90")
    assert names(hits) == ["0.wav", "10.wav", "20.wav"]
    direction = math.atan2(math.sin(math.radians(50)) - 0.8, math.cos(math.radians(50)))
    assert [hit.score for hit in hits] == pytest.approx(
        [math.cos(math.radians(degrees) - direction) for degrees in (0, 10, 20)], abs=1e-5
    )


def test_several_words_to_keep_out_count_as_the_direction_between_them(circle):
    assert circle.search("40", 10, without=["70", "90"]) == circle.search("40", 10, without="80")


def test_what_is_asked_for_cannot_be_unwanted_too(circle):
    with pytest.raises(RetrievalError, match="'50' is both asked for and unwanted"):
        circle.search("50", without=["90", " 50! "])


def test_opposite_words_to_keep_out_do_not_end_in_a_division_by_zero():
    queries = np.array([[1.0, 0.0]], np.float32)
    unwanted = np.array([[0.0, 1.0], [0.0, -1.0]], np.float32)
    assert np.isfinite(without_words(queries, unwanted)).all()
    assert np.isfinite(without_words(queries, queries)).all()


# ------------------------------------------------------------------------------------------------------- recordings


def test_a_recording_finds_all_others_and_not_itself(retriever, recordings, monkeypatch):
    hits = retriever.similar(recordings / "2.wav", k=100)
    assert sorted(names(hits)) == ["0.wav", "1.wav", "3.wav", "4.wav", "5.wav"]
    assert len(retriever.similar(str(recordings / "2.wav"), k=2)) == 2
    monkeypatch.chdir(recordings)
    assert retriever.similar("2.wav", k=100) == hits


def test_a_recording_is_itself_by_any_link_to_it(retriever, recordings, tmp_path):
    (tmp_path / "link.wav").symlink_to(recordings / "2.wav")
    assert "2.wav" not in names(retriever.similar(tmp_path / "link.wav", k=100))
    (tmp_path / "folder").symlink_to(recordings)
    assert "2.wav" not in names(retriever.similar(tmp_path / "folder" / "2.wav", k=100))


def test_a_copy_elsewhere_is_another_recording_and_comes_first(retriever, recordings, tmp_path):
    shutil.copy(recordings / "2.wav", tmp_path / "copy.wav")
    first = retriever.similar(tmp_path / "copy.wav", k=1)[0]
    assert os.path.basename(first.file) == "2.wav"
    assert first.score == pytest.approx(1.0, abs=1e-4)


def test_a_recording_of_the_index_is_not_listened_to_again(tmp_path, retriever, recordings, monkeypatch):
    expected = retriever.similar(recordings / "2.wav")
    monkeypatch.setattr(retriever_module, "load_embedder", lambda *_, **__: pytest.fail("the model was loaded"))
    with AudioRetriever.from_pretrained(index=tmp_path / "index") as again:
        assert again.similar(recordings / "2.wav") == expected


def test_a_recording_that_changed_since_is_listened_to_again(retriever, recordings):
    shutil.copy(recordings / "far" / "5.wav", recordings / "0.wav")
    first = retriever.similar(recordings / "0.wav", k=1)[0]
    assert os.path.basename(first.file) == "5.wav"
    assert first.score == pytest.approx(1.0, abs=1e-4)


def test_a_waveform_finds_what_its_file_finds(retriever, recordings, tmp_path):
    shutil.copy(recordings / "2.wav", tmp_path / "copy.wav")
    waveform, _ = soundfile.read(recordings / "2.wav", dtype="float32")
    by_file = retriever.similar(tmp_path / "copy.wav", k=6)
    for given in (waveform, np.stack([waveform, waveform], axis=1), waveform.astype(np.float64)):
        hits = retriever.similar(given, k=6, sampling_rate=RATE)
        assert names(hits) == names(by_file)
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in by_file], abs=1e-4)


@pytest.mark.parametrize("gain_db", [-30, 12])
def test_the_level_of_a_recording_does_not_change_what_it_finds_nor_its_place(retriever, recordings, gain_db):
    waveform, _ = soundfile.read(recordings / "2.wav", dtype="float32")
    before, texts = retriever.similar(waveform, k=6, sampling_rate=RATE), retriever.search("rain", k=6)
    changed = (10 ** (gain_db / 20) * waveform).astype(np.float32)
    after = retriever.similar(changed, k=6, sampling_rate=RATE)
    assert [hit.score for hit in after] == pytest.approx([hit.score for hit in before], abs=1e-4)
    soundfile.write(recordings / "2.wav", changed, RATE, subtype="FLOAT")
    assert retriever.index([recordings], progress=False).changed == 1
    scores = [hit.score for hit in retriever.search("rain", k=6)]
    assert scores == pytest.approx([hit.score for hit in texts], abs=1e-4)


def test_a_waveform_of_another_sampling_rate_is_resampled(retriever):
    times = np.arange(2 * 48_000) / 48_000
    high = retriever.similar(np.sin(2 * np.pi * 440 * times).astype(np.float32), k=6, sampling_rate=48_000)
    low = retriever.similar(np.sin(2 * np.pi * 440 * times[::3]).astype(np.float32), k=6, sampling_rate=16_000)
    assert [hit.score for hit in high] == pytest.approx([hit.score for hit in low], abs=0.02)


@pytest.mark.parametrize(
    ("audio", "rate", "message"),
    [
        (np.zeros(100, np.float32), None, "expected that in Hz"),
        (np.zeros(100, np.float32), 0, "expected that in Hz"),
        (np.zeros(100, np.int16), RATE, "found a waveform of int16"),
        (np.zeros((2, 2, 2), np.float32), RATE, "found a waveform of float32 of shape"),
        ([0.0] * 100, RATE, "found list, expected a path, or a waveform"),
        ("sound.wav", RATE, "found a path and a sampling rate"),
    ],
)
def test_what_is_no_waveform_with_its_rate_is_refused(retriever, audio, rate, message):
    with pytest.raises(RetrievalError, match=message):
        retriever.similar(audio, sampling_rate=rate)


@pytest.mark.parametrize("waveform", [np.zeros(0, np.float32), np.full(100, np.nan, np.float32)])
def test_an_empty_or_broken_waveform_is_an_error_of_audio(retriever, waveform):
    with pytest.raises(AudioError, match="0 samples|NaN"):
        retriever.similar(waveform, sampling_rate=RATE)


def test_a_path_is_never_taken_for_a_text(retriever):
    with pytest.raises(AudioError, match="a dog bark: found no such file"):
        retriever.similar("a dog bark")


def test_a_long_recording_counts_as_the_mean_of_its_windows(tmp_path, tiny_folder, recordings, noise):
    with AudioRetriever.from_pretrained(tiny_folder[0], tmp_path / "short") as retriever:
        retriever.index(recordings, window=1.0, overlap=0.0, progress=False)
        waveform = noise(RATE * 2, seed=9)
        embeds = retriever.embedder.embed_audio([waveform[:RATE], waveform[RATE:]])
        mean = embeds.sum(axis=0) / np.linalg.norm(embeds.sum(axis=0))
        hit = retriever.similar(waveform, k=1, sampling_rate=RATE)[0]
        assert hit.score == pytest.approx(float(hit.embed @ mean), abs=1e-4)
        assert len(retriever.store) == 1 + 1 + 2 + 2 + 3 + 3  # windows of 0.5 to 3 s


# -------------------------------------------------------------------------------------------------- model and index


def test_the_model_is_loaded_when_needed_and_once_whatever_the_threads(tmp_path, retriever, monkeypatch):
    loaded = []
    load = retriever_module.load_embedder
    monkeypatch.setattr(retriever_module, "load_embedder", lambda *a, **k: loaded.append(a) or load(*a, **k))
    with AudioRetriever.from_pretrained(index=tmp_path / "index") as again:
        assert loaded == []
        found = []
        threads = [threading.Thread(target=lambda: found.append(again.search("rain"))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(loaded) == 1
    assert found == [retriever.search("rain")] * 4


def test_another_model_is_refused_with_the_names_of_both(tmp_path, retriever, tiny_folder, tiny_model, processor):
    other = tmp_path / "other"
    tiny_model(seed=1, text={"vocab_size": len(processor.tokenizer)}).save_pretrained(other)
    processor.save_pretrained(other)
    with AudioRetriever.from_pretrained(other, tmp_path / "index") as stranger:
        with pytest.raises(RetrievalError, match="cannot be compared") as refusal:
            stranger.search("rain")
        assert str(tiny_folder[0]) in str(refusal.value) and str(other) in str(refusal.value)
        with pytest.raises(RetrievalError, match="cannot be compared"):
            stranger.index(tmp_path / "sounds", progress=False)
    assert len(retriever.search("rain")) == 6


def test_a_model_that_was_moved_can_be_named(tmp_path, retriever, tiny_folder):
    expected = retriever.search("rain")
    moved = tiny_folder[0].rename(tmp_path / "moved")
    with (
        AudioRetriever.from_pretrained(index=tmp_path / "index") as lost,
        pytest.raises(RetrievalError, match="If it was moved, say where it is now"),
    ):
        lost.search("rain")
    with AudioRetriever.from_pretrained(moved, tmp_path / "index") as found:
        assert found.search("rain") == expected


def test_a_search_without_an_index_says_how_to_make_one_before_the_model_is_loaded(tmp_path):
    with pytest.raises(RetrievalError, match="cnn10bert index"):
        AudioRetriever.from_pretrained(index=tmp_path / "none")
    with (
        AudioRetriever.from_pretrained("no/model", tmp_path / "none") as retriever,
        pytest.raises(RetrievalError, match="cnn10bert index"),
    ):
        retriever.search("rain")


def test_without_a_location_the_index_goes_with_the_retriever(tiny_folder, recordings):
    with AudioRetriever.from_pretrained(tiny_folder[0]) as retriever:
        report = retriever.index(str(recordings), progress=False)
        assert report.added == 6
        assert len(retriever.search("rain")) == 6
        location = retriever._location
        assert os.path.isdir(location)
    assert not os.path.exists(location)
    with pytest.raises(RetrievalError, match="neither a model nor an index"):
        AudioRetriever.from_pretrained()


def test_an_empty_index_finds_nothing(tmp_path, tiny_folder):
    empty = tmp_path / "empty"
    empty.mkdir()
    with AudioRetriever.from_pretrained(tiny_folder[0], tmp_path / "index") as retriever:
        retriever.index(empty, progress=False)
        assert retriever.search("rain") == []
        assert retriever.search(["rain", "dog"]) == [[], []]


def test_an_index_keeps_its_windows(tmp_path, tiny_folder, recordings, retriever):
    with AudioRetriever.from_pretrained(tiny_folder[0], tmp_path / "index") as again:
        with pytest.raises(
            RetrievalError, match="has windows of 30 s that overlap by 10 s, but window 5 was asked for"
        ):
            again.index(recordings, window=5, progress=False)
        assert again.index(recordings, window=30, overlap=10, progress=False).unchanged == 6


@pytest.mark.parametrize("window", [math.nan, math.inf, 0, -1])
def test_windows_of_no_length_make_no_index(tmp_path, tiny_folder, recordings, window):
    retriever = AudioRetriever.from_pretrained(tiny_folder[0], tmp_path / "new")
    with retriever, pytest.raises(RetrievalError, match="which must have a finite length"):
        retriever.index(recordings, window=window, progress=False)
    assert not (tmp_path / "new").exists()


def test_a_window_longer_than_any_recording_takes_each_as_one(tmp_path, tiny_folder, recordings):
    with AudioRetriever.from_pretrained(tiny_folder[0], tmp_path / "new") as retriever:
        assert retriever.index(recordings, window=1e300, progress=False).added == 6
        assert len(retriever.store) == 6


@pytest.mark.parametrize("year", [1950, 2300])
def test_a_recording_from_another_age_is_indexed_once_and_found(retriever, recordings, year):
    seconds = round((datetime.datetime(year, 1, 1) - datetime.datetime(1970, 1, 1)).total_seconds())
    path = recordings / "0.wav"
    os.utime(path, (seconds, seconds))
    if os.stat(path).st_mtime != seconds:
        pytest.skip("this file system has no such time")
    retriever.index([recordings], progress=False)
    assert retriever.index([recordings], progress=False).unchanged == 6
    assert str(path) in [hit.file for hit in retriever.search("rain")]
    after_2200 = SearchFilter(modified_after=datetime.datetime(2200, 1, 1))
    assert len(retriever.search("rain", where=after_2200)) == (year > 2200)
