"""Measure a training step against the plain loop and the device's arithmetic speed, and related figures.

`accelerate launch ... -m benchmarks.train OUT.json RECIPE.yaml [--field value ...]` times one training in the launched
processes.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import TrainerCallback

from modeling_cnn10bert.memory import keep_freed_memory
from modeling_cnn10bert.training.build import build_trainer
from modeling_cnn10bert.training.recipe import parse_recipe
from modeling_cnn10bert.training.trainer import RetrievalTrainer

from .harness import (
    NO_ACCELERATOR,
    Contender,
    Round,
    Row,
    compared,
    compete,
    figure,
    in_turns,
    matrix_rate,
    memory,
    not_measured,
    synchronize,
)
from .inputs import Size, Workload, clotho_workload, small_workload
from .plain_training import build_plain

CLOTHO_PAIRS, CLOTHO_EPOCHS, CLOTHO_BATCH = 19_195, 50, 30  # section 6.4 of the paper
CLOTHO_TEST = 1045  # recordings
CLOTHO_MEAN_SECONDS = 22.5
REFERENCE = "the plain loop"


def measure(folder: Path, options) -> list[Row]:
    size, given = options.size, (options.manifests, options.sources)
    workload = small_workload(folder, *given, size)
    rows = _measure_small(workload, size, options)
    if size.two_processes:
        rows += _two_processes(workload, size.rounds)
    if size.apart and not torch.cuda.is_available():
        return [*rows, not_measured("the paper's recipe, Clotho-shaped", NO_ACCELERATOR, "5 x")]
    if size.apart:
        given = (None, None)  # the manifests may hold fewer test scenes than Clotho
        size = dataclasses.replace(size, scenes=512, evaluated=CLOTHO_TEST, steps=50)
    else:
        size = dataclasses.replace(size, steps=1)  # the captions are two batches
    return rows + _measure_clotho(clotho_workload(folder, *given, size, tiny=not size.apart), size, options)


def _compete(workload: Workload, size: Size, options, **variants: tuple[str, ...]) -> dict[str, dict[str, list[float]]]:
    """Run our training and the plain loop, and our training with other fields."""
    common = (size.steps, size.warm_up_steps)
    processes = {"threads": options.threads, "apart": size.apart}
    # Ours last, because parsing a recipe resets the state that a Trainer of the same process uses.
    contenders = {"plain": Contender(build_plain, workload.arguments, workload.waveforms, *common, **processes)}
    for name, fields in {"ours": (), **variants}.items():
        contenders[name] = Contender(build_ours, (*workload.arguments, *fields), *common, **processes)
    return compete(contenders, size.rounds)


def _step_rows(workload: Workload, size: Size, options, found: dict, target: float | None) -> list[Row]:
    """Compare the step with the plain loop and the device's arithmetic speed, and measure the wait for a batch."""
    ours, plain = ([1e3 * seconds for seconds in found[name]["seconds"]] for name in ("ours", "plain"))
    note = f"{size.rounds} rounds in turns of {size.steps} steps each, {options.threads} threads, augmentations on"
    note = ", ".join(filter(None, [note, workload.remark]))
    operations = found["ours"]["operations"][0]
    rate = matrix_rate("cuda" if torch.cuda.is_available() else "cpu", 2048 if size.apart else 64)
    share = operations / rate / statistics.median(found["ours"]["seconds"])
    limit = (
        f"{operations / 1e9:.1f} GFLOP a step by torch's FlopCounterMode, {rate / 1e9:.0f} GFLOP/s of a matrix product"
    )
    waiting = statistics.median(found["ours"]["waiting"])
    return [
        compared(f"step, {workload.name}", "ms", ours, REFERENCE, plain, target=target, note=note),
        figure(f"share of the arithmetic limit, {workload.name}", share, note=limit),
        figure(f"share of a step that waits for its batch, {workload.name}", waiting, at_most=0.05),
    ]


def _measure_small(workload: Workload, size: Size, options) -> list[Row]:
    found = _compete(workload, size, options, shared=("--captions_per_recording", "2"))
    ours = found["ours"]
    shared, plain = ([1e3 * seconds for seconds in found[name]["seconds"]] for name in ("shared", "plain"))
    growth = (ours["memory"][-1] - ours["memory"][0]) / 1e6 / max(1, size.rounds - 1)
    speed = ours["recordings"][0] / statistics.median(ours["evaluation"])
    return [
        *_step_rows(workload, size, options, found, None if torch.cuda.is_available() else 2.5),
        compared(
            f"step, {workload.name}, a pass for two captions",
            "ms",
            shared,
            REFERENCE,
            plain,
            note="half as many recordings in a batch, so it learns less in a step",
        ),
        figure(
            "growth of host memory per round", growth, "MB", at_most=5, note=f"to {max(ours['memory']) / 1e9:.2f} GB"
        ),
        figure(f"evaluation, {workload.name}", speed, "recordings/s", note="five captions each, metrics included"),
    ]


