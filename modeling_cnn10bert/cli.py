"""The command `cnn10bert`: search your own sounds; evaluate, export and publish models.

Results go to standard output, all else to standard error. Exit codes: 0 fine, 1 an error in one line, 2 wrong usage,
130 interrupted by Ctrl-C, and 128 and its number by another signal.
"""

import contextlib
import datetime
import enum
import functools
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .errors import InputError, one_line
from .files import replaced_whole
from .interrupts import say_interrupted, signals_as_interrupts
from .masking import without_secrets

# Everything else is imported by the command that needs it, so that help and errors of usage come at once.
if TYPE_CHECKING:
    from .retrieval.indexing import IndexReport
    from .retrieval.records import Hit, SearchFilter
    from .retrieval.retriever import AudioRetriever

MODEL_VARIABLE, INDEX_VARIABLE = "CNN10BERT_MODEL", "CNN10BERT_INDEX"
NOTES_SHOWN = 10  # of recordings that were indexed with a remark
ENDINGS = {".json": "json", ".csv": "csv", ".m3u": "m3u", ".m3u8": "m3u"}


class Commands(typer.core.TyperGroup):
    """Prints what is wrong with a command line without its secrets."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except Exception as error:
            if isinstance(message := getattr(error, "message", None), str):  # an error of usage
                error.message = without_secrets(message)
            raise


app = typer.Typer(
    cls=Commands,
    help="Search your own sounds by a text or by a sound; evaluate, export and publish the models that do it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Output(str, enum.Enum):
    table = "table"
    json = "json"
    csv = "csv"
    m3u = "m3u"


class TableOutput(str, enum.Enum):
    table = "table"
    json = "json"
    csv = "csv"


class Precision(str, enum.Enum):
    float32 = "float32"
    bfloat16 = "bfloat16"


class Backend(str, enum.Enum):
    auto = "auto"
    torch = "torch"
    onnx = "onnx"


class ExportFormat(str, enum.Enum):
    onnx = "onnx"


class Challenge(str, enum.Enum):
    dcase2022 = "dcase2022"
    dcase2025 = "dcase2025"


IndexOption = Annotated[
    str,
    typer.Option(
        "--index", help="A folder, a .db file of Milvus Lite, or http://host:port of a Milvus.", envvar=INDEX_VARIABLE
    ),
]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="Folder or Hub id; by default the one that made the index.")
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="Such as cpu or cuda:1; by default a GPU if any.")]
PrecisionOption = Annotated[Precision, typer.Option("--dtype", help="What the model computes in.")]
BackendOption = Annotated[Backend, typer.Option("--backend", help="What runs the model; auto: ONNX for an export.")]
RemoteCodeOption = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that a model of another kind brings with it.")
]
RevisionOption = Annotated[str | None, typer.Option("--revision", help="Of the model on the Hub.")]
TopOption = Annotated[int, typer.Option("--top", "-k", min=1, help="How many recordings.")]
WithoutOption = Annotated[
    list[str] | None, typer.Option("--without", help="What is not to be heard, such as speech; can be repeated.")
]
MinDurationOption = Annotated[float | None, typer.Option("--min-duration", help="Of the recording, in seconds.")]
MaxDurationOption = Annotated[float | None, typer.Option("--max-duration", help="Of the recording, in seconds.")]
FolderOption = Annotated[
    list[Path] | None, typer.Option("--folder", help="Only recordings below this folder; can be repeated.")
]
FormatOption = Annotated[
    list[str] | None, typer.Option("--format", help="Only such files, like wav or mp3; can be repeated.")
]
AfterOption = Annotated[
    datetime.datetime | None, typer.Option("--after", help="Only files modified then or later.", show_default=False)
]
BeforeOption = Annotated[
    datetime.datetime | None, typer.Option("--before", help="Only files modified before.", show_default=False)
]
TagsOption = Annotated[
    Path | None, typer.Option("--tags", help="A file of labels, one a line; the best of them for each hit.")
]
OutputOption = Annotated[Output | None, typer.Option("--output", help="By default as --out ends, else a table.")]
TableOutputOption = Annotated[
    TableOutput | None, typer.Option("--output", help="By default as --out ends, else a table.")
]
OutOption = Annotated[Path | None, typer.Option("--out", help="The file to write, instead of standard output.")]


def main() -> None:
    """The console script."""
    app()


def command(function: Callable[..., None], bars: bool = False) -> Callable[..., None]:
    """Registers a command, which may show progress bars; what is wrong with its input ends it with one line."""

    @functools.wraps(function)
    def run(*args, **kwargs) -> None:
        try:
            with signals_as_interrupts(), _quiet(bars):
                function(*args, **kwargs)
        except KeyboardInterrupt as error:
            raise typer.Exit(say_interrupted(error, "run it again with")) from None
        except InputError as error:
            _say_error(error)
            raise typer.Exit(1) from error

    return app.command()(run)


def _say_error(error: Exception) -> None:
    _say(f"error: {without_secrets(one_line(error))}")


def _say(line: str) -> None:
    """A line on standard error; a name that is no UTF-8 is escaped there."""
    typer.echo(line.encode("utf-8", "backslashreplace").decode("utf-8"), err=True)


@contextlib.contextmanager
def _quiet(bars: bool = False) -> Iterator[None]:
    """No bars and reports of libraries; of the warnings, those that are about the user's query or index."""
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

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _show_warning(message: Warning | str, category: type[Warning], *_) -> None:
    from .retrieval.retriever import RetrievalWarning

    if issubclass(category, RetrievalWarning):
        _say(f"warning: {without_secrets(str(message))}")


