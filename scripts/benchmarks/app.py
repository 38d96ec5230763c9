"""Measure the page under load from concurrent users who ask questions and upload recordings.

The page is a process of its own on loopback. Each user asks one question after the other without a pause, every tenth
by a recording, and fetches the first clips and pictures of each answer.
"""

import contextlib
import io
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import soundfile

from .harness import Row, figure, memory
from .inputs import save_model, write_clips

APP = Path(__file__).resolve().parents[1] / "app.py"
SOUNDS = ("a dog barks", "rain falls", "waves break", "a siren wails", "a bell rings", "an engine revs", "a bird sings")
PLACES = ("", " while people talk", " at night", " and a clock ticks", ", then a door is shut", " far away")
NO_FILTERS = ("", "", 0, 0, "", "")  # folder, format, durations and dates
UPLOAD_EVERY = 10  # questions
FETCHED = 3  # clips and pictures of an answer
START_SECONDS = 600  # indexing a folder may take as long


def measure(folder: Path, options) -> list[Row]:
    size = options.size
    model = options.model or save_model(folder / "model", "soundscapes_small.yaml", tiny=not size.apart)
    sounds = options.sources or folder / "sounds"
    if options.sources is None:
        write_clips(sounds, size.clips, None)
    with running_page(["--model", str(model), "--folder", str(sounds)]) as (process, address):
        held, began = [memory(process.pid)], time.monotonic()
        users = [User(number, address, began + size.seconds) for number in range(size.users)]
        for user in users:
            user.start()
        while time.monotonic() < began + size.seconds:
            time.sleep(1)
            held.append(memory(process.pid))
        for user in users:
            user.join()
        took = time.monotonic() - began
    errors = [error for user in users for error in user.errors]
    rows = [figure("errors", len(errors), at_most=0, note="; ".join(errors[:3]))]
    for kind in ("search", "similar", "clip", "picture"):
        milliseconds = [1e3 * seconds for user in users for seconds in user.seconds[kind]]
        if milliseconds:
            middle, high = np.percentile(milliseconds, [50, 95])
            note = f"p95 {high:.0f} ms of {len(milliseconds)}, {size.users} users, {took:.0f} s"
            rows.append(figure(f"{kind}, p50", middle, "ms", note=note))
    start, middle, end = (held[number] / 1e6 for number in (0, len(held) // 2, -1))
    growth = f"{start:.0f} MB at the start, {middle:.0f} MB in the middle"
    return [*rows, figure("memory of the server at the end", end, "MB", note=growth)]


class User(threading.Thread):
    """A user who asks until the end, and records the duration of each kind of request, and errors."""

    def __init__(self, number: int, address: str, end: float):
        super().__init__(daemon=True)
        self.number, self.end = number, end
        self.rng = random.Random(number)
        self.client = httpx.Client(base_url=address, timeout=60)
        self.seconds: dict[str, list[float]] = {"search": [], "similar": [], "clip": [], "picture": []}
        self.errors: list[str] = []

    def run(self) -> None:
        asked = self.number  # so that not all upload at the same time
        while time.monotonic() < self.end:
            asked += 1
            try:
                with self.timed("search" if asked % UPLOAD_EVERY else "similar") as kind:
                    text = self.rng.choice(SOUNDS) + self.rng.choice(PLACES)
                    data = [text, ""] if kind == "search" else self.upload()
                    answer = self.call(kind, [*data, *NO_FILTERS])
                for kind in ("clip", "picture"):
                    for address in re.findall(rf'src="({kind}/\w+)"', answer)[:FETCHED]:
                        with self.timed(kind):
                            self.client.get(f"/{address}").raise_for_status()
            except (httpx.HTTPError, ValueError, KeyError) as error:
                self.errors.append(f"{type(error).__name__}: {error}")

    @contextlib.contextmanager
    def timed(self, kind: str):
        started = time.monotonic()
        yield kind
        self.seconds[kind].append(time.monotonic() - started)

    def call(self, name: str, data: list) -> str:
        """Return the HTML of an answer."""
        body = {"data": data, "session_hash": f"user{self.number}"}
        event = self.client.post(f"/gradio_api/call/{name}", json=body).raise_for_status().json()["event_id"]
        stream = self.client.get(f"/gradio_api/call/{name}/{event}").raise_for_status().text
        kind, answer = re.findall(r"event: (\w+)\ndata: (.*)", stream)[-1]
        if kind != "complete" or "hits" not in answer:
            raise ValueError(f"{name}: {kind} {answer[:200]}")
        return json.loads(answer)[0]

    def upload(self) -> list:
        """Upload noise of 5 s that no user uploaded before."""
        noise = np.random.default_rng(self.rng.getrandbits(32)).standard_normal(5 * 32_000)
        file = io.BytesIO()
        soundfile.write(file, 0.1 * noise, 32_000, format="WAV")
        files = {"files": (f"noise{self.number}.wav", file.getvalue())}
        path = self.client.post("/gradio_api/upload", files=files).raise_for_status().json()[0]
        return [{"path": path, "meta": {"_type": "gradio.FileData"}}]


@contextlib.contextmanager
def running_page(arguments: list[str]):
    """Start a page and wait until it answers; yield its process and address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = os.pathsep.join([str(APP.parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths}
    process = subprocess.Popen([sys.executable, str(APP), *arguments, "--port", str(port)], env=environment)
    try:
        address, started = f"http://127.0.0.1:{port}", time.monotonic()
        while True:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(address, timeout=5).raise_for_status()
                break
            if process.poll() is not None or time.monotonic() - started > START_SECONDS:
                raise RuntimeError("the page did not start")
            time.sleep(0.5)
        yield process, address
    finally:
        process.terminate()
        process.wait()
