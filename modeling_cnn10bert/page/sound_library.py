"""The sound library of the page: an index with its model, and the captions of its recordings."""

import dataclasses
import os
from pathlib import Path

import numpy as np

from ..errors import RetrievalError
from ..retrieval.embedding import Embedder, load_embedder
from ..retrieval.retriever import AudioRetriever
from ..retrieval.scanning import canonical, is_below
from ..retrieval.tags import Tagger
from .captions import Captions, built_in_captions, find_captions, read_captions


@dataclasses.dataclass
class SoundLibrary:
    """
    An index with its model, and captions.

    Attributes:
        retriever: the index with its model.
        captions: captions of the recordings.
        tagger: finds the captions that fit a recording.
    """

    retriever: AudioRetriever
    captions: Captions
    tagger: Tagger

    @property
    def size(self) -> int:
        """Return the number of recordings."""
        return len(self.retriever.store.files())


def open_index(index: str, model: str | None = None, captions: str | os.PathLike | None = None) -> SoundLibrary:
    """
    Open an index that `cnn10bert index` made.

    Args:
        index: its location, see `open_store`.
        model: folder or Hub id; by default the one that made the index.
        captions: a file, see `read_captions`; by default a built-in list.

    Raises:
        RetrievalError: there is no such index, it has another model, or a file cannot be used.
    """
    read = built_in_captions() if captions is None else read_captions(captions)
    return _ready(AudioRetriever.from_pretrained(model, index), read)


def open_folder(folder: str | os.PathLike, model: str, captions: str | os.PathLike | None = None) -> SoundLibrary:
    """
    Open a folder of recordings; its index next to it is updated with a progress bar.

    If nothing can be written next to the folder, the index is temporary. The folder may have been moved together with
    its index: recordings are recognized by their content and not embedded again.

    Args:
        folder: the folder of recordings.
        model: folder or Hub id.
        captions: a file, see `read_captions`; by default the folder's metadata.csv or .jsonl, or a built-in list.

    Raises:
        RetrievalError: no such folder or model, no recording, or a file that cannot be used.
    """
    if not os.path.isdir(folder):
        raise RetrievalError(f"{folder}: found no such folder, expected one of recordings; check the path")
    read = find_captions(folder) if captions is None else read_captions(captions)
    embedder = load_embedder(model)
    location = folder_index(folder, embedder)
    writable = os.access(location.parent, os.W_OK)
    retriever = AudioRetriever(str(location), embedder) if writable else AudioRetriever.from_pretrained(model)
    report = retriever.index([folder])
    root = canonical(folder)
    retriever.store.remove(path for path in retriever.store.files() if not is_below(path, root))
    if not len(retriever.store):
        retriever.close()  # which deletes an index that was made here
        raise RetrievalError(f"{folder}: found no recording ({report}), expected at least one; check the path")
    return _ready(retriever, read)


def folder_index(folder: str | os.PathLike, embedder: Embedder) -> Path:
    """Return the location of a folder's index, which is next to the folder, one per model."""
    folder = Path(canonical(folder))
    return folder.parent / f"{folder.name}-{embedder.identity.fingerprint[:8]}.index"


def _ready(retriever: AudioRetriever, captions: Captions) -> SoundLibrary:
    """Load the whole model now, so that the first question is answered as fast as the others."""
    embedder = retriever.embedder
    embedder.embed_audio([np.zeros(embedder.sampling_rate, np.float32)])
    return SoundLibrary(retriever, captions, Tagger(embedder, captions.texts))
