"""A store in memory, a model that needs no torch, and recordings: what the tests of indexing share."""

import os
import signal
import time

import numpy as np
import pytest
import soundfile

from modeling_cnn10bert.retrieval.records import EmbeddedFile, Hit, IndexInfo, ModelIdentity
from modeling_cnn10bert.retrieval.stores.base import VectorStore
from modeling_cnn10bert.retrieval.stores.paths import decode_path
from modeling_cnn10bert.retrieval.stores.rows import rows_of

BANDS = 48


class SpectrumEmbedder:
    """Mean and deviation of a log spectrum through a fixed random projection; notes what it was given."""

    sampling_rate = 8000

    def __init__(self, dimension=16):
        self.identity = ModelIdentity("spectrum", None, f"spectrum-{dimension}", dimension, {"bands": BANDS})
        self.projection = np.random.default_rng(0).standard_normal((2 * BANDS, dimension)).astype(np.float32)
        self.batches = []  # lengths in samples

    def embed_audio(self, waveforms):
        self.batches.append([len(waveform) for waveform in waveforms])
        return np.stack([self._embed(waveform) for waveform in waveforms])

    def embed_text(self, texts):
        raise NotImplementedError("indexing embeds no text")

    def _embed(self, waveform):
        frames = np.pad(waveform, (0, -len(waveform) % 256)).reshape(-1, 256)
        power = np.abs(np.fft.rfft(frames))[:, :BANDS] ** 2
        log_power = np.log10(power + 1e-6)
        embed = np.concatenate([log_power.mean(axis=0), log_power.std(axis=0)]) @ self.projection
        return (embed / np.linalg.norm(embed)).astype(np.float32)


class MemoryStore(VectorStore):
    """What a kind of store adds, in a dictionary; notes what was written. A condition is a list of encoded paths."""

    location = "memory"
    paths_in_a_query = 2
    advice = dict.fromkeys(("read", "written"), "look at the test")
    condition = staticmethod(lambda where: "")
    among = staticmethod("\n".join)

    def __init__(self, info):
        self.info = info
        self.contents: dict[str, EmbeddedFile] = {}
        self.calls = []

    def _first_rows(self):
        return [rows_of(file)[0] for file in self.contents.values()]

    def _embedded_where(self, condition):
        paths = map(decode_path, condition.split("\n")) if condition else list(self.contents)
        yield from (self.contents[path] for path in paths if path in self.contents)

    def _find(self, query, count, condition):
        hits = [
            Hit(file.record, float(embed @ query), *span, embed)
            for file in self.contents.values()
            for span, embed in zip(file.spans, file.embeds, strict=True)
        ]
        hits.sort(key=lambda hit: -hit.score)
        return hits[:count], len(hits) <= count

    def _count(self, condition):
        return sum(len(file.spans) for file in self.contents.values())

    def _write(self, files, old_paths=()):
        self.calls.append(("relabel" if old_paths else "put", [file.record.path for file in files]))
        for path in old_paths:
            self.contents.pop(decode_path(path), None)
        for file in files:
            assert file.embeds.dtype == np.float32
            self.contents[file.record.path] = file

    def _delete(self, paths):
        self.calls.append(("remove", sorted(map(decode_path, paths))))
        for path in paths:
            self.contents.pop(decode_path(path), None)

    def _delete_if_empty(self):
        pass

    def _optimize(self):
        self.calls.append(("optimize", []))

    def close(self):
        pass


@pytest.fixture
def interruptible():
    """Control-C interrupts, as in a terminal: whoever runs the tests may have switched it off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def embedder():
    return SpectrumEmbedder()


@pytest.fixture
def new_embedder():
    """Makes further models like `embedder`."""
    return SpectrumEmbedder


@pytest.fixture
def new_store(embedder):
    """Makes empty stores in memory for `embedder`."""

    def make(window=2.0, overlap=0.5):
        return MemoryStore(IndexInfo(embedder.identity, window=window, overlap=overlap))

    return make


@pytest.fixture
def store(new_store):
    return new_store()


@pytest.fixture
def sounds(tmp_path):
    """An empty folder for recordings, whose canonical name is its own."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    return folder.resolve()


@pytest.fixture
def record():
    """Writes noise of its own for every seed; its time of modification is not that of any other call."""
    written = []

    def write(path, seconds=1.0, seed=None, rate=8000, **options):
        written.append(path)
        seed = len(written) if seed is None else seed
        generator = np.random.default_rng(seed)
        noise = 0.1 * np.cumsum(generator.standard_normal(round(seconds * rate))) / (1 + np.sqrt(seconds * rate))
        noise += 0.01 * generator.standard_normal(noise.size)
        soundfile.write(os.fsencode(path), np.clip(noise, -1, 1), rate, **options)
        stamp = time.time_ns() + len(written) * 1_000_000
        os.utime(path, ns=(stamp, stamp))
        return path

    return write
