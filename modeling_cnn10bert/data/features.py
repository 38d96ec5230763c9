"""Cache of features: recordings tables on disk, computed once and memory-mapped at training.

A recordings table has one row per recording. Its log-mel is one binary value of 16-bit numbers, which is read hundreds
of times faster than a list of numbers.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from datasets.arrow_writer import ArrowWriter

from ..bars import progress_bar
from ..errors import DataError
from ..feature_extraction_cnn10bert import CNN10FeatureExtractor
from ..files import is_full_disk, scratch_folder
from .audio_io import decode_audio
from .processes import in_processes
from .saved_tables import load_saved

LOG_MEL_STEP = 0.005  # dB per count: 16 bits then reach +-163 dB, and an error of at most 0.0025 dB
FORMAT = 3  # raise it when the meaning of a cached table changes, so that no older one is read
ROWS_IN_MEMORY = 100  # 30 MB of log-mels of half a minute
MOST_PARTS = 100  # files of a table while it is computed

TABLE_FEATURES = datasets.Features(
    {
        "file_name": datasets.Value("string"),
        "recording_id": datasets.Value("string"),
        "captions": datasets.List(datasets.Value("string")),
        "length": datasets.Value("int32"),  # frames
        "log_mel": datasets.Value("binary"),
        "mel_mean": datasets.List(datasets.Value("float32")),  # of each mel bin over the frames, in dB
        "mel_std": datasets.List(datasets.Value("float32")),
    }
)


def encode_log_mel(log_mel: torch.Tensor) -> bytes:
    """
    Encode a log-mel [T, n_mels] in dB as 16-bit counts of `LOG_MEL_STEP`.

    Raises:
        ValueError: a value does not fit into 16 bits.
    """
    counts = torch.round(log_mel / LOG_MEL_STEP)
    low, high = torch.aminmax(counts)
    if not (low > -(2**15) and high < 2**15):  # NaN fails the comparison too
        raise ValueError(
            f"log-mel values must be within +-{2**15 * LOG_MEL_STEP:.0f} dB, found up to {log_mel.abs().max():.1f} dB"
        )
    return counts.to(torch.int16).numpy().tobytes()


def decode_log_mel(encoded: bytes, n_mels: int) -> torch.Tensor:
    """Invert `encode_log_mel`: [T, n_mels] float32 in dB, within half a step."""
    counts = np.frombuffer(encoded, dtype=np.int16).reshape(-1, n_mels)
    return torch.from_numpy(counts.astype(np.float32) * np.float32(LOG_MEL_STEP))


def log_mel_columns(log_mel: torch.Tensor) -> dict[str, Any]:
    """
    Compute the columns of a recordings table for a log-mel [T, n_mels] in dB: its encoding, length and statistics.

    Mean and standard deviation (of the population) of each mel bin are those of the values as they are stored.
    """
    encoded = encode_log_mel(log_mel)
    counts = np.frombuffer(encoded, dtype=np.int16).reshape(log_mel.shape).astype(np.float64)
    mean = counts.mean(axis=0)
    variance = np.einsum("tm,tm->m", counts, counts) / len(counts) - mean**2  # counts are whole numbers: it is exact
    return {
        "length": len(log_mel),
        "log_mel": encoded,
        "mel_mean": (LOG_MEL_STEP * mean).tolist(),
        "mel_std": (LOG_MEL_STEP * np.sqrt(np.maximum(variance, 0.0))).tolist(),
    }


def decode_row_audio(audio: Mapping[str, Any], sampling_rate: int) -> np.ndarray:
    """Decode a recording {"bytes", "path"} of a prepared data set to its waveform [samples]."""
    return decode_audio(audio["bytes"], sampling_rate, audio["path"])


@dataclass
class MelStatistics:
    """
    Statistics of a whole training set, for the augmentations.

    Attributes:
        mean, std: [N, n_mels] of each mel bin of each recording over its frames, in dB.
        overall_mean: [n_mels] of each mel bin over all frames of all recordings, in dB.
    """

    mean: torch.Tensor
    std: torch.Tensor
    overall_mean: torch.Tensor

    @classmethod
    def of_table(cls, table: datasets.Dataset) -> "MelStatistics":
        """Read them from a recordings table, without its log-mels."""
        columns = table.select_columns(["length", "mel_mean", "mel_std"]).with_format("torch")[:]
        lengths, mean = columns["length"].double(), columns["mel_mean"]
        return cls(mean, columns["mel_std"], (lengths @ mean.double() / lengths.sum()).float())


def file_stamps(dataset: datasets.Dataset) -> list[tuple[int, int]]:
    """Return size and time of modification of each file that a data set is stored in."""
    stats = [os.stat(file["filename"]) for file in dataset.cache_files]
    return [(stat.st_size, stat.st_mtime_ns) for stat in stats]


def log_mel_table(
    rows: datasets.Dataset,
    read: Callable[[dict[str, Any]], tuple[dict[str, Any], np.ndarray]],
    features: datasets.Features,
    feature_extractor: CNN10FeatureExtractor,
    key: dict[str, Any],
    cache_dir: str | os.PathLike,
    name: str,
    num_proc: int = 1,
) -> datasets.Dataset:
    """
    Load the table of recordings' log-mels from the cache, or compute it into the cache.

    Args:
        rows: one for each recording.
        read: row -> other columns of the table and the waveform [samples].
        features: features of the table, with those of `log_mel_columns` that it should have.
        feature_extractor: computes the log-mels.
        key: what the table depends on, besides the feature extractor; JSON-serializable.
        cache_dir: folder of the feature cache.
        name: shown in the progress bar and in the name of the cache.
        num_proc: processes that compute.

    Returns:
        The memory-mapped table.
    """

    def compute(scratch: Path) -> datasets.Dataset:
        parts = max(1, min(math.ceil(len(rows) / ROWS_IN_MEMORY), MOST_PARTS))
        if num_proc > 1:
            parts = max(parts, min(num_proc, len(rows)))
        bounds = [number * len(rows) // parts for number in range(parts + 1)]
        files = [str(scratch / f"part-{number:05d}.arrow") for number in range(parts)]

        # `datasets` would do the same by `map(num_proc=...)`, but its workers outlive a parent that is killed.
        def write(number: int) -> None:
            with ArrowWriter(path=files[number], features=features, writer_batch_size=ROWS_IN_MEMORY) as writer:
                for row in rows.select(range(*bounds[number : number + 2])):
                    others, waveform = read(row)
                    columns = others | log_mel_columns(feature_extractor.log_mel(waveform))
                    writer.write({column: columns[column] for column in features})
                writer.finalize()

        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # a forked process cannot use the threads of its parent
        try:
            with progress_bar(total=len(rows), desc=f"Computing log-mels of {name}", unit=" recordings") as bar:
                for number, _ in in_processes(write, parts, num_proc):
                    bar.update(bounds[number + 1] - bounds[number])
        finally:
            torch.set_num_threads(threads)
        return datasets.concatenate_datasets([datasets.Dataset.from_file(file) for file in files])

    parameters = ("feature_size", "sampling_rate", "n_fft", "hop_length", "f_min", "f_max", "min_frames")
    key = {"features": {parameter: getattr(feature_extractor, parameter) for parameter in parameters}, **key}
    return cached_table(cache_dir, name, key, compute)


def cached_table(
    cache_dir: str | os.PathLike, name: str, key: dict[str, Any], compute: Callable[[Path], datasets.Dataset]
) -> datasets.Dataset:
    """
    Load the table that `key` describes from the cache, or compute it into the cache.

    The key holds everything that the table depends on. A table gets its final name only when it is complete, so a
    killed process leaves nothing that looks complete, and two processes do not conflict. The next process deletes what
    a killed one left.

    Args:
        cache_dir: folder of all cached tables.
        name: start of the folder's name.
        key: JSON-serializable.
        compute: computes the table, given a folder for temporary files.

    Returns:
        The memory-mapped table.
    """
    key = {"format": FORMAT, **key}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(cache_dir) / f"{name}-{digest}"
    if not os.path.isdir(folder):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            if is_full_disk(error):
                raise
            raise DataError(
                f"cache_dir {str(cache_dir)[:300]}: found {str(error)[:300]}, expected a folder, or the name of a new "
                "one; give another cache_dir"
            ) from error
        with scratch_folder(folder.parent, ".unfinished-") as scratch:
            whole = scratch / "whole"
            compute(scratch).save_to_disk(whole / "table")
            (whole / "key.json").write_text(json.dumps(key, indent=2) + "\n")
            try:
                whole.rename(folder)
            except OSError:  # another process was faster, with the same content
                if not folder.is_dir():
                    raise
    return load_saved(folder / "table")
