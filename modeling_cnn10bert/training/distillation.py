"""Distillation from estimated audio-caption correspondences (Primus, Schmid & Widmer, 2024; arXiv 2408.11641).

Trained retrieval models, the teachers, estimate how well each caption of the training set describes each recording. A
student learns these estimates in place of the recording ids, by which every other caption of a batch is wrong.

Every teacher embeds each recording and each different caption of the training set once, before training and without
augmentation. The embeddings are memory-mapped files in the feature cache.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import datasets
import filelock
import numpy as np
import torch
from torch.nn import functional as F

from ..adapters import adapter_base
from ..bars import progress_bar
from ..data.pairs import LogMelReader, pad_log_mels
from ..errors import RecipeError, RetrievalError
from ..model_folder import CONFIG, PROCESSORS, TOKENIZER, check_model
from ..retrieval.identity import model_file
from ..retrieval.torch_embedding import TorchEmbedder

FILES_OF_TEACHER = (CONFIG, *PROCESSORS, TOKENIZER, "tokenizer_config.json")  # which its embeddings depend on
CAPTIONS_AT_ONCE = 256
DTYPE = np.float16  # a component of a unit vector is then off by less than 0.00025, and a cosine by about 1e-5


def distillation_loss(logits_per_audio: torch.Tensor, correspondences: torch.Tensor) -> torch.Tensor:
    """
    Compute the cross entropy with estimated correspondences in both directions, averaged, which is L_dist of the paper:

        L_dist = 1/2 (cross_entropy(S, softmax(C, dim=1)) + cross_entropy(S^T, softmax(C^T, dim=1)))

    With hard targets in place of both softmaxes it would be the contrastive loss.

    Args:
        logits_per_audio: S, the student's cosine similarities divided by the temperature, [A, C].
        correspondences: C, the means of the teachers' cosine similarities divided by the same temperature, [A, C].
    """
    audio_to_text = F.cross_entropy(logits_per_audio, correspondences.softmax(dim=1))
    text_to_audio = F.cross_entropy(logits_per_audio.T, correspondences.T.softmax(dim=1))
    return (audio_to_text + text_to_audio) / 2


class TeacherEmbeds:
    """
    Embeddings of a training set by all teachers, joined to one vector per recording and per caption.

    The joined vectors are scaled so that their dot products are the means of the teachers' cosine similarities.

    Args:
        captions: the captions of each recording of the training set.
        embeds: of each teacher, the embeddings of the recordings [N, D] and of the `different_captions` [C, D]. The
            teachers may differ in D.
    """

    def __init__(self, captions: Sequence[Sequence[str]], embeds: Sequence[tuple[np.ndarray, np.ndarray]]):
        self.recordings, self.captions = zip(*embeds, strict=True)
        row_of = {text: row for row, text in enumerate(different_captions(captions))}
        # [P] row of the caption of each pair, in the order of `pair_rows`
        self.caption_rows = np.array([row_of[text] for texts in captions for text in texts])

    def of_recordings(self, rows: Sequence[int]) -> np.ndarray:
        """Read [n, sum of D] float32 of rows of the recordings table."""
        return self._joined(self.recordings, rows)

    def of_captions(self, row_ids: Sequence[int]) -> np.ndarray:
        """Read [n, sum of D] float32 of the captions of pairs, given by `row_id`."""
        return self._joined(self.captions, self.caption_rows[row_ids])

    def _joined(self, of_teachers: Sequence[np.ndarray], rows: Sequence[int]) -> np.ndarray:
        joined = np.concatenate([embeds[rows] for embeds in of_teachers], axis=1).astype(np.float32)
        return joined / np.float32(np.sqrt(len(of_teachers)))


def different_captions(captions: Sequence[Sequence[str]]) -> list[str]:
    """List each text among the captions of recordings once, sorted."""
    return sorted({text for texts in captions for text in texts})


# ------------------------------------------------------------------------------------------------------------- teachers


def load_teacher(name: str, device: torch.device) -> TorchEmbedder:
    """
    Load a teacher from its folder or Hub id.

    Raises:
        RecipeError: it is not a trained retrieval model of this package.
    """
    expected = "the folder or Hub id of a trained CNN10BertModel with its processor"
    try:
        check_model(name, RetrievalError)
        teacher = TorchEmbedder.from_pretrained(name, device=str(device))
    except RetrievalError as error:
        raise RecipeError(f"field teachers: found {name!r}, expected {expected}: {error}") from error
    if (kind := teacher.model.config.model_type) != "cnn10bert":
        raise RecipeError(f"field teachers: found {name!r}, a model of type {kind}, expected {expected}")
    return teacher


def embed_training_set(
    teacher: TorchEmbedder, recordings: datasets.Dataset, cache_dir: str | os.PathLike, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """
    Embed a training set without augmentation, or load the embeddings from the cache.

    Args:
        teacher: the model.
        recordings: recordings table, with log-mels by the teacher's feature extractor.
        cache_dir: folder of the feature cache.
        batch_size: recordings that are embedded at once.

    Returns:
        Embeddings of the recordings [N, D] and of their `different_captions` [C, D], L2-normalized, memory-mapped.
    """
    read = LogMelReader(recordings, teacher.processor.feature_extractor)
    log_mels = recordings.select_columns([read.column])
    captions = different_captions(recordings["captions"][:])

    @torch.inference_mode()
    def embed_recordings(rows: range) -> np.ndarray:
        inputs = pad_log_mels(read(log_mels[rows]), teacher.processor.feature_extractor)
        on_device = {name: tensor.to(teacher.device) for name, tensor in inputs.items()}
        return teacher.model.get_audio_features(**on_device).pooler_output.float().cpu().numpy()

    def embed_captions(rows: range) -> np.ndarray:
        return teacher.embed_text(captions[rows.start : rows.stop])

    name = Path(teacher.identity.name).name
    folder = Path(cache_dir) / f"{name}-{_digest_of(teacher)}"
    captions_digest = hashlib.sha256(json.dumps(captions).encode()).hexdigest()[:16]
    dimension = teacher.identity.dimension
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / "lock"):  # two concurrent runs would write to one file
        return (
            embed_into_file(
                folder / f"recordings-{recordings._fingerprint}.bin",
                (len(recordings), dimension),
                embed_recordings,
                batch_size,
                f"Embedding recordings by {name}",
            ),
            embed_into_file(
                folder / f"captions-{captions_digest}.bin",
                (len(captions), dimension),
                embed_captions,
                CAPTIONS_AT_ONCE,
                f"Embedding captions by {name}",
            ),
        )


def _digest_of(teacher: TorchEmbedder) -> str:
    """Return a digest of the weights, the configuration and the processor of a teacher."""
    name = teacher.identity.name
    digest = hashlib.sha256(teacher.identity.fingerprint.encode())
    for file in FILES_OF_TEACHER:
        if (path := model_file(adapter_base(name) or name, file, None)) is not None:
            digest.update(Path(path).read_bytes())
    return digest.hexdigest()[:16]


def embed_into_file(
    path: Path, shape: tuple[int, int], embed: Callable[[range], np.ndarray], batch_size: int, description: str
) -> np.ndarray:
    """
    Load embeddings from a file, or compute them into it batch by batch.

    The file gets its name only when it is complete. A killed process leaves the embeddings that it computed in another
    file, and the next process computes the rest.

    Args:
        path: path of the file.
        shape: number of embeddings and their dimension, [N, D].
        embed: computes the embeddings of some rows.
        batch_size: rows that are computed at once.
        description: shown in the progress bar.

    Returns:
        The memory-mapped embeddings [N, D].
    """
    count, dimension = shape
    if not path.exists():
        unfinished = path.with_suffix(".unfinished")
        with open(unfinished, "ab") as file:
            bytes_of_row = dimension * np.dtype(DTYPE).itemsize
            done = file.tell() // bytes_of_row // batch_size * batch_size
            file.truncate(done * bytes_of_row)  # the last batch may be incomplete
            with progress_bar(total=count, initial=done, desc=description, unit=" rows") as bar:
                for start in range(done, count, batch_size):
                    rows = range(start, min(start + batch_size, count))
                    file.write(embed(rows).astype(DTYPE).tobytes())
                    file.flush()
                    bar.update(len(rows))
        os.replace(unfinished, path)
    return np.memmap(path, DTYPE, "r", shape=shape)
