"""Freed memory stays with the process, so that the system does not fill it with zeros again and again."""

import os
import platform
import resource
import subprocess
import sys

import pytest

ALLOCATE = """
import resource, torch
{set_up}
def faults():
    for _ in range(20):
        torch.ones(16_000_000)  # 64 MB: glibc hands blocks above 32 MB back at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
first = faults()
print(faults() - first)
{afterwards}
"""


def _page_faults(set_up: str, afterwards: str = "") -> int:
    code = ALLOCATE.format(set_up=set_up, afterwards=afterwards)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", code]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_memory_that_is_freed_and_taken_again_is_not_fetched_from_the_system():
    pages = 20 * 64_000_000 // resource.getpagesize()
    assert _page_faults("torch.set_num_threads(1)") > pages / 2  # else there is nothing to mend
    keep = "from modeling_cnn10bert.memory import keep_freed_memory; assert keep_freed_memory()"
    assert _page_faults(keep) < pages / 100


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_what_is_kept_for_a_while_goes_back_to_the_system():
    for_a_while = """
from modeling_cnn10bert.memory import freed_memory_kept
kept = freed_memory_kept()
kept.__enter__()
"""
    back = """
import pathlib
def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
held = resident()
kept.__exit__(None, None, None)
assert held - resident() > 60_000_000, (held, resident())
"""
    assert _page_faults(for_a_while, back) < 20 * 64_000_000 // resource.getpagesize() / 100
