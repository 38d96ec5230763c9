"""Make the inputs of benchmarks: recordings, models, vectors, and soundscapes to train on."""

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch
import yaml
from transformers import BertConfig, BertModel, BertTokenizer

from demo.synthesizers import SYNTHESIZERS, generate_soundscapes
from modeling_cnn10bert.augmentation.wordnet import find_wordnet
from modeling_cnn10bert.data.audio_io import load_audio
from modeling_cnn10bert.data.recipes.soundscapes import SourceBank, read_manifest, render
from modeling_cnn10bert.errors import DataError
from modeling_cnn10bert.retrieval.records import EmbeddedFile, FileRecord
from modeling_cnn10bert.retrieval.scanning import scan
from modeling_cnn10bert.training.build import PACKAGED_TEXT_MODEL, load_model_and_processor, resolve_text_model
from modeling_cnn10bert.training.recipe import RECIPES, parse_recipe

SECONDS = 10  # of a clip
FILE_RATE = 44_100  # Hz, of the files; neither model uses this rate
BLOCK = 8192  # vectors drawn, stored and compared at a time: 32 MB at 1024 dimensions
INNER_DIMENSIONS = 32  # of drawn vectors
CLOTHO_SECONDS = (15.0, 30.0)
SCENE_SECONDS = 8.0
TINY_TEXT = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
TINY_AUDIO = {"hidden_sizes": (4, 4, 8, 8), "projection_hidden_size": 16, "projection_dim": 8}
WAVEFORMS, SCENES = "waveforms.npy", "scenes.json"


@dataclasses.dataclass(frozen=True)
class Size:
    """Amounts of a benchmark."""

    rounds: int = 5  # that count
    scenes: int = 256  # trained on
    evaluated: int = 200
    steps: int = 40  # of a round of training
    warm_up_steps: int = 5
    clips: int = 144  # embedded
    recordings: int = 50  # embedded by exports, in the feature cache
    rows: int = 100_000  # vectors searched
    dimension: int = 1024
    queries: int = 500
    audioset: int = 10_000  # clips
    users: int = 20
    seconds: float = 60  # of load
    starts: int = 5  # of a command
    full_width: bool = True  # the paper's shape too, and bfloat16
    two_processes: bool = True  # trainings that are launched
    apart: bool = True  # contenders in processes of their own


FULL = Size()
SMALL = Size(
    rounds=2, scenes=96, evaluated=40, steps=5, warm_up_steps=2, clips=12, recordings=20, rows=20_000, queries=100,
    audioset=300, users=5, seconds=15, starts=2, two_processes=False,
)  # fmt: skip
QUICK = Size(
    rounds=1, scenes=12, evaluated=4, steps=2, warm_up_steps=1, clips=3, recordings=4, rows=2000, dimension=16,
    queries=20, audioset=20, users=2, seconds=3, starts=0, full_width=False, two_processes=False, apart=False,
)  # fmt: skip
SIZES = {"quick": QUICK, "small": SMALL, "full": FULL}


# ------------------------------------------------------------------------------------------- recordings and vectors


def clips(count: int, sampling_rate: int, sources: Path | None) -> list[np.ndarray]:
    """Return mono waveforms [10 s] float32, each of several concatenated recordings."""
    length = SECONDS * sampling_rate
    pieces = _recordings(sampling_rate, sources)
    found = []
    for _ in range(count):
        clip = np.zeros(0, np.float32)
        while len(clip) < length:
            clip = np.concatenate([clip, next(pieces)])
        found.append(clip[:length])
    return found


