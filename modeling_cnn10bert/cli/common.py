"""Parts of all verbs of the command `cnn10bert`: how it ends, shared options, and where results go."""

import contextlib
import datetime
import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .. import __version__
from ..errors import InputError, one_line
from ..files import replaced_whole
from ..interrupts import say_interrupted, signals_as_interrupts
from ..masking import without_secrets

# Everything else is imported by the command that needs it, so that help and errors of usage come at once.
if TYPE_CHECKING:
    pass

MODEL_VARIABLE, INDEX_VARIABLE = "CNN10BERT_MODEL", "CNN10BERT_INDEX"
ENDINGS = {".json": "json", ".csv": "csv", ".m3u": "m3u", ".m3u8": "m3u"}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cnn10bert {__version__}")
        raise typer.Exit


class Commands(typer.core.TyperGroup):
    """Print what is wrong with a command line, without its secrets."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except Exception as error:
            if isinstance(message := getattr(error, "message", None), str):  # an error of usage
                error.message = without_secrets(message)
            raise


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # An option may also be written with underscores, as in recipes.
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda name: name.replace("_", "-"),
    },
)


@app.callback(
    help="Search audio files by text or by sound. Train, evaluate and publish retrieval models.",
    epilog='Examples:\n  cnn10bert index ~/sounds --model runs/demo\n  cnn10bert search "rain on a roof"',
)
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


Output = Literal["table", "json", "csv", "m3u", "audacity", "raven"]
TableOutput = Literal["table", "json", "csv"]
Precision = Literal["float32", "bfloat16"]
Backend = Literal["auto", "torch", "onnx"]

IndexOption = Annotated[
    str,
    typer.Option(
        "--index", help="Folder of the index, Milvus Lite file (.db) or Milvus server URL.", envvar=INDEX_VARIABLE
    ),
]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="Model folder or Hub id. By default, the model of the index.")
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="Device, such as cpu or cuda:1. By default, a GPU if available.")
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--dtype",
        help="Data type for inference. bfloat16 is much slower than float32 on CPUs without AVX512-BF16 or AMX.",
    ),
]
BackendOption = Annotated[
    Backend, typer.Option("--backend", help="Inference backend. auto selects onnx for exported models.")
]
RemoteCodeOption = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code from the model folder or repository.")
]
RevisionOption = Annotated[
    str | None, typer.Option("--revision", help="Branch, tag or commit of the model on the Hub.")
]
SplitOption = Annotated[str | None, typer.Option("--split", help="Split of the data set. By default, test.")]
SourcesOption = Annotated[
    str | None, typer.Option("--sources", help="Folder of the recordings that the soundscapes are mixed from.")
]
TopOption = Annotated[int, typer.Option("--top", "-k", min=1, help="Maximum number of recordings to return.")]
WithoutOption = Annotated[
    list[str] | None, typer.Option("--without", help="Sound to avoid in the results, such as speech. Can be repeated.")
]
MinScoreOption = Annotated[float | None, typer.Option("--min-score", help="Leave out results with a lower score.")]
MinDurationOption = Annotated[float | None, typer.Option("--min-duration", help="Minimum duration in seconds.")]
MaxDurationOption = Annotated[float | None, typer.Option("--max-duration", help="Maximum duration in seconds.")]
FolderOption = Annotated[
    list[Path] | None, typer.Option("--folder", help="Search only in this folder and its subfolders. Can be repeated.")
]
FormatOption = Annotated[
    list[str] | None, typer.Option("--format", help="Search only files of this type, such as wav. Can be repeated.")
]
AfterOption = Annotated[
    datetime.datetime | None,
    typer.Option(
        "--after",
        metavar="YYYY-MM-DD",
        help="Search only files modified on or after a date, such as 2026-01-31 or 2026-01-31T18:30:00.",
        show_default=False,
    ),
]
BeforeOption = Annotated[
    datetime.datetime | None,
    typer.Option(
        "--before",
        metavar="YYYY-MM-DD",
        help="Search only files modified before a date, such as 2026-01-31.",
        show_default=False,
    ),
]
TagsOption = Annotated[
    Path | None, typer.Option("--tags", help="Text file with one label per line. Adds the best label to each result.")
]
OutputOption = Annotated[
    Output | None, typer.Option("--output", help="Output format. By default, from the --out extension, or table.")
]
TableOutputOption = Annotated[
    TableOutput | None, typer.Option("--output", help="Output format. By default, from the --out extension, or table.")
]
OutOption = Annotated[Path | None, typer.Option("--out", help="File to write instead of standard output.")]


def command(
    panel: str, *examples: str, parent: typer.Typer = app, bars: bool = False, advice: str = "run it again with"
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """
    Register a function as a verb. Wrong input ends it with one line, and so does a signal.

    Args:
        panel: of the verbs in `--help`.
        examples: command lines without `cnn10bert`, shown at the end of the verb's `--help`.
        parent: `app`, or the group of the verb.
        bars: whether libraries may show their progress bars.
        advice: how to put it to a user who interrupted the command that it can be run again.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(*args, **kwargs) -> None:
            try:
                with signals_as_interrupts(), _quiet(bars):
                    function(*args, **kwargs)
            except KeyboardInterrupt as error:
                raise typer.Exit(say_interrupted(error, advice)) from None
            except InputError as error:
                say_error(error)
                raise typer.Exit(1) from error

        epilog = "\n".join(["Examples:", *(f"  cnn10bert {line}" for line in examples)])
        return parent.command(rich_help_panel=panel, epilog=epilog)(run)

    return decorate