# ------------------------------------------------------------------------------------------------------- an index


@command
def index(
    paths: Annotated[list[Path], typer.Argument(help="Folders and files.", show_default=False)],
    index: IndexOption = "sounds.index",
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help=f"Folder or Hub id; by default the one that made the index, for a new one ${MODEL_VARIABLE}.",
        ),
    ] = None,
    window: Annotated[
        float | None, typer.Option("--window", help="Longest piece embedded as one, in seconds; 30 for a new index.")
    ] = None,
    overlap: Annotated[
        float | None, typer.Option("--overlap", help="What neighbouring windows share, in seconds; 10.")
    ] = None,
    device: DeviceOption = None,
    dtype: PrecisionOption = Precision.float32,
    backend: BackendOption = Backend.auto,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Windows embedded at once.")] = 32,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Threads that decode.", show_default="2")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on, and follow what changes, until Ctrl-C.")] = False,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Also where a folder that had recordings has none any more.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option("--report", help="A CSV file of what could not be indexed, or not as it should be, and why."),
    ] = None,
    trust_remote_code: RemoteCodeOption = False,
) -> None:
    """Bring an index up to date with folders: only what is new, changed or gone is work."""
    options = {
        "device": device,
        "dtype": dtype.value,
        "backend": backend.value,
        "trust_remote_code": trust_remote_code,
        "batch_size": batch_size,
    }
    with _retriever_to_fill(model, index, options) as retriever:

        def update(unfinished: frozenset[str] = frozenset()) -> "IndexReport":
            return retriever.index(
                paths,
                window=window,
                overlap=overlap,
                allow_empty=allow_empty,
                unfinished=unfinished,
                **({} if workers is None else {"workers": workers}),
            )

        if watch:
            _watch(paths, update, index, report)
        else:
            _tell(update(), report)


def _watch(paths: Sequence[Path], update: Callable[[frozenset[str]], "IndexReport"], index: str, report: Path | None):
    """Updates at once and whenever something changed. Only the first update may fail: a drive comes back."""
    from .errors import RetrievalError
    from .retrieval.watching import watch_folders

    updates = 0

    def on_change(unfinished: frozenset[str]) -> None:
        nonlocal updates
        updates += 1
        try:
            result = update(unfinished)
        except RetrievalError as error:
            if updates == 1:
                raise
            _say_error(error)
            return
        if updates == 1 or result.added or result.changed or result.renamed or result.removed or result.skipped:
            _tell(result, report)

    watch_folders(paths, on_change, ignored=[index])


def _tell(result: "IndexReport", report: Path | None) -> None:
    """Prints what an update came to, and where to read what could not be used, or was used with a remark."""
    if report is not None:
        result.write_csv(report)
    else:
        # Only now, as recordings that are kept are not read again. A name that is no UTF-8 is escaped.
        for path, note in result.notes[:NOTES_SHOWN]:
            _say(f"{path}: {note}")
        if len(result.notes) > NOTES_SHOWN:
            _say(f"{len(result.notes) - NOTES_SHOWN} more remarks; --report FILE.csv lists them when files are indexed")
        if result.problems:
            _say(f"{len(result.problems)} could not be used; --report FILE.csv says why")
    typer.echo(str(result))
    sys.stdout.flush()


