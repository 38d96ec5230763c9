"""Measures how fast this package is, each figure as a ratio to a reference of the same run, in a table and a chart.

    python scripts/benchmark.py [train|features|embed|search|all] --out FILE

writes FILE.json, FILE.md and FILE.png. What is compared runs in turns, A B B A A B ..., as a rule each in a process of
its own; figures are medians of the rounds behind a first one that does not count. What needs an accelerator is said to
be not measured where there is none; without faiss (`pip install faiss-cpu`) so are its rows.

The recordings are of the built-in synthesizers, or `--sources DIR`, with `--manifests DIR` for training (see the
README). Everything else goes to a temporary folder (TMPDIR), some gigabytes.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from benchmarks import embedding, features, machine, report, search, starting, training

SUBJECTS = ("train", "features", "embed", "search")


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    about = machine.describe(options.threads)
    rows: list[report.Row] = []
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        for subject in SUBJECTS if options.subject == "all" else (options.subject,):
            found = measure(subject, Path(folder), options)
            print(report.table(found), file=sys.stderr, flush=True)
            rows += found
    print(report.markdown(rows, about))
    if options.out:
        print("written:", *report.write(rows, about, options.out))


def measure(subject: str, folder: Path, options: argparse.Namespace) -> list[report.Row]:
    if subject == "train":
        return training.measure(folder / "training", options)
    if subject == "features":
        return features.measure(options)
    if subject == "search":
        return search.measure(folder / "search", options)
    rows = embedding.measure(folder / "embedding", options)
    return rows if options.quick else rows + starting.measure(options.rounds)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subject", nargs="?", default="all", choices=(*SUBJECTS, "all"))
    parser.add_argument("--out", type=Path, help="where to write the figures, without a suffix")
    parser.add_argument("--sources", type=Path, help="a folder of recordings")
    parser.add_argument("--manifests", type=Path, help="a folder of soundscape manifests that mix them")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of PyTorch and the others, all cores")
    parser.add_argument("--rounds", type=int, default=5, help="that count")
    parser.add_argument("--clips", type=int, default=144, help="of 10 s that are embedded")
    parser.add_argument("--rows", type=int, default=100_000, help="vectors that are searched")
    parser.add_argument("--vectors", type=Path, help="an .npy file of them, such as scripts/embed_windows.py writes")
    parser.add_argument("--quick", action="store_true", help="tiny sizes in one process: whether it runs, not how fast")
    options = parser.parse_args(argv)
    if options.manifests and not options.sources:
        parser.error("--manifests needs --sources, the folder of the recordings that they mix")
    return options


if __name__ == "__main__":
    main()
