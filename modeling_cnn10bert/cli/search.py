"""Verbs that fill an index and search it."""

import contextlib
import dataclasses
import datetime
import functools
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..masking import without_secrets
from .common import (
    MODEL_VARIABLE,
    AfterOption,
    Backend,
    BackendOption,
    BeforeOption,
    DeviceOption,
    FolderOption,
    FormatOption,
    IndexOption,
    MaxDurationOption,
    MinDurationOption,
    MinScoreOption,
    ModelOption,
    OutOption,
    Output,
    OutputOption,
    Precision,
    PrecisionOption,
    RemoteCodeOption,
    TableOutputOption,
    TagsOption,
    TopOption,
    WithoutOption,
    command,
    output_form,
    results_only,
    say,
    say_error,
    warn_of_slow_bfloat16,
    write_result,
    write_rows,
)

if TYPE_CHECKING:
    from ..retrieval.indexing import IndexReport
    from ..retrieval.records import Hit, SearchFilter
    from ..retrieval.retriever import AudioRetriever

SEARCH = "Search"
NOTES_SHOWN = 10  # of recordings that were indexed with a remark


@command(SEARCH, "index ~/sounds --model runs/demo", "index ~/sounds --watch --report problems.csv")
def index(
    paths: Annotated[list[Path], typer.Argument(help="Folders and audio files to index.", show_default=False)],
    index: IndexOption = "sounds.index",
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help=f"Model folder or Hub id. By default, the model of the index, or ${MODEL_VARIABLE} for a new index.",
        ),
    ] = None,
    window: Annotated[
        float | None, typer.Option("--window", help="Window length in seconds for long recordings. 30 for a new index.")
    ] = None,
    overlap: Annotated[
        float | None,
        typer.Option("--overlap", help="Overlap of windows in seconds. By default 10, or a third of --window if less."),
    ] = None,
    device: DeviceOption = None,
    dtype: PrecisionOption = "float32",
    backend: BackendOption = "auto",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Number of windows to embed at once.")] = 32,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Number of decoding threads.", show_default="2")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep running and update the index when files change.")
    ] = False,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Remove the recordings of emptied folders instead of failing.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option("--report", help="CSV file to write. It lists skipped and partly read files with the reasons."),
    ] = None,
    trust_remote_code: RemoteCodeOption = False,
) -> None:
    """Create an index of audio files, or update it. Only new, changed and removed files are processed."""
    options = {**_model_options(device, dtype, backend, trust_remote_code), "batch_size": batch_size}
    with _retriever_to_fill(model, index, options) as retriever:
        warn_of_slow_bfloat16(dtype, device)

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
    """Update now and after every change. Only the first update may fail, because a drive may come back."""
    from ..errors import RetrievalError
    from ..retrieval.watching import watch_folders

    updates = 0
    told: set[tuple[str, str]] = set()

    def on_change(unfinished: frozenset[str]) -> None:
        nonlocal updates
        updates += 1
        try:
            result = update(unfinished)
        except RetrievalError as error:
            if updates == 1:
                raise
            say_error(error)
            return
        if updates == 1 or result.added or result.changed or result.renamed or result.removed or result.skipped:
            _tell(result, report, told)

    watch_folders(paths, on_change, ignored=[index])


def _tell(result: "IndexReport", report: Path | None, told: set[tuple[str, str]] | None = None) -> None:
    """Print the update's counts, first remarks and problems; problems in `told` are left out, others added to it."""
    if report is not None:
        result.write_csv(report)
    for folder, others in result.empty_folders.items():
        say(
            f"{folder}: found no audio file" + (f" among {others} other files" if others else "") + "; audio files end "
            "in .wav, .flac, .mp3, .ogg, .aiff, .m4a and the like; a file of another ending can be named itself"
        )
    if report is None:
        # Only now, as recordings that are kept are not read again. A name that is no UTF-8 is escaped.
        for path, note in result.notes[:NOTES_SHOWN]:
            say(f"{path}: {note}")
        if len(result.notes) > NOTES_SHOWN:
            say(f"{len(result.notes) - NOTES_SHOWN} more remarks; --report FILE.csv lists them when files are indexed")
        told = set() if told is None else told
        fresh = dataclasses.replace(result, problems=[problem for problem in result.problems if problem not in told])
        told.update(fresh.problems)
        lines = fresh.problem_lines()
        for line in lines:
            say(line)
        if len(lines) < len(fresh.problems):
            say("--report FILE.csv lists all files that could not be used")
    typer.echo(str(result))
    sys.stdout.flush()


@contextlib.contextmanager
def _retriever_to_fill(model: str | None, index: str, options: dict) -> Iterator["AudioRetriever"]:
    """Open the retriever of an index that may not exist yet."""
    from ..errors import MissingIndexError, RetrievalError
    from ..retrieval.retriever import AudioRetriever

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


