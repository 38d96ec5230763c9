"""Write the page as a Hugging Face Space: a folder with this code, the recordings and their index."""

import contextlib
import csv
import importlib.metadata
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from huggingface_hub import SpaceCardData
from packaging.requirements import Requirement

import modeling_cnn10bert

from ..data.audio_io import printable
from ..errors import RetrievalError
from ..files import replaced_whole, scratch_folder
from ..retrieval.embedding import load_embedder
from ..retrieval.identity import check_same_model
from ..retrieval.records import FORMAT_VERSION, IndexInfo
from ..retrieval.retriever import AudioRetriever
from ..retrieval.scanning import canonical, is_below, scan
from ..retrieval.stores import open_store
from .captions import built_in_captions, find_captions, read_captions
from .sound_library import folder_index

# The requirements of this package that a page imports.
NEEDED = ("torch", "transformers", "huggingface-hub", "soundfile", "soxr", "scipy", "matplotlib", "tqdm", "lancedb")
MODEL_FILES = (
    "config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "vocab*",
    "merges.txt",
)

APP = '''"""The page of this Space: the recordings in sounds, found by a text or by a sound."""

import os
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: several questions at once, a core for each

from modeling_cnn10bert.page.sound_library import open_folder
from modeling_cnn10bert.page.server import serve

HERE = Path(__file__).resolve().parent
MODEL = {model}

if __name__ == "__main__":
    host = "0.0.0.0" if "SPACE_ID" in os.environ else "127.0.0.1"  # a Space is reached from outside its container
    port = int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
    names = ["*"] if "SPACE_ID" in os.environ else []  # there, under the names that the Hub gives it
    serve(open_folder(HERE / "sounds", MODEL), host, port, names)
'''

README = """---
{metadata}
---

# {title}

Type what you want to hear, or drop in a recording: the ten best of {count} recordings are shown with score and log-mel
picture, and played. The arrow keys walk through them, the space bar pauses.

The model is {model}.
The code in `modeling_cnn10bert` (Apache-2.0) implements Primus & Widmer, *Improving Natural-Language-Based Audio
Retrieval with Transfer Learning and Audio & Text Augmentations* (DCASE Workshop 2022). The recordings are under the
licenses of their authors. `python app.py` starts the same page on your own machine, after
`pip install -r requirements.txt`.
"""


