"""Files and folders: written whole, names that libraries would read as something else, and disks that are full."""

import errno
import os
from collections.abc import Callable, Sequence

from .masking import without_secrets
from .scratch import replaced_whole

# `datasets` reads `a::b` as a chain of file systems, and `a://b` as a protocol. What else writes takes the first as a
# name like any other.
ADDRESS, CHAIN = "://", "::"

# By these codes, and by these words where a library writes without Python: safetensors names the code, torch.save none.
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SIGNS_OF_A_FULL_DISK = (
    *(f"(os error {code})" for code in FULL_DISK),
    *(os.strerror(code) for code in FULL_DISK),
    "PytorchStreamWriter failed writing",
    "inline_container.cc",
    "iostream error",
)


def is_full_disk(error: BaseException | None) -> bool:
    """Tell whether an error, or one of which it came, says that a file could not be written for lack of space."""
    while error is not None:
        if getattr(error, "errno", None) in FULL_DISK or any(sign in str(error) for sign in SIGNS_OF_A_FULL_DISK):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_path(name: str | os.PathLike) -> bool:
    """Tell whether what may be a folder here or a repository on the Hub, such as `runs/demo`, can only be the former.

    It can if no repository has such a name, or if the folder that it would lie in is here.
    """
    name = os.fspath(name)
    parent = os.path.dirname(name)
    odd = os.path.isabs(name) or name.startswith((".", "~")) or "\\" in name or name.count("/") > 1
    return odd or (parent != "" and os.path.isdir(parent))


def check_local_folder(
    path: str | os.PathLike,
    field: str,
    error: Callable[[str], Exception] = ValueError,
    marks: Sequence[str] = (ADDRESS, CHAIN),
) -> None:
    """
    Refuse a folder whose name is read as an address.

    Args:
        path: of the folder, there or not.
        field: where the user wrote it, such as `--cache_dir` or `OUT`.
        error: makes the error from its message.
        marks: what the name must not hold; `(ADDRESS,)` where `datasets` does not read or write the folder.

    Raises:
        ValueError: the path holds such a mark; or what `error` makes.
    """
    name, shown = os.fspath(path), without_secrets(path)
    for mark in marks:
        if mark in name:
            raise error(
                f"{field} {shown}: found {mark!r} in the name of a folder, which is read as an address and not as a "
                "name, expected a local folder without it; give the folder, or the one above it, another name"
            )


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a file whole or not at all: a reader never meets half of it, and a kill leaves the old one."""
    with replaced_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
