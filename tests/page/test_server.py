"""What the server hands out, and what it does not: no file but clips and pictures of what was found."""

import io
import os
import re
import socket
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from modeling_cnn10bert.errors import AudioError

ROOT = Path(__file__).parents[2]
NO_FILTERS = ["", "", 0, 0, "", ""]

httpx = pytest.importorskip("httpx", reason="httpx is not installed (gradio brings it)")


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server, timeout=60) as client:
        yield client


def call(client, name, data):
    """What an event of the page answers, asked for as programs do: the last event of its stream, and its data."""
    joined = client.post(f"/gradio_api/call/{name}", json={"data": data})
    joined.raise_for_status()
    stream = client.get(f"/gradio_api/call/{name}/{joined.json()['event_id']}").text
    return re.findall(r"event: (\w+)\ndata: (.*)", stream)[-1]


@pytest.fixture(scope="module")
def answer(client):
    event, data = call(client, "search", ["a dog barks", "", *NO_FILTERS])
    assert event == "complete"
    return data.replace('\\"', '"')


@pytest.fixture(scope="module")
def keys(answer):
    return re.findall(r'src="clip/(\w+)"', answer)


def test_a_clip_is_the_found_part_of_the_recording_as_a_flac_file(client, answer, keys, sounds):
    name = re.search(r'class="name"[^>]*>(\w+\.flac)<', answer)[1]
    response = client.get(f"/clip/{keys[0]}")
    assert response.headers["content-type"] == "audio/flac"
    heard, rate = soundfile.read(io.BytesIO(response.content))
    expected, expected_rate = soundfile.read(sounds / name)
    assert rate == expected_rate and np.array_equal(heard, expected)  # both have 16 bits
    assert len(keys) == 10


def test_a_browser_may_ask_for_a_part_of_a_clip_to_wind_in_it(client, keys):
    whole = client.get(f"/clip/{keys[0]}").content
    part = client.get(f"/clip/{keys[0]}", headers={"Range": "bytes=100-199"})
    assert part.status_code == 206 and part.content == whole[100:200]


def test_a_picture_has_a_row_a_mel_bin(client, keys):
    response = client.get(f"/picture/{keys[0]}")
    assert response.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(response.content)).size == (501, 64)  # 5 s at 100 frames a second, and one


@pytest.mark.parametrize("target", ["/etc/passwd", "notes.txt", "siren.flac", "metadata.csv"])
@pytest.mark.parametrize(
    "route",
    [
        "/gradio_api/file={}",
        "/file={}",
        "/clip/{}",
        "/picture/{}",
        "/clip/../{}",
        "/static/../{}",
        "/gradio_api/stream/{}",
    ],
)
def test_no_file_is_had_by_its_path(client, sounds, route, target):
    path = target if target.startswith("/") else str(sounds / target)
    for written in (path, urllib.parse.quote(path, safe=""), "../" * 12 + path.lstrip("/")):
        response = client.get(route.format(written))
        assert response.status_code >= 400, response.text[:200]
        assert "root:" not in response.text and "a secret beside" not in response.text


@pytest.mark.parametrize("key", ["0" * 32, "%2e%2e", "%2e%2e%2fnotes.txt", "siren.flac"])
def test_a_key_that_no_answer_gave_finds_nothing(client, key):
    assert client.get(f"/clip/{key}").status_code in (404, 405)
    assert client.get(f"/picture/{key}").status_code in (404, 405)


@pytest.mark.parametrize("path", ["/etc/passwd", "{sounds}/siren.flac", "{server}/clip/{key}", "file:///etc/passwd"])
def test_a_recording_on_the_server_or_elsewhere_cannot_be_passed_off_as_an_upload(client, server, sounds, keys, path):
    path = path.format(sounds=sounds, server=server, key=keys[0])
    event, data = call(client, "similar", [{"path": path, "meta": {"_type": "gradio.FileData"}}, *NO_FILTERS])
    assert event == "error" and "hits" not in data


def test_nothing_is_fetched_from_an_address_in_place_of_an_upload(client, monkeypatch):
    from gradio import processing_utils

    asked = []

    async def fetch(url, *_, **__):
        asked.append(url)

    monkeypatch.setattr(processing_utils, "async_ssrf_protected_download", fetch)
    event, _ = call(
        client, "similar", [{"path": "HTTPS://1.1.1.1/x.wav", "meta": {"_type": "gradio.FileData"}}, *NO_FILTERS]
    )
    assert event == "error" and asked == []


@pytest.mark.parametrize(
    ("host", "names", "code"), [("127.0.0.1", [], 200), ("0.0.0.0", [], 413), ("127.0.0.1", ["sounds.example"], 413)]
)
def test_an_upload_above_the_limit_is_refused_while_it_arrives_unless_it_is_one_s_own(
    library, monkeypatch, host, names, code
):
    from starlette.testclient import TestClient

    from modeling_cnn10bert.page import answers
    from modeling_cnn10bert.page.server import make_app

    monkeypatch.setattr(answers, "MAX_UPLOAD_BYTES", 1 << 20)
    visitor = TestClient(make_app(library, host, names), base_url="http://127.0.0.1")
    too_much = io.BytesIO(bytes(2 << 20))
    assert visitor.post("/gradio_api/upload", files={"files": ("long.wav", too_much)}).status_code == code


