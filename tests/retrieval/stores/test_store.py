"""What both stores do, against a plain search in numpy."""

import dataclasses
import datetime
import os
import signal
import time

import numpy as np
import pytest

from modeling_cnn10bert.errors import RetrievalError
from modeling_cnn10bert.retrieval.records import FIRST_NS, FORMAT_VERSION, LAST_NS, FileRecord, SearchFilter
from modeling_cnn10bert.retrieval.stores import open_store

ODD_PATHS = [
    "/odd/it's.wav",
    '/odd/say "hi".wav',
    "/odd/100%_sure.wav",
    "/odd/back\\slash\\n.wav",
    "/odd/line\nbreak\tand tab.wav",
    "/odd/ leading space.wav",
    "/odd/Größe 東京.wav",
    os.fsdecode(b"/odd/latin1 \xe9t\xe9.wav"),
    os.fsdecode(b"/odd/\xff\xfe.w\xe4v"),
    "/odd/" + chr(0x10F0E9) + chr(0x10F800) + ".wav",
    "/odd/{braces} $dollar; --comment.wav",
    "/odd/bell\x07 escape\x1b[31m start\x01 back\b feed\f\v return\r.wav",
    "/odd/delete\x7f next\x85 separator\u2028.wav",
]


def exact_search(files, query, k, admits=lambda record: True):
    """[(path, score, start)] of the best window of each recording, best first."""
    best = []
    for file in files:
        if admits(file.record):
            scores = file.embeds.astype(np.float64) @ query.astype(np.float64)
            window = int(scores.argmax())
            best.append((file.record.path, float(scores[window]), file.spans[window][0]))
    return sorted(best, key=lambda hit: (-hit[1], hit[0]))[:k]


def assert_same_hits(hits, expected):
    assert [(hit.file, hit.start) for hit in hits] == [(path, start) for path, _, start in expected]
    assert [hit.score for hit in hits] == pytest.approx([score for _, score, _ in expected], abs=1e-6)


def assert_holds(store, files):
    """The index has these recordings, as they are, and no others."""
    assert store.files() == {file.record.path: file.record for file in files}
    found = {file.record.path: file for file in store.embedded()}
    assert found.keys() == {file.record.path for file in files}
    for file in files:
        assert found[file.record.path].record == file.record
        assert found[file.record.path].spans == file.spans
        assert np.array_equal(found[file.record.path].embeds, file.embeds)
    assert len(store) == sum(len(file.spans) for file in files)


def random_query(seed=0, length=1.0):
    query = np.random.default_rng(seed).standard_normal(16).astype(np.float32)
    return np.float32(length) * query / np.linalg.norm(query)


# --------------------------------------------------------------------------------------------------------- writing


def test_what_was_put_is_there_as_it_was(store, many):
    store.put(many[:20])
    store.put(many[20:])
    assert_holds(store, many)


def test_a_recording_that_is_put_again_is_replaced(store, recording):
    store.put([recording("/a.wav", 3), recording("/b.wav", 2), recording("/c.wav", 1)])
    fewer, more, new = recording("/a.wav", 1, seed=1), recording("/b.wav", 5, seed=1), recording("/d.wav", 2)
    store.put([fewer, more, new])
    assert_holds(store, [fewer, more, new, recording("/c.wav", 1)])


def test_of_one_recording_put_twice_at_once_the_last_counts(store, recording):
    store.put([recording("/a.wav", 3), recording("/b.wav"), recording("/a.wav", 2, seed=1)])
    assert_holds(store, [recording("/a.wav", 2, seed=1), recording("/b.wav")])


def test_removed_recordings_are_gone_and_unknown_ones_are_ignored(store, many):
    store.put(many)
    store.remove([file.record.path for file in many[:50]] + ["/unknown.wav"])
    assert_holds(store, many[50:])
    store.remove([])
    store.remove(["/unknown.wav"])
    assert_holds(store, many[50:])


