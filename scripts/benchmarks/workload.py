"""What is trained on: soundscapes as a recipe reads them, and the same recordings as waveforms for the plain loop."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import yaml
from transformers import BertConfig, BertModel, BertTokenizer

from demo.synthesizers import generate_soundscapes
from modeling_cnn10bert.augmentation.wordnet import load_wordnet
from modeling_cnn10bert.data.recipes.soundscapes import SourceBank, read_manifest, render
from modeling_cnn10bert.errors import DataError
from modeling_cnn10bert.training.build import PACKAGED_TEXT_MODEL, resolve_text_model
from modeling_cnn10bert.training.recipe import RECIPES

CLOTHO_SECONDS = (15.0, 30.0)
SCENE_SECONDS = 8.0
TINY_TEXT = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
WAVEFORMS, SCENES = "waveforms.npy", "scenes.json"


@dataclasses.dataclass(frozen=True)
class Workload:
    """
    Attributes:
        name: shown in the report.
        arguments: of train_retrieval.py: a recipe and what overrides it.
        waveforms: the folder of the same training recordings as waveforms.
        remark: what differs from the recipe, for the report.
    """

    name: str
    arguments: tuple[str, ...]
    waveforms: Path
    remark: str


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How many recordings are trained and evaluated on, and how many steps make a round."""

    train: int = 256
    evaluate: int = 200
    steps: int = 40
    warm_up_steps: int = 5
    rounds: int = 5


def small_workload(folder: Path, manifests: Path | None, sources: Path | None, sizes: Sizes) -> Workload:
    """The recipe for two CPU cores, on the scenes that are given or on synthetic ones."""
    manifests, sources = manifests or _synthetic(folder, sizes), sources or folder / "scenes" / "sources"
    recipe = RECIPES / "soundscapes_small.yaml"
    return _workload("small recipe", folder / "small", recipe, manifests, sources, sizes, {"renderings": 1})


def clotho_workload(
    folder: Path, manifests: Path | None, sources: Path | None, sizes: Sizes, tiny: bool = False
) -> Workload:
    """The paper's recipe with all augmentations on scenes as long as Clotho's recordings; BERT of random weights.

    With `tiny`, networks of a few channels, as tests do.
    """
    manifests, sources = manifests or _synthetic(folder, sizes), sources or folder / "scenes" / "sources"
    folder = folder / "clotho"
    text = folder / "text"
    BertModel(BertConfig(**TINY_TEXT) if tiny else BertConfig()).save_pretrained(text)
    # bert-base-uncased's vocabulary comes with the packaged MiniLM.
    BertTokenizer.from_pretrained(resolve_text_model(PACKAGED_TEXT_MODEL)).save_pretrained(text)
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        yaml.safe_dump(
            {
                "extends": os.path.relpath(RECIPES / "clotho_augmented.yaml", folder),
                "dataset_name": None,
                "audio_model_name_or_path": None,
                "text_model_name_or_path": str(text),
            }
        )
    )
    lengthened = _as_long_as_clotho(manifests, folder / "manifests", sizes)
    fields = {"bf16": not tiny, "train_sampling_strategy": "group_by_length"}
    if tiny:
        fields |= {"hidden_sizes": (4, 4, 8, 8), "projection_hidden_size": 16, "projection_dim": 8, "hop_length": 3200}
    return _workload("Clotho-shaped", folder, recipe, lengthened, sources, sizes, fields)


def _workload(
    name: str, folder: Path, recipe: Path, manifests: Path, sources: Path, sizes: Sizes, fields: dict
) -> Workload:
    remark = ""
    try:
        load_wordnet()
    except DataError:
        fields = {**fields, "p_syn": 0}
        remark = "no WordNet here: no synonyms"
    fields = {
        "manifests": manifests,
        "sources": sources,
        "cache_dir": folder / "cache",
        "output_dir": folder / "run",
        "max_train_samples": sizes.train,
        "max_eval_samples": sizes.evaluate,
        "max_steps": sizes.steps + sizes.warm_up_steps,
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "disable_tqdm": True,
        "log_level": "error",
        **fields,
    }
    arguments = [str(recipe)]
    for field, value in fields.items():
        arguments += [f"--{field}", *map(str, value if isinstance(value, tuple) else (value,))]
    _write_waveforms(folder / "waveforms", Path(manifests), Path(sources), sizes.train)
    return Workload(name, tuple(arguments), folder / "waveforms", remark)


def _synthetic(folder: Path, sizes: Sizes) -> Path:
    return generate_soundscapes(
        folder / "scenes",
        num_train=sizes.train,
        num_validation=sizes.evaluate,
        num_test=sizes.evaluate,
        clips_per_kind=min(25, max(3, sizes.train // 20)),
    )


def _as_long_as_clotho(manifests: Path, target: Path, sizes: Sizes) -> Path:
    """The scenes, each of a length drawn from Clotho's, what sounds in them repeated; captions as back-translations."""
    rng = np.random.default_rng(0)
    target.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", sizes.train), ("validation", sizes.evaluate), ("test", sizes.evaluate)):
        lines = []
        for line in (manifests / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()[:count]:
            scene = json.loads(line)
            scene["duration"] = float(rng.uniform(*CLOTHO_SECONDS))
            starts = np.arange(0, CLOTHO_SECONDS[1], SCENE_SECONDS)
            events = [{**event, "onset": event["onset"] + start} for start in starts for event in scene["events"]]
            scene["events"] = [event for event in events if event["onset"] < scene["duration"]]
            scene["back_translations"] = {"de": scene["captions"]}
            lines.append(json.dumps(scene) + "\n")
        (target / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return target


# ------------------------------------------------------------------------------------------------------- waveforms


def _write_waveforms(folder: Path, manifests: Path, sources: Path, count: int, sampling_rate: int = 32_000) -> None:
    """Writes the training scenes one behind the other, float32, and the length and captions of each."""
    folder.mkdir(parents=True, exist_ok=True)
    bank = SourceBank(sources, sampling_rate)
    scenes = read_manifest(manifests / "train.jsonl", sources)[:count]
    waveforms = [render(scene, bank) for scene in scenes]
    np.save(folder / WAVEFORMS, np.concatenate(waveforms))
    about = [
        {"samples": len(waveform), "captions": scene.captions}
        for scene, waveform in zip(scenes, waveforms, strict=True)
    ]
    (folder / SCENES).write_text(json.dumps(about), encoding="utf-8")


def read_waveforms(folder: Path) -> tuple[list[np.ndarray], list[list[str]]]:
    """The waveforms, in memory, and the captions of each."""
    scenes = json.loads((folder / SCENES).read_text(encoding="utf-8"))
    ends = np.cumsum([scene["samples"] for scene in scenes])
    return np.split(np.load(folder / WAVEFORMS), ends[:-1]), [scene["captions"] for scene in scenes]
