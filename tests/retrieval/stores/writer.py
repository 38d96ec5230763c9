"""A process that puts recordings into an index, for tests that kill it, or run several at once.

    python writer.py LOCATION FIRST_FILE NUM_FILES FIRST_VERSION NUM_VERSIONS

Version v of a recording has 1 + v % 5 windows, whose embeddings have one value, in the place v % 16.
"""

import sys
import types
from pathlib import Path

# The package without its __init__.py, which loads transformers and torch: that takes longer than the test.
package = types.ModuleType("modeling_cnn10bert")
package.__path__ = [str(Path(__file__).resolve().parents[3] / "modeling_cnn10bert")]
sys.modules["modeling_cnn10bert"] = package

import numpy as np  # noqa: E402

from modeling_cnn10bert.retrieval.records import EmbeddedFile, FileRecord  # noqa: E402
from modeling_cnn10bert.retrieval.stores import open_store  # noqa: E402


def recording(number: int, version: int) -> EmbeddedFile:
    windows = 1 + version % 5
    record = FileRecord(f"/sounds/{number}.wav", str(version), size=1, modified_ns=1, duration=3.0 * windows)
    spans = [(3.0 * window, 3.0 * window + 4.0) for window in range(windows)]
    return EmbeddedFile(record, spans, np.tile(np.eye(16, dtype=np.float32)[version % 16], (windows, 1)))


location = sys.argv[1]
first_file, num_files, first_version, num_versions = map(int, sys.argv[2:])
with open_store(location) as store:
    print("open", flush=True)
    for version in range(first_version, first_version + num_versions):
        store.put([recording(number, version) for number in range(first_file, first_file + num_files)])
        print(version, flush=True)
