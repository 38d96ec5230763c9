"""Adds back-translations of its captions to a prepared data set, for training with `p_bt` above 0.

    python scripts/back_translate.py DATASET --languages de fr es

DATASET is a folder written by `save_to_disk` of datasets, with a column `captions`, or a folder of soundscape
manifests (train.jsonl, ...). The models are opus-mt's from the Hub; `--models FOLDER` takes opus-mt-en-de,
opus-mt-de-en, ... from a folder; `--translator apertium` takes the rules of apertium, for Spanish only. Interrupted,
the same command goes on where it was.
"""

import argparse
import sys

from modeling_cnn10bert.augmentation.back_translation import (
    APERTIUM_PAIRS,
    LANGUAGES,
    apertium_pair,
    marian_pair,
    require_language,
)
from modeling_cnn10bert.data.caption_variants import add_back_translations
from modeling_cnn10bert.errors import DataError, InputError
from modeling_cnn10bert.interrupts import orderly_exit
from modeling_cnn10bert.masking import ArgumentParser, without_secrets


def main(argv: list[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", metavar="DATASET", help="folder of the prepared data set")
    parser.add_argument("--languages", nargs="+", required=True, help=f"of {', '.join(LANGUAGES)}")
    parser.add_argument("--splits", nargs="+", default=["train"], help="what to translate; by default train")
    parser.add_argument("--translator", choices=["marian", "apertium"], default="marian")
    parser.add_argument("--models", help="folder of the opus-mt models; by default from the Hub")
    parser.add_argument("--num_beams", type=int, default=4, help="width of the models' beam search; 1 is greedy")
    parser.add_argument("--batch_size", type=int, default=32, help="captions translated together")
    parser.add_argument("--device", help="of the models; by default the accelerator where there is one")
    options = parser.parse_args(argv)

    known = LANGUAGES if options.translator == "marian" else tuple(APERTIUM_PAIRS)
    for language in options.languages:  # before the first hour of work, not after it
        require_language(language, known)
    for name in ("num_beams", "batch_size"):
        if getattr(options, name) < 1:
            raise DataError(f"--{name}: found {getattr(options, name)}, expected at least 1")

    def make_pair(language: str):
        if options.translator == "apertium":
            return apertium_pair(language)
        return marian_pair(language, options.models, options.num_beams, options.device)

    counts = add_back_translations(options.dataset, options.languages, make_pair, options.splits, options.batch_size)
    for language in dict.fromkeys(options.languages):
        if language not in counts:
            print(f"{language}: already there, nothing to do")
            continue
        count = counts[language]
        print(
            f"{language}: {count.captions} different captions, {count.unchanged} came back unchanged, {count.empty} "
            "empty (the caption itself is stored)"
        )


if __name__ == "__main__":
    with orderly_exit():
        try:
            main()
        except InputError as error:
            sys.exit(f"error: {without_secrets(str(error))}")
