"""What the scripts that train have in common: a fault of the input ends them with one line."""

import contextlib
import os
import sys
from collections.abc import Callable

import torch

from ..data.audio_io import AudioError
from ..data.entries import PreparationError
from ..data.soundscapes import ManifestError
from ..evaluation.metric import DivergedError
from ..interrupts import orderly_exit
from ..masking import without_secrets
from ..publishing.access import PublishError
from .recipe import RecipeError

OUT_OF_MEMORY = (
    "the device has too little memory ({error}); lower --total_train_batch_size (or --per_device_eval_batch_size, if "
    "it happened at an evaluation), or set --bf16 true or --gradient_checkpointing true"
)


def write_or_say_why(write: Callable[[], object], what: str, folder: str) -> str | None:
    """
    Write what only describes a training that has ended; a fault there is one line, and not the end of the run.

    Args:
        write: writes it.
        what: it is.
        folder: of the run.

    Returns:
        The fault, or `None`.
    """
    try:
        write()
    except Exception as error:  # whatever it is: hours of training are saved, and their results are still to be told
        fault = f"{what} could not be written ({type(error).__name__}: {' '.join(str(error).split())[:300]})"
        fault = without_secrets(fault)
        print(f"warning: {fault}; the model and its results are whole in {folder}", file=sys.stderr)
        return fault
    return None


def run(main: Callable[[], object]) -> None:
    """Runs a script; what is wrong with its input, too large for its device, or a signal, ends it with one line."""
    # A process of several is ended by the one that started it, which waits for none of them.
    with contextlib.nullcontext() if "RANK" in os.environ else orderly_exit():
        try:
            main()
        except (RecipeError, PublishError) as error:
            # Every process finds the same fault in the same arguments: the first one says so.
            sys.exit(f"error: {without_secrets(str(error))}" if os.environ.get("RANK", "0") == "0" else 1)
        except (ManifestError, AudioError, PreparationError) as error:
            sys.exit(f"error: {without_secrets(str(error))}")
        except DivergedError as error:
            sys.exit(f"error: the training has diverged: {error}; lower --learning_rate, or clip by --max_grad_norm 1")
        except torch.OutOfMemoryError as error:
            sys.exit("error: " + OUT_OF_MEMORY.format(error=" ".join(str(error).split())[:200]))
