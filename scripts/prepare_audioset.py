"""Prepares AudioSet as shards to stream from.

    python scripts/prepare_audioset.py OUT --segments balanced_train_segments.csv eval_segments.csv
        --labels class_labels_indices.csv --audio DIR

A segment file NAME_segments.csv becomes the split NAME. --audio holds the clips, in any folders below it, named
Y<youtube_id>.wav or <youtube_id>_<start>.wav; those that are not there are listed in OUT/skipped.csv.
"""

import pathlib

from modeling_cnn10bert.data.command_line import finish, preparation_parser, run
from modeling_cnn10bert.data.recipes.audioset import audioset_entries, prepare_audioset, read_labels
from modeling_cnn10bert.data.recipes.youtube import YouTubeFolder


def main(argv: list[str] | None = None) -> None:
    parser = preparation_parser(__doc__)
    parser.add_argument("--segments", type=pathlib.Path, nargs="+", required=True, metavar="CSV", help="segment files")
    parser.add_argument("--labels", type=pathlib.Path, required=True, metavar="CSV", help="class_labels_indices.csv")
    parser.add_argument("--audio", type=pathlib.Path, required=True, metavar="DIR", help="folder of the clips")
    args = parser.parse_args(argv)
    labels, recordings = read_labels(args.labels), YouTubeFolder(args.audio)
    splits = {
        path.stem.removesuffix("_segments").replace("-", "_"): audioset_entries(path, labels, recordings)
        for path in args.segments
    }
    finish(prepare_audioset(splits, args.out, args.num_proc, args.strict))


if __name__ == "__main__":
    run(main)
