"""Pretrain the audio tower as a tagger; `cnn10bert train-tagger` for several processes.

accelerate launch [...] scripts/train_tagging.py RECIPE [--field value ...]
"""

from modeling_cnn10bert.training.command_line import RESUME, run
from modeling_cnn10bert.training.commands import train_tagger as main

if __name__ == "__main__":
    run(main, RESUME)
