"""Writes the page as a folder that is a Hugging Face Space, and runs by itself on any machine too.

    python scripts/make_space.py OUT --model MODEL --sounds FOLDER_OR_INDEX [--captions FILE] [--title TITLE]
    hf upload ACCOUNT/NAME OUT . --repo-type space       puts it on the Hub, after `hf auth login`

MODEL is a folder, which is copied, or an id on the Hub. The recordings are copied and published with the Space: use
those that you may give on.
"""

import argparse
import sys

from modeling_cnn10bert.errors import InputError
from modeling_cnn10bert.interrupts import orderly_exit
from modeling_cnn10bert.masking import ArgumentParser, without_secrets
from modeling_cnn10bert.page.space import make_space


def main(argv: list[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT", help="folder to write")
    parser.add_argument("--model", required=True, help="folder or Hub id")
    parser.add_argument("--sounds", required=True, help="folder of recordings, or an index of this model")
    parser.add_argument("--captions", help="CSV or JSON lines with file_name and caption; by default the folder's own")
    parser.add_argument("--title", default="Search sounds")
    args = parser.parse_args(argv)
    try:
        out = make_space(args.out, args.model, args.sounds, args.captions, args.title)
    except InputError as error:
        sys.exit(f"error: {without_secrets(str(error))}")
    print(
        f"{out}: try it by `python {out / 'app.py'}`; publish it by `hf upload ACCOUNT/NAME {out} . --repo-type space`"
    )


if __name__ == "__main__":
    with orderly_exit("run it again with"):
        main()
