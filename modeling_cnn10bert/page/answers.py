"""From a question, in words or as a recording, to what the page shows."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np
import soundfile

from ..data.audio_io import printable
from ..errors import AudioError, InputError, RetrievalError, UnreadableError
from ..retrieval.retriever import MAX_TEXT
from ..retrieval.tags import Tag
from ..retrieval.windows import read_windows
from .clip_cache import ClipCache
from .clips import Span
from .sound_library import SoundLibrary

HITS = 10
FITTING = 5  # captions shown of a recording that was dropped in
MAX_UPLOAD_BYTES = 50 << 20
MAX_UPLOAD_SECONDS = 300.0
MAX_UPLOAD_VALUES = 300 * 192_000 * 2  # samples over all channels: silence of any size is a small file


class QuestionError(InputError):
    """A question cannot be answered; the message is one line for who asked it."""


@dataclasses.dataclass(frozen=True)
class Found:
    """
    A recording, or a part of it, as the page shows it.

    Attributes:
        name: of its file, printable.
        folder: in which that is, printable.
        score: cosine with the question; `None` of the question itself.
        start, end: the part, in seconds.
        duration: of the whole recording, in seconds.
        captions: its own, as far as they are known.
        key: of its clip and picture in the clip cache; `None` where the file is gone.
    """

    name: str
    folder: str
    score: float | None
    start: float
    end: float
    duration: float
    captions: Sequence[str] = ()
    key: str | None = None


@dataclasses.dataclass(frozen=True)
class Answer:
    """
    Attributes:
        question: as the page repeats it.
        found: best first.
        notes: what who asked should know, a sentence each.
        recording: the question, where it was a recording.
        fitting: captions that fit it, best first.
        source: where they are from.
    """

    question: str
    found: Sequence[Found]
    notes: Sequence[str] = ()
    recording: Found | None = None
    fitting: Sequence[Tag] = ()
    source: str = ""


class Answers:
    """
    Answers questions about a collection; can be asked by several threads at the same time.

    Args:
        library: what is searched.
        clip_cache: where clips and pictures of what is found can be fetched.
    """

    def __init__(self, library: SoundLibrary, clip_cache: ClipCache):
        self.library = library
        self.clip_cache = clip_cache

    def by_text(self, text: str, without: str = "") -> Answer:
        """
        The recordings that a text describes.

        Args:
            text: what is to be heard.
            without: what is not; may be empty.

        Raises:
            QuestionError: a text without a word, or the same in both.
        """
        text, without = _checked(text, "what is to be heard, such as: a dog barks"), without.strip()
        unwanted = _checked(without, "what is not to be heard, or leave that field empty") if without else None
        notes = [note for words in (text, unwanted or "") for note in self._notes(words)]
        question = _shortened(text) + (f" without {_shortened(unwanted)}" if unwanted else "")
        try:
            hits = self.library.retriever.search(
                text[:MAX_TEXT], HITS, without=None if unwanted is None else unwanted[:MAX_TEXT]
            )
        except RetrievalError as error:
            raise QuestionError(str(error)) from error
        return Answer(question, self._found(hits), notes)

    def by_recording(self, path: str) -> Answer:
        """
        The recordings that sound most like one, and the captions that fit it.

        Args:
            path: of an upload.

        Raises:
            QuestionError: it is no recording, or an empty, damaged or too long one.
        """
        name = printable(os.path.basename(path))
        notes: list[str] = []
        embeds, duration = self._embed(path, name, notes)
        mean = embeds.mean(axis=0)
        mean /= max(float(np.linalg.norm(mean)), 1e-6)
        window = self.library.retriever.store.info.window
        span = Span(path, 0.0, min(duration, window))
        recording = Found(name, "", None, span.start, span.end, duration, (), self.clip_cache.put(span))
        return Answer(
            question=name,
            found=self._found(self.library.retriever.store.search(mean, HITS)),
            notes=[f"Of {name}: {note}." for note in notes],
            recording=recording,
            fitting=self.library.tagger.best(embeds, FITTING),
            source=self.library.captions.source,
        )

    def _notes(self, text: str) -> list[str]:
        cut = len(text) > MAX_TEXT or self.library.retriever.embedder.is_cut(text)
        return [f"Of these {len(text.split()):,} words, only the beginning counts: the model reads no more."] * cut

    def _embed(self, path: str, name: str, notes: list[str]) -> tuple[np.ndarray, float]:
        """The windows of an upload [W, D], and its duration in seconds; `notes` as for `load_audio`."""
        size = os.path.getsize(path)
        if size == 0:
            raise QuestionError(f"{name} is empty: 0 bytes.")
        if size > MAX_UPLOAD_BYTES:
            raise QuestionError(f"{name} has {size >> 20} MB; the limit is {MAX_UPLOAD_BYTES >> 20} MB.")
        _check_header(path, name)
        info, embedder = self.library.retriever.store.info, self.library.retriever.embedder
        embeds, end = [], 0.0
        try:
            for _, end, waveform in read_windows(path, embedder.sampling_rate, info.window, info.overlap, notes):
                if end > MAX_UPLOAD_SECONDS:
                    raise QuestionError(
                        f"{name} is longer than {MAX_UPLOAD_SECONDS / 60:g} minutes, which is the limit; cut out the "
                        "part that you want to find."
                    )
                embeds.append(embedder.embed_audio([waveform]))
        except (AudioError, RetrievalError) as error:
            raise QuestionError(f"{name} cannot be used: {_reason(error, path)}.") from error
        except QuestionError:
            raise
        except Exception as error:  # a decoder or the model met what it was not made for
            raise QuestionError(f"{name} cannot be used: it makes the program that reads it fail.") from error
        return np.concatenate(embeds), end

    def _found(self, hits) -> list[Found]:
        return [
            Found(
                name=printable(os.path.basename(hit.file)),
                folder=printable(os.path.dirname(hit.file)),
                score=hit.score,
                start=hit.start,
                end=hit.end,
                duration=hit.record.duration,
                captions=self.library.captions.of(hit.file),
                key=self.clip_cache.put(Span(hit.file, hit.start, hit.end)) if os.path.isfile(hit.file) else None,
            )
            for hit in hits
        ]


def _check_header(path: str, name: str) -> None:
    """
    Raises:
        QuestionError: what a recording says of itself is too much to be decoded.
    """
    try:
        header = soundfile.info(os.fsencode(path))
    except (soundfile.SoundFileError, OSError, TypeError, ValueError):
        return  # nothing that libsndfile reads: decoding says what it is
    # A header may promise any length; what is longer is refused when so much is decoded.
    values = min(header.frames, round(MAX_UPLOAD_SECONDS * header.samplerate)) * header.channels
    if values > MAX_UPLOAD_VALUES:
        raise QuestionError(
            f"{name} has {header.channels} channels of {header.samplerate:,} samples a second, too many to be decoded "
            "here; save it with one channel at 48 kHz."
        )


def _reason(error: AudioError | RetrievalError, path: str) -> str:
    """Why an upload cannot be used, without its path here and without advice for files of one's own."""
    if isinstance(error, UnreadableError):
        return "it cannot be read now; try again"
    if isinstance(error, AudioError) and error.__cause__ is not None:  # a decoder's own words, which help nobody
        return "it does not decode as wav, flac, ogg, mp3 or any other format that is known here"
    return str(error).removeprefix(f"{printable(path)}: ").split("; ")[0]


def _checked(text: str, expected: str) -> str:
    """A text with a word in it, and no half of a surrogate pair, which no tokenizer takes."""
    text = text.encode("utf-8", "replace").decode("utf-8").strip()
    if not any(character.isalnum() for character in text):
        found = f"“{_shortened(text)}” has no word in it. " if text else ""
        raise QuestionError(f"{found}Say in words {expected}.")
    return text


def _shortened(text: str, length: int = 80) -> str:
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"
