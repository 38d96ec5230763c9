import datetime
import json
import math
import time

import pytest

from modeling_cnn10bert.errors import RetrievalError
from modeling_cnn10bert.retrieval.records import SearchFilter, as_nanoseconds
from modeling_cnn10bert.retrieval.stores.filters import (
    milvus_in,
    milvus_text,
    sql_in,
    sql_text,
    to_milvus,
    to_sql,
)


@pytest.fixture
def time_zone(monkeypatch):
    """Sets the local time zone."""

    def set_zone(name):
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()


def test_a_filter_that_restricts_nothing_is_no_condition():
    for where in (None, SearchFilter()):
        assert to_sql(where) is None
        assert to_milvus(where) == ""


def test_a_filter_is_the_conjunction_of_its_parts():
    where = SearchFilter(min_duration=1, max_duration=2.5, folders=("/a", "/it's"), formats=("wav", "ogg"))
    assert to_sql(where) == (
        "duration >= 1.0 AND duration <= 2.5 AND ((path >= '/a/' AND path < '/a0') OR "
        "(path >= '/it''s/' AND path < '/it''s0')) AND format IN ('wav', 'ogg')"
    )
    assert to_milvus(where) == (
        'duration >= 1.0 and duration <= 2.5 and ((path >= "/a/" and path < "/a0") or '
        '(path >= "/it\'s/" and path < "/it\'s0")) and format in ["wav", "ogg"]'
    )


def test_zero_and_the_epoch_are_values_and_not_left_out():
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
    where = SearchFilter(max_duration=0.0, modified_after=epoch)
    assert to_sql(where) == "duration <= 0.0 AND modified_ns >= 0"


def test_literals_cannot_be_left():
    hostile = 'x\' OR 1=1 --"] or true or path in ["\\'
    assert sql_text(hostile) == "'" + hostile.replace("'", "''") + "'"
    assert json.loads(milvus_text(hostile)) == hostile
    assert sql_in("path", ["a", "b'c"]) == "path IN ('a', 'b''c')"
    assert milvus_in("path", ["a", 'b"c']) == 'path in ["a", "b\\"c"]'


def test_a_moment_without_a_zone_is_local_time(time_zone):
    moment = datetime.datetime(2024, 7, 1, 12, 0, 0, 123456)
    time_zone("UTC0")
    in_utc = as_nanoseconds(moment)
    assert in_utc == 1_719_835_200_123_456_000  # date -u -d '2024-07-01 12:00:00' +%s
    time_zone("XXX-5:30")  # POSIX writes what is to be added to local time: this is five and a half hours ahead
    assert as_nanoseconds(moment) == in_utc - 19_800 * 10**9


def test_a_moment_with_a_zone_is_taken_as_it_is(time_zone):
    moment = datetime.datetime(2024, 7, 1, 12, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    for zone in ("UTC0", "XXX-5:30"):
        time_zone(zone)
        assert as_nanoseconds(moment) == 1_719_828_000 * 10**9


def test_a_moment_beyond_the_times_of_files_restricts_nothing_or_everything(time_zone):
    first, last = datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31, 23, 59)
    for zone in ("XXX-14", "UTC0", "XXX12"):  # at either end of the calendar one of them has no such moment
        time_zone(zone)
        assert to_sql(SearchFilter(modified_after=first, modified_before=last)) is None
        # -2^63 + 1: no file of an index is older
        assert to_sql(SearchFilter(modified_after=last)) == "modified_ns < -9223372036854775807"
        assert to_sql(SearchFilter(modified_before=first)) == "modified_ns < -9223372036854775807"


def test_fields_are_put_into_one_form(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "deep").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "deep")
    monkeypatch.chdir(tmp_path)
    for folders in ("~/deep", ["deep"], (tmp_path / "link",), f"{tmp_path}/deep/"):
        assert SearchFilter(folders=folders).folders == (str(tmp_path / "deep"),)
    for formats in ("OGG", [".ogg"], ("*.Ogg",)):
        assert SearchFilter(formats=formats).formats == ("ogg",)
    day = datetime.datetime(2024, 7, 1)
    for moment in ("2024-07-01", "2024-07-01T00:00", datetime.date(2024, 7, 1)):
        assert SearchFilter(modified_after=moment).modified_after == day


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"folders": [3]}, "folders: found 3, expected texts"),
        ({"formats": "a/wav"}, "formats: found 'a/wav', expected file extensions"),
        ({"modified_after": "yesterday"}, "modified_after: found 'yesterday', expected a datetime.datetime, or a text"),
        ({"modified_before": 2024}, "modified_before: found 2024, expected a datetime.datetime"),
        ({"min_duration": 3, "max_duration": 2}, "min_duration is 3 and max_duration 2, expected a minimum"),
        ({"modified_after": "2024-07-02", "modified_before": "2024-07-01"}, "expected an earlier and a later time"),
    ],
)
def test_a_field_that_could_find_nothing_or_everything_is_refused(fields, message):
    with pytest.raises(RetrievalError, match=message):
        SearchFilter(**fields)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, "3", True])
def test_a_duration_that_is_no_number_of_seconds_is_refused(value):
    for name in ("min_duration", "max_duration"):
        with pytest.raises(RetrievalError, match=f"{name}: found .*expected a finite number"):
            SearchFilter(**{name: value})
