"""Verbs that train."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from .common import app, command, say

TRAINING = "Train"
# These verbs take a recipe and its fields, hundreds with transformers' own, and explain them by their own --help.
RECIPE_AND_FIELDS = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],
    "token_normalize_func": None,
}


def _run(name: str, context: typer.Context, resume: bool) -> None:
    """Run one of the commands of `training.commands`, which takes the words after the verb."""
    words = context.args
    if not words:
        verb = name.replace("_", "-")
        say(f"error: found no recipe, expected cnn10bert {verb} RECIPE; `cnn10bert recipes` lists those of the package")
        raise typer.Exit(2)
    from ..training import commands
    from ..training.command_line import RESUME, run

    main: Callable[[list[str]], object] = getattr(commands, name)
    run(lambda: main(words), RESUME if resume else "")


@app.command(rich_help_panel=TRAINING, context_settings=RECIPE_AND_FIELDS)
def train(context: typer.Context) -> None:
    """Train a retrieval model from a recipe."""
    _run("train", context, resume=True)


@app.command(rich_help_panel=TRAINING, context_settings=RECIPE_AND_FIELDS)
def train_tagger(context: typer.Context) -> None:
    """Pretrain the audio tower on audio tagging."""
    _run("train_tagger", context, resume=True)


@app.command(rich_help_panel=TRAINING, context_settings=RECIPE_AND_FIELDS)
def search_hyperparameters(context: typer.Context) -> None:
    """Search for the best augmentation settings."""
    _run("search_hyperparameters", context, resume=False)


@command(TRAINING, "recipes")
def recipes() -> None:
    """List the training recipes that come with the package."""
    from ..training.recipe import shipped_recipes

    described = shipped_recipes()
    width = max(map(len, described))
    for name, description in described.items():
        typer.echo(f"{name:{width}}  {description}")


@command(
    TRAINING, "convert-panns models/cnn10", "convert-panns models/cnn10 --checkpoint Cnn10_mAP=0.380.pth", bars=True
)
def convert_panns(
    out: Annotated[Path, typer.Argument(help="New folder for the model.", show_default=False)],
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="PANNs' Cnn10_mAP=0.380.pth. By default, it is downloaded.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="AudioSet's class_labels_indices.csv, to store the class names.")
    ] = None,
    mirror: Annotated[str | None, typer.Option("--mirror", help="Server to download from instead of Zenodo.")] = None,
) -> None:
    """Convert PANNs' Cnn10, pretrained on AudioSet, to a starting point for training."""
    from ..training.panns import MIRROR, convert_panns_checkpoint

    file, model = convert_panns_checkpoint(out, checkpoint, labels, mirror or MIRROR)
    widths = ", ".join(map(str, model.config.hidden_sizes))
    typer.echo(f"{out}: PANNs' Cnn10 of {file}, blocks of {widths} channels, {model.num_labels} classes")


@command(
    TRAINING,
    "convert-aisfx models/aisfx",
    "convert-aisfx models/aisfx --checkpoint aisfx-0.1.2-py2.py3-none-any.whl --n-fft 4096 --hop-length 2048",
)
def convert_aisfx(
    out: Annotated[Path, typer.Argument(help="New folder for the model.", show_default=False)],
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="The wheel of aisfx, or its checkpoint.pth. By default, as installed."),
    ] = None,
    n_fft: Annotated[int, typer.Option("--n-fft", min=2, help="STFT window length, in samples.")] = 1024,
    hop_length: Annotated[int, typer.Option("--hop-length", min=1, help="STFT hop length, in samples.")] = 320,
    num_mel_bins: Annotated[int, typer.Option("--num-mel-bins", min=16, help="Number of mel bins.")] = 64,
) -> None:
    """Convert the convolutions of aisfx, pretrained on sound effects, to a starting point for training."""
    from ..training.aisfx import convert_aisfx_checkpoint

    file, model = convert_aisfx_checkpoint(out, checkpoint, n_fft, hop_length, num_mel_bins)
    widths = ", ".join(map(str, model.config.hidden_sizes))
    typer.echo(f"{out}: the convolutions of {file}, blocks of {widths} channels")
