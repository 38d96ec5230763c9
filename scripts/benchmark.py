"""Measure how fast this package is, as ratios to references of the same run if there are any.

    python scripts/benchmark.py SUBJECT... [--size small|full] [--out DIR]

A finished subject is written to DIR/SUBJECT.json, .md and, if there are ratios, .png. Compared programs run in turns,
A B B A A B ...; figures are medians over the rounds, without the first one.

    train         a training step against the plain loop of research code, and the paper's recipe on an accelerator
    features      log-mels against torchaudio's and transformers' CLAP's
    embed         files to embeddings against transformers' ClapModel; exports; cost of an import
    search        an index on disk against numpy and faiss (pip install faiss-cpu): time, memory, size, recall
    data          the feature cache against torchaudio and against decoding; AudioSet's shards
    onnx          an exported model, in float32 and 8 bits, against PyTorch
    retriever     a text to ten results, in a warm process and as a command
    augmentation  a batch's augmentations against torchaudio's masks and nlpaug
    app           the page under load

`--size small` takes less than five minutes per subject on two cores; the figures in the docs are from `--size full`.
By default, recordings are from the built-in synthesizers and models have random weights. Everything else goes to a
temporary folder (TMPDIR), some gigabytes for `--size full`.
"""

import argparse
import dataclasses
import importlib
import os
import sys
import tempfile
from pathlib import Path

SUBJECTS = ("train", "features", "embed", "search", "data", "onnx", "retriever", "augmentation", "app")


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    from benchmarks import harness, inputs

    options.size = inputs.SIZES[options.size]
    if options.rounds:
        options.size = dataclasses.replace(options.size, rounds=options.rounds)
    subjects = SUBJECTS if "all" in options.subjects else tuple(dict.fromkeys(options.subjects))
    for number, subject in enumerate(subjects, start=1):
        print(f"{subject} ({number} of {len(subjects)}) ...", file=sys.stderr, flush=True)
        about = harness.describe(options.threads)
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            rows = importlib.import_module(f"benchmarks.{subject}").measure(Path(folder), options)
        print(harness.write(subject, rows, about, options.out), flush=True)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="+", choices=(*SUBJECTS, "all"), metavar="SUBJECT", help="see above, or all")
    parser.add_argument("--size", choices=("quick", "small", "full"), default="full", help="quick: whether it runs")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder of the figures")
    parser.add_argument("--sources", type=Path, help="a folder of recordings")
    parser.add_argument("--manifests", type=Path, help="a folder of soundscape manifests that mix them (train, onnx)")
    parser.add_argument("--model", help="folder or Hub id (onnx, retriever, app); by default random weights")
    parser.add_argument("--captions", type=Path, help="CSV with a column `caption` (augmentation)")
    parser.add_argument("--vectors", help="`random`, or a file of scripts/embed_windows.py (search, retriever)")
    parser.add_argument("--rows", type=int, help="vectors that are searched (search, retriever)")
    parser.add_argument("--rounds", type=int, help="that count")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of PyTorch and the others, all cores")
    options = parser.parse_args(argv)
    if options.manifests and not options.sources:
        parser.error("--manifests needs --sources, the folder of the recordings that they mix")
    return options


if __name__ == "__main__":
    main()
