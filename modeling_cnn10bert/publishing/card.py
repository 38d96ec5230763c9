"""Write the model card of a run from its facts and results, with model_card_template.md."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml
from huggingface_hub.utils import yaml_dump

from ..evaluation.reports import TABLE_METRICS, in_percent, markdown_table, read_results
from ..files import write_text
from ..model_folder import PACKAGED_TEXT_MODEL
from .facts import data_of_run, read_facts

EVAL_RESULTS = ".eval_results"  # folder of a repository
MAIN_METRIC = "mAP@10"  # of the paper, section 6.4
METRIC_TYPES = {"R@1": "recall_at_1", "R@5": "recall_at_5", "R@10": "recall_at_10", "mAP@10": "map_at_10"}
# Task -> its name, and the prefix of its metrics.
DIRECTIONS = {
    "text-to-audio-retrieval": ("Text to audio", ""),
    "audio-to-text-retrieval": ("Audio to text", "a2t_"),
}


def scores(facts: Mapping[str, Any], results: Mapping[str, float], split: str) -> dict[str, dict[str, float]] | None:
    """
    Map task and metric to the value on `validation` or `test`; return `None` if the run did not score that.

    Values that an earlier run left in the same `all_results.json` are ignored.
    """
    if not facts["scored"][split]:
        return None
    prefix = {"validation": "eval_", "test": "test_"}[split]
    return {
        task: {metric: results[f"{prefix}{direction}{metric}"] for metric in TABLE_METRICS}
        for task, (_, direction) in DIRECTIONS.items()
    }


def model_index_results(facts: Mapping[str, Any], results: Mapping[str, float]) -> list[EvalResult]:
    """Return the metrics of the test set in both directions, or nothing, for `ModelCardData(eval_results=...)`."""
    data = facts["data"]
    return [
        EvalResult(
            task_type=task,
            task_name=f"{DIRECTIONS[task][0]} retrieval",
            dataset_type=data["hub_id"] or data["name"],
            dataset_name=data["source"] or data["name"],
            dataset_split="test",
            metric_type=METRIC_TYPES[metric],
            metric_name=metric,
            metric_value=value,
        )
        for task, metrics in (scores(facts, results, "test") or {}).items()
        for metric, value in metrics.items()
    ]


def eval_entries(facts: Mapping[str, Any], results: Mapping[str, float]) -> list[EvalResultEntry]:
    """
    Return the entries for `.eval_results/*.yaml`: mAP@10 of each direction, with the other metrics in the notes.

    The format (https://huggingface.co/docs/hub/eval-results) has one value for each task of a data set on the Hub, so a
    run on a folder or on soundscapes has no entries. The Hub shows a leaderboard where the data set's `eval.yaml`
    defines the tasks `text-to-audio-retrieval` and `audio-to-text-retrieval`.
    """
    dataset = facts["data"]["hub_id"]
    if dataset is None or facts["data"]["limits"].get("max_eval_samples"):  # not the whole benchmark
        return []
    entries = []
    for task, metrics in (scores(facts, results, "test") or {}).items():
        others = ", ".join(f"{name} {value}" for name, value in metrics.items() if name != MAIN_METRIC)
        notes = f"The value is {MAIN_METRIC}; {others}."
        entries.append(EvalResultEntry(dataset, task, metrics[MAIN_METRIC], date=facts["ended"], notes=notes))
    return entries


def write_eval_results(folder: str | os.PathLike, facts: Mapping[str, Any], results: Mapping[str, float]) -> None:
    """Write the `eval_entries` to FOLDER/.eval_results; delete those of an earlier run."""
    target = Path(folder) / EVAL_RESULTS
    for left in target.glob("*.yaml"):
        left.unlink()
    if entries := eval_entries(facts, results):
        text = yaml_dump(eval_result_entries_to_yaml(entries), sort_keys=False)
        write_text(target / f"{facts['data']['hub_id'].rsplit('/', 1)[-1]}.yaml", text)


CARD = "README.md"
TEMPLATE = Path(__file__).with_name("model_card_template.md")
# The Hub has no retrieval task, and zero-shot-audio-classification does not fit, because this model returns vectors.
PIPELINE_TAG = "feature-extraction"
TAGS = [
    "audio",
    "audio-retrieval",
    "text-to-audio-retrieval",
    "audio-to-text-retrieval",
    "zero-shot-audio-classification",
    "contrastive-learning",
    "cnn10bert",
]
_CANONICAL = {"bert-base-uncased": "google-bert/bert-base-uncased"}  # ids from before the Hub had owners
_PACKAGED = "a Python package that holds, by its own account, sentence-transformers/all-MiniLM-L6-v2"
LICENCES = {
    "Clotho": "Clotho v2.1 ([Zenodo 4783391](https://zenodo.org/records/4783391)): the captions are under a licence of "
    "Tampere University, for non-commercial use and with attribution; each recording is under the licence of its "
    "original on Freesound, which Clotho's metadata files name.",
    "AudioCaps": "AudioCaps: the captions are under the MIT licence; the recordings are parts of videos on YouTube, to "
    "which their owners hold the rights.",
    "AudioSet": "AudioSet, from which the audio tower starts: the list of classes is under CC BY 4.0; the recordings "
    "are parts of videos on YouTube, to which their owners hold the rights.",
    "PANNs": "PANNs' Cnn10 ([Zenodo 3987831](https://zenodo.org/records/3987831)), from which the audio tower starts: "
    "its weights are under CC BY 4.0.",
    "aisfx": "The weights of [aisfx](https://github.com/alisonbma/aisfx) 0.1.2 by A. B. Ma and A. Lerch, from whose "
    "convolutions the audio tower starts and which training changed: they are under CC BY 4.0; they were trained on "
    "nine commercial libraries of sound effects (“Representation Learning for the Automatic Indexing of Sound Effects "
    "Libraries”, ISMIR 2022).",
    "BERT": "[google-bert/bert-base-uncased](https://huggingface.co/google-bert/bert-base-uncased), from which the "
    "text tower starts: its weights are under Apache-2.0; it was trained on BookCorpus and the English Wikipedia.",
}
# Their names in a card's metadata; PANNs were trained on AudioSet, which is listed before them.
DATASETS = {
    "Clotho": ["Clotho"],
    "AudioCaps": ["AudioCaps"],
    "AudioSet": ["AudioSet"],
    "PANNs": [],
    "aisfx": [],
    "BERT": ["bookcorpus", "wikipedia"],
}
_NO_COMMIT = "not from a git checkout: the commit is not known"
SHOWN = 20  # licenses that a card names


def write_card_of_run(folder: str | os.PathLike, model_id: str | None = None) -> Path:
    """
    Write the card and the evaluation results again, from the facts and results in a run's folder.

    Args:
        folder: folder of the run.
        model_id: the name that opens the model; by default, the one in its facts.

    Returns:
        The path of the card.

    Raises:
        ValueError: the folder lacks the facts or the results.
    """
    facts, path = read_facts(folder), Path(folder) / CARD
    if model_id is not None:
        facts |= {"name": model_id.rsplit("/", 1)[-1], "model_id": model_id}
    results = read_results(folder, [])
    write_eval_results(folder, facts, results)
    write_text(path, str(card_of_run(facts, results)))
    return path


def card_of_run(facts: Mapping[str, Any], results: Mapping[str, float]) -> ModelCard:
    """Make the card of a run from its facts and its `all_results.json`."""
    data_of_all, start = data_of_run(facts), facts["start"]
    models = [start["model"]] if start["model"] else [start["text_model"], start["audio_model"]]
    data = card_data(
        facts["name"],
        datasets=list(dict.fromkeys(name for found in data_of_all for name in dataset_names(found))),
        base_models=[_CANONICAL.get(model["hub_id"], model["hub_id"]) for model in models if model and model["hub_id"]],
        eval_results=model_index_results(facts, results),
    )
    return render_card(
        data,
        title=facts["name"],
        model_id=facts["model_id"],
        model=facts["model"],
        weights=True,
        results=results_table(facts, results),
        results_note=results_note(facts, results),
        how=how_it_was_trained(facts),
        recipe=yaml_dump(facts["fields"], sort_keys=False).strip(),
        commands=facts["command"],
        folders_left_out=facts["folders_left_out"],
        data_notes=list(dict.fromkeys(note for found in data_of_all for note in data_notes(found))),
        known_sounds=known_sounds(facts["data"]),
    )


def card_data(
    name: str, datasets: list[str], base_models: list[str], eval_results: list | None = None
) -> ModelCardData:
    """Make the metadata of a card; empty fields are left out."""
    return ModelCardData(
        language="en",
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag=PIPELINE_TAG,
        tags=TAGS,
        datasets=datasets or None,
        base_model=base_models or None,
        metrics=list(METRIC_TYPES.values()),
        model_name=name if eval_results else None,  # only used in a model-index
        eval_results=eval_results or None,
    )


def render_card(data: ModelCardData, **context: Any) -> ModelCard:
    """Fill in the template."""
    card = ModelCard.from_template(data, template_path=str(TEMPLATE), **context)
    card.text = re.sub(r"\n{3,}", "\n\n", card.text) + "\n"  # left by the template's conditions
    return card


# -------------------------------------------------------------------------------------------------------------- results


def results_table(facts: Mapping[str, Any], results: Mapping[str, float]) -> str:
    """Tabulate each direction with its chance level on test, else on validation; empty if neither was scored."""
    split = _scored_split(facts)
    if split is None:
        return ""
    prefix = {"validation": "eval_", "test": "test_"}[split]
    rows = []
    for task, metrics in scores(facts, results, split).items():
        name, direction = DIRECTIONS[task]
        rows.append([name, *(in_percent([metrics[metric]]) for metric in TABLE_METRICS)])
        chance = [results[f"{prefix}chance_{direction}{metric}"] for metric in TABLE_METRICS]
        rows.append(["a random ranking", *(in_percent([value]) for value in chance)])
    return markdown_table([f"{split}, in percent", *TABLE_METRICS], rows)


def results_note(facts: Mapping[str, Any], results: Mapping[str, float]) -> str:
    """Describe the data of the results, and how the weights were chosen."""
    split, data = _scored_split(facts), facts["data"]
    if split is None:
        return "The run that made this model scored nothing."
    size, part = data["splits"][split], ""
    if limit := data["limits"].get("max_eval_samples"):
        part = f" (the first {limit} of the set: not comparable with figures of the whole)"
    note = (
        f"{size['recordings']:,} recordings and {size['captions']:,} captions of the {split} set of "
        f"{described_data(data)}{part}. Every caption is a query for its recording, and every recording one for its "
        f"captions; ties do not count in the model's favour. One run, seed {facts['training']['seed']}"
    )
    best = facts["training"]["best"]
    if split == "validation":
        return (
            f"{note}. **The test set was not scored.** "
            + ("By these figures the weights were chosen, so they flatter." if best else "")
        ).strip()
    if not best:
        return f"{note}: the test set was scored once, with the weights of the last step."
    value = f"{in_percent([best['value']])} %" if 0 <= best["value"] <= 1 else f"{best['value']:.4g}"
    return (
        f"{note}: the weights of step {best['step']:,} were chosen by {best['metric']} on the validation set "
        f"({value}), and the test set was scored once, with them."
    )


def _scored_split(facts: Mapping[str, Any]) -> str | None:
    return next((split for split in ("test", "validation") if facts["scored"][split]), None)


# ------------------------------------------------------------------------------------------------------------- training


def how_it_was_trained(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Describe a run as rows of name and text."""
    training, code, model = facts["training"], facts["code"], facts["model"]
    steps = (
        f"{training['steps']:,} steps of {training['pairs_per_step']} pairs of a caption and a recording "
        f"({training['epochs']:.4g} epochs), {training['precision']}, seed {training['seed']}"
    )
    changed = ", with changes that were not committed" if code["changed"] else ""
    rows = [
        ("training data", _training_data(facts["data"])),
        ("started from", _started_from(facts["start"])),
        ("teachers", _teachers(facts["start"].get("teachers", ()))),
        ("parameters", f"audio tower {_parameters(model['audio'])}; text tower {_parameters(model['text'])}"),
        ("training", steps),
        ("time", _time(training)),
        ("hardware", _hardware(facts["hardware"])),
        ("code", f"commit `{code['commit']}`{changed}" if code["commit"] else _NO_COMMIT),
        ("versions", ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version)),
    ]
    return [(name, text) for name, text in rows if text]


