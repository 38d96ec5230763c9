"""Verbs that show a sound library in the browser."""

import os
from pathlib import Path
from typing import Annotated

import typer

from ..errors import RetrievalError
from .common import INDEX_VARIABLE, command, say

PAGE = "Page in the browser"


@command(PAGE, advice="start it again with")
def page(
    index: Annotated[
        str | None, typer.Option("--index", help="An index to search; by default sounds.index.", envvar=INDEX_VARIABLE)
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="A folder to search instead; its index is kept beside it.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Folder or Hub id; by default the one that made the index.")
    ] = None,
    captions: Annotated[
        Path | None,
        typer.Option("--captions", help="CSV or JSON lines with file_name and caption, or a text file of captions."),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="0.0.0.0 opens the page to the network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535)] = 7860,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", help="Another name of the page, as behind a proxy; can be repeated; * is any."),
    ] = None,
) -> None:
    """Search in the browser: type a sound or drop in a recording, then hear and see the ten best."""
    # Read when numpy is imported. One core per question: several are answered at once, and threads that wait for each
    # other's cores made a question take 110 ms instead of 27.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    say("Loading libraries ...")
    from ..page.server import serve
    from ..page.sound_library import open_folder, open_index

    if folder is not None:
        if model is None:
            raise RetrievalError(f"found no model for the folder {folder}, expected a folder or Hub id; add --model")
        library = open_folder(folder, model, captions)
    else:
        library = open_index(index or "sounds.index", model, captions)
    serve(library, host, port, allow_host or [])


@command(PAGE)
def space(
    out: Annotated[Path, typer.Argument(help="Folder to write.", show_default=False)],
    model: Annotated[str, typer.Option("--model", help="Folder or Hub id.", show_default=False)],
    sounds: Annotated[
        str, typer.Option("--sounds", help="Folder of recordings, or an index of this model.", show_default=False)
    ],
    captions: Annotated[
        Path | None,
        typer.Option("--captions", help="CSV or JSON lines with file_name and caption; by default the folder's own."),
    ] = None,
    title: Annotated[str, typer.Option("--title", help="Title of the page.")] = "Search sounds",
) -> None:
    """Write the page as a folder that is a Hugging Face Space. It publishes the recordings with it."""
    from ..page.space import make_space

    folder = make_space(out, model, sounds, captions, title)
    typer.echo(f"{folder}: try it by `python {folder / 'app.py'}`")
    typer.echo(f"publish it by `hf upload ACCOUNT/NAME {folder} . --repo-type space`")
