"""Listings of hits: whatever a file is called, it can be printed, parsed and played."""

import csv
import io
import json
import math
import os
import time
import urllib.parse

import numpy as np
import pytest

from modeling_cnn10bert.retrieval.listing import clock, hits_table, listing, printable, to_json
from modeling_cnn10bert.retrieval.records import FileRecord, Hit, Tag

NOT_UTF8 = os.fsdecode(b"/sounds/caf\xe9.wav")
NAMES = [
    "/sounds/[bold]rain[/bold].wav",
    "/sounds/\x1b[31mred.wav",
    NOT_UTF8,
    '/sounds/a "b", c;d.wav',
    "/s/雨 :dog:.wav",
]


def hit(path="/sounds/a.wav", score=0.5, start=0.0, end=4.6, duration=4.6, modified_ns=1_700_000_000 * 10**9):
    return Hit(FileRecord(path, "hash", 1000, modified_ns, duration), score, start, end, np.zeros(2))


def test_json_has_every_field_and_gives_back_any_name():
    hits = [hit(name, 0.123456789, 20.0, 30.0, 35.25) for name in NAMES]
    content = listing(hits, "json")
    rows = json.loads(content.decode("utf-8"))
    assert [row["file"] for row in rows] == NAMES
    assert os.fsencode(rows[2]["file"]) == b"/sounds/caf\xe9.wav"
    assert {name: rows[0][name] for name in ("rank", "score", "start", "end", "duration", "size")} == {
        "rank": 1,
        "score": 0.123457,
        "start": 20.0,
        "end": 30.0,
        "duration": 35.25,
        "size": 1000,
    }
    assert "雨".encode() in content  # readable as it is


def test_csv_gives_back_names_and_escapes_what_is_no_utf8():
    rows = list(csv.DictReader(io.StringIO(listing([hit(name) for name in NAMES], "csv").decode("utf-8"))))
    assert [row["file"] for row in rows] == [*NAMES[:2], "/sounds/caf\\udce9.wav", *NAMES[3:]]
    assert list(rows[0]) == ["rank", "score", "z_score", "file", "duration", "size", "modified", "start", "end"]


def test_json_and_csv_have_the_same_fields_and_values():
    hits, tags = [hit(score=0.25, start=1.5)], [[Tag("dog", 0.7)]]
    (row,) = json.loads(listing(hits, "json", tags))
    (line,) = csv.DictReader(io.StringIO(listing(hits, "csv", tags).decode()))
    assert line.keys() == row.keys()
    assert line.pop("tags") == "dog" and row.pop("tags") == [{"label": "dog", "score": 0.7}]
    assert line == {name: "" if value is None else str(value) for name, value in row.items()}


def test_tags_are_a_column_more():
    tags = [[Tag("dog", 0.7), Tag("rain", 0.25)]]
    assert json.loads(listing([hit()], "json", tags))[0]["tags"] == [
        {"label": "dog", "score": 0.7},
        {"label": "rain", "score": 0.25},
    ]
    assert list(csv.DictReader(io.StringIO(listing([hit()], "csv", tags).decode())))[0]["tags"] == "dog; rain"
    assert "dog 0.70, rain 0.25" in listing([hit()], "table", tags).decode()


def test_a_table_shows_names_as_they_are_but_no_control_character():
    text = listing([hit(name) for name in NAMES], "table").decode("utf-8")
    assert "/sounds/[bold]rain[/bold].wav" in text
    assert "/sounds/\\x1b[31mred.wav" in text and "\x1b" not in text
    assert "/sounds/caf\\xe9.wav" in text
    assert "/s/雨 :dog:.wav" in text
    assert len(text.splitlines()) == 1 + len(NAMES)


def test_a_long_name_is_neither_cut_nor_broken_where_nobody_looks_at_it():
    path = "/sounds/" + "very long " * 30 + ".wav"
    table = listing([hit(path)], "table").decode()
    assert table.splitlines()[0] == "in /sounds:" and path.removeprefix("/sounds/") in table


def test_a_table_names_the_shared_folder_once_and_paths_relative_to_it():
    paths = ["/home/me/sounds/farm/dog.wav", "/home/me/sounds/rain.wav"]
    lines = listing([hit(path) for path in paths], "table").decode().splitlines()
    assert lines[0] == "in /home/me/sounds:"
    assert lines[1].split() == ["score", "file", "from", "to", "of"]
    assert [line.split()[2] for line in lines[2:]] == ["farm/dog.wav", "rain.wav"]
    for form in ("json", "csv", "m3u"):
        assert all(path in listing([hit(path) for path in paths], form).decode() for path in paths)


def test_rows_of_deep_folders_fit_a_terminal_of_80_columns():
    from rich.console import Console

    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(hits_table([hit(f"/home/me/{'deep/' * 11}{number}.wav") for number in range(3)]))
    assert len(console.file.getvalue().splitlines()) == 5


