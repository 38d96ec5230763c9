"""Embed any number of windows mixed from real recordings, to measure a search on the vectors.

    python scripts/embed_windows.py MODEL --sources DIR --rows 1000000 --out FILE.npy [--window 4.0] [--workers 2]

A window holds one to three recordings of the folder, drawn with their onsets and gains from (seed, number of the row),
so a row does not depend on the number of workers. FILE.npy is [rows, D] float32, L2-normalized. Until it is complete,
it is called .FILE.npy.part, and the same command continues it.
"""

import argparse
import dataclasses
import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

from modeling_cnn10bert.errors import InputError

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one process per core; threads of one process would wait for each other
# glibc keeps the memory of spectrograms instead of asking the kernel for it a thousand times a second (a tenth of the
# time); it reads these when a process starts, so they are for the workers.
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**30))
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**30))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from tqdm import tqdm  # noqa: E402

from modeling_cnn10bert.data.recipes.soundscapes import Scene, SoundEvent, SourceBank, render  # noqa: E402
from modeling_cnn10bert.files import write_text  # noqa: E402
from modeling_cnn10bert.interrupts import orderly_exit  # noqa: E402
from modeling_cnn10bert.retrieval.embedding import load_embedder  # noqa: E402

MAX_SOUNDS = 3  # in a window
GAIN_RANGE_DB = (-20.0, 0.0)
MIN_HEARD = 0.5  # seconds of each sound that lie in the window, or the whole sound if it is shorter
BATCH = 16  # windows; larger batches exceed a core's cache: 1.0 ms per window at 16, 1.4 at 32
BLOCK = 512  # rows that a worker returns at once, which are the most that it loses when stopped


@dataclasses.dataclass(frozen=True)
class Job:
    """The parameters that determine the rows of a file."""

    model: str
    fingerprint: str
    sources: tuple[str, ...]  # relative to `folder`
    folder: str
    rows: int
    window: float
    seed: int

    def digest(self) -> str:
        """Digest all that changes the rows or their number, which excludes the folders of model and recordings."""
        values = [self.fingerprint, self.sources, self.rows, self.window, self.seed]
        return hashlib.sha256(json.dumps(values).encode("utf-8", "surrogateescape")).hexdigest()


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    identity = load_embedder(args.model, device="cpu").identity
    job = Job(
        model=args.model,
        fingerprint=identity.fingerprint,
        sources=find_sources(args.sources),
        folder=str(args.sources),
        rows=args.rows,
        window=args.window,
        seed=args.seed,
    )
    write_rows(job, identity.dimension, args.out, args.workers)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder or Hub id with a model and its processor")
    parser.add_argument("--sources", type=Path, required=True, help="a folder of recordings, with folders in it")
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--window", type=float, default=4.0, help="seconds")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes of one thread each")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.rows < 1 or args.window <= 0 or args.workers < 1:
        parser.error("--rows, --window and --workers must be above 0")
    if not args.sources.is_dir() or not find_sources(args.sources):
        parser.error(f"{args.sources}: found no recordings (wav, flac, ogg, mp3), expected a folder of them")
    return args


def find_sources(folder: Path) -> tuple[str, ...]:
    endings = {".wav", ".flac", ".ogg", ".mp3"}
    return tuple(sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix.lower() in endings))


# ----------------------------------------------------------------------------------------------------------- a row


def draw_scene(row: int, job: Job, bank: SourceBank) -> Scene:
    """Draw the window of a row: its sounds, their times and their gains."""
    rng = np.random.default_rng((job.seed, row))
    events = [
        _draw_event(rng, job.sources[rng.integers(len(job.sources))], job.window, bank)
        for _ in range(rng.integers(1, MAX_SOUNDS + 1))
    ]
    return Scene(id=str(row), duration=job.window, labels=(), events=tuple(events), captions=())


