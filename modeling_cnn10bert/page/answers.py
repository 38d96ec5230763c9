"""Answer the page's questions, which are texts or recordings."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np
import soundfile

from ..data.audio_io import printable
from ..errors import AudioError, InputError, RetrievalError, UnreadableError
from ..retrieval.records import Hit
from ..retrieval.retriever import MAX_TEXT
from ..retrieval.tags import Tag
from ..retrieval.windows import read_windows
from .clip_cache import ClipCache
from .clips import Span
from .sound_library import SoundLibrary

HITS = 10
FITTING = 5  # captions shown for an uploaded recording
MAX_UPLOAD_BYTES = 50 << 20
MAX_UPLOAD_SECONDS = 300.0
MAX_UPLOAD_VALUES = 300 * 192_000 * 2  # samples over all channels; a small file may hold long silence
MAX_SHOWN = 80  # characters of a question


class QuestionError(InputError):
    """A question cannot be answered; the message is one line for the user."""


@dataclasses.dataclass(frozen=True)
class Found:
    """
    A recording, or a part of it, as the page shows it.

    Attributes:
        name: name of its file, printable.
        folder: folder of the file, printable; within the collection if the page is served to others.
        score: cosine with the question; `None` for the question itself.
        start, end: start and end of the part, in seconds.
        duration: duration of the whole recording, in seconds.
        captions: its captions, empty if unknown.
        key: key of its clip and picture in the clip cache; `None` if the file is gone.
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
    Answer to a question.

    Attributes:
        question: the question as shown on the page.
        found: results, best first.
        notes: notes for the user, one sentence each.
        recording: the question, if it was a recording.
        fitting: captions that fit it, best first.
        source: source of these captions.
    """

    question: str
    found: Sequence[Found]
    notes: Sequence[str] = ()
    recording: Found | None = None
    fitting: Sequence[Tag] = ()
    source: str = ""


class Answers:
    """
    Answers questions about a sound library; thread-safe.

    Args:
        library: the library to search.
        clip_cache: provides the clips and pictures of the results.
        shared: the page is served to other machines, so uploads are limited in size and folders shown within the
            collection.
    """

    def __init__(self, library: SoundLibrary, clip_cache: ClipCache, shared: bool = True):
        self.library = library
        self.clip_cache = clip_cache
        self.max_upload_bytes = MAX_UPLOAD_BYTES if shared else None
        folders = {record.folder for record in library.retriever.store.files().values()}
        self.root = os.path.commonpath(folders) if folders else os.sep
        self.shared = shared

    def by_text(self, text: str, without: str = "") -> Answer:
        """
        Find the recordings that a text describes.

        Args:
            text: description of the sound.
            without: a sound to exclude; may be empty.

        Raises:
            QuestionError: a text has no word, or both are the same.
        """
        texts = [_checked(text, "what is to be heard, such as: a dog barks")]
        if without.strip():
            texts.append(_checked(without, "what is not to be heard, or leave that field empty"))
        retriever = self.library.retriever
        try:
            hits = retriever.search(texts[0][:MAX_TEXT], HITS, without=texts[1][:MAX_TEXT] if len(texts) > 1 else None)
        except RetrievalError as error:
            raise QuestionError(str(error)) from error
        notes = [
            f"Of these {len(words.split()):,} words, only the beginning counts: the model reads no more."
            for words in texts
            if len(words) > MAX_TEXT or retriever.embedder.is_cut(words)
        ]
        return Answer(" without ".join(map(_shortened, texts)), [self._found(hit) for hit in hits], notes)

    def by_recording(self, path: str) -> Answer:
        """
        Find the recordings most similar to an upload, and the captions that fit it.

        Args:
            path: path of the upload.

        Raises:
            QuestionError: it is not a recording, or is empty, damaged or too long.
        """
        name = printable(os.path.basename(path))
        notes: list[str] = []
        embeds, duration = self._embed_upload(path, name, notes)
        mean = embeds.mean(axis=0)
        mean /= max(float(np.linalg.norm(mean)), 1e-6)
        store = self.library.retriever.store
        span = Span(path, 0.0, min(duration, store.info.window))
        return Answer(
            question=name,
            found=[self._found(hit) for hit in store.search(mean, HITS)],
            notes=[f"Of {name}: {note}." for note in notes],
            recording=Found(name, "", None, span.start, span.end, duration, key=self.clip_cache.put(span)),
            fitting=self.library.tagger.best(embeds, FITTING),
            source=self.library.captions.source,
        )

    def _embed_upload(self, path: str, name: str, notes: list[str]) -> tuple[np.ndarray, float]:
        """Embed the windows of an upload, [W, D]; also return its duration in seconds. `notes` as for `load_audio`."""
        _check_upload(path, name, self.max_upload_bytes)
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
        except Exception as error:  # an unexpected error of a decoder or the model
            raise QuestionError(f"{name} cannot be used: it makes the program that reads it fail.") from error
        return np.concatenate(embeds), end

    def folder_name(self, folder: str) -> str:
        """Return a folder as the page shows it: its path, or that within the collection if others see the page."""
        if not self.shared:
            return printable(folder)
        return printable("" if folder == self.root else os.path.relpath(folder, self.root))

    def _found(self, hit: Hit) -> Found:
        return Found(
            name=printable(os.path.basename(hit.file)),
            folder=self.folder_name(hit.record.folder),
            score=hit.score,
            start=hit.start,
            end=hit.end,
            duration=hit.record.duration,
            captions=self.library.captions.of(hit.file),
            key=self.clip_cache.put(Span(hit.file, hit.start, hit.end)) if os.path.isfile(hit.file) else None,
        )


def _check_upload(path: str, name: str, max_bytes: int | None) -> None:
    """Refuse a file that is empty, or too large to decode by its size or its header."""
    size = os.path.getsize(path)
    if size == 0:
        raise QuestionError(f"{name} is empty: 0 bytes.")
    if max_bytes is not None and size > max_bytes:
        raise QuestionError(f"{name} has {size >> 20} MB; the limit is {max_bytes >> 20} MB.")
    try:
        header = soundfile.info(os.fsencode(path))
    except (soundfile.SoundFileError, OSError, TypeError, ValueError):
        return  # libsndfile cannot read it; decoding says what it is
    # A header may state any length, so the limit on the length is checked while decoding.
    values = min(header.frames, round(MAX_UPLOAD_SECONDS * header.samplerate)) * header.channels
    if values > MAX_UPLOAD_VALUES:
        raise QuestionError(
            f"{name} has {header.channels} channels of {header.samplerate:,} samples a second, too many to be decoded "
            "here; save it with one channel at 48 kHz."
        )


def _reason(error: AudioError | RetrievalError, path: str) -> str:
    """Say why an upload cannot be used, without its path on this machine and without advice for local files."""
    if isinstance(error, UnreadableError):
        return "it cannot be read now; try again"
    if isinstance(error, AudioError) and error.__cause__ is not None:  # a decoder's own message does not help the user
        return "it does not decode as wav, flac, ogg, mp3 or any other format that is known here"
    return str(error).removeprefix(f"{printable(path)}: ").split("; ")[0]


def _checked(text: str, expected: str) -> str:
    """Return a text with lone surrogates replaced, which tokenizers refuse; raise if it has no word."""
    text = text.encode("utf-8", "replace").decode("utf-8").strip()
    if not any(character.isalnum() for character in text):
        found = f"“{_shortened(text)}” has no word in it. " if text else ""
        raise QuestionError(f"{found}Say in words {expected}.")
    return text


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1].rstrip()}…"
