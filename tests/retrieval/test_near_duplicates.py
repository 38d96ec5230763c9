"""Near duplicates: which recordings are grouped, with sounds that were made for it."""

import dataclasses
import math

import numpy as np
import pytest
import soundfile
import soxr

from modeling_cnn10bert.errors import RetrievalError
from modeling_cnn10bert.retrieval.near_duplicates import find_near_duplicates
from modeling_cnn10bert.retrieval.records import EmbeddedFile, FileRecord, IndexInfo, ModelIdentity
from modeling_cnn10bert.retrieval.stores import open_store
from modeling_cnn10bert.retrieval.windows import content_hash

RATE = 16000
MODEL = ModelIdentity("m", None, "f", 2, {})


def noise(seed, seconds=2.0):
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE)).astype(np.float32)


@pytest.fixture
def write(tmp_path):
    """Writes a recording and gives its record."""

    def record(name, waveform, rate=RATE):
        path = str(tmp_path / name)
        soundfile.write(path, waveform, rate)
        return FileRecord(path, content_hash(path), 1, 1, len(waveform) / rate)

    return record


@pytest.fixture
def groups(tmp_path):
    """Makes an index of records, which all have the same embedding; gives the names in each group."""

    def find(*records, **options):
        with open_store(str(tmp_path / "index"), IndexInfo(MODEL, 10.0, 0.0)) as store:
            embeds = np.array([[1, 0]], np.float32)
            store.put([EmbeddedFile(record, [(0.0, 1.0)], embeds) for record in records])
            found = find_near_duplicates(store, **options)
        return [({record.path.rpartition("/")[2] for record in one.files}, one.identical) for one in found]

    return find


def test_the_same_bytes_are_a_group_whatever_the_threshold(groups, write):
    records = write("a.wav", noise(1)), write("b.wav", noise(2)), write("c.wav", noise(1))
    assert groups(*records, threshold=1.0) == [({"a.wav", "c.wav"}, True)]
    assert groups(*records) == [({"a.wav", "c.wav"}, True)]


def test_changed_copies_of_a_recording_are_one_group(groups, write):
    sound = noise(1)
    assert groups(
        write("original.wav", sound),
        write("another format.mp3", sound),
        write("quieter.wav", sound * 10 ** (-12 / 20)),
        write("stereo.wav", np.stack([sound, 0.5 * sound], axis=1)),
        write("resampled.flac", soxr.resample(sound, RATE, 22050), 22050),
        write("trimmed.wav", sound[round(0.3 * RATE) :]),
        write("another recording.wav", noise(2)),
    ) == [
        (
            {"original.wav", "another format.mp3", "quieter.wav", "stereo.wav", "resampled.flac", "trimmed.wav"},
            False,
        )
    ]


def test_a_chain_joins_no_recordings_that_are_not_close_themselves(groups, write):
    # Each begins 0.4 s after the one before it, and copies may begin 0.5 s apart.
    sound = noise(1, 4.0)
    records = [write(f"{number}.wav", sound[round(0.4 * number * RATE) :][: 3 * RATE]) for number in range(3)]
    assert groups(*records) == [({"0.wav", "1.wav"}, False)]


def test_identical_recordings_and_what_is_close_to_them_are_one_group(groups, write):
    sound = noise(1)
    records = write("a.wav", sound), write("b.wav", sound), write("c.wav", 0.5 * sound)
    assert groups(*records) == [({"a.wav", "b.wav", "c.wav"}, False)]


@pytest.mark.parametrize(("cut", "number"), [(0.45, 1), (0.6, 0)])
def test_durations_must_agree_within_half_a_second(groups, write, cut, number):
    records = write("a.wav", noise(1, 3.0)), write("b.wav", noise(1, 3.0)[: -round(cut * RATE)])
    assert len(groups(*records)) == number


@pytest.mark.parametrize(("cut", "number"), [(0.9, 1), (1.3, 0)])
def test_durations_of_long_recordings_must_agree_within_a_twentieth(groups, write, cut, number):
    records = write("a.wav", noise(1, 20.0)), write("b.wav", noise(1, 20.0)[round(cut * RATE) :])
    assert len(groups(*records)) == number


def test_copies_of_a_part_of_a_long_recording_are_found(groups, write):
    long = noise(1, 6.0)
    records = write("long.wav", long), write("part.wav", long[:RATE]), write("quiet part.wav", 0.5 * long[:RATE])
    assert groups(*records) == [({"part.wav", "quiet part.wav"}, False)]


def test_a_common_beginning_is_not_enough(groups, write):
    common = noise(1, 1.0)
    assert groups(*(write(f"{seed}.wav", np.append(common, noise(seed, 2.0))) for seed in (2, 3))) == []


def test_a_higher_threshold_admits_fewer_changes(groups, write):
    records = write("a.wav", noise(1)), write("b.wav", noise(1) + 0.2 * noise(2))
    assert len(groups(*records, threshold=0.3)) == 1
    assert groups(*records, threshold=0.99) == []


def test_silent_recordings_are_no_duplicates_of_each_other(groups, write):
    assert groups(write("a.wav", np.zeros(2 * RATE)), write("b.wav", np.zeros(2 * RATE + 1))) == []


def test_the_largest_group_comes_first(groups, write):
    records = [
        write(name, gain * noise(seed))
        for name, seed, gain in (("a.wav", 1, 1), ("b.wav", 1, 2), ("c.wav", 2, 1), ("d.wav", 2, 2), ("e.wav", 2, 3))
    ]
    assert [names for names, _ in groups(*records)] == [{"c.wav", "d.wav", "e.wav"}, {"a.wav", "b.wav"}]


def test_an_empty_index_has_no_duplicates(groups):
    assert groups() == []


@pytest.mark.parametrize("threshold", [math.nan, 0.0, -1.0])
def test_a_threshold_that_different_recordings_reach_is_refused(groups, threshold):
    with pytest.raises(RetrievalError, match=f"threshold: found {threshold}"):
        groups(threshold=threshold)


def test_a_recording_of_no_length_stops_no_search_for_duplicates(groups, write):
    records = [write(f"{gain}.wav", gain * noise(1)) for gain in (1, 2, 3, 4)]
    records[0] = dataclasses.replace(records[0], duration=math.nan)
    records[1] = dataclasses.replace(records[1], duration=math.inf)
    assert ({"3.wav", "4.wav"}, False) in groups(*records)


def test_a_missing_file_is_noted_and_found_by_its_bytes_only(groups, write, tmp_path):
    records = write("a.wav", noise(1)), write("b.wav", noise(1)), write("c.wav", noise(2)), write("d.wav", noise(3))
    for name in ("a.wav", "c.wav"):
        (tmp_path / name).unlink()
    notes = []
    assert groups(*records, write("e.wav", 0.5 * noise(1)), notes=notes) == [({"a.wav", "b.wav", "e.wav"}, False)]
    (note,) = notes
    assert "c.wav: found no such file" in note
