"""scripts/compare_runs.py sums several runs up, and says which has no results."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _compare(*arguments, folder):
    command = [sys.executable, str(ROOT / "scripts" / "compare_runs.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


def test_mean_and_deviation_of_each_setting_are_printed_and_drawn(tmp_path):
    for name, value in (("a0", 0.5), ("a1", 0.6), ("a2", 0.7), ("b0", 0.8)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "all_results.json").write_text(json.dumps({"test_mAP@10": value}))
    done = _compare("plain=a0 a1 a2", "more=b0", "--metrics", "test_mAP@10", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "plain (3 runs)" in done.stdout and "0.600 ± 0.100" in done.stdout and "0.800 ± nan" in done.stdout
    assert (tmp_path / "comparison.png").stat().st_size > 1000

    done = _compare("plain=a0 nowhere", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: a0/all_results.json: found no eval_mAP@10")
    done = _compare("plain=nowhere", folder=tmp_path)
    assert done.stderr.startswith("error: nowhere/all_results.json: found no results")
