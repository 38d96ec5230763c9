"""CNN10-BERT: language-based audio retrieval in the Hugging Face ecosystem.

Importing the package registers its classes with transformers' Auto classes. They are also registered for auto class, so
that a saved checkpoint contains their code, and `trust_remote_code=True` loads it where the package is not installed.
"""

import sys
from pathlib import Path

__version__ = "0.1.0"

# The command line imports transformers and torch only when it needs a model, because that takes seconds.
if Path(sys.argv[0]).name not in ("cnn10bert", "cnn10bert.exe"):
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
    from .registration import register

    register()

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
