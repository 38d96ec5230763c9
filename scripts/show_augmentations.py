"""Draw the effect of each augmentation on one recording and one caption, like figure 2 and table 1 of the paper.

    python scripts/show_augmentations.py CLIP "caption" [--output augmentations.png] [--field value ...]

The fields are those of table 4 of the paper, by default at its best values, and p_ms, whose best value is lost in our
copy, at 1. Freq-MixStyle takes the style of `--partner`, by default of a synthetic sound of rain. A back-translation is
shown where `--back_translation` gives one, as cnn10bert back-translate makes them. Each augmentation is drawn until it
changes something.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from transformers import HfArgumentParser

from demo.synthesizers import SYNTHESIZERS, rain
from modeling_cnn10bert import CNN10FeatureExtractor
from modeling_cnn10bert.augmentation.audio import AudioAugmentation
from modeling_cnn10bert.augmentation.eda import (
    caption_words,
    delete_words,
    insert_words,
    replace_by_synonyms,
    swap_words,
    vocabulary,
)
from modeling_cnn10bert.augmentation.text_augmenter import load_text_augmenter
from modeling_cnn10bert.augmentation.wordnet import load_wordnet, synonyms_of
from modeling_cnn10bert.data.audio_io import load_audio
from modeling_cnn10bert.data.features import log_mel_columns
from modeling_cnn10bert.masking import without_secrets
from modeling_cnn10bert.training.arguments import AugmentationArguments
from plots import plot_augmentations

Changed = TypeVar("Changed", list[str], np.ndarray)
BEST = {
    "p_syn": 0.2962,
    "p_swp": 0.0085,
    "p_ins": 0.0269,
    "p_del": 0.1944,
    "n_f": 1,
    "w_f": 4,
    "n_t": 7,
    "w_t": 58,
    "g_max": 3,
    "p_ms": 1.0,
    "ms_alpha": 0.8286,
}
TRIES = {list: 10_000, np.ndarray: 20}  # draws may change nothing; words are cheap, clips nearly always change


def main(argv: list[str] | None = None) -> Path:
    """Write the picture and return its path."""
    parser = HfArgumentParser(AugmentationArguments, description=__doc__)
    parser.add_argument("clip", type=Path, help="A recording that libsndfile reads.")
    parser.add_argument("caption", help="Its caption.")
    parser.add_argument("--output", type=Path, default=Path("augmentations.png"), help="The PNG to write.")
    parser.add_argument("--partner", type=Path, help="The recording whose style Freq-MixStyle mixes in.")
    parser.add_argument("--back_translation", help="The back-translated caption.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of all random draws.")
    parser.set_defaults(**BEST)
    fields, options = parser.parse_args_into_dataclasses(args=argv, look_for_args_file=False)
    pictures = augmented_log_mels(fields, options.clip, options.partner, options.seed)
    sentences = augmented_captions(fields, options.caption, options.back_translation, options.seed)
    plot_augmentations(pictures, sentences, options.output)
    return options.output


def augmented_log_mels(
    fields: AugmentationArguments, clip: Path, partner: Path | None, seed: int
) -> dict[str, np.ndarray]:
    """Return title -> log-mel [T, n_mels] in dB of the clip, after each audio augmentation, and after all of them."""
    extractor = CNN10FeatureExtractor()
    rate = extractor.sampling_rate
    log_mel = extractor.log_mel(load_audio(clip, rate))
    style = load_audio(partner, rate) if partner else rain(np.random.default_rng(seed), rate)
    columns = [log_mel_columns(log_mel), log_mel_columns(extractor.log_mel(style))]
    mean, std = (torch.tensor([column[name] for column in columns]) for name in ("mel_mean", "mel_std"))

    def augmented(**options: float) -> np.ndarray:
        """Return the log-mel after the named augmentations only."""
        off = {"g_max": 0.0, "p_ms": 0.0, "ms_alpha": fields.ms_alpha, "n_f": 0, "w_f": 0, "n_t": 0, "w_t": 0}
        augment = AudioAugmentation(
            **{**off, **options}, mel_mean=mean[1:], mel_std=std[1:], overall_mean=mean.mean(dim=0)
        )
        return _until_changed(lambda rng: augment([log_mel], [rng])[0].numpy(), log_mel.numpy(), seed)

    gain = {"g_max": fields.g_max}
    mix_style = {"p_ms": fields.p_ms, "ms_alpha": fields.ms_alpha}
    spec_augment = {name: getattr(fields, name) for name in ("n_f", "w_f", "n_t", "w_t")}
    return {
        clip.name: log_mel.numpy(),
        f"Gain ({_values(gain)})": augmented(**gain),
        f"Freq-MixStyle ({_values(mix_style)}), style of {partner.name if partner else 'rain'}": augmented(**mix_style),
        f"SpecAugment ({_values(spec_augment)})": augmented(**spec_augment),
        "Gain, Freq-MixStyle, SpecAugment": augmented(**gain, **mix_style, **spec_augment),
    }


def augmented_captions(
    fields: AugmentationArguments, caption: str, back_translation: str | None, seed: int
) -> dict[str, tuple[list[str], list[str]]]:
    """Return the name of each text augmentation -> the words before and after it."""
    words = caption_words(caption)
    others = vocabulary(phrase for kind in SYNTHESIZERS.values() for phrase in kind.phrases)
    synonyms = synonyms_of(words, load_wordnet()) if fields.p_syn else {}
    operations: dict[str, Callable[[np.random.Generator], list[str]]] = {
        f"Insert (p_ins {fields.p_ins:g})": lambda rng: insert_words(words, fields.p_ins, others, rng),
        f"Delete (p_del {fields.p_del:g})": lambda rng: delete_words(words, fields.p_del, rng),
        f"Swap (p_swp {fields.p_swp:g})": lambda rng: swap_words(words, fields.p_swp, rng),
        f"Synonym (p_syn {fields.p_syn:g})": lambda rng: replace_by_synonyms(words, fields.p_syn, synonyms, rng),
    }
    if fields.text_augmenter:
        variants = {caption: [back_translation] if back_translation else []}
        augmenter = load_text_augmenter(fields.text_augmenter, [caption], variants)
        operations[fields.text_augmenter] = lambda rng: caption_words(augmenter(caption, rng))
    rows = {"Original": (words, words)}
    if back_translation:
        rows["Back-translation"] = (words, caption_words(back_translation))
    for name, operation in operations.items():
        rows[name] = (words, _until_changed(operation, words, seed))
    return rows


def _until_changed(draw: Callable[[np.random.Generator], Changed], before: Changed, seed: int) -> Changed:
    """Return the first draw that differs from `before`; if none does, such as at probability 0, return `before`."""
    for attempt in range(TRIES[type(before)]):
        after = draw(np.random.default_rng([seed, attempt]))
        if not np.array_equal(after, before):
            break
    return after


def _values(fields: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in fields.items())


if __name__ == "__main__":
    try:
        print(main())
    except ValueError as error:
        sys.exit(f"error: {without_secrets(str(error))}")
