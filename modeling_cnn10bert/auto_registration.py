"""
Makes our classes known to transformers' Auto classes without an import of either before it is needed.

transformers' models take seconds to import, and a command or a worker process may need none. So ours are entered as
transformers enters its own: by name, in the tables of its Auto modules, which import a class when it is looked up. That
must be done as each of these modules comes into being. To import and register the classes then would not do: often it
is one of transformers' models that imports them, itself half imported, and ours are built from those models.
"""

import importlib.machinery
import sys
from types import ModuleType

AUTO = "transformers.models.auto"
# Auto module -> its table -> type of model -> class
TABLES = {
    f"{AUTO}.configuration_auto": {
        "CONFIG_MAPPING_NAMES": {"cnn10": "CNN10Config", "cnn10bert": "CNN10BertConfig"},
    },
    f"{AUTO}.modeling_auto": {
        "MODEL_MAPPING_NAMES": {"cnn10": "CNN10Model", "cnn10bert": "CNN10BertModel"},
        "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES": {"cnn10": "CNN10ForAudioClassification"},
    },
    f"{AUTO}.feature_extraction_auto": {
        "FEATURE_EXTRACTOR_MAPPING_NAMES": {"cnn10": "CNN10FeatureExtractor", "cnn10bert": "CNN10FeatureExtractor"},
    },
    f"{AUTO}.processing_auto": {
        "PROCESSOR_MAPPING_NAMES": {"cnn10bert": "CNN10BertProcessor"},
    },
}


class _AutoModuleFinder(importlib.machinery.PathFinder):
    """Finds transformers' Auto modules and enters our names when they have been executed, before anyone sees them."""

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        spec = super().find_spec(fullname, path, target) if fullname in TABLES else None
        if spec is not None:
            execute = spec.loader.exec_module

            def execute_and_enter(module: ModuleType) -> None:
                execute(module)
                for table, names in TABLES[fullname].items():
                    getattr(module, table).update(names)

            spec.loader.exec_module = execute_and_enter
        return spec


def register(package: ModuleType) -> None:
    """Registers the classes of `package`: by name where the Auto modules are yet to come, else at once."""
    if _AutoModuleFinder in sys.meta_path:  # the package is being reloaded
        return
    if any(name in sys.modules for name in TABLES):
        _register_classes(package)
        return
    # Where transformers looks for the module of a type of model.
    for model_type in TABLES[f"{AUTO}.configuration_auto"]["CONFIG_MAPPING_NAMES"]:
        sys.modules[f"transformers.models.{model_type}"] = package
    sys.meta_path.insert(0, _AutoModuleFinder)


def _register_classes(package: ModuleType) -> None:
    from transformers import (
        AutoConfig,
        AutoFeatureExtractor,
        AutoModel,
        AutoModelForAudioClassification,
        AutoProcessor,
    )

    AutoConfig.register("cnn10", package.CNN10Config)
    AutoConfig.register("cnn10bert", package.CNN10BertConfig)
    AutoModel.register(package.CNN10Config, package.CNN10Model)
    AutoModel.register(package.CNN10BertConfig, package.CNN10BertModel)
    AutoModelForAudioClassification.register(package.CNN10Config, package.CNN10ForAudioClassification)
    AutoFeatureExtractor.register(package.CNN10Config, package.CNN10FeatureExtractor)
    AutoFeatureExtractor.register(package.CNN10BertConfig, package.CNN10FeatureExtractor)
    AutoProcessor.register(package.CNN10BertConfig, package.CNN10BertProcessor)
