"""Answers as HTML; whatever comes from a file, a caption or a question is escaped."""

import html
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader

from ..retrieval.listing import clock
from .answers import Answer
from .pictures import Tick, time_ticks

TEMPLATES = Environment(loader=PackageLoader("modeling_cnn10bert", "page"), autoescape=True)
# Gradio fills the value into a template of its own, in which these characters begin what is computed.
GRADIO_CHARACTERS = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;"})


def answer_html(answer: Answer, frequencies: Sequence[Tick]) -> str:
    """
    Write an answer as the list of what was found, with the question before it where that is a recording.

    Args:
        answer: to write.
        frequencies: ticks of the pictures' axes.
    """
    template = TEMPLATES.get_template("answer.html")
    return template.render(answer=answer, frequencies=frequencies, clock=clock, time_ticks=time_ticks).translate(
        GRADIO_CHARACTERS
    )


def problem(message: str) -> str:
    """Write one line that says what is wrong with a question."""
    text = html.escape(" ".join(message.split())).translate(GRADIO_CHARACTERS)
    return f'<p class="problem" role="alert">{text}</p>'


def welcome(recordings: int) -> str:
    """Write the line that is shown before the first question."""
    return (
        f'<p class="say" role="status">{recordings:,} recordings are ready. Describe a sound, click on an example, or '
        "drop in a recording.</p>"
    )
