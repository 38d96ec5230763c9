"""Measures a model as ONNX, in float32 and 8 bits, against PyTorch on the same cores.

    python scripts/benchmark_onnx.py MODEL --recordings DIR ...
    python scripts/benchmark_onnx.py MODEL --recordings DIR ... --manifests DIR --sources DIR     mAP@10 too

The recordings are cut to lengths from half a second to their own. What is compared is run in turns, in processor time,
so that other work on the machine matters little: a median over the rounds. The 8-bit audio tower is calibrated with
scenes of the training manifest, or without manifests with the recordings of the first folder.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from modeling_cnn10bert.data.audio_io import load_audio
from modeling_cnn10bert.data.pairs import caption_key
from modeling_cnn10bert.errors import InputError, RetrievalError
from modeling_cnn10bert.evaluation.metric import retrieval_metrics_both_directions
from modeling_cnn10bert.evaluation.recordings import EvaluationSet, load_evaluation_set
from modeling_cnn10bert.evaluation.reports import markdown_table
from modeling_cnn10bert.retrieval.embedding import Embedder
from modeling_cnn10bert.retrieval.model_inputs import ModelInputs
from modeling_cnn10bert.retrieval.onnx import CALIBRATION_RECORDINGS, OnnxEmbedder, export_onnx
from modeling_cnn10bert.retrieval.scanning import scan
from modeling_cnn10bert.retrieval.torch_embedding import TorchEmbedder

SHORTEST_SECONDS = 0.5
TEXTS = (
    "a dog barks while rain falls on a tin roof",
    "birds sing",
    "a church bell rings in the distance, then a helicopter flies over and drowns everything else",
    "someone sneezes twice",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or Hub id")
    parser.add_argument("--recordings", type=Path, nargs="+", required=True, help="folders of real recordings")
    parser.add_argument("--count", type=int, default=50, help="of them, spread evenly over the folders")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--manifests", type=Path, help="a folder of soundscape manifests, for mAP@10")
    parser.add_argument("--sources", type=Path, help="the recordings that their scenes are mixed from")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="benchmark-onnx-") as folder:
        embedders = make_embedders(options, Path(folder))
        waveforms = cut_recordings(options.recordings, options.count, embedders["PyTorch"].sampling_rate)
        print(markdown_table(("", *embedders), measure(embedders, waveforms, options.rounds)))
    seconds = [len(waveform) / embedders["PyTorch"].sampling_rate for waveform in waveforms]
    print(f"{len(waveforms)} recordings of {min(seconds):.1f} to {max(seconds):.1f} s, {options.threads} thread(s)")


def make_embedders(options: argparse.Namespace, folder: Path) -> dict[str, Embedder]:
    """The model in PyTorch, and its exports, which are written to the folder; prints their mAP@10."""
    model = TorchEmbedder.from_pretrained(options.model, device="cpu")
    calibration = options.recordings[0]
    if options.manifests:
        scenes = load_evaluation_set(options.manifests, split="train", sources=options.sources).recordings
        calibration = [scene.load(model.sampling_rate) for scene in scenes[:: len(scenes) // CALIBRATION_RECORDINGS]]
    export_onnx(options.model, folder / "float32")
    export_onnx(options.model, folder / "int8", int8=True, calibration=calibration)
    embedders = {
        "PyTorch": model,
        "ONNX float32": OnnxEmbedder(folder / "float32", threads=options.threads),
        "ONNX int8": OnnxEmbedder(folder / "int8", threads=options.threads),
    }
    if options.manifests:
        print(markdown_table(("mAP@10", "validation", "test"), precision_rows(embedders, options)))
    return embedders


# -------------------------------------------------------------------------------------------------------- precision


def precision_rows(embedders: dict[str, Embedder], options: argparse.Namespace) -> list[tuple[str, ...]]:
    """mAP@10 of each, and of float32 with either tower alone in 8 bits."""
    sets = [
        load_evaluation_set(options.manifests, split=split, sources=options.sources) for split in ("validation", "test")
    ]
    embeds = {name: [embed(embedder, evaluated) for evaluated in sets] for name, embedder in embedders.items()}
    exact, small = embeds["ONNX float32"], embeds["ONNX int8"]
    embeds["audio int8, text float32"] = [(eight[0], full[1]) for full, eight in zip(exact, small, strict=True)]
    embeds["audio float32, text int8"] = [(full[0], eight[1]) for full, eight in zip(exact, small, strict=True)]
    return [
        (
            name,
            *(f"{mean_average_precision(*pair, evaluated):.4f}" for pair, evaluated in zip(pairs, sets, strict=True)),
        )
        for name, pairs in embeds.items()
    ]


def embed(embedder: Embedder, evaluated: EvaluationSet) -> tuple[np.ndarray, np.ndarray]:
    audio = embedder.embed_audio([recording.load(embedder.sampling_rate) for recording in evaluated.recordings])
    return audio, embedder.embed_text(evaluated.captions())


def mean_average_precision(audio: np.ndarray, text: np.ndarray, evaluated: EvaluationSet) -> float:
    names = [recording.name for recording in evaluated.recordings]
    described = [recording.name for recording in evaluated.recordings for _ in recording.captions]
    keys = [caption_key(caption) for caption in evaluated.captions()]
    return retrieval_metrics_both_directions(audio, text, names, described, keys)["mAP@10"]


# ----------------------------------------------------------------------------------------------------------- speed


def cut_recordings(folders: Sequence[Path], count: int, sampling_rate: int) -> list[np.ndarray]:
    """The beginnings of recordings, of each folder the first half a second long and the last whole."""
    waveforms = []
    for number, files in enumerate(sorted((sorted(scan([folder]).files) for folder in folders), key=len)):
        share = min(len(files), (count - len(waveforms)) // (len(folders) - number))
        for place in np.linspace(0, 1, share):
            waveform = load_audio(files[round(place * (len(files) - 1))], sampling_rate)
            shortest = min(len(waveform), round(SHORTEST_SECONDS * sampling_rate))
            waveforms.append(waveform[: shortest + round(place * (len(waveform) - shortest))])
    if len(waveforms) < count:
        raise RetrievalError(
            f"found {len(waveforms)} recordings, expected {count}; name fewer (--count) or more folders"
        )
    return waveforms


def measure(embedders: dict[str, Embedder], waveforms: Sequence[np.ndarray], rounds: int) -> list[tuple[str, ...]]:
    """The lines of the table: differences, speeds, and in brackets how they compare with PyTorch's."""
    model, *exports = embedders.values()
    audio, text = model.embed_audio(waveforms), model.embed_text(TEXTS)
    lines = [
        (
            "largest difference, recordings",
            "",
            *(f"{np.abs(e.embed_audio(waveforms) - audio).max():.1e}" for e in exports),
        ),
        ("largest difference, texts", "", *(f"{np.abs(e.embed_text(TEXTS) - text).max():.1e}" for e in exports)),
        ("least cosine, recordings", "", *(f"{least_cosine(e.embed_audio(waveforms), audio):.4f}" for e in exports)),
    ]
    seconds = sum(map(len, waveforms)) / model.sampling_rate
    inputs = ModelInputs(model.processor)
    log_mel, *whole = in_turns(
        [lambda: list(inputs.audio(waveforms)), *(lambda e=e: e.embed_audio(waveforms) for e in embedders.values())],
        rounds,
    )
    network = [time_ - log_mel for time_ in whole]
    latency = in_turns(
        [lambda e=e, text=text: e.embed_text([text]) for text in TEXTS for e in embedders.values()], rounds * 5
    )
    latency = [statistics.median(latency[number :: len(embedders)]) for number in range(len(embedders))]
    return [
        *lines,
        ("s of audio per s", *(f"{seconds / t:.0f} ({whole[0] / t:.2f})" for t in whole)),
        ("without the log-mel", *(f"{seconds / t:.0f} ({network[0] / t:.2f})" for t in network)),
        ("a text, p50 in ms", *(f"{1000 * t:.1f} ({latency[0] / t:.2f})" for t in latency)),
    ]


def least_cosine(found: np.ndarray, expected: np.ndarray) -> float:
    return float((found * expected).sum(axis=1).min())


def in_turns(functions: Sequence[Callable], rounds: int) -> list[float]:
    """Median processor time of each, in seconds; all run once before."""
    times = [[] for _ in functions]
    for round_ in range(rounds + 1):
        for function, taken in zip(functions, times, strict=True):
            start = time.process_time()
            function()
            if round_ > 0:
                taken.append(time.process_time() - start)
    return [statistics.median(taken) for taken in times]


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
