"""`cnn10bert space`: a folder that runs by itself, of what the Hub takes, and tells nothing of the machine."""

import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

gradio = pytest.importorskip("gradio", reason="gradio is not installed (the extra `app`)")
httpx = pytest.importorskip("httpx", reason="httpx is not installed (gradio brings it)")

ROOT = Path(__file__).resolve().parents[2]
# Runs app.py where neither the repository nor any package can be imported that requirements.txt does not ask for.
ALONE = """
import runpy, sys
space, root, *absent = sys.argv[1:]
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path if "editable" not in repr(finder)]
sys.path[:] = [space, *(path for path in sys.path if path not in ("", root))]
import modeling_cnn10bert
print("code:", modeling_cnn10bert.__file__, flush=True)
runpy.run_path(space + "/app.py", run_name="__main__")
"""
ABSENT = [
    "torchaudio", "torchcodec", "datasets", "evaluate", "accelerate", "optuna", "nltk", "nlpaug", "sklearn",
    "py7zr", "sentencepiece", "watchfiles", "pymilvus", "onnx", "onnxruntime",
]  # fmt: skip


@pytest.fixture
def sounds(tmp_path, noise):
    """Three recordings, one of them in a folder of its own, two with captions."""
    folder = tmp_path / "private name" / "sounds"
    (folder / "deep").mkdir(parents=True)
    for number, name in enumerate(["one.wav", "two.flac", "deep/three.wav"]):
        soundfile.write(folder / name, noise(32_000 * (number + 1), seed=number), 32_000)
    (folder / "metadata.csv").write_text("file_name,caption\none.wav,A hiss.\ndeep/three.wav,A long hiss.\n")
    (folder / "letter.txt").write_text("nothing for a Space")
    return folder


@pytest.fixture
def space(cnn10bert, tmp_path, tiny_folder, sounds):
    cnn10bert("space", tmp_path / "space", "--model", tiny_folder[0], "--sounds", sounds)
    return tmp_path / "space"


def contents(folder):
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}


