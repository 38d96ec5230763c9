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
"""Processor of CNN10-BERT: recordings become log-mels, captions become tokens."""

import string

from tokenizers import Regex, normalizers
from transformers import PreTrainedTokenizerFast, ProcessorMixin
from transformers.utils import auto_docstring

MAX_CAPTION_TOKENS = 32  # section 6.1 of the paper, [CLS] and [SEP] among them
CAPTION_LENGTH = {"padding": True, "truncation": True, "max_length": MAX_CAPTION_TOKENS, "pad_to_multiple_of": None}


@auto_docstring(
    custom_intro="""
    Joins a [`CNN10FeatureExtractor`] and a tokenizer: `processor(audio=..., text=..., sampling_rate=...)`.

    Captions are padded to the longest and truncated to 32 tokens unless the call says otherwise. Build the tokenizer
    with [`~CNN10BertProcessor.caption_tokenizer`], which normalises captions as the paper does.
    """
)
class CNN10BertProcessor(ProcessorMixin):
    def __init__(self, feature_extractor, tokenizer):
        r"""
        feature_extractor ([`CNN10FeatureExtractor`]):
            Waveform to log-mel.
        tokenizer ([`PreTrainedTokenizerFast`]):
            Caption to tokens.
        """
        super().__init__(feature_extractor, tokenizer)

    @auto_docstring(
        custom_intro="""
        Prepares captions, recordings or both.

        Beside captions, `padding`, `truncation`, `max_length` and `pad_to_multiple_of` are in tokens and theirs alone:
        the recordings' own, in frames, go into `audio_kwargs`.
        """
    )
    def __call__(self, images=None, text=None, videos=None, audio=None, **kwargs):
        # The library would hand `max_length=32, truncation=True` to both, which leaves 0.3 s of each recording, and
        # would let what a tokenizer was last called with, which is saved with it, override a default of this class.
        if text is not None:
            given = {name: kwargs.pop(name) for name in CAPTION_LENGTH.keys() & kwargs.keys()}
            kwargs["text_kwargs"] = {**CAPTION_LENGTH, **given, **kwargs.get("text_kwargs", {})}
        return super().__call__(images=images, text=text, videos=videos, audio=audio, **kwargs)

    @staticmethod
    def caption_tokenizer(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
        """
        The paper's text normalisation (section 6.1) built into a copy of a fast WordPiece tokenizer.

        Lower-cases and deletes `string.punctuation` before WordPiece. The rule is part of the saved tokenizer, so that
        pipelines, which call the tokenizer directly, follow it too. A `PreTrainedTokenizerFast` keeps its normaliser
        when it is saved and loaded again; a `BertTokenizer` would rebuild its own.
        """
        delete_punctuation = normalizers.Replace(Regex(f"[{_escaped(string.punctuation)}]"), "")
        backend = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
        backend.no_truncation()  # a checkpoint brings the lengths it was trained with
        backend.no_padding()
        backend.normalizer = normalizers.Sequence([normalizers.BertNormalizer(lowercase=True), delete_punctuation])
        return PreTrainedTokenizerFast(
            tokenizer_object=backend,
            model_max_length=MAX_CAPTION_TOKENS,
            model_input_names=["input_ids", "attention_mask"],
            **tokenizer.special_tokens_map,
        )

    def validate_inputs(self, images=None, text=None, videos=None, audio=None, **kwargs):
        """Adds to the library's checks that no caption is empty after normalisation.

        Raises:
            ValueError: a caption without a letter or digit.
        """
        super().validate_inputs(images=images, text=text, videos=videos, audio=audio, **kwargs)
        for caption in [text] if isinstance(text, str) else text or []:
            if not caption.translate(str.maketrans("", "", string.punctuation)).strip():
                raise ValueError(
                    f"Expected a caption with at least one word, found {caption!r}, of which nothing is left when "
                    "punctuation is deleted. Describe the sound in words."
                )


def _escaped(characters: str) -> str:
    """`characters` for use inside the brackets of a regular expression."""
    return "".join(f"\\{character}" for character in characters)


# Here and not in the package, so that what is saved where this file came with a checkpoint carries it on.
CNN10BertProcessor.register_for_auto_class()

__all__ = ["CNN10BertProcessor"]
