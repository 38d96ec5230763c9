"""What the server hands out, and what it does not: no file but clips and pictures of what was found."""

import io
import re
import urllib.parse

import numpy as np
import pytest
import soundfile
from PIL import Image

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
    event, data = call(client, "search", ["a dog barks", ""])
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
    event, data = call(client, "similar", [{"path": path, "meta": {"_type": "gradio.FileData"}}])
    assert event == "error" and "hits" not in data


def test_nothing_is_fetched_from_an_address_in_place_of_an_upload(client, monkeypatch):
    from gradio import processing_utils

    asked = []

    async def fetch(url, *_, **__):
        asked.append(url)

    monkeypatch.setattr(processing_utils, "async_ssrf_protected_download", fetch)
    event, _ = call(client, "similar", [{"path": "HTTPS://1.1.1.1/x.wav", "meta": {"_type": "gradio.FileData"}}])
    assert event == "error" and asked == []


def test_an_upload_above_the_limit_is_refused_while_it_arrives(client, monkeypatch, server):
    from modeling_cnn10bert.page.answers import MAX_UPLOAD_BYTES

    too_much = io.BytesIO(bytes(MAX_UPLOAD_BYTES + (1 << 20)))
    assert client.post("/gradio_api/upload", files={"files": ("long.wav", too_much)}).status_code == 413


def test_the_browser_is_told_to_ask_nobody_else(client):
    policy = client.get("/").headers["content-security-policy"]
    assert policy.startswith("default-src 'self';") and "http" not in policy


def test_the_server_listens_on_this_machine_alone_unless_told_otherwise():
    import inspect

    from modeling_cnn10bert.page.server import serve

    assert inspect.signature(serve).parameters["host"].default == "127.0.0.1"
