"""Evaluate a model on recordings with captions: metrics of both directions, their intervals, and each query's rank.

Recordings are embedded whole, as in the paper, not in windows. Each recording and each caption is embedded once.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..bars import progress_bar
from ..data.pairs import caption_key
from ..errors import AudioError, RetrievalError
from ..processing_cnn10bert import caption_words
from ..retrieval.embedding import Embedder
from ..retrieval.records import ModelIdentity
from .audio_text_retrieval.audio_text_retrieval import RECALL_AT
from .bootstrap import CONFIDENCE, RESAMPLES, Interval, bootstrap_intervals
from .metric import RankedTestSet, prefixed, rank_both_directions
from .recordings import Recording
from .reports import markdown_table

MAP_AT = (10, 16)  # 16: the measure of DCASE 2025's task 6
_AUDIO_AT_ONCE, _TEXTS_AT_ONCE = 32, 256  # 32 recordings of half a minute are 120 MB


@dataclasses.dataclass(frozen=True)
class ModelEvaluation:
    """
    Evaluation of a model on a set of recordings.

    Attributes:
        model: identity of the model.
        recordings: names [A], in the order of the columns of `ranked.similarity`.
        captions: [C], in the order of its rows.
        ranked: the similarities and the ranks.
        metrics: `R@1`, `R@5`, `R@10`, `mAP@10`, `mAP@16`, `MedR` for text to audio; the same with prefix `a2t_` for
            audio to text; and, for all but the median ranks, the chance level with prefix `chance_`.
        intervals: intervals of the metrics, but not of the chance levels.
        left_out: recording that could not be used -> the reason.
        notes: recording that was used despite a flaw -> the flaw, such as that it is truncated.
        bootstrap: `resamples`, `confidence` and `seed` of the intervals.
    """

    model: ModelIdentity
    recordings: list[str]
    captions: list[str]
    ranked: RankedTestSet
    metrics: dict[str, float]
    intervals: dict[str, Interval]
    left_out: dict[str, str]
    bootstrap: dict[str, Any]
    notes: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def table(self) -> str:
        """Return a table of both directions with value and interval in percent, next to the chance level."""
        confidence = f"{100 * self.bootstrap['confidence']:g} %"
        header = ["", "t2a", confidence, "chance", "a2t", confidence, "chance"]
        names = [name for name in self.metrics if not name.startswith(("a2t_", "chance_"))]
        rows = [[name, *self._cells(name), *self._cells(f"a2t_{name}")] for name in names]
        return markdown_table(header, rows)

    def _cells(self, name: str) -> list[str]:
        scale, digits = (1, 1) if name.endswith("MedR") else (100, 2)
        interval, chance = self.intervals[name], self.metrics.get(f"chance_{name}")
        return [
            f"{scale * self.metrics[name]:.{digits}f}",
            f"{scale * interval.low:.{digits}f}-{scale * interval.high:.{digits}f}",
            "" if chance is None else f"{scale * chance:.{digits}f}",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for results.json."""
        return {
            "model": dataclasses.asdict(self.model),
            "num_recordings": len(self.recordings),
            "num_captions": len(self.captions),
            "num_left_out": len(self.left_out),
            "left_out": self.left_out,
            "notes": self.notes,
            "metrics": self.metrics,
            "intervals": {name: [interval.low, interval.high] for name, interval in self.intervals.items()},
            "bootstrap": {**self.bootstrap, "drawn": "recordings"},
        }


