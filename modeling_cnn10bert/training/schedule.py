"""Learning rate schedules: the paper's step decay, one-cycle, and those of transformers by name."""

import math

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import get_scheduler


def step_decay(optimizer: torch.optim.Optimizer, steps_per_drop: int, factor: float) -> LRScheduler:
    """Divide the learning rate by `factor` every `steps_per_drop` steps (section 6.4 of the paper)."""
    return LambdaLR(optimizer, lambda step: factor ** -(step // steps_per_drop))


def one_cycle(optimizer: torch.optim.Optimizer, total_steps: int, warmup_steps: int) -> LRScheduler:
    """
    Rise from 1/25 of each group's learning rate and fall to 1/250,000 of it, both by cosine (Smith & Topin, 2018).

    The values are those of torch's OneCycleLR, which divides by zero if a training has only a few steps.
    """
    first, last = 1 / 25, 1 / 250_000

    def factor(step: int) -> float:
        if step < warmup_steps:
            return _cosine(first, 1.0, step / warmup_steps)
        return _cosine(1.0, last, (step - warmup_steps) / max(total_steps - 1 - warmup_steps, 1))

    return LambdaLR(optimizer, factor)


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def create_schedule(
    name: str,
    optimizer: torch.optim.Optimizer,
    total_steps: int,
    steps_per_epoch: int,
    warmup_steps: int,
    decay_epochs: int,
    decay_factor: float,
) -> LRScheduler:
    """
    Create the schedule `name` for a training of `total_steps` optimizer steps.

    Args:
        name: `"step"`, `"one_cycle"`, or a name that transformers knows, such as `"cosine"` or `"linear"`.
        warmup_steps: steps of the rise; the step decay has none.
        decay_epochs: epochs between two drops of the step decay.
        decay_factor: divisor of each drop.

    Raises:
        ValueError: an unknown name.
    """
    if name == "step":
        return step_decay(optimizer, steps_per_epoch * decay_epochs, decay_factor)
    if name == "one_cycle":
        return one_cycle(optimizer, total_steps, warmup_steps)
    return get_scheduler(name, optimizer, num_warmup_steps=warmup_steps, num_training_steps=total_steps)
