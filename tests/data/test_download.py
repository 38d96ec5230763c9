"""Downloads from a server on this machine that breaks off, and archives that are not what they should be."""

import contextlib
import hashlib
import http.server
import os
import pathlib
import re
import subprocess
import threading

import datasets
import numpy as np
import py7zr
import pytest

from modeling_cnn10bert.data import download as downloads
from modeling_cnn10bert.data import prepare as preparation
from modeling_cnn10bert.data.download import RemoteFile, download, extract
from modeling_cnn10bert.data.entries import Entry
from modeling_cnn10bert.data.prepare import prepare_dataset
from modeling_cnn10bert.data.recipes import clotho
from modeling_cnn10bert.data.recipes.audio_folder import CAPTIONS
from modeling_cnn10bert.errors import DataError

CONTENT = np.random.default_rng(0).bytes(3_000_000)


class Server(http.server.ThreadingHTTPServer):
    """
    Serves `files`, path -> content, and keeps the `requests`, (path, start). It breaks the connection off after
    `cut_after` bytes of each of the next `cuts` answers; `ranges = False` ignores ranges.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.requests, self.cuts, self.cut_after, self.ranges = {}, [], 0, 0, True
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        pass


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, path = self.server, self.path.split("?")[0]
        content = server.files.get(path)
        if content is None:
            return self.send_error(404)
        found = re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) if server.ranges else None
        start = int(found[1]) if found else 0
        server.requests.append((path, start))
        if found and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if found else 200)
        if found:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = len(content)
        if server.cuts:
            server.cuts, end = server.cuts - 1, start + server.cut_after
        self.wfile.write(content[start:end])
        self.wfile.flush()

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE", 0.0)


@pytest.fixture
def remote(server):
    """Puts a content on the server."""

    def put(content=CONTENT, checksum=None):
        server.files["/file.bin"] = content
        return RemoteFile("file.bin", f"{server.url}/file.bin", checksum or hashlib.md5(content).hexdigest())

    return put


@contextlib.contextmanager
def small_disk(folder, megabytes):
    """A file system of this size in `folder`; skips where it may not be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# ------------------------------------------------------------------------------------------------------- downloads


def test_a_file_is_downloaded_once(remote, server, tmp_path):
    file = remote()
    for _ in range(2):
        assert download(file, tmp_path / "downloads").read_bytes() == CONTENT
    assert server.requests == [("/file.bin", 0)]
    assert [path.name for path in (tmp_path / "downloads").iterdir()] == ["file.bin"]


def test_a_broken_connection_is_taken_up_where_it_ended(remote, server, tmp_path):
    server.cuts, server.cut_after = 2, 1_200_000
    assert download(remote(), tmp_path).read_bytes() == CONTENT
    starts = [start for _, start in server.requests]
    assert starts[0] == 0
    assert len(starts) == 3
    assert 0 < starts[1] < starts[2] <= 2_400_000


def test_the_next_run_takes_up_what_the_last_one_left(remote, server, tmp_path):
    server.cuts, server.cut_after = 100, 0
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1_500_000])
    with pytest.raises(DataError, match=r"5 attempts; 1500000 bytes are kept in .*file\.bin\.part.*continues"):
        download(remote(), tmp_path)
    server.cuts, server.requests[:] = 0, []
    assert download(remote(), tmp_path).read_bytes() == CONTENT
    assert server.requests == [("/file.bin", 1_500_000)]