def test_relabelling_keeps_the_embeddings(store, recording):
    moved, touched, other = recording("/a.wav", 3), recording("/b.wav", 2), recording("/c.wav")
    store.put([moved, touched, other])
    new = FileRecord("/sub/new.flac", "f00", size=7, modified_ns=123_456_789_012_345_678, duration=8.5)
    later = dataclasses.replace(touched.record, modified_ns=touched.record.modified_ns + 1)
    store.relabel({"/a.wav": new, "/b.wav": later, "/unknown.wav": recording("/d.wav").record})
    assert_holds(store, [dataclasses.replace(moved, record=new), dataclasses.replace(touched, record=later), other])
    where = SearchFilter(folders=("/sub",), formats=("flac",))
    assert [hit.file for hit in store.search(random_query(), 5, where)] == ["/sub/new.flac"]


def test_names_can_be_exchanged_and_handed_on(store, recording):
    a, b, c = recording("/a.wav", 3), recording("/b.wav", 1), recording("/c.wav", 2)
    store.put([a, b, c])
    renamed = {"/a.wav": "/b.wav", "/b.wav": "/a.wav", "/c.wav": "/d.wav"}
    files = {file.record.path: file for file in (a, b, c)}
    records = {old: dataclasses.replace(files[old].record, path=new) for old, new in renamed.items()}
    store.relabel(records)
    assert_holds(store, [dataclasses.replace(files[old], record=records[old]) for old in renamed])


def test_an_index_is_only_deleted_if_it_is_empty(store, recording):
    file = recording("/a.wav")
    store.put([file])
    store.delete_if_empty()
    assert_holds(store, [file])
    store.remove(["/a.wav"])
    store.delete_if_empty()
    assert not os.path.exists(store.location)


def test_a_renamed_recording_takes_the_place_of_one_that_had_its_name(store, recording):
    short, long = recording("/short.wav", 1), recording("/long.wav", 4)
    store.put([short, long])
    record = dataclasses.replace(short.record, path="/long.wav")
    store.relabel({"/short.wav": record})
    assert_holds(store, [dataclasses.replace(short, record=record)])


def test_two_recordings_cannot_be_given_one_name(store, recording):
    files = [recording("/a.wav"), recording("/b.wav")]
    store.put(files)
    same = recording("/c.wav").record
    with pytest.raises(RetrievalError, match="/c.wav.*two recordings"):
        store.relabel({"/a.wav": same, "/b.wav": same})
    assert_holds(store, files)


def test_embeddings_of_another_model_are_refused_and_nothing_is_written(store, recording):
    store.put([recording("/a.wav")])
    with pytest.raises(RetrievalError, match=r"/wide.wav.*\[2, 8\].*\[2, 16\]"):
        store.put([recording("/b.wav"), recording("/wide.wav", 2, dimension=8)])
    with pytest.raises(RetrievalError, match="no window"):
        store.put([dataclasses.replace(recording("/b.wav"), spans=[], embeds=np.zeros((0, 16), np.float32))])
    broken = recording("/b.wav")
    broken.embeds[0, 3] = np.nan
    with pytest.raises(RetrievalError, match="NaN"):
        store.put([broken])
    assert_holds(store, [recording("/a.wav")])


def test_a_query_of_another_model_is_refused(store, recording):
    store.put([recording("/a.wav")])
    with pytest.raises(RetrievalError, match=r"found \[8\], expected the 16 values"):
        store.search(np.ones(8, np.float32), 3)


# --------------------------------------------------------------------------------------------------------- reading


def test_the_recordings_of_given_paths_come_with_their_windows_in_order(store, many):
    store.put(many)
    wanted = {file.record.path: file for file in many[10:25]}
    found = list(store.embedded([*wanted, "/unknown.wav", many[10].record.path]))
    assert sorted(file.record.path for file in found) == sorted(wanted)
    for file in found:
        assert file.spans == wanted[file.record.path].spans
        assert np.array_equal(file.embeds, wanted[file.record.path].embeds)


@pytest.mark.parametrize("k", [1, 10, 60, 1000])
def test_a_search_finds_what_an_exact_one_does(store, many, k):
    store.put(many)
    for seed, length in enumerate((1.0, 7.5, 0.01)):
        query = random_query(seed, length)
        assert_same_hits(store.search(query, k), exact_search(many, query, k))


