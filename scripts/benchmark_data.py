"""Measures the way of the data, on one core.

    python scripts/benchmark_data.py [--clips 40]         the feature cache against torchaudio, and against decoding
    python scripts/benchmark_data.py --audioset 10000     that many clips of 10 s into AudioSet's shards and out again

Times are medians of single clips in processor time, those to compare taken in turns, so that other work on the machine
matters little. The second writes 1.1 MB a clip to the folder for temporary files (TMPDIR).
"""

import argparse
import collections
import csv
import os
import pathlib
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence

os.environ.setdefault("OMP_NUM_THREADS", "1")

import datasets  # noqa: E402
import numpy as np  # noqa: E402
import soundfile  # noqa: E402
import torch  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

from benchmarks.torchaudio_log_mel import torchaudio_log_mel  # noqa: E402
from modeling_cnn10bert import CNN10FeatureExtractor  # noqa: E402
from modeling_cnn10bert.data.audio_io import decode_audio, load_audio  # noqa: E402
from modeling_cnn10bert.data.entries import Entry  # noqa: E402
from modeling_cnn10bert.data.features import log_mel_columns  # noqa: E402
from modeling_cnn10bert.data.pairs import RecordingTransform  # noqa: E402
from modeling_cnn10bert.data.prepare import prepare_dataset  # noqa: E402
from modeling_cnn10bert.data.recipes.audio_folder import CAPTIONS  # noqa: E402
from modeling_cnn10bert.data.recipes.audioset import audioset_entries, multi_hot, open_stream, prepare_audioset  # noqa: E402
from modeling_cnn10bert.data.recipes.youtube import YouTubeFolder  # noqa: E402
from modeling_cnn10bert.data.recordings_table import recordings_table  # noqa: E402

SECONDS, RATE = 10, 44_100
BATCH = 30
DIFFERENT_CLIPS = 100  # the others are links to them: as much to read, decode and write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=40, help="clips of 10 s that the feature cache is measured with")
    parser.add_argument("--audioset", type=int, metavar="N", help="measure the AudioSet path with so many clips")
    parser.add_argument("--num_proc", type=int, default=1, help="processes that prepare them")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="benchmark-data-") as folder:
        if args.audioset:
            measure_audioset(pathlib.Path(folder), args.audioset, args.num_proc)
        else:
            measure_cache(pathlib.Path(folder), args.clips)


def write_clip(path: pathlib.Path, seed: int) -> pathlib.Path:
    """10 s of noise that fades in and out, 16-bit wav."""
    rng = np.random.default_rng(seed)
    noise = 0.1 * rng.standard_normal(SECONDS * RATE) * np.hanning(SECONDS * RATE)
    soundfile.write(path, noise, RATE)
    return path


def medians_ms(functions: Sequence[Callable], items: Iterable[Sequence]) -> list[float]:
    """Calls each function with its argument of each item, in turns; the median time of each."""
    times = []
    for arguments in items:
        times.append([])
        for function, argument in zip(functions, arguments, strict=True):
            started = time.process_time()
            function(argument)
            times[-1].append(1e3 * (time.process_time() - started))
    return [statistics.median(column) for column in zip(*times, strict=True)]


# ----------------------------------------------------------------------------------------------- the feature cache


