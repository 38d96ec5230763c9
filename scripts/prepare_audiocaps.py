"""Prepare AudioCaps; the same as `cnn10bert prepare audiocaps`, whose `--help` explains it."""

import sys

from modeling_cnn10bert.cli.app import app

if __name__ == "__main__":
    app(["prepare", "audiocaps", *sys.argv[1:]])