@contextlib.contextmanager
def _retriever_to_fill(model: str | None, index: str, options: dict) -> Iterator["AudioRetriever"]:
    """The retriever of an index that may not be there yet."""
    from .errors import MissingIndexError, RetrievalError
    from .retrieval.retriever import AudioRetriever

    try:
        retriever = AudioRetriever.from_pretrained(model, index, **options)
    except MissingIndexError:  # only where no model is named
        model = os.environ.get(MODEL_VARIABLE)
        if not model:
            raise RetrievalError(
                f"{without_secrets(index)} is a new index, for which no model is named; name a folder or Hub id by "
                f"--model or the environment variable {MODEL_VARIABLE}; `make demo` trains a small one"
            ) from None
        retriever = AudioRetriever.from_pretrained(model, index, **options)
    with retriever:
        yield retriever


@command
def info(index: IndexOption = "sounds.index", output: TableOutputOption = None, out: OutOption = None) -> None:
    """Show what is in an index."""
    import collections

    from .retrieval import listing
    from .retrieval.stores import open_store

    with _results_only(), open_store(index) as store:
        files, windows, made = list(store.files().values()), len(store), store.info
    formats = collections.Counter(record.format for record in files)
    row = {
        "index": without_secrets(index),
        "recordings": len(files),
        "windows": windows,
        "hours": round(sum(record.duration for record in files) / 3600, 3),
        "formats": ", ".join(f"{count} {name or 'without ending'}" for name, count in formats.most_common()),
        "window": made.window,
        "overlap": made.overlap,
        "model": made.model.name,
        "revision": made.model.revision,
        "fingerprint": made.model.fingerprint,
        "dimension": made.model.dimension,
        "format_version": made.format_version,
    }
    table = functools.partial(
        listing.plain_table, ["", ""], [[name, "" if value is None else str(value)] for name, value in row.items()]
    )
    _give_rows(row, [row], list(row), table, output, out)


# ------------------------------------------------------------------------------------------------------ searching


@command
def search(
    text: Annotated[str, typer.Argument(help="What is to be heard.", show_default=False)],
    index: IndexOption = "sounds.index",
    top: TopOption = 10,
    without: WithoutOption = None,
    min_duration: MinDurationOption = None,
    max_duration: MaxDurationOption = None,
    folder: FolderOption = None,
    format: FormatOption = None,
    after: AfterOption = None,
    before: BeforeOption = None,
    tags: TagsOption = None,
    output: OutputOption = None,
    out: OutOption = None,
    model: ModelOption = None,
    backend: BackendOption = Backend.auto,
    device: DeviceOption = None,
    dtype: PrecisionOption = Precision.float32,
    trust_remote_code: RemoteCodeOption = False,
) -> None:
    """Find the recordings that a text describes."""
    where = _filter(min_duration, max_duration, folder, format, after, before)
    options = {
        "device": device,
        "dtype": dtype.value,
        "backend": backend.value,
        "trust_remote_code": trust_remote_code,
    }
    _search(
        index, model, options, lambda retriever: retriever.search(text, top, where, without), where, tags, output, out
    )


@command
def similar(
    audio: Annotated[Path, typer.Argument(help="A recording, in the index or not.", show_default=False)],
    index: IndexOption = "sounds.index",
    top: TopOption = 10,
    without: WithoutOption = None,
    min_duration: MinDurationOption = None,
    max_duration: MaxDurationOption = None,
    folder: FolderOption = None,
    format: FormatOption = None,
    after: AfterOption = None,
    before: BeforeOption = None,
    tags: TagsOption = None,
    output: OutputOption = None,
    out: OutOption = None,
    model: ModelOption = None,
    backend: BackendOption = Backend.auto,
    device: DeviceOption = None,
    dtype: PrecisionOption = Precision.float32,
    trust_remote_code: RemoteCodeOption = False,
) -> None:
    """Find the recordings that sound most like one."""
    where = _filter(min_duration, max_duration, folder, format, after, before)
    options = {
        "device": device,
        "dtype": dtype.value,
        "backend": backend.value,
        "trust_remote_code": trust_remote_code,
    }
    _search(
        index, model, options, lambda retriever: retriever.similar(audio, top, where, without), where, tags, output, out
    )


