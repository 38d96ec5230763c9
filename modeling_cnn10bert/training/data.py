"""From the data arguments to the data sets of a run."""

from dataclasses import dataclass
from pathlib import Path

import datasets

from ..augmentation.audio import AudioAugmentation
from ..data.feature_cache import MelStatistics
from ..data.pairs import SharedEpoch, pair_rows
from ..data.recordings_table import PreparedDataError, load_prepared, recordings_table
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
    if arguments.dataset_name:
        return _prepared_recordings(arguments, feature_extractor)
    if not arguments.manifests or not arguments.sources:
        missing = "manifests" if not arguments.manifests else "sources"
        raise RecipeError(
            f"field {missing} is not set; give --manifests DIR (train.jsonl, validation.jsonl, test.jsonl) and "
            "--sources DIR (the recordings they mix), or --dataset_name FOLDER_OR_HUB_ID (a prepared data set)"
        )
    if not arguments.cache_features:
        raise RecipeError(
            "field cache_features is off, but soundscapes are rendered into the cache; use a prepared data set "
            "(--dataset_name), or leave it on"
        )
    return _soundscapes(arguments, feature_extractor, seed)


def _prepared_recordings(arguments: DataArguments, feature_extractor: CNN10FeatureExtractor) -> RecordingTables:
    if surplus := [name for name in ("manifests", "sources") if getattr(arguments, name)]:
        raise RecipeError(
            f"fields dataset_name and {surplus[0]} are both set; give a prepared data set or soundscapes, not both"
        )
    try:
        prepared = load_prepared(arguments.dataset_name)
    except PreparedDataError as error:
        raise RecipeError(f"field dataset_name: {error}") from error
    tables = {}
    for split in ("train", "validation", "test"):
        limit = arguments.max_train_samples if split == "train" else arguments.max_eval_samples
        rows = prepared[split] if limit is None else prepared[split].take(min(limit, len(prepared[split])))
        tables[split] = recordings_table(
            rows,
            feature_extractor,
            arguments.cache_dir,
            num_proc=arguments.preprocessing_num_workers,
            name=f"{Path(arguments.dataset_name).name}-{split}",
            keep_log_mel=arguments.cache_features,
        )
    return RecordingTables(**tables)


def _soundscapes(arguments: DataArguments, feature_extractor: CNN10FeatureExtractor, seed: int) -> RecordingTables:
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
    tables: RecordingTables,
    augmentation: AugmentationArguments,
    n_mels: int,
    seed: int,
    epoch: SharedEpoch,
    feature_extractor: CNN10FeatureExtractor | None = None,
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
    pairs.set_transform(PairTransform(tables.train, n_mels, augment, seed, epoch, feature_extractor))
    return pairs


def evaluation_recordings(
    table: datasets.Dataset, n_mels: int, feature_extractor: CNN10FeatureExtractor | None = None
) -> datasets.Dataset:
    """The recordings of a table, each with all its captions."""
    return table.with_transform(RecordingTransform(table, n_mels, feature_extractor))
