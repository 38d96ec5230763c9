"""The Gradio page with search field, upload and results; text from files and users is escaped."""

import functools
import html
import urllib.parse
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import gradio as gr
from jinja2 import Environment, PackageLoader

from ..retrieval.listing import clock
from .answers import HITS, MAX_UPLOAD_SECONDS, Answer, Answers, QuestionError
from .clips import LONGEST
from .pictures import Tick, frequency_ticks, time_ticks

TITLE = "Search sounds"
EXAMPLES = (
    "a dog barks while rain falls",
    "church bells are ringing",
    "someone knocks on a door",
    "an engine revs up",
    "thunder rolls, then a bird sings",
    "waves break on the shore",
)
# Names of the fields in the address of the page, in their order.
FIELDS = ("text", "without", "folder", "format", "shortest", "longest", "after", "before")
TEXTS_AT_ONCE = 4  # concurrent answers; other questions wait in a queue
RECORDINGS_AT_ONCE = 1
MAX_WAITING = 200
UPLOADS_KEPT = 3600  # seconds

FOLDER = Path(__file__).parent
STYLE = f"<style>{(FOLDER / 'style.css').read_text(encoding='utf-8')}</style>"  # Gradio rewrites the selectors of `css`
# Only system fonts, so that the page works offline.
THEME = gr.themes.Base(
    primary_hue="indigo",
    neutral_hue="slate",
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
)
TEMPLATES = Environment(loader=PackageLoader("modeling_cnn10bert", "page"), autoescape=True)
# Gradio inserts the value into its own template, in which these characters start an expression.
GRADIO_CHARACTERS = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;"})


