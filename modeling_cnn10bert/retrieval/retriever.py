"""`AudioRetriever`: index your own sounds, and search them by a text or by a sound."""

import contextlib
import dataclasses
import functools
import io
import os
import re
import tempfile
import threading
import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ..errors import MissingIndexError, RetrievalError
from ..masking import without_secrets
from .embedding import BATCH_SIZE, Embedder, check_same_model, load_embedder
from .everyday_sounds import EVERYDAY_SOUNDS
from .indexing import BATCH_SECONDS, COMMIT_SECONDS, WORKERS, IndexReport, forget, index_folders
from .records import EmbeddedFile, Hit, IndexInfo, SearchFilter, Tag, file_stamp
from .stores import VectorStore, open_store

if TYPE_CHECKING:
    import torch


WITHOUT_WEIGHT = 0.8  # of the excluded concept; see `without_words`
MAX_TEXT = 4000  # characters of a text that are tokenized; models read 32 to 512 tokens
LOW_Z_SCORE = 1.0  # of the best hit, below which nothing in the index fits a text (docs/notes.md)
NEGATION = re.compile(r"\b(no|not|without|except|excluding|never|neither|nor)\b|n't\b", re.IGNORECASE)


class RetrievalWarning(UserWarning):
    """A warning about a query or an index; the result is valid all the same."""


