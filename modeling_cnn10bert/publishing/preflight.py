"""What a training that will be published asks before its first step."""

from pathlib import Path

from accelerate.utils import broadcast_object_list
from transformers import TrainingArguments

from .access import PublishError, check_access


def check_before_training(arguments: TrainingArguments) -> None:
    """
    With `--push_to_hub`, makes sure that the model can be published when it is trained; otherwise does nothing.

    `hub_model_id` becomes the name of the repository with its namespace, by which the card opens the model. Of several
    processes, the first asks the Hub and tells the others, so that all of them end.

    Raises:
        PublishError: it could not be published.
    """
    if not arguments.push_to_hub:
        return
    found: list = [None, None]  # the name, or else what is wrong
    if arguments.process_index == 0:
        try:
            found[0] = check_access(
                repository_name(arguments),
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


def repository_name(arguments: TrainingArguments) -> str:
    """`--hub_model_id`, or else the name of the output folder."""
    return arguments.hub_model_id or Path(arguments.output_dir).absolute().name
