"""CNN10-BERT: language-based audio retrieval in the Hugging Face ecosystem.

Importing the package registers its classes with transformers' Auto classes. Its four files register the classes for
auto class too, so that they travel with a saved checkpoint, which `trust_remote_code=True` then loads where the package
is not installed.
"""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    AutoProcessor,
)

from .configuration_cnn10bert import CNN10BertConfig, CNN10Config
from .feature_extraction_cnn10bert import CNN10FeatureExtractor
from .modeling_cnn10bert import (
    CNN10BertModel,
    CNN10BertOutput,
    CNN10ForAudioClassification,
    CNN10Model,
    contrastive_loss,
)
from .processing_cnn10bert import CNN10BertProcessor

__version__ = "0.1.0"

AutoConfig.register("cnn10", CNN10Config)
AutoConfig.register("cnn10bert", CNN10BertConfig)
AutoModel.register(CNN10Config, CNN10Model)
AutoModel.register(CNN10BertConfig, CNN10BertModel)
AutoModelForAudioClassification.register(CNN10Config, CNN10ForAudioClassification)
AutoFeatureExtractor.register(CNN10Config, CNN10FeatureExtractor)
AutoFeatureExtractor.register(CNN10BertConfig, CNN10FeatureExtractor)
AutoProcessor.register(CNN10BertConfig, CNN10BertProcessor)

__all__ = [
    "CNN10BertConfig",
    "CNN10BertModel",
    "CNN10BertOutput",
    "CNN10BertProcessor",
    "CNN10Config",
    "CNN10FeatureExtractor",
    "CNN10ForAudioClassification",
    "CNN10Model",
    "contrastive_loss",
]
