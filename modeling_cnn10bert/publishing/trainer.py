"""transformers' Trainer, which publishes once, when the run is whole."""

import shlex
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi
from transformers import Trainer

from .access import PublishError
from .preflight import repository_name
from .publish import CARD, publish


class PublishingTrainer(Trainer):
    """
    Of transformers' Trainer, all but how it publishes.

    It would make the repository when it is built, and push every checkpoint and every saved model. Here only
    `push_to_hub` publishes, in one commit.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # The arguments are written beside every checkpoint: the token is kept apart from them.
        self._hub_token, self.args.hub_token = self.args.hub_token, None

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Makes nothing: `push_to_hub` does."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves the model and its processor, and publishes nothing."""
        super().save_model(output_dir, _internal_call=True)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Publishes no checkpoint."""

    def create_model_card(self, *args, **kwargs) -> None:
        """Drafts the card of transformers where the output folder has none; one that is there stays."""
        if not (Path(self.args.output_dir) / CARD).exists():
            super().create_model_card(*args, **kwargs)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs,
    ) -> CommitInfo | Future | None:
        """
        Saves the model and publishes the output folder in one commit; see `publish`.

        Args:
            commit_message, revision, private, token: as for `publish`; by default as the arguments say.
            blocking: whether to return only when it is published.
            **kwargs: for `create_model_card`, where there is no card.

        Returns:
            The commit, or the future of it where `blocking` is off; `None` in all processes but the first.

        Raises:
            PublishError: it could not be published; the model stays in the output folder.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self.save_model()
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**kwargs)
        send = partial(
            publish,
            self.args.output_dir,
            repository_name(self.args),
            token=token or self._hub_token,
            private=self.args.hub_private_repo if private is None else private,
            revision=revision or self.args.hub_revision,
            message=commit_message or "End of training",
        )
        return send() if blocking else HfApi().run_as_future(send)


def push_unless(fault: str | None, trainer: PublishingTrainer) -> None:
    """
    Publish the output folder of a run, unless what belongs to it could not be written.

    Raises:
        PublishError: there is a fault, or it could not be published; the model stays in the output folder.
    """
    if fault is None:
        trainer.push_to_hub()
        return
    folder, name = trainer.args.output_dir, repository_name(trainer.args)
    options = (" --private" if trainer.args.hub_private_repo else "") + (
        f" --revision {shlex.quote(trainer.args.hub_revision)}" if trainer.args.hub_revision else ""
    )
    raise PublishError(
        f"{fault}, so nothing was published; the model is whole in {folder}; look at its folder, then publish it by "
        f"`cnn10bert publish {shlex.quote(folder)} --to {shlex.quote(name)}{options}`"
    )