def _parameters(tower: Mapping[str, int]) -> str:
    trained = "all trained" if tower["trained"] == tower["parameters"] else f"{tower['trained']:,} of them trained"
    return f"{tower['parameters']:,} ({trained})"


def _started_from(start: Mapping[str, Any]) -> str:
    if start["model"]:
        return f"the whole model {_link(start['model'])}"
    audio = _link(start["audio_model"]) if start["audio_model"] else "random weights"
    return f"audio tower: {audio}; text tower: {_link(start['text_model'])}; projection heads: random weights"


def _teachers(teachers: Sequence[Mapping[str, str | None]]) -> str:
    if not teachers:  # older facts name none
        return ""
    return (
        f"{', '.join(map(_link, teachers))}: their mean similarities of the training captions and recordings were the "
        "targets of the loss ([Primus, Schmid & Widmer, 2024](https://arxiv.org/abs/2408.11641))"
    )


def _link(model: Mapping[str, str | None]) -> str:
    if model["hub_id"]:
        name = _CANONICAL.get(model["hub_id"], model["hub_id"])
        return f"[{name}](https://huggingface.co/{name})"
    note = f" ({_PACKAGED})" if model["name"] == PACKAGED_TEXT_MODEL else ""
    return f"`{model['name']}`{note}"


