"""Run everything on synthetic sounds: make a data set, train, score, load the model again, ask it five questions.

    make demo

Writes the model and processor, all_results.json, curve.png and gallery.png to runs/demo. Exits non-zero unless at least
4 of the 5 questions find a right recording at rank 1 and the test mAP@10 is at least ten times chance. A second run
continues where the first was stopped; if that was complete, it only asks the questions.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

print("Loading libraries ...", flush=True)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from gallery import plot_gallery  # noqa: E402
from synthesizers import generate_soundscapes  # noqa: E402
from tqdm import tqdm  # noqa: E402
from transformers import AutoModel, AutoProcessor  # noqa: E402

from modeling_cnn10bert.data.recipes.soundscapes import Scene, SourceBank, read_manifest, render  # noqa: E402
from modeling_cnn10bert.interrupts import orderly_exit  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "modeling_cnn10bert" / "recipes" / "demo.yaml"
DATA, RUN = Path("runs/demo_data"), Path("runs/demo")
QUESTIONS = {  # question -> the kinds of sound that a right recording must all contain
    "an ambulance with its siren on": {"siren"},
    "a barking dog": {"dog"},
    "a thunderstorm": {"thunder"},
    "someone is at the door and knocks": {"knock"},
    "church bells are ringing while it rains": {"bell", "rain"},
}
MIN_RIGHT, MIN_TIMES_CHANCE = 4, 10
HITS = 3


@dataclass
class Hit:
    """A search result with the fields that `plot_gallery` draws."""

    file_name: str
    score: float
    log_mel: np.ndarray
    captions: tuple[str, ...]
    seconds: float
    correct: bool


def main() -> int:
    started = time.monotonic()
    generate_soundscapes(DATA, num_train=1200, num_validation=100, num_test=100)
    if not (RUN / "test_results.json").is_file():
        train()
    results = json.loads((RUN / "all_results.json").read_text())
    print_results(results)

    scenes = read_manifest(DATA / "test.jsonl", DATA / "sources")
    hits = ask(list(QUESTIONS), scenes)
    plot_gallery(list(QUESTIONS), hits, RUN / "gallery.png")
    right = print_answers(hits)

    times_chance = results["test_mAP@10"] / results["test_chance_mAP@10"]
    print(f"\n{right} of {len(QUESTIONS)} questions right at rank 1 (at least {MIN_RIGHT} wanted)")
    print(f"test mAP@10 is {times_chance:.1f} times chance (at least {MIN_TIMES_CHANCE} wanted)")
    print(f"{RUN}: model and processor, all_results.json, curve.png, gallery.png ({time.monotonic() - started:.0f} s)")
    return 0 if right >= MIN_RIGHT and times_chance >= MIN_TIMES_CHANCE else 1


def train() -> None:
    """Run the recipe as a user would; continue a stopped run from its last checkpoint."""
    command = [sys.executable, str(ROOT / "train_retrieval.py"), str(RECIPE)]
    if RUN.is_dir():
        command += ["--resume_from_checkpoint", "true"]
    subprocess.run(command, check=True)


def print_results(results: dict[str, float]) -> None:
    print(f"\nTest set: {results['test_num_recordings']} recordings, {results['test_num_captions']} captions")
    print(f"{'':16}{'R@1':>8}{'R@5':>8}{'R@10':>8}{'mAP@10':>8}")
    for direction, prefix in (("text to audio", ""), ("audio to text", "a2t_")):
        for row, kind in ((direction, "test_"), ("  by chance", "test_chance_")):
            values = [results[f"{kind}{prefix}{name}"] for name in ("R@1", "R@5", "R@10", "mAP@10")]
            print(f"{row:16}" + "".join(f"{value:8.3f}" for value in values))


@torch.inference_mode()
def ask(questions: list[str], scenes: list[Scene]) -> list[list[Hit]]:
    """Find the best recordings for each question with the saved model, loaded as a user would load it."""
    model = AutoModel.from_pretrained(RUN).eval()
    processor = AutoProcessor.from_pretrained(RUN)
    rate = processor.feature_extractor.sampling_rate
    bank = SourceBank(DATA / "sources", rate)
    embeds, log_mels = [], []
    for scene in tqdm(scenes, desc="Listening to the test recordings"):
        inputs = processor(audio=render(scene, bank), sampling_rate=rate, return_tensors="pt")
        embeds.append(model.get_audio_features(**inputs).pooler_output)
        log_mels.append(inputs["input_features"][0].numpy())
    text_embeds = model.get_text_features(**processor(text=questions, return_tensors="pt")).pooler_output
    scores, rows = (text_embeds @ torch.cat(embeds).T).topk(HITS, dim=1)
    return [
        [
            Hit(
                file_name=scenes[row].id,
                score=score,
                log_mel=log_mels[row],
                captions=scenes[row].captions,
                seconds=scenes[row].duration,
                correct=QUESTIONS[question] <= set(scenes[row].labels),
            )
            for score, row in zip(question_scores, question_rows, strict=True)
        ]
        for question, question_scores, question_rows in zip(questions, scores.tolist(), rows.tolist(), strict=True)
    ]


def print_answers(hits: list[list[Hit]]) -> int:
    """Print every question with its hits; return how many are right at rank 1."""
    for question, found in zip(QUESTIONS, hits, strict=True):
        print(f'\n"{question}"')
        for hit in found:
            mark = "right" if hit.correct else "wrong"
            print(f"  {hit.score:.3f}  {hit.file_name}  {mark}  {hit.captions[0]}")
    return sum(found[0].correct for found in hits)


if __name__ == "__main__":
    with orderly_exit():
        sys.exit(main())
