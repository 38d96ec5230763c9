"""From the model's arguments to the model and its processor."""

from pathlib import Path

import torch
from torch import nn
from transformers import AutoTokenizer

from ..configuration_cnn10bert import CNN10Config
from ..feature_extraction_cnn10bert import CNN10FeatureExtractor
from ..model_folder import PACKAGED_TEXT_MODEL, check_model, packaged_text_model
from ..modeling_cnn10bert import CNN10BertModel
from ..processing_cnn10bert import CNN10BertProcessor
from .arguments import ModelArguments
from .recipe import RecipeError


def load_model_and_processor(arguments: ModelArguments) -> tuple[CNN10BertModel, CNN10BertProcessor]:
    """
    The whole model of `model_name_or_path`, or two towers joined under fresh heads (section 6.2 of the paper).

    Raises:
        RecipeError: a model that is neither in a folder nor on the Hub or is of another kind, or the packaged text
            model without its package.
    """
    try:
        for name in ("model_name_or_path", "audio_model_name_or_path", "text_model_name_or_path"):
            model = getattr(arguments, name)
            if model and model != PACKAGED_TEXT_MODEL:
                check_model(model, lambda fault, name=name: RecipeError(f"{name}: {fault}"))
        if arguments.model_name_or_path:
            model = CNN10BertModel.from_pretrained(arguments.model_name_or_path, dtype=torch.float32)
            processor = CNN10BertProcessor.from_pretrained(arguments.model_name_or_path)
        else:
            model, processor = _join_towers(arguments)
    except (RecipeError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a library raises at what the files of a model say
        fields = ("model_name_or_path", "audio_model_name_or_path", "text_model_name_or_path")
        given = ", ".join(f"{name} {getattr(arguments, name)!r}" for name in fields if getattr(arguments, name))
        raise RecipeError(f"cannot start from {given}: {' '.join(str(error).split())}") from error
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
    return model, processor


def _set_text_dropout(model: CNN10BertModel, dropout: float) -> None:
    """Set both kinds of BERT's dropout, in the network and in the configuration that is saved with it."""
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
        # Its convolutions, in the network of table 2 of the paper: a tagger pools and drops as PANNs does.
        audio_fields = {"time_pooling": "average", "block_dropout": arguments.block_dropout}
        feature_extractor = CNN10FeatureExtractor.from_pretrained(audio_model)
    else:
        audio_model = CNN10Config(
            num_mel_bins=arguments.num_mel_bins,
            hidden_sizes=arguments.hidden_sizes,
            block_dropout=arguments.block_dropout,
        )
        feature_extractor = CNN10FeatureExtractor(
            feature_size=arguments.num_mel_bins,
            n_fft=arguments.n_fft,
            hop_length=arguments.hop_length,
            min_frames=audio_model.min_frames,
        )
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
    """A folder or Hub id; the packaged MiniLM's folder if that is its name and there is no such folder here."""
    if name != PACKAGED_TEXT_MODEL or Path(name).is_dir():
        return name
    try:
        return packaged_text_model()
    except ImportError as error:
        raise RecipeError(
            f"text_model_name_or_path is {name!r}, whose package is not installed; "
            'install it with `pip install "cnn10bert[demo]"`, or name another BERT'
        ) from error