def _time(training: Mapping[str, Any]) -> str:
    first, seconds = training["resumed_from_step"], training["seconds"]
    if seconds is None or first >= training["steps"]:
        return ""
    if first:
        return f"{duration(seconds)} from step {first:,} on, where the run was resumed; what came before was not noted"
    return f"{duration(seconds)}, evaluations during training included, preparing the data not"


def duration(seconds: float) -> str:
    """Write a time by its two largest units, such as `2 h 5 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    shown = next((number for number, (value, _) in enumerate(parts) if value), 2)
    return " ".join(f"{value} {unit}" for value, unit in parts[shown : shown + 2])


def _hardware(hardware: Mapping[str, Any]) -> str:
    cores = f"{hardware['cores']} cores of {hardware['processor']}"
    if hardware["accelerator"]:
        cores = f"{hardware['num_accelerators']} x {hardware['accelerator']}, {cores}"
    processes = hardware["processes"]
    return f"{cores}, {processes} process{'' if processes == 1 else 'es'}"


# ----------------------------------------------------------------------------------------------------------------- data


def described_data(data: Mapping[str, Any]) -> str:
    """Name the data for running text."""
    if data["kind"] == "soundscapes":
        return f"the {'synthetic ' if data['synthetic'] else ''}soundscapes `{data['name']}`"
    if data["hub_id"]:
        return f"[{data['hub_id']}](https://huggingface.co/datasets/{data['hub_id']})"
    return data["source"] or f"`{data['name']}`"


def _training_data(data: Mapping[str, Any]) -> str:
    size = data["splits"]["train"]
    recordings, captions = size["recordings"], size["captions"]
    if data["kind"] == "soundscapes":
        renderings = data["renderings"]
        scenes = f"{recordings // renderings:,} scenes of {described_data(data)}"
        scenes += f", each rendered {renderings} times" if renderings > 1 else ""
        text = f"{scenes}, with {captions // renderings:,} captions, {size['different_captions']:,} of them different"
    else:
        text = f"{recordings:,} recordings of {described_data(data)} with {captions:,} captions"
    return text + (" (the first of the set: a quick try)" if "max_train_samples" in data["limits"] else "")


def data_notes(data: Mapping[str, Any]) -> list[str]:
    """Describe the data and their licenses, as far as these are known."""
    if data["kind"] == "known":
        return [LICENCES[data["source"]]]
    part = data.get("part")
    if data["kind"] in ("card", "unknown"):
        return [f"{_link(data)}, from which the {part or 'model'} starts: {_card_note(data)}."]
    if data["kind"] == "soundscapes":
        notes = [_soundscape_note(data)]
    else:
        notes = [LICENCES[data["source"]]] if data["source"] else []
        if data["licences"]:
            named = [f"{name} ({count:,})" for name, count in data["licences"].items()]
            more = f", and {len(named) - SHOWN:,} more" if len(named) > SHOWN else ""
            named = ", ".join(named[:SHOWN]) + more
            notes.append(f"Licences that the training recordings of {described_data(data)} name: {named}.")
        notes = notes or [f"{described_data(data)}: its prepared form does not say under which licence it stands."]
    return [f"Behind the {part}: {note}" if part and note not in LICENCES.values() else note for note in notes]


def _card_note(data: Mapping[str, Any]) -> str:
    """Summarize what a model's own card says about its license and data."""
    if data["kind"] == "unknown":
        return "what it was trained on is not known, nor under which licences that stands"
    says = f"its own card names the licence {data['licence']}" if data["licence"] else "its own card names no licence"
    return f"{says} and, of what it was trained on, {', '.join(data['datasets']) or 'nothing'}"


