"""Measures the page under load: users at once who ask, listen, look, and now and then upload a recording.

    python scripts/benchmark_app.py [--users 20] [--seconds 60] [--out FILE.json] -- [what scripts/app.py takes]

Starts the page in a process of its own on loopback. Each user asks one question after the other without a pause, by
words, every tenth time by a recording, and fetches the first clips and pictures of each answer. Prints answers, errors,
the time of an answer, and the server's memory, of which the second half of the run tells whether it is flat.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import random
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import soundfile

APP = Path(__file__).with_name("app.py")
SOUNDS = ["a dog barks", "rain falls", "waves break", "a siren wails", "a bell rings", "an engine revs", "a bird sings"]
PLACES = [
    "",
    " while people talk",
    " at night",
    " and a clock ticks",
    ", then a door is shut",
    " far away",
    " on a roof",
]
UPLOAD_EVERY = 10  # questions
FETCHED = 3  # clips and pictures of an answer
START_SECONDS = 600  # indexing a folder may take as long


class User(threading.Thread):
    """Asks until the end, and notes how long each answer took, by its kind, and what went wrong."""

    def __init__(self, number: int, address: str, end: float):
        super().__init__(daemon=True)
        self.number, self.end = number, end
        self.rng = random.Random(number)
        self.client = httpx.Client(base_url=address, timeout=60)
        self.seconds: dict[str, list[float]] = {"text": [], "recording": [], "clip": [], "picture": []}
        self.errors: list[str] = []

    def run(self) -> None:
        asked = self.number  # so that not all upload at the same time
        while time.monotonic() < self.end:
            asked += 1
            try:
                if asked % UPLOAD_EVERY:
                    text = self.rng.choice(SOUNDS) + self.rng.choice(PLACES)
                    answer = self.timed("text", lambda text=text: self.call("search", [text, ""]))
                else:
                    answer = self.timed("recording", self.similar)
                self.look(answer)
            except (httpx.HTTPError, ValueError, KeyError) as error:
                self.errors.append(f"{type(error).__name__}: {error}")

    def timed(self, kind: str, function):
        started = time.monotonic()
        result = function()
        self.seconds[kind].append(time.monotonic() - started)
        return result

    def call(self, name: str, data: list) -> str:
        """The HTML of an answer."""
        body = {"data": data, "session_hash": f"user{self.number}"}
        event = self.checked(self.client.post(f"/gradio_api/call/{name}", json=body)).json()["event_id"]
        stream = self.checked(self.client.get(f"/gradio_api/call/{name}/{event}")).text
        kind, data = re.findall(r"event: (\w+)\ndata: (.*)", stream)[-1]
        answer = json.loads(data)[0] if kind == "complete" else ""
        if 'class="hits"' not in answer:
            raise ValueError(f"{name}: {kind} {data[:200]}")
        return answer

    def similar(self) -> str:
        """Uploads noise of 5 s that no user uploaded before."""
        noise = np.random.default_rng(self.rng.getrandbits(32)).standard_normal(5 * 32_000)
        file = io.BytesIO()
        soundfile.write(file, 0.1 * noise, 32_000, format="WAV")
        files = {"files": (f"noise{self.number}.wav", file.getvalue())}
        path = self.checked(self.client.post("/gradio_api/upload", files=files)).json()[0]
        return self.call("similar", [{"path": path, "meta": {"_type": "gradio.FileData"}}])

    def look(self, answer: str) -> None:
        for kind in ("clip", "picture"):
            for address in re.findall(rf'src="({kind}/\w+)"', answer)[:FETCHED]:
                self.timed(kind, lambda address=address: self.checked(self.client.get(f"/{address}")))

    @staticmethod
    def checked(response: httpx.Response) -> httpx.Response:
        return response.raise_for_status()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--out", type=Path, help="a JSON file of the figures")
    parser.add_argument("app", nargs="*", help="arguments of scripts/app.py, after --")
    args = parser.parse_args()
    with running_page(args.app) as (process, address):
        result = measure(process.pid, address, args.users, args.seconds)
    print(json.dumps(result, indent=2))
    if args.out is not None:
        args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.exit(1 if result["errors"] else 0)


@contextlib.contextmanager
def running_page(arguments: list[str]):
    """The process of a page that answers, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(APP), *arguments, "--port", str(port)])
    try:
        address, started = f"http://127.0.0.1:{port}", time.monotonic()
        while True:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(address, timeout=5).raise_for_status()
                break
            if process.poll() is not None or time.monotonic() - started > START_SECONDS:
                raise SystemExit("the page did not start")
            time.sleep(0.5)
        yield process, address
    finally:
        process.terminate()
        process.wait()


def measure(pid: int, address: str, users: int, seconds: float) -> dict:
    memory = [(0.0, resident_mb(pid))]
    began = time.monotonic()
    everyone = [User(number, address, began + seconds) for number in range(users)]
    for user in everyone:
        user.start()
    while time.monotonic() < began + seconds:
        time.sleep(1)
        memory.append((time.monotonic() - began, resident_mb(pid)))
    for user in everyone:
        user.join()
    took = time.monotonic() - began
    errors = [error for user in everyone for error in user.errors]
    times = {kind: [value for user in everyone for value in user.seconds[kind]] for kind in everyone[0].seconds}
    second_half = [megabytes for at, megabytes in memory if at >= seconds / 2]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": f"{cpu_model()}, {len(os.sched_getaffinity(0))} cores shared by server and users",
        "python": platform.python_version(),
        "users": users,
        "seconds": round(took, 1),
        "answers": len(times["text"]) + len(times["recording"]),
        "errors": len(errors),
        "first_errors": errors[:3],
        **{f"{kind}_ms": milliseconds(values) for kind, values in times.items()},
        "memory_mb": {
            "start": memory[0][1],
            "middle": second_half[0],
            "end": second_half[-1],
            "second_half_low": min(second_half),
            "second_half_high": max(second_half),
        },
    }


def milliseconds(values: list[float]) -> dict[str, float]:
    if not values:
        return {"count": 0}
    p50, p95 = (round(1000 * float(np.percentile(values, rank)), 1) for rank in (50, 95))
    return {"count": len(values), "mean": round(1000 * statistics.mean(values), 1), "p50": p50, "p95": p95}


def resident_mb(pid: int) -> int:
    """Memory of a process that is not swapped out, in MB (Linux)."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) // 1024


def cpu_model() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


if __name__ == "__main__":
    main()
