"""Write the page as a Hugging Face Space; the same as `cnn10bert space`."""

import sys

from modeling_cnn10bert.cli.app import app

if __name__ == "__main__":
    app(["space", *sys.argv[1:]])
