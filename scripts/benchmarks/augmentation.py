"""Measure the augmentations of a training batch on one core, against torchaudio's masks and nlpaug.

Audio: gain, Freq-MixStyle and SpecAugment at the best values of table 4 of the paper, from decoded to augmented
log-mels; torchaudio's masks are only SpecAugment. Text: EDA at its best values, one call per caption; each of nlpaug's
augmenters does one manipulation.
"""

import csv
from pathlib import Path

import nlpaug.augmenter.word as naw
import numpy as np
import torch
import torchaudio

from modeling_cnn10bert.augmentation.audio import AudioAugmentation
from modeling_cnn10bert.augmentation.eda import EDA, vocabulary
from modeling_cnn10bert.augmentation.wordnet import load_wordnet, synonyms_of
from modeling_cnn10bert.errors import DataError

from .harness import Row, compared, figure, seconds_in_turns

BATCH, SECONDS, ROUNDS = 30, 30, 20
FRAMES_PER_SECOND, N_MELS = 100, 64
CAPTIONS = (
    "A dog barks twice while heavy rain falls on a tin roof",
    "Someone walks over gravel, and a car passes by in the distance",
    "Birds chirp in a forest as water flows over the rocks of a stream",
)


def measure(folder: Path, options) -> list[Row]:
    torch.set_num_threads(1)
    rounds = ROUNDS if options.size.apart else 1

    # Audio.
    clips = [-50 + 15 * torch.randn(SECONDS * FRAMES_PER_SECOND + 1, N_MELS) for _ in range(BATCH)]
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

    def generators(kind: int) -> list[np.random.Generator]:
        return [np.random.default_rng([0, 0, row, kind]) for row in range(BATCH)]

    # Text.
    captions = [CAPTIONS[index % len(CAPTIONS)] for index in range(BATCH)]
    if options.captions:
        with options.captions.open(newline="", encoding="utf-8") as file:
            captions = [row["caption"] for row, _ in zip(csv.DictReader(file), range(BATCH), strict=False)]
    words, remark = vocabulary(captions), ""
    try:
        synonyms = synonyms_of(words, load_wordnet())
    except DataError:
        synonyms, remark = {}, "no WordNet here: no synonyms"
    eda = EDA(0.9936, 0.2962, 0.0085, 0.0269, 0.1944, vocabulary=words, synonyms=synonyms)
    swap, delete = naw.RandomWordAug(action="swap", aug_p=0.2), naw.RandomWordAug(action="delete", aug_p=0.2)

    calls = {
        "audio": lambda: augment(clips, generators(0)),
        "SpecAugment": lambda: spec_augment(clips, generators(0)),
        "torchaudio": masked_by_torchaudio,
        "EDA": lambda: [eda(caption, rng) for caption, rng in zip(captions, generators(1), strict=True)],
        "swap": lambda: swap.augment(captions),
        "delete": lambda: delete.augment(captions),
    }
    found = {name: [1e3 * each for each in taken] for name, taken in seconds_in_turns(calls, rounds).items()}
    note = (
        f"{BATCH} clips of {SECONDS} s, or {len(captions)} captions; one core, processor time, {rounds} rounds in turns"
    )
    masks = "torchaudio: TimeMasking x 7, FrequencyMasking"
    return [
        figure("gain, Freq-MixStyle, SpecAugment", float(np.median(found["audio"])), "ms", note=note),
        compared("SpecAugment alone", "ms", found["SpecAugment"], masks, found["torchaudio"]),
        compared("EDA", "ms", found["EDA"], "nlpaug: RandomWordAug, swap", found["swap"], note=remark),
        compared("EDA", "ms", found["EDA"], "nlpaug: RandomWordAug, delete", found["delete"], note=remark),
    ]
