"""Connect to a Milvus server or Milvus Lite."""

import collections
import contextlib
import dataclasses
import logging
import os
import re
import urllib.parse

from ...errors import RetrievalError
from ...masking import MASK, without_secrets

COLLECTION = "cnn10bert"
CONNECT_SECONDS = 5.0

_open_stores: collections.Counter[str] = collections.Counter()  # of this process, by the path of the Milvus Lite folder


@dataclasses.dataclass(frozen=True)
class Address:
    """
    Address of a collection.

    Attributes:
        location: the location given by the user, without the account, for error messages.
        uri: URI of the server, or path of a Milvus Lite folder.
        collection: name of the collection.
        token: `user:password`, or empty.
    """

    location: str
    uri: str
    collection: str
    token: str = dataclasses.field(default="", repr=False)

    @property
    def is_lite(self) -> bool:
        return not self.uri.startswith(("http://", "https://"))

    @classmethod
    def of(cls, location: str) -> "Address":
        if not location.startswith(("http://", "https://")):
            return cls(location, os.path.abspath(location), COLLECTION)
        shown = without_secrets(location)
        parts = urllib.parse.urlsplit(location)
        if "@" in parts.path + parts.query + parts.fragment:
            raise RetrievalError(
                f"{shown}: found an account that holds /, ? or #, expected http://user:password@host:port with these "
                "written as %2F, %3F and %23"
            )
        name = parts.path.strip("/") or COLLECTION
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
            raise RetrievalError(
                f"{shown}: found the collection {name!r}, expected a name of letters, digits and _, "
                "not beginning with a digit; give the index another place"
            )
        account, _, host = parts.netloc.rpartition("@")
        return cls(shown, f"{parts.scheme}://{host}", name, urllib.parse.unquote(account))

    def reason(self, error: Exception) -> str:
        """Return the client's message, without the secrets that it may repeat."""
        text = str(error)
        for secret in filter(None, {self.token, self.token.partition(":")[2]}):
            text = text.replace(secret, MASK)
        return without_secrets(text)


def connect(address: Address):
    """
    Connect to the server, or start Milvus Lite in this process.

    Raises:
        RetrievalError: pymilvus is not installed, no server answers, or another process has the `.db` open.
    """
    try:
        from pymilvus import MilvusClient
    except ImportError as error:
        raise RetrievalError(
            f"{address.location}: found no pymilvus, which an index on Milvus needs; "
            'install it: pip install "cnn10bert[milvus]"'
        ) from error
    # Errors are raised; these loggers would also print them with their tracebacks.
    for name in ("pymilvus", "milvus_lite", "grpc._server"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = MilvusClient(address.uri, token=address.token, timeout=CONNECT_SECONDS)
    except Exception as error:
        reason = address.reason(error)
        if address.is_lite:
            raise RetrievalError(
                f"{address.location}: Milvus Lite cannot open it ({reason}). Expected an index that no other process "
                "has open, as it serves one at a time: end the other one, or use a folder (LanceDB) or a Milvus "
                "server, which serve several"
            ) from error
        raise RetrievalError(
            f"{address.uri}: no Milvus server answers ({reason}); start one, such as by "
            "`docker compose up -d` with the compose file of Milvus' releases, or check host and port"
        ) from error
    _open_stores[address.uri] += 1
    return client


def disconnect(address: Address, client) -> None:
    """Close a client that `connect` returned; closing the last one stops Milvus Lite."""
    client.close()
    _open_stores[address.uri] -= 1
    if address.is_lite and not _open_stores[address.uri]:
        # The server is a thread of this process, and would keep the folder locked until the process ends.
        with contextlib.suppress(ImportError):
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(address.uri)
