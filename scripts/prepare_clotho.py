"""Prepares Clotho v2.1: downloads it from Zenodo, verifies, extracts, resamples.

    python scripts/prepare_clotho.py OUT                   downloads 7 GB to OUT/downloads, extracts them to OUT/audio
    python scripts/prepare_clotho.py OUT --archives DIR    from the archives in DIR; what is not there is downloaded
    python scripts/prepare_clotho.py OUT --audio DIR       from the folders development, validation, evaluation in DIR

Run again, it goes on where it was stopped. When it has ended, OUT/downloads and OUT/audio may be deleted.
"""

import pathlib
import shutil

from modeling_cnn10bert.data.command_line import add_push_to_hub, finish, preparation_parser, run
from modeling_cnn10bert.data.prepare import preparation_folder, prepare_dataset, whole_preparation
from modeling_cnn10bert.data.recipes import clotho


def main(argv: list[str] | None = None) -> None:
    parser = preparation_parser(__doc__)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--archives", type=pathlib.Path, metavar="DIR", help="folder of downloaded archives")
    source.add_argument("--audio", type=pathlib.Path, metavar="DIR", help="folder of extracted archives")
    parser.add_argument(
        "--challenge_test", action="store_true", help="also the test set of DCASE 2022 task 6b, as split challenge_test"
    )
    parser.add_argument("--mirror", default=clotho.MIRROR, metavar="URL", help="server that has Zenodo's files")
    add_push_to_hub(parser)
    args = parser.parse_args(argv)
    out = pathlib.Path(args.out)

    done = whole_preparation(out)
    wanted = {*clotho.SPLITS, *(["challenge_test"] if args.challenge_test else [])}
    if done and not done.skipped and wanted <= set(done.listed) and not args.audio:
        return finish(done, args.push_to_hub)

    with preparation_folder(out):
        downloads = [args.archives, out / "downloads"] if args.archives else [out / "downloads"]
        tables = args.audio
        if not args.audio or not list(args.audio.glob("clotho_captions_*.csv")):
            tables = clotho.fetch_tables(downloads, args.mirror)
        audio = args.audio or out / "audio"
        if not args.audio:
            clotho.fetch_audio(audio, downloads, args.mirror, args.challenge_test)
        splits, columns = clotho.clotho_entries(audio, tables)
        if args.challenge_test:
            metadata = clotho.fetch("retrieval_audio_metadata.csv", downloads, args.mirror)
            splits["challenge_test"] = clotho.challenge_entries(audio / "test", metadata)
            shutil.copy(clotho.fetch("retrieval_captions.csv", downloads, args.mirror), out)
    finish(prepare_dataset(splits, columns, out, args.num_proc, args.strict), args.push_to_hub)


if __name__ == "__main__":
    run(main)
