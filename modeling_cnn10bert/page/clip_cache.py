"""Cache of the clips and pictures of search results; a browser gets them by keys that are in the answers."""

import contextlib
import hashlib
import os
import secrets
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from ..feature_extraction_cnn10bert import CNN10FeatureExtractor
from ..files import scratch_folder
from .clips import Span, encode_clip, read_span
from .pictures import log_mel_png

MAX_BYTES = 256 << 20  # of clips and pictures on disk
MAX_SPANS = 20_000  # number of remembered keys
FILE_LOCKS = 64


class ClipCache:
    """
    Creates clips and pictures on request, and keeps them on disk up to a size limit.

    Keys and paths cannot be derived from each other, so a browser can only request what an answer contained.

    Args:
        extractor: computes the pictures.
        max_bytes: maximum size of the files; the least recently used are deleted first.
        max_spans: number of the latest keys that stay valid.
    """

    def __init__(self, extractor: CNN10FeatureExtractor, max_bytes: int = MAX_BYTES, max_spans: int = MAX_SPANS):
        self.extractor = extractor
        self.max_bytes, self.max_spans = max_bytes, max_spans
        self._secret = secrets.token_bytes(32)
        self._spans: OrderedDict[str, Span] = OrderedDict()
        self._sizes: OrderedDict[Path, int] = OrderedDict()  # in bytes, the most recently used file last
        self._lock = threading.Lock()
        self._file_locks = [threading.Lock() for _ in range(FILE_LOCKS)]  # so that no file is made twice
        stack = contextlib.ExitStack()
        self._folder = stack.enter_context(scratch_folder(tempfile.gettempdir(), "cnn10bert-clips-"))
        self.close = weakref.finalize(self, stack.close)  # deletes the files, at the latest at exit

    def put(self, span: Span) -> str:
        """Return the key of a part of a recording; equal parts have equal keys."""
        text = f"{span.start!r} {span.end!r} {span.path}".encode("utf-8", "surrogatepass")
        key = hashlib.blake2b(text, key=self._secret, digest_size=16).hexdigest()
        with self._lock:
            self._spans[key] = span
            self._spans.move_to_end(key)
            if len(self._spans) > self.max_spans:
                self._spans.popitem(last=False)
        return key

    def span(self, key: str) -> Span:
        """Return the part of a recording that a key stands for; raise `KeyError` if it is unknown or too old."""
        with self._lock:
            return self._spans[key]

    def clip(self, key: str) -> Path:
        """
        Return the FLAC file of a part of a recording.

        Raises:
            KeyError: the key is unknown or too old.
            AudioError: the recording is gone or no longer decodes.
        """
        return self._file(key, ".flac", lambda span: encode_clip(*read_span(span)))

    def picture(self, key: str) -> Path:
        """Return the PNG file of its log-mel; raise as `clip` does."""
        return self._file(key, ".png", lambda span: log_mel_png(*read_span(span), self.extractor))

    def _file(self, key: str, suffix: str, make: Callable[[Span], bytes]) -> Path:
        path = self._folder / f"{key}{suffix}"
        with self._lock:
            span = self._spans[key]
            if path in self._sizes:
                self._sizes.move_to_end(path)
        with self._file_locks[int(key[:8], 16) % FILE_LOCKS]:
            if path.is_file():  # unless it was evicted, or deleted by a cleanup of temporary folders
                return path
            self._folder.mkdir(exist_ok=True)
            unfinished = path.with_suffix(".tmp")
            size = unfinished.write_bytes(make(span))
            os.replace(unfinished, path)
        with self._lock:
            self._sizes[path] = size
            while sum(self._sizes.values()) > self.max_bytes and len(self._sizes) > 1:
                self._sizes.popitem(last=False)[0].unlink(missing_ok=True)
        return path
