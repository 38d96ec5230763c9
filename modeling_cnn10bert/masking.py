"""Tokens and passwords are used, but never written or printed."""

import os
import re
from collections.abc import Mapping
from typing import Any

MASK = "***"
_SECRET = r"(?:[\w-]*[_-])?(?:token|password|passwd|pwd|secret|api_?key|access_?key|credentials?)"
_SCHEME = r"\b(?:https?:/|[A-Za-z][\w+.-]*://)/?"  # a path of an address has one slash less
_SECRET_FIELD = re.compile(_SECRET, re.IGNORECASE)
# What is secret in a text, between what stays before it and what stays behind it. A password may hold any character but
# spaces, so an address has its account up to the last "@" before its path, or of all where the path holds none.
_SECRETS_IN_TEXT = (
    (re.compile(rf"({_SCHEME})[^\s/?#\"'`]*@"), rf"\1{MASK}@"),
    (re.compile(rf"({_SCHEME})[^\s@:/]*:(?!\d+/)[^\s@]*@(?=[^\s/@])"), rf"\1{MASK}@"),
    (re.compile(rf"(--{_SECRET}['\",\]]*[\s=]+['\"]?)(?!--)[^\s'\",\]]+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(rf"([?&;]{_SECRET}=)[^\s&;#'\"]+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"\bhf_[A-Za-z0-9]{16,}"), MASK),
)


def is_secret(field: str) -> bool:
    """Tell whether the value of a field is a secret, as its name says it."""
    return _SECRET_FIELD.fullmatch(field) is not None


def without_secrets(value: Any) -> Any:
    """
    Mask the secrets in a value that is to be written or printed.

    These are the values of fields such as `hub_token` in a mapping, and in a text the account of an address
    (`http://user:password@host`), such options of a command line, such parts of a query, and tokens of the Hub.

    Args:
        value: a text, a path, a mapping, a sequence, or anything else, which stays as it is.
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