@pytest.mark.parametrize("k", [10**20, np.int64(2**63 - 1)])
def test_a_search_for_more_than_can_be_counted_finds_all_there_is(store, many, k):
    store.put(many)
    assert_same_hits(store.search(random_query(), k), exact_search(many, random_query(), len(many)))


def test_a_hit_tells_the_recording_the_window_and_its_embedding(store, many):
    store.put(many)
    file = many[7]
    hit = store.search(file.embeds[2], 1)[0]
    assert hit.record == file.record
    assert (hit.start, hit.end) == file.spans[2]
    assert hit.score == pytest.approx(1.0, abs=1e-6)
    assert np.array_equal(hit.embed, file.embeds[2])


def test_one_recording_with_all_the_best_windows_does_not_hide_the_others(store, recording):
    query = random_query()
    crowd = dataclasses.replace(recording("/crowd.wav", 100), embeds=np.tile(query, (100, 1)))
    files = [crowd, *(recording(f"/{number}.wav") for number in range(5))]
    store.put(files)
    assert_same_hits(store.search(query, 4), exact_search(files, query, 4))


def test_windows_come_best_first_and_the_store_says_when_there_are_no_more(store, many):
    store.put(many)
    query = random_query()
    scores = sorted(np.concatenate([file.embeds @ query for file in many]).tolist(), reverse=True)
    total = len(scores)
    for limit, complete in ((1, False), (total - 1, False), (total, True), (total + 1, True)):
        hits, all_found = store.search_windows(query, limit)
        assert [hit.score for hit in hits] == pytest.approx(scores[:limit], abs=1e-6)
        assert all_found == complete


def test_equal_scores_are_ordered_by_path_and_start(store, recording):
    same = recording("/x.wav").embeds[0]
    files = [
        dataclasses.replace(recording(f"/{number:02d}.wav", 2), embeds=np.stack([same, same]))
        for number in reversed(range(30))
    ]
    store.put(files[:7])
    store.put(files[7:])
    hits = store.search(same, 5)
    assert [(hit.file, hit.start) for hit in hits] == [(f"/{number:02d}.wav", 0.0) for number in range(5)]
    windows, _ = store.search_windows(same, 3)
    assert [(hit.file, hit.start) for hit in windows] == [("/00.wav", 0.0), ("/00.wav", 3.0), ("/01.wav", 0.0)]


def test_an_empty_index_can_be_asked_anything(store):
    assert store.files() == {} and len(store) == 0 and list(store.embedded()) == []
    assert store.search(random_query(), 10) == []
    assert store.search(random_query(), 10, SearchFilter(formats=("wav",))) == []
    assert store.search_windows(random_query(), 5) == ([], True)
    store.optimize()
    store.put([])
    store.relabel({})
    assert len(store) == 0


def test_optimizing_changes_no_answer(store, many):
    for start in range(0, 60, 20):
        store.put(many[start : start + 20])
    store.remove([many[0].record.path])
    before = store.search(random_query(), 20)
    store.optimize()
    assert_holds(store, many[1:])
    assert store.search(random_query(), 20) == before


# --------------------------------------------------------------------------------------------------------- filters