def test_a_terminal_shows_no_markup_and_no_escape_sequence():
    from rich.console import Console

    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system="standard")
    console.print(hits_table([hit(name) for name in NAMES]))
    shown = console.file.getvalue()
    assert "[bold]rain[/bold]" in shown
    assert "\x1b[31m" not in shown
    assert "雨 :dog:" in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\tc", "a\\x0ab\\x09c"),
        ("abc\u202ewav", "abc\\u202ewav"),  # turns the direction of what follows
        ("\x85\u2028\U000e0001", "\\x85\\u2028\\U000e0001"),
        ("Grüße 雨", "Grüße 雨"),
    ],
)
def test_what_cannot_be_seen_is_shown_as_an_escape(text, shown):
    assert printable(text) == shown


def test_a_playlist_has_length_title_start_and_the_bytes_of_the_path():
    hits = [hit(), hit(NOT_UTF8, start=20.0, end=30.0, duration=95.6)]
    assert listing(hits, "m3u") == (
        b"#EXTM3U\n"
        b"#EXTINF:5,a.wav\n"
        b"/sounds/a.wav\n"
        b"#EXTINF:96,caf\\xe9.wav\n"
        b"#EXTVLCOPT:start-time=20.000\n"
        b"/sounds/caf\xe9.wav\n"
    )


def test_a_name_that_would_break_a_line_of_a_playlist_is_an_address():
    lines = listing([hit("/sounds/a\n#b.wav")], "m3u").splitlines()
    assert len(lines) == 3
    address = urllib.parse.urlsplit(lines[2].decode("ascii"))
    assert (address.scheme, urllib.parse.unquote(address.path)) == ("file", "/sounds/a\n#b.wav")


def test_no_hits_are_an_empty_listing_of_each_kind():
    assert json.loads(listing([], "json")) == []
    assert listing([], "csv") == b"rank,score,z_score,file,duration,size,modified,start,end\n"
    assert listing([], "m3u") == b"#EXTM3U\n"


def test_a_lone_surrogate_is_an_escape_of_json():
    assert to_json("\udcff") == b'"\\udcff"\n'


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00.0"), (7.26, "0:07.3"), (59.96, "1:00.0"), (187.5, "3:07.5"), (3725, "1:02:05.0")]
)
def test_times_are_shown_as_a_clock_shows_them(seconds, shown):
    assert clock(seconds) == shown


def test_a_length_that_is_no_number_stops_no_listing():
    hits = [hit(duration=duration) for duration in (math.nan, math.inf, -math.inf, 0.0)]
    assert [row["duration"] for row in json.loads(listing(hits, "json"))] == [None, None, None, 0.0]
    assert b"NaN" not in listing(hits, "json") and b"Infinity" not in listing(hits, "json")
    assert len(list(csv.DictReader(io.StringIO(listing(hits, "csv").decode())))) == 4
    assert [line.split()[-1] for line in listing(hits, "table").decode().splitlines()] == [
        "/sounds:",
        "of",
        "?",
        "?",
        "?",
        "0:00.0",
    ]
    # -1 is what a playlist says of a length that is not known
    assert listing(hits, "m3u").splitlines()[1::2] == [b"#EXTINF:-1,a.wav"] * 3 + [b"#EXTINF:1,a.wav"]


def test_a_time_that_is_no_date_stops_no_listing(monkeypatch):
    monkeypatch.setenv("TZ", "UTC0")
    time.tzset()
    moments = [-1_500_000_000, 0, 253_402_300_800 * 10**9, -62_135_596_801 * 10**9, 2**80]
    rows = json.loads(listing([hit(modified_ns=moment) for moment in moments], "json"))
    # The second before 1970 began, its beginning, and beyond the years 9999 and 1, of which no date is written.
    assert [row["modified"] for row in rows] == ["1969-12-31T23:59:58+00:00", "1970-01-01T00:00:00+00:00"] + 3 * [None]
    monkeypatch.undo()
    time.tzset()


def test_audacity_labels_have_start_end_score_and_name_without_tabs():
    hits = [hit("/sounds/a\tb.wav", 0.53164, 20.25, 30.5), hit()]
    assert listing(hits, "audacity").decode() == (
        "20.250000\t30.500000\t0.532 a\\x09b.wav\n0.000000\t4.600000\t0.500 a.wav\n"
    )


def test_raven_selections_count_from_the_beginning_of_the_first_recording():
    hits = [hit("/s/a.wav", 0.5, 1, 2, 60.0), hit("/s/b.wav", 0.4, 3, 4.5, 30.0), hit("/s/a.wav", 0.3, 5, 6, 60.0)]
    rows = list(csv.DictReader(io.StringIO(listing(hits, "raven").decode()), delimiter="\t"))
    assert [(float(row["Begin Time (s)"]), float(row["End Time (s)"])) for row in rows] == [(1, 2), (63, 64.5), (5, 6)]
    assert [(row["Begin Path"], float(row["File Offset (s)"])) for row in rows] == [
        ("/s/a.wav", 1),
        ("/s/b.wav", 3),
        ("/s/a.wav", 5),
    ]
