"""Back-translation (section 5 of the paper): paraphrase a caption by translating it to another language and back.

It is computed once, by `cnn10bert back-translate`, and stored with the captions, one column per language. Training only
chooses among the stored variants.
"""

import hashlib
import os
import subprocess
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from ..errors import DataError
from ..processing_cnn10bert import caption_words

# The column of a prepared data set: a list of strings, one for each of the recording's `captions`, in their order.
BACK_TRANSLATION_COLUMN = "back_translations_{language}"
# opus-mt has a model from English to each of these, and one back. (Those of several languages need a mark in the text.)
LANGUAGES = ("de", "es", "fr", "it", "nl", "sv")
MAX_TOKENS = 128  # of a sentence, four times what the text tower reads; a model that repeats itself stops there
WINDOW = 50  # batches


def back_translation_languages(column_names: Iterable[str]) -> list[str]:
    """Return the languages, sorted, of which a data set with these columns has back-translations."""
    prefix = BACK_TRANSLATION_COLUMN.format(language="")
    return sorted(name.removeprefix(prefix) for name in column_names if name.startswith(prefix))


def choose_variant(caption: str, variants: Sequence[str | None], rng: np.random.Generator, p_bt: float) -> str:
    """
    Return the caption or, with probability `p_bt`, one of its variants, drawn uniformly (section 5 of the paper).

    Args:
        caption: the original caption.
        variants: its back-translations, one per language; `None` where a language has none.
        rng: the only source of randomness.
        p_bt: probability in [0, 1].
    """
    if rng.random() >= p_bt:
        return caption
    present = [variant for variant in variants if variant is not None] or [caption]
    return present[rng.integers(len(present))]


# ----------------------------------------------------------------------------------------------------- translating


def require_language(language: str, known: Iterable[str]) -> None:
    """Raise a `DataError` unless the language is among the known ones."""
    if language not in known:
        raise DataError(f"language: found {language!r}, expected one of {', '.join(known)}")


class Translator(Protocol):
    """Translator in one direction. `identity` names everything that the translations depend on except the device."""

    identity: str

    def __call__(self, sentences: Sequence[str]) -> list[str]:
        """Translate one batch to as many translations as sentences, in their order."""


def length_batches(captions: Sequence[str], batch_size: int) -> list[list[int]]:
    """
    Group positions of captions into batches of similar length, which depend on the captions and `batch_size` alone.

    Captions are sorted within windows of `WINDOW` batches, not over the whole list, so that the work so far is a fair
    measure of the work to come.
    """
    batches = []
    for start in range(0, len(captions), WINDOW * batch_size):
        window = range(start, min(start + WINDOW * batch_size, len(captions)))
        order = sorted(window, key=lambda number: len(captions[number]))  # stable
        batches += [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
    return batches


def round_trip(captions: Sequence[str], forth: Translator, back: Translator) -> list[str]:
    """Translate one batch of captions to another language and back, on one line each."""
    return [" ".join(variant.split()) for variant in back(forth(captions))]


class MarianTranslator:
    """
    Translate with a MarianMT model, such as those of opus-mt, in float32 and without sampling.

    Padding is masked, so the rest of a batch changes a translation by rounding only (about 1e-6 of the largest logit),
    which may decide between two equally good continuations. The same batch gives the same translations on the same
    machine.

    Weights come from safetensors where the model has them; a `pytorch_model.bin` is read by transformers with
    `torch.load(weights_only=True)`, which runs no code of the file.

    Args:
        name_or_path: Hub id or folder of the model with its tokenizer.
        num_beams: width of the beam search, 1 is greedy.
        device: by default the accelerator where there is one.

    Raises:
        DataError: the model cannot be loaded.
    """

    def __init__(self, name_or_path: str | os.PathLike, num_beams: int = 4, device: str | torch.device | None = None):
        from transformers import MarianMTModel, MarianTokenizer  # here: training needs none of it

        if device is None:
            device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
        try:
            model = MarianMTModel.from_pretrained(name_or_path, dtype=torch.float32)
            with warnings.catch_warnings():
                # It recommends sacremoses for its method `normalize`, which it never calls.
                warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
                self.tokenizer = MarianTokenizer.from_pretrained(name_or_path)
        except (OSError, ValueError, TypeError, KeyError, AssertionError) as error:  # the tokenizer lacks a file
            reason = str(error).partition("\n")[0]
            raise DataError(
                f"{name_or_path}: found no MarianMT model with its tokenizer there ({reason}); check the name and "
                "the connection, or download the models elsewhere and give their folder as models"
            ) from error
        try:
            self.model = model.eval().to(device)
        except RuntimeError as error:
            raise DataError(f"device {device}: {error}; give another, or cpu") from error
        self.model.generation_config.update(num_beams=num_beams, do_sample=False, max_length=MAX_TOKENS)
        self.identity = f"marian {num_beams} {MAX_TOKENS} {_digest(model, self.tokenizer)}"

    @torch.inference_mode()
    def __call__(self, sentences: Sequence[str]) -> list[str]:
        inputs = self.tokenizer(
            list(sentences), return_tensors="pt", padding=True, truncation=True, max_length=MAX_TOKENS
        )
        tokens = self.model.generate(**inputs.to(self.model.device))
        return self.tokenizer.batch_decode(
            tokens,
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
            use_source_tokenizer=False,  # the default of transformers 5, though the pieces are the other language's
        )


def marian_pair(
    language: str, models: str | os.PathLike | None = None, num_beams: int = 4, device: str | None = None
) -> tuple[MarianTranslator, MarianTranslator]:
    """
    Load opus-mt's models from English to a language, and back.

    Args:
        language: one of `LANGUAGES`.
        models: the folder that holds `opus-mt-en-de` and `opus-mt-de-en`; by default they come from the Hub.
        num_beams, device: as in `MarianTranslator`.

    Raises:
        DataError: an unknown language, or a model that cannot be loaded.
    """
    require_language(language, LANGUAGES)
    names = f"opus-mt-en-{language}", f"opus-mt-{language}-en"
    for name in names:
        if models is not None and not (Path(models) / name).is_dir():
            raise DataError(
                f"{models}: found no folder {name}, expected {' and '.join(names)} there; download them from "
                f"https://huggingface.co/Helsinki-NLP/{name}, or leave models out"
            )
    forth, back = (
        MarianTranslator(f"Helsinki-NLP/{name}" if models is None else Path(models) / name, num_beams, device)
        for name in names
    )
    return forth, back


def _digest(model: torch.nn.Module, tokenizer) -> str:
    """Digest all weights and the tokenizer's files: the same model from another place has the same digest."""
    digest = hashlib.sha256(repr(sorted(tokenizer.get_vocab().items())).encode())
    for file in tokenizer.spm_files:
        digest.update(Path(file).read_bytes())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.cpu().contiguous().numpy())
    return digest.hexdigest()


