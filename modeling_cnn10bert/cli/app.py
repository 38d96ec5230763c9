"""The command `cnn10bert`: one verb for everything that a user does.

Results go to standard output, all else to standard error. Exit codes: 0 fine, 1 an error in one line, 2 wrong usage,
130 interrupted by Ctrl-C, and 128 and its number by another signal.
"""

from . import search, training, data, models, page  # noqa: F401, I001  each registers its verbs, in this order
from .common import app


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()
