"""Register our classes with transformers' Auto classes."""

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification, AutoProcessor

from .configuration_cnn10bert import CNN10BertConfig, CNN10Config
from .feature_extraction_cnn10bert import CNN10FeatureExtractor
from .modeling_cnn10bert import CNN10BertModel, CNN10ForAudioClassification, CNN10Model
from .processing_cnn10bert import CNN10BertProcessor


def register() -> None:
    """Register the classes, so that `AutoModel.from_pretrained` loads a checkpoint; a second call changes nothing."""
    for config in (CNN10Config, CNN10BertConfig):
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoFeatureExtractor.register(config, CNN10FeatureExtractor, exist_ok=True)
    AutoModel.register(CNN10Config, CNN10Model, exist_ok=True)
    AutoModel.register(CNN10BertConfig, CNN10BertModel, exist_ok=True)
    AutoModelForAudioClassification.register(CNN10Config, CNN10ForAudioClassification, exist_ok=True)
    AutoProcessor.register(CNN10BertConfig, CNN10BertProcessor, exist_ok=True)
