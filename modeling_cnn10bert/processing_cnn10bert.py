# Copyright 2026 The cnn10bert authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Processor of CNN10-BERT: recordings to log-mels, captions to tokens."""

import difflib
import os
import re
import string

import numpy as np
from tokenizers import Regex, normalizers
from transformers import PreTrainedTokenizerFast, ProcessorMixin
from transformers.audio_utils import load_audio
from transformers.processing_utils import AudioKwargs, ProcessingKwargs, TextKwargs
from transformers.utils import auto_docstring

MAX_CAPTION_TOKENS = 32  # section 6.1 of the paper, including [CLS] and [SEP]
CAPTION_LENGTH = {"padding": True, "truncation": True, "max_length": MAX_CAPTION_TOKENS, "pad_to_multiple_of": None}

# Characters that word processors, phones and web pages write instead of `string.punctuation`: quotation marks, accents
# and modifier letters used as an apostrophe, primes, hyphens, dashes, the minus sign, ellipses, bullets, and Chinese
# and Japanese punctuation. Full-width forms become plain ones before they are deleted.
TYPOGRAPHIC_PUNCTUATION = "¡§¨¯«´¶·¸»¿ʹʺʻʼʽʾʿˈˊˋˮ\u2212\u2215" + "".join(
    chr(code)
    for first, last in ((0x2010, 0x2027), (0x2030, 0x2043), (0x2045, 0x2051), (0x2053, 0x205E), (0x2E00, 0x2E5D))
    + ((0x3001, 0x3003), (0x3008, 0x3011), (0x3014, 0x301F), (0x30FB, 0x30FB))
    for code in range(first, last + 1)
)
PUNCTUATION = string.punctuation + TYPOGRAPHIC_PUNCTUATION


def caption_normalizer() -> normalizers.Normalizer:
    """
    Build the normalization of captions: lower case, without punctuation and accents, plain spaces.

    Section 6.1 of the paper deletes `string.punctuation`. Typographic marks and invisible characters, such as the soft
    hyphen, are deleted too, so that a caption means the same however it was typed.
    """
    delete_punctuation = normalizers.Replace(Regex(f"[{re.escape(PUNCTUATION)}]"), "")
    return normalizers.Sequence(
        [
            normalizers.Replace(Regex(r"\s"), " "),
            delete_punctuation,  # before NFKC, which turns "´" into a space and an accent
            normalizers.NFKC(),
            delete_punctuation,
            normalizers.BertNormalizer(lowercase=True),  # strips accents and invisible characters too
        ]
    )


_NORMALIZER = caption_normalizer()


def caption_words(caption: str) -> list[str]:
    """Split a caption into its normalized words, as a new model's tokenizer sees them before WordPiece."""
    return _NORMALIZER.normalize_str(caption).split()


