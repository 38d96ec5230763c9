"""What the scripts that train have in common: a fault of the input ends them with one line."""

import os
import sys
from collections.abc import Callable

import torch

from ..data.audio_io import AudioError
from ..data.entries import PreparationError
from ..data.soundscapes import ManifestError
from ..publishing.access import PublishError
from .recipe import RecipeError

OUT_OF_MEMORY = (
    "the device has too little memory ({error}); lower --total_train_batch_size (or --per_device_eval_batch_size, if "
    "it happened at an evaluation), or set --bf16 true or --gradient_checkpointing true"
)


def run(main: Callable[[], object]) -> None:
    """Runs a script; what is wrong with its input, or too large for its device, ends it with one line."""
    try:
        main()
    except (RecipeError, PublishError) as error:
        # Every process finds the same fault in the same arguments: the first one says so.
        sys.exit(f"error: {error}" if os.environ.get("RANK", "0") == "0" else 1)
    except (ManifestError, AudioError, PreparationError) as error:
        sys.exit(f"error: {error}")
    except torch.OutOfMemoryError as error:
        sys.exit("error: " + OUT_OF_MEMORY.format(error=" ".join(str(error).split())[:200]))
