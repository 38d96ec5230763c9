"""A page in the browser: type a sound, hear and see the ten best recordings; drop in one, find similar ones.

    python scripts/app.py                                        on the demo's model and test recordings
    python scripts/app.py --folder ~/sounds --model MODEL        a folder of recordings, indexed when it starts
    python scripts/app.py --index sounds.index                   what `cnn10bert index` made

Nothing but the found parts of recordings is served, and to this machine alone unless --host says otherwise.
"""

import argparse
import os
import sys
from pathlib import Path

from modeling_cnn10bert.errors import InputError, RetrievalError

# Read when numpy is imported. A core a question: several are answered at once, and threads that wait for one another's
# cores made a question take 110 ms in place of 27.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
print("Loading libraries ...", flush=True)

from demo.demo_sounds import write_demo_sounds  # noqa: E402
from modeling_cnn10bert.interrupts import orderly_exit  # noqa: E402
from modeling_cnn10bert.masking import ArgumentParser, without_secrets  # noqa: E402
from modeling_cnn10bert.page.sound_library import SoundLibrary, open_folder, open_index  # noqa: E402

DEMO, DEMO_DATA, DEMO_SOUNDS = Path("runs/demo"), Path("runs/demo_data"), Path("runs/demo_sounds")


def main(argv: list[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder or Hub id; by default the one of the index, else the demo's")
    searched = parser.add_mutually_exclusive_group()
    searched.add_argument("--index", help="what is searched: an index; or ...")
    searched.add_argument("--folder", help="... a folder of recordings; an index of it is kept beside it")
    parser.add_argument("--captions", help="CSV or JSON lines with file_name and caption, or a text file of captions")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 opens the page to the network")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument(
        "--allow_host",
        nargs="+",
        default=[],
        metavar="NAME",
        help="that the page has besides, as behind a proxy; * is any",
    )
    args = parser.parse_args(argv)
    try:
        library = open_library(args)
        from modeling_cnn10bert.page.server import serve

        serve(library, args.host, args.port, args.allow_host)
    except InputError as error:
        sys.exit(f"error: {without_secrets(str(error))}")


def open_library(args: argparse.Namespace) -> SoundLibrary:
    if args.index is not None:
        return open_index(args.index, args.model, args.captions)
    if args.model is None and not (DEMO / "config.json").is_file():
        raise RetrievalError(f"found no model in {DEMO}; train it by `make demo`, or name one by --model")
    if args.folder is None and not (DEMO_SOUNDS / "metadata.csv").is_file():  # which is written last
        write_demo_sounds(DEMO_DATA, DEMO_SOUNDS)
    return open_folder(args.folder or DEMO_SOUNDS, args.model or os.fspath(DEMO), args.captions)


if __name__ == "__main__":
    with orderly_exit("start it again with"):
        main()