DAY = datetime.datetime(2024, 3, 10, 12, 0)  # local time, as it has no zone
FILTERS = {
    "a folder": (SearchFilter(folders=("/sounds/a",)), lambda r: r.path.startswith("/sounds/a/")),
    "a folder above, with a slash": (SearchFilter(folders=("/sounds/",)), lambda r: r.path.startswith("/sounds/")),
    "the root": (SearchFilter(folders=("/",)), lambda r: True),
    "two folders": (
        SearchFilter(folders=("/sounds/a/deep", "/sounds/ab")),
        lambda r: r.path.startswith(("/sounds/a/deep/", "/sounds/ab/")),
    ),
    "quotes": (SearchFilter(folders=('/it\'s "so"',)), lambda r: r.path.startswith('/it\'s "so"/')),
    "a percent sign": (SearchFilter(folders=("/100%",)), lambda r: r.path.startswith("/100%/")),
    "an underscore": (SearchFilter(folders=("/a_b",)), lambda r: r.path.startswith("/a_b/")),
    "a backslash": (SearchFilter(folders=("/a\\b",)), lambda r: r.path.startswith("/a\\b/")),
    "no UTF-8": (SearchFilter(folders=("/\udcff",)), lambda r: r.path.startswith("/\udcff/")),
    "a folder that is not there": (SearchFilter(folders=("/sounds/none",)), lambda r: False),
    "a file for a folder": (SearchFilter(folders=("/sounds/a/1.wav",)), lambda r: False),
    "formats": (SearchFilter(formats=("flac", "ogg")), lambda r: r.path.lower().endswith((".flac", ".ogg"))),
    "durations, inclusive": (SearchFilter(min_duration=2.5, max_duration=4.0), lambda r: 2.5 <= r.duration <= 4.0),
    "a very small duration": (SearchFilter(min_duration=1e-9), lambda r: True),
    "after, inclusive": (
        SearchFilter(modified_after=DAY),
        lambda r: r.modified_ns >= round(DAY.timestamp()) * 10**9,
    ),
    "before, exclusive": (
        SearchFilter(modified_before=DAY),
        lambda r: r.modified_ns < round(DAY.timestamp()) * 10**9,
    ),
    "a time with its zone": (
        SearchFilter(modified_before=datetime.datetime(1970, 1, 1, 1, tzinfo=datetime.timezone.utc)),
        lambda r: r.modified_ns < 3600 * 10**9,
    ),
    "all together": (
        SearchFilter(
            min_duration=1.0,
            max_duration=5.0,
            folders=("/sounds",),
            formats=("wav",),
            modified_after=datetime.datetime(2000, 1, 1),
            modified_before=DAY,
        ),
        lambda r: (
            1.0 <= r.duration <= 5.0
            and r.path.startswith("/sounds/")
            and r.path.lower().endswith(".wav")
            and datetime.datetime(2000, 1, 1).timestamp() * 1e9 <= r.modified_ns < DAY.timestamp() * 1e9
        ),
    ),
    "before the end of the calendar": (SearchFilter(modified_before=datetime.datetime(9999, 12, 31)), lambda r: True),
    "after the end of the calendar": (SearchFilter(modified_after=datetime.datetime(9999, 12, 31)), lambda r: False),
    "before its beginning": (SearchFilter(modified_before=datetime.datetime(1, 1, 1)), lambda r: False),
    "after its beginning": (SearchFilter(modified_after=datetime.datetime(1, 1, 1)), lambda r: True),
    "an enormous duration": (SearchFilter(min_duration=1e300), lambda r: False),
    "a negative duration": (SearchFilter(min_duration=-1.0), lambda r: True),
    "nothing": (SearchFilter(), lambda r: True),
}


@pytest.fixture
def library(recording):
    folders = ["/sounds/a", "/sounds/a/deep/er", "/sounds/ab", "/sounds/a b", "/sounds", '/it\'s "so"/x', "/it's"]
    folders += ["/100%", "/100% x", "/100x", "/a_b", "/axb", "/a\\b", "/a", "/\udcff", "/\udcfe", "/é", ""]
    noon = round(DAY.timestamp()) * 10**9
    moments = [noon - 1, noon, noon + 1, 0, 3600 * 10**9 - 1, LAST_NS]
    return [
        recording(
            f"{folder}/{number}.{ending}",
            windows=1 + (number + place) % 3,
            duration=(1.0, 2.5, 4.0, 4.001, 60.0)[(number + place) % 5],
            modified_ns=moments[(number + 2 * place) % 6],
        )
        for place, folder in enumerate(folders)
        for number, ending in enumerate(("wav", "WAV", "flac", "ogg"))
    ]


def test_filters_admit_exactly_what_they_say(store, library):
    store.put(library)
    query = random_query()
    for name, (where, admits) in FILTERS.items():
        expected = exact_search(library, query, 1000, admits)
        hits = store.search(query, 1000, where)
        assert [hit.file for hit in hits] == [path for path, _, _ in expected], name
        assert_same_hits(store.search(query, 3, where), expected[:3])


