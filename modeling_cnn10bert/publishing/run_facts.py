"""What is known of a run when it has ended: how it was made, with what and on what. Its card says nothing else.

The facts are published: no secret and no folder of the machine is among them.
"""

import datetime
import enum
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments

from ..evaluation.reports import read_json
from ..masking import is_secret, without_secrets
from ..training.arguments import ARGUMENT_CLASSES
from ..training.data import RecordingTables
from ..training.model import PACKAGED_TEXT_MODEL
from ..training.recipe import given_fields
from ..training.run_queue import REPOSITORY
from ..training.trainer import RetrievalTrainer
from .data_facts import data_facts
from .earlier_data import AUDIO, RUN_FACTS, TEXT, earlier_data
from .preflight import repository_name

FACTS = RUN_FACTS  # in the folder of a run; run.json there is what reproduce_tables.py starts it with
RECIPES = REPOSITORY / "scripts" / "recipes"
PACKAGES = ("torch", "torchaudio", "transformers", "datasets", "accelerate", "huggingface-hub")
# Fields that change nothing of the model: where it lies, what is shown, where it goes.
_OF_NO_EFFECT = {
    "cache_dir",
    "disable_tqdm",
    "log_level",
    "log_level_replica",
    "logging_dir",
    "output_dir",
    "project",
    "report_to",
    "resume_from_checkpoint",
    "run_name",
}
_NEVER_PUBLISHED = re.compile(r"hub_.*|push_to_hub.*|trackio_.*")
_DEFAULTS = {name: field.default for cls in ARGUMENT_CLASSES for name, field in cls.__dataclass_fields__.items()}


