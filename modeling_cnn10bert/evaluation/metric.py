"""Retrieval metrics of embeddings in both directions, with their chance levels."""

import dataclasses
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import evaluate
import numpy as np
import torch

from ..errors import InputError
from .audio_text_retrieval.audio_text_retrieval import (
    MAP_AT,
    RECALL_AT,
    chance_metrics,
    metrics_of_ranks,
    ranks_of_relevant,
)

T = TypeVar("T")

METRIC_FOLDER = Path(__file__).parent / "audio_text_retrieval"


def load_retrieval_metric() -> evaluate.Metric:
    """Load the metric as an `evaluate` module from this package's folder, without downloads."""
    return evaluate.load(str(METRIC_FOLDER))


class DivergedError(InputError):
    """A model's outputs are not finite or are zero, so they cannot be scored."""


@dataclasses.dataclass(frozen=True)
class RankedTestSet:
    """
    A whole test set, scored by cosine similarity.

    Attributes:
        similarity: [C, A] float32, one row per caption, one column per recording.
        text_to_audio: [C], per caption the ascending ranks of the recordings with a caption of the same words, which is
            only its own unless captions repeat. Ties count against the system.
        audio_to_text: [A], per recording the ascending ranks of the captions with the same words as one of its own.
        audio_of_text: [C], the column of each caption's own recording.
    """

    similarity: np.ndarray
    text_to_audio: list[np.ndarray]
    audio_to_text: list[np.ndarray]
    audio_of_text: list[int]

    def metrics(self, recall_at: Sequence[int] = RECALL_AT, map_at: Sequence[int] = MAP_AT) -> dict[str, float]:
        """
        Compute the metrics of both directions.

        Returns:
            Text-to-audio as `R@1`, `R@5`, `R@10`, `mAP@10`, `MedR`; audio-to-text, where all captions of a recording
            are relevant, as `a2t_R@1` and so on; and for all but the median ranks the expected value of a uniformly
            random ranking, as `chance_R@1`, `chance_a2t_R@1` and so on.
        """
        num_texts, num_audio = self.similarity.shape
        recordings_each = [len(ranks) for ranks in self.text_to_audio]
        captions_each = [len(ranks) for ranks in self.audio_to_text]
        metrics = metrics_of_ranks(self.text_to_audio, recall_at, map_at)
        metrics |= prefixed("a2t_", metrics_of_ranks(self.audio_to_text, recall_at, map_at))
        metrics |= prefixed("chance_", chance_metrics(recordings_each, num_audio, recall_at, map_at))
        return metrics | prefixed("chance_a2t_", chance_metrics(captions_each, num_texts, recall_at, map_at))


def rank_both_directions(
    audio_embeds: np.ndarray | torch.Tensor,
    text_embeds: np.ndarray | torch.Tensor,
    recording_ids_of_audio: Sequence[int | str] | np.ndarray | torch.Tensor,
    recording_ids_of_text: Sequence[int | str] | np.ndarray | torch.Tensor,
    caption_keys: Sequence[Hashable] | np.ndarray | torch.Tensor | None = None,
) -> RankedTestSet:
    """Rank a whole test set by cosine similarity, with every caption and every recording as a query.

    Captions with the same words have the same embedding, so no system can tell which of their recordings is meant. All
    of these recordings are relevant for each of these captions, and the other way round. If no two recordings share a
    caption, the metrics are those of the DCASE challenge, which has one relevant recording per caption.

    Args:
        audio_embeds: [A, D], one row per recording.
        text_embeds: [C, D], one row per caption.
        recording_ids_of_audio: [A], no id twice.
        recording_ids_of_text: [C], the recording that each caption describes.
        caption_keys: [C], equal for captions with the same words, such as their `caption_key`; without them, no two
            captions count as equal.

    Raises:
        ValueError: shapes that do not fit, a zero or not finite embedding, a recording embedded twice, a caption
            without its recording or a recording without a caption.
    """
    similarity = cosine_similarity(text_embeds, audio_embeds)
    audio_of_text, texts_of_audio = _match(
        _ids(recording_ids_of_audio, similarity.shape[1], "recording_ids_of_audio"),
        _ids(recording_ids_of_text, similarity.shape[0], "recording_ids_of_text"),
    )
    keys = range(len(audio_of_text)) if caption_keys is None else caption_keys
    right_audio, right_texts = _right_of_equal_captions(
        audio_of_text, texts_of_audio, _ids(keys, similarity.shape[0], "caption_keys")
    )
    return RankedTestSet(
        similarity=similarity,
        text_to_audio=ranks_of_relevant(similarity, right_audio),
        audio_to_text=ranks_of_relevant(similarity.T, right_texts),
        audio_of_text=audio_of_text,
    )