def evaluate_model(
    embedder: Embedder,
    recordings: Sequence[Recording],
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
    skip_missing: bool = False,
    progress: bool = True,
) -> ModelEvaluation:
    """
    Embed each recording and each caption once and score the whole set.

    Args:
        embedder: the model.
        recordings: recordings with captions; each caption is a query for its recording, and each recording is a query
            for its captions. Captions with the same words share their recordings, see `rank_both_directions`.
        resamples, confidence, seed: of the intervals, see `bootstrap_intervals`.
        skip_missing: leave out recordings that cannot be used. By default they are an error, because an evaluation on
            fewer recordings is easier and not comparable.
        progress: whether to show a progress bar for each tower.

    Raises:
        AudioError: a recording is missing or does not decode.
        RetrievalError: fewer than two recordings, one without a caption, or a caption without a word.
    """
    left_out = {recording.name: reason for recording in recordings if (reason := why_unusable(recording))}
    if left_out and not skip_missing:
        more = f" {len(left_out)} of {len(recordings)} recordings cannot be used;" if len(left_out) > 1 else ""
        raise AudioError(
            f"{next(iter(left_out.values()))};{more} skip_missing evaluates on the others, which is another evaluation "
            "and an easier one"
        )
    at_hand = [recording for recording in recordings if recording.name not in left_out]
    names, audio, undecodable = embed_recordings(embedder, at_hand, skip_missing=skip_missing, progress=progress)
    left_out |= undecodable
    if len(names) < 2:
        raise RetrievalError(f"found {len(names)} usable recordings of {len(recordings)}, expected at least two")
    used = set(names)
    pairs = [(text, recording.name) for recording in at_hand if recording.name in used for text in recording.captions]
    captions, recording_of_caption = [text for text, _ in pairs], [name for _, name in pairs]
    text = embed_captions(embedder, captions, progress=progress)
    try:
        keys = [caption_key(caption) for caption in captions]
        ranked = rank_both_directions(audio, text, names, recording_of_caption, keys)
    except ValueError as error:
        raise RetrievalError(
            f"{embedder.identity.name}: {error}; check the model, its training may have diverged"
        ) from error
    bootstrap: dict[str, Any] = {"resamples": resamples, "confidence": confidence, "seed": seed}
    directions = {"": (ranked.text_to_audio, recording_of_caption), "a2t_": (ranked.audio_to_text, names)}
    intervals: dict[str, Interval] = {}
    for prefix, (ranks, recording_of_query) in directions.items():
        intervals |= prefixed(prefix, bootstrap_intervals(ranks, recording_of_query, RECALL_AT, MAP_AT, **bootstrap))
    return ModelEvaluation(
        model=embedder.identity,
        recordings=names,
        captions=captions,
        ranked=ranked,
        metrics=ranked.metrics(RECALL_AT, MAP_AT),
        intervals=intervals,
        left_out=left_out,
        bootstrap=bootstrap,
        notes={recording.name: list(dict.fromkeys(recording.notes)) for recording in at_hand if recording.notes},
    )


def why_unusable(recording: Recording) -> str:
    """Return why a recording cannot be evaluated on, or "" if it can, as far as is known before it is decoded."""
    if recording.absence:
        return recording.absence
    if not recording.captions:
        return f"{recording.name}: found no caption, expected at least one; write one"
    if wordless := [caption for caption in recording.captions if not caption_words(caption)]:
        return f"{recording.name}: found the caption {wordless[0]!r}, expected one with a word; correct it"
    return ""


# -------------------------------------------------------------------------------------------------------- embedding


def embed_recordings(
    embedder: Embedder, recordings: Sequence[Recording], *, skip_missing: bool = False, progress: bool = True
) -> tuple[list[str], np.ndarray, dict[str, str]]:
    """
    Embed recordings whole; return names [A], embeddings [A, D] float32, and name -> reason of unusable ones.

    Raises:
        AudioError: a recording is missing or does not decode, unless `skip_missing`.
    """
    names: list[str] = []
    left_out: dict[str, str] = {}
    waveforms: list[np.ndarray] = []
    embeds = [np.empty((0, embedder.identity.dimension), dtype=np.float32)]
    with progress_bar(total=len(recordings), desc="Embedding recordings", disable=not progress) as bar:
        for recording in recordings:
            try:
                waveforms.append(recording.load(embedder.sampling_rate))
                names.append(recording.name)
            except AudioError as error:
                if not skip_missing:
                    raise
                left_out[recording.name] = str(error)
                bar.update()
            if len(waveforms) == _AUDIO_AT_ONCE or (waveforms and recording is recordings[-1]):
                embeds.append(embedder.embed_audio(waveforms))
                bar.update(len(waveforms))
                waveforms = []
    return names, np.concatenate(embeds), left_out


def embed_captions(embedder: Embedder, captions: Sequence[str], *, progress: bool = True) -> np.ndarray:
    """
    Embed captions -> [C, D] float32.

    Raises:
        RetrievalError: a caption without a word.
    """
    embeds = []
    with progress_bar(total=len(captions), desc="Embedding captions", disable=not progress) as bar:
        for start in range(0, len(captions), _TEXTS_AT_ONCE):
            texts = captions[start : start + _TEXTS_AT_ONCE]
            embeds.append(embedder.embed_text(texts))
            bar.update(len(texts))
    return np.concatenate(embeds)