def test_a_server_that_knows_no_ranges_is_read_from_the_beginning(remote, server, tmp_path):
    server.ranges = False
    (tmp_path / "file.bin.part").write_bytes(b"something else" * 1000)
    assert download(remote(), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("length", [len(CONTENT), len(CONTENT) + 10])
def test_a_part_that_is_whole_or_too_long(length, remote, tmp_path):
    (tmp_path / "file.bin.part").write_bytes((CONTENT + b"0123456789")[:length])
    assert download(remote(), tmp_path).read_bytes() == CONTENT


def test_a_wrong_md5_is_an_error_and_the_next_run_begins_anew(remote, server, tmp_path):
    file = remote(checksum="0" * 32)
    with pytest.raises(DataError, match=r"file\.bin.*found the MD5 \w{32} of 3000000 bytes, expected 0{32}"):
        download(file, tmp_path)
    assert not list(tmp_path.iterdir())
    assert download(remote(), tmp_path).read_bytes() == CONTENT


def test_a_sha512_is_verified_like_an_md5(remote, tmp_path):
    assert download(remote(checksum=hashlib.sha512(CONTENT).hexdigest()), tmp_path / "right").is_file()
    with pytest.raises(DataError, match=r"found the SHA512 \w{128} of 3000000 bytes, expected 0{128}"):
        download(remote(checksum="0" * 128), tmp_path / "wrong")


def test_a_file_at_hand_is_verified_too(remote, tmp_path):
    (tmp_path / "file.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(DataError, match="found the MD5 .* of 2999999 bytes, expected .*; delete the file"):
        download(remote(), tmp_path)
    assert (tmp_path / "file.bin").stat().st_size == 2_999_999


def test_a_file_that_the_server_has_not_is_named(server, tmp_path):
    with pytest.raises(DataError, match=r"absent: the server answered 404"):
        download(RemoteFile("absent", f"{server.url}/absent", "0" * 32), tmp_path)


def test_a_server_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9/file: .*5 attempts; 0 bytes"):
        download(RemoteFile("file", "http://127.0.0.1:9/file", "0" * 32), tmp_path)


def test_a_full_disk_keeps_the_part_and_the_next_run_takes_it_up(remote, server, tmp_path):
    with small_disk(tmp_path / "disk", 2) as disk:
        (disk / "ballast").write_bytes(bytes(1 << 20))
        with pytest.raises(DataError, match=r"no space left on the disk .*free some and run the command again"):
            download(remote(CONTENT[:1_900_000]), disk)
        kept = (disk / "file.bin.part").stat().st_size
        assert kept > 500_000
        (disk / "ballast").unlink()
        server.requests.clear()
        assert download(remote(CONTENT[:1_900_000]), disk).read_bytes() == CONTENT[:1_900_000]
        assert server.requests == [("/file.bin", kept)]


# -------------------------------------------------------------------------------------------------------- archives


@pytest.fixture
def archive(tmp_path, write_tone):
    """A 7z archive of a folder `sounds` of three recordings."""
    for number in range(3):
        write_tone(tmp_path / "in" / "sounds" / f" {number} &amp; more.wav", 400 + 100 * number)
    with py7zr.SevenZipFile(tmp_path / "sounds.7z", "w") as file:
        file.writeall(tmp_path / "in" / "sounds", "sounds")
    return tmp_path / "sounds.7z"


def test_an_archive_is_extracted_once(archive, tmp_path, snapshot):
    extract(archive, tmp_path / "out" / "sounds")
    contents = {path.name: path.read_bytes() for path in (tmp_path / "out" / "sounds").iterdir()}
    assert contents == {path.name: path.read_bytes() for path in (tmp_path / "in" / "sounds").iterdir()}
    assert os.listdir(tmp_path / "out") == ["sounds"]
    archive.unlink()
    extract(archive, tmp_path / "out" / "sounds")


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_archive_leaves_nothing(kept, archive, tmp_path):
    content = archive.read_bytes()
    archive.write_bytes(content[: round(kept * len(content))])
    with pytest.raises(DataError, match=r"sounds\.7z: found \d+ bytes that do not extract .*expected a whole"):
        extract(archive, tmp_path / "out" / "sounds")
    assert not os.listdir(tmp_path / "out")


def test_a_damaged_archive_leaves_nothing(archive, tmp_path):
    content = bytearray(archive.read_bytes())
    content[200:400] = bytes(200)
    archive.write_bytes(content)
    with pytest.raises(DataError, match="bytes that do not extract"):
        extract(archive, tmp_path / "out" / "sounds")
    assert not os.listdir(tmp_path / "out")


@pytest.mark.parametrize(
    "name",
    [
        "../escaped.wav",
        "sounds/../../escaped.wav",
        "/tmp/escaped.wav",
        "..\\escaped.wav",
        "C:\\escaped.wav",
        "C:escaped.wav",
    ],
)
def test_an_entry_that_would_leave_the_folder_is_refused(name, tmp_path):
    with py7zr.SevenZipFile(tmp_path / "bad.7z", "w") as file:
        file.writestr(b"fine", "sounds/fine.wav")
        file._writestr(b"escaped", name)  # the public method refuses such names
    with pytest.raises(DataError, match=r"bad\.7z: found the entry .*escaped\.wav', which is a path that"):
        extract(tmp_path / "bad.7z", tmp_path / "out" / "sounds")
    assert not os.listdir(tmp_path / "out")
    assert not list(tmp_path.rglob("*escaped*"))
    assert not pathlib.Path("/tmp/escaped.wav").exists()


@pytest.mark.parametrize(
    "names",
    [
        ["sounds/a", "sounds/a/b.wav"],
        ["sounds/a/b.wav", "sounds/a"],
        ["sounds", "sounds/a.wav"],
        ["sounds/" + "a" * 300],
    ],
)
def test_entries_that_no_folder_can_hold_are_refused(names, tmp_path):
    with py7zr.SevenZipFile(tmp_path / "bad.7z", "w") as file:
        for name in names:
            file.writestr(b"sound", name)
    with pytest.raises(DataError, match=r"bad\.7z: found .* bytes that do not extract"):
        extract(tmp_path / "bad.7z", tmp_path / "out" / "sounds")
    assert not os.listdir(tmp_path / "out")


def test_a_link_is_refused(tmp_path):
    (tmp_path / "in" / "sounds").mkdir(parents=True)
    (tmp_path / "in" / "sounds" / "link.wav").symlink_to("/etc/passwd")
    with py7zr.SevenZipFile(tmp_path / "bad.7z", "w") as file:
        file.writeall(tmp_path / "in" / "sounds", "sounds")
    with pytest.raises(DataError, match=r"found the entry 'sounds/link\.wav', which is no plain file"):
        extract(tmp_path / "bad.7z", tmp_path / "out" / "sounds")


def test_another_archive_is_refused(archive, tmp_path):
    with pytest.raises(DataError, match=r"found 4 entries and no folder development"):
        extract(archive, tmp_path / "out" / "development")


def test_extraction_on_a_full_disk_leaves_nothing_and_can_be_repeated(archive, tmp_path):
    with small_disk(tmp_path / "disk", 1) as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(950_000))
        with pytest.raises(DataError, match="no space left on the disk"):
            extract(archive, disk / "sounds")
        assert os.listdir(disk) == ["ballast"]
        ballast.unlink()
        extract(archive, disk / "sounds")
        assert len(os.listdir(disk / "sounds")) == 3


def test_an_archive_of_more_than_the_disk_holds_is_refused_before_it_is_extracted(tmp_path):
    with py7zr.SevenZipFile(tmp_path / "zeros.7z", "w") as file:
        file.writestr(bytes(30_000_000), "sounds/zeros.wav")
    assert (tmp_path / "zeros.7z").stat().st_size < 100_000
    with small_disk(tmp_path / "disk", 1) as disk:
        with pytest.raises(DataError, match=r"no space left on the disk for what is in it \(found 30 MB"):
            extract(tmp_path / "zeros.7z", disk / "sounds")
        assert not os.listdir(disk)


def test_preparation_on_a_full_disk_goes_on_when_there_is_space(tmp_path, write_tone, monkeypatch):
    monkeypatch.setattr(preparation, "ENTRIES_OF_A_SHARD", 2)
    paths = [write_tone(tmp_path / "in" / f"{number}.wav", 440 + number, 3.0) for number in range(8)]
    splits = {"train": [Entry(path.name, path, {"captions": ["a tone"]}) for path in paths]}
    columns = datasets.Features({"captions": CAPTIONS})
    with small_disk(tmp_path / "disk", 6) as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(5_700_000))
        with pytest.raises(DataError, match=r"no space left on the disk .*continues with what is missing"):
            prepare_dataset(splits, columns, disk / "out")
        with pytest.raises(FileNotFoundError):
            datasets.load_from_disk(disk / "out")
        ballast.unlink()
        assert prepare_dataset(splits, columns, disk / "out").prepared == {"train": 8}
        assert len(datasets.load_from_disk(disk / "out")["train"]) == 8


