"""Tagging data: tables of recordings with class labels, the draws of an epoch, the transform and the collator.

A tagging table has one row per recording: `log_mel` as in the feature cache, or `audio`, and `labels`, the numbers of
its classes. A training row is not a recording but a draw. The transform decides which recordings it becomes.
"""

import os
from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import torch

from ..augmentation.mixup import draw_mixup_weight, mix_powers, mix_waveforms
from ..feature_extraction_cnn10bert import CNN10FeatureExtractor
from .features import TABLE_FEATURES, decode_row_audio, file_stamps, log_mel_table
from .pairs import LogMelReader, SharedEpoch, pad_log_mels
from .recipes.audioset import multi_hot
from .recipes.soundscapes import Scene

LABELS = datasets.List(datasets.Value("int32"))  # numbers of the classes
MIXUP_DOMAINS = ("power", "waveform")


# ---------------------------------------------------------------------------------------------------------- tables


def class_names(scenes: Sequence[Scene]) -> list[str]:
    """Return the labels that occur in scenes, sorted: one per class."""
    return [str(label) for label in sorted({label for scene in scenes for label in scene.labels}, key=_by_value)]


def _by_value(label: int | str) -> tuple:
    return (isinstance(label, str), label)


def label_scenes(table: datasets.Dataset, scenes: Sequence[Scene], classes: Sequence[str]) -> datasets.Dataset:
    """
    Turn the recordings table of scenes into a tagging table.

    Raises:
        ValueError: a scene has a label that is not among the classes.
    """
    number = {name: index for index, name in enumerate(classes)}
    labels = {}
    for scene in scenes:
        if unknown := [label for label in scene.labels if str(label) not in number]:
            raise ValueError(
                f"scene {scene.id!r}: labels: found {unknown[0]!r}, expected one of the classes of the training scenes "
                f"({', '.join(classes)}); leave the scene out"
            )
        labels[scene.id] = [number[str(label)] for label in scene.labels]
    column = datasets.Dataset.from_dict(
        {"labels": [labels[name] for name in table["recording_id"][:]]}, features=datasets.Features({"labels": LABELS})
    )
    return datasets.concatenate_datasets([table.select_columns(["log_mel"]), column], axis=1)


def cached_clips(
    clips: datasets.Dataset,
    feature_extractor: CNN10FeatureExtractor,
    cache_dir: str | os.PathLike,
    num_proc: int,
    name: str,
) -> datasets.Dataset:
    """Compute the tagging table of clips with `audio` and `labels`, such as AudioSet's, or load it from the cache."""
    return log_mel_table(
        clips.select_columns(["audio", "labels"]),
        lambda row: (row, decode_row_audio(row["audio"], feature_extractor.sampling_rate)),
        datasets.Features({"labels": LABELS, "log_mel": TABLE_FEATURES["log_mel"]}),
        feature_extractor,
        {"clips": file_stamps(clips), "rows": len(clips)},
        cache_dir,
        name,
        num_proc,
    )


# ------------------------------------------------------------------------------------------------------ transforms


def draw_rows(table: datasets.Dataset) -> datasets.Dataset:
    """Make the rows of a training epoch: one draw per clip of the table, identified by its `row_id` alone."""
    return datasets.Dataset.from_dict({"row_id": range(len(table))})


