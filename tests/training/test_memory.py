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
"""


def _page_faults(set_up: str) -> int:
    code = ALLOCATE.format(set_up=set_up)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", code]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_memory_that_is_freed_and_taken_again_is_not_fetched_from_the_system():
    pages = 20 * 64_000_000 // resource.getpagesize()
    assert _page_faults("torch.set_num_threads(1)") > pages / 2  # else there is nothing to mend
    keep = "from modeling_cnn10bert.training.memory import keep_freed_memory; assert keep_freed_memory()"
    assert _page_faults(keep) < pages / 100
