"""Verbs that show a sound library in the browser."""

import errno
import os
import socket
from pathlib import Path
from typing import Annotated

import typer

from ..errors import RetrievalError
from .common import INDEX_VARIABLE, ModelOption, command, say

PAGE = "Page in the browser"


@command(PAGE, "page", "page --folder ~/sounds --model runs/demo", advice="start it again with")
def page(
    index: Annotated[
        str | None, typer.Option("--index", help="Index to search. By default, sounds.index.", envvar=INDEX_VARIABLE)
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Folder to search instead. Its index is stored next to it.")
    ] = None,
    model: ModelOption = None,
    captions: Annotated[
        Path | None,
        typer.Option("--captions", help="Captions to suggest: CSV, JSON Lines, or text with one caption per line."),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on. 0.0.0.0 allows access from the network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on.")] = 7860,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host", help="Another accepted host name, such as a proxy. Can be repeated. * accepts any."
        ),
    ] = None,
) -> None:
    """Serve a web page to search by text or by sound and to play the ten best results."""
    _check_port(host, port)
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


def _check_port(host: str, port: int) -> None:
    """
    Raises:
        RetrievalError: another program listens on the port, or the address is not one of this machine.
    """
    try:
        # As uvicorn does it later, after the libraries and the model are loaded and the address is printed.
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise RetrievalError(
                f"port {port} of {host} is in use by another program; end it, or choose another port by --port"
            ) from error
        raise RetrievalError(
            f"cannot listen on port {port} of {host} ({error.strerror or error}); check --host and --port"
        ) from error


@command(PAGE, "space space --model runs/demo --sounds ~/sounds")
def space(
    out: Annotated[Path, typer.Argument(help="Folder to write. It must be new or empty.", show_default=False)],
    model: Annotated[str, typer.Option("--model", help="Model folder or Hub id.", show_default=False)],
    sounds: Annotated[
        str, typer.Option("--sounds", help="Folder of recordings, or index of this model.", show_default=False)
    ],
    captions: Annotated[
        Path | None,
        typer.Option(
            "--captions", help="Captions to suggest, CSV or JSON Lines. By default, the metadata file in --sounds."
        ),
    ] = None,
    title: Annotated[str, typer.Option("--title", help="Title of the page.")] = "Search sounds",
) -> None:
    """Write the web page as a Hugging Face Space. The Space includes the recordings."""
    from ..page.space import make_space

    folder = make_space(out, model, sounds, captions, title)
    typer.echo(f"{folder}: try it by `python {folder / 'app.py'}`")
    typer.echo(f"publish it by `hf upload ACCOUNT/NAME {folder} . --repo-type space`")
