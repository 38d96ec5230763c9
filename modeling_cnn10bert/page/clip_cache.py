"""What a browser may have: clips and pictures of what was found, by keys that only an answer hands out."""

import collections
import contextlib
import hashlib
import os
import secrets
import tempfile
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

from ..feature_extraction_cnn10bert import CNN10FeatureExtractor
from ..files import scratch_folder
from .clips import Span, encode_clip, read_span
from .pictures import log_mel_png

MAX_BYTES = 256 << 20  # of clips and pictures, on disk
MAX_SPANS = 20_000  # that keys are remembered for
STRIPES = 64


class ClipCache:
    """
    Clips and pictures, made when they are first asked for and kept on disk up to a bound.

    A key says nothing of a path and no path makes a key: a browser can ask for what was found, and for nothing else.

    Args:
        extractor: makes the pictures.
        max_bytes: of the files kept; those that were not asked for the longest go first.
        max_spans: whose keys are valid, the latest.
    """

    def __init__(self, extractor: CNN10FeatureExtractor, max_bytes: int = MAX_BYTES, max_spans: int = MAX_SPANS):
        self.extractor = extractor
        self.max_bytes, self.max_spans = max_bytes, max_spans
        self._secret = secrets.token_bytes(32)
        self._spans: collections.OrderedDict[str, Span] = collections.OrderedDict()
        self._sizes: collections.OrderedDict[str, int] = collections.OrderedDict()  # file -> its bytes
        self._total = 0
        self._lock = threading.Lock()
        self._stripes = [threading.Lock() for _ in range(STRIPES)]  # so that no file is made twice at the same time
        made = contextlib.ExitStack()
        self._folder = made.enter_context(scratch_folder(tempfile.gettempdir(), "cnn10bert-clips-"))
        self._delete = weakref.finalize(self, made.close)  # at the exit of the program at the latest

    def put(self, span: Span) -> str:
        """The key of a part of a recording; the same for the same part."""
        text = f"{span.start!r} {span.end!r} {span.path}".encode("utf-8", "surrogatepass")
        key = hashlib.blake2b(text, key=self._secret, digest_size=16).hexdigest()
        with self._lock:
            self._spans[key] = span
            self._spans.move_to_end(key)
            if len(self._spans) > self.max_spans:
                self._spans.popitem(last=False)
        return key

    def clip(self, key: str) -> Path:
        """A FLAC file.

        Raises:
            KeyError: nothing was found by that key, or long ago.
            AudioError: the recording is gone, or cannot be decoded any more.
        """
        return self._file(key, ".flac", lambda span: encode_clip(*read_span(span)))

    def picture(self, key: str) -> Path:
        """A PNG of the log-mel; raises as `clip`."""
        return self._file(key, ".png", lambda span: log_mel_png(*read_span(span), self.extractor))

    def close(self) -> None:
        self._delete()

    def _file(self, key: str, ending: str, make: Callable[[Span], bytes]) -> Path:
        with self._lock:
            span = self._spans[key]
        name = key + ending
        path = self._folder / name
        with self._stripes[int(key[:8], 16) % STRIPES]:
            if not (self._touch(name) and path.is_file()):  # what cleans up temporary folders may have deleted it
                self._folder.mkdir(exist_ok=True)
                unfinished = path.with_suffix(".tmp")
                unfinished.write_bytes(make(span))
                os.replace(unfinished, path)
                self._keep(name, path.stat().st_size)
        return path

    def _touch(self, name: str) -> bool:
        """Whether a file is there; it then is the last to go."""
        with self._lock:
            if name not in self._sizes:
                return False
            self._sizes.move_to_end(name)
            return True

    def _keep(self, name: str, size: int) -> None:
        with self._lock:
            self._total += size - self._sizes.get(name, 0)
            self._sizes[name] = size
            while self._total > self.max_bytes and len(self._sizes) > 1:
                oldest, freed = self._sizes.popitem(last=False)
                self._total -= freed
                (self._folder / oldest).unlink(missing_ok=True)