def _recordings(sampling_rate: int, sources: Path | None) -> Iterator[np.ndarray]:
    """Yield recordings endlessly, spread over the folders."""
    if sources is None:
        number = 0
        while True:
            synthesizer = list(SYNTHESIZERS.values())[number % len(SYNTHESIZERS)]
            yield synthesizer.function(np.random.default_rng(number), sampling_rate).astype(np.float32)
            number += 1
    paths = sorted(scan([sources]).files)
    if not paths:
        raise ValueError(f"{sources}: found no recording, expected a folder of them")
    step = max(1, len(paths) // 10 - 1)
    position = 0
    while True:
        yield load_audio(paths[position % len(paths)], sampling_rate)
        position += step


def write_clips(folder: Path, count: int, sources: Path | None) -> list[Path]:
    """Write clips as wav files of 16 bits."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, clip in enumerate(clips(count, FILE_RATE, sources)):
        paths.append(folder / f"{number:03d}.wav")
        soundfile.write(paths[-1], clip / max(1.0, np.abs(clip).max()), FILE_RATE, subtype="PCM_16")
    return paths


def save_model(folder: Path, recipe: str, tiny: bool) -> Path:
    """Save the model that a recipe starts from; its weights make no difference to its speed."""
    torch.manual_seed(0)
    fields = ["--use_cpu=true", "--bf16=false"]
    if tiny:
        fields += ["--hidden_sizes", "4", "4", "8", "8", "--projection_hidden_size=16", "--projection_dim=8"]
    model, processor = load_model_and_processor(parse_recipe([str(RECIPES / recipe), *fields])[0])
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def vectors(folder: Path, source: str | None, rows: int, dimension: int, queries: int) -> tuple[np.ndarray, str]:
    """Return memory-mapped unit vectors [rows + queries, D], and a description of them."""
    if source not in (None, "random"):
        found = np.load(source, mmap_mode="r")
        if len(found) < rows + queries:
            raise SystemExit(f"{source}: found {len(found)} rows, expected {rows} + {queries} for queries")
        return found[: rows + queries], source
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    found = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (rows + queries, dimension))
    # Embeddings fill only few of their dimensions; no index finds neighbors among uniform directions.
    inner = min(INNER_DIMENSIONS, dimension)
    spread = rng.standard_normal((inner, dimension), dtype=np.float32)
    for start in range(0, len(found), BLOCK):
        block = rng.standard_normal((min(BLOCK, len(found) - start), dimension), dtype=np.float32)
        if source is None:
            block = 0.1 * block + rng.standard_normal((len(block), inner), dtype=np.float32) @ spread
        found[start : start + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return found, "random" if source else f"drawn in {inner} dimensions, turned into {dimension}, with a tenth of noise"


def embedded_files(embeds: np.ndarray, first: int, windows: int) -> list[EmbeddedFile]:
    """Make recordings of `windows` windows each from embeddings; `first` is the number of the first row."""
    embeds = embeds / np.linalg.norm(embeds, axis=1, keepdims=True)
    files = []
    for start in range(0, len(embeds), windows):
        number = (first + start) // windows
        path = f"/sounds/{number // 1000:04d}/{number:08d}.wav"
        record = FileRecord(path, f"{number:032x}", 1_000_000, 10**18 + number, 4.0 * windows)
        spans = [(4.0 * window, 4.0 * window + 4.0) for window in range(min(windows, len(embeds) - start))]
        files.append(EmbeddedFile(record, spans, embeds[start : start + windows]))
    return files


# -------------------------------------------------------------------------------------------------------- training


@dataclasses.dataclass(frozen=True)
class Workload:
    """
    Attributes:
        name: shown in the report.
        arguments: arguments of train_retrieval.py, a recipe and overrides.
        waveforms: folder of the same training recordings as waveforms.
        remark: differences from the recipe, for the report.
    """

    name: str
    arguments: tuple[str, ...]
    waveforms: Path
    remark: str


def small_workload(folder: Path, manifests: Path | None, sources: Path | None, size: Size) -> Workload:
    """Prepare the recipe for two CPU cores, on the given scenes or synthetic ones."""
    manifests, sources = manifests or _synthetic(folder, size), sources or folder / "scenes" / "sources"
    recipe = RECIPES / "soundscapes_small.yaml"
    # The plain loop has the paper's pooling and random batches.
    fields = {"renderings": 1, "temporal_moments": 0, "hard_negatives": 0.0}
    return _workload("small recipe", folder / "small", recipe, manifests, sources, size, fields)


def clotho_workload(
    folder: Path, manifests: Path | None, sources: Path | None, size: Size, tiny: bool = False
) -> Workload:
    """
    Prepare the paper's recipe with all augmentations, scenes as long as Clotho's recordings, and an untrained BERT.

    With `tiny`, networks of a few channels.
    """
    manifests, sources = manifests or _synthetic(folder, size), sources or folder / "scenes" / "sources"
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
    lengthened = _as_long_as_clotho(manifests, folder / "manifests", size)
    fields = {"bf16": not tiny, "train_sampling_strategy": "group_by_length"}
    if tiny:
        fields |= {**TINY_AUDIO, "hop_length": 3200}
    return _workload("Clotho-shaped", folder, recipe, lengthened, sources, size, fields)


def _workload(
    name: str, folder: Path, recipe: Path, manifests: Path, sources: Path, size: Size, fields: dict
) -> Workload:
    remark = ""
    try:
        find_wordnet()
    except DataError:
        fields = {**fields, "p_syn": 0}
        remark = "no WordNet here: no synonyms"
    fields = {
        "manifests": manifests,
        "sources": sources,
        "cache_dir": folder / "cache",
        "output_dir": folder / "run",
        "max_train_samples": size.scenes,
        "max_eval_samples": size.evaluated,
        "max_steps": size.steps + size.warm_up_steps,
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
    _write_waveforms(folder / "waveforms", Path(manifests), Path(sources), size.scenes)
    return Workload(name, tuple(arguments), folder / "waveforms", remark)


def _synthetic(folder: Path, size: Size) -> Path:
    return generate_soundscapes(
        folder / "scenes",
        num_train=size.scenes,
        num_validation=size.evaluated,
        num_test=size.evaluated,
        clips_per_kind=min(25, max(3, size.scenes // 20)),
    )


def _as_long_as_clotho(manifests: Path, target: Path, size: Size) -> Path:
    """Write the scenes with lengths drawn from Clotho's and events repeated; captions serve as back-translations."""
    rng = np.random.default_rng(0)
    target.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", size.scenes), ("validation", size.evaluated), ("test", size.evaluated)):
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


def _write_waveforms(folder: Path, manifests: Path, sources: Path, count: int, sampling_rate: int = 32_000) -> None:
    """Write the training scenes one after the other, float32, and the length and captions of each."""
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
    """Return the waveforms, in memory, and the captions of each."""
    scenes = json.loads((folder / SCENES).read_text(encoding="utf-8"))
    ends = np.cumsum([scene["samples"] for scene in scenes])
    return np.split(np.load(folder / WAVEFORMS), ends[:-1]), [scene["captions"] for scene in scenes]
