"""Captions of a collection from the files that people have."""

import json

import pytest

from modeling_cnn10bert.errors import InputError
from modeling_cnn10bert.page.captions import find_captions, read_captions


def test_the_metadata_of_a_folder_tells_the_captions_of_its_recordings(tmp_path):
    (tmp_path / "metadata.csv").write_text('file_name,caption\na/1.wav,A dog.\na/1.wav,"Rain, far."\n2.wav,A dog.\n')
    captions = find_captions(tmp_path)
    assert captions.of(str(tmp_path / "a" / "1.wav")) == ["A dog.", "Rain, far."]
    assert captions.texts == ["A dog.", "Rain, far."]  # each once
    assert captions.source == "the 2 captions of this collection"


def test_clothos_five_columns_and_lists_in_json_lines_are_captions(tmp_path):
    (tmp_path / "clotho.csv").write_text("file_name,caption_1,caption_2\nx.wav,one,two\n")
    rows = [{"file_name": "x.wav", "captions": ["one", "two"]}, {"file_name": "y.wav", "caption": '["three"]'}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_captions(tmp_path / "clotho.csv").of("/elsewhere/x.wav") == ["one", "two"]
    assert read_captions(tmp_path / "rows.jsonl").texts == ["one", "two", "three"]


def test_a_text_file_has_a_caption_a_line(tmp_path):
    (tmp_path / "labels.txt").write_text("a dog\n# a comment\nrain\n")
    captions = read_captions(tmp_path / "labels.txt")
    assert captions.texts == ["a dog", "rain"] and list(captions.of("/x.wav")) == []


def test_a_folder_without_metadata_gets_the_built_in_list(tmp_path):
    captions = find_captions(tmp_path)
    assert "a dog barks" in captions.texts and len(set(captions.texts)) == len(captions.texts)
    assert captions.source == f"a built-in list of {len(captions.texts)} everyday sounds"


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.csv", "caption\nA dog.\n", "found the columns caption, expected file_name too"),
        ("b.csv", "file_name,text\nx.wav,A dog.\n", "found no column captions or caption"),
        ("c.jsonl", "[1]\n", "expected one JSON object"),
        ("d.jsonl", "{\n", "expected one JSON object"),
    ],
)
def test_a_file_that_holds_no_captions_is_one_clear_error(tmp_path, name, content, what):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=what) as error:
        read_captions(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name))


def test_a_caption_with_a_comma_but_no_quotes_is_an_error_and_not_half_a_caption(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,caption\na.wav,A dog barks, then silence.\n")
    with pytest.raises(InputError, match=r"metadata\.csv:2: found 3 cells .*, expected 2"):
        find_captions(tmp_path)


def test_captions_of_one_recording_under_several_names_are_joined(tmp_path):
    (tmp_path / "a.wav").touch()
    (tmp_path / "metadata.csv").write_text(f"file_name,caption\na.wav,one\n./a.wav,two\n{tmp_path / 'a.wav'},three\n")
    assert find_captions(tmp_path).of(str(tmp_path / "a.wav")) == ["one", "two", "three"]


def test_a_name_that_two_recordings_share_tells_no_captions_elsewhere(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,caption\na/1.wav,one\nb/1.wav,two\nb/2.wav,three\n")
    captions = find_captions(tmp_path)
    assert captions.of("/elsewhere/1.wav") == () and captions.of("/elsewhere/2.wav") == ["three"]
