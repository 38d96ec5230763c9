"""CNN10-BERT: language-based audio retrieval in the Hugging Face ecosystem.

Importing the package registers its classes with transformers' Auto classes. Its four files register the classes for
auto class too, so that they travel with a saved checkpoint, which `trust_remote_code=True` then loads where the package
is not installed.
"""

import sys

__version__ = "0.1.0"

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


def register() -> None:
    """Imports the classes and registers them with transformers' Auto classes; done already, it does nothing."""
    if "CNN10BertModel" in globals():
        return
    from transformers import (
        AutoConfig,
        AutoFeatureExtractor,
        AutoModel,
        AutoModelForAudioClassification,
        AutoProcessor,
    )

    from . import (
        configuration_cnn10bert,
        feature_extraction_cnn10bert,
        modeling_cnn10bert,
        processing_cnn10bert,
    )

    files = (configuration_cnn10bert, feature_extraction_cnn10bert, processing_cnn10bert, modeling_cnn10bert)
    found = {name: getattr(file, name) for file in files for name in __all__ if hasattr(file, name)}
    AutoConfig.register("cnn10", found["CNN10Config"])
    AutoConfig.register("cnn10bert", found["CNN10BertConfig"])
    AutoModel.register(found["CNN10Config"], found["CNN10Model"])
    AutoModel.register(found["CNN10BertConfig"], found["CNN10BertModel"])
    AutoModelForAudioClassification.register(found["CNN10Config"], found["CNN10ForAudioClassification"])
    AutoFeatureExtractor.register(found["CNN10Config"], found["CNN10FeatureExtractor"])
    AutoFeatureExtractor.register(found["CNN10BertConfig"], found["CNN10FeatureExtractor"])
    AutoProcessor.register(found["CNN10BertConfig"], found["CNN10BertProcessor"])
    globals().update(found)


def __getattr__(name: str):
    if name in __all__:
        register()
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# transformers' models take five seconds to import. The command `cnn10bert` does without them where it can.
if "cnn10bert_command" not in sys.modules:
    register()