@command(SEARCH, "forget ~/old_sounds", "forget ~/sounds/take1.wav ~/sounds/drafts --index sounds.index")
def forget(
    paths: Annotated[list[Path], typer.Argument(help="Folders and files. They need not exist.", show_default=False)],
    index: IndexOption = "sounds.index",
) -> None:
    """Remove recordings at or below a path from an index. No file is deleted."""
    from ..retrieval import indexing
    from ..retrieval.stores import open_store

    with results_only(), open_store(index) as store:
        count = indexing.forget(store, paths)
    typer.echo(f"{count} removed from the index")


@command(SEARCH, "info", "info --index http://localhost:19530 --output json")
def info(index: IndexOption = "sounds.index", output: TableOutputOption = None, out: OutOption = None) -> None:
    """Show the number of recordings, the model and the settings of an index."""
    import collections

    from ..retrieval import listing
    from ..retrieval.stores import open_store

    with results_only(), open_store(index) as store:
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
        "normalize_level": made.normalize_level,
        "model": made.model.name,
        "revision": made.model.revision,
        "fingerprint": made.model.fingerprint,
        "dimension": made.model.dimension,
        "format_version": made.format_version,
    }
    table = functools.partial(
        listing.plain_table, ["", ""], [[name, "" if value is None else str(value)] for name, value in row.items()]
    )
    write_rows(row, [row], list(row), table, output, out)


# ------------------------------------------------------------------------------------------------------ searching


@command(
    SEARCH,
    'search "a dog barks while rain falls" -k 20',
    'search "a dog barks" --without speech --format wav --max-duration 30',
    'search "rain on a roof" --after 2026-01-31 --out hits.m3u',
    'search "in a large hall" --like door.wav --like-weight 0.3',
    'search "a dog barks" --moments --out dogs.labels.txt',
)
def search(
    text: Annotated[str, typer.Argument(help="Text description of the sound.", show_default=False)],
    index: IndexOption = "sounds.index",
    top: TopOption = 10,
    like: Annotated[
        Path | None, typer.Option("--like", help="Audio file that the results should also sound like.")
    ] = None,
    like_weight: Annotated[
        float, typer.Option("--like-weight", min=0, max=1, help="Weight of --like; the rest is the text's.")
    ] = 0.5,
    moments: Annotated[
        bool,
        typer.Option("--moments", help="List the passages that match, several per recording. The first time is slow."),
    ] = False,
    without: WithoutOption = None,
    min_score: MinScoreOption = None,
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
    backend: BackendOption = "auto",
    device: DeviceOption = None,
    dtype: PrecisionOption = "float32",
    trust_remote_code: RemoteCodeOption = False,
) -> None:
    """Find the recordings that match a text description."""
    where = _filter(min_duration, max_duration, folder, format, after, before)
    options = _model_options(device, dtype, backend, trust_remote_code)

    if moments and like is not None:
        raise typer.BadParameter("cannot be used with --moments", param_hint="--like")

    def find(retriever: "AudioRetriever") -> "list[Hit]":
        if moments:
            return retriever.moments(text, top, where, without, min_score=min_score, progress=True)
        return retriever.search(text, top, where, without, min_score=min_score, like=like, like_weight=like_weight)

    _search(index, model, options, find, where, min_score, tags, output, out)


@command(SEARCH, "similar ~/sounds/dog.wav", "similar new.wav -k 5 --output json")
def similar(
    audio: Annotated[Path, typer.Argument(help="Audio file, in the index or not.", show_default=False)],
    index: IndexOption = "sounds.index",
    top: TopOption = 10,
    without: WithoutOption = None,
    min_score: MinScoreOption = None,
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
    backend: BackendOption = "auto",
    device: DeviceOption = None,
    dtype: PrecisionOption = "float32",
    trust_remote_code: RemoteCodeOption = False,
) -> None:
    """Find the recordings that sound most similar to an audio file."""
    where = _filter(min_duration, max_duration, folder, format, after, before)
    options = _model_options(device, dtype, backend, trust_remote_code)

    def find(retriever: "AudioRetriever") -> "list[Hit]":
        return retriever.similar(audio, top, where, without, min_score=min_score)

    _search(index, model, options, find, where, min_score, tags, output, out)


def _model_options(device: str | None, dtype: Precision, backend: Backend, trust_remote_code: bool) -> dict:
    return {"device": device, "dtype": dtype, "backend": backend, "trust_remote_code": trust_remote_code}