def _draw_event(rng: np.random.Generator, source: str, window: float, bank: SourceBank) -> SoundEvent:
    """Place a recording randomly so that at least `MIN_HEARD` seconds of it are in the window."""
    length = len(bank.load(source)) / bank.sampling_rate
    heard = min(MIN_HEARD, length, window)
    onset = rng.uniform(heard - length, window - heard)  # if negative, its beginning is not in the window
    return SoundEvent(source, max(onset, 0.0), max(-onset, 0.0), length, rng.uniform(*GAIN_RANGE_DB))


class Worker:
    """The model and the recordings of one process, each loaded once."""

    def __init__(self, job: Job):
        torch.set_num_threads(1)
        self.job = job
        self.embedder = load_embedder(job.model, device="cpu", batch_size=BATCH)
        self.bank = SourceBank(job.folder, self.embedder.sampling_rate)

    def embed(self, rows: range) -> np.ndarray:
        """Return the embeddings [rows, D] float32, L2-normalized."""
        embeds = []
        for start in range(0, len(rows), BATCH):
            scenes = [draw_scene(row, self.job, self.bank) for row in rows[start : start + BATCH]]
            embeds.append(self.embedder.embed_audio([render(scene, self.bank) for scene in scenes]))
        return np.concatenate(embeds)


_worker: Worker  # of this process


def _start(job: Job) -> None:
    global _worker
    _worker = Worker(job)


def _embed(rows: range) -> np.ndarray:
    return _worker.embed(rows)


# -------------------------------------------------------------------------------------------------------- the file


def write_rows(job: Job, dimension: int, out: Path, workers: int) -> None:
    """Write the missing rows in order; at the end the file gets its final name."""
    part, state = out.with_name(f".{out.name}.part"), out.with_name(f".{out.name}.state.json")
    if out.exists():
        raise SystemExit(f"{out}: found a file, expected none; remove it, or give another --out")
    done = rows_done(part, state, job)
    if done == 0:
        reserve(part, job.rows, dimension)
    header = part.stat().st_size - job.rows * dimension * 4
    with part.open("r+b") as file, tqdm(total=job.rows, initial=done, unit="window", smoothing=0.05) as bar:
        file.seek(header + done * dimension * 4)
        for embeds in embed_all(job, done, workers):
            file.write(embeds.tobytes())
            file.flush()
            done += len(embeds)
            write_text(state, json.dumps({"digest": job.digest(), "rows": done}))
            bar.update(len(embeds))
    os.replace(part, out)
    state.unlink()
    print(f"{out}: {job.rows} embeddings of {dimension} values, {out.stat().st_size / 2**20:.0f} MB")


def embed_all(job: Job, done: int, workers: int) -> Iterator[np.ndarray]:
    """Yield the rows from `done` on, in blocks, in order."""
    blocks = [range(start, min(start + BLOCK, job.rows)) for start in range(done, job.rows, BLOCK)]
    # Spawned, because a fork would inherit locks of threads that it does not have.
    with multiprocessing.get_context("spawn").Pool(workers, _start, (job,)) as pool:
        yield from pool.imap(_embed, blocks)


def rows_done(part: Path, state: Path, job: Job) -> int:
    """Return the number of rows that an earlier, stopped run of the same job has written."""
    if not part.exists() or not state.exists():
        return 0
    found = json.loads(state.read_text(encoding="utf-8"))
    if found["digest"] != job.digest():
        raise SystemExit(
            f"{part}: found the beginning of a file of another model, folder, --rows, --window or --seed; "
            f"give those again, or remove {part} and {state}"
        )
    return found["rows"]


def reserve(part: Path, rows: int, dimension: int) -> None:
    """Write an .npy file of zeros, to find out at once whether the disk has enough room."""
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, dimension)}
        np.lib.format.write_array_header_1_0(file, header)
        try:
            os.posix_fallocate(file.fileno(), file.tell(), rows * dimension * 4)
        except OSError as error:
            part.unlink()
            raise SystemExit(f"{part}: found no room for {rows * dimension * 4 / 2**30:.1f} GB ({error})") from error


if __name__ == "__main__":
    with orderly_exit():
        try:
            main()
        except InputError as error:
            raise SystemExit(f"error: {error}") from error
