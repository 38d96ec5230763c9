"""Soundscapes: scenes mixed from short recordings, described by manifests of one JSON object per line.

A line of `train.jsonl`, `validation.jsonl` or `test.jsonl` is one scene:

    {"id": "test-0000", "duration": 8.0, "labels": [1], "captions": ["A dog barks.", ...],
     "events": [{"source": "001 - Dog bark/5-212454-A.ogg", "onset": 0.3, "start": 0, "end": 5, "gain_db": -4.6}, ...]}

Times are seconds. `source` is relative to a folder of recordings. A scene may also have back-translations of its
captions, one for each: `"back_translations": {"de": ["A dog is barking.", ...], ...}`. This file reads manifests, mixes
scenes to waveforms, draws new renderings of training scenes, and makes recordings tables of them.
"""

import dataclasses
import hashlib
import logging
import math
import os
import pathlib
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import datasets
import numpy as np

from ...augmentation.back_translation import BACK_TRANSLATION_COLUMN
from ...errors import AudioError, DataError
from ...feature_extraction_cnn10bert import CNN10FeatureExtractor
from ...processing_cnn10bert import caption_words
from ..audio_io import load_audio
from ..features import TABLE_FEATURES, log_mel_table
from ..file_names import FileFinder
from ..tables import read_json, read_text

SPLITS = ("train", "validation", "test")
MAX_DURATION = 3600.0  # seconds; a scene is mixed in memory, where an hour takes 0.5 GB
MAX_GAIN_DB = 120.0  # far beyond any use; keeps a typing error from overflowing float32
GAIN_RANGE_DB = (-6.0, 0.0)  # of a varied event, as in the benchmark's manifests
MAX_JITTER = 0.3  # seconds, of a varied onset or end
NUM_SPEEDS = 5  # at which a varied event may play its recording; a resampled recording is kept for each
REWRITE = "correct the line, or write the manifest again"

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class SoundEvent:
    """Section [start, end) of a recording that begins at `onset` in the scene; times in seconds, the gain in dB."""

    source: str  # relative to the folder of recordings
    onset: float
    start: float
    end: float
    gain_db: float
    speed: float = 1.0  # of the recording before it is cut: 2 is an octave higher and half as long


@dataclasses.dataclass(frozen=True)
class Scene:
    """Recording to render: `duration` seconds of events, and the captions that describe it."""

    id: str
    duration: float
    labels: tuple[int | str, ...]
    events: tuple[SoundEvent, ...]
    captions: tuple[str, ...]
    # language -> a variant of each caption
    back_translations: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict, hash=False)


# --------------------------------------------------------------------------------------------------------- reading


def read_manifests(folder: str | os.PathLike, sources: str | os.PathLike) -> dict[str, list[Scene]]:
    """Read `train.jsonl`, `validation.jsonl` and `test.jsonl` of a folder.

    Args:
        folder: where the three manifests are.
        sources: the folder that the scenes' `source` paths are relative to.

    Returns:
        Split name -> scenes, in the manifests' order.

    Raises:
        DataError: a manifest is missing or faulty, or an id occurs in two splits.
    """
    folder = pathlib.Path(folder)
    missing = [f"{split}.jsonl" for split in SPLITS if not (folder / f"{split}.jsonl").is_file()]
    if missing:
        raise DataError(
            f"{folder}: found no {', '.join(missing)}, expected train.jsonl, validation.jsonl and test.jsonl; "
            "check the folder, or write a set: python scripts/demo/synthesizers.py FOLDER"
        )
    scenes = {split: read_manifest(folder / f"{split}.jsonl", sources) for split in SPLITS}
    split_of: dict[str, str] = {}
    for split, members in scenes.items():
        for scene in members:
            if split_of.setdefault(scene.id, split) != split:
                raise DataError(
                    f"{folder / split}.jsonl: id: found {scene.id!r}, which {split_of[scene.id]}.jsonl has too, "
                    f"expected ids that no other split uses; {REWRITE}"
                )
    return scenes


