"""Progress bars for terminals, notebooks and logs."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm
from tqdm.notebook import tqdm_notebook

LOG_SECONDS = 30.0


def progress_bar(iterable: Iterable | None = None, **options: Any) -> tqdm:
    """
    Make a progress bar with an estimate of the time left.

    In a log, where standard error is neither a terminal nor a notebook, its state is written every `LOG_SECONDS`.

    Args:
        iterable: what to go through, if anything.
        **options: of `tqdm`.
    """
    if not (sys.stderr.isatty() or issubclass(tqdm, tqdm_notebook)):
        options |= {"mininterval": LOG_SECONDS, "maxinterval": LOG_SECONDS, "ascii": True}
    return tqdm(iterable, **options)
