"""Tables as people save them: separators, encodings and lists are recognized, all else is refused by its line."""

import json
import os

import pytest

from modeling_cnn10bert.data.tables import captions_of, has_word, read_rows, read_text
from modeling_cnn10bert.errors import DataError
from modeling_cnn10bert.processing_cnn10bert import caption_words

ROWS = [{"file_name": "dog.wav", "caption": "A dog barks, then silence."}, {"file_name": "é.wav", "caption": "Rain;"}]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_separators_encodings_and_line_ends_are_recognized(separator, encoding, line_end, tmp_path):
    lines = [separator.join(["file_name", "caption"])]
    lines += [separator.join([row["file_name"], f'"{row["caption"]}"']) for row in ROWS]
    path = tmp_path / "table.csv"
    path.write_bytes(line_end.join([*lines, ""]).encode(encoding))
    assert [row for _, row in read_rows(path, ["file_name"])] == ROWS


def test_a_semicolon_table_keeps_the_commas_of_its_captions(tmp_path):
    (tmp_path / "table.csv").write_text("file_name;caption\ndog.wav;A dog barks, then silence.\n")
    assert next(read_rows(tmp_path / "table.csv", ["file_name"]))[1]["caption"] == "A dog barks, then silence."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file_name,caption\na.wav,A dog.\ndog.wav,A dog barks, then silence.\n", r":3: found 3 cells .*, expected 2"),
        (
            b"file_name,caption,author\na.wav,A dog.\n",
            r":2: found 2 cells .*, expected 3 \(file_name, caption, author\)",
        ),
        (b"file_name;caption\na.wav,A dog.\n", r":2: found 1 cells .*; the cells are separated by semicolons"),
        (b'file_name,caption\na.wav,"A dog.\nb.wav,Rain.\n', r":2: found a faulty cell"),
        (
            b'file_name,caption\na.wav,"A dog.\nb.wav,Rain"\n',
            r":2: found a cell that holds a whole line more \('b\.wav",
        ),
        (b'file_name,caption\na.wav,A dog.\nb.wav,"Rain" falls\n', r":3: found a faulty cell"),
        ("file_name,caption\na.wav,A dog.\nb.wav,Un café.\n".encode("cp1252"), r":3: found the byte 0xe9, .*not UTF-8"),
        (b"file_name,caption,caption\na.wav,A dog.,Rain.\n", "found the column 'caption' twice"),
        (b"name|caption\na.wav|A dog.\n", r"found the columns name\|caption, expected file_name too"),
        (b"", "found the columns none, expected file_name too"),
    ],
)
def test_what_is_not_recognized_is_refused_by_its_line(content, message, tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        list(read_rows(path, ["file_name"]))
    assert str(error.value).startswith(str(path))


def test_blank_lines_spaces_in_the_header_and_line_breaks_in_a_cell_are_no_faults(tmp_path):
    (tmp_path / "table.csv").write_text('file_name , caption\n\na.wav,"A dog,\nwhich barks"\n , \nb.wav,Rain\n')
    assert list(read_rows(tmp_path / "table.csv", ["file_name"])) == [
        (3, {"file_name": "a.wav", "caption": "A dog,\nwhich barks"}),
        (6, {"file_name": "b.wav", "caption": "Rain"}),
    ]


def test_faulty_lines_can_be_collected_instead(tmp_path):
    (tmp_path / "table.csv").write_text("file_name,caption\na.wav,one,two\nb.wav,Rain\n")
    faults = []
    assert [row["file_name"] for _, row in read_rows(tmp_path / "table.csv", faults=faults)] == ["b.wav"]
    assert len(faults) == 1 and faults[0].startswith("table.csv:2: found 3 cells")


def test_json_lines_may_hold_line_separators_and_are_refused_by_their_line(tmp_path):
    path = tmp_path / "table.jsonl"
    path.write_text(json.dumps({"file_name": "a.wav", "caption": "one\u2028two"}, ensure_ascii=False) + "\n\n[1]\n")
    rows = read_rows(path)
    assert next(rows) == (1, {"file_name": "a.wav", "caption": "one\u2028two"})
    with pytest.raises(DataError, match=r"table\.jsonl:3: found '\[1\]', expected one JSON object"):
        next(rows)


@pytest.mark.parametrize("field", ["file_name", "caption", "\udcff"])
def test_half_of_a_surrogate_pair_is_refused_by_its_line(field, tmp_path):
    whole = {"file_name": "a.wav", "caption": "a \N{DOG} barks"}
    lines = [json.dumps(whole), json.dumps({**whole, field: "\ud800 dog"})]
    (tmp_path / "table.jsonl").write_text("\n".join(lines))
    rows = read_rows(tmp_path / "table.jsonl")
    assert next(rows) == (1, whole)
    with pytest.raises(DataError, match=r"table\.jsonl:2: found '{.*, expected one JSON object"):
        next(rows)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_not_opened(kind, tmp_path):
    path = tmp_path / "table.csv"
    {"pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": os.mkdir}[kind](path)
    with pytest.raises(DataError, match=r"table\.csv: found no file but a folder, a pipe or a device"):
        read_text(path)


def test_an_empty_file_has_no_rows(tmp_path):
    (tmp_path / "table.csv").touch()
    assert list(read_rows(tmp_path / "table.csv")) == []


def test_a_header_is_shown_on_one_line_without_control_characters(tmp_path):
    (tmp_path / "table.csv").write_text('"a\nb",\x1b[2J' + ",c" * 5000 + "\n")
    with pytest.raises(DataError) as error:
        list(read_rows(tmp_path / "table.csv", ["file_name"]))
    assert str(error.value).isprintable() and len(str(error.value)) < 1000


@pytest.mark.parametrize(
    "cell",
    [
        '["a dog\'s bark", "rain"]',
        """["a dog's bark", 'rain']""",
        """("a dog's bark", 'rain')""",
        """["a dog's bark" 'rain']""",  # NumPy's arrays
        """["a dog's bark"\n 'rain']""",
        """array(["a dog's bark", 'rain'], dtype=object)""",
        ["a dog's bark", None, "rain"],
    ],
)
def test_a_list_of_captions_is_read_in_any_spelling(cell):
    assert captions_of([cell], "table:2") == ["a dog's bark", "rain"]


@pytest.mark.parametrize(
    "text", ["[music]", "[inaudible] a man speaks", "(a dog barks, then rain)", " a dog ", "'rain'"]
)
def test_a_caption_that_is_no_list_stays_as_it_is(text):
    assert captions_of([text], "table:2") == [text]


@pytest.mark.parametrize(
    "cell", ["[a dog barks, rain falls]", "['it's raining']", '["a dog" "rain]', "[1, 2]", {"en": 1}]
)
def test_a_list_that_cannot_be_read_is_refused(cell):
    with pytest.raises(DataError, match="table:2: captions: found"):
        captions_of([cell], "table:2")


@pytest.mark.parametrize("text", ["-", "...", "“ ”", "ʼ", "", " \u200b", "雨", "café", "3", "a"])
def test_a_caption_has_a_word_where_the_tokenizer_sees_one(text):
    assert has_word(text) == bool(caption_words(text))
