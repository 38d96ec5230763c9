"""Prepares your own recordings for training.

    python scripts/prepare_folder.py OUT FOLDER          metadata.csv or .jsonl with file_name and caption or captions
    python scripts/prepare_folder.py OUT SOURCE --audio_column sound --caption_column text [more ...]
                                                         a data set on disk or on the Hub, by the names of its columns

FOLDER may hold folders train, validation and test, each with its metadata, or one metadata file above them. Of splits
that are missing, the shares `--validation` and `--test` of the training recordings are drawn.
"""

from modeling_cnn10bert.data.command_line import add_push_to_hub, finish, preparation_parser, run
from modeling_cnn10bert.data.prepare import prepare_dataset
from modeling_cnn10bert.data.recipes.audio_folder import own_recordings


def main(argv: list[str] | None = None) -> None:
    parser = preparation_parser(__doc__)
    parser.add_argument("source", metavar="SOURCE", help="folder with metadata, data set on disk, or Hub id")
    parser.add_argument("--audio_column", default="audio", help="column of a data set's recordings")
    parser.add_argument("--caption_column", nargs="+", default=[], help="columns of the captions")
    parser.add_argument(
        "--validation", type=float, default=0.1, help="share of recordings, where there is no such split"
    )
    parser.add_argument("--test", type=float, default=0.1, help="share of recordings, where there is no such split")
    parser.add_argument(
        "--allow_outside", action="store_true", help="rows may name recordings outside SOURCE, which are stored too"
    )
    add_push_to_hub(parser)
    args = parser.parse_args(argv)
    shares = {"validation": args.validation, "test": args.test}
    splits, columns = own_recordings(args.source, args.audio_column, args.caption_column, shares, args.allow_outside)
    finish(prepare_dataset(splits, columns, args.out, args.num_proc, args.strict), args.push_to_hub)


if __name__ == "__main__":
    run(main)