def read_manifest(path: str | os.PathLike, sources: str | os.PathLike) -> list[Scene]:
    """Read and check one manifest; blank lines are skipped, unknown keys are ignored.

    Args:
        path: the .jsonl file, UTF-8.
        sources: the folder that the scenes' `source` paths are relative to.

    Returns:
        The scenes, in the file's order; at least one.

    Raises:
        DataError: a line is faulty; the message names file:line, the field, the value and what to do.
    """
    path, sources = pathlib.Path(path), pathlib.Path(sources)
    if not sources.is_dir():
        raise DataError(f"{path}: found no folder {sources}, expected the recordings there; check the sources folder")
    reader = _SceneReader(path, sources)
    scenes = [reader.read(number, line) for number, line in manifest_lines(path)]
    if not scenes:
        raise DataError(f"{path}: found no scene, expected at least one line; write the manifest again")
    return scenes


def manifest_lines(path: pathlib.Path) -> list[tuple[int, str]]:
    """Read the lines of a manifest that are not blank, each with its number.

    Raises:
        DataError: the file cannot be read.
    """
    lines = read_text(path).split("\n")  # not splitlines(): captions may hold U+2028
    return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]


class _SceneReader:
    """Turn the lines of one manifest into scenes, remembering which ids and sources were already seen."""

    def __init__(self, path: pathlib.Path, sources: pathlib.Path):
        self.path = path
        self.sources = sources
        self.sources_resolved = sources.resolve()
        self.line_of_id: dict[str, int] = {}
        self.finder = FileFinder(sources)
        self.checked_sources: dict[str, str] = {}  # as a line has it -> relative to the folder
        self.number = 0

    def error(self, field: str, found: str, expected: str, todo: str = REWRITE) -> DataError:
        return DataError(f"{self.path}:{self.number}: {field}: found {found}, expected {expected}; {todo}")

    def read(self, number: int, line: str) -> Scene:
        self.number = number
        try:
            row = read_json(line)
        except (ValueError, RecursionError) as error:
            raise self.error("line", f"{reprlib.repr(line)} ({error})", "one JSON object") from error
        if not isinstance(row, dict):
            raise self.error("line", reprlib.repr(row), "one JSON object")
        expected = f"a finite number of seconds above 0, at most {MAX_DURATION:g}"
        duration = self.number_in(row, "duration", expected, math.ulp(0.0), MAX_DURATION)
        captions = self.captions(self.value(row, "captions"), "captions")
        name, labels = self.value(row, "id"), self.value(row, "labels")
        if not isinstance(name, str) or not name.strip():
            raise self.error("id", reprlib.repr(name), "a non-empty string")
        if (first := self.line_of_id.setdefault(name, number)) != number:
            raise self.error("id", f"{name!r}, which line {first} has too", "an id that no other line uses")
        if not isinstance(labels, list) or any(isinstance(v, bool) or not isinstance(v, int | str) for v in labels):
            raise self.error("labels", reprlib.repr(labels), "a list of integers or strings")
        events = self.filled_list(self.value(row, "events"), "events")
        return Scene(
            id=name,
            duration=duration,
            labels=tuple(labels),
            events=tuple(self.event(event, f"events[{i}]", duration) for i, event in enumerate(events)),
            captions=captions,
            back_translations=self.back_translations(row.get("back_translations", {}), len(captions)),
        )

    def value(self, row: dict, key: str, within: str = ""):
        if key not in row:
            raise self.error(f"{within}{key}", f"only the keys {sorted(row)}", f"the key {key!r} too")
        return row[key]

    def filled_list(self, value, field: str) -> list:
        if not isinstance(value, list) or not value:
            raise self.error(field, reprlib.repr(value), "a non-empty list")
        return value

    def number_in(
        self, row: dict, key: str, expected: str, low: float, high: float = math.inf, within: str = ""
    ) -> float:
        """Return a finite number in [low, high]; JSON's true is none, though Python takes it for 1."""
        value = self.value(row, key, within)
        try:
            valid = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        except OverflowError:  # an integer beyond the range of a float
            valid = False
        if not valid or not low <= value <= high:
            raise self.error(f"{within}{key}", reprlib.repr(value), expected)
        return float(value)

    def captions(self, value, field: str) -> tuple[str, ...]:
        for i, caption in enumerate(self.filled_list(value, field)):
            if not isinstance(caption, str) or not caption_words(caption):
                raise self.error(f"{field}[{i}]", reprlib.repr(caption), "a text with a word in it")
        return tuple(value)

    def back_translations(self, value, num_captions: int) -> dict[str, tuple[str, ...]]:
        if not isinstance(value, dict):
            raise self.error("back_translations", reprlib.repr(value), "one JSON object, a list for each language")
        variants = {}
        for language in sorted(value):
            field = f"back_translations.{language}"
            variants[language] = self.captions(value[language], field)
            if len(variants[language]) != num_captions:
                found, expected = f"{len(variants[language])} texts", f"{num_captions}, one for each caption"
                raise self.error(field, found, expected)
        return variants

    def event(self, row, field: str, duration: float) -> SoundEvent:
        if not isinstance(row, dict):
            raise self.error(field, reprlib.repr(row), "one JSON object")
        within = f"{field}."
        source = self.value(row, "source", within)
        start = self.number_in(row, "start", "a finite number of seconds, at least 0", 0.0, within=within)
        onset = self.number_in(row, "onset", "a finite number of seconds, at least 0", 0.0, within=within)
        if onset >= duration:  # it would never be heard, though the captions speak of it
            raise self.error(f"{within}onset", repr(onset), f"less than the duration ({duration} s)")
        expected = f"a finite number of seconds above start ({start} s)"
        end = self.number_in(row, "end", expected, math.nextafter(start, math.inf), within=within)
        expected = f"a finite number of dB from {-MAX_GAIN_DB:g} to {MAX_GAIN_DB:g}"
        gain_db = self.number_in(row, "gain_db", expected, -MAX_GAIN_DB, MAX_GAIN_DB, within)
        return SoundEvent(self.source(source, f"{within}source"), onset, start, end, gain_db)

    def source(self, value, field: str) -> str:
        """Return the path of a recording relative to its folder, in one form: `./a.wav` is `a.wav`."""
        if not isinstance(value, str) or not value:
            raise self.error(field, reprlib.repr(value), "the path of a recording")
        if value in self.checked_sources:  # a few hundred recordings, thousands of mentions
            return self.checked_sources[value]
        relative = pathlib.PurePath(value)
        if ".." not in relative.parts and not relative.is_absolute():
            found = self.finder.find(value)
            relative = found.relative_to(self.sources) if found and found.is_relative_to(self.sources) else relative
        try:
            resolved = (self.sources / relative).resolve()  # follows links
            exists = resolved.is_file()
        except (OSError, ValueError, RuntimeError) as error:  # a name too long, a NUL character, a loop of links
            raise self.error(field, f"{value!r} ({error})", "the path of a recording") from error
        if relative.is_absolute() or ".." in relative.parts or not resolved.is_relative_to(self.sources_resolved):
            todo = "put the recording into that folder and give its path relative to it"
            raise self.error(field, repr(value), f"a path that stays inside {self.sources}", todo)
        if not exists:
            todo = "check the sources folder, or fetch the recordings again"
            raise self.error(field, f"{value!r}, which does not exist", f"a recording in {self.sources}", todo)
        self.checked_sources[value] = relative.as_posix()
        return relative.as_posix()


