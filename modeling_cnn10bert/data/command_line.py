"""What the scripts that prepare data sets have in common."""

import argparse
import os
import sys
from collections.abc import Callable

import datasets

from ..errors import DataError, InputError, one_line
from ..files import check_local_folder
from ..interrupts import orderly_exit
from ..masking import ArgumentParser, without_secrets
from .prepare import Preparation


def preparation_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser of OUT and of the fields that every preparation takes."""
    parser = ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT", type=_local_folder, help="folder of the prepared data set")
    parser.add_argument(
        "--num_proc",
        type=_positive,
        default=len(os.sched_getaffinity(0)),
        help="processes that decode; by default, all cores",
    )
    parser.add_argument("--strict", action="store_true", help="end with an error where a recording must be left out")
    return parser


def _local_folder(text: str) -> str:
    check_local_folder(text, "OUT", argparse.ArgumentTypeError)
    return text


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"found {value}, expected at least 1")
    return value


def add_push_to_hub(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--push_to_hub", metavar="REPO", help="also upload it to the Hub, as a private data set")


def finish(result: Preparation, push_to_hub: str | None = None) -> None:
    """
    Says what was prepared, and uploads it where that was asked for.

    Raises:
        DataError: it could not be uploaded; what was prepared stays.
    """
    print(result)
    if push_to_hub:
        try:  # private: most recordings may be used, but not be given on
            datasets.load_from_disk(result.folder).push_to_hub(push_to_hub, private=True)
        except Exception as error:  # of the Hub, the connection or the HTTP library of the day: what is whole stays
            raise DataError(
                f"{result.folder} is prepared, but could not be uploaded to {push_to_hub} "
                f"({one_line(error)}); check the name and your login (`hf auth login`), and run the "
                "command again: it only uploads"
            ) from error


def run(main: Callable[[], None]) -> None:
    """Runs a script; what is wrong with its input, or a signal, ends it with one line."""
    with orderly_exit():
        try:
            main()
        except InputError as error:
            sys.exit(f"error: {without_secrets(str(error))}")