# ---------------------------------------------------------------------------------------------- Clotho, from nothing


@pytest.fixture
def zenodo(server, tmp_path, write_csv, write_tone, monkeypatch):
    """A server with a small Clotho of the published structure, and the challenge's test set."""
    md5 = {}

    def put(path, record):
        content = path.read_bytes()
        md5[path.name] = hashlib.md5(content).hexdigest()
        server.files[f"/records/{record}/files/{path.name}"] = content

    def put_archive(name, folder):
        with py7zr.SevenZipFile(tmp_path / "publisher" / name, "w") as file:
            file.writeall(folder, folder.name)
        return tmp_path / "publisher" / name

    publisher = tmp_path / "publisher"
    captions = ["file_name", *(f"caption_{number}" for number in range(1, 6))]
    for name in clotho.SPLITS.values():
        names = [f"{number}.wav" for number in range(3)] + [f" odd &amp; {name}.wav"]
        for number, file_name in enumerate(names):
            write_tone(publisher / name / file_name, 400 + 100 * number)
        put(put_archive(f"clotho_audio_{name}.7z", publisher / name), clotho.RECORD)
        rows = [[file_name, *"abcde"] for file_name in names]
        put(write_csv(publisher / f"clotho_captions_{name}.csv", captions, *rows), clotho.RECORD)
        metadata = write_csv(publisher / f"clotho_metadata_{name}.csv", ["file_name", "license"], ["1.wav", "CC0"])
        put(metadata, clotho.RECORD)
    for file_name in ("x_y.wav", "z.wav"):
        write_tone(publisher / "test" / file_name)
    put(put_archive("retrieval_audio.7z", publisher / "test"), clotho.CHALLENGE_RECORD)
    metadata = write_csv(publisher / "retrieval_audio_metadata.csv", ["file_name", "license"], ["x:y.wav", "CC0"])
    put(metadata, clotho.CHALLENGE_RECORD)
    put(write_csv(publisher / "retrieval_captions.csv", ["caption"], ["a query"]), clotho.CHALLENGE_RECORD)
    for table in ("MD5_OF_RECORD", "MD5_OF_CHALLENGE_RECORD"):
        monkeypatch.setattr(clotho, table, {name: md5[name] for name in getattr(clotho, table)})
    return server