def make_space(
    out: str | os.PathLike,
    model: str,
    sounds: str | os.PathLike,
    captions: str | os.PathLike | None = None,
    title: str = "Search sounds",
) -> Path:
    """
    Write a Space: app.py, requirements.txt, README.md, the code, the recordings, their index, and a model in a folder.

    The index holds no path of this machine. The folder appears when it is complete.

    Args:
        out: folder to write; missing or empty.
        model: a folder, which is copied, or a Hub id, which the Space loads.
        sounds: folder of recordings, or the location of an index of this model, whose embeddings are reused.
        captions: a file, see `read_captions`; by default the folder's metadata.
        title: title of the Space.

    Returns:
        The folder.

    Raises:
        RetrievalError: `out` is not empty, there is no recording or no such model, or a file cannot be used.
    """
    out = Path(out).absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RetrievalError(f"{out}: found something there, expected no such folder or an empty one; choose another")
    in_folder = os.path.isdir(model)
    package = Path(modeling_cnn10bert.__file__).parent
    with replaced_whole(out) as space:
        space.mkdir()
        count = _copy_sounds(space, model, sounds, captions)
        shutil.copytree(package, space / package.name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        if in_folder:
            (space / "model").mkdir()
            for path in (path for pattern in MODEL_FILES for path in Path(model).glob(pattern)):
                shutil.copyfile(path, space / "model" / path.name)
        files = {
            "app.py": APP.format(model='str(HERE / "model")' if in_folder else repr(model)),
            "requirements.txt": _requirements(),
            "README.md": _readme(title, None if in_folder else model, count),
        }
        for name, text in files.items():
            (space / name).write_text(text, encoding="utf-8")
    return out


def _copy_sounds(space: Path, model: str, sounds: str | os.PathLike, captions: str | os.PathLike | None) -> int:
    """Copy the recordings with their captions, make their index, and return the number of recordings."""
    embedder = load_embedder(model)
    in_folder = os.path.isdir(model)
    with contextlib.ExitStack() as stack:
        # The recordings of an index, or of a folder.
        try:
            store = stack.enter_context(open_store(os.fspath(sounds)))
        except RetrievalError:
            if not os.path.isdir(sounds):
                raise
            store, paths = None, sorted(scan([sounds]).files)
        else:
            paths = sorted(path for path in store.files() if os.path.isfile(path))
        if not paths:
            raise RetrievalError(f"{sounds}: found no recording, expected at least one; check the path")
        names = _names(paths, None if store else canonical(sounds))
        info = IndexInfo(embedder.identity) if store is None else store.info
        check_same_model(info.model, embedder.identity)

        # Links in a temporary folder are indexed, because the index is published and holds the paths.
        root = stack.enter_context(scratch_folder(tempfile.gettempdir(), "cnn10bert-space-")).resolve() / "sounds"
        for path, name in names.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).symlink_to(path)
        location = folder_index(root, embedder)
        anonymous = replace(info.model, name="model" if in_folder else model)
        with open_store(str(location), replace(info, model=anonymous, format_version=FORMAT_VERSION)) as made:
            if store is not None:
                links = {path: str(root / name) for path, name in names.items()}
                files = store.embedded(names)
                made.put([replace(file, record=replace(file.record, path=links[file.record.path])) for file in files])
            report = AudioRetriever(made, embedder).index([root])
            indexed = {str(Path(path).relative_to(root)) for path in made.files()}
        if not indexed:
            raise RetrievalError(f"{sounds}: found no recording that can be used ({report})")
        shutil.copytree(location, space / location.name)

    if captions is not None:
        known = read_captions(captions)
    else:
        known = find_captions(sounds) if os.path.isdir(sounds) else built_in_captions()
    rows = []
    for path, name in names.items():
        if name in indexed:
            (space / "sounds" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, space / "sounds" / name)
            rows += [(name, caption) for caption in known.of(path)]
    if rows:
        with (space / "sounds" / "metadata.csv").open("w", newline="", encoding="utf-8") as table:
            csv.writer(table, lineterminator="\n").writerows([("file_name", "caption"), *rows])
    return len(indexed)


def _names(paths: list[str], root: str | None) -> dict[str, str]:
    """Name each path relative to the given folder; a path elsewhere or from an index gets its file name alone."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for path in paths:
        name = os.path.relpath(path, root) if root is not None and is_below(path, root) else os.path.basename(path)
        if printable(name) != name:
            raise RetrievalError(f"{printable(name)}: found a name that is not UTF-8, which the Hub does not take")
        stem, ending = os.path.splitext(name)
        number = 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}{ending}"
        taken.add(name.casefold())
        names[path] = name
    return names


def _requirements() -> str:
    """List this package's version ranges of what a page imports; gradio comes by the Space's `sdk_version`."""
    requirements = map(Requirement, importlib.metadata.requires("cnn10bert") or ())
    ranges = {one.name: f"{one.name}{one.specifier}" for one in requirements if one.marker is None}
    lines = [
        "# A Space without a GPU also gets the CUDA build (3 GB), which works there.",
        *(ranges[name] for name in NEEDED),
        f"gradio=={importlib.metadata.version('gradio')}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _readme(title: str, model_id: str | None, count: int) -> str:
    metadata = SpaceCardData(
        title=title,
        sdk="gradio",
        sdk_version=importlib.metadata.version("gradio"),
        python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
        app_file="app.py",
        models=None if model_id is None else [model_id],
        tags=["audio", "audio-retrieval", "cnn10bert"],
        emoji="🔊",
        colorFrom="indigo",
        colorTo="purple",
        pinned=False,
        short_description="Describe a sound, hear the recordings that match",
    )
    model = "in the folder `model`" if model_id is None else f"[{model_id}](https://huggingface.co/{model_id})"
    return README.format(metadata=metadata.to_yaml(), title=title, count=count, model=model)
