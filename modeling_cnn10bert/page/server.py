"""Serve the page with Gradio, and the clips and pictures of the results."""

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
from typing import Annotated, Any

from ..files import scratch_folder

# Read when gradio is imported and when its app is made: no telemetry is sent, and uploads are deleted when the server
# ends or, if it was killed, when the next one starts.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
_at_exit = contextlib.ExitStack()
atexit.register(_at_exit.close)
UPLOADS = _at_exit.enter_context(scratch_folder(tempfile.gettempdir(), "cnn10bert-upload-"))
os.environ["GRADIO_TEMP_DIR"] = str(UPLOADS)

import gradio as gr  # noqa: E402
import uvicorn  # noqa: E402
from fastapi import FastAPI, HTTPException, Query, Response  # noqa: E402
from fastapi.responses import FileResponse, PlainTextResponse  # noqa: E402

from ..interrupts import orderly_exit  # noqa: E402
from ..retrieval.retriever import RetrievalWarning  # noqa: E402
from .answers import Answers  # noqa: E402
from .clip_cache import ClipCache  # noqa: E402
from .layout import STYLE, THEME, make_page  # noqa: E402
from .pictures import feature_extractor  # noqa: E402
from .sound_library import SoundLibrary  # noqa: E402

# The browser blocks requests of the page to other hosts; Gradio's pages need inline scripts.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; connect-src 'self' blob:; font-src 'self' data:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'"
)
# Number of threads for answers, clips and pictures. The 40 threads of an ASGI server would need more memory, because
# the libraries keep memory per thread.
WORKERS = 4
CACHED = {"Cache-Control": "private, max-age=3600"}
LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
SECONDS_TO_END = 3  # for answers in progress


class Policy:
    """
    Middleware that adds the policy to every response and only answers requests for this page by its name.

    Another site open in a visitor's browser could point its own name at this machine and read the answers (DNS
    rebinding), so the `Host` must be a known name. It could also send questions and files without reading the answers,
    so the `Origin` must be this page. Gradio's CORS headers are removed. Starlette's TrustedHostMiddleware checks
    neither an `Origin` nor a host like [::1]:7860.

    Args:
        app: the application.
        host: address that the server listens at.
        names: further names of the page, such as that of a proxy; `*` allows any.
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
        """Say in one line why a request is refused, if it is."""
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
    """Return the host of an address, without its port."""
    try:
        return urllib.parse.urlsplit(address).hostname
    except ValueError:
        return None


def hosts_of(host: str) -> set[str]:
    """Return the names and addresses of a server that listens at an address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a name
        return set(LOCAL) if host.lower() == "localhost" else {host.lower()}
    if address.is_loopback:
        return {str(address), *LOCAL}
    if not address.is_unspecified:
        return {str(address)}
    # All addresses of this machine, and its names.
    found = {*LOCAL, socket.gethostname().lower(), socket.getfqdn().lower()}
    with contextlib.suppress(OSError):
        found |= {entry[4][0].lower() for entry in socket.getaddrinfo(socket.gethostname(), None)}
    for family, somewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((somewhere, 9))  # sends nothing, but selects the local address
            found.add(probe.getsockname()[0])
    return found


def is_own_machine(host: str, names: Collection[str] = ()) -> bool:
    """Tell whether a page can only be reached from this machine; other names mean a proxy that leads to it."""
    try:
        return not names and ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return not names and host.lower() == "localhost"


def make_app(library: SoundLibrary, host: str = "127.0.0.1", names: Collection[str] = ()) -> FastAPI:
    """Make the ASGI app of a sound library; `host` and `names` as for `Policy`."""
    clip_cache = ClipCache(feature_extractor(library.retriever.store.info.model.features))
    answers = Answers(library, clip_cache, shared=not is_own_machine(host, names))
    app = FastAPI(title="cnn10bert", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Policy, host=host, names=names)

    workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="cnn10bert-page")

    async def run(function: Callable, *arguments) -> Any:
        return await asyncio.get_running_loop().run_in_executor(workers, function, *arguments)

    async def cached_file(make: Callable[[str], Path], key: str, media_type: str) -> FileResponse:
        try:
            return FileResponse(await run(make, key), media_type=media_type, headers=CACHED)
        except KeyError:
            raise HTTPException(404, "found by no answer, or long ago: ask again") from None
        except Exception as error:  # AudioError, or an unexpected error of a decoder or encoder
            raise HTTPException(410, "the recording is gone or cannot be read any more") from error

    @app.get("/playlist.m3u")
    async def playlist(key: Annotated[list[str], Query(max_length=1000)]) -> Response:
        headers = {"Content-Disposition": 'attachment; filename="favorites.m3u"'}
        return Response(await run(answers.playlist, key), media_type="audio/x-mpegurl", headers=headers)

    # Separate routes, because Gradio serves only existing files and these are made on request.
    @app.get("/clip/{key}")
    async def clip(key: str) -> FileResponse:
        return await cached_file(clip_cache.clip, key, "audio/flac")

    @app.get("/picture/{key}")
    async def picture(key: str) -> FileResponse:
        return await cached_file(clip_cache.picture, key, "image/png")

    return gr.mount_gradio_app(
        app,
        make_page(answers, run),
        path="/",
        theme=THEME,
        head=STYLE,
        max_file_size=answers.max_upload_bytes,
        ssr_mode=False,
        show_error=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=[],
    )


def serve(library: SoundLibrary, host: str = "127.0.0.1", port: int = 7860, names: Collection[str] = ()) -> None:
    """Serve the page until it is interrupted; `names` as for `Policy`."""
    warnings.simplefilter("ignore", RetrievalWarning)  # the page says so in a note
    app = make_app(library, host, names)
    print(f"{library.size} recordings: http://{host}:{port} (Ctrl-C ends it)", flush=True)
    config = uvicorn.Config(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=SECONDS_TO_END)
    with orderly_exit("start it again with"):
        uvicorn.Server(config).run()  # re-raises the signal that ended it