def test_it_runs_by_itself_and_answers(space, tmp_path, port, sounds):
    sounds.rename(tmp_path / "elsewhere")  # nothing of it is needed any more
    process = subprocess.Popen(
        [sys.executable, "-c", ALONE, str(space), str(ROOT), *ABSENT],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "GRADIO_SERVER_PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        lines = [process.stdout.readline()]
        while lines[-1] and "Ctrl-C" not in lines[-1]:
            lines.append(process.stdout.readline())
        assert f"code: {space}/modeling_cnn10bert/__init__.py\n" in lines, "".join(lines)
        assert lines[-1].startswith("3 recordings: http://127.0.0.1:"), "".join(lines)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            answer = ask(client, "a hiss")
            assert sorted(re.findall(r"\w+\.(?:wav|flac)(?=</span>)", answer)) == ["one.wav", "three.wav", "two.flac"]
            assert "A long hiss." in answer
            heard = client.get("/clip/" + re.search(r"clip/(\w+)", answer)[1])
            assert heard.status_code == 200 and heard.content.startswith(b"fLaC")
    finally:
        process.terminate()
        process.wait(timeout=30)


def ask(client, text):
    """The answer, once the server listens."""
    for attempt in range(100):
        try:
            joined = client.post("/gradio_api/call/search", json={"data": [text, "", "", "", 0, 0, "", ""]})
            break
        except httpx.ConnectError:
            assert attempt < 99
            time.sleep(0.2)
    return client.get(f"/gradio_api/call/search/{joined.json()['event_id']}").text


def test_its_metadata_is_what_the_hub_takes(space):
    from huggingface_hub import SpaceCard

    card = SpaceCard.load(space / "README.md", ignore_metadata_errors=False)
    assert card.data.sdk == "gradio" and card.data.sdk_version == gradio.__version__
    assert (space / card.data.app_file).is_file()
    assert card.data.models is None and len(card.data.short_description) <= 60  # the Hub's limit
    assert card.data.colorFrom in {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert "of 3 recordings" in card.text


def test_its_requirements_are_the_ranges_of_the_package(space):
    tomllib = pytest.importorskip("tomllib", reason="of Python 3.11")

    asked = [line for line in (space / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    given = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for line in asked[:-1]:
        name, ranges = re.fullmatch(r"([\w-]+)(.*)", line).groups()
        assert sorted(ranges.split(",")) in [sorted(one.removeprefix(name).split(",")) for one in given if name in one]
    assert asked[-1] == f"gradio=={gradio.__version__}" and any(line.startswith("torch>=") for line in asked)


def test_it_holds_what_is_needed_and_nothing_that_tells_of_this_machine(space, tiny_folder, tmp_path):
    files = contents(space)
    (tiny_folder[0] / "training_args.bin").write_bytes(b"")
    assert {
        "app.py",
        "requirements.txt",
        "README.md",
        "sounds/one.wav",
        "sounds/two.flac",
        "sounds/deep/three.wav",
    } <= {*files}
    assert {"model/config.json", "model/model.safetensors", "model/tokenizer.json"} <= {*files}
    assert {"modeling_cnn10bert/page/style.css", "modeling_cnn10bert/page/keyboard.js"} <= {*files}
    assert not [name for name in files if name.endswith((".txt", ".bin", ".pyc")) and name != "requirements.txt"]
    for name, path in files.items():
        assert b"private name" not in path.read_bytes() and str(tmp_path).encode() not in path.read_bytes(), name


def test_of_an_index_the_embeddings_and_windows_are_taken_over(cnn10bert, tmp_path, tiny_folder, sounds, monkeypatch):
    from modeling_cnn10bert.retrieval import AudioRetriever, reading
    from modeling_cnn10bert.retrieval.stores import open_store

    with AudioRetriever.from_pretrained(tiny_folder[0], tmp_path / "my.index") as retriever:
        retriever.index([sounds], window=2.0, overlap=0.5)
        before = {Path(file.record.path).name: file for file in retriever.store.embedded()}
    monkeypatch.setattr(reading.File, "embedded", lambda *_: pytest.fail("a recording was embedded again"))
    arguments = ["--model", str(tiny_folder[0]), "--sounds", str(tmp_path / "my.index")]
    cnn10bert("space", tmp_path / "space", *arguments, "--captions", sounds / "metadata.csv")
    with open_store(str(next((tmp_path / "space").glob("sounds-*.index")))) as store:
        after = {Path(file.record.path).name: file for file in store.embedded()}
    assert before.keys() == after.keys() and len(after) == 3
    for name, file in after.items():
        assert file.spans == before[name].spans and np.array_equal(file.embeds, before[name].embeds)
    assert (tmp_path / "space/sounds/metadata.csv").read_text().count("hiss") == 2


def test_names_of_folders_outside_the_given_one_are_not_published(cnn10bert, tmp_path, tiny_folder, sounds, noise):
    from modeling_cnn10bert.retrieval import AudioRetriever

    (tmp_path / "client X").mkdir()
    soundfile.write(tmp_path / "client X" / "one.wav", noise(32_000, seed=9), 32_000)
    (sounds / "linked").symlink_to(tmp_path / "client X")
    with AudioRetriever.from_pretrained(tiny_folder[0], tmp_path / "my.index") as retriever:
        retriever.index([sounds, tmp_path / "client X"])
    for given, expected in [(sounds, 4), (tmp_path / "my.index", 4)]:
        out = tmp_path / f"space of {given.name}"
        cnn10bert("space", out, "--model", tiny_folder[0], "--sounds", given)
        files = contents(out)
        assert len([name for name in files if name.endswith((".wav", ".flac"))]) == expected
        for name, path in files.items():
            assert "client X" not in name and b"client X" not in path.read_bytes(), name
            assert "private" not in name and b"private name" not in path.read_bytes(), name


def test_a_model_on_the_hub_is_named_and_not_copied(tmp_path, monkeypatch, tiny_folder, sounds):
    from modeling_cnn10bert.page import space as module

    load = module.load_embedder
    monkeypatch.setattr(module, "load_embedder", lambda _: load(tiny_folder[0]))
    out = module.make_space(tmp_path / "space", "org/cnn10-bert-clotho", sounds)
    assert not (out / "model").exists()
    assert "MODEL = 'org/cnn10-bert-clotho'" in (out / "app.py").read_text()
    assert "models:\n- org/cnn10-bert-clotho\n" in (out / "README.md").read_text()


@pytest.mark.parametrize("broken", ["taken", "empty", "no model"])
def test_what_cannot_become_a_space_is_one_clear_error_and_leaves_nothing(
    cnn10bert, tmp_path, tiny_folder, sounds, broken
):
    out, model = tmp_path / "out", tiny_folder[0]
    if broken == "taken":
        out.mkdir()
        (out / "mine").touch()
    elif broken == "empty":
        sounds = tmp_path / "nothing"
        sounds.mkdir()
    else:
        model = tmp_path / "no model"
    before = {*contents(tmp_path)}
    result = cnn10bert("space", out, "--model", model, "--sounds", sounds, code=1)
    assert re.match("error: .*: found|error: cannot load", result.stderr)
    assert {*contents(tmp_path)} == before


@pytest.fixture
def port():
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
