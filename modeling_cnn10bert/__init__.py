"""CNN10-BERT: language-based audio retrieval in the Hugging Face ecosystem.

Importing the package registers its classes with transformers' Auto classes; a class is imported when it is first asked
for. The files named `*_cnn10bert.py` travel with a saved checkpoint, since their classes are registered for auto class
too, and `trust_remote_code=True` then loads them where the package is not installed.
"""

import importlib
import sys

from . import auto_registration

__version__ = "0.1.0"

_FILE_OF = {
    "CNN10BertConfig": "configuration_cnn10bert",
    "CNN10BertModel": "modeling_cnn10bert",
    "CNN10BertOutput": "modeling_cnn10bert",
    "CNN10BertProcessor": "processing_cnn10bert",
    "CNN10Config": "configuration_cnn10bert",
    "CNN10FeatureExtractor": "feature_extraction_cnn10bert",
    "CNN10ForAudioClassification": "modeling_cnn10bert",
    "CNN10Model": "modeling_cnn10bert",
    "contrastive_loss": "modeling_cnn10bert",
}
__all__ = list(_FILE_OF)


def __getattr__(name: str):
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_FILE_OF[name]}"), name)
    globals()[name] = value  # the next time without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


auto_registration.register(sys.modules[__name__])
