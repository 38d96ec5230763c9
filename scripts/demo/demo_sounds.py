"""Write the test scenes of `make demo` as files, because the demo itself mixes them on the fly."""

import csv
import io
import os
from pathlib import Path

from tqdm import tqdm

from modeling_cnn10bert.data.audio_io import encode_audio
from modeling_cnn10bert.data.recipes.soundscapes import SourceBank, read_manifest, render
from modeling_cnn10bert.files import write_text

RATE = 32_000  # Hz


def write_demo_sounds(data: str | os.PathLike, folder: str | os.PathLike) -> Path:
    """
    Write the test scenes of a soundscape set as recordings with their captions; existing files stay.

    Args:
        data: the set, as written by `generate_soundscapes`.
        folder: folder for `<id>.flac` and metadata.csv, which is written last.

    Returns:
        The folder.

    Raises:
        DataError: the set cannot be read.
    """
    data, folder = Path(data), Path(folder)
    scenes = read_manifest(data / "test.jsonl", data / "sources")
    missing = [scene for scene in scenes if not (folder / f"{scene.id}.flac").is_file()]
    folder.mkdir(parents=True, exist_ok=True)
    bank = SourceBank(data / "sources", RATE)
    for scene in tqdm(missing, desc="Writing the demo's recordings", disable=None):
        path = folder / f"{scene.id}.flac"
        waveform = render(scene, bank)
        unfinished = path.with_suffix(".tmp")
        unfinished.write_bytes(encode_audio(waveform / max(1.0, 1.01 * abs(waveform).max()), RATE))
        os.replace(unfinished, path)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["file_name", "caption"])
    writer.writerows((f"{scene.id}.flac", caption) for scene in scenes for caption in scene.captions)
    write_text(folder / "metadata.csv", table.getvalue())
    return folder
