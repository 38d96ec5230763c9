"""Measure how well moments are found in recordings of 1 to 5 minutes, mixed from ESC-10 with known onsets.

    python scripts/moments_benchmark.py MODEL --sources DIR [--questions scripts/esc10_questions.csv] [--fold 5]

A mixture is a background of one class, and passages of other classes at random times and levels. A passage of 2 s or
more is one recording of its class, or several in a row, without the silence at their ends. Every class that occurs in a
mixture is a query, with all its passages as the truth. All recordings are of one fold: 4 is for choosing parameters,
and 5 for a test, as in the soundscape benchmark.

Prints the metrics of DCASE 2026 task 6, which look for the passages in their own mixture, and the mean average
precision of the mixtures themselves, which are searched for by the same queries.
"""

import argparse
import csv
import dataclasses
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from modeling_cnn10bert.data.recipes.soundscapes import Scene, SoundEvent, SourceBank, render
from modeling_cnn10bert.errors import InputError
from modeling_cnn10bert.evaluation.moments import moment_metrics
from modeling_cnn10bert.evaluation.reports import markdown_table
from modeling_cnn10bert.retrieval import moments
from modeling_cnn10bert.retrieval.embedding import load_embedder
from modeling_cnn10bert.retrieval.windows import read_windows

BACKGROUNDS = ("002 - Rain", "003 - Sea waves", "010 - Fire crackling")
DURATION = (60.0, 300.0)  # seconds
PASSAGES = (1, 6)  # per mixture, of one to three classes
PASSAGE_SECONDS = (2.0, 15.0)  # the shortest and, but for the last recording, the longest
GAP = 3.0  # seconds between passages, at least
BACKGROUND_DB, PASSAGE_DB = (-20.0, -8.0), (-6.0, 0.0)  # of the peak of a recording
SILENCE_DB = -40.0  # below the peak; what is quieter at the ends of a recording is left out

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


class WindowsSearch:
    """Rank the windows of a recording, as an index of them does."""

    def __init__(self, embedder, window: float, overlap: float):
        self.embedder, self.windows = embedder, (window, overlap)

    def embed(self, path: Path) -> tuple[list[Span], np.ndarray]:
        parts = list(read_windows(path, self.embedder.sampling_rate, *self.windows, level_normalized=True))
        embeds = np.concatenate([self.embedder.embed_audio([waveform]) for _, _, waveform in parts])
        return [part[:2] for part in parts], embeds

    def find(self, embedded: tuple[list[Span], np.ndarray], duration: float, query: np.ndarray):
        """Return the spans, best first, and the score of the recording."""
        spans, embeds = embedded
        scores = embeds @ query
        return [spans[row] for row in np.argsort(-scores, kind="stable")], float(scores.max())


class MomentsSearch:
    """Find the passages of a recording, as `search --moments` does."""

    def __init__(self, embedder):
        self.embedder = embedder

    def embed(self, path: Path) -> np.ndarray:
        context = moments.context_frames(self.embedder)
        return moments.embed_frames(path, self.embedder, context, level_normalized=True)[0]

    def find(self, embedded: np.ndarray, duration: float, query: np.ndarray):
        """Return the spans, best first, and the score of the recording."""
        scores = embedded @ query
        seconds = self.embedder.frame_samples / self.embedder.sampling_rate
        passages = moments.find_passages(scores, seconds, duration)
        return [(passage.start, passage.end) for passage in passages], float(scores.max())


def mean_average_precision(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Average over queries the average precision of ranked recordings: [Q, A] scores, [Q, A] whether they are right."""
    ranked = np.take_along_axis(relevant, np.argsort(-scores, axis=1, kind="stable"), axis=1)
    precision = ranked.cumsum(axis=1) / np.arange(1, ranked.shape[1] + 1)
    return float(((precision * ranked).sum(axis=1) / ranked.sum(axis=1)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--sources", type=Path, required=True, help="folder of ESC-10, with a folder for each class")
    parser.add_argument("--questions", type=Path, default=Path(__file__).with_name("esc10_questions.csv"))
    parser.add_argument("--fold", type=int, default=4, help="of the recordings; 4 for choices, 5 for a test")
    parser.add_argument("--mixtures", type=int, default=60)
    options = parser.parse_args()
    with options.questions.open(newline="", encoding="utf-8") as lines:
        questions = {row["class"]: row["question"] for row in csv.DictReader(lines)}
    sources = {
        name: sorted(
            str(path.relative_to(options.sources)) for path in options.sources.glob(f"{name}/{options.fold}-*")
        )
        for name in questions
    }
    embedder = load_embedder(options.model)
    bank = SourceBank(options.sources, embedder.sampling_rate)
    mixtures = [draw_mixture(number, options.fold, sources, bank) for number in range(options.mixtures)]
    queries = dict(zip(questions, embedder.embed_text(list(questions.values())), strict=True))
    searches = {
        "windows of 30 s, overlap 10 s": WindowsSearch(embedder, 30, 10),
        "windows of 5 s, overlap 2 s": WindowsSearch(embedder, 5, 2),
        "windows of 10 s, overlap 8 s": WindowsSearch(embedder, 10, 8),
        "moments": MomentsSearch(embedder),
    }
    embedded: dict[str, list] = {name: [] for name in searches}
    with tempfile.TemporaryDirectory() as scratch:
        for mixture in tqdm(mixtures, desc="Mixtures", disable=None):
            waveform = render(mixture.scene, bank)
            path = Path(scratch, "mixture.wav")
            soundfile.write(path, waveform / max(1.0, np.abs(waveform).max()), bank.sampling_rate, subtype="FLOAT")
            for name, search in searches.items():
                embedded[name].append(search.embed(path))
    present = [name for name in queries if any(name in mixture.passages for mixture in mixtures)]
    relevant = np.array([[name in mixture.passages for mixture in mixtures] for name in present])
    truth = [spans for mixture in mixtures for spans in mixture.passages.values()]
    rows = []
    for name, search in searches.items():
        found = [
            search.find(features, mixture.scene.duration, queries[asked])[0]
            for mixture, features in zip(mixtures, embedded[name], strict=True)
            for asked in mixture.passages
        ]
        scores = np.array(
            [
                [
                    search.find(features, mixture.scene.duration, queries[asked])[1]
                    for mixture, features in zip(mixtures, embedded[name], strict=True)
                ]
                for asked in present
            ]
        )
        metrics = {**moment_metrics(found, truth), "mAP of mixtures": mean_average_precision(scores, relevant)}
        rows.append((name, *(f"{100 * value:.1f}" for value in metrics.values())))
    print(markdown_table(("search", *metrics), rows))
    hours = sum(mixture.scene.duration for mixture in mixtures) / 3600
    count = sum(map(len, truth))
    print(f"{len(mixtures)} mixtures, {hours:.2f} h, {count} passages, {len(truth)} queries, fold {options.fold}")


if __name__ == "__main__":
    try:
        main()
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")