# ------------------------------------------------------------------------------------------------------- rendering


class SourceBank:
    """Recordings that scenes are mixed from, each decoded once, resampled and peak-normalized over the whole file.

    They stay in memory: a recording of 5 s at 32 kHz takes 0.64 MB.

    Args:
        sources: the folder of recordings.
        sampling_rate: of all waveforms, in Hz.
    """

    def __init__(self, sources: str | os.PathLike, sampling_rate: int):
        self.sources = pathlib.Path(sources)
        self.sampling_rate = sampling_rate
        self._waveforms: dict[tuple[str, float], np.ndarray] = {}

    def load(self, source: str, speed: float = 1.0) -> np.ndarray:
        """Load a recording as [samples] float32, read-only, its largest magnitude 1 (0 if it is silent).

        With a `speed` other than 1 it is resampled, to be that many times as fast and as high.

        Raises:
            AudioError: the recording cannot be used.
        """
        if (source, speed) not in self._waveforms:
            notes: list[str] = []
            waveform = load_audio(self.sources / source, round(self.sampling_rate / speed), notes)
            for note in notes:
                logger.warning("%s: %s", self.sources / source, note)
            peak = np.abs(waveform).max()
            waveform = waveform / peak if peak > 0 else waveform
            waveform.flags.writeable = False  # it is shared by every scene
            self._waveforms[source, speed] = waveform
        return self._waveforms[source, speed]


