"""Measure how well moments are found in recordings of 1 to 5 minutes that are mixed from ESC-10, whose onsets are known.

    python scripts/moments_benchmark.py MODEL --sources DIR [--questions scripts/esc10_questions.csv] [--fold 5]

A mixture is a background of one class, and passages of other classes at random times and levels. A passage of 2 s or
more is one recording of its class, or several in a row, without the silence at their ends. Every class that occurs in a
mixture is a query, with all its passages as the truth. All recordings are of one fold: 4 is for choosing parameters,
and 5 for a test, as in the soundscape benchmark.

Prints the metrics of DCASE 2026 task 6, which look for the passage in its own mixture, and the mean average precision of
the mixtures themselves, which are searched for by the same queries.
"""

import argparse
import csv
import dataclasses
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from modeling_cnn10bert.data.recipes.soundscapes import Scene, SoundEvent, SourceBank, render
from modeling_cnn10bert.errors import InputError
from modeling_cnn10bert.evaluation.moments import moment_metrics
from modeling_cnn10bert.evaluation.reports import markdown_table
from modeling_cnn10bert.retrieval import moments
from modeling_cnn10bert.retrieval.embedding import Embedder, load_embedder
from modeling_cnn10bert.retrieval.windows import read_windows

BACKGROUNDS = ("002 - Rain", "003 - Sea waves", "010 - Fire crackling")
DURATION = (60.0, 300.0)  # seconds
PASSAGES = (1, 6)  # per mixture, of one to three classes
PASSAGE_SECONDS = (2.0, 15.0)  # the shortest and, but for the last recording, the longest
GAP = 3.0  # seconds between passages, at least
BACKGROUND_DB, PASSAGE_DB = (-20.0, -8.0), (-6.0, 0.0)  # of the peak of a recording
SILENCE_DB = -40.0  # below the peak; what is quieter at the ends of a recording is left out
WINDOWS = {"windows of 30 s, overlap 10 s": (30.0, 10.0), "windows of 5 s, overlap 2 s": (5.0, 2.0)}

Span = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Mixture:
    """A scene, and the start and end of the passages of each class in seconds."""

    scene: Scene
    passages: Mapping[str, list[Span]]


def draw_mixture(number: int, fold: int, sources: Mapping[str, Sequence[str]], bank: SourceBank) -> Mixture:
    """Draw a mixture of the recordings of a fold, given as class -> sources."""
    rng = np.random.default_rng((fold, number))
    duration = rng.uniform(*DURATION)
    background = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    level, time, events = rng.uniform(*BACKGROUND_DB), 0.0, []
    while time < duration:
        events += in_a_row(rng, sources[background], time, 0.0, level, bank)
        time = events[-1].onset + events[-1].end - events[-1].start
    others = [name for name in sources if name not in BACKGROUNDS]
    classes = [others[index] for index in rng.permutation(len(others))[: rng.integers(1, 4)]]
    passages: dict[str, list[Span]] = {}
    for _ in range(rng.integers(PASSAGES[0], PASSAGES[1] + 1)):
        name = classes[rng.integers(len(classes))]
        passage = in_a_row(rng, sources[name], 0.0, rng.uniform(*PASSAGE_SECONDS), rng.uniform(*PASSAGE_DB), bank)
        length = passage[-1].onset + passage[-1].end - passage[-1].start
        taken = [span for spans in passages.values() for span in spans]
        for onset in rng.uniform(0, duration - length, size=100):  # a free place, if one is soon found
            if all(onset + length + GAP < start or end + GAP < onset for start, end in taken):
                passages.setdefault(name, []).append((onset, onset + length))
                events += [dataclasses.replace(event, onset=event.onset + onset) for event in passage]
                break
    return Mixture(Scene(f"{fold}-{number:03d}", duration, (), tuple(events), ()), passages)


def in_a_row(
    rng: np.random.Generator, sources: Sequence[str], onset: float, length: float, gain_db: float, bank: SourceBank
) -> list[SoundEvent]:
    """Draw recordings that follow each other from `onset` until they are `length` seconds long, at least one."""
    events, time = [], onset
    while not events or time < onset + length:
        source = sources[rng.integers(len(sources))]
        start, end = heard(bank.load(source), bank.sampling_rate)
        events.append(SoundEvent(source, time, start, end, gain_db))
        time += end - start
    return events


def heard(waveform: np.ndarray, sampling_rate: int) -> Span:
    """Return the start and end of a peak-normalized recording in seconds without the silence at its ends."""
    loud = np.flatnonzero(np.abs(waveform) > 10 ** (SILENCE_DB / 20))
    return loud[0] / sampling_rate, (loud[-1] + 1) / sampling_rate


# ------------------------------------------------------------------------------------------------------------ searches

Found = list[tuple[float, float, float]]  # start, end and score, best first


def windows_search(embedder: Embedder, paths: Sequence[Path], window: float, overlap: float) -> Callable[..., Found]:
    """Embed the windows of recordings as an index does; return the search of a recording by a text."""
    spans, embeds = [], []
    for path in tqdm(paths, desc=f"Windows of {window:g} s", disable=None):
        parts = list(read_windows(path, embedder.sampling_rate, window, overlap))
        spans.append([part[:2] for part in parts])
        embeds.append(np.concatenate([embedder.embed_audio([waveform]) for _, _, waveform in parts]))

    def search(number: int, query: np.ndarray) -> Found:
        scores = embeds[number] @ query
        return [(*spans[number][row], float(scores[row])) for row in np.argsort(-scores, kind="stable")]

    return search
