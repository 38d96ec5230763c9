"""From the data arguments to the data sets of a run."""

from dataclasses import dataclass
from pathlib import Path

import datasets

from ..augmentation.audio import AudioAugmentation
from ..data.feature_cache import MelStatistics
from ..data.pairs import SharedEpoch, pair_rows
from ..data.soundscape_table import soundscape_table
from ..data.soundscapes import read_manifests
from ..data.transform import PairTransform, RecordingTransform
from ..feature_extraction_cnn10bert import CNN10FeatureExtractor
from .arguments import AugmentationArguments, DataArguments, RecipeError


@dataclass
class RecordingTables:
    """The recordings tables of a run."""

    train: datasets.Dataset
    validation: datasets.Dataset
    test: datasets.Dataset


def load_recordings(arguments: DataArguments, feature_extractor: CNN10FeatureExtractor, seed: int) -> RecordingTables:
    """
    The recordings tables that the arguments name, from the feature cache where they are there.

    Raises:
        RecipeError: the arguments name no data, or half of it.
        ManifestError, AudioError: what is wrong with a manifest or a recording.
    """
    if not arguments.manifests or not arguments.sources:
        missing = "manifests" if not arguments.manifests else "sources"
        raise RecipeError(
            f"field {missing} is not set; give --manifests DIR (train.jsonl, validation.jsonl, test.jsonl) and "
            "--sources DIR (the recordings they mix)"
        )
    tables = {}
    for split, scenes in read_manifests(arguments.manifests, arguments.sources).items():
        training = split == "train"
        limit = arguments.max_train_samples if training else arguments.max_eval_samples
        tables[split] = soundscape_table(
            scenes[:limit],
            arguments.sources,
            feature_extractor,
            arguments.cache_dir,
            renderings=arguments.renderings if training else 1,
            seed=seed,
            num_proc=arguments.preprocessing_num_workers,
            name=f"{Path(arguments.manifests).resolve().name}-{split}",
        )
    return RecordingTables(**tables)


def training_pairs(
    tables: RecordingTables, augmentation: AugmentationArguments, n_mels: int, seed: int, epoch: SharedEpoch
) -> datasets.Dataset:
    """The pairs of the training recordings, augmented as the arguments say."""
    augment = None
    if augmentation.g_max or augmentation.n_f or augmentation.n_t:
        augment = AudioAugmentation(
            g_max=augmentation.g_max,
            n_f=augmentation.n_f,
            w_f=augmentation.w_f,
            n_t=augmentation.n_t,
            w_t=augmentation.w_t,
            mean_of_bins=MelStatistics.of_table(tables.train).overall_mean,
        )
    pairs = pair_rows(tables.train)
    pairs.set_transform(PairTransform(tables.train, n_mels, augment, seed, epoch))
    return pairs


def evaluation_recordings(table: datasets.Dataset, n_mels: int) -> datasets.Dataset:
    """The recordings of a table, each with all its captions."""
    return table.with_transform(RecordingTransform(table, n_mels))
