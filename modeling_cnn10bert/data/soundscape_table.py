"""Soundscapes as a recordings table: every scene rendered, its log-mel cached."""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
import torch

from ..augmentation.back_translation import BACK_TRANSLATION_COLUMN
from ..errors import DataError
from ..feature_extraction_cnn10bert import CNN10FeatureExtractor
from .features import TABLE_FEATURES, cached_table, feature_parameters, log_mel_columns, map_rows
from .recipes.soundscapes import Scene, SourceBank, alternatives, render, vary


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
    The recordings table of scenes, from the cache where it is there.

    Args:
        scenes: of one split, from `read_manifest`.
        sources: the folder of recordings that the scenes are mixed from.
        feature_extractor: computes the log-mels.
        cache_dir: folder of the feature cache.
        renderings: how often each scene is rendered. The first is as the manifest says, the others are drawn anew from
            the recordings of the same scenes (training only). All have the scene's recording id, so that the loss knows
            them as positives of each other.
        seed: of what is drawn anew.
        num_proc: processes that render.
        name: shown in the progress bar and in the name of the cache.
        max_speed: of the recordings in what is drawn anew, see `vary`.

    Raises:
        AudioError: a source cannot be decoded; the message names the scene and the file.
        DataError: some scenes have back-translations that others lack.
        ValueError: fewer than one rendering.
    """
    if renderings < 1:
        raise ValueError(f"renderings must be at least 1, found {renderings}")
    sources = Path(sources).resolve()
    key = {
        "features": feature_parameters(feature_extractor),
        "scenes": _digest(scenes),
        "sources": _fingerprint(sources, scenes),
        "renderings": renderings,
        "seed": seed if renderings > 1 else None,
        "max_speed": max_speed if renderings > 1 else None,
    }
    kinds = alternatives(scenes)
    features = _features(scenes)

    def compute(scratch: Path) -> datasets.Dataset:
        rows = datasets.Dataset.from_dict(
            {
                "scene": [index for index in range(len(scenes)) for _ in range(renderings)],
                "rendering": list(range(renderings)) * len(scenes),
            }
        )
        renderer = _Renderer(
            scenes, SourceBank(sources, feature_extractor.sampling_rate), feature_extractor, kinds, seed, max_speed
        )
        return map_rows(rows, renderer, features, scratch, num_proc, f"Rendering {name}")

    return cached_table(cache_dir, name, key, compute)


@dataclasses.dataclass
class _Renderer:
    """Renders one row of the table; its draws are keyed by the row, so any number of processes gives the same."""

    scenes: Sequence[Scene]
    bank: SourceBank
    feature_extractor: CNN10FeatureExtractor
    kinds: dict[str, list[str]]
    seed: int
    max_speed: float

    def __call__(self, row: dict) -> dict:
        torch.set_num_threads(1)  # a forked process cannot use the threads of its parent
        scene, file_name = self.scenes[row["scene"]], self.scenes[row["scene"]].id
        if row["rendering"] > 0:
            rng = np.random.default_rng([self.seed, row["scene"], row["rendering"]])
            scene = vary(scene, rng, self.kinds, self.max_speed)
            file_name = f"{file_name}#{row['rendering']}"
        log_mel = self.feature_extractor.log_mel(render(scene, self.bank))
        variants = scene.back_translations.items()
        return {
            "file_name": file_name,
            "recording_id": scene.id,
            "captions": list(scene.captions),
            **{BACK_TRANSLATION_COLUMN.format(language=language): list(texts) for language, texts in variants},
            **log_mel_columns(log_mel),
        }


def _features(scenes: Sequence[Scene]) -> datasets.Features:
    """Those of every recordings table, and a column for each language of the scenes' back-translations."""
    languages = [sorted(scene.back_translations) for scene in scenes]
    for scene, found in zip(scenes, languages, strict=True):
        if found != languages[0]:
            raise DataError(
                f"scene {scene.id!r}: back_translations: found {' '.join(found) or 'none'}, expected "
                f"{' '.join(languages[0]) or 'none'} as scene {scenes[0].id!r} has; back-translate the whole split: "
                "python scripts/back_translate.py FOLDER --languages ..."
            )
    columns = [BACK_TRANSLATION_COLUMN.format(language=language) for language in languages[0]]
    return datasets.Features(TABLE_FEATURES | dict.fromkeys(columns, TABLE_FEATURES["captions"]))


def _digest(scenes: Sequence[Scene]) -> str:
    return hashlib.sha256(repr(scenes).encode()).hexdigest()


def _fingerprint(sources: Path, scenes: Sequence[Scene]) -> str:
    """Changes when a used recording is replaced: names, sizes and times of modification."""
    names = sorted({event.source for scene in scenes for event in scene.events})
    stats = [(name, (sources / name).stat().st_size, (sources / name).stat().st_mtime_ns) for name in names]
    return hashlib.sha256(repr(stats).encode()).hexdigest()
