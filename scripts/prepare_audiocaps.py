"""Prepares AudioCaps from its official caption files and a folder of the recordings that are still at hand.

    python scripts/prepare_audiocaps.py OUT --captions DIR --audio DIR

--captions holds train.csv, val.csv and test.csv of github.com/cdjkim/audiocaps; --audio the recordings, in any folders
below it, named Y<youtube_id>.wav or <youtube_id>_<start>.wav. Those that are not there are listed in OUT/skipped.csv;
fetch more, run it again, and they are added. A split of which none is there is an error: `--splits` names the others.
"""

import pathlib

from modeling_cnn10bert.data.command_line import add_push_to_hub, finish, preparation_parser, run
from modeling_cnn10bert.data.prepare import prepare_dataset
from modeling_cnn10bert.data.recipes.audiocaps import SPLITS, audiocaps_entries
from modeling_cnn10bert.data.recipes.youtube import YouTubeFolder


def main(argv: list[str] | None = None) -> None:
    parser = preparation_parser(__doc__)
    parser.add_argument(
        "--captions", type=pathlib.Path, required=True, metavar="DIR", help="folder of the caption files"
    )
    parser.add_argument("--audio", type=pathlib.Path, required=True, metavar="DIR", help="folder of the recordings")
    parser.add_argument(
        "--splits", nargs="+", choices=list(SPLITS), default=list(SPLITS), help="splits to prepare; by default, all"
    )
    add_push_to_hub(parser)
    args = parser.parse_args(argv)
    splits, columns = audiocaps_entries(args.captions, YouTubeFolder(args.audio))
    splits = {split: splits[split] for split in SPLITS if split in args.splits}
    finish(prepare_dataset(splits, columns, args.out, args.num_proc, args.strict), args.push_to_hub)


if __name__ == "__main__":
    run(main)
