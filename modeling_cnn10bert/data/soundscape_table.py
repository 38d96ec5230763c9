"""Soundscapes as a recordings table: every scene rendered, its log-mel cached."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from ..augmentation.back_translation import BACK_TRANSLATION_COLUMN
from ..errors import DataError
from ..feature_extraction_cnn10bert import CNN10FeatureExtractor
from .features import TABLE_FEATURES, log_mel_table
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
    Render scenes and compute their recordings table, or load it from the cache.

    Args:
        scenes: of one split, from `read_manifest`.
        sources: the folder of recordings that the scenes are mixed from.
        feature_extractor: computes the log-mels.
        cache_dir: folder of the feature cache.
        renderings: how often each scene is rendered. The first is as the manifest says, the others draw other
            recordings of the same scenes (training only). All have the scene's recording id, so that the loss knows
            them as positives of each other.
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
    sources = Path(sources).resolve()
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

    # A key changes when a recording that is used is replaced: names, sizes and times of modification.
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