def _search(
    index: str,
    model: str | None,
    options: dict,
    find: Callable[["AudioRetriever"], list["Hit"]],
    where: "SearchFilter",
    tags: Path | None,
    output: Output | None,
    out: Path | None,
) -> None:
    """Opens the index, searches, and gives the hits."""
    from .retrieval import listing
    from .retrieval.records import SearchFilter
    from .retrieval.retriever import AudioRetriever
    from .retrieval.tags import Tagger, read_labels

    labels = read_labels(tags) if tags else None
    with _results_only(), AudioRetriever.from_pretrained(model, index, **options) as retriever:
        hits = find(retriever)
        found_tags = None
        if labels is not None:
            tagger = Tagger(retriever.embedder, labels) if hits else None
            found_tags = [tagger.best(hit.embed) for hit in hits]
        empty = not hits and not len(retriever.store)
    if empty:
        _say(f"the index is empty; fill it: cnn10bert index FOLDER --index {shlex.quote(without_secrets(index))}")
    elif not hits:
        _say("nothing found" + (": no recording that the filters admit" if where != SearchFilter() else ""))
    form = _form(output, out)
    if form == "table" and out is None:
        if hits:
            listing.print_table(listing.hits_table(hits, found_tags))
    else:
        _give(listing.listing(hits, form, found_tags), out)


def _filter(
    min_duration: float | None,
    max_duration: float | None,
    folders: Sequence[Path] | None,
    formats: Sequence[str] | None,
    after: datetime.datetime | None,
    before: datetime.datetime | None,
) -> "SearchFilter":
    from .retrieval.records import SearchFilter
    from .retrieval.scanning import canonical

    return SearchFilter(
        min_duration=min_duration,
        max_duration=max_duration,
        folders=tuple(canonical(folder) for folder in folders or ()),
        formats=tuple(name.lower().lstrip(".") for name in formats or ()),
        modified_after=after,
        modified_before=before,
    )


@command
def duplicates(
    index: IndexOption = "sounds.index",
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Least cosine of near duplicates; 1: the same bytes only.")
    ] = None,
    output: TableOutputOption = None,
    out: OutOption = None,
) -> None:
    """List recordings that are the same, or nearly; nothing is deleted."""
    from .retrieval import listing, near_duplicates
    from .retrieval.stores import open_store

    with _results_only(), open_store(index) as store:
        groups = near_duplicates.find_near_duplicates(
            store, near_duplicates.THRESHOLD if threshold is None else threshold
        )
    nested = [
        {
            "kind": "identical" if group.identical else "near",
            "similarity": round(group.similarity, 6),
            "files": [listing.file_row(record) for record in group.files],
        }
        for group in groups
    ]
    rows = [
        {"group": number, "kind": group["kind"], "similarity": group["similarity"], **file}
        for number, group in enumerate(nested, start=1)
        for file in group["files"]
    ]
    cells = [
        [str(row["group"]), row["kind"], f"{row['similarity']:.4f}", row["file"], listing.clock(row["duration"])]
        for row in rows
    ]
    table = functools.partial(listing.plain_table, [">group", "kind", ">similarity", "file", ">duration"], cells)
    if not groups:
        _say("no duplicates found")
    _give_rows(nested, rows, ["group", "kind", "similarity", "file", "duration", "size"], table, output, out)


@command
def tag(
    labels: Annotated[Path, typer.Argument(help="A text file of labels, one a line.", show_default=False)],
    index: IndexOption = "sounds.index",
    top: Annotated[int, typer.Option("--top", "-k", min=1, help="How many labels for each recording.")] = 1,
    output: TableOutputOption = None,
    out: OutOption = None,
    model: ModelOption = None,
    backend: BackendOption = Backend.auto,
    device: DeviceOption = None,
    trust_remote_code: RemoteCodeOption = False,
) -> None:
    """Label every recording of an index with what fits it best of a list; scores are cosines."""
    from .retrieval import listing
    from .retrieval.retriever import AudioRetriever
    from .retrieval.tags import read_labels

    names = read_labels(labels)
    options = {"device": device, "backend": backend.value, "trust_remote_code": trust_remote_code}
    with _results_only(), AudioRetriever.from_pretrained(model, index, **options) as retriever:
        found = sorted(((file.record.path, tags) for file, tags in retriever.tag(names, top)), key=lambda row: row[0])
    rows = [{"file": path, "tags": listing.tag_rows(tags)} for path, tags in found]
    flat = [{"file": path, "label": tag.label, "score": round(tag.score, 6)} for path, tags in found for tag in tags]
    cells = [[path, ", ".join(f"{tag.label} {tag.score:.2f}" for tag in tags)] for path, tags in found]
    if not found:
        _say(f"the index is empty; fill it: cnn10bert index FOLDER --index {shlex.quote(without_secrets(index))}")
    table = functools.partial(listing.plain_table, ["file", "tags"], cells)
    _give_rows(rows, flat, ["file", "label", "score"], table, output, out)


