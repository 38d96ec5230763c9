"""A folder or an index becomes what the page searches."""

import os
import shutil

import pytest

from modeling_cnn10bert.errors import RetrievalError
from modeling_cnn10bert.page.sound_library import folder_index, open_folder, open_index


@pytest.fixture
def no_audio_embedded(monkeypatch):
    """Has embedding a recording fail the test; warming up is another matter."""
    from modeling_cnn10bert.retrieval import indexing

    def refuse(*_):
        raise AssertionError("a recording was embedded again")

    monkeypatch.setattr(indexing.File, "embedded", refuse)


def test_a_folder_that_was_opened_before_is_not_embedded_again(library, sounds, model_folder, no_audio_embedded):
    again = open_folder(sounds, str(model_folder))
    assert again.size == library.size == 12
    again.retriever.close()


def test_a_folder_that_moved_with_its_index_is_not_embedded_again(
    library, sounds, model_folder, tmp_path, no_audio_embedded
):
    moved = shutil.copytree(sounds, tmp_path / "sounds")
    index = folder_index(sounds, library.retriever.embedder)
    shutil.copytree(index, tmp_path / index.name)
    opened = open_folder(moved, str(model_folder))
    assert {os.path.dirname(path) for path in opened.retriever.store.files()} == {str(moved)}
    assert opened.size == 12
    assert opened.captions.of(str(moved / "dog.flac")) == library.captions.of(str(sounds / "dog.flac")) != ()
    opened.retriever.close()


def test_an_index_is_opened_with_the_model_that_made_it(library, sounds):
    opened = open_index(str(folder_index(sounds, library.retriever.embedder)), captions=sounds / "metadata.csv")
    assert opened.size == 12 and len(opened.captions.texts) == 12
    opened.retriever.close()


def test_a_folder_without_recordings_and_one_that_is_not_there_are_clear_errors(model_folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RetrievalError, match="found no recording"):
        open_folder(tmp_path / "empty", str(model_folder))
    assert os.listdir(tmp_path) == ["empty"]  # and no index
    with pytest.raises(RetrievalError, match="found no such folder"):
        open_folder(tmp_path / "nowhere", str(model_folder))
