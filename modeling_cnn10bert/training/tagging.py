"""Pretrain the audio tower as a tagger, as in PANNs (Kong et al. 2020; section 6.2 of the paper)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import PreTrainedModel, TrainingArguments, set_seed

from ..configuration_cnn10bert import CNN10Config
from ..data.pairs import SharedEpoch
from ..data.recipes.audioset import open_table, read_class_names
from ..data.tagging import (
    ClipTransform,
    TaggingCollator,
    TaggingTransform,
    cached_clips,
    class_names,
    draw_rows,
    label_scenes,
)
from ..errors import RecipeError, one_line
from ..evaluation.tagging import score_classes, tagging_metrics
from ..feature_extraction_cnn10bert import CNN10FeatureExtractor
from ..modeling_cnn10bert import CNN10ForAudioClassification
from .arguments import TaggerArguments, TaggingDataArguments, TaggingTrainingArguments
from .build import RecordingTables, rendered_soundscapes
from .trainer import KeyedTrainer


@dataclass
class TaggingTables(RecordingTables):
    """The tagging tables of a run and the names of their classes."""

    classes: list[str]


class TaggingTrainer(KeyedTrainer):
    """Trains a `CNN10ForAudioClassification` by binary cross-entropy; the arguments are `TaggingTrainingArguments`."""

    @staticmethod
    def get_optimizer_cls_and_kwargs(
        args: TrainingArguments, model: PreTrainedModel | None = None
    ) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
        optimizer_class, options = KeyedTrainer.get_optimizer_cls_and_kwargs(args, model)
        return optimizer_class, options | ({"amsgrad": True} if args.amsgrad else {})


def build_tagging_trainer(
    tagger_args: TaggerArguments, data_args: TaggingDataArguments, training_args: TaggingTrainingArguments
) -> tuple[TaggingTrainer, TaggingTables]:
    """
    Build the trainer of a recipe with the tagger, the training draws and the validation set; also return the tables.

    This sets all random seeds, because new weights are drawn here.

    Raises:
        RecipeError, DataError, AudioError: the arguments, or the data they name, are faulty.
    """
    set_seed(training_args.seed)
    feature_extractor = _feature_extractor(tagger_args)
    with training_args.main_process_first(desc="preparing the clips"):
        load = _soundscapes if data_args.manifests else _audioset
        tables = load(data_args, feature_extractor, training_args.seed)
    epoch = SharedEpoch()
    draws = draw_rows(tables.train)
    draws.set_transform(
        TaggingTransform(
            tables.train,
            feature_extractor,
            num_classes=len(tables.classes),
            class_balanced=data_args.class_balanced,
            mixup_alpha=data_args.mixup_alpha,
            mixup_domain=data_args.mixup_domain,
            seed=training_args.seed,
            epoch=epoch,
        )
    )
    trainer = TaggingTrainer(
        model=_tagger(tagger_args, tables.classes),
        args=training_args,
        data_collator=TaggingCollator(feature_extractor),
        train_dataset=draws,
        eval_dataset=evaluation_clips(tables.validation, feature_extractor, len(tables.classes)),
        processing_class=feature_extractor,
        compute_metrics=lambda prediction: tagging_metrics(
            score_classes(prediction.predictions, prediction.label_ids, tables.classes)
        ),
        epoch=epoch,
    )
    return trainer, tables


def evaluation_clips(
    table: datasets.Dataset, feature_extractor: CNN10FeatureExtractor, num_classes: int
) -> datasets.Dataset:
    """Return the clips of a tagging table with their targets."""
    return table.with_transform(ClipTransform(table, feature_extractor, num_classes))


# ---------------------------------------------------------------------------------------------------------- tagger


def _feature_extractor(arguments: TaggerArguments) -> CNN10FeatureExtractor:
    if arguments.model_name_or_path:
        try:
            return CNN10FeatureExtractor.from_pretrained(arguments.model_name_or_path)
        except OSError as error:
            raise RecipeError(
                f"cannot start from model_name_or_path {arguments.model_name_or_path!r}: {one_line(error)}"
            ) from error
    return arguments.feature_extractor()


def _tagger(arguments: TaggerArguments, classes: list[str]) -> CNN10ForAudioClassification:
    if not arguments.model_name_or_path:
        return CNN10ForAudioClassification(
            CNN10Config(
                num_mel_bins=arguments.num_mel_bins,
                hidden_sizes=arguments.hidden_sizes,
                time_pooling=arguments.time_pooling,
                temporal_moments=arguments.temporal_moments,
                block_dropout=arguments.block_dropout,
                head_dropout=arguments.head_dropout,
                problem_type="multi_label_classification",
                id2label=dict(enumerate(classes)),
                label2id={name: number for number, name in enumerate(classes)},
            )
        )
    model = CNN10ForAudioClassification.from_pretrained(arguments.model_name_or_path, dtype=torch.float32)
    found = [model.config.id2label[number] for number in range(model.config.num_labels)]
    if found != classes:
        raise RecipeError(
            f"model_name_or_path {arguments.model_name_or_path!r} knows {len(found)} classes ({', '.join(found[:5])}, "
            f"...), but the data has {len(classes)} ({', '.join(classes[:5])}, ...); continue on the data it was "
            "trained on, or start a new tagger"
        )
    return model


# ------------------------------------------------------------------------------------------------------------ data


def _audioset(arguments: TaggingDataArguments, feature_extractor: CNN10FeatureExtractor, seed: int) -> TaggingTables:
    if not arguments.labels:
        raise RecipeError("field labels is not set; give class_labels_indices.csv, which names AudioSet's classes")
    classes = read_class_names(Path(arguments.labels))
    tables = {}
    for part in ("train", "validation", "test"):
        split = getattr(arguments, f"{part}_split")
        clips = open_table(arguments.dataset_name, split)
        limit = arguments.max_train_samples if part == "train" else arguments.max_eval_samples
        clips = clips if limit is None else clips.take(min(limit, len(clips)))
        if arguments.cache_features:
            name = f"{Path(arguments.dataset_name).name}-{split}"
            clips = cached_clips(
                clips, feature_extractor, arguments.cache_dir, arguments.preprocessing_num_workers, name
            )
        tables[part] = clips.select_columns(["labels", "log_mel" if arguments.cache_features else "audio"])
    return TaggingTables(**tables, classes=classes)


def _soundscapes(arguments: TaggingDataArguments, feature_extractor: CNN10FeatureExtractor, seed: int) -> TaggingTables:
    splits = rendered_soundscapes(arguments, feature_extractor, seed)
    classes = class_names(splits["train"][0])
    try:
        tables = {split: label_scenes(table, scenes, classes) for split, (scenes, table) in splits.items()}
    except ValueError as error:
        raise RecipeError(str(error)) from error
    return TaggingTables(**tables, classes=classes)