# ------------------------------------------------------------------------------------------------ giving results


@contextlib.contextmanager
def _results_only() -> Iterator[None]:
    """Send to standard error what libraries print while they work: standard output is for results."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _form(output: enum.Enum | None, out: Path | None) -> str:
    if output is not None:
        return output.value
    return ENDINGS.get(out.suffix.lower(), "table") if out is not None else "table"


def _give_rows(
    nested, rows: list[dict], columns: list[str], table: Callable, output: TableOutput | None, out: Path | None
) -> None:
    """Gives a result that is no list of hits: `nested` as JSON, `rows` as CSV."""
    from .retrieval import listing

    form = _form(output, out)
    if form == "table" and out is None:
        if rows:
            listing.print_table(table())
    elif form == "json":
        _give(listing.to_json(nested), out)
    elif form == "csv":
        _give(listing.to_csv(rows, columns), out)
    else:
        _give(listing.table_text(table()).encode("utf-8", "backslashreplace"), out)


def _give(content: bytes, out: Path | None) -> None:
    """Writes a result to standard output, or whole or not at all to a file."""
    if out is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    from .errors import RetrievalError

    try:
        os.stat(out.parent)  # a folder that is missing is an error, and not made
        with replaced_whole(out) as unfinished:
            unfinished.write_bytes(content)
    except OSError as error:
        raise RetrievalError(f"{out}: cannot be written ({error}); check the path") from error


# --------------------------------------------------------------------------------------------------------- models


@command
def evaluate(
    model: Annotated[str, typer.Argument(help="Folder or Hub id.", show_default=False)],
    dataset: Annotated[
        str, typer.Argument(help="A prepared data set, a folder, a manifest or a Hub id.", show_default=False)
    ],
    split: Annotated[str | None, typer.Option("--split", help="By default the test set.")] = None,
    sources: Annotated[
        str | None, typer.Option("--sources", help="The recordings of a manifest of soundscapes.")
    ] = None,
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
    from .errors import RetrievalError
    from .evaluation.commands import run_evaluate
    from .files import ADDRESS, check_local_folder

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


@command
def submit(
    model: Annotated[str, typer.Argument(help="Folder or Hub id.", show_default=False)],
    dataset: Annotated[
        str | None, typer.Argument(help="As for evaluate; or else --captions and --audio.", show_default=False)
    ] = None,
    format: Annotated[Challenge, typer.Option("--format", help="The challenge.", show_default=False)] = ...,
    out: Annotated[str, typer.Option("--out", help="The CSV file to write.", show_default=False)] = ...,
    split: Annotated[str | None, typer.Option("--split", help="By default the test set.")] = None,
    sources: Annotated[
        str | None, typer.Option("--sources", help="The recordings of a manifest of soundscapes.")
    ] = None,
    captions: Annotated[str | None, typer.Option("--captions", help="A CSV file of queries, column caption.")] = None,
    audio: Annotated[str | None, typer.Option("--audio", help="The folder of recordings.")] = None,
    device: DeviceOption = None,
    dtype: PrecisionOption = Precision.float32,
    revision: RevisionOption = None,
    trust_remote_code: RemoteCodeOption = False,
) -> None:
    """Write what the DCASE challenge is handed."""
    from .errors import RetrievalError
    from .evaluation.commands import run_submit
    from .files import ADDRESS, check_local_folder

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


@command
def score(
    output: Annotated[str, typer.Argument(help="A file as submit writes it.", show_default=False)],
    captions: Annotated[str, typer.Argument(help="The true captions, CSV.", show_default=False)],
) -> None:
    """Score a challenge's output file against the truth."""
    from .evaluation.commands import run_score

    run_score(output, captions)


@command
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
    from .retrieval.onnx import export_onnx

    with _results_only():
        folder = export_onnx(
            model,
            out,
            int8=int8,
            calibration=calibration or (),
            revision=revision,
            trust_remote_code=trust_remote_code,
        )
    typer.echo(str(folder))


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
    from .publishing.hub import publish as publish_folder

    with _results_only():
        commit = publish_folder(folder, to, private=private or None, revision=revision, field="--to")
    typer.echo(without_secrets(commit.commit_url))


command(publish, bars=True)


if __name__ == "__main__":
    main()
