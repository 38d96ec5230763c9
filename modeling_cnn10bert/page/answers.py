"""Answer the page's questions, which are texts or recordings."""

import dataclasses
import datetime
import os
from collections.abc import Sequence

import numpy as np
import soundfile

from ..data.audio_io import printable
from ..errors import AudioError, InputError, RetrievalError, UnreadableError
from ..retrieval.listing import listing
from ..retrieval.records import Hit, SearchFilter, Tag
from ..retrieval.retriever import LOW_Z_SCORE, MAX_TEXT, mean_embedding, text_and_sound, without_words
from ..retrieval.windows import read_windows
from .clip_cache import ClipCache
from .clips import Span
from .sound_library import SoundLibrary

HITS = 10
FITTING = 5  # captions shown for an uploaded recording
TAGS = 3  # captions shown for a result
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
        tags: the captions of the collection that fit the part best, best first.
        key: key of its clip and picture in the clip cache; `None` if the file is gone.
    """

    name: str
    folder: str
    score: float | None
    start: float
    end: float
    duration: float
    captions: Sequence[str] = ()
    tags: Sequence[Tag] = ()
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
        similar: the results are similar to a recording.
        more: there may be further results.
    """

    question: str
    found: Sequence[Found]
    notes: Sequence[str] = ()
    recording: Found | None = None
    fitting: Sequence[Tag] = ()
    source: str = ""
    similar: bool = False
    more: bool = False


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
        self.formats = sorted({record.format for record in library.retriever.store.files().values()})
        self.root = os.path.commonpath(folders) if folders else os.sep
        self.shared = shared
        below = {folder for folder in folders if folder != self.root}
        while parents := {os.path.dirname(folder) for folder in below} - below - {self.root}:
            below |= parents
        self.folders = {self.folder_name(folder): folder for folder in sorted(below)}

    def filter(
        self,
        folder: str | None = None,
        format: str | None = None,
        shortest: float | None = None,
        longest: float | None = None,
        after: str | None = None,
        before: str | None = None,
    ) -> SearchFilter:
        """
        Return the filter that the page's fields describe; an empty field does not restrict.

        Args:
            folder: one of `folders`.
            format: one of `formats`.
            shortest, longest: duration of the recording in seconds; 0 does not restrict either.
            after, before: days of its last change, as YYYY-MM-DD; the first inclusive, the second exclusive.

        Raises:
            QuestionError: a folder that is not of the collection, no date, or a minimum above its maximum.
        """
        if folder and folder not in self.folders:
            raise QuestionError(f"The collection has no folder {folder}.")
        days = []
        for day in (after, before):
            try:
                days.append(datetime.date.fromisoformat(day.strip()) if day and day.strip() else None)
            except ValueError:
                raise QuestionError(f"“{_shortened(day)}” is not a date; write it as 2024-07-01.") from None
        if shortest and longest and shortest > longest:
            raise QuestionError(f"The shortest duration, {shortest:g} s, is above the longest, {longest:g} s.")
        if None not in days and days[0] >= days[1]:
            raise QuestionError(f"No day is on or after {days[0]} and before {days[1]}.")
        return SearchFilter(
            min_duration=shortest or None,
            max_duration=longest or None,
            folders=(self.folders[folder],) if folder else (),
            formats=(format,) if format else (),
            modified_after=days[0],
            modified_before=days[1],
        )

    def by_text(
        self,
        text: str,
        without: str = "",
        where: SearchFilter | None = None,
        count: int = HITS,
        like: str | None = None,
        like_weight: float = 0.5,
    ) -> Answer:
        """
        Find the recordings that a text describes, or that match a text and a recording together.

        Args:
            text: description of the sound.
            without: a sound to exclude; may be empty.
            where: filter of the recordings.
            count: number of results.
            like: path of an upload.
            like_weight: weight of the upload, from 0 to 1; the text has the rest.

        Raises:
            QuestionError: a text has no word, both are the same, or the upload cannot be used.
        """
        texts = [_checked(text, "what is to be heard, such as: a dog barks")]
        if without.strip():
            texts.append(_checked(without, "what is not to be heard, or leave that field empty"))
        retriever = self.library.retriever
        upload_notes: list[str] = []
        try:
            # The retriever also checks the texts.
            hits = retriever.search(texts[0][:MAX_TEXT], count, where, texts[1][:MAX_TEXT] if texts[1:] else None)
            if like is not None:
                sound = self._embed_upload(like, printable(os.path.basename(like)), upload_notes)[0]
                embeds = retriever.embed_text(texts)
                query = text_and_sound(embeds[:1], mean_embedding(sound), like_weight)
                query = without_words(query, embeds[1:])[0]
                hits = retriever.store.search(query, count, where)
        except RetrievalError as error:
            raise QuestionError(str(error)) from error
        notes = [
            f"Of these {len(words.split()):,} words, only the beginning counts: the model reads no more."
            for words in texts
            if len(words) > MAX_TEXT or retriever.embedder.is_cut(words)
        ]
        notes += [f"{hint[0].upper()}{hint[1:]}." for hint in retriever.hints(texts[:1], texts[1:])]
        if like is None and hits and hits[0].z_score is not None and hits[0].z_score < LOW_Z_SCORE:
            notes.append("No recording fits these words better than it fits descriptions of other sounds.")
        question = " without ".join(map(_shortened, texts))
        if like is not None:
            name = printable(os.path.basename(like))
            question += f" and {name} ({like_weight:.0%} of the weight)"
            notes += [f"Of {name}: {note}." for note in upload_notes]
        return Answer(question, [self._found(hit) for hit in hits], notes, more=len(hits) == count)

    def similar_to(self, key: str, where: SearchFilter | None = None, count: int = HITS) -> Answer:
        """
        Find the recordings most similar to a result.

        Args:
            key: key of the result.
            where, count: as in `by_text`.

        Raises:
            QuestionError: the key is unknown or too old, or the recording is gone.
        """
        try:
            path = self.clip_cache.span(key).path
            hits = self.library.retriever.similar(path, count, where)
        except KeyError:
            raise QuestionError("That result is of an old answer; ask again.") from None
        except (AudioError, RetrievalError) as error:
            raise QuestionError("That recording is gone or cannot be read any more.") from error
        name = printable(os.path.basename(path))
        return Answer(name, [self._found(hit) for hit in hits], similar=True, more=len(hits) == count)

    def playlist(self, keys: Sequence[str]) -> bytes:
        """Return an M3U playlist of results by their keys, without those that are unknown or gone.

        Its paths are relative to the collection's folder if the page is served to others.
        """
        store, hits = self.library.retriever.store, []
        for key in keys:
            try:
                span = self.clip_cache.span(key)
            except KeyError:
                continue
            for file in store.embedded([span.path]):
                name = os.path.relpath(span.path, self.root) if self.shared else span.path
                record = dataclasses.replace(file.record, path=name)
                hits.append(Hit(record, 0.0, span.start, span.end, file.embeds[0]))
        return listing(hits, "m3u")

    def by_recording(self, path: str, where: SearchFilter | None = None, count: int = HITS) -> Answer:
        """
        Find the recordings most similar to an upload, and the captions that fit it.

        Args:
            path: path of the upload.
            where, count: as in `by_text`.

        Raises:
            QuestionError: it is not a recording, or is empty, damaged or too long.
        """
        name = printable(os.path.basename(path))
        notes: list[str] = []
        embeds, duration = self._embed_upload(path, name, notes)
        store = self.library.retriever.store
        hits = store.search(mean_embedding(embeds), count, where)
        span = Span(path, 0.0, min(duration, store.info.window))
        return Answer(
            question=name,
            found=[self._found(hit) for hit in hits],
            notes=[f"Of {name}: {note}." for note in notes],
            recording=Found(name, "", None, span.start, span.end, duration, key=self.clip_cache.put(span)),
            fitting=self.library.tagger.best(embeds, FITTING),
            source=self.library.captions.source,
            similar=True,
            more=len(hits) == count,
        )

    def _embed_upload(self, path: str, name: str, notes: list[str]) -> tuple[np.ndarray, float]:
        """Embed the windows of an upload, [W, D]; also return its duration in seconds. `notes` as for `load_audio`."""
        _check_upload(path, name, self.max_upload_bytes)
        info, embedder = self.library.retriever.store.info, self.library.retriever.embedder
        embeds, end = [], 0.0
        try:
            windows = read_windows(path, embedder.sampling_rate, info.window, info.overlap, notes, info.normalize_level)
            for _, end, waveform in windows:
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
            tags=self.library.tagger.best(hit.embed, TAGS),
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
