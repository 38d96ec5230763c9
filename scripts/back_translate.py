"""Add back-translations of its captions to a data set; the same as `cnn10bert back-translate`."""

import sys

from modeling_cnn10bert.cli.app import app

if __name__ == "__main__":
    app(["back-translate", *sys.argv[1:]])
