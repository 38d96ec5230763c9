"""Files to embeddings, end to end, against transformers' CLAP; an exported model in seconds of audio a second."""

import importlib.util
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

from modeling_cnn10bert.retrieval.embedding import load_embedder
from modeling_cnn10bert.retrieval.onnx import OnnxEmbedder, export_onnx
from modeling_cnn10bert.retrieval.retriever import AudioRetriever
from modeling_cnn10bert.training.build import load_model_and_processor
from modeling_cnn10bert.training.recipe import parse_recipe

from .recordings import SECONDS, clips, write_clips
from .report import NO_ACCELERATOR, Row, compared, figure, not_measured
from .timing import Contender, Round, compete
from .workload import RECIPES

SUBJECT = "embedding"
CLAP = "transformers' ClapModel"
CLAP_BATCH = 8
FULL, SMALL = "full width", "small recipe"
NO_ONNX = 'no ONNX here: pip install "cnn10bert[onnx]"'


def measure(folder: Path, options) -> list[Row]:
    """All rows of embedding; see scripts/benchmark.py for the options."""
    count = 3 if options.quick else options.clips
    files = write_clips(folder / "clips", count, options.sources)
    models = {SMALL: _save_model(folder / "models" / "small", RECIPES / "soundscapes_small.yaml", options)}
    if not options.quick:
        models[FULL] = _save_model(folder / "models" / "full", RECIPES / "soundscapes.yaml", options)
    exports = _export(models, folder, options)
    rows = _files_on_cpu(folder, models, exports, len(files), options)
    rows += _accelerator(folder, models, len(files), options)
    return rows + _deployment(exports, options)


def _save_model(folder: Path, recipe: Path, options) -> Path:
    """The model that a recipe starts from; what its weights are makes no difference to its speed."""
    torch.manual_seed(0)
    fields = ["--use_cpu=true", "--bf16=false"]
    if options.quick:
        fields += ["--hidden_sizes", "4", "4", "8", "8", "--projection_hidden_size=16", "--projection_dim=8"]
    model, processor = load_model_and_processor(parse_recipe([str(recipe), *fields])[0])
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _export(models: dict[str, Path], folder: Path, options) -> dict[tuple[str, str], Path]:
    """(model, precision) -> its export; none where there is no ONNX, and float32 alone where it must be quick."""
    if importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("onnxscript") is None:
        return {}
    exports = {}
    for name, model in models.items():
        for precision in ("float32",) if options.quick else ("float32", "8 bits"):
            out = folder / "exports" / f"{model.name}-{precision.replace(' ', '-')}"
            calibration = clips(8, 32_000, options.sources) if precision == "8 bits" else ()
            exports[name, precision] = export_onnx(model, out, int8=precision == "8 bits", calibration=calibration)
    return exports


# ----------------------------------------------------------------------------------------------------------- files


def _files_on_cpu(
    folder: Path, models: dict[str, Path], exports: dict[tuple[str, str], Path], count: int, options
) -> list[Row]:
    processes = {"threads": options.threads, "apart": not options.quick}
    contenders = {}
    for name, model in models.items():
        contenders[name, "float32"] = Contender(build_ours, folder / "clips", model, "cpu", "float32", **processes)
        if not options.quick:
            contenders[name, "bfloat16"] = Contender(
                build_ours, folder / "clips", model, "cpu", "bfloat16", **processes
            )
    for (name, precision), export in exports.items():
        if not options.quick:
            kind = (name, f"ONNX, {precision}")
            contenders[kind] = Contender(build_ours, folder / "clips", export, "cpu", "float32", **processes)
    for precision in ("float32",) if options.quick else ("float32", "bfloat16"):
        small = options.quick
        contenders[CLAP, precision] = Contender(
            build_clap, folder / "clips", "cpu", precision, options.threads, small, **processes
        )
    rounds = 1 if options.quick else options.rounds
    found = {kind: figures["speed"] for kind, figures in compete(contenders, rounds).items()}

    note = f"{count} wav files of {SECONDS} s at 44.1 kHz, {rounds} rounds in turns, {options.threads} threads"
    medians = {kind: np.median(speeds) for kind, speeds in found.items()}
    best_clap = max((kind for kind in found if kind[0] == CLAP), key=medians.get)
    rows = []
    for name in models:
        for kind in (kind for kind in found if kind[0] == name and ("float32" in kind[1])):
            rows.append(_files_row(kind, found, (CLAP, "float32"), 2.0 if name == FULL else None, note))
        best = max((kind for kind in found if kind[0] == name), key=medians.get)
        rows.append(_files_row(best, found, best_clap, 2.0 if name == FULL else None, f"best against best; {note}"))
    others = [kind for kind in found if kind[0] != CLAP and kind[1] == "bfloat16"]
    return rows + [_files_row(kind, found, (CLAP, "bfloat16"), None, note) for kind in others]


def _files_row(kind: tuple[str, str], found: dict, reference: tuple[str, str], target: float | None, note: str) -> Row:
    return compared(
        SUBJECT,
        f"files, {kind[0]}, {kind[1]}",
        "s of audio/s",
        found[kind],
        f"{reference[0]}, {reference[1]}",
        found[reference],
        more_is_better=True,
        target=target,
        note=note,
    )


