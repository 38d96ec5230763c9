"""Search your own sounds: an index of embeddings, kept up to date with the folders it was made of."""

from ..errors import RetrievalError
from .records import Hit, SearchFilter
from .retriever import AudioRetriever

__all__ = ["AudioRetriever", "Hit", "RetrievalError", "SearchFilter"]
