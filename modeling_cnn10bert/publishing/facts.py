"""Collect the facts of a finished run: code, hardware, hyperparameters and data. Its card is written from them.

The facts are published, so they contain no secrets and no folders of the machine.
"""

import datetime
import enum
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import datasets
import torch
from huggingface_hub import ModelCard
from torch import nn
from transformers import TrainerState, TrainingArguments
from transformers.utils import cached_file
from yaml import YAMLError

from ..data.recipes import audiocaps, clotho
from ..data.recipes.audioset import NUM_CLASSES
from ..data.recipes.soundscapes import manifest_lines
from ..data.recordings_table import load_prepared
from ..errors import one_line
from ..evaluation.reports import read_json
from ..files import write_text
from ..masking import is_secret, without_secrets
from ..model_folder import PACKAGED_TEXT_MODEL, packaged_text_model

# In the folder of a retrieval run; reproduce_tables.py writes a run.json there with the run's settings.
FACTS = "run_facts.json"
DATA_FACTS = "data_facts.json"  # in the folder of a tagger: its training data
AUDIO, TEXT = "audio tower", "text tower"
_KNOWN_MODELS = {"bert-base-uncased": "BERT", "google-bert/bert-base-uncased": "BERT"}


def earlier_data(name: str, shown: Mapping[str, str | None], part: str | None = None) -> list[dict[str, Any]]:
    """
    List the training data of a model, the first data first.

    Args:
        name: folder or Hub id of the model.
        shown: its `name` and `hub_id` as published.
        part: the tower that starts from it.
    """
    if name in _KNOWN_MODELS:
        return [{"kind": "known", "source": _KNOWN_MODELS[name], "part": part}]
    try:
        folder = packaged_text_model() if name == PACKAGED_TEXT_MODEL and not Path(name).is_dir() else name
    except ImportError:  # its package is not installed
        return [{"kind": "unknown", **shown, "part": part}]
    if (facts := _json_of(folder, FACTS)) is not None:
        found = data_of_run(facts)
    elif (facts := _json_of(folder, DATA_FACTS)) is not None:
        found = facts
    elif len((_json_of(folder, "config.json") or {}).get("id2label", ())) == NUM_CLASSES:
        found = [{"kind": "known", "source": "AudioSet"}]  # converted by others, or before facts were written
    else:
        found = [{**(_card_of(folder) or {"kind": "unknown"}), **shown}]
    other = {AUDIO: TEXT, TEXT: AUDIO}.get(part)  # the tower of a whole model that is not used
    return [
        {**entry, "part": part or entry.get("part")} for entry in found if other is None or entry.get("part") != other
    ]


