"""Convert PANNs' Cnn10 to a model for training to start from; the same as `cnn10bert convert-panns`."""

import sys

from modeling_cnn10bert.cli.app import app

if __name__ == "__main__":
    app(["convert-panns", *sys.argv[1:]])
