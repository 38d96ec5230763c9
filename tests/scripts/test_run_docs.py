"""scripts/run_docs.py runs what the documents mark as runnable, and tells which of it failed."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = """# Title

<!-- newcomer -->
```bash
make demo   # a comment
make test
source .venv/bin/activate
```

<!-- run -->
```python
print("from the block")
```

<!-- run: search -k 3 -->
```bash
cnn10bert search "a dog # barks" \\
    --index a
cnn10bert score OUT.csv CAPTIONS.csv
```

```bash
accelerate launch train_retrieval.py RECIPE
```

<!-- run -->
```bash
cnn10bert publish runs/mine --to YOUR_NAME/sounds
```
"""
HUB_SERVER = """
class Hub:
    url = "http://127.0.0.1:1"
    def __enter__(self): return self
    def __exit__(self, *_): open("stopped.txt", "w").close()
    def add_user(self, name, token): self.url += f"/{name}"
"""
# `make demo` makes an environment whose one command writes down how it was called.
MAKEFILE = """demo:
\tmkdir -p .venv/bin
\techo 'export PATH="$$PWD/.venv/bin:$$PATH"' > .venv/bin/activate
\techo '#!/bin/bash' > .venv/bin/cnn10bert
\techo 'echo "$$HOME" "$$HF_ENDPOINT" "$$@" >> called.txt; [ "$$1" = {works} ]' >> .venv/bin/cnn10bert
\tchmod +x .venv/bin/cnn10bert
\tln -s "$$(command -v python3)" .venv/bin/python
test:
\ttouch tested
"""


@pytest.fixture(scope="module")
def run_docs():
    spec = importlib.util.spec_from_file_location("run_docs", ROOT / "scripts" / "run_docs.py")
    module = sys.modules.setdefault("run_docs", importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def repository(tmp_path):
    """Makes a repository with a README of a few commands; of those of `cnn10bert`, one works."""

    def make(works="search", readme=README):
        folder = tmp_path / "repository"
        folder.mkdir()
        (folder / "README.md").write_text(readme)
        (folder / "tests" / "publishing").mkdir(parents=True)
        (folder / "tests" / "publishing" / "hub_server.py").write_text(HUB_SERVER)
        (folder / "Makefile").write_text(MAKEFILE.format(works=works))
        git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org"]
        for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "first"]):
            subprocess.run([*git, *words], check=True)
        (folder / "not committed.txt").touch()
        return folder

    return make


def test_commands_are_run_in_a_clone_with_another_home_and_a_failure_is_counted(run_docs, repository, tmp_path, capsys):
    assert run_docs.walk(repository(works="search"), tmp_path / "place") == 2
    place, home = tmp_path / "place" / "cnn10bert", tmp_path / "place" / "home"
    assert (place / "tested").is_file() and not (place / "not committed.txt").exists()
    assert (place / "called.txt").read_text().splitlines() == [
        f"{home}  search a dog # barks --index a -k 3",
        f"{home}  score runs/ranked.csv captions.csv",
        f"{home} http://127.0.0.1:1/newcomer publish runs/mine --to newcomer/sounds",
    ]
    assert (place / "stopped.txt").is_file()
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    ends = {cells[1].strip(): cells[3].strip() for cells in rows[2:]}
    assert ends.pop("cnn10bert score OUT.csv CAPTIONS.csv") == "NO"
    assert ends.pop("cnn10bert publish runs/mine --to YOUR_NAME/sounds") == "NO"
    assert set(ends.values()) == {"yes"}
    assert list(ends) == [
        "make demo",
        "make test",
        "source .venv/bin/activate",
        "the Python there",
        'cnn10bert search "a dog # barks" --index a',
    ]
    logs = sorted((tmp_path / "place" / "logs").iterdir())
    assert "from the block" in logs[3].read_text()


def test_the_tests_can_be_left_out(run_docs, repository, tmp_path):
    run_docs.walk(repository(), tmp_path / "place", skip_tests=True)
    assert not (tmp_path / "place" / "cnn10bert" / "tested").exists()


def test_what_is_not_marked_is_not_run(run_docs, repository):
    assert "accelerate launch" not in " ".join(step.shown for step in run_docs.steps_of(repository()))


def test_the_process_ends_with_an_error_where_a_command_fails(run_docs, repository, tmp_path, monkeypatch):
    monkeypatch.setattr(run_docs, "ROOT", repository(readme="<!-- run -->\n```bash\nmake nothing\n```\n"))
    assert run_docs.main(["--into", str(tmp_path / "place")]) == 1


def test_a_folder_with_files_in_it_is_refused(run_docs, repository, tmp_path):
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "file").touch()
    with pytest.raises(SystemExit, match="expected an empty folder"):
        run_docs.walk(repository(), tmp_path / "place")


def test_the_newcomer_has_neither_our_environment_nor_our_settings(run_docs, tmp_path):
    ours = {
        "PATH": "/ours/.venv/bin:/usr/bin",
        "VIRTUAL_ENV": "/ours/.venv",
        "HF_HOME": "/ours/hub",
        "CNN10BERT_MODEL": "m",
        "LANG": "C.UTF-8",
        "PIP_CACHE_DIR": "/cache",
    }
    expected = {"PATH": "/usr/bin", "LANG": "C.UTF-8", "PIP_CACHE_DIR": "/cache", "HOME": str(tmp_path)}
    assert run_docs.newcomers_environment(ours, tmp_path) == expected
