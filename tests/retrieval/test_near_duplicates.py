"""Near duplicates: which recordings are grouped, by numbers worked out by hand."""

import math

import numpy as np
import pytest

from modeling_cnn10bert.errors import RetrievalError
from modeling_cnn10bert.retrieval.near_duplicates import FIRST_LIMIT, find_near_duplicates
from modeling_cnn10bert.retrieval.records import EmbeddedFile, FileRecord, IndexInfo, ModelIdentity
from modeling_cnn10bert.retrieval.stores import open_store

THRESHOLD = math.cos(math.radians(5))  # so that recordings within 5 degrees are close


@pytest.fixture
def groups(tmp_path):
    """Makes an index of (name, content, seconds, angle of each window in degrees); gives the names in each group."""

    def find(*files, threshold=THRESHOLD):
        store = open_store(str(tmp_path / "index"), IndexInfo(ModelIdentity("m", None, "f", 2, {}), 10.0, 0.0))
        with store:
            store.put([_embedded(*file) for file in files])
            return [
                ({record.path[1:] for record in group.files}, group.identical, group.similarity)
                for group in find_near_duplicates(store, threshold)
            ]

    return find


def _embedded(name, content, seconds, *degrees):
    angles = np.radians(degrees)
    spans = [(10.0 * number, min(10.0 * number + 10, seconds)) for number in range(len(degrees))]
    embeds = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    return EmbeddedFile(FileRecord("/" + name, content, 1, 1, seconds), spans, embeds)


def test_the_same_bytes_are_a_group_whatever_they_sound_like(groups):
    found = groups(("a", "x", 5.0, 0), ("b", "y", 5.0, 40), ("c", "x", 5.0, 0), threshold=1.0)
    assert found == [({"a", "c"}, True, 1.0)]


def test_close_embeddings_are_a_group_with_their_cosine(groups):
    ((names, identical, similarity),) = groups(("a", "x", 5.0, 0), ("b", "y", 5.0, 4), ("c", "z", 5.0, 30))
    assert (names, identical) == ({"a", "b"}, False)
    assert similarity == pytest.approx(math.cos(math.radians(4)), abs=1e-6)


def test_a_chain_joins_no_recordings_that_are_not_close_themselves(groups):
    found = groups(("a", "x", 5.2, 0), ("b", "y", 5.1, 4), ("c", "z", 5.0, 7))
    assert [(names, round(similarity, 6)) for names, _, similarity in found] == [
        ({"a", "b"}, round(math.cos(math.radians(4)), 6))
    ]


def test_all_that_is_close_to_the_longest_is_one_group(groups):
    ((names, _, similarity),) = groups(("a", "x", 5.0, -4), ("b", "y", 5.1, 0), ("c", "z", 5.0, 3))
    assert names == {"a", "b", "c"}
    assert similarity == pytest.approx(math.cos(math.radians(4)), abs=1e-6)


def test_copies_and_what_is_close_to_them_are_one_group(groups):
    ((names, identical, _),) = groups(("a", "x", 5.0, 0), ("b", "x", 5.0, 0), ("c", "y", 5.0, 3))
    assert (names, identical) == ({"a", "b", "c"}, False)


@pytest.mark.parametrize(("seconds", "found"), [(5.4, 1), (5.6, 0), (4.6, 1), (4.4, 0)])
def test_durations_must_agree_within_half_a_second(groups, seconds, found):
    assert len(groups(("a", "x", 5.0, 0), ("b", "y", seconds, 0))) == found


@pytest.mark.parametrize(("seconds", "found"), [(104.0, 1), (107.0, 0)])
def test_durations_of_long_recordings_must_agree_within_a_twentieth(groups, seconds, found):
    windows = [3 * number for number in range(10)]
    assert len(groups(("a", "x", 100.0, *windows), ("b", "y", seconds, *windows, 80))) == found


def test_a_common_beginning_is_not_enough(groups):
    assert groups(("a", "x", 20.0, 0, 10), ("b", "y", 20.0, 0, 60)) == []
    assert len(groups(("a", "x", 20.0, 0, 10), ("b", "y", 20.0, 0, 12))) == 1


def test_a_window_in_the_middle_of_another_recording_is_no_duplicate(groups):
    assert groups(("a", "x", 20.0, 0, 60), ("b", "y", 20.0, 60, 0)) == []


def test_more_copies_than_are_looked_up_at_first_are_all_found(groups):
    count = 3 * FIRST_LIMIT
    ((names, _, _),) = groups(*((f"{number}", f"{number}", 5.0, 0) for number in range(count)))
    assert len(names) == count


def test_the_largest_group_comes_first(groups):
    found = groups(*((name, name, 5.0, degrees) for name, degrees in zip("abcde", (0, 1, 50, 51, 52), strict=True)))
    assert [names for names, _, _ in found] == [{"c", "d", "e"}, {"a", "b"}]


def test_an_empty_index_has_no_duplicates(groups):
    assert groups() == []


def test_a_threshold_that_is_no_number_is_refused(groups):
    with pytest.raises(RetrievalError, match="threshold: found nan"):
        groups(("a", "x", 5.0, 0), threshold=math.nan)


def test_a_recording_of_no_length_stops_no_search_for_duplicates(groups):
    found = groups(("a", "x", math.nan, 0), ("b", "y", math.inf, 0), ("c", "z", 5.0, 0), ("d", "w", 5.0, 0))
    assert [names for names, _, _ in found] == [{"c", "d"}]
