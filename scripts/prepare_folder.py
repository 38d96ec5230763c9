"""Prepare your own recordings; the same as `cnn10bert prepare folder`, whose `--help` explains it."""

import sys

from modeling_cnn10bert.cli.app import app

if __name__ == "__main__":
    app(["prepare", "folder", *sys.argv[1:]])
