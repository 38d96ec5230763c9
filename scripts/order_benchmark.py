"""Measure how well models hear the order of sounds: mAP@10 for each kind of scene, and the accuracy of pairs.

    python scripts/order_benchmark.py MODEL... --manifest TEST.jsonl --sources DIR

A caption of two sounds in sequence is right if its own scene is more similar to it than each scene of the same sounds
in reverse order; chance is 50 %. Each caption ranks all scenes of the manifest. With several models, such as runs with
different seeds, the last row has mean and standard deviation.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from compare_levels import average_precision
from modeling_cnn10bert.data.hard_negatives import arrangement
from modeling_cnn10bert.data.recipes.soundscapes import Scene, SourceBank, read_manifest, render, sound_of
from modeling_cnn10bert.errors import InputError
from modeling_cnn10bert.evaluation.metric import cosine_similarity
from modeling_cnn10bert.evaluation.reports import markdown_table
from modeling_cnn10bert.retrieval.embedding import load_embedder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--sources", type=Path, required=True, help="the folder of the manifest's recordings")
    options = parser.parse_args()
    scenes = read_manifest(options.manifest, options.sources)
    measured = [measure(model, scenes, options.sources) for model in options.models]
    rows = [
        (Path(name).name, *map("{:.3f}".format, values.values()))
        for name, values in zip(options.models, measured, strict=True)
    ]
    if len(measured) > 1:
        table = np.array([list(values.values()) for values in measured])
        both = zip(table.mean(axis=0), table.std(axis=0, ddof=1), strict=True)
        rows.append(("mean", *(f"{mean:.3f} ± {std:.3f}" for mean, std in both)))
    print(f"{options.manifest}: {len(scenes)} scenes, {sum(len(scene.captions) for scene in scenes)} captions")
    print(markdown_table(("model", *measured[0]), rows))


def measure(model: str, scenes: list[Scene], sources: Path) -> dict[str, float]:
    """Map the name of each measure to its value."""
    embedder = load_embedder(model)
    bank = SourceBank(sources, embedder.sampling_rate)
    audio = embedder.embed_audio([render(scene, bank) for scene in scenes])
    text = embedder.embed_text([caption for scene in scenes for caption in scene.captions])
    similarity = cosine_similarity(text, audio)  # [captions, scenes]
    own = np.array([number for number, scene in enumerate(scenes) for _ in scene.captions])

    values = {"mAP@10": average_precision(similarity, own[:, None] == np.arange(len(scenes)))}
    kinds = np.array([kind_of(scene) for scene in scenes])
    for kind in ("single", "simultaneous", "ordered", "three or more"):
        rows = kinds[own] == kind
        values[kind] = average_precision(similarity[rows], own[rows, None] == np.arange(len(scenes)))

    sounds = [sorted(sound_of(event.source) for event in scene.events) for scene in scenes]
    wins = []
    for caption, number in enumerate(own):
        reverse = [
            other
            for other in range(len(scenes))
            if kinds[number] == kinds[other] == "ordered"
            and sounds[number] == sounds[other]
            and arrangement(scenes[number]) != arrangement(scenes[other])
        ]
        if reverse:
            wins.append(similarity[caption, number] > similarity[caption, reverse].max())
    return values | {"pair accuracy": float(np.mean(wins))}


def kind_of(scene: Scene) -> str:
    """Name the kind of a scene by its events."""
    if len(scene.events) != 2:
        return "single" if len(scene.events) == 1 else "three or more"
    return "ordered" if arrangement(scene)[0][2] else "simultaneous"


if __name__ == "__main__":
    try:
        main()
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")
