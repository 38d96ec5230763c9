"""Encode file names for the stores.

Linux allows any bytes in a name. Python represents those that are not UTF-8 as lone surrogates, which are not valid
Unicode, so Arrow and protobuf refuse them. Here every surrogate becomes one character of a private range, and the
characters of that range get an escape in front. Characters are encoded one by one, so a path is below a folder if and
only if its encoding begins with the folder's.
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
    """Encode any string as valid Unicode; nearly every name stays as it is."""
    return _TO_ENCODE.sub(_encode_character, path)


def decode_path(encoded: str) -> str:
    """Decode what `encode_path` returned."""
    return _TO_DECODE.sub(_decode_character, encoded)


def folder_range(folder: str) -> tuple[str, str]:
    """Return the range of encoded paths below an absolute folder, at any depth; the second value is excluded.

    A pattern would need escapes for characters such as % and _, and a range can use an index on the paths.
    """
    below = os.path.join(os.path.normpath(folder), "")  # ends in one separator, even for the root folder
    encoded = encode_path(below)
    return encoded, encoded[:-1] + chr(ord(encoded[-1]) + 1)


def _encode_character(match: re.Match) -> str:
    code = ord(match[0])
    if code >= _FIRST_PRIVATE:
        return _ESCAPE + match[0]
    return chr(_FIRST_PRIVATE + code - _FIRST_SURROGATE)


def _decode_character(match: re.Match) -> str:
    return match[1] or chr(_FIRST_SURROGATE + ord(match[0]) - _FIRST_PRIVATE)
