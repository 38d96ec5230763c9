"""A scan finds every recording below the given folders once, whatever else lies there, and opens nothing."""

import os
import socket

import pytest

from modeling_cnn10bert.errors import RetrievalError
from modeling_cnn10bert.retrieval import scanning
from modeling_cnn10bert.retrieval.scanning import canonical, is_below, is_recording, scan


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")


def names(found, folder):
    return sorted(os.path.relpath(path, folder) for path in found.files)


def test_recordings_are_found_at_any_depth_with_size_and_time(sounds):
    make(sounds, "a.wav", "deep/er/b.FLAC", "deep/c.m4a")
    os.utime(sounds / "a.wav", ns=(1, 1_234_567_890_123_456_789))
    found = scan([sounds])
    assert names(found, sounds) == ["a.wav", "deep/c.m4a", "deep/er/b.FLAC"]
    assert found.files[str(sounds / "a.wav")] == (5, 1_234_567_890_123_456_789)
    assert found.problems == []


def test_other_files_are_counted_and_no_error(sounds):
    make(sounds, "a.wav", "cover.jpg", "notes.txt", "wav", "program.ts")
    found = scan([sounds])
    assert names(found, sounds) == ["a.wav"]
    assert found.other_files == 4
    assert found.problems == []


def test_folders_without_a_recording_are_named_with_their_other_files(sounds):
    for name in ("full/a.wav", "texts/deep/b.txt", "texts/c.txt", "empty/.hidden.wav"):
        (sounds / name).parent.mkdir(parents=True, exist_ok=True)
        (sounds / name).write_bytes(b"")
    found = scan([sounds / "full", sounds / "texts", sounds / "empty"])
    assert found.empty_folders == {str(sounds / "texts"): 2, str(sounds / "empty"): 0}


def test_what_begins_with_a_dot_is_skipped(sounds):
    make(sounds, "a.wav", ".b.wav", ".trash/c.wav", "._a.wav")
    found = scan([sounds])
    assert names(found, sounds) == ["a.wav"]
    assert found.other_files == 0


def test_a_hidden_folder_that_is_given_itself_is_scanned(sounds):
    make(sounds, ".archive/a.wav")
    assert names(scan([sounds / ".archive"]), sounds) == [".archive/a.wav"]


def test_a_file_that_is_given_itself_counts_whatever_its_ending(sounds):
    make(sounds, "take.one", "b.wav")
    assert names(scan([sounds / "take.one"]), sounds) == ["take.one"]


def test_links_are_followed_and_loops_end(sounds, tmp_path):
    make(sounds, "a.wav", "deep/b.wav")
    make(tmp_path / "elsewhere", "c.wav")
    (sounds / "deep" / "up").symlink_to(sounds)
    (sounds / "itself").symlink_to(sounds / "itself")
    (sounds / "other").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(sounds)
    found = scan([sounds])
    assert names(found, sounds) == ["a.wav", "deep/b.wav", "other/c.wav"]
    assert [path for path, _ in found.problems] == [str(sounds / "itself")]


def test_a_file_that_can_be_reached_twice_counts_once_by_the_way_without_links(sounds):
    make(sounds, "z/a.wav")
    (sounds / "a_link").symlink_to(sounds / "z")
    (sounds / "b_link.wav").symlink_to(sounds / "z" / "a.wav")
    assert names(scan([sounds]), sounds) == ["z/a.wav"]
    assert names(scan([sounds / "z", sounds, sounds / "z" / "a.wav"]), sounds) == ["z/a.wav"]


def test_a_folder_has_one_name_through_whichever_link_it_is_given(sounds, tmp_path, monkeypatch):
    make(sounds, "deep/a.wav")
    (tmp_path / "link").symlink_to(sounds)
    monkeypatch.chdir(sounds)
    for given in (tmp_path / "link", "deep", "./deep/../deep/", str(tmp_path / "link" / "deep")):
        assert list(scan([given]).files) == [str(sounds / "deep" / "a.wav")]


