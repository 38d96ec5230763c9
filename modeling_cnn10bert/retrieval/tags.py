"""Tag recordings with the best-fitting labels of a list (zero-shot)."""

import io
import os
from collections.abc import Sequence

import numpy as np

from ..data.tables import has_word, read_text
from ..errors import RetrievalError
from .embedding import Embedder
from .records import Tag


def read_labels(path: str | os.PathLike) -> list[str]:
    """
    Read labels from a text file, one per line; empty lines and lines that begin with `#` are skipped.

    Raises:
        DataError: no such file, or no text in it.
        RetrievalError: no label in it, or a label without a word.
    """
    lines = [line.strip() for line in io.StringIO(read_text(path))]
    for number, line in enumerate(lines, start=1):
        if line and not line.startswith("#") and not has_word(line):
            raise RetrievalError(f"{path}:{number}: found {line[:80]!r}, expected a label of at least one word")
    labels = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not labels:
        raise RetrievalError(f"{path}: found no label, expected one per line, such as: dog barking")
    return labels


class Tagger:
    """
    Ranks labels for a recording by their cosine with it, as a search ranks recordings.

    A softmax at the model's temperature is not used, because its probabilities depend on the other labels and imply
    that one of them is right. The cosine of a label is the same in any list and comparable between recordings.

    Args:
        embedder: the model that embedded the recordings.
        labels: words or descriptions, at least one.
    """

    def __init__(self, embedder: Embedder, labels: Sequence[str]):
        if not labels:
            raise RetrievalError("found no label, expected at least one")
        self.labels = list(labels)
        self._embeds = embedder.embed_text(self.labels)  # [L, D]

    def best(self, embeds: np.ndarray, count: int = 1) -> list[Tag]:
        """Return the `count` best labels of a recording with windows `embeds` [W, D], best first; all if fewer.

        The score of a label is that of its best window, as in a search.
        """
        scores = (self._embeds @ np.atleast_2d(embeds).T).max(axis=1)  # [L]
        order = np.argsort(-scores, kind="stable")[:count]
        return [Tag(self.labels[row], float(scores[row])) for row in order]
