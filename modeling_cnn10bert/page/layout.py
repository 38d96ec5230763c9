"""The page of Gradio: what can be asked, and where the answer appears."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import gradio as gr

from . import markup
from .answers import MAX_UPLOAD_BYTES, MAX_UPLOAD_SECONDS, Answer, Answers, QuestionError
from .pictures import frequency_ticks

TITLE = "Search sounds"
EXAMPLES = (
    "a dog barks while rain falls",
    "church bells are ringing",
    "someone knocks on a door",
    "an engine revs up",
    "thunder rolls, then a bird sings",
    "waves break on the shore",
)
TEXTS_AT_ONCE = 4  # answered at the same time; the others wait in a queue
RECORDINGS_AT_ONCE = 1
MAX_WAITING = 200
UPLOADS_KEPT = 3600  # seconds

FOLDER = Path(__file__).parent
HEAD = (  # the style too: of `css`, Gradio rewrites the selectors
    f"<style>{(FOLDER / 'style.css').read_text(encoding='utf-8')}</style>"
    f"<script>{(FOLDER / 'keyboard.js').read_text(encoding='utf-8')}</script>"
)
# Fonts of the system alone: a page that works offline asks nobody for another.
THEME = gr.themes.Base(
    primary_hue="indigo",
    neutral_hue="slate",
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
)


def make_page(answers: Answers, run: Callable[..., Awaitable]) -> gr.Blocks:
    """
    The page that asks for answers.

    Args:
        answers: of a library.
        run: has a function called, with the arguments that follow it, in a thread that such work is done in.
    """
    frequencies = frequency_ticks(answers.clip_cache.extractor)

    async def answer(question: Callable[..., Answer], *arguments: str) -> str:
        try:
            return markup.answer_html(await run(question, *arguments), frequencies)
        except QuestionError as error:
            return markup.problem(str(error))

    async def search(text: str, without: str) -> str:
        return await answer(answers.by_text, text or "", without or "")

    async def similar(recording: str | None) -> str:
        if recording is None:
            return markup.problem("Drop in a recording first.")
        return await answer(answers.by_recording, recording)

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(UPLOADS_KEPT, UPLOADS_KEPT)) as page:
        gr.HTML(
            f"<h1>{TITLE}</h1><p>Say what you want to hear, or drop in a recording that sounds like it.</p>",
            elem_id="top",
        )
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=280):
                text, without = _fields()
                buttons = _examples()
            with gr.Column(scale=2, min_width=280):
                recording = gr.File(label="Or drop in a recording", elem_id="recording", height=160)
                gr.HTML(
                    f"<p>At most {MAX_UPLOAD_SECONDS / 60:g} minutes and {MAX_UPLOAD_BYTES >> 20} MB. You get similar "
                    "recordings, and the captions that fit it.</p>",
                    elem_id="limits",
                )
        _refuse_addresses(recording)
        gr.HTML(
            "<p><kbd>↑</kbd> <kbd>↓</kbd> walk through the results and play them, <kbd>space</kbd> pauses, "
            "<kbd>/</kbd> leads back to the search field.</p>",
            elem_id="keys",
        )
        results = gr.HTML(markup.welcome(answers.library.size), elem_id="results")

        asked = {"fn": search, "inputs": [text, without], "outputs": results, "concurrency_limit": TEXTS_AT_ONCE}
        asked |= {"concurrency_id": "text", "show_progress": "minimal"}
        gr.on([text.submit, without.submit], **asked, api_name="search")
        for button in buttons:
            button.click(lambda words: words, button, text, queue=False, api_visibility="private").then(
                **asked, api_visibility="private"
            )
        recording.upload(
            similar,
            recording,
            results,
            concurrency_limit=RECORDINGS_AT_ONCE,
            show_progress="minimal",
            api_name="similar",
        )
    page.queue(max_size=MAX_WAITING)
    # Without it, Gradio 6.31 does not check that a path which a program names as its upload lies among the uploads.
    page.has_launched = True
    return page


def _refuse_addresses(upload: gr.File) -> None:
    """Gradio would fetch what a program names by an address instead of uploading it; here nothing is fetched."""
    keep = upload.async_move_resource_to_block_cache

    async def keep_upload(path: str | Path | None) -> str | None:
        if str(path).lower().startswith(("http:", "https:")):
            raise gr.Error("An address is no recording: upload the file itself.", print_exception=False)
        return await keep(path)

    upload.async_move_resource_to_block_cache = keep_upload


def _fields() -> tuple[gr.Textbox, gr.Textbox]:
    text = gr.Textbox(
        label="Describe a sound",
        placeholder="a dog barks while rain falls",
        max_lines=1,
        submit_btn="Search",
        autofocus=True,
        elem_id="text",
    )
    without = gr.Textbox(label="Without (optional)", placeholder="speech", max_lines=1, elem_id="without")
    return text, without


def _examples() -> list[gr.Button]:
    with gr.Row(elem_id="examples"):
        return [gr.Button(words, size="sm", min_width=0) for words in EXAMPLES]
