"""Prepare AudioSet as shards to stream from; the same as `cnn10bert prepare audioset`, whose `--help` explains it."""

import sys

from modeling_cnn10bert.cli.app import app

if __name__ == "__main__":
    app(["prepare", "audioset", *sys.argv[1:]])
