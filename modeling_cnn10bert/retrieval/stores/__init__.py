"""Where the embeddings of an index are kept: LanceDB on disk by default, Milvus by its address."""

import os

from ...errors import RetrievalError
from ...files import ADDRESS, check_local_folder
from ..records import IndexInfo
from .base import VectorStore


def open_store(location: str, info: IndexInfo | None = None) -> VectorStore:
    """
    Opens the index at a place; with `info`, makes it where there is none.

    Args:
        location: a folder (LanceDB), a `.db` file (Milvus Lite), or the `http://host:port[/collection]` of a Milvus
            server.
        info: of an index that is to be made; one that is there keeps its own.

    Raises:
        RetrievalError: there is no index and no `info`, or it cannot be read.
    """
    is_server = location.startswith(("http://", "https://"))
    if not is_server and not os.path.exists(location):  # one that lies in a folder of such a name can be opened
        check_local_folder(location, "index", RetrievalError, marks=(ADDRESS,))
    if is_server or location.endswith(".db"):
        from .milvus import MilvusStore

        return MilvusStore.open(location, info)
    from .lance import LanceStore

    return LanceStore.open(location, info)


__all__ = ["RetrievalError", "VectorStore", "open_store"]