def test_a_given_link_to_a_file_keeps_its_own_name(sounds):
    make(sounds, "blobs/5f3a")
    (sounds / "dog.wav").symlink_to(sounds / "blobs" / "5f3a")
    assert names(scan([sounds / "dog.wav"]), sounds) == ["dog.wav"]
    assert names(scan([sounds]), sounds) == ["dog.wav"]  # and so does one that is found


def test_a_dangling_link_is_listed(sounds):
    (sounds / "gone.wav").symlink_to(sounds / "nothing.wav")
    found = scan([sounds])
    assert found.files == {}
    assert found.problems == [(str(sounds / "gone.wav"), "a link to something that does not exist")]


def test_a_pipe_and_a_socket_are_never_opened(sounds, monkeypatch):
    os.mkfifo(sounds / "pipe.wav")  # to open it would wait for a writer for ever
    monkeypatch.chdir(sounds)  # the name of a socket is at most 108 bytes long
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.wav")
        os.mkfifo("pipe")
        found = scan([sounds])
    assert found.files == {}
    assert sorted(found.problems) == [
        (str(sounds / "pipe.wav"), "a device, pipe or socket, not a file"),
        (str(sounds / "socket.wav"), "a device, pipe or socket, not a file"),
    ]
    assert found.other_files == 0


def test_names_in_any_encoding_are_found(sounds):
    name = os.fsdecode(b"caf\xe9 \xff.wav")
    try:
        (sounds / name).write_bytes(b"12345")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert list(scan([sounds]).files) == [os.path.join(sounds, name)]


def test_an_unreadable_folder_is_listed_and_the_others_are_scanned(sounds, monkeypatch):
    make(sounds, "a.wav", "locked/b.wav")
    scandir = os.scandir

    def refuse(path):
        if os.path.basename(path) == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(scanning.os, "scandir", refuse)
    found = scan([sounds])
    assert names(found, sounds) == ["a.wav"]
    assert found.problems == [(str(sounds / "locked"), "Permission denied")]
    assert found.blocked == [str(sounds / "locked")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_listed(sounds):
    make(sounds, "a.wav", "locked/b.wav")
    (sounds / "locked").chmod(0)
    try:
        found = scan([sounds])
    finally:
        (sounds / "locked").chmod(0o700)
    assert found.problems == [(str(sounds / "locked"), "Permission denied")]


def test_a_file_that_vanishes_during_the_scan_is_no_error(sounds, monkeypatch):
    make(sounds, "a.wav", "b.wav")
    stat = os.stat

    def vanish(path, **options):
        if str(path).endswith("b.wav"):
            raise FileNotFoundError(2, "No such file or directory", path)
        return stat(path, **options)

    monkeypatch.setattr(scanning.os, "stat", vanish)
    found = scan([sounds])
    assert names(found, sounds) == ["a.wav"]
    assert found.problems == []


def test_a_path_that_does_not_exist_is_an_error_that_names_it(sounds):
    with pytest.raises(RetrievalError, match=r"nowhere: found no such folder or file, expected recordings"):
        scan([sounds, sounds / "nowhere"])
    make(sounds, "a.wav")
    with pytest.raises(RetrievalError, match=r"below: found no such"):
        scan([sounds / "a.wav" / "below"])


def test_no_path_is_an_error():
    with pytest.raises(RetrievalError, match="found no folder"):
        scan([])


def test_below_is_told_by_whole_names():
    assert is_below("/a/b", "/a")
    assert is_below("/a", "/a")
    assert is_below("/a", "/")
    assert not is_below("/ab", "/a")


def test_endings_are_compared_in_lower_case():
    assert all(is_recording(name) for name in ("a.wav", "A.WAV", "b.Opus", "c.tar.m4a", "/x.y/d.w64"))
    assert not any(is_recording(name) for name in ("wav", "a.txt", "a.wav.part", "a.", "/x.wav/readme"))


def test_the_home_folder_may_be_abbreviated(monkeypatch, sounds):
    monkeypatch.setenv("HOME", str(sounds))
    assert canonical("~/a.wav") == str(sounds / "a.wav")