def test_paths_of_any_bytes_come_back_as_they_were(store, recording):
    files = [recording(path, 2) for path in ODD_PATHS]
    store.put(files)
    assert_holds(store, files)
    for file in files:
        assert store.search(file.embeds[1], 1)[0].file == file.record.path
        assert [found.record for found in store.embedded([file.record.path])] == [file.record]
    store.relabel({ODD_PATHS[7]: dataclasses.replace(files[7].record, path=ODD_PATHS[7] + "\udc80")})
    assert ODD_PATHS[7] + "\udc80" in store.files() and ODD_PATHS[7] not in store.files()
    store.remove(store.files())
    assert store.files() == {}


def test_folders_of_any_characters_are_filters_and_can_be_renamed(store, recording):
    characters = [chr(code) for code in (*range(1, 0x20), 0x7F, 0x85, 0x2028, 0xDC80, 0xFFFF) if chr(code) != "/"]
    files = {character: recording(f"/a{character}b/x{character}.wav") for character in characters}
    store.put(list(files.values()))
    for character, file in files.items():
        hits = store.search(file.embeds[0], 5, SearchFilter(folders=(f"/a{character}b",)))
        assert [hit.file for hit in hits] == [file.record.path]
    renamed = {f.record.path: dataclasses.replace(f.record, path=f"{f.record.path}{c}") for c, f in files.items()}
    store.relabel(renamed)
    assert store.files().keys() == {record.path for record in renamed.values()}
    store.remove([f"{file.record.path}{character}" for character, file in files.items()])
    assert store.files() == {}


@pytest.mark.parametrize("modified_ns", [FIRST_NS, -(10**18), -1, 0, LAST_NS])
def test_times_before_1970_and_at_the_ends_of_64_bits_come_back(store, recording, modified_ns):
    file = recording("/old.wav", modified_ns=modified_ns)
    store.put([file])
    assert_holds(store, [file])


# --------------------------------------------------------------------------------------------------------- opening


def test_a_closed_index_is_there_when_it_is_opened_again(location, info, many):
    with open_store(location, info) as store:
        store.put(many)
    with open_store(location) as store:
        assert store.info == info
        assert_holds(store, many)
    other = dataclasses.replace(info, window=99.0)
    with open_store(location, other) as store:  # one that is there keeps its own
        assert store.info == info
        assert_holds(store, many)


def test_a_missing_index_is_an_error_that_says_how_to_make_one(location):
    with pytest.raises(RetrievalError, match=f"no index.*cnn10bert index FOLDER --index {location}"):
        open_store(location)
    assert not os.path.exists(location)


def test_an_index_of_another_format_is_refused_with_the_command_that_renews_it(location, info):
    newer = dataclasses.replace(info, format_version=FORMAT_VERSION + 1)
    with pytest.raises(RetrievalError, match=r"format 3.*expected format 1 or 2.*make a new index"):
        open_store(location, newer).close()
    with pytest.raises(RetrievalError, match="format 3"):
        open_store(location)


def test_a_folder_with_something_else_in_it_is_left_alone(location, info):
    os.mkdir(location)
    with open(os.path.join(location, "precious.txt"), "w") as file:
        file.write("mine")
    for given in (None, info):
        with pytest.raises(RetrievalError, match="index"):
            open_store(location, given)
    assert os.listdir(location) == ["precious.txt"]


# ------------------------------------------------------------------------------------------------------- processes


def test_a_killed_writer_leaves_every_recording_whole(location, info, start_writer, assert_whole):
    open_store(location, info).close()
    for round_ in range(2):
        writer = start_writer(location, 0, 6, 100 * round_, 10_000)
        for _ in range(4 + round_):  # "open", then some versions
            assert writer.stdout.readline()
        time.sleep(0.003 * round_)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        with open_store(location) as store:
            assert store.files().keys() == {f"/sounds/{number}.wav" for number in range(6)}
            assert_whole(store)
            for hit in store.search(np.ones(16, np.float32), 6):
                assert hit.record == store.files()[hit.file]
