"""Write a static search page: the model, an index and a page that searches it in the browser, without a server."""

import dataclasses
import gzip
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import SpaceCardData

from .. import __version__
from ..data.audio_io import printable
from ..data.download import verify
from ..errors import DataError, RetrievalError, one_line
from ..files import replaced_whole, scratch_folder
from ..model_folder import check_model
from ..retrieval.identity import check_same_model, weights_fingerprint
from ..retrieval.onnx import MAX_TOKENS, export_onnx, replaceable_folder
from ..retrieval.records import EmbeddedFile
from ..retrieval.stores import open_store

INDEX_NAME = "search.json"
PACKAGES_FOLDER = Path.home() / ".cache" / "cnn10bert" / "npm"


@dataclasses.dataclass(frozen=True)
class NpmPackage:
    """Package that the page runs with: name and version, the file that `npm pack` writes, and its SHA-512."""

    name: str
    file: str
    sha512: str


ONNX_RUNTIME = NpmPackage(
    "onnxruntime-web@1.30.0",
    "onnxruntime-web-1.30.0.tgz",
    "ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
    "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61",
)
TOKENIZERS = NpmPackage(
    "@huggingface/tokenizers@0.2.0",
    "huggingface-tokenizers-0.2.0.tgz",
    "2e274c1ded45a5c4981f8bdc4a35e8a1d6b7e290b433c9b58260cebfb4908ba2"
    "2ffa26f5cd7ec9dec1c1082f7fdc53c2927da4d5be79167795a8c471aebf7da6",
)
# Package -> file in it -> file in the page's folder `runtime`.
RUNTIME = {
    ONNX_RUNTIME: {
        "package/dist/ort.wasm.bundle.min.mjs": "ort.mjs",
        # No server needs to know how to compress it, and none takes the name for an encoding.
        "package/dist/ort-wasm-simd-threaded.wasm": "ort.wasm.gzip",
    },
    TOKENIZERS: {
        "package/dist/tokenizers.min.mjs": "tokenizers.mjs",
        "package/LICENSE": "tokenizers.LICENSE",
    },
}
# What the page loads before the first text.
AT_START = (
    "runtime/ort.wasm.gzip",
    "model/text_model.onnx",
    "embeddings.bin",
    "model/tokenizer.json",
    "model/tokenizer_config.json",
)
MODEL_FILES = ("audio_model.onnx", "text_model.onnx", "onnx_config.json", "processor_config.json", "tokenizer*.json")

README = """---
{metadata}
---

# Search sounds

A page that searches {count} recordings by a text or by a recording. The model runs in the browser, and nothing is sent
anywhere. Any static web server will do, for example `python -m http.server` in this folder.

The page was written by cnn10bert {version} (Apache-2.0). It runs on ONNX Runtime Web (MIT) and Tokenizers.js
(Apache-2.0). The recordings are under the licenses of their authors.
"""