def data_of_run(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the training data of a run's model from the run's facts; older facts do not have the towers' data."""
    start = facts["start"]
    found = list(start["earlier_data"])
    if start["model"] and not found:
        found = [{"kind": "unknown", **start["model"]}]
    for part, model in ((TEXT, start["text_model"]), (AUDIO, start["audio_model"])):
        if model and not any(entry.get("part") == part for entry in found):
            # A name without a slash may be the last part of a folder elsewhere.
            is_whole = "/" in model["name"] or model["name"] in (*_KNOWN_MODELS, PACKAGED_TEXT_MODEL)
            unknown = [{"kind": "unknown", **model, "part": part}]
            found = (earlier_data(model["name"], model, part) if is_whole else unknown) + found
    return [*found, facts["data"]]


def write_data_facts(folder: str | os.PathLike, data: Sequence[Mapping[str, Any]]) -> None:
    """Write the training data of a tagger to its folder, the first data first."""
    write_text(Path(folder) / DATA_FACTS, json.dumps(list(data), indent=2) + "\n")


def _file_of(model: str, name: str) -> Path | None:
    """Find a file in a model's folder or in its repository on the Hub."""
    try:
        path = cached_file(
            model,
            name,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except (OSError, ValueError):  # not the name of a repository
        return None
    return None if path is None else Path(path)


def _json_of(model: str, name: str) -> Any:
    path = _file_of(model, name)
    try:
        return None if path is None else json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _card_of(model: str) -> dict[str, Any] | None:
    """Read the license and data sets in a model's card; `None` if there is no card or it has neither."""
    path = _file_of(model, "README.md")
    try:
        data = None if path is None else ModelCard.load(path, ignore_metadata_errors=True).data
    except (OSError, ValueError, TypeError, AttributeError, YAMLError):  # metadata of any form
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


# The columns by which a prepared data set is known.
_SOURCES = {
    "Clotho": {"captions", *clotho.METADATA_COLUMNS},
    "AudioCaps": set(audiocaps.FEATURES),
}
NOTICES = ("ATTRIBUTION.md", "LICENSE", "LICENSE.md", "LICENSE.txt")  # in the folder of the soundscapes' recordings
SYNTHETIC_MARK = "soundscapes.json"  # written by the built-in synthesizers next to their manifests
_CREATIVE_COMMONS = re.compile(r"https?://creativecommons\.org/(licenses|publicdomain)/([\w.+-]+)/(\d+\.\d+)", re.I)


def data_facts(fields: Mapping[str, Any], tables: Mapping[str, datasets.Dataset]) -> dict[str, Any]:
    """
    Describe the data that a retrieval run was trained and scored on.

    Args:
        fields: fields of the recipe.
        tables: the recordings of `train`, `validation` and `test`.

    Returns:
        `name`: the last part of the folder, or the Hub id; `hub_id`: the latter or `None`; `kind`: `prepared` or
        `soundscapes`; `splits`: the numbers of recordings and captions in each, as used by the run; `licences`:
        license -> number of training recordings, or of the recordings mixed into soundscapes; and fields of the
        particular kind.
    """
    splits = {}
    for split in ("train", "validation", "test"):
        captions = tables[split].select_columns(["captions"]).to_dict()["captions"]
        splits[split] = {
            "recordings": len(captions),
            "captions": sum(map(len, captions)),
            "different_captions": len({caption for texts in captions for caption in texts}),
        }
    limits = {name: fields[name] for name in ("max_train_samples", "max_eval_samples") if fields[name] is not None}
    of_kind = _prepared(fields["dataset_name"]) if fields["dataset_name"] else _soundscapes(fields)
    return {**of_kind, "splits": splits, "limits": limits}


def _prepared(name: str) -> dict[str, Any]:
    rows = load_prepared(name)["train"]
    columns = set(rows.column_names)
    source = next((source for source, needed in _SOURCES.items() if needed <= columns), None)
    return _named(name, source, _licences(rows) if "license" in columns else {})


def _named(name: str, source: str | None, licences: Mapping[str, int]) -> dict[str, Any]:
    """Describe a prepared data set by its folder or Hub id."""
    is_folder = Path(name).is_dir()
    return {
        "kind": "prepared",
        "name": Path(name).resolve().name if is_folder else name,
        "hub_id": None if is_folder else name,
        "source": source,
        "licences": licences,
    }


def _licences(rows: datasets.Dataset) -> dict[str, int]:
    """Count the recordings per license, for any type of column; a recording may have several."""
    feature = rows.features["license"]
    counts = Counter()
    for value in rows["license"][:]:
        if isinstance(feature, datasets.ClassLabel) and value is not None:
            value = feature.int2str(value)
        counts.update(list(dict.fromkeys(_texts(value))))
    return dict(counts.most_common())


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in a value of a table, each as one line."""
    if isinstance(value, list | tuple | set):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, Mapping):
        yield ", ".join(f"{name}: {text}" for name, item in value.items() for text in _texts(item))
    elif value is not None and value == value and (text := one_line(value)):  # not NaN
        yield text


def tagging_facts(
    fields: Mapping[str, Any], tables: Mapping[str, datasets.Dataset], num_classes: int
) -> dict[str, Any]:
    """Describe the data of a tagger, as `data_facts` does; its recordings have classes and no captions."""
    if fields["manifests"]:
        found = _soundscapes(fields)
    else:
        found = _named(fields["dataset_name"], "AudioSet" if num_classes == NUM_CLASSES else None, {})
    splits = {split: {"recordings": len(tables[split])} for split in ("train", "validation", "test")}
    return {**found, "splits": splits, "classes": num_classes}


def _soundscapes(fields: Mapping[str, Any]) -> dict[str, Any]:
    manifests, sources = Path(fields["manifests"]).resolve(), Path(fields["sources"]).resolve()
    lines = [json.loads(line) for _, line in manifest_lines(manifests / "train.jsonl")]
    used = {event["source"] for line in lines[: fields["max_train_samples"]] for event in line["events"]}
    synthetic = (manifests / SYNTHETIC_MARK).is_file()
    notice = next((sources / name for name in NOTICES if (sources / name).is_file()), None)
    text = notice.read_text(encoding="utf-8", errors="replace") if notice and not synthetic else ""
    lines_of_notice = [line.strip("#= \t") for line in text.splitlines()]
    return {
        "kind": "soundscapes",
        "name": manifests.name,
        "hub_id": None,
        "source": None,
        "sources": sources.name,
        "synthetic": synthetic,
        "renderings": fields["renderings"],
        "num_sources": len(used),
        "kinds_of_sound": sorted({source.split("/")[0] for source in used if "/" in source}),
        "notice": {"file": notice.name, "title": next(filter(None, lines_of_notice), "")} if text else None,
        "licences": dict(Counter(map(_licence, _CREATIVE_COMMONS.finditer(text))).most_common()),
    }


def _licence(found: re.Match) -> str:
    """Name a license by its URL: `https://creativecommons.org/licenses/by-nc/3.0/` is CC BY-NC 3.0."""
    area, name, version = found[1].lower(), found[2].upper(), found[3]
    return f"CC0 {version}" if (area, name) == ("publicdomain", "ZERO") else f"CC {name} {version}"


PACKAGE = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "transformers", "datasets", "accelerate", "huggingface-hub")
# Fields that do not change the model, such as those of folders, logging and publishing.
_NOT_PUBLISHED = re.compile(
    r"(hub|push_to_hub|trackio)_.*|push_to_hub|cache_dir|disable_tqdm|log_level(_replica)?|logging_dir|output_dir|"
    r"project|report_to|resume_from_checkpoint|run_name"
)


def collect_facts(
    arguments: TrainingArguments,
    state: TrainerState,
    model: nn.Module,
    processor: Any,
    *,
    model_id: str,
    fields: Mapping[str, Any],
    given: Mapping[str, Any],
    recipe: Mapping[str, str | None],
    tables: Mapping[str, datasets.Dataset],
    resumed_from_step: int = 0,
    code: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """
    Collect the facts of a finished run as JSON values.

    Args:
        arguments, state, model, processor: from the trainer, after training and scoring.
        model_id: the name that opens the model.
        fields: fields of the recipe, including defaults.
        given: the fields that the recipe and the command line set.
        recipe: `recipe`, its name, and `command`, which repeats the run.
        tables: the recordings of `train`, `validation` and `test`.
        resumed_from_step: step at which training began.
        code: `code_version` at the beginning of the run; by default the current one.
    """
    published = published_fields(given)
    return {
        "name": model_id.rsplit("/", 1)[-1],
        "model_id": model_id,
        "fields": published,
        "folders_left_out": any(value != given[name] for name, value in published.items()),
        **recipe,
        "code": dict(code or code_version()),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "hardware": hardware_facts(arguments),
        "training": training_facts(arguments, state, resumed_from_step),
        "model": model_facts(model, processor),
        "start": start_facts(fields),
        "data": data_facts(fields, tables),
        "scored": {"validation": arguments.do_eval, "test": arguments.do_predict},
        "ended": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def read_facts(folder: str | os.PathLike) -> dict[str, Any]:
    """
    Read the facts of a run from its folder.

    Raises:
        ValueError: there are none.
    """
    path = Path(folder) / FACTS
    try:
        if path.exists() and not path.is_file():  # reading a pipe might never end
            raise OSError("no file but a folder, a pipe or a device")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: found no facts of a run ({error}), expected those that train_retrieval.py leaves when it ends"
        ) from error


# ------------------------------------------------------------------------------------------------ what may be published


def published_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Select the fields that determine the model, without secrets or folders of the machine."""
    return {
        name: without_folders(value)
        for name, value in fields.items()
        if not _NOT_PUBLISHED.fullmatch(name) and not is_secret(name)
    }


def without_folders(value: Any) -> Any:
    """Return a field's value as JSON, with only the last part of a path outside the working folder."""
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
        return PureWindowsPath(text.rstrip("/\\")).name  # accepts both kinds of slash
    return text.replace(str(Path.home()), "~")


def hub_id(name: str | None) -> str | None:
    """Return the name if it is that of a repository on the Hub, and not of a local folder."""
    if name is None or name == PACKAGED_TEXT_MODEL or Path(name).exists():
        return None
    return name if re.fullmatch(r"[\w][\w.-]*(/[\w][\w.-]*)?", name) else None


# ------------------------------------------------------------------------------------------------------ how it was made


def code_version() -> dict[str, Any]:
    """
    Return the commit of this code and whether the files that a run uses differ from it; `None` outside a git checkout.

    Call this when a run begins, because the files may change during the run.
    """
    try:
        if Path(_git("rev-parse", "--show-toplevel")).resolve() != PACKAGE.parent:  # installed within another checkout
            return {"commit": None, "changed": None}
        changed = _git("status", "--porcelain", "--", ":/modeling_cnn10bert", ":/scripts", ":/train_retrieval.py")
        return {"commit": _git("rev-parse", "HEAD"), "changed": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "changed": None}


def _git(*words: str) -> str:
    command = ["git", "-C", str(PACKAGE), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def hardware_facts(arguments: TrainingArguments) -> dict[str, Any]:
    """Describe the accelerators, the processor and its cores, and the number of processes."""
    kind = arguments.device.type
    accelerator = torch.cuda.get_device_name(arguments.device) if kind == "cuda" else None if kind == "cpu" else kind
    try:
        cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:  # not Linux
        cpu = None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "accelerator": accelerator,
        "num_accelerators": arguments.world_size * max(arguments.n_gpu, 1) if accelerator else 0,
        "processor": cpu[1].strip() if cpu else platform.processor() or platform.machine(),
        "cores": cores,
        "processes": arguments.world_size,
    }


def training_facts(args: TrainingArguments, state: TrainerState, resumed_from_step: int) -> dict[str, Any]:
    """
    Describe the training; steps, epochs and the choice of the weights are those of the whole run, even if resumed.

    `seconds` counts only from `resumed_from_step`, because earlier time was not recorded. If a resumed run had no step
    left, both are taken from its existing facts.
    """
    runtimes = [entry["train_runtime"] for entry in state.log_history if "train_runtime" in entry]
    timed = {"seconds": runtimes[-1] if runtimes else None, "resumed_from_step": resumed_from_step}
    if resumed_from_step == state.global_step:
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
    """Return the sizes of both towers, each with its head, and the parameters of the inputs."""
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
    Describe the start of the run: `model`, or `text_model` and `audio_model`, each with its name and Hub id or `None`;
    `earlier_data`, the training data of these; and the `teachers`.
    """

    def named(name: str | None) -> dict[str, str | None] | None:
        return name and {"name": without_folders(name), "hub_id": hub_id(name)}

    if model := fields["model_name_or_path"]:
        try:
            before = read_facts(model)["start"]
        except ValueError:  # a model from elsewhere, or from the Hub
            before = {"text_model": None, "audio_model": None}
        towers, data = {name: before[name] for name in ("text_model", "audio_model")}, earlier_data(model, named(model))
    else:
        text, audio = fields["text_model_name_or_path"], fields["audio_model_name_or_path"]
        towers = {"text_model": named(text), "audio_model": named(audio)}
        data = [
            entry
            for name, part in ((text, TEXT), (audio, AUDIO))
            if name
            for entry in earlier_data(name, named(name), part)
        ]
    teachers = [named(name) for name in fields.get("teachers", ())]
    return {"model": named(model), **towers, "earlier_data": data, "teachers": teachers}