def _search(
    index: str,
    model: str | None,
    options: dict,
    find: Callable[["AudioRetriever"], "list[Hit]"],
    where: "SearchFilter",
    min_score: float | None,
    tags: Path | None,
    output: Output | None,
    out: Path | None,
) -> None:
    """Open the index, search, and write the hits."""
    from ..retrieval import listing
    from ..retrieval.records import SearchFilter
    from ..retrieval.retriever import AudioRetriever
    from ..retrieval.tags import Tagger, read_labels

    labels = read_labels(tags) if tags else None
    with results_only(), AudioRetriever.from_pretrained(model, index, **options) as retriever:
        hits = find(retriever)
        empty_folders = [folder for folder in where.folders if not retriever.store.count(SearchFilter(folders=folder))]
        found_tags = None
        if labels is not None:
            tagger = Tagger(retriever.embedder, labels) if hits else None
            found_tags = [tagger.best(hit.embed) for hit in hits]
        empty = not hits and not len(retriever.store)
    if empty:
        say(f"the index is empty; fill it: cnn10bert index FOLDER --index {shlex.quote(without_secrets(index))}")
    elif empty_folders:
        for folder in empty_folders:
            say(f"warning: no recording of the index lies below {folder}")
    elif not hits:
        scores = f" has a score of at least {min_score:g}" if min_score is not None else ""
        filters = " that the filters admit" if where != SearchFilter() else ""
        say("nothing found" + (f": no recording{filters}{scores}" if scores or filters else ""))
    form = output_form(output, out)
    if form == "table" and out is None:
        if hits:
            listing.print_table(listing.hits_table(hits, found_tags))
    else:
        write_result(listing.listing(hits, form, found_tags), out)


def _filter(
    min_duration: float | None,
    max_duration: float | None,
    folders: Sequence[Path] | None,
    formats: Sequence[str] | None,
    after: datetime.datetime | None,
    before: datetime.datetime | None,
) -> "SearchFilter":
    from ..retrieval.records import SearchFilter

    return SearchFilter(min_duration, max_duration, tuple(map(str, folders or ())), tuple(formats or ()), after, before)


@command(SEARCH, "duplicates", "duplicates --threshold 0.8 --out duplicates.csv")
def duplicates(
    index: IndexOption = "sounds.index",
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            help="Minimum similarity of audio fingerprints, by default 0.5. Different recordings have about 0; "
            "1 finds only identical files.",
        ),
    ] = None,
    output: TableOutputOption = None,
    out: OutOption = None,
) -> None:
    """List identical and nearly identical recordings. No file is deleted."""
    from ..retrieval import listing, near_duplicates
    from ..retrieval.stores import open_store

    notes: list[str] = []
    with results_only(), open_store(index) as store:
        groups = near_duplicates.find_near_duplicates(
            store, near_duplicates.THRESHOLD if threshold is None else threshold, progress=True, notes=notes
        )
    if notes:
        say(f"cannot be read, so that only the bytes were compared: {len(notes)}. The first is {notes[0]}")
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
        say("no duplicates found")
    write_rows(
        nested, rows, ["group", "kind", "similarity", "file", "duration", "size", "modified"], table, output, out
    )


@command(SEARCH, "tag labels.txt", "tag labels.txt -k 3 --out tags.csv")
def tag(
    labels: Annotated[Path, typer.Argument(help="Text file with one label per line.", show_default=False)],
    index: IndexOption = "sounds.index",
    top: Annotated[int, typer.Option("--top", "-k", min=1, help="Number of labels per recording.")] = 1,
    output: TableOutputOption = None,
    out: OutOption = None,
    model: ModelOption = None,
    backend: BackendOption = "auto",
    device: DeviceOption = None,
    trust_remote_code: RemoteCodeOption = False,
) -> None:
    """Find the best labels for every recording of an index. Scores are cosine similarities."""
    from ..retrieval import listing
    from ..retrieval.retriever import AudioRetriever
    from ..retrieval.tags import read_labels

    names = read_labels(labels)
    options = {"device": device, "backend": backend, "trust_remote_code": trust_remote_code}
    with results_only(), AudioRetriever.from_pretrained(model, index, **options) as retriever:
        found = sorted(((file.record.path, tags) for file, tags in retriever.tag(names, top)), key=lambda row: row[0])
    rows = [{"file": path, "tags": listing.tag_rows(tags)} for path, tags in found]
    flat = [{"file": path, "label": tag.label, "score": round(tag.score, 6)} for path, tags in found for tag in tags]
    cells = [[path, ", ".join(f"{tag.label} {tag.score:.2f}" for tag in tags)] for path, tags in found]
    if not found:
        say(f"the index is empty; fill it: cnn10bert index FOLDER --index {shlex.quote(without_secrets(index))}")
    table = functools.partial(listing.plain_table, ["file", "tags"], cells)
    write_rows(rows, flat, ["file", "label", "score"], table, output, out)
