"""Verbs that evaluate, export and publish a model."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..masking import without_secrets
from .common import (
    INDEX_VARIABLE,
    DeviceOption,
    PrecisionOption,
    RemoteCodeOption,
    RevisionOption,
    SourcesOption,
    SplitOption,
    command,
    results_only,
    say,
)

MODELS = "Models"


@command(MODELS, "evaluate runs/mine data/mine", "evaluate runs/mine clotho_captions_evaluation.csv --audio evaluation")
def evaluate(
    model: Annotated[str, typer.Argument(help="Model folder or Hub id.", show_default=False)],
    dataset: Annotated[
        str, typer.Argument(help="Data set folder, Hub id, or CSV file of captions with --audio.", show_default=False)
    ],
    split: SplitOption = None,
    sources: SourcesOption = None,
    audio: Annotated[
        str | None, typer.Option("--audio", help="Folder of the recordings for a CSV file of captions.")
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", help="Folder to write to. By default, a new subfolder of runs/evaluation.")
    ] = None,
    bootstrap_resamples: Annotated[
        int, typer.Option("--bootstrap-resamples", min=1, max=1_000_000, help="Number of bootstrap samples.")
    ] = 1000,
    confidence: Annotated[float, typer.Option("--confidence", help="Level of the confidence intervals.")] = 0.95,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed of the bootstrap.")] = 0,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Skip recordings that cannot be read instead of failing.")
    ] = False,
    device: DeviceOption = None,
    dtype: PrecisionOption = "float32",
    revision: RevisionOption = None,
    trust_remote_code: RemoteCodeOption = False,
) -> None:
    """Evaluate a model on text-to-audio and audio-to-text retrieval.

    Recall, mAP and median rank are printed with confidence intervals.
    The output folder will contain results.json, ranks.csv and metrics.png.
    """
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
        dtype=dtype,
        bootstrap_resamples=bootstrap_resamples,
        confidence=confidence,
        seed=seed,
        skip_missing=skip_missing,
        trust_remote_code=trust_remote_code,
        revision=revision,
    )


@command(
    MODELS,
    "submit runs/mine data/clotho --format dcase2022 --out submission.csv",
    "submit runs/mine --captions queries.jsonl --audio DIR \\\n  --format dcase2026 --out submission.jsonl",
    "submit runs/mine --captions queries.csv --audio DIR \\\n  --format dcase2022 --out submission.csv",
)
def submit(
    model: Annotated[str, typer.Argument(help="Model folder or Hub id.", show_default=False)],
    dataset: Annotated[
        str | None, typer.Argument(help="As for evaluate, or use --captions and --audio.", show_default=False)
    ] = None,
    format: Annotated[
        Literal["dcase2022", "dcase2025", "dcase2026"],
        typer.Option("--format", help="Submission format.", show_default=False),
    ] = ...,
    out: Annotated[str, typer.Option("--out", help="File to write. It must not exist.", show_default=False)] = ...,
    split: SplitOption = None,
    sources: SourcesOption = None,
    captions: Annotated[
        str | None,
        typer.Option("--captions", help="CSV file of queries, column caption. For dcase2026, its .jsonl file."),
    ] = None,
    audio: Annotated[str | None, typer.Option("--audio", help="Folder of recordings.")] = None,
    device: DeviceOption = None,
    dtype: PrecisionOption = "float32",
    revision: RevisionOption = None,
    trust_remote_code: RemoteCodeOption = False,
) -> None:
    """Write retrieval results in the submission format of a DCASE challenge."""
    from ..errors import RetrievalError
    from ..evaluation.commands import run_submit
    from ..files import ADDRESS, check_local_folder

    check_local_folder(out, "--out", RetrievalError, marks=(ADDRESS,))
    run_submit(
        model,
        dataset,
        format=format,
        out=out,
        split=split,
        sources=sources,
        captions=captions,
        audio=audio,
        device=device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        revision=revision,
    )


@command(MODELS, "score submission.csv clotho_captions_evaluation.csv")
def score(
    output: Annotated[str, typer.Argument(help="Submission file, as written by submit.", show_default=False)],
    captions: Annotated[
        str, typer.Argument(help="Ground truth, such as clotho_captions_evaluation.csv.", show_default=False)
    ],
) -> None:
    """Score a submission file against the ground truth, as the challenge does."""
    from ..evaluation.commands import run_score

    run_score(output, captions)


@command(
    MODELS,
    "benchmark YOUR_NAME/my-sounds",
    "benchmark runs/mine --tasks ClothoT2ARetrieval.v2 --tasks ESC50_Zeroshot",
    "benchmark runs/mine --data data/mine",
    "benchmark YOUR_NAME/my-sounds --entry ENTRY.py",
    bars=True,
)
def benchmark(
    model: Annotated[str, typer.Argument(help="Model folder or Hub id.", show_default=False)],
    tasks: Annotated[
        list[str] | None,
        typer.Option("--tasks", help="Task or benchmark of mteb, such as MAEB. Can be repeated.", show_default=False),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Data set folder, Hub id, or CSV file of captions with --audio.")
    ] = None,
    split: SplitOption = None,
    sources: SourcesOption = None,
    audio: Annotated[
        str | None, typer.Option("--audio", help="Folder of the recordings for a CSV file of captions.")
    ] = None,
    out: Annotated[str, typer.Option("--out", help="Folder for the results, in mteb's layout.")] = "runs/benchmark",
    entry: Annotated[
        str | None, typer.Option("--entry", help="Python file to write the model's mteb entry to. No task is run.")
    ] = None,
    device: DeviceOption = None,
    revision: RevisionOption = None,
    trust_remote_code: RemoteCodeOption = False,
) -> None:
    """Evaluate a model on the audio tasks of mteb (MAEB).

    By default, the tasks of retrieving sounds by English texts, and texts by sounds.
    mteb downloads their data from the Hub. Finished tasks are not run again.
    With --data, the tasks are text-to-audio and audio-to-text retrieval on this data set.
    """
    from ..errors import RetrievalError
    from ..files import ADDRESS, check_local_folder
    from ..integrations.mteb import model_meta, run_benchmark, write_entry

    if entry is not None:
        check_local_folder(entry, "--entry", RetrievalError, marks=(ADDRESS,))
        write_entry(model_meta(model, revision=revision, trust_remote_code=trust_remote_code), entry)
        typer.echo(entry)
        return
    check_local_folder(out, "--out", RetrievalError, marks=(ADDRESS,))
    run_benchmark(
        model,
        tasks=tasks or (),
        data=data,
        split=split,
        sources=sources,
        audio=audio,
        out=out,
        device=device,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )


@command(
    MODELS,
    "export runs/demo runs/demo_onnx",
    "export runs/demo runs/demo_int8 --int8 --calibration ~/sounds",
    "export runs/demo --web page --index sounds.index",
)
def export(
    model: Annotated[str, typer.Argument(help="Model folder or Hub id.", show_default=False)],
    out: Annotated[
        str | None, typer.Argument(help="Folder to write. An earlier export is replaced.", show_default=False)
    ] = None,
    format: Annotated[Literal["onnx"], typer.Option("--format", help="Format of the export.")] = "onnx",
    int8: Annotated[
        bool, typer.Option("--int8", help="Use 8-bit weights: smaller and faster, but slightly less accurate.")
    ] = False,
    calibration: Annotated[
        str | None,
        typer.Option(
            "--calibration", help="Folder of recordings, with which --int8 or --web quantizes the audio tower too."
        ),
    ] = None,
    web: Annotated[
        str | None,
        typer.Option(
            "--web", help="Folder to write instead: a search page that runs in the browser, without a server."
        ),
    ] = None,
    index: Annotated[
        str, typer.Option("--index", help="Index that the page of --web searches.", envvar=INDEX_VARIABLE)
    ] = "sounds.index",
    with_sounds: Annotated[
        bool, typer.Option("--with-sounds", help="Copy the recordings into the page, which then plays them.")
    ] = False,
    runtime: Annotated[
        str | None,
        typer.Option(
            "--runtime",
            help="Folder of npm packages for --web, fetched by npm if missing. By default, ~/.cache/cnn10bert/npm.",
        ),
    ] = None,
    revision: RevisionOption = None,
    trust_remote_code: RemoteCodeOption = False,
) -> None:
    """Export a model to ONNX, or as a static search page.

    An ONNX folder can be used as --model for index, search and similar.
    The page of --web always has an 8-bit text tower.
    """
    if (out is None) == (web is None):
        raise typer.BadParameter("expected either OUT or --web, found " + ("both" if out else "neither"))
    if web is None and (with_sounds or runtime is not None):
        raise typer.BadParameter("expected --with-sounds and --runtime only with --web")
    if web is not None:
        say("Exporting the model ...")
        from ..integrations.web import export_web, megabytes

        with results_only():
            folder = export_web(
                model,
                web,
                index,
                with_sounds=with_sounds,
                runtime=runtime,
                calibration=calibration or (),
                revision=revision,
                trust_remote_code=trust_remote_code,
            )
        typer.echo(f"{folder}: {megabytes(folder):.1f} MB; try it by `python -m http.server --directory {folder}`")
        typer.echo(f"publish it by `hf upload ACCOUNT/NAME {folder} . --repo-type space`")
        return
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


@command(MODELS, "publish runs/mine --to my-sounds", "publish runs/mine --to TEAM/my-sounds --private", bars=True)
def publish(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run or of a saved model.", show_default=False)],
    to: Annotated[
        str, typer.Option("--to", help="Hub repository: ORGANIZATION/NAME, or NAME for your own.", show_default=False)
    ],
    private: Annotated[bool, typer.Option("--private", help="Create a private repository.")] = False,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Branch, created if missing. By default, main.")
    ] = None,
) -> None:
    """Upload a model to the Hub in one commit, with its processor, code, model card and results."""
    from ..publishing.hub import publish as publish_folder

    with results_only():
        commit = publish_folder(folder, to, private=private or None, revision=revision, field="--to")
    typer.echo(without_secrets(commit.commit_url))
