"""Compare searches on recordings at their own and at mixed levels, with and without level normalization.

    python scripts/compare_levels.py MODEL ESC10 --fold 5 [--manifest TEST.jsonl] [--range 30] [--draws 3]

ESC10 has a folder of recordings for each class, named by fold; the queries are those of esc10_questions.csv. The
measure is precision@10. With --manifest, its scenes are mixed from ESC10, each caption is a query, and the measure is
mAP@10. Each recording is lowered by up to --range dB; the mean and standard deviation are over --draws draws.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np

from modeling_cnn10bert.data.audio_io import load_audio
from modeling_cnn10bert.data.recipes.soundscapes import SourceBank, read_manifest, render
from modeling_cnn10bert.errors import InputError
from modeling_cnn10bert.evaluation.metric import cosine_similarity
from modeling_cnn10bert.evaluation.reports import markdown_table
from modeling_cnn10bert.retrieval.embedding import Embedder, load_embedder
from modeling_cnn10bert.retrieval.windows import normalize_level

K = 10
MODES = {"own level": lambda waveform: waveform, "normalized": normalize_level}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("esc10", type=Path)
    parser.add_argument("--fold", default="*", help="the fold of ESC-10 to search; by default all")
    parser.add_argument("--manifest", type=Path, help="scenes to search instead")
    parser.add_argument("--range", type=float, default=30.0, help="dB")
    parser.add_argument("--draws", type=int, default=3)
    options = parser.parse_args()
    embedder = load_embedder(options.model)
    if options.manifest:
        waveforms, texts, right = scenes(options.manifest, options.esc10, embedder)
    else:
        waveforms, texts, right = recordings(options.esc10, options.fold, embedder)
    text_embeds = embedder.embed_text(texts)
    measure = average_precision if options.manifest else precision

    rows = []
    for mode, prepare in MODES.items():
        values = []
        for draw in range(options.draws + 1):  # the first at the recordings' own levels
            decibels = np.random.default_rng(draw).uniform(0, options.range, len(waveforms)) * (draw > 0)
            gains = (10 ** (-decibels / 20)).astype(np.float32)
            changed = [prepare(gain * waveform) for gain, waveform in zip(gains, waveforms, strict=True)]
            values.append(measure(cosine_similarity(text_embeds, embedder.embed_audio(changed)), right))
        mixed = values[1:]
        rows.append((mode, f"{values[0]:.3f}", f"{np.mean(mixed):.3f} ± {np.std(mixed, ddof=len(mixed) > 1):.3f}"))
    name = f"mAP@{K}" if options.manifest else f"precision@{K}"
    print(f"{len(waveforms)} recordings, {len(texts)} queries, levels mixed over {options.range:g} dB")
    print(markdown_table(("windows", f"{name} as recorded", f"{name} mixed"), rows))


def recordings(folder: Path, fold: str, embedder: Embedder) -> tuple[list[np.ndarray], list[str], np.ndarray]:
    """Return the waveforms, a query per class, and which recordings are right: [queries, recordings]."""
    with (Path(__file__).parent / "esc10_questions.csv").open(newline="", encoding="utf-8") as lines:
        questions = {row["class"]: row["question"] for row in csv.DictReader(lines)}
    paths = sorted(folder.glob(f"*/{fold}-*.ogg"))
    right = np.array([[path.parent.name == name for path in paths] for name in questions])
    return [load_audio(path, embedder.sampling_rate) for path in paths], list(questions.values()), right


def scenes(manifest: Path, folder: Path, embedder: Embedder) -> tuple[list[np.ndarray], list[str], np.ndarray]:
    """Return the waveforms, the captions, and which scene is right: [captions, scenes]."""
    bank = SourceBank(folder, embedder.sampling_rate)
    found = read_manifest(manifest, folder)
    texts = [caption for scene in found for caption in scene.captions]
    right = np.array([[one is scene for one in found] for scene in found for _ in scene.captions])
    return [render(scene, bank) for scene in found], texts, right


def precision(similarity: np.ndarray, right: np.ndarray) -> float:
    """Return the share of right recordings among the first `K`, averaged over the queries."""
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :K]
    return float(np.take_along_axis(right, order, axis=1).mean())


def average_precision(similarity: np.ndarray, right: np.ndarray) -> float:
    """Return mAP@K with one right recording per query; ties count against it."""
    rank = (similarity >= similarity[right][:, None]).sum(axis=1)
    return float(np.where(rank <= K, 1 / rank, 0).mean())


if __name__ == "__main__":
    try:
        main()
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")
