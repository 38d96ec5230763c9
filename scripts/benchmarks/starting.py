"""What `import modeling_cnn10bert` adds to `import transformers, torch`."""

import json
import statistics
import subprocess
import sys

from .report import Row, figure
from .timing import in_turns

SUBJECT = "start"
PROGRAM = """
import json, time
started = time.perf_counter()
import {libraries}
between = time.perf_counter()
import {package}
print(json.dumps([between - started, time.perf_counter() - between]))
"""


def measure(rounds: int, libraries: str = "transformers, torch", package: str = "modeling_cnn10bert") -> list[Row]:
    """Seconds of both imports, each time in a fresh process."""
    program = PROGRAM.format(libraries=libraries, package=package)
    found = in_turns({"imports": lambda: _run(program)}, rounds)["imports"]
    before, added = (statistics.median(column) for column in zip(*found, strict=True))
    note = f"{rounds} fresh processes; `import {libraries}` takes {before:.2f} s"
    return [figure(SUBJECT, f"added by `import {package}`", added, "s", at_most=0.2, note=note)]


def _run(program: str) -> tuple[float, float]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return tuple(json.loads(done.stdout.splitlines()[-1]))
