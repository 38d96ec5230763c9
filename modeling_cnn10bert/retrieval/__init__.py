"""Search your own sounds: an index of embeddings that is kept up to date with your folders."""

from ..errors import RetrievalError
from .listing import hits_to_dataframe
from .records import Hit, SearchFilter
from .retriever import AudioRetriever

__all__ = ["AudioRetriever", "Hit", "RetrievalError", "SearchFilter", "hits_to_dataframe"]
