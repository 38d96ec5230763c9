"""Clips of ten seconds to measure with: of recordings that are given, or of the built-in synthesizers."""

from pathlib import Path

import numpy as np
import soundfile

from demo.synthesizers import SYNTHESIZERS
from modeling_cnn10bert.data.audio_io import load_audio
from modeling_cnn10bert.retrieval.scanning import scan

SECONDS = 10
FILE_RATE = 44_100  # Hz, of the files: neither model's own rate


def clips(count: int, sampling_rate: int, sources: Path | None) -> list[np.ndarray]:
    """Mono waveforms [10 s] float32, each of recordings one behind the other."""
    length = SECONDS * sampling_rate
    pieces = _recordings(sampling_rate, sources)
    found = []
    for _ in range(count):
        clip = np.zeros(0, np.float32)
        while len(clip) < length:
            clip = np.concatenate([clip, next(pieces)])
        found.append(clip[:length])
    return found


def _recordings(sampling_rate: int, sources: Path | None):
    """Recordings without end, those of every folder in turns."""
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
    """So many clips as wav files of 16 bits."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, clip in enumerate(clips(count, FILE_RATE, sources)):
        paths.append(folder / f"{number:03d}.wav")
        soundfile.write(paths[-1], clip / max(1.0, np.abs(clip).max()), FILE_RATE, subtype="PCM_16")
    return paths
