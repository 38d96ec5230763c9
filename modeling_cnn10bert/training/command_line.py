"""Common code of the training scripts; an input error ends them with one line."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable

import torch

from ..errors import InputError, PublishError, RecipeError, one_line
from ..evaluation.metric import DivergedError
from ..files import is_full_disk
from ..interrupts import command_again, orderly_exit, say_interrupted
from ..masking import without_secrets

RESUME = "--resume_from_checkpoint true"  # continues a training
OUT_OF_MEMORY = (
    "the device has too little memory ({error}); lower --total_train_batch_size (or --per_device_eval_batch_size, if "
    "it happened at an evaluation), or set --bf16 true or --gradient_checkpointing true"
)


def write_or_say_why(write: Callable[[], object], what: str, folder: str) -> str | None:
    """
    Write a description of a finished training; an error becomes a one-line warning and does not end the run.

    Args:
        write: writes the description.
        what: name of the description.
        folder: folder of the run.

    Returns:
        The error, or `None`.
    """
    try:
        write()
    except Exception as error:  # any error, because the results of the training must still be reported
        fault = f"{what} could not be written ({type(error).__name__}: {one_line(error)[:300]})"
        fault = without_secrets(fault)
        print(f"warning: {fault}; the model and its results are whole in {folder}", file=sys.stderr)
        return fault
    return None


def run(main: Callable[[], object], option: str = "") -> None:
    """
    Run a script; end it with one line for an input error, a lack of memory, a full disk, or a signal.

    Args:
        main: main function of the script.
        option: option that its command needs to continue an interrupted run.
    """
    is_first, is_alone = os.environ.get("RANK", "0") == "0", "RANK" not in os.environ
    # A process may be waiting for others, where no signal reaches it, so the one that started them ends them all.
    with orderly_exit(option=option) if is_alone else contextlib.nullcontext():
        try:
            main()
        except KeyboardInterrupt as error:
            if is_alone:
                raise
            sys.exit(say_interrupted(error, option=option) if is_first else 128 + signal.SIGINT)
        except (RecipeError, PublishError) as error:
            # Every process finds the same fault in the same arguments, so only the first one reports it.
            sys.exit(f"error: {without_secrets(str(error))}" if is_first else 1)
        except DivergedError as error:
            sys.exit(f"error: the training has diverged: {error}; lower --learning_rate, or clip by --max_grad_norm 1")
        except InputError as error:
            sys.exit(f"error: {without_secrets(str(error))}")
        except torch.OutOfMemoryError as error:
            sys.exit("error: " + OUT_OF_MEMORY.format(error=one_line(error)[:200]))
        except MemoryError as error:
            what = one_line(error)[:200] or "no more to be had"
            sys.exit(f"error: this machine has too little memory ({what}); use shorter recordings, or fewer at once")
        except Exception as error:
            if not is_full_disk(error):
                raise
            what = without_secrets(" ".join(f"{type(error).__name__}: {error}".split()))[:300]
            line = f"error: the disk is full ({what}); free some space, then continue with: {command_again(option)}"
            sys.exit(line if is_first else 1)
