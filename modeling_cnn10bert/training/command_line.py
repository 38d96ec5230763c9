"""What the scripts that train have in common: a fault of the input ends them with one line."""

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

RESUME = "--resume_from_checkpoint true"  # with which a training goes on
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
        fault = f"{what} could not be written ({type(error).__name__}: {one_line(error)[:300]})"
        fault = without_secrets(fault)
        print(f"warning: {fault}; the model and its results are whole in {folder}", file=sys.stderr)
        return fault
    return None


def run(main: Callable[[], object], option: str = "") -> None:
    """
    End a script with one line at what is wrong with its input or too large for its device, a full disk, or a signal.

    Args:
        main: of the script.
        option: that its command needs to go on with what was interrupted.
    """
    is_first, is_alone = os.environ.get("RANK", "0") == "0", "RANK" not in os.environ
    # A process of several may wait for the others, where no signal reaches it: the one that started them ends them all.
    with orderly_exit(option=option) if is_alone else contextlib.nullcontext():
        try:
            main()
        except KeyboardInterrupt as error:
            if is_alone:
                raise
            sys.exit(say_interrupted(error, option=option) if is_first else 128 + signal.SIGINT)
        except (RecipeError, PublishError) as error:
            # Every process finds the same fault in the same arguments: the first one says so.
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
            line = f"error: the disk is full ({what}); free some space, then go on with: {command_again(option)}"
            sys.exit(line if is_first else 1)