@pytest.mark.parametrize("path", ["/", "/config", "/clip/{key}", "/picture/{key}", "/gradio_api/info"])
def test_a_name_that_is_not_this_page_s_is_not_answered(client, keys, path):
    path = path.format(key=keys[0])
    port = client.base_url.port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", f"192.0.2.7:{port}", "", "[::"):
        response = client.get(path, headers={"Host": host})
        assert response.status_code == 403 and "--allow_host" in response.text
    for host in (f"127.0.0.1:{port}", "127.0.0.1", f"localhost:{port}", f"LOCALHOST:{port}", f"[::1]:{port}"):
        assert client.get(path, headers={"Host": host}).status_code == 200


ORIGINS = ["http://evil.example", "http://localhost:1", "http://127.0.0.1:9999", "https://127.0.0.1:1", "null", "x"]


@pytest.mark.parametrize("origin", ORIGINS)
def test_another_page_reads_nothing_and_asks_nothing(client, keys, origin):
    for path in ("/", "/config", f"/clip/{keys[0]}", "/gradio_api/info"):
        response = client.get(path, headers={"Origin": origin})
        assert not [name for name in response.headers if name.startswith("access-control-")]
    asked = {"json": {"data": ["a dog barks", "", *NO_FILTERS]}, "headers": {"Origin": origin}}
    assert client.post("/gradio_api/call/search", **asked).status_code == 403
    files = {"files": ("x.wav", b"RIFF")}
    assert client.post("/gradio_api/upload", files=files, headers={"Origin": origin}).status_code == 403
    preflight = client.options(
        "/gradio_api/upload", headers={"Origin": origin, "Access-Control-Request-Method": "POST"}
    )
    assert preflight.status_code == 403


def test_the_page_itself_may_ask(client, server):
    asked = client.post(
        "/gradio_api/call/search", json={"data": ["a dog", "", *NO_FILTERS]}, headers={"Origin": server}
    )
    assert asked.status_code == 200


def test_a_page_is_known_by_where_it_listens():
    from modeling_cnn10bert.page.server import hosts_of

    assert hosts_of("127.0.0.1") == hosts_of("localhost") == {"127.0.0.1", "localhost", "::1"}
    assert hosts_of("192.0.2.7") == {"192.0.2.7"}
    assert {"localhost", socket.gethostname().lower()} <= hosts_of("0.0.0.0")


def test_behind_a_proxy_its_name_is_answered(library):
    from starlette.testclient import TestClient

    from modeling_cnn10bert.page.server import make_app

    app, file = make_app(library, "192.0.2.7", ["Sounds.example"]), {"files": {"files": ("x.wav", b"RIFF")}}
    for host, origin, code in [
        ("http://sounds.example", "https://sounds.example", 200),
        ("http://192.0.2.7:80", "https://sounds.example", 200),
        ("http://192.0.2.7", "http://192.0.2.7:9999", 403),
        ("http://evil.example", "http://evil.example", 403),
    ]:
        asked = TestClient(app, base_url=host).post("/gradio_api/upload", **file, headers={"Origin": origin})
        assert asked.status_code == code, (host, origin)
    anyone = TestClient(make_app(library, "0.0.0.0", ["*"]), base_url="http://evil.example")
    assert anyone.get("/clip/0").status_code == 404


@pytest.mark.parametrize("fault", [AudioError("gone"), ValueError("a codec's"), MemoryError(), RuntimeError("late")])
def test_what_cannot_be_made_of_a_recording_any_more_is_gone_in_one_line(client, keys, monkeypatch, fault):
    from modeling_cnn10bert.page.clip_cache import ClipCache

    def fail(clip_cache, key):
        raise fault

    for route in ("clip", "picture"):
        monkeypatch.setattr(ClipCache, route, fail)
        response = client.get(f"/{route}/{keys[0]}")
        assert response.status_code == 410 and response.text.count("\n") == 0


@pytest.fixture
def start_app(sounds, model_folder, tmp_path):
    """Starts the page as its own command does, with a folder for temporary files of its own."""
    started = []

    def start():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (tmp_path / "temporary").mkdir(exist_ok=True)
        command = [sys.executable, str(ROOT / "scripts" / "app.py"), "--folder", str(sounds), "--port", str(port)]
        environment = os.environ | {"TMPDIR": str(tmp_path / "temporary"), "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [*command, "--model", str(model_folder)], env=environment, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        for _ in range(1200):
            assert process.poll() is None, process.stderr.read()
            try:
                client.get("/config")
                return process, client, tmp_path / "temporary"
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError("the page did not start")

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_recordings_of_visitors_go_with_the_server_and_those_of_a_killed_one_with_the_next(start_app):
    def upload(client):
        files = {"files": ("mine.wav", b"RIFF of a visitor")}
        return client.post("/gradio_api/upload", files=files).raise_for_status().json()[0]

    process, client, temporary = start_app()
    left = Path(upload(client))
    process.kill()
    process.wait()
    assert left.is_file() and temporary in left.parents
    process, client, _ = start_app()
    assert not left.exists()
    assert Path(upload(client)).is_file()
    with client.stream("GET", "/gradio_api/queue/data?session_hash=waits"):  # an answer under way holds nothing up
        process.terminate()
        assert process.wait(60) == 143
    assert process.stderr.read().splitlines()[-1].startswith("ended by SIGTERM; start it again with: ")
    assert list(temporary.rglob("*.wav")) == [] and not list(temporary.glob("cnn10bert-*"))


def test_the_browser_is_told_to_ask_nobody_else(client):
    policy = client.get("/").headers["content-security-policy"]
    assert policy.startswith("default-src 'self';") and "http" not in policy


def test_the_server_listens_on_this_machine_alone_unless_told_otherwise():
    import inspect

    from modeling_cnn10bert.page.server import serve

    assert inspect.signature(serve).parameters["host"].default == "127.0.0.1"
