"""A file has one vector, however and whenever it is indexed."""

import shutil

import numpy as np
import soundfile

from modeling_cnn10bert.retrieval import AudioRetriever


def _embeds(retriever, path):
    (file,) = retriever.store.embedded([str(path)])
    return file.embeds


def test_a_file_indexed_ten_times_has_one_vector(tiny_folder, tmp_path, noise):
    folder = tmp_path / "sounds"
    folder.mkdir()
    path = folder / "this one.wav"
    soundfile.write(path, noise(70_003), 32_000)
    others = {}
    for number in range(9):  # of other lengths, so that it is padded otherwise each time
        others[number] = tmp_path / f"{number}.wav"
        soundfile.write(others[number], noise(20_000 + 17_001 * number), 32_000)

    found = []
    for number in range(10):
        cold = tmp_path / f"index {number}"
        with AudioRetriever.from_pretrained(tiny_folder[0], index=cold) as retriever:
            retriever.index(folder, progress=False)  # alone at first, then among more and more others
            found.append(_embeds(retriever, path))
            path.touch()  # read again, and embedded no more
            retriever.index(folder, progress=False)
            found.append(_embeds(retriever, path))
            retriever.store.remove([str(path)])  # on an index that holds the others already
            retriever.index(folder, progress=False)
            found.append(_embeds(retriever, path))
        if number in others:
            shutil.copy(others[number], folder)
    for embeds in found:
        np.testing.assert_allclose(embeds, found[0], atol=1e-5, rtol=0)
    assert np.abs(found[0]).max() > 0.01
