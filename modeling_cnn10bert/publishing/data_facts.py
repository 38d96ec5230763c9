"""What is known of the data of a run: their name and size, what sounds they are, and which licences they name."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets

from ..data import audiocaps, clotho
from ..data.audioset import NUM_CLASSES
from ..data.recordings_table import load_prepared
from ..data.soundscapes import manifest_lines
from ..training.data import RecordingTables
from ..training.tagging import TaggingTables
from ..training.tagging_arguments import TaggingDataArguments

# The columns by which a prepared data set is known.
_SOURCES = {
    "Clotho": {"captions", *clotho.METADATA_COLUMNS},
    "AudioCaps": set(audiocaps.FEATURES),
}
NOTICES = ("ATTRIBUTION.md", "LICENSE", "LICENSE.md", "LICENSE.txt")  # beside the recordings of soundscapes
SYNTHETIC_MARK = "soundscapes.json"  # what the built-in synthesizers leave beside their manifests
_CREATIVE_COMMONS = re.compile(r"https?://creativecommons\.org/(licenses|publicdomain)/([\w.+-]+)/(\d+\.\d+)", re.I)


def data_facts(fields: Mapping[str, Any], tables: RecordingTables) -> dict[str, Any]:
    """
    The facts of the data that the fields name.

    Returns:
        `name`: the last part of the folder, or the Hub id; `hub_id`: the latter or `None`; `kind`: `prepared` or
        `soundscapes`; `splits`: the recordings and captions of each, as the run had them; `licences`: how many of the
        training recordings, or for soundscapes of the recordings that they are mixed of, name which; and what is
        particular to a kind.
    """
    splits = {split: _size(getattr(tables, split)) for split in ("train", "validation", "test")}
    limits = {name: fields[name] for name in ("max_train_samples", "max_eval_samples") if fields[name] is not None}
    of_kind = _prepared(fields["dataset_name"]) if fields["dataset_name"] else _soundscapes(fields)
    return {**of_kind, "splits": splits, "limits": limits}


def _size(table: datasets.Dataset) -> dict[str, int]:
    captions = table.select_columns(["captions"]).to_dict()["captions"]
    different = {caption for texts in captions for caption in texts}
    return {
        "recordings": len(captions),
        "captions": sum(map(len, captions)),
        "different_captions": len(different),
    }


def _prepared(name: str) -> dict[str, Any]:
    rows = load_prepared(name)["train"]
    columns = set(rows.column_names)
    return {
        "kind": "prepared",
        "name": Path(name).resolve().name if Path(name).is_dir() else name,
        "hub_id": None if Path(name).is_dir() else name,
        "source": next((source for source, needed in _SOURCES.items() if needed <= columns), None),
        "licences": _licences(rows) if "license" in columns else {},
    }


def _licences(rows: datasets.Dataset) -> dict[str, int]:
    """Count the recordings that name a licence, whatever type the column has; a recording may name several."""
    feature = rows.features["license"]
    of_class = feature.int2str if isinstance(feature, datasets.ClassLabel) else lambda value: value
    return _counted(
        name
        for value in rows["license"][:]
        for name in dict.fromkeys(_texts(None if value is None else of_class(value)))
    )


def _texts(value: Any) -> Iterator[str]:
    """The texts that a value of a table holds, each on one line."""
    if isinstance(value, list | tuple | set):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, Mapping):
        yield ", ".join(f"{name}: {text}" for name, item in value.items() for text in _texts(item))
    elif value is not None and value == value and (text := " ".join(str(value).split())):  # NaN is not itself
        yield text


def tagging_facts(arguments: TaggingDataArguments, tables: TaggingTables) -> dict[str, Any]:
    """The facts of the data of a tagger, as `data_facts`; its recordings have classes and no captions."""
    fields = vars(arguments)
    if arguments.manifests:
        found = _soundscapes(fields)
    else:
        is_folder = Path(arguments.dataset_name).is_dir()
        found = {
            "kind": "prepared",
            "name": Path(arguments.dataset_name).resolve().name if is_folder else arguments.dataset_name,
            "hub_id": None if is_folder else arguments.dataset_name,
            "source": "AudioSet" if len(tables.classes) == NUM_CLASSES else None,
            "licences": {},
        }
    splits = {split: {"recordings": len(getattr(tables, split))} for split in ("train", "validation", "test")}
    return {**found, "splits": splits, "classes": len(tables.classes)}


def _soundscapes(fields: Mapping[str, Any]) -> dict[str, Any]:
    manifests, sources = Path(fields["manifests"]).resolve(), Path(fields["sources"]).resolve()
    lines = [json.loads(line) for _, line in manifest_lines(manifests / "train.jsonl")]
    used = {event["source"] for line in lines[: fields["max_train_samples"]] for event in line["events"]}
    synthetic = (manifests / SYNTHETIC_MARK).is_file()
    notice = next((sources / name for name in NOTICES if (sources / name).is_file()), None)
    text = notice.read_text(encoding="utf-8", errors="replace") if notice and not synthetic else ""
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
        "notice": {"file": notice.name, "title": _title(text)} if text else None,
        "licences": _counted(_licence(found) for found in _CREATIVE_COMMONS.finditer(text)),
    }


def _title(text: str) -> str:
    """The first line that says something."""
    return next((line.strip("#= \t") for line in text.splitlines() if line.strip("#= \t")), "")


def _licence(found: re.Match) -> str:
    """`https://creativecommons.org/licenses/by-nc/3.0/` is CC BY-NC 3.0."""
    area, name, version = found[1].lower(), found[2].upper(), found[3]
    return f"CC0 {version}" if (area, name) == ("publicdomain", "ZERO") else f"CC {name} {version}"


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())
