"""Search your own sounds: an index of embeddings, kept up to date with the folders it was made of."""

from .records import Hit, RetrievalError, SearchFilter
from .retriever import AudioRetriever

__all__ = ["AudioRetriever", "Hit", "RetrievalError", "SearchFilter"]