def collect_facts(
    trainer: RetrievalTrainer,
    tables: RecordingTables,
    argv: Sequence[str] | None = None,
    code: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """
    The facts of a run that has ended, as JSON has them.

    Args:
        trainer: after training and scoring.
        tables: the recordings of the run.
        argv: what `parse_recipe` was given.
        code: what `code_version` said when the run began; by default, what it says now.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    given = given_fields(words)
    fields = {**_DEFAULTS, **given}
    model_id, published = _model_id(trainer.args), published_fields(given)
    return {
        "name": model_id.rsplit("/", 1)[-1],
        "model_id": model_id,
        "fields": published,
        "folders_left_out": any(value != given[name] for name, value in published.items()),
        **recipe_facts(words, trainer.args.world_size),
        "code": dict(code or code_version()),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "hardware": hardware_facts(trainer.args),
        "training": training_facts(trainer),
        "model": model_facts(trainer.model, trainer.processing_class),
        "start": start_facts(fields),
        "data": data_facts(fields, tables),
        "scored": {"validation": trainer.args.do_eval, "test": trainer.args.do_predict},
        "ended": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def read_facts(folder: str | os.PathLike) -> dict[str, Any]:
    """
    The facts that a run left in its folder.

    Raises:
        ValueError: there are none.
    """
    path = Path(folder) / FACTS
    try:
        if path.exists() and not path.is_file():  # reading a pipe may never end
            raise OSError("no file but a folder, a pipe or a device")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: found no facts of a run ({error}), expected those that train_retrieval.py leaves when it ends"
        ) from error


# ------------------------------------------------------------------------------------------------ what may be published


def published_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that made the model, without secrets and without folders of the machine."""
    return {
        name: without_folders(value)
        for name, value in fields.items()
        if name not in _OF_NO_EFFECT and not _NEVER_PUBLISHED.fullmatch(name) and not is_secret(name)
    }


def without_folders(value: Any) -> Any:
    """A field's value, as JSON has it, in which a path from outside the working folder is reduced to its last part."""
    if isinstance(value, enum.Enum):
        return without_folders(value.value)
    if isinstance(value, Mapping):
        return {name: without_folders(item) for name, item in without_secrets(value).items()}
    if isinstance(value, list | tuple):
        return [without_folders(item) for item in value]
    if not isinstance(value, str | os.PathLike):
        return value
    text = without_secrets(os.fspath(value))
    outside = os.path.isabs(text) or PureWindowsPath(text).is_absolute() or text.startswith("~")
    if outside or ".." in re.split(r"[\\/]", text):
        return PureWindowsPath(text.rstrip("/\\")).name  # which takes both kinds of slash
    return text.replace(str(Path.home()), "~")


def hub_id(name: str | None) -> str | None:
    """The name itself where it is that of a repository on the Hub, and not of a folder here."""
    if name is None or name == PACKAGED_TEXT_MODEL or Path(name).exists():
        return None
    return name if re.fullmatch(r"[\w][\w.-]*(/[\w][\w.-]*)?", name) else None


def _model_id(arguments: TrainingArguments) -> str:
    """By which name the model is opened: on the Hub, where it goes there, or else its folder."""
    if arguments.push_to_hub or arguments.hub_model_id:
        return repository_name(arguments)
    return without_folders(arguments.output_dir.rstrip("/\\"))


# ------------------------------------------------------------------------------------------------------ how it was made


def recipe_facts(words: Sequence[str], num_processes: int) -> dict[str, Any]:
    """The recipe's name, `None` without one, and the command that repeats the run."""
    launcher = "python" if num_processes == 1 else f"accelerate launch --multi_gpu --num_processes {num_processes}"
    command, fields, recipe = f"{launcher} train_retrieval.py", given_fields(words), None
    if words and not words[0].startswith("-"):
        recipe = Path(words[0])
        own = given_fields(words[:1])
        fields = {name: value for name, value in fields.items() if name not in own or own[name] != value}
        of_ours = (RECIPES / recipe.name).exists() and (RECIPES / recipe.name).samefile(recipe)
        command += f" {shlex.quote(f'scripts/recipes/{recipe.name}' if of_ours else recipe.name)}"
    options = [_option(name, value) for name, value in published_fields(fields).items()]
    return {"recipe": recipe.stem if recipe else None, "command": " ".join([command, *options])}


def _option(name: str, value: Any) -> str:
    if isinstance(value, bool):
        value = str(value).lower()
    words = value if isinstance(value, list) else [json.dumps(value) if isinstance(value, dict) else value]
    return f"--{name} {' '.join(shlex.quote(str(word)) for word in words)}"


def code_version() -> dict[str, Any]:
    """
    The commit of this code, and whether what a run is made of differs from it; both `None` outside a git checkout.

    Ask when a run begins: the files may change while it goes on.
    """
    try:
        if Path(_git("rev-parse", "--show-toplevel")).resolve() != REPOSITORY:
            return {"commit": None, "changed": None}
        changed = _git("status", "--porcelain", "--", "modeling_cnn10bert", "scripts", "train_retrieval.py")
        return {"commit": _git("rev-parse", "HEAD"), "changed": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "changed": None}


def _git(*words: str) -> str:
    command = ["git", "-C", str(REPOSITORY), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def hardware_facts(arguments: TrainingArguments) -> dict[str, Any]:
    """The accelerators that were used, or else the processor and its cores; and the number of processes."""
    accelerator = None
    if arguments.device.type == "cuda":
        accelerator = torch.cuda.get_device_name(arguments.device)
    elif arguments.device.type != "cpu":
        accelerator = arguments.device.type
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "accelerator": accelerator,
        "num_accelerators": arguments.world_size * max(arguments.n_gpu, 1) if accelerator else 0,
        "processor": _processor(),
        "cores": cores,
        "processes": arguments.world_size,
    }


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def training_facts(trainer: RetrievalTrainer) -> dict[str, Any]:
    """
    Tell of the training: steps, epochs and the choice of the weights are of the whole run, also where it was resumed.

    `seconds` are those since `resumed_from_step`: what came before nobody noted. Where no step was left to a resumed
    run, both are as its facts have them already.
    """
    state, args = trainer.state, trainer.args
    runtimes = [entry["train_runtime"] for entry in state.log_history if "train_runtime" in entry]
    timed = {"seconds": runtimes[-1] if runtimes else None, "resumed_from_step": trainer.resumed_from_step}
    if trainer.resumed_from_step == state.global_step:
        before = (read_json(Path(args.output_dir) / FACTS) or {}).get("training", {})
        if before.get("steps") == state.global_step:
            timed = {name: before[name] for name in timed}
    best = None
    if args.load_best_model_at_end and state.best_metric is not None:
        metric = args.metric_for_best_model.removeprefix("eval_")
        best = {"metric": metric, "value": state.best_metric, "step": state.best_global_step}
    return {
        "seed": args.seed,
        "steps": state.global_step,
        "epochs": state.epoch,
        "pairs_per_step": args.train_batch_size * args.world_size * args.gradient_accumulation_steps,
        "precision": "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32",
        **timed,
        "best": best,
    }


# ------------------------------------------------------------------------------------------------------------ the model


def model_facts(model: nn.Module, processor: Any) -> dict[str, Any]:
    """Sizes of both towers, each with its head, and what goes in."""
    extractor = processor.feature_extractor
    return {
        "audio": parameters_of(model.audio_model, model.audio_projection),
        "text": parameters_of(model.text_model, model.text_projection),
        "embedding_dim": model.config.projection_dim,
        "sampling_rate": extractor.sampling_rate,
        "num_mel_bins": extractor.feature_size,
        "max_caption_tokens": processor.tokenizer.model_max_length,
    }


def parameters_of(*modules: nn.Module) -> dict[str, int]:
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return {
        "parameters": sum(parameter.numel() for parameter in parameters),
        "trained": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
    }


def start_facts(fields: Mapping[str, Any]) -> dict[str, Any]:
    """
    Tell what the run started from: `model`, or `text_model` and `audio_model`, each a name and its id on the Hub or
    `None`; and `earlier_data`, what these were trained on.
    """

    def named(name: str | None) -> dict[str, str | None] | None:
        return name and {"name": without_folders(name), "hub_id": hub_id(name)}

    if not fields["model_name_or_path"]:
        audio, text = fields["audio_model_name_or_path"], fields["text_model_name_or_path"]
        return {
            "model": None,
            "text_model": named(text),
            "audio_model": named(audio),
            "earlier_data": [
                *(earlier_data(text, named(text), TEXT) if text else []),
                *(earlier_data(audio, named(audio), AUDIO) if audio else []),
            ],
        }
    model = fields["model_name_or_path"]
    try:
        before = read_facts(model)["start"]
    except ValueError:  # a model of others, or of the Hub
        before = {"text_model": None, "audio_model": None}
    return {
        "model": named(model),
        "text_model": before["text_model"],
        "audio_model": before["audio_model"],
        "earlier_data": earlier_data(model, named(model)),
    }
