"""Publish a run: pass plain values from its recipe and trainer to `publishing`."""

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import TrainingArguments

from ..errors import PublishError
from ..files import write_text
from ..publishing.card import write_card_of_run
from ..publishing.facts import FACTS, collect_facts, published_fields, without_folders
from ..publishing.hub import check_access, publish_command, repository_name
from .arguments import ARGUMENT_CLASSES, field_defaults
from .build import RecordingTables
from .command_line import write_or_say_why
from .recipe import RECIPES, find_recipe, given_fields
from .trainer import KeyedTrainer, RetrievalTrainer


def check_before_training(arguments: TrainingArguments) -> None:
    """
    Check with `--push_to_hub` that the model can be published after training; otherwise do nothing.

    `hub_model_id` becomes the repository's name with its namespace, which opens the model in the card. The first of
    several processes asks the Hub and tells the others, so that all of them end.

    Raises:
        PublishError: the model could not be published.
    """
    if not arguments.push_to_hub:
        return
    found: list = [None, None]  # the name, or an error
    if arguments.process_index == 0:
        try:
            found[0] = check_access(
                repository_name(arguments.hub_model_id, arguments.output_dir),
                token=arguments.hub_token,
                private=arguments.hub_private_repo,
                revision=arguments.hub_revision,
            )
        except PublishError as error:
            found[1] = str(error)
    broadcast_object_list(found)
    arguments.hub_model_id, fault = found
    if fault is not None:
        raise PublishError(f"{fault} (nothing was trained)")


def write_model_card(
    trainer: RetrievalTrainer,
    tables: RecordingTables,
    argv: Sequence[str] | None = None,
    *,
    code: Mapping[str, Any] | None = None,
) -> Path:
    """
    Write OUTPUT_DIR/run_facts.json, OUTPUT_DIR/.eval_results and, last, the card OUTPUT_DIR/README.md.

    Call it on the main process, after training and when all results are in all_results.json. Each file is written
    atomically.

    Args:
        trainer, tables: from `build_trainer`.
        argv: arguments of `parse_recipe`; `None` for those of the process.
        code: `code_version` at the beginning of the run; by default the current one.

    Returns:
        The path of the card.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    given = given_fields(words)
    model_id = without_folders(trainer.args.output_dir.rstrip("/\\"))
    if trainer.args.push_to_hub or trainer.args.hub_model_id:
        model_id = repository_name(trainer.args.hub_model_id, trainer.args.output_dir)
    facts = collect_facts(
        trainer.args,
        trainer.state,
        trainer.model,
        trainer.processing_class,
        model_id=model_id,
        fields=field_defaults(ARGUMENT_CLASSES) | given,
        given=given,
        recipe=recipe_facts(words, trainer.args.world_size),
        tables=vars(tables),
        resumed_from_step=trainer.resumed_from_step,
        code=code,
    )
    write_text(Path(trainer.args.output_dir) / FACTS, json.dumps(facts, indent=2) + "\n")
    return write_card_of_run(trainer.args.output_dir)


def recipe_facts(words: Sequence[str], num_processes: int) -> dict[str, str | None]:
    """Return the recipe's name, if there is one, and the command that repeats the run."""
    command, fields, recipe = "cnn10bert train", given_fields(words), None
    if num_processes > 1:
        command = f"accelerate launch --multi_gpu --num_processes {num_processes} train_retrieval.py"
    if words and not words[0].startswith("-"):
        recipe = find_recipe(words[0])
        own = given_fields(words[:1])
        fields = {name: value for name, value in fields.items() if name not in own or own[name] != value}
        command += f" {recipe.stem if recipe.parent == RECIPES else shlex.quote(recipe.name)}"
    options = [_option(name, value) for name, value in published_fields(fields).items()]
    return {"recipe": recipe.stem if recipe else None, "command": " ".join([command, *options])}


def _option(name: str, value: Any) -> str:
    if isinstance(value, bool):
        value = str(value).lower()
    words = value if isinstance(value, list) else [json.dumps(value) if isinstance(value, dict) else value]
    return f"--{name} {' '.join(shlex.quote(str(word)) for word in words)}"


def finish_run(trainer: KeyedTrainer, describe: Callable[[], object], what: str) -> None:
    """
    Write the description of a finished training, and publish the run if requested.

    An error in the description does not end the run, but the run is then not published.

    Args:
        trainer: after training and scoring.
        describe: writes the description.
        what: name of the description.

    Raises:
        PublishError: there was an error, or the run could not be published; the model stays in the output folder.
    """
    args, fault = trainer.args, None
    if args.do_train and trainer.is_world_process_zero():
        fault = write_or_say_why(describe, what, args.output_dir)
    if not args.push_to_hub:
        return
    if fault is not None:
        name = repository_name(args.hub_model_id, args.output_dir)
        command = publish_command(args.output_dir, name, args.hub_private_repo, args.hub_revision)
        raise PublishError(
            f"{fault}, so nothing was published; the model is whole in {args.output_dir}; look at its folder, then "
            f"publish it by `{command}`"
        )
    trainer.push_to_hub()