def export_web(
    model: str | os.PathLike,
    out: str | os.PathLike,
    index: str | os.PathLike,
    *,
    with_sounds: bool = False,
    runtime: str | os.PathLike | None = None,
    calibration: str | os.PathLike | Sequence[np.ndarray] = (),
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Path:
    """
    Write a folder that any static web server, or a static Space, shows as a search page.

    It holds both towers as ONNX, the text tower in 8 bits, with ONNX Runtime for the browser, the tokenizer, the
    embeddings of an index, and the page. Recordings are named relative to the folder that they share.

    Args:
        model: folder or Hub id of the model that made the index.
        out: the folder to write; an earlier page is replaced.
        index: location of the index.
        with_sounds: whether to copy the recordings, so that the page can play them.
        runtime: folder with the npm packages of `RUNTIME`, as `npm pack` writes them; npm fetches missing ones
            to it. By default, `PACKAGES_FOLDER`.
        calibration, revision, trust_remote_code: see `export_onnx`.

    Returns:
        The folder.

    Raises:
        RetrievalError: the index is empty, is of another model or holds recordings that are gone, `out` holds
            something else, or the model cannot be exported.
        DataError: an npm package cannot be fetched, or is not the published one.
    """
    # Whatever fails should fail before the export, which takes longest
    out = replaceable_folder(out, INDEX_NAME)
    check_model(model, RetrievalError)
    with open_store(os.fspath(index)) as store:
        info, files = store.info, sorted(store.embedded(), key=lambda file: file.record.path)
    if not files:
        raise RetrievalError(f"{index}: found no recording, expected at least one; index some first")
    fingerprint = weights_fingerprint(os.fspath(model), revision)
    check_same_model(info.model, dataclasses.replace(info.model, name=os.fspath(model), fingerprint=fingerprint))
    names = _names(files)
    n_fft = info.model.features.get("n_fft", 1)  # other models have none, and cannot be exported
    if n_fft & (n_fft - 1):
        raise RetrievalError(f"{model}: found n_fft {n_fft}, expected a power of two, which the page can transform")
    if with_sounds and (gone := [path for path in names if not os.path.isfile(path)]):
        raise RetrievalError(
            f"{printable(gone[0])}: found no such file, and {len(gone)} of {len(names)} recordings are gone; update "
            "the index, or leave the sounds out"
        )
    packages = fetch_packages(runtime or PACKAGES_FOLDER)

    with replaced_whole(out) as page:
        page.mkdir()

        # The model
        exported = export_onnx(
            model,
            page / "exported",
            int8=True,
            weights_only=True,  # browsers round the inputs of 8-bit products in another way than Python
            calibration=calibration,
            revision=revision,
            trust_remote_code=trust_remote_code,
            name="model",
        )
        (page / "model").mkdir()
        for path in (path for pattern in MODEL_FILES for path in exported.glob(pattern)):
            path.rename(page / "model" / path.name)
        shutil.rmtree(exported)

        # What runs it
        (page / "runtime").mkdir()
        for package, members in RUNTIME.items():
            with tarfile.open(packages[package]) as archive:
                for member, name in members.items():
                    content = archive.extractfile(member).read()  # type: ignore[union-attr]  # it is in the package
                    content = gzip.compress(content, 6, mtime=0) if name.endswith(".gzip") else content
                    (page / "runtime" / name).write_bytes(content)

        # The page and its recordings
        for source in (resources.files(__package__) / "web").iterdir():
            (page / source.name).write_bytes(source.read_bytes())
        np.concatenate([file.embeds for file in files]).astype("<f4").tofile(page / "embeddings.bin")
        recordings = []
        for file in files:
            name = names[file.record.path]
            fields: dict[str, Any] = {"name": name, "duration": file.record.duration, "windows": file.spans}
            if with_sounds:
                fields["sound"] = f"sounds/{name}"
                (page / "sounds" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file.record.path, page / "sounds" / name)
            recordings.append(fields)
        search = {
            "project_version": __version__,
            "dimension": info.model.dimension,
            "features": info.model.features,
            "max_tokens": MAX_TOKENS,
            "window": info.window,
            "overlap": info.overlap,
            "normalize_level": info.normalize_level,
            "bytes_at_start": sum((page / name).stat().st_size for name in AT_START),
            "recordings": recordings,
        }
        (page / INDEX_NAME).write_text(json.dumps(search), encoding="utf-8")
        (page / "README.md").write_text(_readme(len(files), __version__), encoding="utf-8")
    return out


def fetch_packages(folder: str | os.PathLike = PACKAGES_FOLDER) -> dict[NpmPackage, Path]:
    """
    Return the files of the npm packages in a folder; npm fetches missing ones.

    Raises:
        DataError: npm is not installed or fails, or a package is not the published one.
    """
    folder = Path(folder)
    for package in RUNTIME:
        if (folder / package.file).is_file():
            continue
        help = f"or copy {package.file} from another machine to {folder}"
        npm = shutil.which("npm")
        if npm is None:
            raise DataError(f"{package.name}: found no npm, which fetches this package; install Node.js, {help}")
        with scratch_folder(folder, ".npm-") as scratch:
            command = [npm, "pack", package.name, "--silent", "--pack-destination", str(scratch)]
            packed = subprocess.run(command, capture_output=True, text=True, cwd=scratch, check=False)
            if packed.returncode or not (scratch / package.file).is_file():
                reason = one_line(packed.stderr or packed.stdout)[:300]
                raise DataError(f"{package.name}: npm could not fetch it ({reason}); try again, {help}")
            verify(scratch / package.file, package.sha512)
            (scratch / package.file).rename(folder / package.file)
    for package in RUNTIME:
        verify(folder / package.file, package.sha512)
    return {package: folder / package.file for package in RUNTIME}


def megabytes(folder: Path) -> float:
    """Return the size of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def _names(files: Sequence[EmbeddedFile]) -> dict[str, str]:
    """Map the path of each recording to its name relative to the folder that all of them share.

    Raises:
        RetrievalError: they share no folder, so that their names would be their full paths.
    """
    root = os.path.commonpath([file.record.folder for file in files])
    if root == os.path.dirname(root):
        raise RetrievalError(
            f"found recordings in {printable(files[0].record.folder)} and {printable(files[-1].record.folder)}, "
            "expected them in one folder, relative to which the page names them; make an index of one folder"
        )
    return {file.record.path: printable(os.path.relpath(file.record.path, root)) for file in files}


def _readme(count: int, version: str) -> str:
    metadata = SpaceCardData(
        title="Search sounds",
        sdk="static",
        app_file="index.html",
        tags=["audio", "audio-retrieval", "cnn10bert"],
        emoji="🔊",
        colorFrom="indigo",
        colorTo="purple",
        pinned=False,
        short_description="Describe a sound, find the recordings that match",
    )
    return README.format(metadata=metadata.to_yaml(), count=count, version=version)
