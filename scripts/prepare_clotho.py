"""Prepare Clotho v2.1; the same as `cnn10bert prepare clotho`, whose `--help` explains it."""

import sys

from modeling_cnn10bert.cli.app import app

if __name__ == "__main__":
    app(["prepare", "clotho", *sys.argv[1:]])
