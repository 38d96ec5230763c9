"""Questions that are answered, and those that get one clear line."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile

from modeling_cnn10bert.page import answers as module
from modeling_cnn10bert.page.answers import Answers, QuestionError
from modeling_cnn10bert.page.clip_cache import ClipCache
from modeling_cnn10bert.page.layout import answer_html
from modeling_cnn10bert.page.pictures import feature_extractor
from modeling_cnn10bert.page.sound_library import open_folder


@pytest.fixture(scope="module")
def clip_cache(library):
    clip_cache = ClipCache(feature_extractor(library.retriever.store.info.model.features))
    yield clip_cache
    clip_cache.close()


@pytest.fixture(scope="module")
def answers(library, clip_cache):
    return Answers(library, clip_cache)


def test_an_answer_is_what_the_retriever_finds_with_the_captions_of_the_folder(answers, library):
    answer = answers.by_text("a dog barks")
    hits = library.retriever.search("a dog barks", 10)
    assert [found.score for found in answer.found] == [hit.score for hit in hits]
    assert [found.name for found in answer.found] == [hit.file.rsplit("/", 1)[1] for hit in hits]
    captions = {found.name: found.captions for found in answer.found}
    assert captions["dog.flac" if "dog.flac" in captions else answer.found[0].name]
    assert all(len(found.captions) == 1 for found in answer.found) and not any(
        "beginning" in note for note in answer.notes
    )


def test_words_to_keep_out_change_the_answer(answers, library):
    answer = answers.by_text("a dog barks", "rain")
    hits = library.retriever.search("a dog barks", 10, without="rain")
    assert [found.score for found in answer.found] == [hit.score for hit in hits]
    assert answer.question == "a dog barks without rain"


@pytest.mark.parametrize("text", ["", "   ", "?!", "\ud800", "\n"])
def test_a_question_without_a_word_is_refused(answers, text):
    with pytest.raises(QuestionError, match="Say in words what is to be heard"):
        answers.by_text(text)


def test_the_same_words_asked_for_and_unwanted_are_refused(answers):
    with pytest.raises(QuestionError, match="both asked for and unwanted"):
        answers.by_text("a dog", "A dog!")


def test_a_question_of_many_words_is_answered_with_a_note(answers):
    answer = answers.by_text("rain " * 5000)
    assert len(answer.found) == 10 and len(answer.question) <= 80
    assert answer.notes == ["Of these 5,000 words, only the beginning counts: the model reads no more."]


def test_a_recording_finds_itself_and_its_captions_are_ranked_by_the_cosine(answers, library, sounds):
    answer = answers.by_recording(str(sounds / "rain.flac" if (sounds / "rain.flac").exists() else sounds / "dog.flac"))
    assert answer.found[0].name == answer.recording.name and answer.found[0].score == pytest.approx(1, abs=1e-5)
    scores = [tag.score for tag in answer.fitting]
    assert len(scores) == 5 and scores == sorted(scores, reverse=True)
    embeds = library.retriever.embed_text([answer.fitting[0].label])
    recording = next(iter(library.retriever.store.embedded([str(sounds / answer.recording.name)])))
    assert scores[0] == pytest.approx(float(embeds[0] @ recording.embeds[0]), abs=1e-5)


@pytest.mark.parametrize(
    ("samples", "line"),
    [
        (np.zeros(0), "x.wav cannot be used: found 0 samples, expected a recording."),
        (
            np.full(800, np.nan),
            "x.wav cannot be used: found 800 of 800 samples NaN or infinite, expected finite numbers.",
        ),
        (
            np.full(800, 1e25),
            "x.wav cannot be used: found samples up to 1e+25, expected about -1 to 1 and none beyond 100.",
        ),
    ],
)
def test_a_damaged_recording_is_refused_without_its_path_here(answers, tmp_path, samples, line):
    soundfile.write(tmp_path / "x.wav", samples, 8000, subtype="FLOAT")
    with pytest.raises(QuestionError) as error:
        answers.by_recording(str(tmp_path / "x.wav"))
    assert str(error.value) == line


def test_a_recording_that_is_cut_off_is_answered_with_a_note(answers, sounds, tmp_path):
    samples, rate = soundfile.read(sounds / "dog.flac")
    soundfile.write(tmp_path / "cut.wav", samples, rate)
    whole = (tmp_path / "cut.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    answer = answers.by_recording(str(tmp_path / "cut.wav"))
    (note,) = answer.notes
    assert note.startswith("Of cut.wav: ") and "s of sound were read, as the file is cut off" in note
    assert len(answer.found) == 10


def test_whatever_a_decoder_raises_is_one_line(answers, tmp_path, monkeypatch):
    soundfile.write(tmp_path / "x.wav", np.zeros(800), 8000)

    def fail(*arguments, **options):
        raise ZeroDivisionError("a decoder that was not made for this")

    monkeypatch.setattr(module, "read_windows", fail)
    with pytest.raises(QuestionError, match=r"^x\.wav cannot be used: it makes the program that reads it fail\.$"):
        answers.by_recording(str(tmp_path / "x.wav"))


def test_a_recording_beyond_the_limit_of_bytes_is_refused_unread(library, clip_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_UPLOAD_BYTES", 3 << 20)
    answers = Answers(library, clip_cache, shared=True)
    with (tmp_path / "large.wav").open("wb") as file:
        file.truncate((5 << 20) + 1)
    with pytest.raises(QuestionError, match=r"large.wav has 5 MB; the limit is 3 MB\."):
        answers.by_recording(str(tmp_path / "large.wav"))
    with pytest.raises(QuestionError, match="does not decode"):  # on one's own machine, there is no limit of bytes
        Answers(library, clip_cache, shared=False).by_recording(str(tmp_path / "large.wav"))


def test_a_folder_is_shown_as_its_path_but_to_others_only_within_the_collection(library, clip_cache, sounds):
    own, shared = (Answers(library, clip_cache, shared).by_text("rain") for shared in (False, True))
    assert {found.folder for found in own.found} == {str(sounds)}
    assert {found.folder for found in shared.found} == {""}
    assert f'<p class="place folder">{sounds}</p>' in answer_html(own, [])
    assert str(sounds) not in answer_html(shared, [])
    assert Answers(library, clip_cache).folder_name(str(sounds / "birds" / "owls")) == "birds/owls"


def test_a_small_file_of_too_many_samples_is_refused_before_it_is_decoded(answers, tmp_path, monkeypatch):
    def decode(*arguments, **options):
        raise AssertionError("it was decoded")

    with soundfile.SoundFile(tmp_path / "silence.flac", "w", 655_350, 8) as file:
        for _ in range(22):  # 22 s of 5.2 million values each, the limit being 115.2 million
            file.write(np.zeros((655_350, 8), np.float32))
    assert (tmp_path / "silence.flac").stat().st_size < 1_000_000
    monkeypatch.setattr(module, "read_windows", decode)
    with pytest.raises(QuestionError, match=r"^silence.flac has 8 channels of 655,350 samples a second, too many"):
        answers.by_recording(str(tmp_path / "silence.flac"))


def test_a_file_that_moved_after_it_was_indexed_is_shown_as_gone(sounds, model_folder, tmp_path, clip_cache):
    copy = shutil.copytree(sounds, tmp_path / "sounds")
    moving = open_folder(copy, str(model_folder))
    (copy / "dog.flac").unlink()
    answers = Answers(moving, clip_cache)
    answer = answers.by_recording(str(sounds / "dog.flac"))
    gone = [found for found in answer.found if found.name == "dog.flac"]
    assert [found.key for found in gone] == [None]
    assert all(found.key for found in answer.found if found.name != "dog.flac")
    assert answer_html(answer, []).count("This file is gone") == 1
    moving.retriever.close()


def test_twenty_questions_at_once_have_the_answers_of_one_after_the_other(answers, sounds):
    texts = [f"sound number {number}" for number in range(20)]
    alone = [answers.by_text(text) for text in texts]
    with ThreadPoolExecutor(20) as pool:
        upload = pool.submit(answers.by_recording, str(sounds / "siren.flac"))
        together = list(pool.map(answers.by_text, texts))
    assert together == alone
    assert upload.result().found[0].name == "siren.flac"


def test_a_filter_restricts_an_answer_and_a_wrong_one_is_one_clear_line(answers):
    assert answers.by_text("rain", where=answers.filter(longest=4.9)).found == []
    assert (
        len(answers.by_text("rain", where=answers.filter(shortest=4.9, format="flac", after="2020-01-01")).found) == 10
    )
    assert answers.by_text("rain", where=answers.filter(before="2020-01-01")).found == []
    for fields, line in [
        ({"folder": "/etc"}, "The collection has no folder /etc."),
        ({"after": "July"}, "“July” is not a date; write it as 2024-07-01."),
        ({"shortest": 5, "longest": 2}, "The shortest duration, 5 s, is above the longest, 2 s."),
        ({"after": "2024-07-02", "before": "2024-07-01"}, "No day is on or after 2024-07-02 and before 2024-07-01."),
    ]:
        with pytest.raises(QuestionError) as error:
            answers.filter(**fields)
        assert str(error.value) == line


def test_more_results_follow_the_first_ten(answers):
    ten, all_twelve = answers.by_text("rain"), answers.by_text("rain", count=20)
    assert ten.more and not all_twelve.more and len(all_twelve.found) == 12
    assert all_twelve.found[:10] == ten.found


def test_similar_to_a_result_leaves_that_result_out(answers):
    first = answers.by_text("rain").found[0]
    similar = answers.similar_to(first.key, count=12)
    assert len(similar.found) == 11 and first.name not in {found.name for found in similar.found}
    with pytest.raises(QuestionError, match="old answer"):
        answers.similar_to("0" * 32)


def test_a_recording_and_a_text_together_go_from_one_to_the_other_by_the_weight(answers, sounds):
    siren = str(sounds / "siren.flac")
    names = {
        weight: [found.name for found in answers.by_text("rain", like=siren, like_weight=weight).found]
        for weight in (0, 1)
    }
    assert names[0] == [found.name for found in answers.by_text("rain").found]
    assert names[1] == [found.name for found in answers.by_recording(siren).found]
    assert answers.by_text("rain", like=siren, like_weight=0.25).question == "rain and siren.flac (25% of the weight)"


def test_a_negation_and_an_unknown_word_are_notes(answers):
    notes = answers.by_text("no rain \u96e8").notes
    assert any("'no'" in note and "exclude separately" in note for note in notes)
    assert any("The model does not know '\u96e8'" in note for note in notes)


def test_the_playlist_of_favorites_has_their_paths_but_for_others_only_within_the_collection(
    library, clip_cache, sounds
):
    own = Answers(library, clip_cache, shared=False)
    keys = [found.key for found in own.by_text("rain").found[:2]]
    names = [found.name for found in own.by_text("rain").found[:2]]
    lines = own.playlist([*keys, "0" * 32]).decode().splitlines()
    assert lines[0] == "#EXTM3U" and lines[2::2] == [str(sounds / name) for name in names]
    assert Answers(library, clip_cache, shared=True).playlist(keys).decode().splitlines()[2::2] == names