class AudioRetriever:
    """
    An index of recordings with the model that searches it.

        retriever = AudioRetriever.from_pretrained("runs/demo", index="sounds.index")
        retriever.index(["~/sounds"])
        for hit in retriever.search("a dog barks while rain falls", k=5, without="speech"):
            print(hit.score, hit.file, hit.start, hit.end)
        retriever.similar("some.wav", k=5)

    The model is loaded once, when it is first needed. It must be the one that made the index.

    Args:
        store: the index or its location; a location is opened, or created by `index`, when it is first needed.
        embedder: the model, its folder or its Hub id; `None` for the one that made the index.
        device, dtype, backend, revision, trust_remote_code, batch_size: see `load_embedder`; without effect on a model
            that is already loaded.
    """

    def __init__(
        self,
        store: VectorStore | str,
        embedder: Embedder | str | None = None,
        *,
        device: str | None = None,
        dtype: str = "float32",
        backend: str = "auto",
        revision: str | None = None,
        trust_remote_code: bool = False,
        batch_size: int = BATCH_SIZE,
    ):
        self._location = store if isinstance(store, str) else ""
        self._opened = None if isinstance(store, str) else store
        self._model = embedder if isinstance(embedder, str) else None
        self._loaded = None if isinstance(embedder, str) else embedder
        self._options: dict[str, Any] = {
            "device": device,
            "dtype": dtype,
            "backend": backend,
            "trust_remote_code": trust_remote_code,
            "batch_size": batch_size,
            **({} if revision is None else {"revision": revision}),  # by default the one that the index records
        }
        self._closed = False
        self._lock = threading.RLock()  # the model is loaded once, however many threads search
        self._checked = False
        self._is_new = False  # whether the index was made here
        self._temporary: tempfile.TemporaryDirectory | None = None

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike | None = None,
        index: str | os.PathLike | None = None,
        *,
        device: str | None = None,
        dtype: str = "float32",
        backend: str = "auto",
        revision: str | None = None,
        trust_remote_code: bool = False,
        batch_size: int = BATCH_SIZE,
    ) -> "AudioRetriever":
        """
        Create a retriever from a model and an index.

        Args:
            model: folder or Hub id; `None` for the one recorded in the index.
            index: location of an existing or new index: a folder, a `.db` file or the address of a Milvus server;
                `None` for a temporary index, which is deleted with the retriever.
            device, dtype, backend, revision, trust_remote_code, batch_size: see `load_embedder`.

        Raises:
            RetrievalError: neither is given, or no model is given and there is no index.
        """
        if model is None and index is None:
            raise RetrievalError("found neither a model nor an index, expected at least one of them")
        temporary = None
        if index is None:
            temporary = tempfile.TemporaryDirectory(prefix="cnn10bert-index-")
            index = os.path.join(temporary.name, "index")
        retriever = cls(
            os.path.expanduser(os.fspath(index)),
            None if model is None else os.fspath(model),
            device=device,
            dtype=dtype,
            backend=backend,
            revision=revision,
            trust_remote_code=trust_remote_code,
            batch_size=batch_size,
        )
        retriever._temporary = temporary
        if model is None:
            retriever.store  # noqa: B018 (raises here if there is none)
        return retriever

    # ------------------------------------------------------------------------------------------- model and index

    @property
    def store(self) -> VectorStore:
        """Return the index.

        Raises:
            RetrievalError: there is none yet, it cannot be read, or the retriever is closed.
        """
        with self._lock:
            self._check_open()
            if self._opened is None:
                self._opened = open_store(self._location)
            return self._opened

    @property
    def embedder(self) -> Embedder:
        """Return the model; an existing index must have been made with it.

        Raises:
            RetrievalError: it cannot be loaded, or is not the model of the index.
        """
        with self._lock:
            if self._loaded is None and self._model is not None:
                self._loaded = load_embedder(self._model, **self._options)
            elif self._loaded is None:
                recorded = self.store.info.model
                try:
                    self._loaded = load_embedder(recorded.name, **{"revision": recorded.revision, **self._options})
                except RetrievalError as error:
                    raise RetrievalError(
                        f"the model that made the index cannot be loaded: {error}. If it was moved, say where it is "
                        "now (--model FOLDER, or model=...)"
                    ) from error
            if self._opened is not None and not self._checked:
                check_same_model(self._opened.info.model, self._loaded.identity)
                self._checked = True
            return self._loaded

    def close(self) -> None:
        """Close the index; delete it if it is temporary, or if it was made here and nothing was stored in it."""
        with self._lock:
            if self._opened is not None:
                if self._is_new:
                    with contextlib.suppress(RetrievalError):  # often raised already by what failed
                        self._opened.delete_if_empty()
                self._opened.close()
                self._opened = None
            self._closed = True
            if self._temporary is not None:
                self._temporary.cleanup()

    def __repr__(self) -> str:
        index = self._location or (self._opened.location if self._opened is not None else "")
        model = self._model or (self._loaded.identity.name if self._loaded is not None else None)
        closed = ", closed" if self._closed else ""
        return f"AudioRetriever(index={without_secrets(index)!r}, model={model!r}{closed})"

    def _check_open(self) -> None:
        if self._closed:
            raise RetrievalError("this retriever was closed; make another one to search or index again")

    def __enter__(self) -> "AudioRetriever":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    # --------------------------------------------------------------------------------------------------- indexing

    def open_or_make(self, window: float | None = None, overlap: float | None = None) -> VectorStore:
        """
        Return the index; create it if there is none.

        Args:
            window, overlap: of a new index in seconds, by default 30 and 10; an existing index keeps its own.

        Raises:
            RetrievalError: the existing index has other windows or another model, or cannot be read or created.
        """
        from .windows import check_windows

        given = {name: value for name, value in (("window", window), ("overlap", overlap)) if value is not None}
        with self._lock:
            self._check_open()
            if self._opened is None and self._model is None and self._loaded is None:
                self._opened = open_store(self._location)
            elif self._opened is None:
                length = given.get("window", IndexInfo.window)
                # An overlap of 10 s does not fit windows of 8 s.
                shared = given.get("overlap", min(IndexInfo.overlap, length / 3))
                check_windows(length, shared)  # before an unusable index is created
                try:
                    self._opened = open_store(self._location)
                except MissingIndexError:
                    self._opened = open_store(self._location, IndexInfo(self.embedder.identity, length, shared))
                    self._is_new = True
            info = self._opened.info
        if changed := [name for name, value in given.items() if value != getattr(info, name)]:
            raise RetrievalError(
                f"the index has windows of {info.window:g} s that overlap by {info.overlap:g} s, but "
                f"{' and '.join(f'{name} {given[name]:g}' for name in changed)} was asked for; leave it out, or make "
                "another index"
            )
        self.embedder  # noqa: B018 (raises for another model before anything is written)
        return self._opened

    def index(
        self,
        paths: Sequence[str | os.PathLike] | str | os.PathLike,
        *,
        window: float | None = None,
        overlap: float | None = None,
        workers: int = WORKERS,
        batch_seconds: float = BATCH_SECONDS,
        progress: bool = True,
        full_check: bool = False,
        allow_empty: bool = False,
        unfinished: Collection[str] = (),
        commit_seconds: float = COMMIT_SECONDS,
    ) -> IndexReport:
        """
        Update the index from folders: add new and changed recordings, remove deleted ones.

        Args:
            paths: folders and files.
            window, overlap: see `open_or_make`.
            workers, batch_seconds, progress, full_check, allow_empty, unfinished, commit_seconds: see
                `indexing.index_folders`.

        Raises:
            RetrievalError: no such folder, not the model of the index, or the index cannot be written.
        """
        return index_folders(
            self.open_or_make(window, overlap),
            self.embedder,
            [paths] if isinstance(paths, str | os.PathLike) else list(paths),
            workers=workers,
            batch_seconds=batch_seconds,
            progress=progress,
            full_check=full_check,
            allow_empty=allow_empty,
            unfinished=unfinished,
            commit_seconds=commit_seconds,
        )

    def forget(self, paths: Sequence[str | os.PathLike] | str | os.PathLike) -> int:
        """
        Remove the recordings at or below some paths from the index, never their files.

        Returns:
            The number of recordings that were removed.

        Raises:
            RetrievalError: there is no index, or no recording of it lies at or below one of the paths.
        """
        return forget(self.store, [paths] if isinstance(paths, str | os.PathLike) else paths)

    # -------------------------------------------------------------------------------------------------- searching

    @overload  # a str is a sequence of them too, but this comes first
    def search(  # type: ignore[overload-overlap]
        self,
        text: str,
        k: int = 10,
        where: SearchFilter | None = None,
        without: str | Sequence[str] | None = None,
        *,
        min_score: float | None = None,
        like: "str | os.PathLike | np.ndarray | torch.Tensor | None" = None,
        like_weight: float = 0.5,
        sampling_rate: int | None = None,
    ) -> list[Hit]: ...

    @overload
    def search(
        self,
        text: Sequence[str],
        k: int = 10,
        where: SearchFilter | None = None,
        without: str | Sequence[str] | None = None,
        *,
        min_score: float | None = None,
        like: "str | os.PathLike | np.ndarray | torch.Tensor | None" = None,
        like_weight: float = 0.5,
        sampling_rate: int | None = None,
    ) -> list[list[Hit]]: ...

    def search(
        self,
        text: str | Sequence[str],
        k: int = 10,
        where: SearchFilter | None = None,
        without: str | Sequence[str] | None = None,
        *,
        min_score: float | None = None,
        like: "str | os.PathLike | np.ndarray | torch.Tensor | None" = None,
        like_weight: float = 0.5,
        sampling_rate: int | None = None,
    ) -> list[Hit] | list[list[Hit]]:
        """
        Find the recordings that match a text, best first. A `RetrievalWarning` tells of a negation, of words that the
        tokenizer does not know, and of a text that nothing in the index fits.

        Args:
            text: description of the sound, or several. Not a path: `similar` takes those.
            k: number of recordings; fewer are returned if there are not so many.
            where: filter of the recordings.
            without: a concept to exclude, or several; see `without_words`.
            min_score: leave out hits with a lower score.
            like: a recording or waveform that the hits should also sound like, as for `similar`.
            like_weight: share of `like` in the query, from 0 to 1; the rest is the text's.
            sampling_rate: sampling rate of a waveform in `like`, in Hz.

        Returns:
            The hits of the text, or a list of hits per text.

        Raises:
            RetrievalError: a text without a word, the same words in `text` and `without`, `k` below 1, a weight outside
                0 to 1, no index, or not the model of the index.
            AudioError: `like` cannot be used.
        """
        texts = _texts(text, "text")
        without = _texts(without, "without") if without is not None else []
        _check_k(k)
        if not 0 <= like_weight <= 1:
            raise RetrievalError(f"like_weight: found {like_weight}, expected a number from 0 to 1")
        unwanted = {_words(text) for text in without}
        if contradictions := [text for text in texts if _words(text) in unwanted]:
            raise RetrievalError(
                f"{contradictions[0][:80]!r} is both asked for and unwanted; change what is to be left out (without)"
            )
        store = self.store  # raises if there is none, before the model is loaded
        if not texts or not len(store):
            hits: list[list[Hit]] = [[] for _ in texts]
            return [] if isinstance(text, str) else hits
        for hint in self.hints(texts, without):
            warnings.warn(hint, RetrievalWarning, stacklevel=2)
        embeds = self.embed_text([*texts, *without])
        queries, itself = embeds[: len(texts)], None
        if like is not None:
            sound, itself = self._embed_sound(like, sampling_rate)
            queries = text_and_sound(queries, sound, like_weight)
        queries = without_words(queries, embeds[len(texts) :])
        hits = []
        for query, words in zip(queries, texts, strict=True):
            found = self._found(query, k, where, min_score, itself)
            found = [dataclasses.replace(hit, z_score=z) for hit, z in zip(found, self._z_scores(found), strict=True)]
            if found and like is None and found[0].z_score is not None and found[0].z_score < LOW_Z_SCORE:
                warnings.warn(
                    f"no recording of the index fits {words[:80]!r} better than descriptions of other sounds",
                    RetrievalWarning,
                    stacklevel=2,
                )
            hits.append(found)
        return hits[0] if isinstance(text, str) else hits

    def moments(
        self,
        text: str,
        k: int = 10,
        where: SearchFilter | None = None,
        without: str | Sequence[str] | None = None,
        *,
        min_score: float | None = None,
        progress: bool = False,
    ) -> list[Hit]:
        """
        Find the passages of recordings that match a text, with start and end finer than a window.

        They are ordered by z-score, because a sound over a background has a lower cosine than one alone.

        Every recording that the filter admits is looked through. The first search embeds their frames and keeps them
        next to the index, see `moments.moments_of`.

        Args:
            text, where, without: as in `search`.
            k: number of moments. A recording may have several.
            min_score: leave out moments with a lower score.
            progress: whether to show a progress bar on a terminal.

        Raises:
            RetrievalError: as in `search`, or the model has no embeddings of frames.
        """
        from .moments import as_frame_embedder, cache_folder, moments_of

        _check_k(k)
        if not isinstance(text, str):
            raise RetrievalError(f"text: found {type(text).__name__}, expected one text; ask for each by itself")
        hits = self.search(text, max(1, len(self.store)), where, without)  # all recordings that are admitted
        if not hits:
            return []
        embedder = as_frame_embedder(self.embedder)
        unwanted = [] if without is None else _texts(without, "without")
        embeds = self.embed_text([text, *unwanted])
        query = without_words(embeds[:1], embeds[1:])[0]
        records = [hit.record for hit in hits]
        cache, level_normalized = cache_folder(self.store.location), self.store.info.normalize_level
        moments = moments_of(query, records, embedder, cache, progress, level_normalized)
        if min_score is not None:
            moments = [moment for moment in moments if moment.score >= min_score]
        z_scores = self._z_scores(moments)
        moments = [dataclasses.replace(moment, z_score=z) for moment, z in zip(moments, z_scores, strict=True)]
        return sorted(moments, key=lambda moment: (moment.z_score is None, -(moment.z_score or 0.0)))[:k]

    def similar(
        self,
        audio: "str | os.PathLike | np.ndarray | torch.Tensor",
        k: int = 10,
        where: SearchFilter | None = None,
        without: str | Sequence[str] | None = None,
        *,
        min_score: float | None = None,
        sampling_rate: int | None = None,
    ) -> list[Hit]:
        """
        Find the recordings most similar to a recording, best first. The query is the mean embedding of its windows.

        Args:
            audio: the path of a recording, which is left out of its own hits; or a waveform of floats, [samples] or
                [samples, channels] for numpy (soundfile's order), [samples] or [channels, samples] for torch
                (torchaudio's order). Not a text: `search` takes those.
            k, where, without, min_score: as in `search`.
            sampling_rate: sampling rate of a waveform, in Hz.

        Raises:
            RetrievalError: `k` below 1, a waveform without its sampling rate, no index, or not the model of the index.
            AudioError: the recording or waveform cannot be used.
        """
        without = _texts(without, "without") if without is not None else []
        _check_k(k)
        sound, itself = self._embed_sound(audio, sampling_rate)
        if not len(self.store):
            return []
        for hint in self.hints([], without):
            warnings.warn(hint, RetrievalWarning, stacklevel=2)
        query = without_words(sound[None], self.embed_text(without))[0]
        return self._found(query, k, where, min_score, itself)

    def _found(
        self, query: np.ndarray, k: int, where: SearchFilter | None, min_score: float | None, itself: str | None
    ) -> list[Hit]:
        """Return the best hits of a query [D], without the recording that is part of it."""
        hits = self.store.search(query, k if itself is None else k + 1, where)
        hits = [hit for hit in hits if hit.file != itself][:k]
        return hits if min_score is None else [hit for hit in hits if hit.score >= min_score]

    def _z_scores(self, hits: Sequence[Hit]) -> list[float | None]:
        """Compute (score - mean) / deviation of the scores that a hit's window has with `EVERYDAY_SOUNDS`."""
        if not hits:
            return []
        scores = np.stack([hit.embed for hit in hits]) @ self._everyday_embeds.T
        means, deviations = scores.mean(axis=1), scores.std(axis=1)
        return [
            float((hit.score - mean) / deviation) if deviation > 1e-6 else None
            for hit, mean, deviation in zip(hits, means, deviations, strict=True)
        ]

    @functools.cached_property
    def _everyday_embeds(self) -> np.ndarray:
        return self.embedder.embed_text(list(EVERYDAY_SOUNDS))

    def hints(self, texts: Sequence[str], without: Sequence[str] = ()) -> list[str]:
        """Return what a user should know of the words of a query: negations, and words that the tokenizer lacks."""
        hints = [
            f"{text[:80]!r}: models hardly understand {found[0]!r} and find the sound itself; name the sound to "
            "exclude separately (without)"
            for text in texts
            if (found := NEGATION.search(text))
        ]
        for text in [*texts, *without]:
            unknown_words = getattr(self.embedder, "unknown_words", None)  # other kinds of embedders may lack it
            unknown = list(dict.fromkeys(unknown_words(text[:MAX_TEXT]))) if unknown_words is not None else []
            if unknown:
                hints.append(
                    f"the model does not know {', '.join(map(repr, unknown[:5]))}{' ...' if unknown[5:] else ''}; use "
                    "other words, in the language that it was trained on"
                )
        return hints

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts -> [N, D] float32, L2-normalized; warn of a text that the model truncates."""
        if not texts:
            return np.zeros((0, self.store.info.model.dimension), np.float32)
        embedder = self.embedder
        for text in texts:
            is_cut = getattr(embedder, "is_cut", None)  # other kinds of embedders may lack it
            if len(text) > MAX_TEXT or (is_cut is not None and is_cut(text)):
                warnings.warn(
                    f"the text {text[:40]!r}... of {len(text.split())} words is longer than the model reads; what "
                    "counts is its beginning",
                    RetrievalWarning,
                    stacklevel=3,
                )
        return embedder.embed_text([text[:MAX_TEXT] for text in texts])

    def _embed_sound(
        self, audio: "str | os.PathLike | np.ndarray | torch.Tensor", sampling_rate: int | None
    ) -> tuple[np.ndarray, str | None]:
        """Return the mean embedding [D] of a recording's windows, and its path in the index or `None`."""
        if not isinstance(audio, str | os.PathLike):
            return mean_embedding(self._embed_waveform(audio, sampling_rate)), None
        if sampling_rate is not None:
            raise RetrievalError(
                "found a path and a sampling rate, expected it for a waveform only: a file has its own"
            )
        embeds, itself = self._embed_path(audio)
        return mean_embedding(embeds), itself

    def _embed_path(self, path: str | os.PathLike) -> tuple[np.ndarray, str | None]:
        """Return the embeddings [W, D] of a recording, and its path in the index or `None`."""
        from .windows import read_windows

        itself = self._find(path)
        if itself is not None:
            with contextlib.suppress(OSError):  # reading it says why
                stamp = file_stamp(os.stat(itself))
                for known in self.store.embedded([itself]):
                    if (known.record.size, known.record.modified_ns) == stamp:
                        return known.embeds, itself
        info, embedder = self.store.info, self.embedder
        notes: list[str] = []
        windows = read_windows(
            os.path.expanduser(path), embedder.sampling_rate, info.window, info.overlap, notes, info.normalize_level
        )
        embeds = np.concatenate([embedder.embed_audio([waveform]) for _, _, waveform in windows])
        _warn_of(os.fsdecode(path), notes)
        return embeds, itself

    def _find(self, path: str | os.PathLike) -> str | None:
        """Return the path under which the index holds a recording."""
        from .scanning import canonical

        real = os.path.realpath(os.path.expanduser(os.fsdecode(path)))
        names = dict.fromkeys([canonical(path), real])
        found = {file.record.path for file in self.store.embedded(names)}
        for name in names:
            if name in found:
                return name
        try:
            size = os.stat(real).st_size
        except OSError:
            return None  # reading it says why
        links = (record.path for record in self.store.files().values() if record.size == size)
        return next((name for name in links if os.path.realpath(name) == real), None)

    def _embed_waveform(self, waveform: "np.ndarray | torch.Tensor", sampling_rate: int | None) -> np.ndarray:
        """Embed a waveform -> [W, D]; see `similar` for its shape."""
        import soundfile

        from ..data.audio_io import decode_audio
        from .windows import normalize_level, window_spans

        if hasattr(waveform, "detach"):  # a tensor, without importing torch, which a search by ONNX does not need
            waveform = waveform.detach().cpu().float().numpy().T
        if not isinstance(waveform, np.ndarray):
            raise RetrievalError(
                f"found {type(waveform).__name__}, expected a path, or a waveform as a numpy array or a torch tensor"
            )
        if sampling_rate is None or sampling_rate < 1:
            raise RetrievalError(f"found a waveform with a sampling rate of {sampling_rate}, expected that in Hz")
        if waveform.ndim not in (1, 2) or not np.issubdtype(waveform.dtype, np.floating):
            raise RetrievalError(
                f"found a waveform of {waveform.dtype} of shape {waveform.shape}, expected floats [samples] or "
                "[samples, channels]"
            )
        info, embedder = self.store.info, self.embedder
        rate = embedder.sampling_rate
        notes: list[str] = []
        # Written to a file, so that a waveform is checked, mixed and resampled as a recording is.
        file = io.BytesIO()
        soundfile.write(file, waveform, int(sampling_rate), format="WAV", subtype="FLOAT")
        samples = decode_audio(file.getvalue(), rate, "waveform", notes)
        _warn_of("the waveform", notes)
        spans = window_spans(len(samples) / rate, info.window, info.overlap)
        windows = [samples[round(start * rate) : round(end * rate)] for start, end in spans]
        if info.normalize_level:
            windows = [normalize_level(window) for window in windows]
        return embedder.embed_audio(windows)

    # ------------------------------------------------------------------------------------------------------- tags

    def tag(self, labels: Sequence[str], count: int = 1) -> Iterator[tuple[EmbeddedFile, list[Tag]]]:
        """Yield every recording of the index with its best labels, best first; see `tags.Tagger`."""
        from .tags import Tagger

        tagger = Tagger(self.embedder, labels)
        for file in self.store.embedded():
            yield file, tagger.best(file.embeds, count)


