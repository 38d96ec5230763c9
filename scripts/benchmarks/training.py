"""A training step against the plain loop and against the device's limit, and what goes with it."""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from modeling_cnn10bert.training.build import build_trainer
from modeling_cnn10bert.training.recipe import parse_recipe

from . import our_training
from .machine import measure_limit
from .operations import optimizer_operations, step_operations, total
from .our_training import build_ours
from .plain_training import build_plain
from .report import NO_ACCELERATOR, Row, compared, figure, not_measured
from .timing import Contender, compete, in_turns
from .workload import Sizes, Workload, clotho_workload, small_workload

SUBJECT = "training"
CLOTHO_PAIRS, CLOTHO_EPOCHS = 19_195, 50  # section 6.4 of the paper
CLOTHO_TEST = 1045  # recordings
REFERENCE = "the plain loop"


def measure(folder: Path, options) -> list[Row]:
    """All rows of training; see scripts/benchmark.py for the options."""
    given = (options.manifests, options.sources)
    if options.quick:
        sizes = Sizes(train=12, evaluate=4, steps=2, warm_up_steps=1, rounds=1)
        rows = _measure_small(small_workload(folder, *given, sizes), sizes, options)
        sizes = dataclasses.replace(sizes, steps=1)  # the captions are two batches
        return rows + _measure_clotho(clotho_workload(folder, *given, sizes, tiny=True), sizes, options)
    sizes = Sizes(rounds=options.rounds)
    rows = _measure_small(small_workload(folder, *given, sizes), sizes, options)
    rows += _two_processes(small_workload(folder, *given, sizes), options.rounds)
    if not torch.cuda.is_available():
        return rows + [
            not_measured(SUBJECT, "step, Clotho-shaped", NO_ACCELERATOR, "5 x"),
            not_measured(SUBJECT, "share of the limit, Clotho-shaped", NO_ACCELERATOR, ">= 0.4"),
            not_measured(SUBJECT, "the paper's 50 epochs", NO_ACCELERATOR, "<= 15 min"),
            not_measured(SUBJECT, "clips of 10 s a second", NO_ACCELERATOR, ">= 624"),
            not_measured(SUBJECT, "evaluation of 1045 recordings, 5225 captions", NO_ACCELERATOR, "<= 5 s"),
            not_measured(SUBJECT, "device memory at most", NO_ACCELERATOR, "<= 12 GB"),
        ]
    sizes = Sizes(train=512, evaluate=CLOTHO_TEST, steps=50, rounds=options.rounds)
    if options.manifests:  # may hold fewer test scenes than Clotho
        given = (None, None)
    return rows + _measure_clotho(clotho_workload(folder, *given, sizes), sizes, options)


def _compete(
    workload: Workload, sizes: Sizes, options, variants: Mapping[str, tuple] | None = None
) -> dict[str, dict[str, list[float]]]:
    """Ours and the plain loop, and ours with the fields of each of the `variants`."""
    common = (sizes.steps, sizes.warm_up_steps)
    processes = {"threads": options.threads, "apart": not options.quick}
    # Ours last: parsing a recipe resets what a Trainer of the same process holds on to.
    contenders = {
        "plain": Contender(build_plain, workload.arguments, workload.waveforms, *common, **processes),
        "ours": Contender(build_ours, workload.arguments, *common, **processes),
        **{
            name: Contender(build_ours, (*workload.arguments, *fields), *common, **processes)
            for name, fields in (variants or {}).items()
        },
    }
    return compete(contenders, sizes.rounds)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _note(workload: Workload, sizes: Sizes, options) -> str:
    what = f"{sizes.rounds} rounds in turns of {sizes.steps} steps each, processes of their own"
    return ", ".join(filter(None, [what, f"{options.threads} threads", "augmentations on", workload.remark]))


def _measure_small(workload: Workload, sizes: Sizes, options) -> list[Row]:
    found = _compete(workload, sizes, options, {"shared": ("--captions_per_recording", "2")})
    ours, plain = found["ours"], found["plain"]
    device = _device()
    milliseconds, of_plain, shared = (
        [1e3 * seconds for seconds in one["seconds"]] for one in (ours, plain, found["shared"])
    )
    note = _note(workload, sizes, options)
    target = 2.5 if device == "cpu" else None
    name = f"step, {workload.name}"
    memory = ours["host_memory"]
    recordings, seconds = ours["recordings"][0], statistics.median(ours["evaluation"])
    return [
        compared(SUBJECT, name, "ms", milliseconds, REFERENCE, of_plain, target=target, note=note),
        compared(
            SUBJECT,
            f"{name}, a pass for two captions",
            "ms",
            shared,
            REFERENCE,
            of_plain,
            note=f"half as many recordings in a batch, so it learns less in a step; {note}",
        ),
        _share_of_limit(workload, statistics.median(ours["seconds"]), device, None, options.quick),
        figure(
            SUBJECT,
            f"share of a step that waits for its batch, {workload.name}",
            statistics.median(ours["waiting"]),
            "",
            at_most=0.05,
            note="from the memory-mapped cache, the recipe's number of workers",
        ),
        figure(
            SUBJECT,
            "growth of host memory a round",
            (memory[-1] - memory[0]) / 1e6 / max(1, len(memory) - 1),
            "MB",
            at_most=5,
            note=f"over {len(memory)} rounds of {sizes.steps} steps, up to {memory[-1] / 1e9:.2f} GB",
        ),
        figure(
            SUBJECT,
            f"evaluation, {workload.name}",
            recordings / seconds,
            "recordings/s",
            note=f"{recordings:.0f} recordings with five captions each, from the cache, metrics included",
        ),
    ]


