"""Stores for the embeddings of an index: LanceDB on disk by default, or Milvus."""

import os

from ...errors import RetrievalError
from ...files import ADDRESS, check_local_folder
from ..records import IndexInfo
from .base import VectorStore


def open_store(location: str, info: IndexInfo | None = None) -> VectorStore:
    """
    Open the index at a location; with `info`, create it if there is none.

    Args:
        location: a folder (LanceDB), a `.db` file (Milvus Lite), or the `http://host:port[/collection]` of a Milvus
            server.
        info: settings of a new index; an existing one keeps its own.

    Raises:
        RetrievalError: there is no index and no `info`, or it cannot be read.
    """
    is_server = location.startswith(("http://", "https://"))
    if not is_server and not os.path.exists(location):  # an existing folder of such a name is opened
        check_local_folder(location, "index", RetrievalError, marks=(ADDRESS,))
    if is_server or location.endswith(".db"):
        from .milvus import MilvusStore

        return MilvusStore.open(location, info)
    from .lance import LanceStore

    return LanceStore.open(location, info)


__all__ = ["RetrievalError", "VectorStore", "open_store"]
