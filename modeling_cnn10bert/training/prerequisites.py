"""What the runs of a plan need and is not there, each with the command that makes it."""

import json
from collections.abc import Sequence
from pathlib import Path

import datasets

from ..augmentation.back_translation import back_translation_languages
from ..augmentation.wordnet import WordNetError, find_wordnet
from ..data.soundscapes import SPLITS, manifest_lines
from .ladders import Run, Synthesis
from .run_queue import REPOSITORY

# Folders that recipes name -> what makes them.
MADE_BY = {
    "data/clotho": "python scripts/prepare_clotho.py data/clotho",
    "data/audiocaps": "python scripts/prepare_audiocaps.py data/audiocaps --captions DIR --audio DIR",
    "models/cnn10_audioset": "python scripts/convert_panns_checkpoint.py models/cnn10_audioset",
}


def missing_prerequisites(steps: Sequence[Run | Synthesis]) -> list[str]:
    """One line for each thing that is missing, as which runs need it and what to do; none where all is there."""
    made_here = {str(step.folder) for step in steps if isinstance(step, Synthesis)}
    missing: dict[str, None] = {}  # a set that keeps its order
    for run in steps:
        if isinstance(run, Run):
            missing.update(dict.fromkeys(_missing_of(run, made_here)))
    if any(isinstance(run, Run) and _uses(run, "p_eda", "p_syn") for run in steps):
        try:
            find_wordnet()
        except WordNetError as error:
            missing[str(error)] = None
    return list(missing)


def _uses(run: Run, *augmentations: str) -> bool:
    """Whether a run has all of these text augmentations."""
    return bool(run.fields.get("augment_text", True)) and all(run.fields.get(name) for name in augmentations)


def _missing_of(run: Run, made_here: set[str]) -> list[str]:
    fields, missing = run.fields, []
    if not (REPOSITORY / run.script).is_file():
        missing.append(f"{run.script}: found no such file, expected it in {REPOSITORY}")
    for name in ("dataset_name", "audio_model_name_or_path", "model_name_or_path"):
        folder = fields.get(name)
        if name not in run.starts_from and folder in MADE_BY and not Path(folder).is_dir():
            missing.append(f"{folder}: found no such folder, expected what `{MADE_BY[folder]}` makes; run that first")
    if not fields.get("dataset_name") and fields.get("manifests") not in made_here:
        missing += _missing_scenes(fields.get("manifests"), fields.get("sources"))
    if not missing and _uses(run, "p_bt") and not _has_back_translations(fields):
        folder = fields.get("dataset_name") or fields["manifests"]
        missing.append(
            f"{folder}: found no back-translations, expected those that {run.recipe.name} uses; "
            f"add them by `python scripts/back_translate.py {folder} --languages de fr es`"
        )
    return missing


def _missing_scenes(manifests: str | None, sources: str | None) -> list[str]:
    if not manifests or not sources:
        return ["found no --manifests and --sources, expected the folders of the scenes and of their recordings"]
    missing = []
    if files := [f"{split}.jsonl" for split in SPLITS if not (Path(manifests) / f"{split}.jsonl").is_file()]:
        missing.append(f"--manifests {manifests}: found no {', '.join(files)}, expected a folder that has them")
    if not Path(sources).is_dir():
        missing.append(f"--sources {sources}: found no such folder, expected that of the recordings")
    return missing


def _has_back_translations(fields: dict) -> bool:
    if fields.get("dataset_name"):
        try:
            columns = datasets.load_from_disk(fields["dataset_name"])["train"].column_names
        except (OSError, ValueError, KeyError):
            return True  # a data set of the Hub, or a faulty one: the run itself tells
        return bool(back_translation_languages(columns))
    if not (lines := manifest_lines(Path(fields["manifests"]) / "train.jsonl")):
        return True
    try:
        return bool(json.loads(lines[0][1]).get("back_translations"))
    except (ValueError, AttributeError):
        return True
