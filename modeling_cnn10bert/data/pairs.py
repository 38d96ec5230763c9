"""Training rows: pairs of a caption and a recording, their order, the transform that augments them, and the collator.

A pair holds the row of its recording in the table. The transform, which `datasets` calls for a whole batch, looks the
recording up and augments it together with the caption; the collator pads log-mels and tokenizes captions.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import datasets
import numpy as np
import torch
from torch.utils.data import Sampler

from ..augmentation.back_translation import BACK_TRANSLATION_COLUMN, back_translation_languages
from ..feature_extraction_cnn10bert import CNN10FeatureExtractor
from ..processing_cnn10bert import CNN10BertProcessor, caption_words
from .features import decode_log_mel, decode_row_audio

AugmentAudio = Callable[[list[torch.Tensor], list[np.random.Generator]], list[torch.Tensor]]
AugmentText = Callable[[str, list[str], np.random.Generator], str]
AUDIO, TEXT = 0, 1  # streams of random numbers: what one augmentation draws never shifts the draws of the other


class SharedEpoch:
    """
    Hold the number of the current epoch in memory that persistent data loader workers share with the trainer.

    An attribute that changes in the parent process never arrives in a worker.
    """

    def __init__(self):
        self._value = torch.zeros((), dtype=torch.int64).share_memory_()

    def set(self, epoch: int) -> None:
        self._value.fill_(epoch)

    def get(self) -> int:
        return int(self._value)


# ------------------------------------------------------------------------------------------------------------- rows


def caption_key(caption: str) -> int:
    """Return a signed 64-bit number that captions of the same words share, whatever their case and punctuation."""
    digest = hashlib.blake2b(" ".join(caption_words(caption)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def pair_rows(recordings: datasets.Dataset) -> datasets.Dataset:
    """
    Make one row per caption of a recordings table: `caption`, `recording` (its row), `length` (frames) and `row_id`.

    Where the table has back-translations, `back_translations` holds those of the caption, one per language, the
    languages sorted; `None` for a recording that was added since they were made. Recordings are not copied.
    """
    names = [
        BACK_TRANSLATION_COLUMN.format(language=language)
        for language in back_translation_languages(recordings.column_names)
    ]
    columns = recordings.select_columns(["captions", "length", *names]).to_dict()
    counts = [len(captions) for captions in columns["captions"]]
    pairs = {
        "caption": [caption for captions in columns["captions"] for caption in captions],
        "recording": np.repeat(np.arange(len(counts)), counts),
        "length": np.repeat(columns["length"], counts),
        "row_id": range(sum(counts)),
    }
    if names:
        variants: list[list[str | None]] = [[] for _ in names]
        for texts_of_language, name in zip(variants, names, strict=True):
            for row, (texts, count) in enumerate(zip(columns[name], counts, strict=True)):
                if texts is not None and len(texts) != count:
                    raise ValueError(
                        f"row {row}: {name}: found {len(texts)} texts, expected {count}, one for each caption; "
                        "delete the column and run `cnn10bert back-translate` again"
                    )
                texts_of_language += [None] * count if texts is None else texts
        pairs["back_translations"] = [list(texts) for texts in zip(*variants, strict=True)]
    return datasets.Dataset.from_dict(pairs)


# ---------------------------------------------------------------------------------------------------------- sampler


class PairSampler(Sampler[int]):
    """
    Draw a random permutation of the pairs for every epoch, keyed by (seed, epoch): a resumed run keeps the order.

    With `group_by_length` the permutation is cut into pieces of `GROUP` batches, each sorted by length, so that the
    clips of a batch are of similar length and little is padded; the batches of a piece are shuffled again.

    With `captions_per_recording` of k, every k pairs in a row are of one recording, so that one pass through the audio
    network serves them all. Captions are grouped differently in every epoch.

    Only whole batches and whole groups of k captions are drawn. The rest waits for another epoch.

    With `hard_negatives`, the second half of a batch may hold a hard negative of each recording in the first half, in
    place of the pairs that would follow.

    Args:
        lengths: [N] frames of each pair's recording, read before any transform runs.
        batch_size: pairs of one optimizer step, over all processes; a multiple of `captions_per_recording`.
        seed: seed of the permutations.
        epoch: the current epoch.
        group_by_length: whether to batch clips of similar length.
        recordings: [N] number of each pair's recording; without it, no two pairs share one.
        captions_per_recording: pairs of one recording that come together.
        draw_hard_negative: called with the number of a recording and a generator, returns another number or `None`.
        hard_negatives: fraction of the recordings in the first half of a batch that bring a hard negative.

    Raises:
        ValueError: there are fewer pairs to draw than a batch holds.
    """

    GROUP = 50

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        seed: int,
        epoch: SharedEpoch,
        group_by_length: bool = False,
        recordings: Sequence[int] | None = None,
        captions_per_recording: int = 1,
        draw_hard_negative: Callable[[int, np.random.Generator], int | None] | None = None,
        hard_negatives: float = 0.0,
    ):
        self.lengths = np.asarray(lengths)
        self.recordings = np.arange(len(self.lengths)) if recordings is None else np.asarray(recordings)
        self.captions_per_recording = captions_per_recording
        together = np.bincount(self.recordings) // captions_per_recording * captions_per_recording
        self.num_batches = int(together.sum()) // batch_size
        if self.num_batches == 0:
            raise ValueError(f"found {together.sum()} training examples, expected at least one batch of {batch_size}")
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = epoch
        self.group_by_length = group_by_length
        self.draw_hard_negative = draw_hard_negative
        self.hard_negatives = hard_negatives

    def __len__(self) -> int:
        return self.num_batches * self.batch_size

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch.get()])
        units = self._units(rng)
        order = units[rng.permutation(len(units))].reshape(-1)[: len(self)]
        if self.group_by_length:
            order = self._grouped(order, rng)
        if self.draw_hard_negative is not None:
            order = self._with_hard_negatives(order, self.draw_hard_negative, rng)
        return iter(order.tolist())

    def _units(self, rng: np.random.Generator) -> np.ndarray:
        """Draw [n, k] pairs, each row of one recording."""
        k = self.captions_per_recording
        if k == 1:
            return np.arange(len(self.lengths))[:, None]
        pairs = rng.permutation(len(self.lengths))
        pairs = pairs[np.argsort(self.recordings[pairs], kind="stable")]  # by recording, at random within each
        counts = np.bincount(self.recordings)
        position = np.arange(len(pairs)) - np.repeat(counts.cumsum() - counts, counts)
        return pairs[position < np.repeat(counts // k * k, counts)].reshape(-1, k)

    def _grouped(self, order: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        batches = []
        for start in range(0, len(order), self.GROUP * self.batch_size):
            units = order[start : start + self.GROUP * self.batch_size].reshape(-1, self.captions_per_recording)
            units = units[np.argsort(self.lengths[units[:, 0]], kind="stable")].reshape(-1, self.batch_size)
            batches.append(units[rng.permutation(len(units))].reshape(-1))
        return np.concatenate(batches)

    def _with_hard_negatives(
        self, order: np.ndarray, draw: Callable[[int, np.random.Generator], int | None], rng: np.random.Generator
    ) -> np.ndarray:
        k = self.captions_per_recording
        by_recording = np.argsort(self.recordings, kind="stable")
        pairs_of = np.split(by_recording, np.bincount(self.recordings).cumsum()[:-1])
        batches = order.reshape(self.num_batches, -1, k)  # [batches, recordings, captions]
        half = batches.shape[1] // 2
        for batch in batches:
            for first, position in enumerate(range(half, 2 * half)):
                if rng.random() >= self.hard_negatives:
                    continue
                negative = draw(self.recordings[batch[first, 0]], rng)
                if negative is not None and len(pairs_of[negative]) >= k:
                    batch[position] = rng.choice(pairs_of[negative], k, replace=False)
        return batches.reshape(-1)


# -------------------------------------------------------------------------------------------------------- transform


def recording_numbers(recordings: datasets.Dataset) -> np.ndarray:
    """Number the rows of a recordings table, [N]; equal recording ids get equal numbers."""
    return np.unique(recordings["recording_id"][:], return_inverse=True)[1]


class LogMelReader:
    """
    Read log-mels of a recordings table: decoded from the cache, or computed where the table has `audio` instead.

    Args:
        recordings: the recordings table.
        feature_extractor: computed the cached log-mels, and computes the others.
    """

    def __init__(self, recordings: datasets.Dataset, feature_extractor: CNN10FeatureExtractor):
        self.column = "log_mel" if "log_mel" in recordings.column_names else "audio"
        self.feature_extractor = feature_extractor

    def __call__(self, rows: dict[str, list]) -> list[torch.Tensor]:
        """Read [T_i, n_mels] in dB of each row from the columns of the table."""
        if self.column == "log_mel":
            return [decode_log_mel(encoded, self.feature_extractor.feature_size) for encoded in rows["log_mel"]]
        waveforms = (decode_row_audio(audio, self.feature_extractor.sampling_rate) for audio in rows["audio"])
        return [self.feature_extractor.log_mel(waveform) for waveform in waveforms]


class PairEmbeds(Protocol):
    """Embeddings of recordings, given by their rows in the table, and of the captions of pairs, given by `row_id`."""

    def of_recordings(self, rows: Sequence[int]) -> np.ndarray: ...
    def of_captions(self, row_ids: Sequence[int]) -> np.ndarray: ...


class PairTransform:
    """
    Turn pairs into augmented log-mels, each with its caption, for training.

    With `captions_per_recording` of k, every k pairs in a row, which a `PairSampler` takes from one recording, become
    one log-mel with k captions; it is augmented as that of the first pair.

    `caption_keys` are those of the captions before augmentation.

    Every draw is keyed by (seed, epoch, row id, audio or text). It does not depend on the number of workers or
    processes or on the rest of the batch, is the same after a resume, and differs in every epoch.

    Args:
        recordings: the recordings table.
        feature_extractor: computed its log-mels, or computes them where it has none.
        augment_audio: called with the log-mels of the batch and a generator for each, or `None`.
        augment_text: called with each caption, its back-translations and its generator, or `None`.
        seed: seed of all draws.
        epoch: the current epoch.
        captions_per_recording: pairs that share a log-mel.
        teachers: embeddings by other models, which are added to each row as `teacher_audio_embeds` [D] and
            `teacher_text_embeds` [k, D], or `None`.
    """

    def __init__(
        self,
        recordings: datasets.Dataset,
        feature_extractor: CNN10FeatureExtractor,
        augment_audio: AugmentAudio | None,
        augment_text: AugmentText | None,
        seed: int,
        epoch: SharedEpoch,
        captions_per_recording: int = 1,
        teachers: PairEmbeds | None = None,
    ):
        self.read = LogMelReader(recordings, feature_extractor)
        self.log_mels = recordings.select_columns([self.read.column])
        self.numbers = recording_numbers(recordings)
        self.augment_audio = augment_audio
        self.augment_text = augment_text
        self.seed = seed
        self.epoch = epoch
        self.captions_per_recording = captions_per_recording
        self.teachers = teachers

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        k = self.captions_per_recording
        recordings = rows["recording"][::k]
        log_mels = self.read(self.log_mels[recordings])
        captions = rows["caption"]
        keys = [caption_key(caption) for caption in captions]
        if self.augment_audio is not None:
            log_mels = self.augment_audio(log_mels, self._generators(rows["row_id"][::k], AUDIO))
        if self.augment_text is not None:
            variants = rows.get("back_translations") or [[]] * len(captions)
            generators = self._generators(rows["row_id"], TEXT)
            captions = [self.augment_text(*given) for given in zip(captions, variants, generators, strict=True)]
        batch: dict[str, list] = {
            "log_mel": log_mels,
            "captions": [captions[first : first + k] for first in range(0, len(captions), k)],
            "caption_keys": [keys[first : first + k] for first in range(0, len(keys), k)],
            "recording_id": [int(self.numbers[row]) for row in recordings],
        }
        if self.teachers is not None:
            batch["teacher_audio_embeds"] = list(self.teachers.of_recordings(recordings))
            batch["teacher_text_embeds"] = np.split(self.teachers.of_captions(rows["row_id"]), len(recordings))
        return batch

    def _generators(self, row_ids: list[int], stream: int) -> list[np.random.Generator]:
        epoch = self.epoch.get()
        return [np.random.default_rng([self.seed, epoch, row, stream]) for row in row_ids]


class RecordingTransform:
    """Turn rows of a recordings table into log-mels with all their captions, for evaluation. Nothing is random."""

    def __init__(self, recordings: datasets.Dataset, feature_extractor: CNN10FeatureExtractor):
        self.read = LogMelReader(recordings, feature_extractor)
        self.numbers = dict(zip(recordings["file_name"][:], recording_numbers(recordings).tolist(), strict=True))

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        return {
            "log_mel": self.read(rows),
            "captions": rows["captions"],
            "caption_keys": [[caption_key(caption) for caption in captions] for captions in rows["captions"]],
            "recording_id": [self.numbers[name] for name in rows["file_name"]],
        }


# --------------------------------------------------------------------------------------------------------- collator


def pad_log_mels(log_mels: list[torch.Tensor], feature_extractor: CNN10FeatureExtractor) -> dict[str, torch.Tensor]:
    """Join log-mels [T_i, n_mels] to `input_features` [B, T, n_mels] and `input_features_mask` [B, T]."""
    # Equal to `feature_extractor.pad`, in a third of the time.
    padded = torch.nn.utils.rnn.pad_sequence(log_mels, True, feature_extractor.padding_value)
    lengths = torch.tensor([len(log_mel) for log_mel in log_mels])
    return {"input_features": padded, "input_features_mask": (torch.arange(padded.shape[1]) < lengths[:, None]).int()}


class RetrievalCollator:
    """
    Join rows of `log_mel` [T, n_mels], `captions` (one at training, all at evaluation) and `recording_id`.

    Returns `input_features` [B, T, n_mels], `input_features_mask` [B, T], `input_ids` and `attention_mask` [C, L],
    `recording_ids` [B], and `text_recording_ids` [C]: which recording each caption describes. Where the rows have
    `caption_keys`, these too [C]: equal for captions of the same words. Where they have embeddings by teachers, these
    too: `teacher_audio_embeds` [B, D] and `teacher_text_embeds` [C, D].
    """

    def __init__(self, processor: CNN10BertProcessor):
        self.processor = processor

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        tokens = self.processor(text=[caption for row in rows for caption in row["captions"]], return_tensors="pt")
        batch = {
            **pad_log_mels([row["log_mel"] for row in rows], self.processor.feature_extractor),
            "input_ids": tokens["input_ids"],
            "attention_mask": tokens["attention_mask"],
            "recording_ids": torch.tensor([row["recording_id"] for row in rows]),
            "text_recording_ids": torch.tensor([row["recording_id"] for row in rows for _ in row["captions"]]),
        }
        if "caption_keys" in rows[0]:
            batch["caption_keys"] = torch.tensor([key for row in rows for key in row["caption_keys"]])
        if "teacher_audio_embeds" in rows[0]:
            batch["teacher_audio_embeds"] = torch.from_numpy(np.stack([row["teacher_audio_embeds"] for row in rows]))
            batch["teacher_text_embeds"] = torch.from_numpy(
                np.concatenate([row["teacher_text_embeds"] for row in rows])
            )
        return batch
