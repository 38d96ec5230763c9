"""What the figures were measured on, and the most that it can do: matrix rate and memory bandwidth."""

import dataclasses
import importlib.metadata
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "torchaudio", "transformers", "accelerate", "numpy", "onnxruntime", "lancedb", "faiss-cpu")


@dataclasses.dataclass(frozen=True)
class Limit:
    """
    What a device can do, measured.

    Attributes:
        rate: floating-point operations a second of a matrix product in `dtype`, a multiply-add being two.
        bandwidth: bytes a second, read or written.
        dtype: of the product.
    """

    rate: float
    bandwidth: float
    dtype: torch.dtype


def describe(threads: int) -> dict[str, Any]:
    """Hardware, versions, threads and command, as the report prints them."""
    about: dict[str, Any] = {
        "command": shlex.join(["python", *sys.argv]),
        "device": _processor(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB",
        "threads": threads,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        "load before": f"{os.getloadavg()[0]:.1f} over the last minute",
    }
    if torch.cuda.is_available():
        about["device"] = torch.cuda.get_device_name()
        about["processor"] = _processor()
        about["CUDA"] = f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        # PyTorch's defaults, which the reference loop leaves as they are.
        about["TF32 of the reference"] = (
            f"matrix products {torch.backends.cuda.matmul.allow_tf32}, convolutions {torch.backends.cudnn.allow_tf32}"
        )
    return about


def _processor() -> str:
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text().splitlines()
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores, PyTorch uses {torch.backends.cpu.get_cpu_capability()}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def measure_limit(device: str, size: int | None = None, repeats: int = 5) -> Limit:
    """
    The best of some repeats: of a matrix product, in bfloat16 on an accelerator and float32 on a CPU, and of a copy.

    Args:
        device: to measure.
        size: of the square matrices and, in units of 64 kB, of the copy; by default large.
    """
    accelerator = torch.device(device).type != "cpu"
    size = size or (8192 if accelerator else 2048)
    dtype = torch.bfloat16 if accelerator else torch.float32
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    product = torch.empty(size, size, device=device, dtype=dtype)
    source = torch.ones(size * 65536 // 4, device=device)  # beyond any cache by default
    target = torch.empty_like(source)
    seconds_product = _least_seconds(lambda: torch.mm(left, right, out=product), device, repeats)
    seconds_copy = _least_seconds(lambda: target.copy_(source), device, repeats)
    return Limit(2 * size**3 / seconds_product, 2 * source.nbytes / seconds_copy, dtype)


def _least_seconds(function: Callable[[], Any], device: str, repeats: int) -> float:
    seconds = []
    for _ in range(repeats + 1):
        synchronize(device)
        started = time.perf_counter()
        function()
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def synchronize(device: str | torch.device) -> None:
    """Waits for what an accelerator was given to do."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
