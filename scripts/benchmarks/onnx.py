"""Compare ONNX models in float32 and 8 bits with PyTorch on the same cores: differences, speed, and mAP@10.

The recordings are cut to lengths from half a second to their own. Contenders run in turns, in processor time. The 8-bit
audio tower is calibrated with scenes of the training manifest, or with the recordings if there are no manifests.
"""

import statistics
from pathlib import Path

import numpy as np

from modeling_cnn10bert.data.audio_io import load_audio
from modeling_cnn10bert.data.pairs import caption_key
from modeling_cnn10bert.evaluation.metric import rank_both_directions
from modeling_cnn10bert.evaluation.recordings import load_evaluation_set
from modeling_cnn10bert.retrieval.embedding import Embedder
from modeling_cnn10bert.retrieval.model_inputs import ModelInputs
from modeling_cnn10bert.retrieval.onnx import CALIBRATION_RECORDINGS, OnnxEmbedder, export_onnx
from modeling_cnn10bert.retrieval.scanning import scan
from modeling_cnn10bert.retrieval.torch_embedding import TorchEmbedder

from .harness import Row, compared, figure, seconds_in_turns
from .inputs import clips, save_model

SHORTEST_SECONDS = 0.5
PYTORCH, EXPORTS = "PyTorch", ("ONNX float32", "ONNX int8")
TEXTS = (
    "a dog barks while rain falls on a tin roof",
    "birds sing",
    "a church bell rings in the distance, then a helicopter flies over and drowns everything else",
    "someone sneezes twice",
)


def measure(folder: Path, options) -> list[Row]:
    size = options.size
    name = options.model or save_model(folder / "model", "soundscapes_small.yaml", tiny=not size.apart)
    model = TorchEmbedder.from_pretrained(name, device="cpu")
    rate = model.sampling_rate
    if options.sources:
        files = sorted(scan([options.sources]).files)
        waveforms = [load_audio(files[round(place)], rate) for place in np.linspace(0, len(files) - 1, size.recordings)]
    else:
        waveforms = clips(size.recordings, rate, None)
    calibration, sets = waveforms, {}
    if options.manifests:
        sets = {
            split: load_evaluation_set(options.manifests, split=split, sources=options.sources)
            for split in ("train", "validation", "test")
        }
        scenes = sets.pop("train").recordings
        calibration = [scene.load(rate) for scene in scenes[:: max(1, len(scenes) // CALIBRATION_RECORDINGS)]]
    export_onnx(name, folder / "float32")
    export_onnx(name, folder / "int8", int8=True, calibration=calibration)
    embedders: dict[str, Embedder] = {PYTORCH: model}
    for export in EXPORTS:
        embedders[export] = OnnxEmbedder(folder / export.split()[1], threads=options.threads)

    # Each is cut to a different share of its length, the first to half a second.
    shortest = round(SHORTEST_SECONDS * rate)
    for number, waveform in enumerate(waveforms):
        rest = max(0, len(waveform) - shortest)
        waveforms[number] = waveform[: shortest + round(rest * number / max(1, len(waveforms) - 1))]
    inputs = ModelInputs(model.processor)
    calls = {"log-mel": lambda: list(inputs.audio(waveforms))}
    for kind, embedder in embedders.items():
        calls[kind, "audio"] = lambda embedder=embedder: embedder.embed_audio(waveforms)
        calls[kind, "text"] = lambda embedder=embedder: [embedder.embed_text([text]) for text in TEXTS]
    seconds = seconds_in_turns(calls, size.rounds)
    log_mel = statistics.median(seconds["log-mel"])
    total = sum(map(len, waveforms)) / rate
    note = f"{len(waveforms)} recordings, {total:.0f} s, {options.threads} thread(s), processor time"
    rows = []
    for export in EXPORTS:
        for what, kind, scale in (("recordings, s of audio per", "audio", total), ("a text", "text", len(TEXTS))):
            ours, theirs = ([1e3 * each / scale for each in seconds[one, kind]] for one in (export, PYTORCH))
            what = "s of audio, from the waveform" if kind == "audio" else what
            rows.append(compared(f"{export}: {what}", "ms", ours, PYTORCH, theirs, note=note))
        ours, theirs = ([1e3 * (each - log_mel) / total for each in seconds[one, "audio"]] for one in (export, PYTORCH))
        rows.append(compared(f"{export}: s of audio, without the log-mel", "ms", ours, PYTORCH, theirs))
        audio, expected = (embedders[one].embed_audio(waveforms) for one in (export, PYTORCH))
        texts, expected_texts = (embedders[one].embed_text(list(TEXTS)) for one in (export, PYTORCH))
        rows.append(figure(f"{export}: largest difference, recordings", float(np.abs(audio - expected).max())))
        rows.append(figure(f"{export}: largest difference, texts", float(np.abs(texts - expected_texts).max())))
        rows.append(figure(f"{export}: least cosine, recordings", float((audio * expected).sum(axis=1).min())))
    return rows + _precision(embedders, sets)


def _precision(embedders: dict[str, Embedder], sets: dict) -> list[Row]:
    """Measure the mAP@10 of each model, and of float32 with only one tower in 8 bits."""
    rows = []
    for split, evaluated in sets.items():
        audio, text = {}, {}
        for kind, embedder in embedders.items():
            audio[kind] = embedder.embed_audio([one.load(embedder.sampling_rate) for one in evaluated.recordings])
            text[kind] = embedder.embed_text(evaluated.captions())
        names = [recording.name for recording in evaluated.recordings]
        described = [recording.name for recording in evaluated.recordings for _ in recording.captions]
        keys = [caption_key(caption) for caption in evaluated.captions()]
        pairs = [(kind, kind) for kind in embedders] + [EXPORTS, EXPORTS[::-1]]
        for of_audio, of_text in pairs:
            ranked = rank_both_directions(audio[of_audio], text[of_text], names, described, keys)
            rows.append(figure(f"mAP@10, {split}, audio {of_audio}, text {of_text}", ranked.metrics()["mAP@10"]))
    return rows
