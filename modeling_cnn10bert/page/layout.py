"""The Gradio page with search field, upload and results; text from files and users is escaped."""

import html
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import gradio as gr
from jinja2 import Environment, PackageLoader

from ..retrieval.listing import clock
from .answers import MAX_UPLOAD_SECONDS, Answer, Answers, QuestionError
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

    async def answer(question: Callable[..., Answer], *arguments: str) -> str:
        try:
            return answer_html(await run(question, *arguments), frequencies)
        except QuestionError as error:
            return problem(str(error))

    async def search(text: str, without: str) -> str:
        return await answer(answers.by_text, text or "", without or "")

    async def similar(recording: str | None) -> str:
        if recording is None:
            return problem("Drop in a recording first.")
        return await answer(answers.by_recording, recording)

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
                gr.on([text.submit, without.submit], search, [text, without], results, show_progress="minimal")
                gr.Examples(
                    [[words, ""] for words in EXAMPLES],
                    inputs=[text, without],
                    outputs=results,
                    fn=search,
                    run_on_click=True,
                    cache_examples=False,
                    visible_columns=[0],
                    api_visibility="private",
                )
            with gr.Column(scale=2, min_width=280):
                recording = gr.File(label="Or drop in a recording", elem_id="recording", height=160)
                gr.HTML(
                    f"<p>At most {MAX_UPLOAD_SECONDS / 60:g} minutes"
                    f"{f' and {max_bytes >> 20} MB' if max_bytes else ''}. You get similar recordings, and the captions "
                    "that fit it.</p>",
                    elem_id="limits",
                )
        gr.HTML(
            "<p><kbd>↑</kbd> <kbd>↓</kbd> walk through the results and play them, <kbd>space</kbd> pauses, "
            "<kbd>/</kbd> leads back to the search field.</p>",
            elem_id="keys",
        )
        results.render()
        recording.upload(similar, recording, results, concurrency_limit=RECORDINGS_AT_ONCE, show_progress="minimal")

    # Gradio would fetch a URL that a client sends instead of an upload; here nothing is fetched.
    keep = recording.async_move_resource_to_block_cache

    async def keep_upload(path: str | Path | None) -> str | None:
        if str(path).lower().startswith(("http:", "https:")):
            raise gr.Error("An address is no recording: upload the file itself.", print_exception=False)
        return await keep(path)

    recording.async_move_resource_to_block_cache = keep_upload
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=TEXTS_AT_ONCE)
    # Without it, Gradio 6.31 does not check that a path sent by a client as its upload is among the uploads.
    page.has_launched = True
    return page


def answer_html(answer: Answer, frequencies: Sequence[Tick]) -> str:
    """
    Render an answer as a list of results, after the question if that is a recording.

    Args:
        answer: the answer to render.
        frequencies: ticks of the pictures' frequency axes.
    """
    template = TEMPLATES.get_template("answer.html")
    return template.render(
        answer=answer, frequencies=frequencies, clock=clock, time_ticks=time_ticks, longest=LONGEST
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
