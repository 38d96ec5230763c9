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
"""CNN10 and CNN10-BERT model configuration."""

from typing import ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import BertConfig, PreTrainedConfig
from transformers.utils import auto_docstring


@auto_docstring(
    custom_intro="""
    Configuration of the CNN10 audio network: table 2 of Primus & Widmer (2022), a variant of PANNs' Cnn10.

    The defaults are the paper's. PANNs' own Cnn10 is `time_pooling="sum", block_dropout=0.2, head_dropout=0.5`.
    """
)
@strict
class CNN10Config(PreTrainedConfig):
    r"""
    num_mel_bins (`int`, *optional*, defaults to 64):
        Mel bins of the input. Each block halves them, so there must be at least `2 ** len(hidden_sizes)`.
    hidden_sizes (`list[int]`, *optional*, defaults to `[64, 128, 256, 512]`):
        Channels of each block.
    block_dropout (`float`, *optional*, defaults to 0.0):
        Dropout after each block.
    head_dropout (`float`, *optional*, defaults to 0.0):
        Dropout before each linear layer of `CNN10ForAudioClassification`.
    time_pooling (`str`, *optional*, defaults to `"average"`):
        How the mean and the maximum over time are joined: their `"average"` (the paper) or their `"sum"` (PANNs).
    temporal_moments (`int`, *optional*, defaults to 0):
        Moments of the frames over time that the pooled embedding also has: 0 (the paper) or 1. The first moment tells
        whether a sound is at the beginning or at the end of a recording.
    batch_norm_eps (`float`, *optional*, defaults to 1e-05):
        Added to the variance in every batch normalization.
    batch_norm_momentum (`float`, *optional*, defaults to 0.1):
        Share of the new batch in the running statistics.

    Example:

    ```python
    >>> from modeling_cnn10bert import CNN10Config, CNN10Model

    >>> model = CNN10Model(CNN10Config())
    >>> model.config.hidden_size
    512
    ```"""

    model_type = "cnn10"
    base_config_key = "audio_config"

    num_mel_bins: int = 64
    hidden_sizes: list[int] | tuple[int, ...] = (64, 128, 256, 512)
    block_dropout: float | int = 0.0
    head_dropout: float | int = 0.0
    time_pooling: Literal["average", "sum"] = "average"
    temporal_moments: Literal[0, 1] = 0
    batch_norm_eps: float = 1e-5
    batch_norm_momentum: float = 0.1

    def __post_init__(self, **kwargs):
        self.hidden_sizes = list(self.hidden_sizes)  # as JSON gives it back, so that a reloaded configuration is equal
        super().__post_init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """Return the width of a frame: the channels of the last block."""
        return self.hidden_sizes[-1]

    @property
    def pooled_size(self) -> int:
        """Return the width of the pooled embedding: a frame's, and as much for each moment."""
        return self.hidden_size * (1 + self.temporal_moments)

    @property
    def num_hidden_layers(self) -> int:
        """Return the number of blocks, each of which halves frames and mel bins."""
        return len(self.hidden_sizes)

    @property
    def min_frames(self) -> int:
        """Return the frames of the shortest clip, of which the poolings of all blocks leave one."""
        return 2**self.num_hidden_layers

    def validate_architecture(self):
        """Part of `@strict`-powered validation: the poolings must leave at least one mel bin."""
        if not self.hidden_sizes or min(self.hidden_sizes) < 1:
            raise ValueError(f"hidden_sizes must hold positive widths, one per block, found {self.hidden_sizes}.")
        if self.num_mel_bins < self.min_frames:
            raise ValueError(
                f"num_mel_bins is {self.num_mel_bins}, but {len(self.hidden_sizes)} blocks halve it as many times: "
                f"at least {self.min_frames} are needed."
            )


@auto_docstring(
    custom_intro="""
    Configuration of the retrieval model: a CNN10 audio tower and a BERT text tower in one embedding space.

    The defaults are the system of Primus & Widmer (2022), sections 6.2 and 6.3.
    """
)
@strict
class CNN10BertConfig(PreTrainedConfig):
    r"""
    audio_config (`dict`, *optional*):
        Configuration of the audio network, see [`CNN10Config`].
    text_config (`dict`, *optional*):
        Configuration of the text network, see [`BertConfig`].
    projection_hidden_size (`int`, *optional*, defaults to 2048):
        Width of the hidden layer of both projection heads.
    projection_dim (`int`, *optional*, defaults to 1024):
        Dimension of the shared embedding space.
    text_pooling (`str`, *optional*, defaults to `"cls"`):
        Text vector that is projected: the vector of the `"cls"` token (the paper), or the `"mean"` over the caption's
        tokens.
    temperature (`float`, *optional*, defaults to 0.05):
        Divisor of the cosine similarities. The paper does not give its value.
    learnable_temperature (`bool`, *optional*, defaults to `False`):
        Whether the temperature is a parameter that starts at `temperature`.

    Example:

    ```python
    >>> from modeling_cnn10bert import CNN10BertConfig, CNN10BertModel

    >>> model = CNN10BertModel(CNN10BertConfig())
    >>> model.config.projection_dim
    1024
    ```"""

    model_type = "cnn10bert"
    sub_configs_defaults: ClassVar[dict] = {"audio_config": CNN10Config, "text_config": BertConfig}

    audio_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    projection_hidden_size: int = 2048
    projection_dim: int = 1024
    text_pooling: Literal["cls", "mean"] = "cls"
    temperature: float | int = 0.05
    learnable_temperature: bool = False

    @classmethod
    def from_audio_text_configs(
        cls, audio_config: PreTrainedConfig, text_config: PreTrainedConfig, **fields
    ) -> "CNN10BertConfig":
        """Join the configurations of two towers, without the fields that describe their checkpoints."""
        of_checkpoints = {"architectures", "auto_map", "dtype", "id2label", "label2id", "problem_type", "_name_or_path"}
        audio, text = (
            {name: value for name, value in config.to_dict().items() if name not in of_checkpoints}
            for config in (audio_config, text_config)
        )
        return cls(audio_config=audio, text_config=text, **fields)

    def validate_architecture(self):
        """Part of `@strict`-powered validation: similarities are divided by the temperature."""
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, found {self.temperature}.")


# Here and not in the package, so that what was loaded with the code of a checkpoint is saved with it again.
CNN10Config.register_for_auto_class()
CNN10BertConfig.register_for_auto_class()

__all__ = ["CNN10BertConfig", "CNN10Config"]
