"""Mask tokens and passwords in everything that is written or printed."""

import os
import re
from collections.abc import Mapping
from typing import Any

MASK = "***"
_SECRET = r"(?:[\w-]*[_-])?(?:token|password|passwd|pwd|secret|api_?key|access_?key|credentials?)"
_SCHEME = r"\b(?:https?:/|[A-Za-z][\w+.-]*://)/?"  # a path of an address has one slash less
_SECRET_FIELD = re.compile(_SECRET, re.IGNORECASE)
# The secrets in a text, between the parts before and after them, which stay. A password may hold any character but
# spaces, so an address has its account up to the last "@" before its path, or of all where the path holds none.
_SECRETS_IN_TEXT = (
    (re.compile(rf"({_SCHEME})[^\s/?#\"'`]*@"), rf"\1{MASK}@"),
    (re.compile(rf"({_SCHEME})[^\s@:/]*:(?!\d+/)[^\s@]*@(?=[^\s/@])"), rf"\1{MASK}@"),
    (re.compile(rf"(--{_SECRET}['\",\]]*[\s=]+['\"]?)(?!--)[^\s'\",\]]+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(rf"([?&;]{_SECRET}=)[^\s&;#'\"]+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"\bhf_[A-Za-z0-9]{16,}"), MASK),
)


def is_secret(field: str) -> bool:
    """Tell by the name of a field whether its value is a secret."""
    return _SECRET_FIELD.fullmatch(field) is not None


def without_secrets(value: Any) -> Any:
    """
    Mask the secrets in a value that is to be written or printed.

    Secrets are the values of fields such as `hub_token` in a mapping. In a text they are the account of an address
    (`http://user:password@host`), the values of such options and query parameters, and tokens of the Hub.

    Args:
        value: a text, a path, a mapping or a sequence. Anything else is returned unchanged.
    """
    if isinstance(value, Mapping):
        return {
            name: MASK if is_secret(str(name)) and item not in (None, "") else without_secrets(item)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        hidden = [False, *(isinstance(word, str) and word.startswith("--") and is_secret(word[2:]) for word in value)]
        masked = [
            MASK if hide and isinstance(item, str) and not item.startswith("--") else without_secrets(item)
            for hide, item in zip(hidden, value, strict=False)
        ]
        return masked if isinstance(value, list) else tuple(masked)
    if isinstance(value, os.PathLike):
        return without_secrets(os.fsdecode(value))
    if not isinstance(value, str):
        return value
    for pattern, replacement in _SECRETS_IN_TEXT:
        value = pattern.sub(replacement, value)
    return value
