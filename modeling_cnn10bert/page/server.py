"""The server of the page: Gradio's page, and beside it the clips and pictures of what was found."""

import asyncio
import os
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# Read when gradio is imported and when its app is made: nothing is sent home, and uploads go when the server does.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
UPLOADS = tempfile.TemporaryDirectory(prefix="cnn10bert-uploads-")
os.environ["GRADIO_TEMP_DIR"] = UPLOADS.name

import gradio as gr  # noqa: E402
import uvicorn  # noqa: E402
from fastapi import FastAPI, HTTPException  # noqa: E402
from fastapi.responses import FileResponse  # noqa: E402

from ..data.audio_io import AudioError  # noqa: E402
from ..retrieval.retriever import RetrievalWarning  # noqa: E402
from .answers import MAX_UPLOAD_BYTES, Answers  # noqa: E402
from .collection import Collection  # noqa: E402
from .layout import HEAD, THEME, make_page  # noqa: E402
from .pictures import feature_extractor  # noqa: E402
from .shelf import Shelf  # noqa: E402

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
NOT_FOUND = "found by no answer, or long ago: ask again"


class Policy:
    """Adds the policy to every answer."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_with_headers(message):
            if message["type"] == "http.response.start":
                extra = [(b"content-security-policy", POLICY.encode()), (b"x-content-type-options", b"nosniff")]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        await self.app(scope, receive, send_with_headers)


def make_app(collection: Collection) -> FastAPI:
    """The app of a collection, for any ASGI server."""
    shelf = Shelf(feature_extractor(collection.retriever.store.info.model.features))
    app = FastAPI(title="cnn10bert", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Policy)

    workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="cnn10bert-page")

    async def run(function: Callable, *arguments) -> Any:
        return await asyncio.get_running_loop().run_in_executor(workers, function, *arguments)

    @app.get("/clip/{key}")
    async def clip(key: str) -> FileResponse:
        return FileResponse(await run(_from_shelf, shelf.clip, key), media_type="audio/flac", headers=CACHED)

    @app.get("/picture/{key}")
    async def picture(key: str) -> FileResponse:
        return FileResponse(await run(_from_shelf, shelf.picture, key), media_type="image/png", headers=CACHED)

    page = make_page(Answers(collection, shelf), run)
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        theme=THEME,
        head=HEAD,
        max_file_size=MAX_UPLOAD_BYTES,
        ssr_mode=False,
        show_error=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=[],
    )


def _from_shelf(make: Callable[[str], Path], key: str) -> Path:
    try:
        return make(key)
    except KeyError:
        raise HTTPException(404, NOT_FOUND) from None
    except AudioError as error:
        raise HTTPException(410, "the recording is gone or cannot be read any more") from error


def serve(collection: Collection, host: str = "127.0.0.1", port: int = 7860) -> None:
    """Serves the page until it is interrupted."""
    warnings.simplefilter("ignore", RetrievalWarning)  # the page says it to who asked
    app = make_app(collection)
    print(f"{collection.size} recordings: http://{host}:{port} (Ctrl-C ends it)", flush=True)
    uvicorn.run(app, host=host, port=port, log_level="warning")