def _warn_of(name: str, notes: Sequence[str]) -> None:
    """Warn of flaws in the query recording."""
    if notes:
        warnings.warn(f"{name}: {'; '.join(notes)}", RetrievalWarning, stacklevel=4)


def text_and_sound(texts: np.ndarray, sound: np.ndarray, weight: float) -> np.ndarray:
    """
    Combine texts with a sound into queries: (1 - weight) text + weight sound, normalized.

    Args:
        texts: [N, D], L2-normalized.
        sound: [D], L2-normalized.
        weight: from 0 to 1.
    """
    return np.stack([_unit((1 - weight) * text + weight * sound, sound) for text in texts])


def without_words(queries: np.ndarray, unwanted: np.ndarray) -> np.ndarray:
    """
    Exclude concepts from queries: q - 0.8 n, normalized, where n is the normalized sum of the unwanted embeddings.

    The result is a vector, so any store can search for it. docs/notes.md tells how the form and weight were chosen.

    Args:
        queries: [N, D], L2-normalized.
        unwanted: [M, D], L2-normalized; M may be 0.
    """
    if not len(unwanted):
        return queries
    difference = queries - WITHOUT_WEIGHT * mean_embedding(unwanted)
    return difference / np.linalg.norm(difference, axis=1, keepdims=True)


def mean_embedding(embeds: np.ndarray) -> np.ndarray:
    """Return the L2-normalized mean [D] of [N, D]; the first row if they cancel out."""
    return _unit(embeds.mean(axis=0), embeds[0])


def _unit(vector: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Return a vector [D], L2-normalized; another one if it is zero."""
    length = np.linalg.norm(vector)
    return vector / length if length > 1e-6 else otherwise


def _texts(texts: str | Sequence[str], name: str) -> list[str]:
    texts = [texts] if isinstance(texts, str) else texts
    if isinstance(texts, os.PathLike):
        raise RetrievalError(
            f"{name}: found the path {os.fspath(texts)!r}, expected a text; `similar` takes recordings"
        )
    texts = list(texts)
    for text in texts:
        if not isinstance(text, str):
            raise RetrievalError(f"{name}: found {type(text).__name__}, expected a text; `similar` takes recordings")
        if not any(character.isalnum() for character in text):
            raise RetrievalError(f"{name}: found {text[:80]!r}, expected words that describe a sound")
    return texts


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.casefold()))


def _check_k(k: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise RetrievalError(f"k: found {k!r}, expected a whole number of at least 1")
