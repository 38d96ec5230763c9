"""Search the hyperparameters of the augmentations; the same as `cnn10bert search-hyperparameters`.

python scripts/search_hyperparameters.py RECIPE [--field value ...] [--storage sqlite:///study.db]
"""

from modeling_cnn10bert.training.command_line import run
from modeling_cnn10bert.training.commands import search_hyperparameters as main

if __name__ == "__main__":
    run(main)
