"""File names as stores can hold them.

Linux allows any bytes in a name. Python shows those that are no UTF-8 as lone surrogates, which no valid Unicode text
holds, so Arrow and protobuf refuse them. Here every surrogate becomes one character of a private range, and the
characters of that range get an escape in front. Every character is encoded for itself, so a path is below a folder
exactly where its encoding begins with the folder's.
"""

import os
import re

_FIRST_SURROGATE, _LAST_SURROGATE = 0xD800, 0xDFFF
_FIRST_PRIVATE = 0x10F000  # stands for the first surrogate, and so on
_ESCAPE = chr(_FIRST_PRIVATE + _LAST_SURROGATE - _FIRST_SURROGATE + 1)  # the next character is itself
_PRIVATE = f"[{chr(_FIRST_PRIVATE)}-{_ESCAPE}]"
_TO_ENCODE = re.compile(f"[{chr(_FIRST_SURROGATE)}-{chr(_LAST_SURROGATE)}]|{_PRIVATE}")
_TO_DECODE = re.compile(f"{_ESCAPE}(.)|{_PRIVATE}", re.DOTALL)


def encode_path(path: str) -> str:
    """Any string -> valid Unicode; nearly every name stays as it is."""
    return _TO_ENCODE.sub(_encode_character, path)


def decode_path(encoded: str) -> str:
    """What `encode_path` was given."""
    return _TO_DECODE.sub(_decode_character, encoded)


def folder_range(folder: str) -> tuple[str, str]:
    """Encoded paths below an absolute folder, at any depth: from the first value to before the second.

    A range and no pattern, in which %, _ and the like would mean something; and an index on the paths serves it.
    """
    below = os.path.join(os.path.normpath(folder), "")  # ends in one separator, also where the folder is the root
    encoded = encode_path(below)
    return encoded, encoded[:-1] + chr(ord(encoded[-1]) + 1)


def _encode_character(match: re.Match) -> str:
    code = ord(match[0])
    if code >= _FIRST_PRIVATE:
        return _ESCAPE + match[0]
    return chr(_FIRST_PRIVATE + code - _FIRST_SURROGATE)


def _decode_character(match: re.Match) -> str:
    return match[1] or chr(_FIRST_SURROGATE + ord(match[0]) - _FIRST_PRIVATE)