def dataset_names(data: Mapping[str, Any]) -> list[str]:
    """Return the names of data for the metadata of a card: ids on the Hub, or else those of known data sets."""
    if data["kind"] == "known":
        return DATASETS[data["source"]]
    if data["kind"] == "card":
        return data["datasets"]
    name = data.get("hub_id") if data["kind"] != "unknown" else None
    return [name] if name else DATASETS.get(data.get("source"), [])


def _soundscape_note(data: Mapping[str, Any]) -> str:
    scenes = (
        f"`{data['name']}`: scenes that a program mixed, not recordings of real ones; those for training mix "
        f"{data['num_sources']:,} recordings"
    )
    if data["synthetic"]:
        return f"{scenes}, which `cnn10bert`'s own synthesizers made, captions included."
    if data["notice"] is None:
        return f"{scenes} of the folder `{data['sources']}`, which does not say under which licence they stand."
    notice, licences = data["notice"], ", ".join(data["licences"])
    names = f", which names {licences}" if licences else ""
    return f"{scenes} of `{data['sources']}` (“{notice['title']}”), under the licences in its {notice['file']}{names}."


def known_sounds(data: Mapping[str, Any]) -> str:
    """List the kinds of sound of the training recordings, if their folders name them."""
    kinds = data.get("kinds_of_sound") or []
    return ", ".join(re.sub(r"^\d+\W+", "", kind).lower() for kind in kinds)