@auto_docstring(
    custom_intro="""
    Combines a [`CNN10FeatureExtractor`] and a tokenizer: `processor(audio=..., text=..., sampling_rate=...)`.

    Captions are padded to the longest and truncated to 32 tokens unless the call says otherwise. Build the tokenizer
    with [`~CNN10BertProcessor.caption_tokenizer`], which normalizes captions as the paper does.
    """
)
class CNN10BertProcessor(ProcessorMixin):
    def __init__(self, feature_extractor, tokenizer):
        r"""
        feature_extractor ([`CNN10FeatureExtractor`]):
            Computes log-mels from waveforms.
        tokenizer ([`PreTrainedTokenizerFast`]):
            Tokenizes captions.
        """
        super().__init__(feature_extractor, tokenizer)

    @auto_docstring(
        custom_intro="""
        Prepare captions, recordings or both.

        With captions, `padding`, `truncation`, `max_length` and `pad_to_multiple_of` count tokens and apply to captions
        only. Give those of the recordings, in frames, in `audio_kwargs`. `raw_speech`, the name that feature extractors
        use, is the same as `audio`. An unknown argument is an error.

        A recording is given in any form that the feature extractor takes, or as the path or address of a file. Unlike
        the feature extractor, the processor resamples recordings at other rates, for which it needs soxr.
        """
    )
    def __call__(self, images=None, text=None, videos=None, audio=None, **kwargs):
        if images is not None or videos is not None:
            raise ValueError(
                f"{type(self).__name__} takes captions and recordings, found images or videos; name what it is given: "
                "text=... or audio=..."
            )
        if (raw_speech := kwargs.pop("raw_speech", None)) is not None:
            if audio is not None:
                raise ValueError("Expected audio or raw_speech, which are the same, found both.")
            audio = raw_speech
        self._check_names(kwargs)
        if audio is not None:
            options = dict(kwargs.pop("audio_kwargs", None) or {})
            if "sampling_rate" in options and "sampling_rate" in kwargs:
                raise ValueError("Expected sampling_rate once, found it as an argument and in audio_kwargs.")
            rate = kwargs.pop("sampling_rate", None)
            clips = self._read_audio(audio, options.pop("sampling_rate", rate))
            audio = [clip for clip, _ in clips]
            if all(rate is not None for _, rate in clips):  # otherwise the feature extractor warns
                options["sampling_rate"] = self.feature_extractor.sampling_rate
            kwargs["audio_kwargs"] = options
        # The library would pass `max_length=32, truncation=True` to both, leaving 0.3 s of each recording. It would
        # also let the arguments of a tokenizer's last call, which are saved with it, override this class's defaults.
        if text is not None:
            given = {name: kwargs.pop(name) for name in CAPTION_LENGTH.keys() & kwargs.keys()}
            kwargs["text_kwargs"] = {**CAPTION_LENGTH, **given, **kwargs.get("text_kwargs", {})}
        return super().__call__(images=images, text=text, videos=videos, audio=audio, **kwargs)

    def _read_audio(self, audio, sampling_rate: int | None) -> list[tuple[np.ndarray, int | None]]:
        """Read recordings in any form, resampled to the feature extractor's rate where their own is known."""
        new_rate = self.feature_extractor.sampling_rate
        if isinstance(audio, str | os.PathLike):
            audio = [audio]
        if isinstance(audio, list | tuple):
            audio = [
                {"array": read_audio_file(os.fspath(clip), new_rate), "sampling_rate": new_rate}
                if isinstance(clip, str | os.PathLike)
                else clip
                for clip in audio
            ]
        clips = self.feature_extractor.read_clips(audio, sampling_rate)
        return [(clip, rate) if rate is None else (resample(clip, rate, new_rate), new_rate) for clip, rate in clips]

    def _check_names(self, kwargs):
        """
        Refuse arguments that the library would ignore with a warning.

        Raises:
            TypeError: an argument is unknown, for example because it is misspelled.
        """
        of_text, of_audio = set(TextKwargs.__annotations__), set(AudioKwargs.__annotations__)
        known = {*ProcessingKwargs.__annotations__, *of_text, *of_audio, "common_kwargs", "audios"}
        known |= {"return_metadata", "sanitize_control_tokens"}  # which the library reads itself
        given = [*kwargs, *(name for name in kwargs.get("text_kwargs") or {} if name not in of_text | {"verbose"})]
        for name in given:
            if name not in known or name not in kwargs:
                close = difflib.get_close_matches(name, sorted(known), n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise TypeError(f"{type(self).__name__} knows no argument {name!r}{hint}")

    @staticmethod
    def caption_tokenizer(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
        """
        Build the paper's text normalization (section 6.1) into a copy of a fast WordPiece tokenizer.

        `caption_normalizer` runs before WordPiece. It is part of the saved tokenizer, so that pipelines, which call the
        tokenizer directly, apply it too, and a saved model keeps the rule that it was trained with. A
        `PreTrainedTokenizerFast` keeps its normalizer when it is saved and loaded again; a `BertTokenizer` would
        rebuild its own.
        """
        backend = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
        backend.no_truncation()  # a checkpoint brings the lengths it was trained with
        backend.no_padding()
        backend.normalizer = caption_normalizer()
        return PreTrainedTokenizerFast(
            tokenizer_object=backend,
            model_max_length=MAX_CAPTION_TOKENS,
            model_input_names=["input_ids", "attention_mask"],
            **tokenizer.special_tokens_map,
        )

    def validate_inputs(self, images=None, text=None, videos=None, audio=None, **kwargs):
        """Check also that there is a caption, and that none is empty after normalization.

        Raises:
            ValueError: no caption, or one without a letter or digit.
        """
        super().validate_inputs(images=images, text=text, videos=videos, audio=audio, **kwargs)
        if text is not None and len(text) == 0 and not isinstance(text, str):
            raise ValueError("Expected at least one caption, found an empty list.")
        for caption in [text] if isinstance(text, str) else text or []:
            if not caption_words(caption):
                raise ValueError(
                    f"Expected a caption with at least one word, found {caption!r}, of which nothing is left when "
                    "punctuation is deleted. Describe the sound in words."
                )


def read_audio_file(source: str, sampling_rate: int) -> np.ndarray:
    """
    Read a file as a mono waveform `(num_samples,)` float32 at `sampling_rate` (Hz).

    Args:
        source: path, address or base64 text. Formats that libsndfile lacks, and addresses, are read by transformers'
            `load_audio`, which needs torchcodec for some of them.
        sampling_rate: rate to which other rates are resampled.
    """
    try:
        import soundfile
    except ImportError:
        return load_audio(source, sampling_rate)
    try:
        samples, rate = soundfile.read(source, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError):
        return load_audio(source, sampling_rate)
    return resample(samples.mean(axis=1), rate, sampling_rate)


def resample(waveform: np.ndarray, old_rate: int, new_rate: int) -> np.ndarray:
    """
    Resample a waveform `(num_samples,)` by soxr at its highest quality, as this project does everywhere.

    Raises:
        ImportError: the rates (Hz) differ, and soxr is not installed.
    """
    if old_rate == new_rate:
        return waveform
    try:
        import soxr
    except ImportError as error:
        raise ImportError(
            f"the audio has {old_rate} Hz, but the model takes {new_rate} Hz; install soxr (`pip install soxr`) to "
            "have it resampled, or resample it first"
        ) from error
    return soxr.resample(waveform, old_rate, new_rate, quality="VHQ")


# Here and not in the package, so that what was loaded with the code of a checkpoint is saved with it again.
CNN10BertProcessor.register_for_auto_class()

__all__ = ["CNN10BertProcessor"]
