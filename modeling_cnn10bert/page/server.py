"""The server of the page: Gradio's page, and beside it the clips and pictures of what was found."""

import asyncio
import atexit
import contextlib
import ipaddress
import os
import socket
import tempfile
import urllib.parse
import warnings
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..files import scratch_folder

# Read when gradio is imported and when its app is made: nothing is sent home, and uploads go when the server does, or
# when the next one starts, where it was killed.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
_at_exit = contextlib.ExitStack()
atexit.register(_at_exit.close)
UPLOADS = _at_exit.enter_context(scratch_folder(tempfile.gettempdir(), "cnn10bert-upload-"))
os.environ["GRADIO_TEMP_DIR"] = str(UPLOADS)

import gradio as gr  # noqa: E402
import uvicorn  # noqa: E402
from fastapi import FastAPI, HTTPException  # noqa: E402
from fastapi.responses import FileResponse, PlainTextResponse  # noqa: E402

from ..interrupts import orderly_exit  # noqa: E402
from ..retrieval.retriever import RetrievalWarning  # noqa: E402
from .answers import MAX_UPLOAD_BYTES, Answers  # noqa: E402
from .clip_cache import ClipCache  # noqa: E402
from .layout import STYLE, THEME, make_page  # noqa: E402
from .pictures import feature_extractor  # noqa: E402
from .sound_library import SoundLibrary  # noqa: E402

# The browser itself keeps the page from asking anyone else for anything; Gradio's pages start scripts inline.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'"
)
# Answers, clips and pictures are made by so many threads, and not by the 40 of an ASGI server: each keeps the memory
# that the libraries once needed in it.
WORKERS = 4
CACHED = {"Cache-Control": "private, max-age=3600"}
LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
SECONDS_TO_END = 3  # for answers under way
NOT_FOUND = "found by no answer, or long ago: ask again"


class Policy:
    """
    Adds the policy to every answer, and answers those alone who ask for this page by its name.

    A page of somebody else, open in a visitor's browser, could give its own name the address of this machine and then
    read along: so a `Host` must be a name that is known here. It could also send questions and files, if not read the
    answers: so an `Origin` must be this page. Nobody else is invited to read: Gradio's headers that do so are left out.

    Args:
        app: what answers.
        host: address that the server listens at.
        names: that the page has besides, such as that of a proxy before it; `*` is any.
    """

    def __init__(self, app, host: str, names: Collection[str]):
        self.app = app
        self.names = {name.lower() for name in names}
        self.hosts = hosts_of(host) | self.names

    async def __call__(self, scope, receive, send):
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        if refusal := self._refusal(scope):
            if scope["type"] == "websocket":
                return await send({"type": "websocket.close", "code": 1008, "reason": refusal})
            return await PlainTextResponse(refusal, 403)(scope, receive, send)

        async def send_with_headers(message):
            if message["type"] == "http.response.start":
                kept = [pair for pair in message["headers"] if not pair[0].lower().startswith(b"access-control-")]
                extra = [(b"content-security-policy", POLICY.encode()), (b"x-content-type-options", b"nosniff")]
                message = {**message, "headers": [*kept, *extra]}
            await send(message)

        await self.app(scope, receive, send_with_headers)

    def _refusal(self, scope) -> str | None:
        """What is wrong with who asks, in one line."""
        if "*" in self.names:
            return None
        headers = {name: value.decode("latin-1").lower() for name, value in scope["headers"]}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        if _name(f"//{host}") not in self.hosts:
            return f"This page is not served as {host!r}; the option --allow_host of the server adds a name.\n"
        foreign = origin is not None and origin.partition("://")[2] != host and _name(origin) not in self.names
        if foreign and (scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")):
            return f"Questions of another page, {origin!r}, are not answered.\n"
        return None


def _name(address: str) -> str | None:
    """The host of an address, without its port."""
    try:
        return urllib.parse.urlsplit(address).hostname
    except ValueError:
        return None


def hosts_of(host: str) -> set[str]:
    """The names and addresses by which a page may be asked for whose server listens at an address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a name
        return set(LOCAL) if host.lower() == "localhost" else {host.lower()}
    if address.is_loopback:
        return {str(address), *LOCAL}
    if address.is_unspecified:
        return {*LOCAL, *_own_names()}
    return {str(address)}


def _own_names() -> set[str]:
    """The names and addresses of this machine."""
    found = {socket.gethostname(), socket.getfqdn()}
    with contextlib.suppress(OSError):
        found |= {entry[4][0] for entry in socket.getaddrinfo(socket.gethostname(), None)}
    for family, somewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((somewhere, 9))  # sends nothing, but chooses the address to send from
            found.add(probe.getsockname()[0])
    return {name.lower() for name in found}


def make_app(library: SoundLibrary, host: str = "127.0.0.1", names: Collection[str] = ()) -> FastAPI:
    """The app of a library, for any ASGI server; `host` and `names` as for `Policy`."""
    clip_cache = ClipCache(feature_extractor(library.retriever.store.info.model.features))
    app = FastAPI(title="cnn10bert", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Policy, host=host, names=names)

    workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="cnn10bert-page")

    async def run(function: Callable, *arguments) -> Any:
        return await asyncio.get_running_loop().run_in_executor(workers, function, *arguments)

    @app.get("/clip/{key}")
    async def clip(key: str) -> FileResponse:
        return FileResponse(await run(_cached_file, clip_cache.clip, key), media_type="audio/flac", headers=CACHED)

    @app.get("/picture/{key}")
    async def picture(key: str) -> FileResponse:
        return FileResponse(await run(_cached_file, clip_cache.picture, key), media_type="image/png", headers=CACHED)

    page = make_page(Answers(library, clip_cache), run)
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        theme=THEME,
        head=STYLE,
        max_file_size=MAX_UPLOAD_BYTES,
        ssr_mode=False,
        show_error=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=[],
    )


def _cached_file(make: Callable[[str], Path], key: str) -> Path:
    try:
        return make(key)
    except KeyError:
        raise HTTPException(404, NOT_FOUND) from None
    except Exception as error:  # AudioError, or whatever a decoder or encoder meets that was not made for a recording
        raise HTTPException(410, "the recording is gone or cannot be read any more") from error


def serve(library: SoundLibrary, host: str = "127.0.0.1", port: int = 7860, names: Collection[str] = ()) -> None:
    """Serves the page until it is interrupted; `names` as for `Policy`."""
    warnings.simplefilter("ignore", RetrievalWarning)  # the page says it to who asked
    app = make_app(library, host, names)
    print(f"{library.size} recordings: http://{host}:{port} (Ctrl-C ends it)", flush=True)
    config = uvicorn.Config(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=SECONDS_TO_END)
    with orderly_exit("start it again with"):
        uvicorn.Server(config).run()  # which hands on the signal that ended it
