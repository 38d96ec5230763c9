"""The data behind the weights that a run starts from, over as many links as their folders tell of.

Each is a dictionary with a `kind`: `prepared` or `soundscapes`, as in data_facts.py; `known`, a `source` of
model_card.py; `card`, what the model's own card says; or `unknown`. `part` is the tower that starts from it, `None` for
the whole model.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from transformers.utils import cached_file

from ..data.audioset import NUM_CLASSES
from ..files import write_text
from ..training.model import PACKAGED_TEXT_MODEL, resolve_text_model
from ..training.panns import DATA_FACTS
from ..training.recipe import RecipeError

RUN_FACTS = "run_facts.json"  # in the folder of a retrieval run
AUDIO, TEXT = "audio tower", "text tower"
_KNOWN_MODELS = {"bert-base-uncased": "BERT", "google-bert/bert-base-uncased": "BERT"}


def earlier_data(name: str, shown: Mapping[str, str | None], part: str | None = None) -> list[dict[str, Any]]:
    """
    Tell what a model was trained on, the first data first.

    Args:
        name: its folder or Hub id.
        shown: its `name` and `hub_id`, as they are published.
        part: the tower that starts from it.
    """
    if name in _KNOWN_MODELS:
        return [{"kind": "known", "source": _KNOWN_MODELS[name], "part": part}]
    try:
        folder = resolve_text_model(name)
    except RecipeError:  # its package is not installed here
        return [{"kind": "unknown", **shown, "part": part}]
    if (facts := _json_of(folder, RUN_FACTS)) is not None:
        found = data_of_run(facts)
    elif (facts := _json_of(folder, DATA_FACTS)) is not None:
        found = facts
    elif len((_json_of(folder, "config.json") or {}).get("id2label", ())) == NUM_CLASSES:
        found = [{"kind": "known", "source": "AudioSet"}]  # converted before facts were left, or by others
    else:
        found = [{**(_card_of(folder) or {"kind": "unknown"}), **shown}]
    other = {AUDIO: TEXT, TEXT: AUDIO}.get(part)  # of a whole model, a tower that is not taken over
    return [
        {**entry, "part": part or entry.get("part")} for entry in found if other is None or entry.get("part") != other
    ]


def data_of_run(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Tell what the model of a run was trained on, from the facts of the run; older ones say nothing of its towers."""
    start = facts["start"]
    found = list(start["earlier_data"])
    if start["model"] and not found:
        found = [{"kind": "unknown", **start["model"]}]
    for part, model in ((TEXT, start["text_model"]), (AUDIO, start["audio_model"])):
        if model and not any(entry.get("part") == part for entry in found):
            # A name without a slash may be the last part of a folder that was somewhere else.
            is_whole = "/" in model["name"] or model["name"] in (*_KNOWN_MODELS, PACKAGED_TEXT_MODEL)
            found = [
                *(
                    earlier_data(model["name"], model, part)
                    if is_whole
                    else [{"kind": "unknown", **model, "part": part}]
                ),
                *found,
            ]
    return [*found, facts["data"]]


def write_data_facts(folder: str | os.PathLike, data: Sequence[Mapping[str, Any]]) -> None:
    """Leave in the folder of a tagger what it was trained on, the first data first."""
    write_text(Path(folder) / DATA_FACTS, json.dumps(list(data), indent=2) + "\n")


def _file_of(model: str, name: str) -> Path | None:
    """A file of a model's folder, or of its repository on the Hub."""
    if Path(model).is_dir():
        path = Path(model) / name
        return path if path.is_file() else None
    try:
        path = cached_file(
            model,
            name,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except (OSError, ValueError):  # no name of a repository
        return None
    return None if path is None else Path(path)


def _json_of(model: str, name: str) -> Any:
    path = _file_of(model, name)
    try:
        return None if path is None else json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _card_of(model: str) -> dict[str, Any] | None:
    """What a model's card says of licence and data, `None` where it has no card or that says nothing of them."""
    path = _file_of(model, "README.md")
    try:
        data = None if path is None else ModelCard.load(path, ignore_metadata_errors=True).data
    except (OSError, ValueError, TypeError, AttributeError):  # whatever stands there as metadata
        return None
    licence, datasets = getattr(data, "license", None), getattr(data, "datasets", None) or []
    datasets = [datasets] if isinstance(datasets, str) else datasets
    if not licence and not datasets:
        return None
    return {
        "kind": "card",
        "licence": str(licence) if licence else None,
        "datasets": [str(found) for found in datasets],
    }
