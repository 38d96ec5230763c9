"""Measure files to embeddings against transformers' CLAP, exported models, and the cost of an import."""

import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import soundfile
import soxr
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

from modeling_cnn10bert.retrieval.embedding import load_embedder
from modeling_cnn10bert.retrieval.onnx import OnnxEmbedder, export_onnx
from modeling_cnn10bert.retrieval.retriever import AudioRetriever

from .harness import NO_ACCELERATOR, Contender, Round, Row, compared, compete, figure, in_turns, not_measured
from .inputs import SECONDS, clips, save_model, write_clips

CLAP = "transformers' ClapModel"
CLAP_BATCH = 8
FULL, SMALL = "full width", "small recipe"
UNIT = "s of audio/s"
IMPORTS = """
import json, time
started = time.perf_counter()
import transformers, torch
between = time.perf_counter()
import modeling_cnn10bert
print(json.dumps([between - started, time.perf_counter() - between]))
"""


def measure(folder: Path, options) -> list[Row]:
    size = options.size
    files = folder / "clips"
    write_clips(files, size.clips, options.sources)
    models = {SMALL: save_model(folder / "small", "soundscapes_small.yaml", tiny=not size.apart)}
    if size.full_width:
        models[FULL] = save_model(folder / "full", "soundscapes.yaml", tiny=False)
    exports = _export(models, folder, options)
    rows = _files_on_cpu(files, models, exports, options)

    what = f"files on the accelerator, {FULL}, bfloat16"
    if torch.cuda.is_available() and size.full_width:
        contenders = {
            "ours": Contender(build_ours, files, models[FULL], "cuda", "bfloat16", threads=options.threads),
            "clap": Contender(build_clap, files, "cuda", "bfloat16", options.threads, threads=options.threads),
        }
        ours, clap = (figures["speed"] for figures in compete(contenders, size.rounds).values())
        rows.append(compared(what, UNIT, ours, f"{CLAP}, bfloat16", clap, more_is_better=True))
        rows.append(figure(what, statistics.median(ours), "h of audio/h", at_least=10_000))
    else:
        rows.append(not_measured(what, NO_ACCELERATOR, ">= 10000 h of audio/h"))

    if not exports:
        rows.append(not_measured("exports", 'no ONNX here: pip install "cnn10bert[onnx]"', ">= 150"))
    arguments = (min(16, size.clips), options.sources, options.threads)
    contenders = {
        kind: Contender(build_exported, export, *arguments, threads=options.threads, apart=size.apart)
        for kind, export in exports.items()
    }
    for (name, precision), figures in compete(contenders, size.rounds).items():
        least = 150 if name == SMALL else None
        speed = statistics.median(figures["speed"])
        rows.append(figure(f"export from waveforms in memory, {name}, {precision}", speed, UNIT, at_least=least))
    return [*rows, _imports(size.rounds)]


def _export(models: dict[str, Path], folder: Path, options) -> dict[tuple[str, str], Path]:
    """Export each model in float32 and 8 bits; nothing without ONNX, only float32 for the quick size."""
    if importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("onnxscript") is None:
        return {}
    exports = {}
    for name, model in models.items():
        for precision in ("float32", "8 bits") if options.size.full_width else ("float32",):
            int8 = precision == "8 bits"
            calibration = clips(8, 32_000, options.sources) if int8 else ()
            out = folder / "exports" / f"{model.name}-{'int8' if int8 else 'float32'}"
            exports[name, precision] = export_onnx(model, out, int8=int8, calibration=calibration)
    return exports


def _files_on_cpu(files: Path, models: dict[str, Path], exports: dict, options) -> list[Row]:
    size = options.size
    processes = {"threads": options.threads, "apart": size.apart}
    precisions = ("float32", "bfloat16") if size.full_width else ("float32",)
    contenders = {
        (CLAP, dtype): Contender(build_clap, files, "cpu", dtype, options.threads, not size.apart, **processes)
        for dtype in precisions
    }
    for name, model in models.items():
        for dtype in precisions:
            contenders[name, dtype] = Contender(build_ours, files, model, "cpu", dtype, **processes)
    if size.full_width:
        for (name, precision), export in exports.items():
            contenders[name, f"ONNX, {precision}"] = Contender(build_ours, files, export, "cpu", "float32", **processes)
    speeds = {kind: figures["speed"] for kind, figures in compete(contenders, size.rounds).items()}

    note = f"{size.clips} wav files of {SECONDS} s at 44.1 kHz, {size.rounds} rounds, {options.threads} threads"
    rows = []

    def add(kind: tuple[str, str], reference: tuple[str, str], remark: str = "") -> None:
        what, target = f"files{remark}, {kind[0]}, {kind[1]}", 2.0 if kind[0] == FULL and "float32" in kind[1] else None
        row = (what, UNIT, speeds[kind], ", ".join(reference), speeds[reference])
        rows.append(compared(*row, more_is_better=True, target=target, note=note))

    def best(name: str) -> tuple[str, str]:
        return max((kind for kind in speeds if kind[0] == name), key=lambda kind: statistics.median(speeds[kind]))

    for kind in (kind for kind in speeds if kind[0] != CLAP):
        add(kind, (CLAP, "bfloat16" if kind[1] == "bfloat16" else "float32"))
    for name in models:
        add(best(name), best(CLAP), ", best against best")
    return rows


def build_ours(files: Path, model: Path, device: str, dtype: str) -> Round:
    """Build a round of `cnn10bert index` on a folder, from the files to the index on disk."""
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
    """Build a round of CLAP, with a data loader that decodes, resamples and computes features."""
    torch.manual_seed(0)
    model = ClapModel(_tiny_clap() if tiny else ClapConfig()).to(device).eval()
    extractor = ClapFeatureExtractor(truncation="rand_trunc")  # as in the published models without fusion
    dataset = ClapFiles(files, extractor)
    half = torch.autocast(device, dtype=torch.bfloat16, enabled=dtype == "bfloat16")
    # One worker keeps up with the model on a CPU; more would take cores from the model.
    workers = 0 if tiny else 1 if device == "cpu" else threads
    loader = DataLoader(dataset, batch_size=CLAP_BATCH, num_workers=workers, persistent_workers=workers > 0)

    @torch.inference_mode()
    def run() -> dict[str, float]:
        started = time.perf_counter()
        for batch in loader:
            with half:
                model.get_audio_features(input_features=batch.to(device)).pooler_output.float().cpu()
        return {"speed": SECONDS * len(dataset) / (time.perf_counter() - started)}

    return run


class ClapFiles(Dataset):
    """Features [1, T, n_mels] of each file."""

    def __init__(self, files: Path, extractor: ClapFeatureExtractor):
        self.paths, self.extractor = sorted(files.glob("*.wav")), extractor

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


def build_exported(export: Path, count: int, sources: Path | None, threads: int) -> Round:
    embedder = OnnxEmbedder(export, threads=threads)
    waveforms = clips(count, embedder.sampling_rate, sources)

    def run() -> dict[str, float]:
        started = time.perf_counter()
        embedder.embed_audio(waveforms)
        return {"speed": SECONDS * len(waveforms) / (time.perf_counter() - started)}

    return run


def _imports(rounds: int) -> Row:
    def run() -> list[float]:
        done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    before, added = map(statistics.median, zip(*in_turns({"imports": run}, rounds)["imports"], strict=True))
    note = f"{rounds} fresh processes; `import transformers, torch` takes {before:.2f} s"
    return figure("added by `import modeling_cnn10bert`", added, "s", at_most=0.2, note=note)