def _measure_clotho(workload: Workload, size: Size, options) -> list[Row]:
    found = _compete(workload, size, options)
    step, evaluation = (statistics.median(found["ours"][name]) for name in ("seconds", "evaluation"))
    minutes = CLOTHO_EPOCHS * (CLOTHO_PAIRS // CLOTHO_BATCH * step + evaluation) / 60
    device_memory = max(found["ours"]["device_memory"]) / 1e9
    return [
        *_step_rows(workload, size, options, found, 5),
        figure("the paper's 50 epochs", minutes, "min", at_most=15, note="from the step and an evaluation per epoch"),
        figure("clips of 10 s", CLOTHO_BATCH * CLOTHO_MEAN_SECONDS / 10 / step, "1/s", at_least=624),
        figure(f"evaluation of {size.evaluated} recordings", evaluation, "s", at_most=5),
        figure("device memory at most", device_memory, "GB", at_most=12),
    ]


# ------------------------------------------------------------------------------------------------------------- ours


class StepClock(TrainerCallback):
    """Times the steps after the first few, from end to end, and the waits for a batch."""

    def __init__(self, trainer: RetrievalTrainer, warm_up_steps: int):
        self.warm_up_steps, self.device = warm_up_steps, trainer.args.device
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
            synchronize(self.device)
            self.ended = time.perf_counter()
            if state.global_step == self.warm_up_steps:
                self.started, self.waited = self.ended, 0.0

    def figures(self, steps: int) -> dict[str, float]:
        """Return the seconds of a step, and the share spent waiting for its batch."""
        seconds = self.ended - self.started
        return {"seconds": seconds / steps, "waiting": self.waited / seconds}


def build_ours(arguments: tuple[str, ...], steps: int, warm_up_steps: int) -> Round:
    """Build a round of our training with `steps` steps of the recipe; the first few do not count."""
    trainer, _ = build_trainer(*parse_recipe([*arguments, f"--max_steps={steps + warm_up_steps}"]))
    cuda = trainer.args.device.type == "cuda"
    operations = count_operations(trainer)
    clock = StepClock(trainer, warm_up_steps)
    if not cuda:
        keep_freed_memory()  # as `train_and_save` does

    def run() -> dict[str, float]:
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
        started = time.perf_counter()
        recordings = trainer.evaluate()["eval_num_recordings"]
        return {
            **clock.figures(steps),
            "evaluation": time.perf_counter() - started,
            "recordings": recordings,
            "operations": operations,
            "memory": memory(),
            "device_memory": torch.cuda.max_memory_allocated() if cuda else 0,
        }

    return run


def count_operations(trainer: RetrievalTrainer) -> int:
    """Count the floating-point operations of a step, forward and backward, on the first batch."""
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    with FlopCounterMode(display=False) as counter:
        trainer.compute_loss(trainer.model.train(), batch).backward()
    trainer.model.zero_grad()
    return counter.get_total_flops()


# --------------------------------------------------------------------------------------------------- two processes


def _two_processes(workload: Workload, rounds: int) -> list[Row]:
    """Compare one process of one thread with two that share a batch."""
    out = workload.waveforms.parent / "processes.json"

    def launch(processes: int) -> dict[str, float]:
        launcher = []
        if processes > 1:  # at any port that is free
            launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", f"--num_processes={processes}"]
            launcher.append("--main_process_port=0")
        command = [sys.executable, *launcher, "-m", "benchmarks.train", str(out), *workload.arguments, "--use_cpu=true"]
        paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        environment = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
        return json.loads(out.read_text())

    runs = in_turns({number: lambda number=number: launch(number) for number in (1, 2)}, rounds, warm_up=0)
    one, two = ([1e3 * run["seconds"] for run in runs[number]] for number in (1, 2))
    note = f"trainings in turns; processes that took part: {runs[2][0]['processes']}; the efficiency is half the ratio"
    return [compared("step in two processes of one thread", "ms", two, "one process of one thread", one, note=note)]


def main() -> None:
    out, *arguments = sys.argv[1:]
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    trainer, _ = build_trainer(*parse_recipe(arguments))
    clock = StepClock(trainer, warm_up_steps := Size().warm_up_steps)
    keep_freed_memory()
    trainer.train()
    if trainer.is_world_process_zero():
        figures = clock.figures(trainer.args.max_steps - warm_up_steps)
        Path(out).write_text(json.dumps({**figures, "processes": trainer.args.world_size}))


if __name__ == "__main__":
    main()
