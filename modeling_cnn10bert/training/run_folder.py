"""The output folder of a run: protect it from other runs, and find the checkpoint to resume from."""

import contextlib
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import filelock
from transformers import TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, sort_checkpoints

from ..adapters import ADAPTER_WEIGHTS
from ..errors import RecipeError
from ..files import UNFINISHED, is_full_disk

# The trainer writes its state last, so a checkpoint that has it was complete; a deletion may have removed other files.
LAST_FILE_OF_CHECKPOINT = "trainer_state.json"
# A run with `lora_rank` has an adapter in place of the model.
OTHER_FILES_OF_CHECKPOINT = ("model.safetensors", "optimizer.pt", "scheduler.pt")
LOCK = ".lock"
WAIT_SECONDS = 10  # the data loader's workers of a killed run hold its lock for five more
MARKS_OF_A_FINISHED_RUN = ("all_results.json", "model.safetensors")
MARK_OF_A_SEARCH = "search.json"
MARKS_OF_A_RUN = (*MARKS_OF_A_FINISHED_RUN, f"{PREFIX_CHECKPOINT_DIR}-*")

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def sole_run(arguments: TrainingArguments) -> Iterator[None]:
    """
    Lock the output folder against other runs in the block, and delete unfinished files of a killed run.

    If several processes train together, the first one does so.

    Raises:
        RecipeError: another run is using the folder.
    """
    if arguments.process_index:
        yield
        return
    folder = Path(arguments.output_dir)
    with locked(folder):
        for part in (folder, folder / ".eval_results"):
            for path in part.glob(".*.tmp"):  # of earlier versions
                path.unlink(missing_ok=True)
            for path in part.glob(f".*{UNFINISHED}*"):  # see `replaced_whole`; no other run is active here
                shutil.rmtree(path, ignore_errors=True)
        yield


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """
    Hold the lock of an output folder in the block; the end of the process releases it too.

    A new folder is deleted again if nothing was written to it.

    Raises:
        RecipeError: another process holds the lock, or the folder cannot be made.
    """
    try:
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        if is_full_disk(error):
            raise
        raise RecipeError(
            f"output_dir {str(folder)[:300]}: found {str(error)[:300]}, expected a folder, or the name of a new one; "
            "give another output_dir"
        ) from error
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=WAIT_SECONDS)
    except filelock.Timeout as error:
        raise RecipeError(
            f"output_dir {folder}: found another run at work in it, expected none; wait for its end, or give another "
            "output_dir"
        ) from error
    except NotImplementedError:  # the file system has no locks
        logger.warning("%s cannot be locked; do not start a second run there", folder)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if is_new and [path.name for path in folder.iterdir()] == [LOCK]:
                (folder / LOCK).unlink()
                folder.rmdir()
        lock.release()


def checkpoint_to_resume(arguments: TrainingArguments) -> str | None:
    """
    Find the checkpoint to resume training from; `None` starts at the first step.

    `--resume_from_checkpoint true` takes the last complete checkpoint of the output folder. A run that was killed
    before its first checkpoint starts again, but a finished one without checkpoints is refused. Without this option,
    the output folder must not hold a run.

    Raises:
        RecipeError: the output folder holds another run or a search, or the checkpoint to resume is not complete.
    """
    resume, folder = arguments.resume_from_checkpoint, Path(arguments.output_dir)
    if (folder / MARK_OF_A_SEARCH).exists():
        raise RecipeError(f"output_dir {folder} holds a search ({MARK_OF_A_SEARCH}); give another output_dir")
    if resume is None or str(resume).lower() == "false":
        if found := _found(folder, MARKS_OF_A_RUN):
            raise RecipeError(
                f"output_dir {folder} holds another run ({', '.join(found)}); give another output_dir, or continue "
                "that run with resume_from_checkpoint true"
            )
        return None
    if str(resume).lower() == "true":
        checkpoints = [path for path in sort_checkpoints(str(folder)) if _is_complete(path)] if folder.is_dir() else []
        if not checkpoints and (found := _found(folder, MARKS_OF_A_FINISHED_RUN)):
            raise RecipeError(
                f"output_dir {folder} holds a finished run ({', '.join(found)}) and no complete checkpoint to resume; "
                "give another output_dir"
            )
        return checkpoints[-1] if checkpoints else None
    if not _is_complete(resume):
        raise RecipeError(
            f"resume_from_checkpoint {resume} is not a complete checkpoint: expected {LAST_FILE_OF_CHECKPOINT}, whole, "
            f"and {', '.join(OTHER_FILES_OF_CHECKPOINT)}; resume_from_checkpoint true takes the last complete one"
        )
    return str(resume)


def step_of(checkpoint: str) -> int:
    """Read the number of steps of a checkpoint."""
    return json.loads((Path(checkpoint) / LAST_FILE_OF_CHECKPOINT).read_text(encoding="utf-8"))["global_step"]


def _found(folder: Path, marks: tuple[str, ...]) -> list[str]:
    return sorted({path.name for mark in marks for path in folder.glob(mark)})


def _is_complete(checkpoint: str) -> bool:
    try:
        json.loads((Path(checkpoint) / LAST_FILE_OF_CHECKPOINT).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # ValueError: the run was killed while writing it
        return False
    weights, *others = OTHER_FILES_OF_CHECKPOINT
    has_weights = any((Path(checkpoint) / name).is_file() for name in (weights, ADAPTER_WEIGHTS))
    return has_weights and all((Path(checkpoint) / name).is_file() for name in others)
