"""Answers as HTML. Whatever comes from a file, a caption or a question is escaped."""

import html
from collections.abc import Sequence

from ..retrieval.listing import clock
from .answers import Answer, Found
from .pictures import Tick, time_ticks

CAPTIONS_SHOWN = 1
# Gradio fills the value into a template, and these begin what a template computes.
TEMPLATE_CHARACTERS = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;"})


def escape(text: str) -> str:
    """A text that is shown as it is, in an element or an attribute, whatever it holds."""
    return html.escape(text).translate(TEMPLATE_CHARACTERS)


def welcome(recordings: int) -> str:
    return (
        f'<p class="say" role="status">{recordings:,} recordings are ready. Describe a sound, click on an example, or '
        "drop in a recording.</p>"
    )


def problem(message: str) -> str:
    """One line that says what is wrong with a question."""
    return f'<p class="problem" role="alert">{escape(" ".join(message.split()))}</p>'


def answer_html(answer: Answer, frequencies: Sequence[Tick]) -> str:
    """
    The list of what was found, before it the question where that is a recording.

    Args:
        answer: what was found.
        frequencies: ticks of the pictures' axes.
    """
    kind = "recordings that sound like" if answer.recording else "recordings for"
    parts = [
        f'<p class="say" role="status">The {len(answer.found)} best {kind} “{escape(answer.question)}”</p>',
        *(f'<p class="note">{escape(note)}</p>' for note in answer.notes),
    ]
    if answer.recording:
        parts.append(_question(answer, frequencies))
    hits = "".join(_hit(rank, hit, frequencies) for rank, hit in enumerate(answer.found, start=1))
    return "".join(parts) + f'<ol class="hits" aria-label="Recordings, best first">{hits}</ol>'


def _question(answer: Answer, frequencies: Sequence[Tick]) -> str:
    """The recording that was dropped in, with the captions that fit it."""
    fitting = "".join(
        f'<li><span class="score">{tag.score:.3f}</span> {escape(tag.label)}</li>' for tag in answer.fitting
    )
    about = (
        f'<h3 class="name">{escape(answer.recording.name)}</h3><p class="place">your recording, '
        f"{_length(answer.recording)}</p><h4>What fits it best of {escape(answer.source)}</h4>"
        f'<ol class="fitting">{fitting}</ol>{_player(answer.recording, "your recording")}'
    )
    return f'<section class="asked" aria-label="Your recording">{_two(about, answer.recording, frequencies)}</section>'


def _hit(rank: int, hit: Found, frequencies: Sequence[Tick]) -> str:
    part = _part(hit)
    captions = "".join(f'<p class="caption">{escape(text)}</p>' for text in hit.captions[:CAPTIONS_SHOWN])
    about = (
        f'<p class="head"><span class="rank">{rank}</span><span class="name" title="{escape(hit.folder)}">'
        f'{escape(hit.name)}</span><span class="score" title="cosine of question and recording">{hit.score:.3f}</span>'
        f"</p>{captions}"
        f'<p class="place">{part}</p>{_player(hit, hit.name)}'
    )
    label = escape(f"{rank}: {hit.name}, score {hit.score:.3f}, {part}")
    return f'<li class="hit" tabindex="-1" aria-label="{label}">{_two(about, hit, frequencies)}</li>'


def _part(hit: Found) -> str:
    """Which part of a recording was found."""
    whole = hit.start == 0 and hit.end >= hit.duration
    return f"{clock(hit.start)} – {clock(hit.end)}, " + ("all of it" if whole else f"of {clock(hit.duration)}")


def _two(about: str, found: Found, frequencies: Sequence[Tick]) -> str:
    return f'<div class="about">{about}</div>{_picture(found, frequencies)}'


def _length(found: Found) -> str:
    shown = f", of which you see and hear the first {clock(found.end)}" if found.end < found.duration else ""
    return f"{clock(found.duration)}{shown}"


def _player(found: Found, name: str) -> str:
    if found.key is None:
        return '<p class="problem">This file is gone: it was moved or deleted after it was indexed.</p>'
    label = escape(f"Play {name}")
    return f'<audio controls preload="none" src="clip/{found.key}" aria-label="{label}"></audio>'


def _picture(found: Found, frequencies: Sequence[Tick]) -> str:
    """The log-mel between its axes, and the line that moves over it while the clip plays."""
    if found.key is None:
        return ""
    rows = "".join(f'<span style="bottom:{100 * at:.1f}%">{text}</span>' for text, at in frequencies)
    columns = "".join(
        f'<span style="left:{100 * at:.1f}%">{text}</span>' for text, at in time_ticks(found.start, found.end)
    )
    label = escape(f"Log-mel spectrogram of {found.name}")
    return (
        f'<figure class="mel"><div class="hertz" aria-hidden="true">{rows}</div><div class="cells">'
        f'<img loading="lazy" src="picture/{found.key}" alt="{label}"><i class="now"></i></div>'
        f'<div class="seconds" aria-hidden="true">{columns}</div></figure>'
    )