def measure_cache(folder: pathlib.Path, num_clips: int) -> None:
    paths = [write_clip(folder / f"{number}.wav", number) for number in range(num_clips)]
    entries = [Entry(path.name, path, {"captions": ["noise"]}) for path in paths]
    prepare_dataset({"train": entries}, datasets.Features({"captions": CAPTIONS}), folder / "out")
    prepared = datasets.load_from_disk(folder / "out")["train"]
    extractor = CNN10FeatureExtractor()
    started = time.process_time()
    table = recordings_table(prepared, extractor, folder / "cache")
    whole = 1e3 * (time.process_time() - started) / num_clips

    spectrogram = torchaudio_log_mel(extractor)
    waveforms = [load_audio(path, extractor.sampling_rate) for path in paths]
    build, reference = medians_ms(
        [
            lambda waveform: log_mel_columns(extractor.log_mel(waveform)),
            lambda waveform: spectrogram(torch.from_numpy(waveform)),
        ],
        [(waveform, waveform) for waveform in waveforms * 3],
    )
    print(f"build, a clip of {SECONDS} s: {build:.2f} ms (log-mel, statistics, 16-bit encoding)")
    print(f"torchaudio's MelSpectrogram and AmplitudeToDB: {reference:.2f} ms")
    print(f"  the cache is built {reference / build:.2f} times as fast as torchaudio computes its features")
    print(f"  with decoding a prepared FLAC and writing the table: {whole:.2f} ms a clip")

    read = table.with_transform(RecordingTransform(table, extractor))
    rows = np.random.default_rng(0).integers(num_clips, size=(num_clips, BATCH)).tolist()
    cached, decoded = medians_ms(
        [read.__getitems__, lambda path: extractor.log_mel(load_audio(path, extractor.sampling_rate))],
        zip(rows, paths, strict=True),
    )
    cached /= BATCH
    print(f"read from the cache, in batches of {BATCH}: {cached:.3f} ms a clip")
    print(f"decode wav at {RATE} Hz, resample, compute features: {decoded:.2f} ms a clip")
    print(f"  the cache is read {decoded / cached:.0f} times as fast")


# ------------------------------------------------------------------------------------------------------- AudioSet


def measure_audioset(folder: pathlib.Path, num_clips: int, num_proc: int) -> None:
    segments = write_audioset(folder, num_clips)
    labels = {f"/m/{number}": number for number in range(527)}
    print(f"{num_clips} clips of {SECONDS} s, wav at {RATE} Hz; {memory()} before")
    started = time.perf_counter()
    entries = audioset_entries(segments, labels, YouTubeFolder(folder / "clips"))
    result = prepare_audioset({"train": entries}, folder / "out", num_proc)
    assert result.prepared == {"train": num_clips}
    del entries, result
    speed = num_clips / (time.perf_counter() - started)
    print(f"prepared: {speed:.0f} clips a second, {num_proc} process(es); {memory()}")

    started = time.perf_counter()
    for number, row in enumerate(open_stream(folder / "out", "train"), start=1):
        decode_audio(row["audio"]["bytes"], 32_000, row["file_name"])
        multi_hot([row["labels"]])
        if number in (num_clips // 20, num_clips // 2, num_clips):
            print(f"streamed and decoded {number}: {memory()}")
    print(f"  {num_clips / (time.perf_counter() - started):.0f} clips a second")
    measure_coverage(folder / "out", num_clips)


def measure_coverage(out: pathlib.Path, num_clips: int, nodes: int = 4, workers: int = 2) -> None:
    started, seen, parts = time.perf_counter(), collections.Counter(), []
    for rank in range(nodes):
        stream = open_stream(out, "train", rank, nodes).select_columns(["file_name"])
        part = collections.Counter()
        for batch in DataLoader(stream, batch_size=BATCH, num_workers=workers):
            part.update(batch["file_name"])
        parts.append(part.total())
        seen.update(part)
    print(
        f"{nodes} nodes x {workers} workers: {parts} clips, {len(seen)} of {num_clips} different ones, each at most "
        f"{max(seen.values())} time(s); {num_clips / (time.perf_counter() - started):.0f} clips a second undecoded"
    )


def write_audioset(folder: pathlib.Path, num_clips: int) -> pathlib.Path:
    """A folder of clips, and its segment file."""
    (folder / "clips").mkdir()
    different = [write_clip(folder / f"{number}.wav", number) for number in range(min(DIFFERENT_CLIPS, num_clips))]
    with (folder / "train_segments.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        for number in range(num_clips):
            os.link(different[number % len(different)], folder / "clips" / f"Y{number:011d}.wav")
            writer.writerow([f"{number:011d}", "30.000", "40.000", f"/m/{number % 527},/m/{(7 * number + 1) % 527}"])
    return folder / "train_segments.csv"


def memory() -> str:
    """What this process holds now, and the most it ever did."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"{pages * resource.getpagesize() / 2**20:.0f} MB of memory, at most {peak:.0f} MB so far"


if __name__ == "__main__":
    main()
