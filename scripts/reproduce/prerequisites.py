"""Find missing prerequisites of the runs of a plan, each with the command that makes it."""

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import constants, try_to_load_from_cache

from modeling_cnn10bert.augmentation.back_translation import BACK_TRANSLATION_COLUMN, back_translation_languages
from modeling_cnn10bert.augmentation.wordnet import find_wordnet
from modeling_cnn10bert.data.recipes.soundscapes import SPLITS, manifest_lines
from modeling_cnn10bert.data.saved_tables import load_saved
from modeling_cnn10bert.errors import DataError, RecipeError
from modeling_cnn10bert.training.arguments import ModelArguments
from modeling_cnn10bert.training.build import PACKAGED_TEXT_MODEL, resolve_text_model

from .ladders import TAGGING, Run, Synthesis
from .run_queue import REPOSITORY

# Folders that recipes name -> the command that makes them.
MADE_BY = {
    "data/clotho": "cnn10bert prepare clotho data/clotho",
    "data/audiocaps": "cnn10bert prepare audiocaps data/audiocaps --captions DIR --audio DIR",
    "models/cnn10_audioset": "cnn10bert convert-panns models/cnn10_audioset",
}


def missing_prerequisites(steps: Sequence[Run | Synthesis]) -> list[str]:
    """Return one line per missing prerequisite, with the runs that need it and what to do."""
    made_here = {str(step.folder) for step in steps if isinstance(step, Synthesis)}
    missing: dict[str, None] = {}  # a set that keeps its order
    for run in steps:
        if isinstance(run, Run):
            missing.update(dict.fromkeys(_missing_of(run, made_here)))
    if any(isinstance(run, Run) and _uses(run, "p_eda", "p_syn") for run in steps):
        try:
            find_wordnet()
        except DataError as error:
            missing[str(error)] = None
    return list(missing)


def _uses(run: Run, *augmentations: str) -> bool:
    """Tell whether a run has all of these text augmentations."""
    return bool(run.fields.get("augment_text", True)) and all(run.fields.get(name) for name in augmentations)


def _missing_of(run: Run, made_here: set[str]) -> list[str]:
    fields, missing = run.fields, []
    if not (REPOSITORY / run.script).is_file():
        missing.append(f"{run.script}: found no such file, expected it in {REPOSITORY}")
    for name in ("dataset_name", "audio_model_name_or_path", "model_name_or_path"):
        folder = fields.get(name)
        if name in run.starts_from or not folder or Path(folder).is_dir():
            continue
        if folder in MADE_BY:
            missing.append(f"{folder}: found no such folder, expected what `{MADE_BY[folder]}` makes; run that first")
        elif name != "dataset_name" or not _may_be_hub_id(folder):
            missing += _missing_model(name, folder)
    if run.script != TAGGING and not fields.get("model_name_or_path"):
        text_model = fields.get("text_model_name_or_path") or ModelArguments.text_model_name_or_path
        missing += _missing_model("text_model_name_or_path", text_model)
    if not fields.get("dataset_name") and fields.get("manifests") not in made_here:
        missing += _missing_scenes(fields.get("manifests"), fields.get("sources"))
    folder = fields.get("dataset_name") or fields.get("manifests")
    if _uses(run, "p_bt") and folder and (found := _missing_back_translations(fields)):
        missing.append(
            f"{folder}: found {found}, expected those that p_bt takes; add them by "
            f"`cnn10bert back-translate {shlex.quote(folder)} de fr es`"
        )
    return missing


def _may_be_hub_id(name: str) -> bool:
    return re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name) is not None


def _missing_model(field: str, name: str) -> list[str]:
    """Check the name of a model, as far as possible without asking the Hub."""
    if name == PACKAGED_TEXT_MODEL:
        try:
            resolve_text_model(name)
        except RecipeError as error:
            return [str(error)]
        return []
    if Path(name).is_dir():
        return []
    if not _may_be_hub_id(name):
        return [f"{field} {name}: found no such folder, expected that of a model; name it, or one of the Hub"]
    if not constants.HF_HUB_OFFLINE or isinstance(try_to_load_from_cache(name, "config.json"), str):
        return []
    return [
        f"{field} {name}: found it neither as a folder nor in the cache of the Hub, which HF_HUB_OFFLINE keeps from "
        f"being asked; download it where there is a connection, by `hf download {name}`, or name a folder"
    ]


def _missing_scenes(manifests: str | None, sources: str | None) -> list[str]:
    if not manifests or not sources:
        return ["found no --manifests and --sources, expected the folders of the scenes and of their recordings"]
    missing = []
    if files := [f"{split}.jsonl" for split in SPLITS if not (Path(manifests) / f"{split}.jsonl").is_file()]:
        missing.append(f"--manifests {manifests}: found no {', '.join(files)}, expected a folder that has them")
    if not Path(sources).is_dir():
        missing.append(f"--sources {sources}: found no such folder, expected that of the recordings")
    return missing


def _missing_back_translations(fields: dict) -> str:
    """Describe missing back-translations of the training set; empty if none are missing or the run itself checks."""
    name = fields.get("dataset_name")
    if name and name in MADE_BY and not Path(name).is_dir():
        return "no back-translations, nor the data set"
    try:
        if name:
            table = load_saved(name)["train"]
            languages = back_translation_languages(table.column_names)
            columns = [BACK_TRANSLATION_COLUMN.format(language=language) for language in languages]
            lacking = {
                row for column in columns for row, texts in enumerate(table[column]) if not texts or None in texts
            }
            has, count = bool(columns), len(table)
        else:
            lines = [json.loads(line) for _, line in manifest_lines(Path(fields["manifests"]) / "train.jsonl")]
            lacking = {row for row, line in enumerate(lines) if not line.get("back_translations")}
            has, count = len(lacking) < len(lines), len(lines)
    except (OSError, ValueError, KeyError, AttributeError, TypeError):  # of the Hub, missing or faulty
        return ""
    if not count or (has and not lacking):
        return ""
    return f"no back-translations of {len(lacking)} of {count} recordings" if has else "no back-translations"