def cosine_similarity(text_embeds: np.ndarray | torch.Tensor, audio_embeds: np.ndarray | torch.Tensor) -> np.ndarray:
    """Compute the cosines [C, A] float32 of [C, D] and [A, D]; equal embeddings have equal cosines.

    Raises:
        ValueError: shapes that do not fit, a zero or not finite embedding.
    """
    audio, text = _unit_rows(audio_embeds, "audio_embeds"), _unit_rows(text_embeds, "text_embeds")
    if audio.shape[1] != text.shape[1]:
        raise ValueError(f"audio_embeds are {audio.shape[1]} wide, text_embeds {text.shape[1]}: expected equal widths")
    # Equal embeddings must tie, but in a float32 product they differ in the last bit, depending on their position in
    # the matrix. The float64 product is rounded to float32, which absorbs its error.
    return (text @ audio.T).astype(np.float32)


def prefixed(prefix: str, metrics: Mapping[str, T]) -> dict[str, T]:
    """Add a prefix to the names of metrics."""
    return {prefix + name: value for name, value in metrics.items()}


def _unit_rows(embeds: np.ndarray | torch.Tensor, name: str) -> np.ndarray:
    """Return [N, D] float64 with rows of length 1, so that a product is the cosine."""
    if isinstance(embeds, torch.Tensor):
        embeds = embeds.detach().cpu().to(torch.float64).numpy()
    embeds = np.asarray(embeds, dtype=np.float64)
    if embeds.ndim != 2 or 0 in embeds.shape:
        raise ValueError(f"{name} must be a non-empty matrix [rows, width]; got shape {embeds.shape}")
    length = np.linalg.norm(embeds, axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(length) | (length == 0))
    if bad.size:
        raise DivergedError(
            f"row {bad[0]} of {name} has norm {length[bad[0], 0]}: expected a finite vector other than 0"
        )
    return embeds / length


def _ids(ids: Sequence[Hashable] | np.ndarray | torch.Tensor, expected: int, name: str) -> list[Hashable]:
    ids = ids.tolist() if isinstance(ids, np.ndarray | torch.Tensor) else list(ids)
    if len(ids) != expected:
        raise ValueError(f"{name} has {len(ids)} entries for {expected} embeddings: expected one each")
    return ids


def _match(ids_of_audio: list[Hashable], ids_of_text: list[Hashable]) -> tuple[list[int], list[list[int]]]:
    """Return per caption the row of its recording, and per recording the rows of its captions."""
    row_of = {recording_id: row for row, recording_id in enumerate(ids_of_audio)}
    if len(row_of) != len(ids_of_audio):
        twice = next(i for row, i in enumerate(ids_of_audio) if row_of[i] != row)
        raise ValueError(f"recording {twice!r} is embedded twice: expected once, or it could be found twice")
    texts_of_audio: list[list[int]] = [[] for _ in ids_of_audio]
    for row, recording_id in enumerate(ids_of_text):
        if recording_id not in row_of:
            raise ValueError(f"caption {row} describes recording {recording_id!r}, which has no audio embedding")
        texts_of_audio[row_of[recording_id]].append(row)
    for recording_id, texts in zip(ids_of_audio, texts_of_audio, strict=True):
        if not texts:
            raise ValueError(f"recording {recording_id!r} has no caption: leave it out, or give its captions too")
    return [row_of[recording_id] for recording_id in ids_of_text], texts_of_audio


def _right_of_equal_captions(
    audio_of_text: list[int], texts_of_audio: list[list[int]], keys: list[Hashable]
) -> tuple[list[list[int]], list[list[int]]]:
    """Return per caption the recordings with a caption of the same words, and per recording the matching captions."""
    texts_of_key: dict[Hashable, list[int]] = defaultdict(list)
    for text, key in enumerate(keys):
        texts_of_key[key].append(text)
    audio_of_key = {key: sorted({audio_of_text[text] for text in texts}) for key, texts in texts_of_key.items()}
    right_texts = [sorted({equal for text in texts for equal in texts_of_key[keys[text]]}) for texts in texts_of_audio]
    return [audio_of_key[key] for key in keys], right_texts
