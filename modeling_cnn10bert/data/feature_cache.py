"""The feature cache: recordings tables on disk, computed once and memory-mapped at training.

A recordings table has one row a recording. Its log-mel is one binary value of 16-bit numbers, which is read hundreds of
times faster than a list of numbers.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from tqdm import tqdm

LOG_MEL_STEP = 0.005  # dB per count: 16 bits then reach +-163 dB, and an error of at most 0.0025 dB
FORMAT = 1  # raise it when the meaning of a cached table changes, so that no older one is read

TABLE_FEATURES = datasets.Features(
    {
        "file_name": datasets.Value("string"),
        "recording_id": datasets.Value("string"),
        "captions": datasets.List(datasets.Value("string")),
        "length": datasets.Value("int32"),  # frames
        "log_mel": datasets.Value("binary"),
    }
)


def encode_log_mel(log_mel: torch.Tensor) -> bytes:
    """[T, n_mels] in dB to 16-bit counts of `LOG_MEL_STEP`.

    Raises:
        ValueError: a value that 16 bits do not hold.
    """
    counts = torch.round(log_mel / LOG_MEL_STEP)
    if not bool((counts.abs() < 2**15).all()):  # NaN fails the comparison too
        raise ValueError(
            f"log-mel values must be within +-{2**15 * LOG_MEL_STEP:.0f} dB, found up to {log_mel.abs().max():.1f} dB"
        )
    return counts.to(torch.int16).numpy().tobytes()


def decode_log_mel(encoded: bytes, n_mels: int) -> torch.Tensor:
    """The inverse of `encode_log_mel`: [T, n_mels] float32 in dB, within half a step."""
    counts = np.frombuffer(encoded, dtype=np.int16).reshape(-1, n_mels)
    return torch.from_numpy(counts.astype(np.float32) * np.float32(LOG_MEL_STEP))


def mean_of_bins(table: datasets.Dataset, n_mels: int) -> torch.Tensor:
    """Mean of each mel bin over all frames of a recordings table: [n_mels] in dB."""
    total, frames = torch.zeros(n_mels, dtype=torch.float64), 0
    for encoded in tqdm(table["log_mel"], desc="Averaging mel bins", leave=False):
        log_mel = decode_log_mel(encoded, n_mels)
        total += log_mel.sum(dim=0, dtype=torch.float64)
        frames += len(log_mel)
    return (total / frames).float()


def cached_table(
    cache_dir: str | os.PathLike, name: str, key: dict[str, Any], compute: Callable[[], datasets.Dataset]
) -> tuple[datasets.Dataset, torch.Tensor]:
    """
    The recordings table that `key` describes, from the cache or computed into it.

    Everything that the table depends on belongs into the key. It appears under its own name only when it is whole, so a
    killed preparation leaves nothing that later reads as complete, and two at once do not meet.

    Args:
        cache_dir: folder of all cached tables.
        name: what people call it; in front of the folder's name.
        key: JSON-serialisable; `feature_size` (n_mels) of the feature extractor's parameters is read from it.
        compute: makes the table.

    Returns:
        The memory-mapped table, and the mean of each mel bin [n_mels] in dB.
    """
    key = {"format": FORMAT, **key}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(cache_dir) / f"{name}-{digest}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            table = compute()
            table.save_to_disk(unfinished / "table")
            mean = mean_of_bins(table, key["features"]["feature_size"])
            (unfinished / "key.json").write_text(json.dumps(key, indent=2) + "\n")
            (unfinished / "mean_of_bins.json").write_text(json.dumps(mean.tolist()) + "\n")
            try:
                unfinished.rename(folder)
            except OSError:  # another process was faster, with the same content
                if not folder.is_dir():
                    raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return (
        datasets.load_from_disk(folder / "table"),
        torch.tensor(json.loads((folder / "mean_of_bins.json").read_text())),
    )
