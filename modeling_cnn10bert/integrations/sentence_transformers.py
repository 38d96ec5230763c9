"""Make a checkpoint a model of Sentence Transformers: `SentenceTransformer(folder, trust_remote_code=True)`."""

import json
import os
from pathlib import Path
from typing import Any

from ..files import write_text

# Format of sentence-transformers 6. Its library also loads a checkpoint without them, but then guesses their content.
CONFIGURATION: dict[str, Any] = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
    ],
    "sentence_bert_config.json": {
        "transformer_task": "feature-extraction",
        "modality_config": {
            "text": {"method": "get_text_features", "method_output_name": "pooler_output"},
            "audio": {"method": "get_audio_features", "method_output_name": "pooler_output"},
        },
        "module_output_name": "sentence_embedding",
    },
    "config_sentence_transformers.json": {
        "model_type": "SentenceTransformer",
        "prompts": {"query": "", "document": ""},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    },
}


def write_configuration(folder: str | os.PathLike) -> None:
    """Write the configuration of Sentence Transformers into the folder of a saved retrieval model."""
    for name, content in CONFIGURATION.items():
        write_text(Path(folder) / name, json.dumps(content, indent=2) + "\n")


__all__ = ["CONFIGURATION", "write_configuration"]