def build_ours(files: Path, model: Path, device: str, dtype: str) -> Round:
    """A round of ours: what `cnn10bert index` does with a folder, from the files to the index on disk."""
    embedder = load_embedder(model, device=device, dtype=dtype)

    def run() -> dict[str, float]:
        index = Path(tempfile.mkdtemp(prefix="benchmark-index-"))
        try:
            with AudioRetriever(str(index / "index"), embedder) as retriever:
                started = time.perf_counter()
                report = retriever.index(files, progress=False)
                seconds = time.perf_counter() - started
        finally:
            shutil.rmtree(index)
        return {"speed": report.audio_seconds / seconds}

    return run


def build_clap(files: Path, device: str, dtype: str, threads: int, tiny: bool = False) -> Round:
    """A round of CLAP: a data loader that decodes, resamples and computes features, batches through the model."""
    torch.manual_seed(0)
    model = ClapModel(_tiny_clap() if tiny else ClapConfig()).to(device).eval()
    extractor = ClapFeatureExtractor(truncation="rand_trunc")  # as of the published models without fusion
    dataset = ClapFiles(sorted(files.glob("*.wav")), extractor)
    half = torch.autocast(device, dtype=torch.bfloat16, enabled=dtype == "bfloat16")
    # One keeps up with the model on a CPU, whose cores it would else take away.
    workers = 0 if tiny else 1 if device == "cpu" else threads
    loader = DataLoader(dataset, batch_size=CLAP_BATCH, num_workers=workers, persistent_workers=workers > 0)

    @torch.inference_mode()
    def run() -> dict[str, float]:
        started = time.perf_counter()
        embeds = []
        for batch in loader:
            with half:
                output = model.get_audio_features(input_features=batch.to(device))
            embeds.append(output.pooler_output.float().cpu())
        assert len(torch.cat(embeds)) == len(dataset)
        return {"speed": SECONDS * len(dataset) / (time.perf_counter() - started)}

    return run


class ClapFiles(Dataset):
    """The features [1, T, n_mels] of each file."""

    def __init__(self, paths: Sequence[Path], extractor: ClapFeatureExtractor):
        self.paths, self.extractor = paths, extractor

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        waveform, rate = soundfile.read(self.paths[index], dtype="float32")
        waveform = soxr.resample(waveform, rate, self.extractor.sampling_rate)  # HQ, as librosa.load
        features = self.extractor(waveform, sampling_rate=self.extractor.sampling_rate, return_tensors="pt")
        return features["input_features"][0].float()


def _tiny_clap() -> ClapConfig:
    audio = {"patch_embeds_hidden_size": 8, "depths": [1, 1], "num_attention_heads": [1, 1], "hidden_size": 16}
    text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    return ClapConfig(audio_config=audio, text_config=text, projection_dim=8)


# ------------------------------------------------------------------------------------------------------ accelerator


def _accelerator(folder: Path, models: dict[str, Path], count: int, options) -> list[Row]:
    what, target = f"files on the accelerator, {FULL}, bfloat16", 10_000
    if not torch.cuda.is_available() or options.quick:
        return [not_measured(SUBJECT, what, NO_ACCELERATOR, f">= {target} h of audio/h")]
    contenders = {
        "ours": Contender(build_ours, folder / "clips", models[FULL], "cuda", "bfloat16", threads=options.threads),
        "clap": Contender(build_clap, folder / "clips", "cuda", "bfloat16", options.threads, threads=options.threads),
    }
    found = compete(contenders, options.rounds)
    ours, clap = found["ours"]["speed"], found["clap"]["speed"]
    note = f"{count} wav files of {SECONDS} s, {options.rounds} rounds in turns"
    speed = float(np.median(ours))
    return [
        compared(SUBJECT, what, "s of audio/s", ours, f"{CLAP}, bfloat16", clap, more_is_better=True, note=note),
        figure(SUBJECT, what, speed, "h of audio/h", at_least=target, note=note),
    ]


# ------------------------------------------------------------------------------------------------------- deployment


def _deployment(exports: dict[tuple[str, str], Path], options) -> list[Row]:
    """Exported models from the waveform to the embedding."""
    if not exports:
        return [not_measured(SUBJECT, "export, waveform to embedding", NO_ONNX, ">= 150")]
    count = 2 if options.quick else 16
    processes = {"threads": options.threads, "apart": not options.quick}
    contenders = {
        kind: Contender(build_exported, export, count, options.sources, options.threads, **processes)
        for kind, export in exports.items()
    }
    rows = []
    for kind, figures in compete(contenders, 1 if options.quick else options.rounds).items():
        least = 150 if kind[0] == SMALL else None
        note = f"{count} waveforms of {SECONDS} s in memory, {options.threads} threads"
        speed = float(np.median(figures["speed"]))
        rows.append(figure(SUBJECT, f"export, {kind[0]}, {kind[1]}", speed, "s of audio/s", at_least=least, note=note))
    return rows


def build_exported(export: Path, count: int, sources: Path | None, threads: int) -> Round:
    embedder = OnnxEmbedder(export, threads=threads)
    waveforms = clips(count, embedder.sampling_rate, sources)

    def run() -> dict[str, float]:
        started = time.perf_counter()
        embedder.embed_audio(waveforms)
        return {"speed": SECONDS * len(waveforms) / (time.perf_counter() - started)}

    return run
