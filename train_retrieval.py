"""Trains a retrieval model as a recipe says, and scores it: `cnn10bert train` for several processes.

    accelerate launch [...] train_retrieval.py RECIPE [--field value ...]
    python train_retrieval.py RECIPE [--field value ...]

RECIPE is a YAML file or the name of one in modeling_cnn10bert/recipes; `--help` lists all fields. Read what happens
in between in modeling_cnn10bert/training/commands.py, from the top to the bottom.
"""

from modeling_cnn10bert.training.command_line import RESUME, run
from modeling_cnn10bert.training.commands import train as main

if __name__ == "__main__":
    run(main, RESUME)