def make_page(answers: Answers, run: Callable[..., Awaitable]) -> gr.Blocks:
    """
    Make the search page.

    Args:
        answers: answers questions about a sound library.
        run: calls a function with the given arguments in a worker thread.
    """
    frequencies = frequency_ticks(answers.clip_cache.extractor)
    max_bytes = answers.max_upload_bytes
    size_limit = f" and {max_bytes >> 20} MB" if max_bytes else ""

    # A question is (name of a method of `answers`, its arguments, values of the filter's fields, query of the page's
    # address, number of results), and kept for "Show ten more".
    async def answer(method: str, arguments: dict, filters: Sequence, query: str = "", count: int = HITS):
        try:
            ask = functools.partial(getattr(answers, method), **arguments, where=answers.filter(*filters), count=count)
            html = answer_html(await run(ask), frequencies, query)
        except QuestionError as error:
            return problem(str(error)), ()
        return html, (method, arguments, filters, query, count)

    async def search(text: str, without: str, *filters):
        fields = zip(FIELDS, (text, without, *filters), strict=True)
        query = urllib.parse.urlencode([(name, value) for name, value in fields if value], errors="replace")
        return await answer("by_text", {"text": text or "", "without": without or ""}, filters, query)

    async def similar(path: str | None, *filters):
        if path is None:
            return problem("Drop in a recording first."), (), None
        return *await answer("by_recording", {"path": path}, filters), None

    async def both(uploaded: str | None, spoken: str | None, weight: float, text: str, without: str, *filters):
        path = uploaded or spoken
        if path is None:
            return problem("Drop in or record a sound first."), ()
        texts = {"text": text or "", "without": without or ""}
        return await answer("by_text", {**texts, "like": path, "like_weight": weight}, filters)

    async def clicked(question: tuple, event: gr.EventData, *filters):
        if "similar" in event._data:
            return await answer("similar_to", {"key": str(event.similar)}, filters)
        if not question:
            return gr.skip(), ()
        return await answer(*question[:-1], question[-1] + HITS)

    async def restore(request: gr.Request):
        """Fill in the fields from the page's address, and answer its question."""
        values = {name: request.query_params.get(name) for name in FIELDS}
        if not any(values.values()):
            return [gr.skip()] * (len(FIELDS) + 2)
        values["folder"] = values["folder"] if values["folder"] in answers.folders else None
        values["format"] = values["format"] if values["format"] in answers.formats else None
        for name in ("shortest", "longest"):
            try:
                values[name] = max(0.0, float(values[name]))
            except (TypeError, ValueError):
                values[name] = 0
        found = await search(*values.values()) if values["text"] else (gr.skip(), ())
        return [*values.values(), *found]

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(UPLOADS_KEPT, UPLOADS_KEPT)) as page:
        gr.HTML(
            f"<h1>{TITLE}</h1><p>Say what you want to hear, or drop in a recording that sounds like it.</p>",
            elem_id="top",
        )
        # `gr.Audio` with its waveform loads and decodes each of ten clips at once, and its players take the arrow keys.
        # Clips and pictures of the results are loaded when they are played or come into view.
        results = gr.HTML(
            welcome(answers.library.size),
            elem_id="results",
            js_on_load=(FOLDER / "keyboard.js").read_text(encoding="utf-8"),
            max_bytes=max_bytes,
            render=False,
        )
        question = gr.State(())
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=280):
                text = gr.Textbox(
                    label="Describe a sound",
                    placeholder=EXAMPLES[0],
                    max_lines=1,
                    submit_btn="Search",
                    autofocus=True,
                    elem_id="text",
                )
                without = gr.Textbox(label="Without (optional)", placeholder="speech", max_lines=1, elem_id="without")
                with gr.Accordion("Filters", open=False, elem_id="filters"):
                    with gr.Row():
                        folder = gr.Dropdown([("any", ""), *answers.folders], value="", label="Folder")
                        form = gr.Dropdown([("any", ""), *answers.formats], value="", label="Format")
                    with gr.Row():
                        shortest = gr.Number(0, label="At least (s)", minimum=0, min_width=120)
                        longest = gr.Number(0, label="At most (s), 0 for any", minimum=0, min_width=120)
                    with gr.Row():
                        after = gr.Textbox(label="Changed on or after", placeholder="2024-07-01", min_width=120)
                        before = gr.Textbox(label="Changed before", placeholder="2025-01-01", min_width=120)
                filters = [folder, form, shortest, longest, after, before]
                fields = [text, without, *filters]
                answered = [results, question]
                submits = [field.submit for field in (text, without, shortest, longest, after, before)]
                gr.on(submits, search, fields, answered, show_progress="minimal", api_name="search")
                gr.Examples(
                    [[words, "", "", "", 0, 0, "", ""] for words in EXAMPLES],
                    inputs=fields,
                    outputs=answered,
                    fn=search,
                    run_on_click=True,
                    cache_examples=False,
                    visible_columns=[0],
                    api_visibility="private",
                )
            with gr.Column(scale=2, min_width=280):
                recording = gr.File(label="Or drop in a recording", elem_id="recording", height=160)
                spoken = gr.Audio(
                    sources=["microphone"],
                    type="filepath",
                    label="Or record a sound",
                    elem_id="spoken",
                    buttons=[],
                )
                gr.HTML(
                    f"<p>At most {MAX_UPLOAD_SECONDS / 60:g} minutes{size_limit}. You get similar recordings, and the "
                    "captions that fit it.</p>",
                    elem_id="limits",
                )
                weight = gr.Slider(0, 1, 0.5, step=0.05, label="Weight of the recording; the text has the rest")
                together = gr.Button("Search by recording and text", elem_id="together")
        gr.HTML(
            "<p><kbd>↑</kbd> <kbd>↓</kbd> walk through the results and play them, <kbd>space</kbd> pauses, "
            "<kbd>/</kbd> leads back to the search field.</p>"
            '<a id="playlist" download="favorites.m3u" hidden></a>',
            elem_id="keys",
        )
        results.render()
        once: dict = {"concurrency_limit": RECORDINGS_AT_ONCE, "show_progress": "minimal"}
        recording.upload(similar, [recording, *filters], [*answered, spoken], api_name="similar", **once)
        spoken.stop_recording(similar, [spoken, *filters], [*answered, recording], api_visibility="private", **once)
        together.click(both, [recording, spoken, weight, *fields], answered, api_visibility="private", **once)
        results.click(clicked, [question, *filters], answered, api_visibility="private", show_progress="minimal")
        page.load(restore, None, [*fields, *answered], api_visibility="private", show_progress="hidden")

    # Gradio would fetch a URL that a client sends instead of an upload; here nothing is fetched.
    for component in (recording, spoken):
        keep = component.async_move_resource_to_block_cache

        async def keep_upload(path: str | Path | None, keep: Callable[..., Awaitable] = keep) -> str | None:
            if str(path).lower().startswith(("http:", "https:")):
                raise gr.Error("An address is no recording: upload the file itself.", print_exception=False)
            return await keep(path)

        component.async_move_resource_to_block_cache = keep_upload
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=TEXTS_AT_ONCE)
    # Without it, Gradio 6.31 does not check that a path sent by a client as its upload is among the uploads.
    page.has_launched = True
    return page


def answer_html(answer: Answer, frequencies: Sequence[Tick], query: str = "") -> str:
    """
    Render an answer as a list of results, after the question if that is a recording.

    Args:
        answer: the answer to render.
        frequencies: ticks of the pictures' frequency axes.
        query: the question as the query of the page's address; empty if it cannot be asked by an address.
    """
    template = TEMPLATES.get_template("answer.html")
    return template.render(
        answer=answer, query=query, frequencies=frequencies, clock=clock, time_ticks=time_ticks, longest=LONGEST
    ).translate(GRADIO_CHARACTERS)


def problem(message: str) -> str:
    """Render one line that says what is wrong with a question."""
    text = html.escape(" ".join(message.split())).translate(GRADIO_CHARACTERS)
    return f'<p class="problem" role="alert">{text}</p>'


def welcome(recordings: int) -> str:
    """Render the line that is shown before the first question."""
    return (
        f'<p class="say" role="status">{recordings:,} recordings are ready. Describe a sound, click on an example, or '
        "drop in a recording.</p>"
    )
