"""Turn waveforms and texts into batches of model inputs, for PyTorch and ONNX alike."""

import contextlib
import dataclasses
import inspect
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import RetrievalError, one_line
from .records import ModelIdentity

BATCH_SECONDS = 120.0  # of audio in a batch, padding included; CNN10 of the paper takes 144 MB for 30 s
_numpy_state = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Batch:
    """
    Model arguments for some recordings or texts.

    Attributes:
        rows: [N] index of the recording or text of each row; a recording may have several rows.
        arguments: name -> array, with the rows as first axis.
    """

    rows: np.ndarray
    arguments: dict[str, np.ndarray]


class ModelInputs:
    """
    A processor whose output for a recording or text does not depend on its batch or on random numbers.

    CLAP's feature extractor draws random numbers for clips longer than its 10 s. With `truncation="rand_trunc"` it
    would keep a random 10 s. Here such a clip is cut into pieces of 10 s instead, the last one ending with the clip,
    and its embedding is their normalized mean. With `"fusion"`, which takes the whole clip and three crops, the crops
    are drawn with the same seed for every clip; numpy's global state is left as it was.

    Args:
        processor: holds a `feature_extractor` and a `tokenizer`.
        max_tokens: maximum length of a text, used if the tokenizer has none.
        batch_size: maximum number of recordings or texts in a batch.
        device: where features are computed, if the feature extractor can choose, as ours and Whisper's can.
    """

    def __init__(self, processor, max_tokens: int | None = None, batch_size: int = 32, device: str = "cpu"):
        self.processor = processor
        self.feature_extractor = processor.feature_extractor
        self.sampling_rate = int(self.feature_extractor.sampling_rate)
        self.batch_size = batch_size
        self._audio_options: dict[str, Any] = {"sampling_rate": self.sampling_rate, "return_tensors": "np"}
        if device != "cpu" and "device" in inspect.signature(self.feature_extractor.__call__).parameters:
            self._audio_options["device"] = device
        self._text_length: dict[str, Any] = {"padding": True, "truncation": True}
        if max_tokens is not None and processor.tokenizer.model_max_length > max_tokens:
            self._text_length["max_length"] = max_tokens

    def audio(self, waveforms: Sequence[np.ndarray]) -> Iterator[Batch]:
        """Batch mono waveforms [samples] of similar length, the longest first.

        Raises:
            RetrievalError: a waveform is not mono, is empty, or is not of finite floats.
        """
        pieces = [
            (row, piece)
            for row, waveform in enumerate(waveforms)
            for piece in self._pieces(self._checked(waveform, row))
        ]
        pieces.sort(key=lambda piece: len(piece[1]), reverse=True)  # stable; a lack of memory shows in the first batch
        start = 0
        while start < len(pieces):
            longest = len(pieces[start][1])
            count = int(BATCH_SECONDS * self.sampling_rate) // longest
            batch = pieces[start : start + min(max(1, count), self.batch_size)]
            start += len(batch)
            features = [self._features(piece) for _, piece in batch]
            rows = np.array([row for row, _ in batch])
            yield Batch(rows, _stack(features, self.feature_extractor.padding_value))

    def text(self, texts: Sequence[str]) -> Iterator[Batch]:
        """Batch texts of similar length, as the processor normalizes and truncates them.

        Raises:
            RetrievalError: a text without a word.
        """
        for text in texts:
            check_text(text)
        order = np.argsort([len(text) for text in texts], kind="stable")
        for start in range(0, len(texts), self.batch_size):
            rows = order[start : start + self.batch_size]
            try:
                tokens = self.processor(text=[texts[row] for row in rows], return_tensors="np", **self._text_length)
            except ValueError as error:
                raise RetrievalError(one_line(error)) from error
            yield Batch(rows, dict(tokens))

    def is_cut(self, text: str) -> bool:
        """Tell whether the model truncates a text."""
        tokenizer = self.processor.tokenizer
        tokens = tokenizer(text, truncation=False, padding=False, verbose=False)["input_ids"]
        return len(tokens) > min(tokenizer.model_max_length, self._text_length.get("max_length", len(tokens)))

    def unknown_words(self, text: str) -> list[str]:
        """Return the words of a text that the tokenizer maps to its unknown token."""
        tokenizer = self.processor.tokenizer
        if tokenizer.unk_token_id is None or not tokenizer.is_fast:
            return []
        tokens = tokenizer(
            text, truncation=False, padding=False, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        spans = zip(tokens["input_ids"], tokens["offset_mapping"], strict=True)
        return [text[start:end] for token, (start, end) in spans if token == tokenizer.unk_token_id]

    def _checked(self, waveform: np.ndarray, row: int) -> np.ndarray:
        waveform = np.asarray(waveform)
        if waveform.ndim != 1 or waveform.size == 0 or not np.issubdtype(waveform.dtype, np.floating):
            raise RetrievalError(
                f"recording {row}: found {waveform.dtype} of shape {waveform.shape}, expected a mono waveform of "
                f"floats, (num_samples,), at {self.sampling_rate} Hz; read it with load_audio"
            )
        if not np.isfinite(waveform).all():
            bad = int(np.count_nonzero(~np.isfinite(waveform)))
            raise RetrievalError(f"recording {row}: found {bad} NaN or infinite samples; repair or leave it out")
        return waveform.astype(np.float32, copy=False)

    def _pieces(self, waveform: np.ndarray) -> list[np.ndarray]:
        longest = getattr(self.feature_extractor, "nb_max_samples", None)
        random_crop = getattr(self.feature_extractor, "truncation", None) == "rand_trunc"
        if not random_crop or longest is None or len(waveform) <= longest:
            return [waveform]
        starts = [*range(0, len(waveform) - longest, longest), len(waveform) - longest]
        return [waveform[start : start + longest] for start in starts]

    def _features(self, waveform: np.ndarray) -> dict[str, np.ndarray]:
        """Extract one clip at a time with a fixed seed: CLAP's extractor is random and depends on the batch."""
        with _numpy_state:
            state = np.random.get_state()
            np.random.seed(0)
            try:
                return dict(self.feature_extractor([waveform], **self._audio_options))
            finally:
                np.random.set_state(state)


def check_text(text: str) -> None:
    """
    Raises:
        RetrievalError: a text without a word.
    """
    if not isinstance(text, str) or not any(character.isalnum() for character in text):
        raise RetrievalError(
            f"the text {text!r} holds no word, expected a description of a sound; describe it in words"
        )


def _stack(clips: list[dict[str, np.ndarray]], padding_value: float) -> dict[str, np.ndarray]:
    """Stack arrays [1, T, ...] of clips to [N, T, ...] per name, padded at the end; masks are padded with 0."""
    stacked = {}
    for name in clips[0]:
        arrays = [clip[name] for clip in clips]
        if arrays[0].ndim > 1:
            longest = max(array.shape[1] for array in arrays)
            filling = 0 if name.endswith("mask") else padding_value
            for row, array in enumerate(arrays):
                widths = [(0, 0), (0, longest - array.shape[1]), *[(0, 0)] * (array.ndim - 2)]
                arrays[row] = np.pad(array, widths, constant_values=filling)
        stacked[name] = np.concatenate(arrays)
    return stacked


@contextlib.contextmanager
def model_faults(identity: ModelIdentity) -> Iterator[None]:
    """
    Turn an error of a model or its processor into a one-line error; the input was checked before.

    A lack of memory is raised unchanged, because a smaller batch may help.

    Raises:
        RetrievalError: the model cannot embed.
    """
    try:
        yield
    except (RetrievalError, MemoryError):
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's class; torch may not be imported here
            raise
        raise RetrievalError(
            f"{identity.name}: the model cannot embed ({type(error).__name__}: {one_line(error)[:300]}); "
            "check its configuration and its processor, or save it again"
        ) from error


def gather(batches: Iterator[tuple[np.ndarray, np.ndarray]], count: int, dimension: int) -> np.ndarray:
    """
    Collect the embeddings of batches into [N, D] float32, in input order, each the normalized mean of its rows.

    Args:
        batches: rows [B] and their L2-normalized embeddings [B, D].
        count: N.
        dimension: D, also for an empty input.
    """
    total = np.zeros((count, dimension), dtype=np.float32)
    for rows, embeds in batches:
        np.add.at(total, rows, embeds.astype(np.float32))
    lengths = np.linalg.norm(total, axis=1, keepdims=True)
    return total / np.maximum(lengths, np.finfo(np.float32).tiny)
