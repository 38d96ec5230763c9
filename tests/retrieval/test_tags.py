"""Labels: how they are read, and which fits best."""

import numpy as np
import pytest

from modeling_cnn10bert.errors import InputError
from modeling_cnn10bert.retrieval.records import Tag
from modeling_cnn10bert.retrieval.tags import Tagger, read_labels


class Axes:
    """Embeds the word of a number as that axis of a space."""

    def embed_text(self, texts):
        return np.eye(4, dtype=np.float32)[[int(text) for text in texts]]


def test_labels_are_the_lines_that_are_neither_empty_nor_comments(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("\ufeff# animals\ndog barking\n\n  rooster \n#cat\ndog barking\nC# on a piano\n", encoding="utf-8")
    assert read_labels(path) == ["dog barking", "rooster", "C# on a piano"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found no label"),
        (b"# only\n\n", "found no label"),
        (b"dog\n---\n", "labels.txt:2: found '---'"),
        (b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_a_file_without_usable_labels_is_an_error(tmp_path, content, message):
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_labels(path)


def test_a_missing_file_and_no_labels_are_errors(tmp_path):
    with pytest.raises(InputError, match="none.txt: found .*No such file"):
        read_labels(tmp_path / "none.txt")
    with pytest.raises(InputError, match="found no label"):
        Tagger(Axes(), [])


def test_a_label_counts_at_the_window_that_it_fits_best():
    embeds = np.array([[0.6, 0.8, 0, 0], [0, 0, 1, 0]], np.float32)
    tagger = Tagger(Axes(), ["0", "1", "2", "3"])
    best = tagger.best(embeds, 3)
    assert [tag.label for tag in best] == ["2", "1", "0"]
    assert [tag.score for tag in best] == pytest.approx([1.0, 0.8, 0.6])
    assert tagger.best(embeds[:1]) == [Tag("1", pytest.approx(0.8))]


def test_a_score_does_not_depend_on_the_other_labels():
    embeds = np.array([[0.6, 0.8, 0, 0]], np.float32)
    assert Tagger(Axes(), ["0"]).best(embeds)[0].score == pytest.approx(0.6)
    assert len(Tagger(Axes(), ["0", "1"]).best(embeds, 10)) == 2
