"""The output folder of a run: never another run's, and resumed from its last complete checkpoint."""

import json
from pathlib import Path

from transformers import TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, sort_checkpoints

from .recipe import RecipeError

# The trainer writes its state last, so a checkpoint that has it is whole.
LAST_FILE_OF_CHECKPOINT = "trainer_state.json"
MARKS_OF_A_FINISHED_RUN = ("all_results.json", "model.safetensors")
MARKS_OF_A_RUN = (*MARKS_OF_A_FINISHED_RUN, f"{PREFIX_CHECKPOINT_DIR}-*")


def checkpoint_to_resume(arguments: TrainingArguments) -> str | None:
    """
    Where training begins: a checkpoint, or `None` for the first step.

    `--resume_from_checkpoint true` takes the last complete checkpoint of the output folder; a run that was killed
    before its first one begins anew, but a finished one that kept none stays as it is. Without it, the output folder
    must not hold a run.

    Raises:
        RecipeError: the output folder holds another run, or the checkpoint to resume is not a complete one.
    """
    resume, folder = arguments.resume_from_checkpoint, Path(arguments.output_dir)
    if resume is None or str(resume).lower() == "false":
        if found := _found(folder, MARKS_OF_A_RUN):
            raise RecipeError(
                f"output_dir {folder} holds another run ({', '.join(found)}); give another --output_dir, or continue "
                "that run with --resume_from_checkpoint true"
            )
        return None
    if str(resume).lower() == "true":
        checkpoints = [path for path in sort_checkpoints(str(folder)) if _is_complete(path)] if folder.is_dir() else []
        if not checkpoints and (found := _found(folder, MARKS_OF_A_FINISHED_RUN)):
            raise RecipeError(
                f"output_dir {folder} holds a finished run ({', '.join(found)}) and no complete checkpoint to resume; "
                "give another --output_dir"
            )
        return checkpoints[-1] if checkpoints else None
    if not _is_complete(resume):
        raise RecipeError(
            f"resume_from_checkpoint {resume} is not a complete checkpoint: it has no whole {LAST_FILE_OF_CHECKPOINT}; "
            "`--resume_from_checkpoint true` takes the last complete one"
        )
    return str(resume)


def _found(folder: Path, marks: tuple[str, ...]) -> list[str]:
    return sorted({path.name for mark in marks for path in folder.glob(mark)})


def _is_complete(checkpoint: str) -> bool:
    try:
        json.loads((Path(checkpoint) / LAST_FILE_OF_CHECKPOINT).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # ValueError: killed while it was written
        return False
    return True
