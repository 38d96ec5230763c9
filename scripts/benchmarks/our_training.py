"""Our training, timed as it is: RetrievalTrainer's own loop, watched by a callback.

    accelerate launch ... scripts/benchmarks/our_training.py OUT.json RECIPE.yaml [--field value ...]

times one training in as many processes as it is launched in.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

import torch
from transformers import TrainerCallback

from modeling_cnn10bert.memory import keep_freed_memory
from modeling_cnn10bert.training.build import build_trainer
from modeling_cnn10bert.training.recipe import parse_recipe
from modeling_cnn10bert.training.trainer import RetrievalTrainer

WARM_UP_STEPS = 5  # of a training in several processes


class StepClock(TrainerCallback):
    """Times the steps behind the first few, from the end of one to the end of another, and the waits for a batch."""

    def __init__(self, trainer: RetrievalTrainer, warm_up_steps: int):
        self.warm_up_steps = warm_up_steps
        self.device = trainer.args.device
        self.started = self.ended = self.waited = 0.0
        get_batch_samples = trainer.get_batch_samples

        def watched(*args, **kwargs):
            before = time.perf_counter()
            try:
                return get_batch_samples(*args, **kwargs)
            finally:
                self.waited += time.perf_counter() - before

        trainer.get_batch_samples = watched
        trainer.add_callback(self)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step in (self.warm_up_steps, state.max_steps):
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            now = time.perf_counter()
            if state.global_step == state.max_steps:
                self.ended = now
            else:
                self.started, self.waited = now, 0.0

    def figures(self, steps: int) -> dict[str, float]:
        """Seconds of a step, and the share of it that was spent waiting for its batch."""
        seconds = self.ended - self.started
        return {"seconds": seconds / steps, "waiting": self.waited / seconds}


def build_ours(arguments: tuple[str, ...], steps: int, warm_up_steps: int) -> "OurTraining":
    """A round of our training: so many steps of the recipe, the first few of which do not count."""
    return OurTraining(arguments, steps, warm_up_steps)


class OurTraining:
    def __init__(self, arguments: tuple[str, ...], steps: int, warm_up_steps: int):
        self.steps = steps
        self.trainer, self.tables = build_trainer(*parse_recipe([*arguments, f"--max_steps={steps + warm_up_steps}"]))
        self.clock = StepClock(self.trainer, warm_up_steps)
        if self.trainer.args.device.type == "cpu":
            keep_freed_memory()  # as `train_and_save` does

    def __call__(self) -> dict[str, float]:
        cuda = self.trainer.args.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        loss = self.trainer.train().training_loss
        started = time.perf_counter()
        recordings = self.trainer.evaluate()["eval_num_recordings"]
        return {
            **self.clock.figures(self.steps),
            "loss": loss,
            "evaluation": time.perf_counter() - started,
            "recordings": recordings,
            "host_memory": resident_bytes(),
            "device_memory": float(torch.cuda.max_memory_allocated()) if cuda else 0.0,
        }


def resident_bytes() -> float:
    """Memory of this process now, or the most it ever had where the system does not tell."""
    statm = Path("/proc/self/statm")
    if statm.is_file():
        return float(int(statm.read_text().split()[1]) * resource.getpagesize())
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def main() -> None:
    out, *arguments = sys.argv[1:]
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    trainer, _ = build_trainer(*parse_recipe(arguments))
    clock = StepClock(trainer, WARM_UP_STEPS)
    keep_freed_memory()
    trainer.train()
    if trainer.is_world_process_zero():
        figures = clock.figures(trainer.args.max_steps - WARM_UP_STEPS)
        Path(out).write_text(json.dumps({**figures, "processes": trainer.args.world_size}))


if __name__ == "__main__":
    main()