def _measure_clotho(workload: Workload, sizes: Sizes, options) -> list[Row]:
    found = _compete(workload, sizes, options)
    ours, plain = found["ours"], found["plain"]
    milliseconds = [[1e3 * seconds for seconds in one["seconds"]] for one in (ours, plain)]
    step, evaluation = statistics.median(ours["seconds"]), statistics.median(ours["evaluation"])
    batch, seconds_of_audio = 30, 22.5
    minutes = CLOTHO_EPOCHS * (CLOTHO_PAIRS // batch * step + evaluation) / 60
    note = _note(workload, sizes, options)
    return [
        compared(
            SUBJECT, f"step, {workload.name}", "ms", milliseconds[0], REFERENCE, milliseconds[1], target=5, note=note
        ),
        _share_of_limit(workload, step, _device(), 0.4, options.quick),
        figure(
            SUBJECT,
            "the paper's 50 epochs",
            minutes,
            "min",
            at_most=15,
            note="from the step and an evaluation an epoch",
        ),
        figure(SUBJECT, "clips of 10 s a second", batch * seconds_of_audio / 10 / step, "", at_least=624),
        figure(
            SUBJECT,
            f"share of a step that waits for its batch, {workload.name}",
            statistics.median(ours["waiting"]),
            "",
            at_most=0.05,
        ),
        figure(SUBJECT, "evaluation of 1045 recordings, 5225 captions", evaluation, "s", at_most=5),
        figure(SUBJECT, "device memory at most", max(ours["device_memory"]) / 1e9, "GB", at_most=12),
    ]


# ----------------------------------------------------------------------------------------------------------- limit


def _share_of_limit(workload: Workload, seconds: float, device: str, target: float | None, quick: bool) -> Row:
    trainer, tables = build_trainer(*parse_recipe(list(workload.arguments)))
    limit = measure_limit(device, size=64 if quick else None)
    config, batch = trainer.model.config, trainer.args.total_train_batch_size
    lengths, texts = tables.train["length"][:], tables.train["captions"][:]
    frames = [length for length, own in zip(lengths, texts, strict=True) for _ in own]
    captions = [caption for own in texts for caption in own]
    tokens = [len(ids) for ids in trainer.processing_class.tokenizer(captions, truncation=True)["input_ids"]]
    frozen = _frozen_layers(trainer.model)
    operations = step_operations(
        config,
        frames,
        tokens,
        frozen_layers=frozen,
        frozen_text=frozen == config.text_config.num_hidden_layers,
        value_bytes=2 if trainer.args.bf16 else 4,
    )
    share = batch / len(captions)  # of all pairs, which were counted
    trained = sum(weight.numel() for weight in trainer.model.parameters() if weight.requires_grad)
    operations = [*(operation * share for operation in operations), optimizer_operations(trained)]
    least = sum(operation.least_seconds(limit) for operation in operations)
    whole = total(operations)
    note = (
        f"a step is {(whole.forward + whole.backward) / 1e9:.1f} GFLOP and {whole.bytes / 1e9:.2f} GB, at least "
        f"{1e3 * least:.1f} ms at {limit.rate / 1e9:.0f} GFLOP/s ({str(limit.dtype).removeprefix('torch.')}) and "
        f"{limit.bandwidth / 1e9:.1f} GB/s"
    )
    return figure(SUBJECT, f"share of the limit, {workload.name}", least / seconds, "", at_least=target, note=note)


def _frozen_layers(model) -> int | None:
    layers = model.text_model.encoder.layer
    if any(weight.requires_grad for weight in model.text_model.embeddings.parameters()):
        return None
    return sum(not any(weight.requires_grad for weight in layer.parameters()) for layer in layers)


# --------------------------------------------------------------------------------------------------- two processes


def _two_processes(workload: Workload, rounds: int) -> list[Row]:
    """One process of one thread, and two of one each, that share a batch."""
    runs = in_turns({number: lambda number=number: _launch(workload, number) for number in (1, 2)}, rounds, warm_up=0)
    processes = {run["processes"] for run in runs[2]}
    one, two = ([1e3 * run["seconds"] for run in runs[number]] for number in (1, 2))
    note = f"{rounds} trainings in turns; the processes that took part: {processes}"
    efficiency = statistics.median(a / b / 2 for a, b in zip(one, two, strict=True))
    return [
        compared(
            SUBJECT, "step in two processes of one thread", "ms", two, "one process of one thread", one, note=note
        ),
        figure(SUBJECT, "scaling efficiency of two processes", efficiency, "", note="the ratio above over two"),
    ]


def _launch(workload: Workload, processes: int) -> dict[str, float]:
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    launcher: Sequence[str] = ()
    if processes > 1:
        launcher = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes))
        launcher = (*launcher, "--main_process_port", "0")  # any that is free
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        command = [sys.executable, *launcher, our_training.__file__, str(out), *workload.arguments, "--use_cpu", "true"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
        return json.loads(out.read_text())