class ApertiumTranslator:
    """
    Translate with the command `apertium` (rules and dictionaries) where no model is available. Unknown words stay.

    Each caption is a paragraph, because `apertium` translates paragraphs separately. Across mere line ends, it would
    change the order of words.

    Args:
        mode: direction, such as "eng-spa".
        package: the Debian package that has it.

    Raises:
        DataError: the program or the mode is missing.
    """

    def __init__(self, mode: str, package: str):
        self.mode = mode
        self.install = f"apt-get install apertium {package}"
        modes, version = self._run("-l").split(), self._run("-V").strip()
        if mode not in modes:
            raise DataError(
                f"apertium: found the modes {', '.join(modes) or '(none)'}, expected {mode}; {self.install}"
            )
        self.identity = f"{version} {mode}"

    def __call__(self, sentences: Sequence[str]) -> list[str]:
        translations = [_one_line(sentence) for sentence in sentences]
        rows = [row for row, sentence in enumerate(translations) if caption_words(sentence)]  # the others stay
        paragraphs = self._translate([translations[row] for row in rows])
        if len(paragraphs) != len(rows):  # never seen, but not guaranteed
            paragraphs = [" ".join(self._translate([translations[row]])) for row in rows]
        for row, paragraph in zip(rows, paragraphs, strict=True):
            translations[row] = _one_line(paragraph)
        return translations

    def _translate(self, paragraphs: list[str]) -> list[str]:
        return self._run("-u", self.mode, text="\n\n".join(paragraphs) + "\n").rstrip("\n").split("\n\n")

    def _run(self, *arguments: str, text: str = "") -> str:
        command = ["apertium", *arguments]
        environment = os.environ | {"LC_ALL": "C.UTF-8"}  # in another locale it stops at the first é
        try:
            done = subprocess.run(command, input=text, capture_output=True, env=environment, encoding="utf-8")
        except OSError as error:
            raise DataError(f"apertium: the program was not found ({error}); {self.install}") from error
        if done.returncode:
            raise DataError(
                f"{' '.join(command)}: found exit status {done.returncode} ({done.stderr.strip()}), expected 0; "
                f"{self.install}"
            )
        return done.stdout


APERTIUM_PAIRS = {"es": ("eng-spa", "spa-eng", "apertium-eng-spa")}  # those of `LANGUAGES` that Debian has


def apertium_pair(language: str) -> tuple[ApertiumTranslator, ApertiumTranslator]:
    """
    Make Apertium's translators from English to a language, and back.

    Raises:
        DataError: Apertium does not have the language, or is not installed.
    """
    require_language(language, APERTIUM_PAIRS)
    forth, back, package = APERTIUM_PAIRS[language]
    return ApertiumTranslator(forth, package), ApertiumTranslator(back, package)


def _one_line(text: str) -> str:
    """Replace control characters, of which NUL ends a text for apertium, and join words by single spaces."""
    return " ".join("".join(" " if unicodedata.category(c) == "Cc" else c for c in text).split())