def render(scene: Scene, bank: SourceBank) -> np.ndarray:
    """Mix a scene.

    Each source is played at its speed, cut to [start, end), scaled by 10^(gain_db / 20) and added at its onset. Sound
    after the scene's end is cut. A source that ends before `end` sounds as far as it goes. Sums are not clipped, so
    they may exceed 1.

    Returns:
        Waveform [duration * sampling_rate], float32.

    Raises:
        AudioError: a recording cannot be used; the message names the scene and the file.
    """
    rate = bank.sampling_rate
    mix = np.zeros(round(scene.duration * rate), dtype=np.float32)
    for event in scene.events:
        try:
            source = bank.load(event.source, event.speed)
        except AudioError as error:
            raise AudioError(f"scene {scene.id!r}: {error}") from error
        onset = round(event.onset * rate)
        sound = source[round(event.start * rate) : round(event.end * rate)][: max(len(mix) - onset, 0)]
        mix[onset : onset + len(sound)] += 10 ** (event.gain_db / 20) * sound
    return mix


# --------------------------------------------------------------------------------------------------------- varying


def sound_of(source: str) -> str:
    """Return the kind of sound of a recording, which is its folder: recordings of one folder are of one kind."""
    return str(pathlib.PurePath(source).parent)


def alternatives(scenes: Iterable[Scene]) -> dict[str, list[str]]:
    """Map every source that the scenes use to all used sources of its kind, including itself, sorted.

    Only sources of the given scenes count. For the scenes of the
    training manifest, the result therefore never names a recording of another split.
    """
    kinds: dict[str, set[str]] = {}
    for source in {event.source for scene in scenes for event in scene.events}:
        kinds.setdefault(sound_of(source), set()).add(source)
    return {source: members for kind in kinds.values() for members in [sorted(kind)] for source in members}


def vary(
    scene: Scene, rng: np.random.Generator, alternatives: Mapping[str, Sequence[str]], max_speed: float = 1.0
) -> Scene:
    """Draw recordings, levels and times of a scene again, such that its captions stay true.

    - Every event takes another recording of its kind (its own only where the kind has no other).
    - Every gain is drawn uniformly from [-6, 0] dB.
    - Every recording is played at one of five speeds, evenly spaced in pitch from 1 / `max_speed` to `max_speed`.
    - One shift is drawn for the whole scene, as far as it stays inside the duration. Then every onset and every end
      moves by at most 0.3 s and at most two fifths of the way to the nearest other onset or end, so that their order
      never changes: overlapping events still overlap, and separate events stay separate. Equal times move together.

    Args:
        scene: scene to vary; id, duration, labels and captions are kept.
        rng: the only source of randomness.
        alternatives: from `alternatives(scenes of the training manifest)`.
        max_speed: largest speed; 1 keeps the speed and draws nothing for it.

    Raises:
        ValueError: a source of the scene is not in `alternatives`.
    """
    # When each event begins and ends in the scene, [events, 2] in seconds; sound after the scene's end is cut.
    spans = np.array([(event.onset, event.onset + (event.end - event.start)) for event in scene.events])
    spans = np.minimum(spans, scene.duration)
    # One shift for all.
    spans = spans + rng.uniform(-spans.min(), scene.duration - spans.max())
    # All distinct times moved a little: two neighbors that approach each other by two fifths each never meet.
    times, inverse = np.unique(spans, return_inverse=True)
    gaps = 0.4 * np.diff(times)
    low = np.concatenate([[times[0]], gaps])
    high = np.concatenate([gaps, [max(scene.duration - times[-1], 0.0)]])  # max: rounding of the shift
    moved = times + rng.uniform(-np.minimum(low, MAX_JITTER), np.minimum(high, MAX_JITTER))
    spans = np.clip(moved, 0.0, scene.duration)[inverse.reshape(spans.shape)]

    events = []
    for event, (onset, end) in zip(scene.events, spans.tolist(), strict=True):
        if event.source not in alternatives:
            raise ValueError(
                f"scene {scene.id!r}: found the source {event.source!r}, expected one of the {len(alternatives)} "
                "recordings with alternatives; vary only training scenes, with the alternatives of their own manifest"
            )
        others = [other for other in alternatives[event.source] if other != event.source]
        source = others[rng.integers(len(others))] if others else event.source
        gain_db, speed = rng.uniform(*GAIN_RANGE_DB), 1.0
        if max_speed > 1:
            speed = float(max_speed ** np.linspace(-1, 1, NUM_SPEEDS)[rng.integers(NUM_SPEEDS)])
        events.append(SoundEvent(source, onset, event.start, event.start + (end - onset), gain_db, speed))
    return dataclasses.replace(scene, events=tuple(events))