def say_error(error: Exception) -> None:
    say(f"error: {without_secrets(one_line(error))}")


def say(line: str) -> None:
    """Write a line to standard error, with names that are not UTF-8 escaped."""
    typer.echo(line.encode("utf-8", "backslashreplace").decode("utf-8"), err=True)


@contextlib.contextmanager
def _quiet(bars: bool) -> Iterator[None]:
    """Silence the reports of libraries, except warnings about the user's query or index."""
    os.environ.setdefault("LANCEDB_LOG", "error")  # read when lancedb is imported
    with _quiet_transformers(bars), warnings.catch_warnings():
        warnings.showwarning = _show_warning
        yield


@contextlib.contextmanager
def _quiet_transformers(bars: bool) -> Iterator[None]:
    if "transformers" not in sys.modules:  # it reads these when it is imported, if it is
        os.environ["TRANSFORMERS_VERBOSITY"] = "error"
        if not bars:
            os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
        yield
        return
    from transformers.utils import logging

    verbosity, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()


def _show_warning(message: Warning | str, category: type[Warning], *_) -> None:
    from ..retrieval.moments import MomentsWarning
    from ..retrieval.retriever import RetrievalWarning

    if issubclass(category, RetrievalWarning | MomentsWarning):
        say(f"warning: {without_secrets(str(message))}")


def warn_of_slow_bfloat16(precision: Precision, device: str | None) -> None:
    """Warn if bfloat16 would run on a CPU without instructions for it."""
    if precision != "bfloat16":
        return
    import torch

    on_cpu = device == "cpu" or (device is None and not torch.cuda.is_available())
    cpuinfo = Path("/proc/cpuinfo")
    if on_cpu and cpuinfo.is_file() and not {"avx512_bf16", "amx_bf16", "bf16"} & set(cpuinfo.read_text().split()):
        say("warning: this CPU has neither AVX512-BF16 nor AMX: bfloat16 can be 14 times slower than float32")


@contextlib.contextmanager
def results_only() -> Iterator[None]:
    """Redirect the output of libraries to standard error. Standard output is for results."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def output_form(output: Output | None, out: Path | None) -> str:
    if output is None and out is not None and out.name.lower().endswith((".labels.txt", ".selections.txt")):
        return "audacity" if out.name.lower().endswith(".labels.txt") else "raven"
    return output or (ENDINGS.get(out.suffix.lower(), "table") if out is not None else "table")


def write_rows(
    nested, rows: list[dict], columns: list[str], table: Callable, output: TableOutput | None, out: Path | None
) -> None:
    """Write a result that is not a list of hits: `nested` as JSON, `rows` as CSV."""
    from ..retrieval import listing

    form = output_form(output, out)
    if form == "table" and out is None:
        if rows:
            listing.print_table(table())
    elif form == "json":
        write_result(listing.to_json(nested), out)
    elif form == "csv":
        write_result(listing.to_csv(rows, columns), out)
    else:
        write_result(listing.table_text(table()).encode("utf-8", "backslashreplace"), out)


def write_result(content: bytes, out: Path | None) -> None:
    """Write a result to standard output, or to a file that appears when it is complete."""
    if out is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    from ..errors import RetrievalError

    try:
        os.stat(out.parent)  # a folder that is missing is an error, and not made
        with replaced_whole(out) as unfinished:
            unfinished.write_bytes(content)
    except OSError as error:
        raise RetrievalError(f"{out}: cannot be written ({error}); check the path") from error
