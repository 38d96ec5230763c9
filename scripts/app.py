"""Serve the page with the demo's model and test recordings; with options, the same as `cnn10bert page`.

python scripts/app.py                                        after `make demo`
python scripts/app.py --folder ~/sounds --model MODEL        a folder of recordings, indexed when it starts
python scripts/app.py --index sounds.index                   what `cnn10bert index` made
"""

import os
import sys
from pathlib import Path

# Read when numpy is imported, see modeling_cnn10bert/cli/page.py.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from demo.demo_sounds import write_demo_sounds  # noqa: E402
from modeling_cnn10bert.cli.app import app  # noqa: E402

DEMO, DEMO_DATA, DEMO_SOUNDS = Path("runs/demo"), Path("runs/demo_data"), Path("runs/demo_sounds")


def main(words: list[str]) -> None:
    if not {"--index", "--folder", "--help", "-h"} & {word.partition("=")[0] for word in words}:
        if not (DEMO / "config.json").is_file():
            sys.exit(
                f"error: found no model in {DEMO}; train it by `make demo`, or give --index, or --folder and --model"
            )
        if not (DEMO_SOUNDS / "metadata.csv").is_file():  # which is written last
            write_demo_sounds(DEMO_DATA, DEMO_SOUNDS)
        words = ["--folder", str(DEMO_SOUNDS), "--model", str(DEMO), *words]
    app(["page", *words])


if __name__ == "__main__":
    main(sys.argv[1:])
