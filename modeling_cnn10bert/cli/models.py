"""Verbs that evaluate, export and publish a model."""

from pathlib import Path
from typing import Annotated

import typer

from ..masking import without_secrets
from .common import (
    Challenge,
    DeviceOption,
    ExportFormat,
    Precision,
    PrecisionOption,
    RemoteCodeOption,
    RevisionOption,
    SourcesOption,
    SplitOption,
    command,
    results_only,
)

MODELS = "Models"


@command(MODELS)
def evaluate(
    model: Annotated[str, typer.Argument(help="Folder or Hub id.", show_default=False)],
    dataset: Annotated[
        str, typer.Argument(help="A prepared data set, a folder, a manifest or a Hub id.", show_default=False)
    ],
    split: SplitOption = None,
    sources: SourcesOption = None,
    audio: Annotated[str | None, typer.Option("--audio", help="The recordings of a file of captions.")] = None,
    out: Annotated[
        str | None, typer.Option("--out", help="The folder to write to; by default below runs/evaluation.")
    ] = None,
    bootstrap_resamples: Annotated[int, typer.Option("--bootstrap-resamples", min=1, max=1_000_000)] = 1000,
    confidence: Annotated[float, typer.Option("--confidence", help="Of the intervals.")] = 0.95,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave recordings out that cannot be used.")
    ] = False,
    device: DeviceOption = None,
    dtype: PrecisionOption = Precision.float32,
    revision: RevisionOption = None,
    trust_remote_code: RemoteCodeOption = False,
) -> None:
    """Measure how well a model finds the recordings of a data set by their captions."""
    from ..errors import RetrievalError
    from ..evaluation.commands import run_evaluate
    from ..files import ADDRESS, check_local_folder

    if out is not None:
        check_local_folder(out, "--out", RetrievalError, marks=(ADDRESS,))
    run_evaluate(
        model,
        dataset,
        split=split,
        sources=sources,
        audio=audio,
        out=out,
        device=device,
        dtype=dtype.value,
        bootstrap_resamples=bootstrap_resamples,
        confidence=confidence,
        seed=seed,
        skip_missing=skip_missing,
        trust_remote_code=trust_remote_code,
        revision=revision,
    )


@command(MODELS)
def submit(
    model: Annotated[str, typer.Argument(help="Folder or Hub id.", show_default=False)],
    dataset: Annotated[
        str | None, typer.Argument(help="As for evaluate; or else --captions and --audio.", show_default=False)
    ] = None,
    format: Annotated[Challenge, typer.Option("--format", help="The challenge.", show_default=False)] = ...,
    out: Annotated[str, typer.Option("--out", help="The CSV file to write.", show_default=False)] = ...,
    split: SplitOption = None,
    sources: SourcesOption = None,
    captions: Annotated[str | None, typer.Option("--captions", help="A CSV file of queries, column caption.")] = None,
    audio: Annotated[str | None, typer.Option("--audio", help="The folder of recordings.")] = None,
    device: DeviceOption = None,
    dtype: PrecisionOption = Precision.float32,
    revision: RevisionOption = None,
    trust_remote_code: RemoteCodeOption = False,
) -> None:
    """Write what the DCASE challenge is handed."""
    from ..errors import RetrievalError
    from ..evaluation.commands import run_submit
    from ..files import ADDRESS, check_local_folder

    check_local_folder(out, "--out", RetrievalError, marks=(ADDRESS,))
    run_submit(
        model,
        dataset,
        format=format.value,
        out=out,
        split=split,
        sources=sources,
        captions=captions,
        audio=audio,
        device=device,
        dtype=dtype.value,
        trust_remote_code=trust_remote_code,
        revision=revision,
    )


@command(MODELS)
def score(
    output: Annotated[str, typer.Argument(help="A file as submit writes it.", show_default=False)],
    captions: Annotated[str, typer.Argument(help="The true captions, CSV.", show_default=False)],
) -> None:
    """Score a challenge's output file against the truth."""
    from ..evaluation.commands import run_score

    run_score(output, captions)


@command(MODELS)
def export(
    model: Annotated[str, typer.Argument(help="Folder or Hub id.", show_default=False)],
    out: Annotated[str, typer.Argument(help="The folder to write.", show_default=False)],
    format: Annotated[ExportFormat, typer.Option("--format")] = ExportFormat.onnx,
    int8: Annotated[
        bool, typer.Option("--int8", help="8-bit weights: smaller and faster, a little less exact.")
    ] = False,
    calibration: Annotated[
        str | None,
        typer.Option("--calibration", help="A folder of recordings; with it, --int8 is for the audio tower too."),
    ] = None,
    revision: RevisionOption = None,
    trust_remote_code: RemoteCodeOption = False,
) -> None:
    """Write a model as ONNX, which index, search and similar take as --model."""
    from ..retrieval.onnx import export_onnx

    with results_only():
        folder = export_onnx(
            model,
            out,
            int8=int8,
            calibration=calibration or (),
            revision=revision,
            trust_remote_code=trust_remote_code,
        )
    typer.echo(str(folder))


@command(MODELS, bars=True)
def publish(
    folder: Annotated[Path, typer.Argument(help="Of a finished run, or of any saved model.", show_default=False)],
    to: Annotated[
        str, typer.Option("--to", help="ORGANISATION/NAME on the Hub, or NAME for your own.", show_default=False)
    ],
    private: Annotated[bool, typer.Option("--private", help="Only for whom it is shared with.")] = False,
    revision: Annotated[
        str | None, typer.Option("--revision", help="The branch, made if missing; by default main.")
    ] = None,
) -> None:
    """Publish a trained model on the Hub in one commit: model, processor, code, card and results."""
    from ..publishing.hub import publish as publish_folder

    with results_only():
        commit = publish_folder(folder, to, private=private or None, revision=revision, field="--to")
    typer.echo(without_secrets(commit.commit_url))
