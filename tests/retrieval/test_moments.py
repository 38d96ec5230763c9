"""Moments: where in its recordings a text is found, and what is kept between two searches."""

import os

import numpy as np
import pytest
import soundfile

from modeling_cnn10bert.errors import RetrievalError
from modeling_cnn10bert.retrieval import AudioRetriever, SearchFilter, moments
from modeling_cnn10bert.retrieval.embedding import load_embedder
from modeling_cnn10bert.retrieval.everyday_sounds import EVERYDAY_SOUNDS
from modeling_cnn10bert.retrieval.moments import MomentsWarning, embed_frames, find_passages

RATE = 32_000


@pytest.fixture
def retriever(tmp_path, tiny_folder, sounds, noise):
    """An index of two recordings of 9 s, silent but for noise in the middle."""
    for number in range(2):
        waveform = np.zeros(9 * RATE, np.float32)
        waveform[3 * RATE : 6 * RATE] = noise(3 * RATE, seed=number)
        soundfile.write(sounds / f"{number}.wav", waveform, RATE)
    with AudioRetriever.from_pretrained(tiny_folder[0], tmp_path / "index") as retriever:
        retriever.index([sounds], progress=False)
        yield retriever


# ------------------------------------------------------------------------------------------------------- the passages


def test_a_passage_begins_and_ends_where_the_scores_cross_the_threshold():
    [passage] = find_passages(np.array([0, 0, 0, 1, 1, 1, 0, 0, 0, 0], np.float32), 1.0, 10.0)
    # A fifth of the way from the center of the frame before, at 2.5 s, and back to that of the frame after, at 6.5 s.
    assert (passage.start, passage.end) == (pytest.approx(2.7), pytest.approx(6.3))
    assert passage.best == 3


def test_the_times_scale_with_the_length_of_a_frame():
    scores = np.array([0, 0, 0, 1, 1, 1, 0, 0, 0, 0], np.float32)
    [passage] = find_passages(scores, 3.0, 30.0)
    assert (passage.start, passage.end) == (pytest.approx(8.1), pytest.approx(18.9))


def test_a_passage_reaches_the_ends_of_the_recording():
    first, second = sorted(find_passages(np.array([1, 0, 0, 0, 0, 0, 2], np.float32), 1.0, 7.4), key=lambda p: p.start)
    assert first.start == 0.0 and second.end == 7.4


def test_the_largest_passage_is_first_and_a_short_gap_is_bridged():
    scores = np.zeros(40, np.float32)
    scores[[5, 6, 8, 9]] = 1.0  # with a gap of one frame
    scores[30] = 1.0
    found = find_passages(scores, 1.0, 40.0)
    assert [(round(passage.start), round(passage.end)) for passage in found] == [(5, 10), (30, 31)]


def test_equal_scores_are_one_passage_over_the_whole_recording():
    [passage] = find_passages(np.full(5, 0.3, np.float32), 1.0, 5.2)
    assert (passage.start, passage.end) == (0.0, 5.2)


# ----------------------------------------------------------------------------------------------------------- the frames


@pytest.mark.parametrize("context", [1, 7])
def test_frames_do_not_depend_on_the_chunks_of_a_long_recording(tiny_folder, sounds, noise, monkeypatch, context):
    embedder = load_embedder(tiny_folder[0], device="cpu")
    waveform = noise(17 * RATE + 777) * np.linspace(0.01, 1, 17 * RATE + 777, dtype=np.float32)
    soundfile.write(sounds / "long.wav", waveform, RATE, subtype="FLOAT")
    monkeypatch.setattr(moments, "CHUNK_SECONDS", 5.0)
    frames, duration = embed_frames(sounds / "long.wav", embedder, context)
    assert duration == pytest.approx(17 + 777 / RATE)
    np.testing.assert_allclose(frames, embedder.embed_frames(waveform, context), atol=1e-6)


def test_a_frame_that_sees_all_of_a_recording_has_its_embedding(tiny_folder, noise):
    embedder, waveform = load_embedder(tiny_folder[0], device="cpu"), noise(3 * RATE)
    frames = embedder.embed_frames(waveform, 101)
    np.testing.assert_allclose(frames, np.repeat(embedder.embed_audio([waveform]), len(frames), axis=0), atol=1e-6)


# ----------------------------------------------------------------------------------------------------------- searching


def test_moments_are_sorted_over_all_recordings_and_lie_within_them(retriever, sounds):
    found = retriever.moments("a dog bark", k=100)
    assert {os.path.basename(moment.file) for moment in found} == {"0.wav", "1.wav"}
    assert [moment.z_score for moment in found] == sorted((moment.z_score for moment in found), reverse=True)
    everyday = retriever.embed_text(list(EVERYDAY_SOUNDS)) @ found[0].embed
    assert found[0].z_score == pytest.approx((found[0].score - everyday.mean()) / everyday.std(), abs=1e-3)
    assert all(0 <= moment.start < moment.end <= 9 for moment in found)
    assert retriever.moments("a dog bark", k=1) == found[:1]


def test_a_moment_has_the_score_of_its_embedding(retriever):
    [moment] = retriever.moments("a dog bark", k=1, without="rain")
    [plain] = retriever.moments("a dog bark", k=1)
    query = retriever.embed_text(["a dog bark"])[0]
    assert plain.score == pytest.approx(float(plain.embed @ query), abs=1e-5)
    assert moment.score != plain.score


def test_the_second_search_reads_no_recording(retriever, sounds):
    found = retriever.moments("a dog bark")
    for path in sounds.iterdir():
        path.unlink()
    assert retriever.moments("a dog bark") == found


def test_a_damaged_cache_is_made_again(retriever, tmp_path):
    found = retriever.moments("a dog bark")
    for path in (tmp_path / "index.frames").rglob("*.npy"):
        path.write_bytes(b"")
    assert retriever.moments("a dog bark") == found


def test_a_recording_that_changed_or_is_gone_is_left_out_with_a_warning(retriever, sounds):
    (sounds / "0.wav").write_bytes(b"another")
    (sounds / "1.wav").unlink()
    with pytest.warns(MomentsWarning, match="2 recordings were left out"):
        assert retriever.moments("a dog bark") == []


def test_a_filter_restricts_where_moments_are_looked_for(retriever):
    assert retriever.moments("a dog bark", where=SearchFilter(min_duration=10)) == []


def test_a_model_without_frames_is_refused_in_one_line(retriever, monkeypatch):
    embedder = retriever.embedder
    monkeypatch.setattr(embedder, "model", object())
    with pytest.raises(RetrievalError, match="embeds whole recordings only"):
        embedder.frame_samples  # noqa: B018