class TaggingTransform:
    """
    Turn each draw into a clip, or a mixture of two, and its targets, for training.

    If class-balanced, a class is drawn uniformly first, and then a clip of that class. The clip that it is mixed with
    is drawn in the same way. Every draw is keyed by (seed, epoch, row id).

    Args:
        table: a tagging table.
        feature_extractor: computed its log-mels, or computes them.
        num_classes: number of classes.
        class_balanced: whether to balance classes; if not, every clip comes once per epoch, mixed with any other.
        mixup_alpha: of the Beta distribution; 0 mixes nothing.
        mixup_domain: what is mixed, `"power"` or `"waveform"`; the latter needs a table with `audio`.
        seed: seed of all draws.
        epoch: the current epoch.
    """

    def __init__(
        self,
        table: datasets.Dataset,
        feature_extractor: CNN10FeatureExtractor,
        num_classes: int,
        class_balanced: bool,
        mixup_alpha: float,
        mixup_domain: str,
        seed: int,
        epoch: SharedEpoch,
    ):
        self.read = LogMelReader(table, feature_extractor)
        self.feature_extractor = feature_extractor
        self.clips = table.select_columns([self.read.column])
        self.targets = [sorted(set(labels)) for labels in table["labels"][:]]
        self.num_classes = num_classes
        self.clips_of_class = _clips_of_class(self.targets) if class_balanced else []
        self.mixup_alpha, self.mixup_domain = mixup_alpha, mixup_domain
        self.seed, self.epoch = seed, epoch

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        epoch = self.epoch.get()
        generators = [np.random.default_rng([self.seed, epoch, row]) for row in rows["row_id"]]
        first = [
            self._draw(rng) if self.clips_of_class else row for rng, row in zip(generators, rows["row_id"], strict=True)
        ]
        targets = self._targets(first)
        if not self.mixup_alpha:
            return {"log_mel": self.read(self.clips[first]), "labels": list(targets)}
        second = [self._draw(rng) for rng in generators]
        weights = [draw_mixup_weight(rng, self.mixup_alpha) for rng in generators]
        share = torch.tensor(weights)[:, None]
        return {
            "log_mel": self._mix(first, second, weights),
            "labels": list(share * targets + (1 - share) * self._targets(second)),
        }

    def _draw(self, rng: np.random.Generator) -> int:
        """Draw a row of the table."""
        if not self.clips_of_class:
            return int(rng.integers(len(self.clips)))
        rows = self.clips_of_class[rng.integers(len(self.clips_of_class))]
        return int(rows[rng.integers(len(rows))])

    def _targets(self, rows: list[int]) -> torch.Tensor:
        return multi_hot([self.targets[row] for row in rows], self.num_classes)

    def _mix(self, first: list[int], second: list[int], weights: list[float]) -> list[torch.Tensor]:
        if self.mixup_domain == "power":
            log_mels = zip(self.read(self.clips[first]), self.read(self.clips[second]), weights, strict=True)
            return [mix_powers(*pair) for pair in log_mels]
        waveforms = zip(self._waveforms(first), self._waveforms(second), weights, strict=True)
        return [self.feature_extractor.log_mel(mix_waveforms(*pair)) for pair in waveforms]

    def _waveforms(self, rows: list[int]) -> list[np.ndarray]:
        rate = self.feature_extractor.sampling_rate
        return [decode_row_audio(audio, rate) for audio in self.clips[rows]["audio"]]


def _clips_of_class(labels: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """List the rows of the clips of each class that has any."""
    rows: dict[int, list[int]] = {}
    for row, classes in enumerate(labels):
        for number in classes:
            rows.setdefault(number, []).append(row)
    return [np.array(rows[number]) for number in sorted(rows)]


class ClipTransform:
    """Turn clips of a tagging table into log-mels with their targets, for evaluation. Nothing is random."""

    def __init__(self, table: datasets.Dataset, feature_extractor: CNN10FeatureExtractor, num_classes: int):
        self.read = LogMelReader(table, feature_extractor)
        self.num_classes = num_classes

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        return {"log_mel": self.read(rows), "labels": list(multi_hot(rows["labels"], self.num_classes))}


class TaggingCollator:
    """Join rows of `log_mel` [T, n_mels] and `labels` [C] to the input of a tagger, whose `labels` are [B, C]."""

    def __init__(self, feature_extractor: CNN10FeatureExtractor):
        self.feature_extractor = feature_extractor

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {
            **pad_log_mels([row["log_mel"] for row in rows], self.feature_extractor),
            "labels": torch.stack([row["labels"] for row in rows]),
        }
