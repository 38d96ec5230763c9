"""Times the augmentations of a training batch on one core, beside torchaudio's masks and nlpaug on the same input.

    python scripts/benchmark_augmentation.py [--batch 30] [--seconds 30] [--repeats 20]

Audio: gain, Freq-MixStyle and SpecAugment at the best values of table 4 of the paper, from decoded log-mels to
augmented ones; torchaudio's masks do SpecAugment alone. Text: EDA at its best values, one call a caption; nlpaug's
augmenters do one manipulation each. Every figure is the median of the repeats, the least in brackets.
"""

import argparse
import csv
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import nlpaug
import nlpaug.augmenter.word as naw
import numpy as np
import torch
import torchaudio

from modeling_cnn10bert.augmentation.audio import AudioAugmentation
from modeling_cnn10bert.augmentation.eda import EDA, vocabulary
from modeling_cnn10bert.augmentation.wordnet import load_wordnet, synonyms_of

FRAMES_PER_SECOND, N_MELS = 100, 64
CAPTIONS = (
    "A dog barks twice while heavy rain falls on a tin roof",
    "Someone walks over gravel, and a car passes by in the distance",
    "Birds chirp in a forest as water flows over the rocks of a stream",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=30, help="Clips, and captions.")
    parser.add_argument("--seconds", type=int, default=30, help="Length of a clip.")
    parser.add_argument("--repeats", type=int, default=20, help="Measurements of each figure.")
    parser.add_argument("--captions", type=Path, help="A CSV file with a column `caption`, instead of three built in.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.processor() or platform.machine()}, one core; torch {torch.__version__}, ", end="")
    print(f"torchaudio {torchaudio.__version__}, nlpaug {nlpaug.__version__}")
    rows = audio_rows(options.batch, options.seconds) | text_rows(read_captions(options.captions, options.batch))
    print(f"{'':52}{'ms':>16}{'of the first':>14}")
    reference = 0.0
    for name, call in rows.items():
        median, least = milliseconds(call, options.repeats)
        reference = median if name.startswith("ours") else reference
        print(f"{name:52}{median:8.2f} ({least:.2f}){median / reference:13.1f}x")


def milliseconds(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median and least time of a call, after two to warm up."""
    times = []
    for _ in range(repeats + 2):
        started = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[2:]), min(times[2:])


def read_captions(path: Path | None, count: int) -> list[str]:
    if path is None:
        return [CAPTIONS[index % len(CAPTIONS)] for index in range(count)]
    with path.open(newline="", encoding="utf-8") as file:
        return [row["caption"] for row, _ in zip(csv.DictReader(file), range(count), strict=False)]


def audio_rows(batch: int, seconds: int) -> dict[str, Callable[[], object]]:
    frames = seconds * FRAMES_PER_SECOND + 1
    clips = [-50 + 15 * torch.randn(frames, N_MELS) for _ in range(batch)]
    known = {
        "mel_mean": torch.full((1000, N_MELS), -60.0),
        "mel_std": torch.full((1000, N_MELS), 12.0),
        "overall_mean": torch.full((N_MELS,), -55.0),
    }
    stripes = {"n_f": 1, "w_f": 4, "n_t": 7, "w_t": 58}
    augment = AudioAugmentation(g_max=3, p_ms=1.0, ms_alpha=0.8286, **stripes, **known)
    spec_augment = AudioAugmentation(g_max=0, p_ms=0.0, ms_alpha=0.0, **stripes, **known)
    time_mask = torchaudio.transforms.TimeMasking(58, iid_masks=True)
    frequency_mask = torchaudio.transforms.FrequencyMasking(4, iid_masks=True)

    def masked_by_torchaudio() -> torch.Tensor:
        spectrograms = torch.stack(clips).transpose(1, 2)[:, None]  # [B, 1, n_mels, T]
        for _ in range(7):
            spectrograms = time_mask(spectrograms, mask_value=-55.0)
        return frequency_mask(spectrograms, mask_value=-55.0)

    def generators() -> list[np.random.Generator]:
        return [np.random.default_rng([0, 0, row, 0]) for row in range(batch)]

    return {
        f"ours: gain, Freq-MixStyle, SpecAugment, {batch} x {seconds} s": lambda: augment(clips, generators()),
        "  SpecAugment alone": lambda: spec_augment(clips, generators()),
        "  torchaudio: TimeMasking x 7, FrequencyMasking": masked_by_torchaudio,
    }


def text_rows(captions: list[str]) -> dict[str, Callable[[], object]]:
    words = vocabulary(captions)
    eda = EDA(0.9936, 0.2962, 0.0085, 0.0269, 0.1944, vocabulary=words, synonyms=synonyms_of(words, load_wordnet()))
    swap, delete = naw.RandomWordAug(action="swap", aug_p=0.2), naw.RandomWordAug(action="delete", aug_p=0.2)

    def ours() -> list[str]:
        return [eda(caption, np.random.default_rng([0, 0, row, 1])) for row, caption in enumerate(captions)]

    return {
        f"ours: EDA, {len(captions)} captions": ours,
        "  nlpaug: RandomWordAug, swap": lambda: swap.augment(captions),
        "  nlpaug: RandomWordAug, delete": lambda: delete.augment(captions),
    }


if __name__ == "__main__":
    main()
