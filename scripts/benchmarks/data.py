"""Measure data loading on one core: the feature cache against torchaudio and decoding, and AudioSet's shards.

Times of clips are processor time. The AudioSet part writes 1.1 MB per clip to the temporary folder.
"""

import collections
import csv
import os
import time
from pathlib import Path

import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader

from modeling_cnn10bert import CNN10FeatureExtractor
from modeling_cnn10bert.data.audio_io import decode_audio, load_audio
from modeling_cnn10bert.data.entries import Entry
from modeling_cnn10bert.data.features import log_mel_columns
from modeling_cnn10bert.data.pairs import RecordingTransform
from modeling_cnn10bert.data.prepare import prepare_dataset
from modeling_cnn10bert.data.recipes.audio_folder import CAPTIONS
from modeling_cnn10bert.data.recipes.audioset import audioset_entries, multi_hot, open_stream, prepare_audioset
from modeling_cnn10bert.data.recipes.youtube import YouTubeFolder
from modeling_cnn10bert.data.recordings_table import recordings_table

from .features import TORCHAUDIO, torchaudio_log_mel
from .harness import Row, compared, figure, memory, seconds_in_turns
from .inputs import SECONDS, write_clips

BATCH = 30
DIFFERENT_CLIPS = 100  # the others are links to them, which cost the same to read, decode and write
NODES, WORKERS = 4, 2


def measure(folder: Path, options) -> list[Row]:
    torch.set_num_threads(1)
    return _feature_cache(folder, options) + _audioset(folder, options)


def _feature_cache(folder: Path, options) -> list[Row]:
    count = options.size.recordings
    paths = write_clips(folder / "wav", count, options.sources)
    entries = [Entry(path.name, path, {"captions": ["noise"]}) for path in paths]
    prepare_dataset({"train": entries}, datasets.Features({"captions": CAPTIONS}), folder / "out")
    extractor = CNN10FeatureExtractor()
    started = time.process_time()
    table = recordings_table(datasets.load_from_disk(folder / "out")["train"], extractor, folder / "cache")
    whole = 1e3 * (time.process_time() - started) / count

    spectrogram = torchaudio_log_mel(extractor)
    waveforms = [load_audio(path, extractor.sampling_rate) for path in paths]
    read = table.with_transform(RecordingTransform(table, extractor))
    rows = np.random.default_rng(0).integers(count, size=(count, BATCH)).tolist()
    calls = {
        "build": lambda: [log_mel_columns(extractor.log_mel(waveform)) for waveform in waveforms],
        "torchaudio": lambda: [spectrogram(torch.from_numpy(waveform)) for waveform in waveforms],
        "read": lambda: [read.__getitems__(batch) for batch in rows],
        "decode": lambda: [extractor.log_mel(load_audio(path, extractor.sampling_rate)) for path in paths],
    }
    found = {
        name: [1e3 * each / count / (BATCH if name == "read" else 1) for each in seconds]
        for name, seconds in seconds_in_turns(calls, options.size.rounds).items()
    }
    note = f"{count} clips of {SECONDS} s; log-mel, statistics, 16-bit encoding"
    decoding = "decode wav at 44.1 kHz, resample, compute features"
    return [
        compared("build the cache, per clip", "ms", found["build"], TORCHAUDIO, found["torchaudio"], note=note),
        figure("the same with decoding FLAC and writing the table", whole, "ms"),
        compared(f"read it, in batches of {BATCH}, per clip", "ms", found["read"], decoding, found["decode"]),
    ]


def _audioset(folder: Path, options) -> list[Row]:
    """Write clips to AudioSet's shards and read them back, whole and by several nodes."""
    count = options.size.audioset
    different = write_clips(folder / "different", min(DIFFERENT_CLIPS, count), options.sources)
    (folder / "clips").mkdir()
    with (folder / "train_segments.csv").open("w", newline="") as file:
        for number in range(count):
            os.link(different[number % len(different)], folder / "clips" / f"Y{number:011d}.wav")
            labels = f"/m/{number % 527},/m/{(7 * number + 1) % 527}"
            csv.writer(file).writerow([f"{number:011d}", "30.000", "40.000", labels])
    started, before = time.perf_counter(), memory()
    labels = {f"/m/{number}": number for number in range(527)}
    entries = audioset_entries(folder / "train_segments.csv", labels, YouTubeFolder(folder / "clips"))
    result = prepare_audioset({"train": entries}, folder / "shards", 1)
    assert result.prepared == {"train": count}
    prepared = count / (time.perf_counter() - started)

    started, held = time.perf_counter(), [memory()]
    for number, row in enumerate(open_stream(folder / "shards", "train"), start=1):
        decode_audio(row["audio"]["bytes"], 32_000, row["file_name"])
        multi_hot([row["labels"]])
        if number in (1 + count // 20, count):
            held.append(memory())
    streamed = count / (time.perf_counter() - started)

    seen = collections.Counter()
    for rank in range(NODES):
        stream = open_stream(folder / "shards", "train", rank, NODES).select_columns(["file_name"])
        for batch in DataLoader(stream, batch_size=BATCH, num_workers=WORKERS):
            seen.update(batch["file_name"])
    megabytes = " to ".join(f"{one / 2**20:.0f}" for one in held[1:])
    note = f"{count} clips of {SECONDS} s; {before / 2**20:.0f} MB before, {held[0] / 2**20:.0f} MB after"
    return [
        figure("AudioSet: prepared", prepared, "clips/s", note=note),
        figure("AudioSet: streamed and decoded", streamed, "clips/s", note=f"{megabytes} MB of memory, start to end"),
        figure(
            f"AudioSet: share seen by {NODES} nodes of {WORKERS} workers",
            len(seen) / count,
            note=f"each clip at most {max(seen.values())} time(s)",
        ),
    ]
