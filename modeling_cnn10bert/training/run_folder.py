"""The output folder of a run: never another run's, and resumed from its last complete checkpoint."""

from pathlib import Path

from transformers import TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, sort_checkpoints

from .arguments import RecipeError

# The trainer writes its state last, so a checkpoint that has it is whole.
LAST_FILE_OF_CHECKPOINT = "trainer_state.json"
MARKS_OF_A_RUN = ("all_results.json", "model.safetensors", f"{PREFIX_CHECKPOINT_DIR}-*")


def checkpoint_to_resume(arguments: TrainingArguments) -> str | None:
    """
    Where training begins: a checkpoint, or `None` for the first step.

    `--resume_from_checkpoint true` takes the last complete checkpoint of the output folder; a run that was killed
    before its first one begins anew. Without it, the output folder must not hold a run.

    Raises:
        RecipeError: the output folder holds another run, or the checkpoint to resume is not a complete one.
    """
    resume, folder = arguments.resume_from_checkpoint, Path(arguments.output_dir)
    if resume is None or str(resume).lower() == "false":
        found = sorted({path.name for mark in MARKS_OF_A_RUN for path in folder.glob(mark)})
        if found:
            raise RecipeError(
                f"output_dir {folder} holds another run ({', '.join(found)}); give another --output_dir, or continue "
                "that run with --resume_from_checkpoint true"
            )
        return None
    if str(resume).lower() == "true":
        checkpoints = [path for path in sort_checkpoints(str(folder)) if _is_complete(path)] if folder.is_dir() else []
        return checkpoints[-1] if checkpoints else None
    if not _is_complete(resume):
        raise RecipeError(
            f"resume_from_checkpoint {resume} is not a complete checkpoint: it has no {LAST_FILE_OF_CHECKPOINT}; "
            "`--resume_from_checkpoint true` takes the last complete one"
        )
    return str(resume)


def _is_complete(checkpoint: str) -> bool:
    return (Path(checkpoint) / LAST_FILE_OF_CHECKPOINT).is_file()