def test_clotho_from_nothing(zenodo, tmp_path, cnn10bert, snapshot):
    zenodo.cuts, zenodo.cut_after = 4, 3000
    out = tmp_path / "out"
    arguments = [str(out), "--mirror", zenodo.url, "--num_proc", "1"]
    printed = cnn10bert("prepare", "clotho", *arguments).stdout
    tables = datasets.load_from_disk(out)
    assert tables.num_rows == {"train": 4, "validation": 4, "test": 4}
    assert tables["train"]["captions"][0] == list("abcde")
    assert sorted(tables["test"]["license"][:]) == ["", "", "", "CC0"]
    assert "test: 4 of 4 recordings" in printed

    before = snapshot(out)
    zenodo.requests.clear()
    cnn10bert("prepare", "clotho", *arguments)
    assert snapshot(out) == before
    assert not zenodo.requests

    for folder in ("audio", "downloads"):
        for path in sorted((out / folder).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        (out / folder).rmdir()
    cnn10bert("prepare", "clotho", *arguments)
    assert not zenodo.requests

    cnn10bert("prepare", "clotho", *arguments, "--challenge_test")
    tables = datasets.load_from_disk(out)
    assert tables.num_rows == {"train": 4, "validation": 4, "test": 4, "challenge_test": 2}
    assert {row["file_name"]: (row["captions"], row["license"]) for row in tables["challenge_test"]} == {
        "x_y.wav": ([], "CC0"),
        "z.wav": ([], ""),
    }
    assert (out / "retrieval_captions.csv").read_text() == "caption\na query\n"


def test_clotho_from_archives_at_hand_verifies_them(zenodo, tmp_path, cnn10bert):
    publisher = tmp_path / "publisher"
    arguments = [str(tmp_path / "out"), "--mirror", zenodo.url, "--archives", str(publisher), "--num_proc", "1"]
    (publisher / "clotho_audio_validation.7z").write_bytes(b"half an archive")
    assert "clotho_audio_validation.7z: found the MD5" in cnn10bert("prepare", "clotho", *arguments, code=1).stderr
    with pytest.raises(FileNotFoundError):
        datasets.load_from_disk(tmp_path / "out")
    (publisher / "clotho_audio_validation.7z").unlink()
    cnn10bert("prepare", "clotho", *arguments)
    assert [path for path, _ in zenodo.requests] == ["/records/4783391/files/clotho_audio_validation.7z"]
    assert datasets.load_from_disk(tmp_path / "out").num_rows == {"train": 4, "validation": 4, "test": 4}


def test_clotho_from_extracted_recordings(zenodo, tmp_path, cnn10bert):
    cnn10bert("prepare", "clotho", str(tmp_path / "out"), "--audio", str(tmp_path / "publisher"), "--num_proc", "1")
    assert not zenodo.requests
    assert datasets.load_from_disk(tmp_path / "out").num_rows == {"train": 4, "validation": 4, "test": 4}


def test_two_downloads_at_once_fetch_every_file_once(zenodo, tmp_path, cnn10bert, start):
    arguments = ["prepare", "clotho", tmp_path / "out", "--mirror", zenodo.url, "--num_proc", "1"]
    processes = [start(cnn10bert, *arguments) for _ in range(2)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(zenodo.requests) == len(set(zenodo.requests)) == 9
    assert datasets.load_from_disk(tmp_path / "out").num_rows == {"train": 4, "validation": 4, "test": 4}