# ------------------------------------------------------------------------------------------------- recordings table


def soundscape_table(
    scenes: Sequence[Scene],
    sources: str | os.PathLike,
    feature_extractor: CNN10FeatureExtractor,
    cache_dir: str | os.PathLike,
    renderings: int = 1,
    seed: int = 0,
    num_proc: int = 1,
    name: str = "soundscapes",
    max_speed: float = 1.0,
) -> datasets.Dataset:
    """
    Render scenes and compute their recordings table, or load it from the cache.

    Args:
        scenes: of one split, from `read_manifest`.
        sources: the folder of recordings that the scenes are mixed from.
        feature_extractor: computes the log-mels.
        cache_dir: folder of the feature cache.
        renderings: how often each scene is rendered. The first follows the manifest, the others draw other
            recordings of the same scenes (training only). All have the scene's recording id, so that they are positives
            of each other in the loss.
        seed: of the renderings after the first.
        num_proc: processes that render.
        name: shown in the progress bar and in the name of the cache.
        max_speed: of the recordings in the renderings after the first, see `vary`.

    Raises:
        AudioError: a source cannot be decoded; the message names the scene and the file.
        DataError: some scenes have back-translations that others lack.
        ValueError: fewer than one rendering.
    """
    if renderings < 1:
        raise ValueError(f"renderings must be at least 1, found {renderings}")
    sources = pathlib.Path(sources).resolve()
    languages = _languages(scenes)
    columns = [BACK_TRANSLATION_COLUMN.format(language=language) for language in languages]
    bank, kinds = SourceBank(sources, feature_extractor.sampling_rate), alternatives(scenes)

    def read(row: dict) -> tuple[dict[str, Any], np.ndarray]:
        scene, file_name = scenes[row["scene"]], scenes[row["scene"]].id
        if row["rendering"] > 0:  # keyed by the row, so that any number of processes draws the same
            rng = np.random.default_rng([seed, row["scene"], row["rendering"]])
            scene = vary(scene, rng, kinds, max_speed)
            file_name = f"{file_name}#{row['rendering']}"
        texts = {"captions": scene.captions} | {
            column: scene.back_translations[language] for column, language in zip(columns, languages, strict=True)
        }
        return {"file_name": file_name, "recording_id": scene.id, **texts}, render(scene, bank)

    # The key has names, sizes and modification times, so that it changes when a used recording is replaced.
    names = sorted({event.source for scene in scenes for event in scene.events})
    stats = [(name, (sources / name).stat().st_size, (sources / name).stat().st_mtime_ns) for name in names]
    key = {
        "scenes": hashlib.sha256(repr(scenes).encode()).hexdigest(),
        "sources": hashlib.sha256(repr(stats).encode()).hexdigest(),
        "renderings": renderings,
        "seed": seed if renderings > 1 else None,
        "max_speed": max_speed if renderings > 1 else None,
    }
    rows = datasets.Dataset.from_dict(
        {
            "scene": [index for index in range(len(scenes)) for _ in range(renderings)],
            "rendering": list(range(renderings)) * len(scenes),
        }
    )
    features = datasets.Features(TABLE_FEATURES | dict.fromkeys(columns, TABLE_FEATURES["captions"]))
    return log_mel_table(rows, read, features, feature_extractor, key, cache_dir, name, num_proc)


def _languages(scenes: Sequence[Scene]) -> list[str]:
    """Return the languages of the back-translations, which all scenes must have."""
    languages = [sorted(scene.back_translations) for scene in scenes]
    for scene, found in zip(scenes, languages, strict=True):
        if found != languages[0]:
            raise DataError(
                f"scene {scene.id!r}: back_translations: found {' '.join(found) or 'none'}, expected "
                f"{' '.join(languages[0]) or 'none'} as scene {scenes[0].id!r} has; back-translate the whole split: "
                "`cnn10bert back-translate FOLDER ...`"
            )
    return languages[0]
