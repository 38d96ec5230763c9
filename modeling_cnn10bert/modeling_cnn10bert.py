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
"""PyTorch CNN10 and CNN10-BERT models."""

import math
import os
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertModel, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, auto_docstring, can_return_tuple
from transformers.utils.generic import maybe_autocast
from transformers.utils.output_capturing import capture_outputs

from .configuration_cnn10bert import CNN10BertConfig, CNN10Config
from .cpu_kernels_cnn10bert import faster_on_cpu


def at_least_float32(tensor: Tensor) -> Tensor:
    """Convert float16 and bfloat16 to float32, and leave float64 as it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def contrastive_loss(
    logits_per_audio: Tensor,
    audio_recording_ids: Tensor | None = None,
    text_recording_ids: Tensor | None = None,
    positives: Tensor | None = None,
) -> Tensor:
    """
    Compute NT-Xent in both directions, averaged, in float32 at least (section 3 of Primus & Widmer, 2022).

    Rows and columns of the same recording are positives, and every row and column needs one. Each direction is the mean
    over rows of the mean of `-log_softmax` over the row's positives. With distinct recordings it is the paper's loss.

    Args:
        logits_per_audio: cosine similarities divided by the temperature, [A, C].
        audio_recording_ids: the recording of each row, [A]. Without ids, caption i belongs to audio i alone.
        text_recording_ids: the recording that each column describes, [C], by default as the rows.
        positives: 1 where a caption is a positive of an audio, [A, C], in place of the recording ids.
    """
    if audio_recording_ids is None:
        audio_recording_ids = torch.arange(logits_per_audio.shape[0], device=logits_per_audio.device)
    if text_recording_ids is None:
        text_recording_ids = audio_recording_ids
    if positives is None:
        positives = audio_recording_ids[:, None] == text_recording_ids[None, :]  # [A, C]
    if positives.shape != logits_per_audio.shape:
        raise ValueError(
            f"logits_per_audio is {tuple(logits_per_audio.shape)}, but there are recording ids for {len(positives)} "
            f"audios and {positives.shape[1]} captions. Give one id to each row and each column."
        )
    logits = at_least_float32(logits_per_audio)
    positives = positives.to(logits.dtype)
    audio_to_text = (F.log_softmax(logits, dim=1) * positives).sum(dim=1) / positives.sum(dim=1)
    text_to_audio = (F.log_softmax(logits, dim=0) * positives).sum(dim=0) / positives.sum(dim=0)
    return -(audio_to_text.mean() + text_to_audio.mean()) / 2


@auto_docstring(custom_intro="Output of [`CNN10BertModel`].")
@dataclass
class CNN10BertOutput(ModelOutput):
    r"""
    loss (`torch.Tensor` of shape `()`, *optional*, returned when `return_loss` is `True`):
        Contrastive loss between the recordings and the captions.
    logits_per_audio (`torch.Tensor` of shape `(num_audios, num_captions)`):
        Cosine similarities divided by the temperature.
    logits_per_text (`torch.Tensor` of shape `(num_captions, num_audios)`):
        The same, transposed.
    audio_embeds (`torch.Tensor` of shape `(num_audios, projection_dim)`):
        L2-normalized embeddings of the recordings, float32.
    text_embeds (`torch.Tensor` of shape `(num_captions, projection_dim)`):
        L2-normalized embeddings of the captions, float32.
    audio_model_output (`BaseModelOutputWithPooling`):
        Output of the audio network.
    text_model_output (`BaseModelOutputWithPooling`):
        Output of the text network.
    """

    loss: Tensor | None = None
    logits_per_audio: Tensor | None = None
    logits_per_text: Tensor | None = None
    audio_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    audio_model_output: BaseModelOutputWithPooling | None = None
    text_model_output: BaseModelOutputWithPooling | None = None

    def to_tuple(self) -> tuple:
        return tuple(value.to_tuple() if isinstance(value, ModelOutput) else value for value in self.values())


def zero_padding(hidden_states: Tensor, mask: Tensor | None) -> Tensor:
    """Zero the frames after the end of each clip, so that they look like a convolution's own zero padding."""
    return hidden_states if mask is None else hidden_states * mask.to(hidden_states.dtype)


@faster_on_cpu
def masked_batch_norm(
    hidden_states: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """
    Normalize each channel by the mean and the variance of its valid frames (Ioffe & Szegedy, 2015, algorithm 1).

    `hidden_states` are [B, C, T, F], `weight` and `bias` [C], and `mask` [B, 1, T, 1] is 1 on valid frames. Without a
    mask, all frames are valid. Returns the normalized `hidden_states`, 0 in the padding, and the mean and the unbiased
    variance [C], without gradients.
    """
    values = at_least_float32(hidden_states)
    valid = torch.ones_like(values[:, :1, :, :1]) if mask is None else mask.to(values.dtype)
    count = valid.sum() * values.shape[3]
    mean = (values * valid).sum(dim=(0, 2, 3)) / count
    centered = values - mean[:, None, None]
    variance = (centered.square() * valid).sum(dim=(0, 2, 3)) / count
    scale = weight * torch.rsqrt(variance + eps)
    output = (centered * scale[:, None, None] + bias[:, None, None]) * valid
    unbiased = variance * count / (count - 1).clamp(min=1)  # which PyTorch's batch normalization tracks as well
    return output.to(hidden_states.dtype), mean.detach(), unbiased.detach()


class CNN10BatchNorm(nn.BatchNorm2d):
    """Batch normalization whose statistics, in training, are those of the valid frames. The padding then becomes 0."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, hidden_states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalize `hidden_states` [B, C, T, F], of which `mask` [B, 1, T, 1] is 1 on valid frames."""
        if not self.training:
            return super().forward(hidden_states)
        output, mean, variance = masked_batch_norm(hidden_states, mask, self.weight, self.bias, self.eps)
        if self.track_running_stats:
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)
            self.num_batches_tracked.add_(1)
        return output


@faster_on_cpu
def conv_norm_relu(conv: nn.Conv2d, norm: CNN10BatchNorm, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
    """Convolve, normalize and rectify [B, C_in, T, F] to [B, C_out, T, F], 0 where `mask` [B, 1, T, 1] is 0."""
    hidden_states = F.relu(norm(conv(hidden_states), mask), inplace=True)
    # In training, the normalization leaves zeros in the padding.
    return hidden_states if norm.training else zero_padding(hidden_states, mask)


class CNN10Block(GradientCheckpointingLayer):
    """Two 3x3 convolutions, each with batch normalization and ReLU, then 2x2 average pooling (table 2 of the paper)."""

    def __init__(self, config: CNN10Config, block_index: int):
        super().__init__()
        in_channels, out_channels = [1, *config.hidden_sizes][block_index : block_index + 2]
        eps, momentum = config.batch_norm_eps, config.batch_norm_momentum
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.norm1 = CNN10BatchNorm(out_channels, eps, momentum)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.norm2 = CNN10BatchNorm(out_channels, eps, momentum)
        self.dropout = nn.Dropout(config.block_dropout)

    def __call__(self, *args, **kwargs) -> Tensor:
        # Gradient checkpointing repeats `forward` in the backward pass, when the batch has been counted already.
        self.norm1.track_running_stats = self.norm2.track_running_stats = True
        output = super().__call__(*args, **kwargs)
        self.norm1.track_running_stats = self.norm2.track_running_stats = False
        return output

    def forward(self, hidden_states: Tensor, mask: Tensor | None = None, pooled_mask: Tensor | None = None) -> Tensor:
        """Map [B, C_in, T, F] to [B, C_out, T // 2, F // 2], with masks [B, 1, T, 1] and [B, 1, T // 2, 1]."""
        hidden_states = conv_norm_relu(self.conv1, self.norm1, hidden_states, mask)
        hidden_states = conv_norm_relu(self.conv2, self.norm2, hidden_states, mask)
        # A pooled frame is valid where both of its frames are.
        hidden_states = zero_padding(F.avg_pool2d(hidden_states, kernel_size=2), pooled_mask)
        return self.dropout(hidden_states)


@faster_on_cpu
def block_masks(mask: Tensor | None, num_blocks: int) -> list[Tensor | None]:
    """Make the masks [B, 1, T // 2**i, 1] of the input and of the output of each block from `mask` [B, T] or `None`."""
    if mask is None:
        return [None] * (num_blocks + 1)
    masks: list[Tensor | None] = []
    num_frames, lengths = mask.shape[1], mask.sum(dim=1)
    for _ in range(num_blocks + 1):
        positions = torch.arange(num_frames, device=mask.device)
        masks.append((positions < lengths[:, None])[:, None, :, None])
        num_frames, lengths = num_frames // 2, (lengths // 2).clamp(min=1)
    return masks


def network_dtype(model: PreTrainedModel) -> torch.dtype:
    """Return the precision of the weights except the input normalization's, which stay in float32."""
    parameters = (value for name, value in model.named_parameters() if "input_norm." not in name)
    return next(value.dtype for value in parameters if value.is_floating_point())


@auto_docstring(custom_intro="Weight initialization and loading of the CNN10 models.")
class CNN10PreTrainedModel(PreTrainedModel):
    config: CNN10Config
    base_model_prefix = "cnn10"
    main_input_name = "input_features"
    input_modalities = ["audio"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["CNN10Block"]
    _can_record_outputs = {"hidden_states": CNN10Block}
    # The other parts of a retrieval model, from which `from_pretrained` can take the audio network.
    _keys_to_ignore_on_load_unexpected = [r"^(text_model|text_projection|audio_projection)\.", r"^logit_scale$"]
    # Its input is in decibels down to -100, which bfloat16 would round to half a decibel.
    _keep_in_fp32_modules_strict = ["input_norm"]
    dtype = property(network_dtype)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, **kwargs):
        """Load a model as usual, or the audio network of a retrieval model ([`CNN10BertModel`]), without a head."""
        kwargs.setdefault("key_mapping", {r"^audio_model\.": "" if cls is CNN10Model else "cnn10."})
        loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model._weight_conversions = None  # otherwise it would be saved under the names of the retrieval model
        return loaded

    def get_correct_attn_implementation(self, requested_attention: str | None, is_init_check: bool = False) -> str:
        """Accept any: this network has no attention, and a retrieval model passes the choice for its text network."""
        return "eager"

    @torch.no_grad()
    def _init_weights(self, module):
        """Initialize as PANNs: Xavier-uniform weights and zero biases. The base class does the normalizations."""
        super()._init_weights(module)
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            init.xavier_uniform_(module.weight)


@auto_docstring(
    custom_intro="""
    The audio network of Primus & Widmer (2022), from a log-mel spectrogram to one embedding per clip.

    An embedding does not depend on the batch or on padding. Padded frames are zeroed after the input normalization and
    after every convolution, normalization and pooling, and they are never counted.
    """
)
class CNN10Model(CNN10PreTrainedModel):
    def __init__(self, config: CNN10Config):
        super().__init__(config)
        dtype = torch.promote_types(torch.get_default_dtype(), torch.float32)  # `from_config` sets the default
        self.input_norm = CNN10BatchNorm(
            config.num_mel_bins, config.batch_norm_eps, config.batch_norm_momentum, dtype=dtype
        )
        self.blocks = nn.ModuleList([CNN10Block(config, index) for index in range(len(config.hidden_sizes))])
        self.post_init()

    @capture_outputs(tie_last_hidden_states=False)
    @auto_docstring
    def forward(
        self,
        input_features: Tensor,
        input_features_mask: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPooling:
        r"""
        input_features (`torch.Tensor` of shape `(batch_size, num_frames, num_mel_bins)`):
            Log-mel spectrograms in dB, from [`CNN10FeatureExtractor`].
        input_features_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*):
            1 on the frames of the clip, 0 on the padding after them. Without it every frame is valid.

        Returns:
            [`BaseModelOutputWithPooling`]: `last_hidden_state` `(batch_size, num_frames // 16, hidden_size)` is the
            mean over frequency of the last block, `pooler_output` `(batch_size, pooled_size)` its pooling over time,
            `hidden_states` the input and the output of the blocks, `(batch_size, channels, frames, mel bins)`.
        """
        self._check_shapes(input_features, input_features_mask)
        masks = block_masks(input_features_mask, len(self.blocks))

        # Batch normalization of each mel bin (section 6.1), in the precision of the decibels.
        bins = input_features.to(self.input_norm.weight.dtype).transpose(1, 2).unsqueeze(3)  # [B, F, T, 1]
        hidden_states = zero_padding(self.input_norm(bins, masks[0]), masks[0]).permute(0, 3, 2, 1)  # [B, 1, T, F]
        hidden_states = hidden_states.to(next(self.blocks.parameters()).dtype)

        for block, mask, pooled_mask in zip(self.blocks, masks[:-1], masks[1:], strict=True):
            hidden_states = block(hidden_states, mask, pooled_mask)

        frames = hidden_states.mean(dim=3).transpose(1, 2)  # [B, T // 16, C]
        pooled = self._pool_over_time(frames, masks[-1])
        return BaseModelOutputWithPooling(last_hidden_state=frames, pooler_output=pooled)

    def _check_shapes(self, input_features: Tensor, mask: Tensor | None) -> None:
        if input_features.ndim != 3 or input_features.shape[2] != self.config.num_mel_bins:
            raise ValueError(
                f"input_features must be (batch_size, num_frames, {self.config.num_mel_bins}), found "
                f"{tuple(input_features.shape)}. Compute them with the feature extractor of this model."
            )
        if input_features.shape[1] < self.config.min_frames:
            raise ValueError(
                f"input_features holds {input_features.shape[1]} frames, but {len(self.blocks)} poolings need at least "
                f"{self.config.min_frames}. The feature extractor fills shorter clips up."
            )
        if mask is not None and mask.shape != input_features.shape[:2]:
            raise ValueError(
                f"input_features_mask must be {tuple(input_features.shape[:2])}, found {tuple(mask.shape)}. Pass the "
                "mask of the same call of the feature extractor."
            )

    def _pool_over_time(self, frames: Tensor, mask: Tensor | None) -> Tensor:
        """
        Average (the paper) or add (PANNs) the mean and the maximum over valid frames: [B, T, C] to [B, C].

        With a temporal moment, which comes after them, the result is [B, 2 * C].
        """
        valid = torch.ones_like(frames[:, :, :1], dtype=torch.bool) if mask is None else mask[:, 0]  # [B, T, 1]
        mean = (frames * valid).sum(dim=1) / valid.sum(dim=1)
        maximum = frames.masked_fill(~valid, torch.finfo(frames.dtype).min).amax(dim=1)
        # CODEPATH: the paper's models average, checkpoints converted from PANNs sum.
        pooled = (mean + maximum) / 2 if self.config.time_pooling == "average" else mean + maximum
        # CODEPATH: the paper's models have no moment, so they cannot tell the order of two sounds.
        if self.config.temporal_moments == 0:
            return pooled
        # First moment: the mean of frames weighted linearly from -1 (first valid frame) to 1 (last one), times two.
        count = valid.sum(dim=1, keepdim=True)  # [B, 1, 1]
        positions = torch.arange(frames.shape[1], device=frames.device)[:, None]
        weights = (2 * positions - (count - 1)) / (count - 1).clamp(min=1) * valid  # [B, T, 1]
        moment = 2 * (frames * weights).sum(dim=1) / count[:, 0]
        return torch.cat([pooled, moment], dim=1)


@auto_docstring(custom_intro="CNN10 with PANNs' tagging head: dropout, linear, ReLU, dropout, linear.")
class CNN10ForAudioClassification(CNN10PreTrainedModel):
    def __init__(self, config: CNN10Config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.cnn10 = CNN10Model(config)
        self.dropout = nn.Dropout(config.head_dropout)
        self.dense = nn.Linear(config.pooled_size, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, cast(int, config.num_labels))
        self.post_init()

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        input_features: Tensor,
        input_features_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | SequenceClassifierOutput:
        r"""
        input_features (`torch.Tensor` of shape `(batch_size, num_frames, num_mel_bins)`):
            Log-mel spectrograms in dB, from [`CNN10FeatureExtractor`].
        input_features_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*):
            1 on the frames of the clip, 0 on the padding after them.
        labels (`torch.Tensor`, *optional*):
            Class indices `(batch_size,)` for `config.problem_type="single_label_classification"`, or 0 and 1
            `(batch_size, num_labels)` for `"multi_label_classification"` (binary cross-entropy).
        """
        outputs = self.cnn10(input_features, input_features_mask, return_dict=True, **kwargs)
        hidden_states = F.relu(self.dense(self.dropout(outputs.pooler_output)))
        logits = self.classifier(self.dropout(hidden_states))
        loss = None if labels is None else self.loss_function(labels, logits, self.config, **kwargs)
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)


class CNN10BertProjection(nn.Module):
    """Projection head of a tower: linear, ReLU, linear (sections 6.2 and 6.3 of the paper)."""

    def __init__(self, config: CNN10BertConfig, pooled_size: int):
        super().__init__()
        self.dense = nn.Linear(pooled_size, config.projection_hidden_size)
        self.out = nn.Linear(config.projection_hidden_size, config.projection_dim)

    def forward(self, pooled: Tensor) -> Tensor:
        """Project [B, pooled_size] to unit vectors [B, projection_dim], in float32 at least."""
        return F.normalize(at_least_float32(self.out(F.relu(self.dense(pooled)))), dim=-1)


@auto_docstring(custom_intro="Weight initialization and loading of the retrieval model.")
class CNN10BertPreTrainedModel(PreTrainedModel):
    config: CNN10BertConfig
    base_model_prefix = "cnn10bert"
    main_input_name = "input_ids"
    input_modalities = ["audio", "text"]
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["CNN10Block"]
    dtype = property(network_dtype)

    @torch.no_grad()
    def _init_weights(self, module):
        """Initialize the projection heads as PyTorch's linear layers, and the temperature as configured."""
        super()._init_weights(module)
        # The towers initialize their own layers, so a linear layer here belongs to a projection head.
        if isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            init.uniform_(module.weight, -bound, bound)
            init.uniform_(module.bias, -bound, bound)
        # CODEPATH: the paper's recipe fixes the temperature. Models that learn it hold it as a parameter.
        elif isinstance(module, CNN10BertModel) and self.config.learnable_temperature:
            init.constant_(module.logit_scale, math.log(1 / self.config.temperature))


@faster_on_cpu
def encode_captions(text_model: BertModel, input_ids: Tensor, attention_mask: Tensor | None, **kwargs) -> ModelOutput:
    """Run the text network on captions [B, L], padded where `attention_mask` [B, L] is 0, to vectors [B, L, H]."""
    return text_model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **kwargs)


@auto_docstring(
    custom_intro="The retrieval system of Primus & Widmer (2022): recordings and captions in one embedding space."
)
class CNN10BertModel(CNN10BertPreTrainedModel):
    def __init__(self, config: CNN10BertConfig):
        super().__init__(config)
        self.audio_model = CNN10Model(cast(CNN10Config, config.audio_config))
        self.audio_projection = CNN10BertProjection(config, self.audio_model.config.pooled_size)
        self.text_model = BertModel(cast(BertConfig, config.text_config), add_pooling_layer=False)
        self.text_projection = CNN10BertProjection(config, self.text_model.config.hidden_size)
        # CODEPATH: as in `_init_weights`.
        if config.learnable_temperature:
            self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature)))
        self.post_init()

    @classmethod
    def from_audio_text_pretrained(
        cls,
        audio_model: str | os.PathLike | CNN10Config,
        text_model: str | os.PathLike | BertConfig,
        audio_fields: dict | None = None,
        **config_fields,
    ) -> "CNN10BertModel":
        """
        Join two pretrained towers under new projection heads (sections 6.2 and 6.3 of the paper), in float32 and in
        evaluation mode.

        Args:
            audio_model: folder or Hub id of a [`CNN10Model`] or [`CNN10ForAudioClassification`], or a configuration for
                random weights.
            text_model: folder or Hub id of a BERT, or a configuration for random weights.
            audio_fields: fields of [`CNN10Config`] that replace those of the checkpoint, such as
                `{"time_pooling": "average"}` for one of PANNs, which sums.
            config_fields: fields of [`CNN10BertConfig`], such as `text_pooling="mean"`.
        """
        audio = _load_tower(CNN10Model, audio_model, **(audio_fields or {}))
        text = _load_tower(BertModel, text_model, add_pooling_layer=False)
        model = cls(CNN10BertConfig.from_audio_text_configs(audio.config, text.config, **config_fields))
        model.audio_model.load_state_dict(audio.state_dict())
        model.text_model.load_state_dict(text.state_dict())
        return model.eval()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_model.set_input_embeddings(value)

    def train(self, mode: bool = True):
        """
        Set training mode, except for the dropout and the running statistics of parts that are frozen.

        Such a part is a network, the embeddings or a layer of the text network, or a batch normalization. So an audio
        network that is frozen but for added low-rank matrices normalizes by the statistics that it was loaded with.
        """
        super().train(mode)
        norms = [module for module in self.audio_model.modules() if isinstance(module, CNN10BatchNorm)]
        text = (self.text_model, self.text_model.embeddings, *self.text_model.encoder.layer)
        for part in (self.audio_model, *norms, *text):
            if not any(parameter.requires_grad for parameter in part.parameters()):
                part.eval()
        return self

    def freeze_audio_tower(self) -> None:
        """Freeze the audio network, but not its projection head."""
        self.audio_model.requires_grad_(False).eval()

    def freeze_text_tower(self) -> None:
        """Freeze the text network, but not its projection head."""
        self.text_model.requires_grad_(False).eval()

    def freeze_text_layers(self, num_layers: int) -> None:
        """Freeze the embeddings and the first `num_layers` layers of the text network, including their dropout."""
        layers = self.text_model.encoder.layer
        if not 0 <= num_layers <= len(layers):
            raise ValueError(f"the text network has {len(layers)} layers, found {num_layers} to freeze")
        for part in (self.text_model.embeddings, *layers[:num_layers]):
            part.requires_grad_(False).eval()

    @can_return_tuple
    @auto_docstring(custom_intro="Embed recordings: `pooler_output` `(batch_size, projection_dim)` are unit vectors.")
    def get_audio_features(
        self,
        input_features: Tensor,
        input_features_mask: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPooling:
        r"""
        input_features (`torch.Tensor` of shape `(batch_size, num_frames, num_mel_bins)`):
            Log-mel spectrograms in dB, from [`CNN10FeatureExtractor`].
        input_features_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*):
            1 on the frames of the clip, 0 on the padding after them.
        """
        outputs = self.audio_model(input_features, input_features_mask, return_dict=True, **kwargs)
        outputs.pooler_output = self.audio_projection(outputs.pooler_output)
        return outputs

    def get_audio_frame_features(
        self,
        input_features: Tensor,
        input_features_mask: Tensor | None = None,
        context_frames: int = 1,
    ) -> Tensor:
        """
        Embed every frame of recordings, which tells where in a recording a caption fits.

        A frame is pooled with its neighbors as [`CNN10Model`] pools a whole recording, and then projected. With
        `context_frames` of twice the number of frames or more, every frame has the embedding of the recording.

        Args:
            input_features (`torch.Tensor` of shape `(batch_size, num_frames, num_mel_bins)`):
                Log-mel spectrograms in dB, from [`CNN10FeatureExtractor`].
            input_features_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*):
                1 on the frames of the clip, 0 on the padding after them.
            context_frames (`int`, *optional*, defaults to 1):
                Frames that are pooled together, centered on the one that is embedded; odd.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_frames // 16, projection_dim)`: unit vectors, float32. Those of
            the padding have no meaning.
        """
        if context_frames % 2 == 0:
            raise ValueError(f"context_frames must be odd, found {context_frames}.")
        outputs = self.audio_model(input_features, input_features_mask, return_dict=True)
        frames = outputs.last_hidden_state.transpose(1, 2)  # [B, C, T // 16], 0 in the padding
        mask = block_masks(input_features_mask, self.audio_model.config.num_hidden_layers)[-1]
        valid = torch.ones_like(frames[:, :1]) if mask is None else mask[:, 0].transpose(1, 2).to(frames.dtype)
        window = (context_frames, 1, context_frames // 2)  # kernel size, stride and padding
        share = F.avg_pool1d(valid, *window).clamp(min=1 / context_frames)  # of the window's frames that are valid
        mean = F.avg_pool1d(frames, *window) / share
        # Frames are means of rectified values, so the zeros of the padding are never above them.
        maximum = F.max_pool1d(frames, *window)
        # CODEPATH: as in `CNN10Model`.
        pooled = (mean + maximum) / 2 if self.audio_model.config.time_pooling == "average" else mean + maximum
        if self.audio_model.config.temporal_moments > 0:
            # The weight of frame t in a window of the valid frames from a to b is (2 t - (a + b)) / (b - a).
            positions = torch.arange(frames.shape[2], device=frames.device, dtype=frames.dtype)
            first = (positions - context_frames // 2).clamp(min=0)
            last = torch.minimum(positions + context_frames // 2, valid.sum(dim=2, keepdim=True) - 1)  # [B, 1, T]
            moment = 2 * F.avg_pool1d(frames * positions, *window) / share - (first + last) * mean
            moment = 2 * moment / (last - first).clamp(min=1)
            pooled = torch.cat([pooled, moment], dim=1)
        return self.audio_projection(pooled.transpose(1, 2))

    @can_return_tuple
    @auto_docstring(custom_intro="Embed captions: `pooler_output` `(batch_size, projection_dim)` are unit vectors.")
    def get_text_features(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPooling:
        outputs = encode_captions(self.text_model, input_ids, attention_mask, **kwargs)
        outputs.pooler_output = self.text_projection(self._pool_tokens(outputs.last_hidden_state, attention_mask))
        return outputs

    def _pool_tokens(self, tokens: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Take the [CLS] vector (section 6.3) or the mean over the caption's tokens: [B, L, H] to [B, H]."""
        # CODEPATH: the paper's models use "cls". Sentence encoders such as MiniLM were trained with "mean".
        if self.config.text_pooling == "cls":
            return tokens[:, 0]
        if attention_mask is None:
            return tokens.mean(dim=1)
        valid = attention_mask[:, :, None].to(tokens.dtype)
        return (tokens * valid).sum(dim=1) / valid.sum(dim=1)

    def similarity(self, audio_embeds: Tensor, text_embeds: Tensor) -> Tensor:
        """Divide cosine similarities by the temperature, in float32 at least: [A, D] and [C, D] to [A, C]."""
        scale: Tensor | float = 1 / self.config.temperature
        # CODEPATH: as in `_init_weights`. A learned temperature never falls below 0.01, as in CLIP.
        if self.config.learnable_temperature:
            scale = at_least_float32(self.logit_scale).exp().clamp(max=100)
        # In bfloat16 a temperature of 0.05 would leave a rounding error of 0.08 on a logit.
        with maybe_autocast(device_type=audio_embeds.device.type, enabled=False):
            return (at_least_float32(audio_embeds) @ at_least_float32(text_embeds).T) * scale

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        input_ids: Tensor | None = None,
        input_features: Tensor | None = None,
        attention_mask: Tensor | None = None,
        input_features_mask: Tensor | None = None,
        recording_ids: Tensor | None = None,
        return_loss: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | CNN10BertOutput:
        r"""
        input_ids (`torch.Tensor` of shape `(num_captions, num_tokens)`, *optional*):
            Tokens of the captions. With recordings or captions alone, the output holds only their embeddings.
        input_features (`torch.Tensor` of shape `(batch_size, num_frames, num_mel_bins)`, *optional*):
            Log-mel spectrograms in dB, from [`CNN10FeatureExtractor`].
        input_features_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*):
            1 on the frames of the clip, 0 on the padding after them.
        recording_ids (`torch.Tensor` of shape `(num_audios,)`, *optional*):
            The recording of audio i and of caption i. Rows of one recording are positives of each other.
        return_loss (`bool`, *optional*):
            Whether to return the contrastive loss, which needs one caption per audio.
        """
        if input_features is None or input_ids is None:
            return self._embed_one_modality(
                input_ids, input_features, attention_mask, input_features_mask, return_loss, **kwargs
            )
        audio_outputs = self.get_audio_features(input_features, input_features_mask, return_dict=True, **kwargs)
        text_outputs = self.get_text_features(input_ids, attention_mask, return_dict=True, **kwargs)
        logits_per_audio = self.similarity(audio_outputs.pooler_output, text_outputs.pooler_output)
        return CNN10BertOutput(
            loss=contrastive_loss(logits_per_audio, recording_ids) if return_loss else None,
            logits_per_audio=logits_per_audio,
            logits_per_text=logits_per_audio.T,
            audio_embeds=audio_outputs.pooler_output,
            text_embeds=text_outputs.pooler_output,
            audio_model_output=audio_outputs,
            text_model_output=text_outputs,
        )

    def _embed_one_modality(
        self, input_ids, input_features, attention_mask, input_features_mask, return_loss, **kwargs
    ) -> CNN10BertOutput:
        inputs = {"input_ids": input_ids, "input_features": input_features}
        given = [name for name, value in inputs.items() if value is not None]
        if return_loss or not given:
            expected = "input_ids and input_features for the loss" if return_loss else "input_ids or input_features"
            raise ValueError(f"Expected {expected}, found {' '.join(given) or 'neither'}.")
        if input_ids is None:
            outputs = self.get_audio_features(input_features, input_features_mask, return_dict=True, **kwargs)
            return CNN10BertOutput(audio_embeds=outputs.pooler_output, audio_model_output=outputs)
        outputs = self.get_text_features(input_ids, attention_mask, return_dict=True, **kwargs)
        return CNN10BertOutput(text_embeds=outputs.pooler_output, text_model_output=outputs)


def _load_tower(model_class: Any, source, **kwargs) -> PreTrainedModel:
    """Load a tower in float32 from a folder or Hub id, or make one of random weights from a configuration."""
    if not isinstance(source, (str, os.PathLike)):
        return model_class(source, **kwargs)
    # Not by AutoConfig, which would ask whether to trust the code of an audio checkpoint, though the class is here.
    found, expected = PreTrainedConfig.get_config_dict(source)[0].get("model_type"), model_class.config_class.model_type
    if found != expected:
        raise ValueError(f"{source} holds a model of type {found!r}, but this tower is a {expected!r}.")
    tower, loading = model_class.from_pretrained(source, dtype=torch.float32, output_loading_info=True, **kwargs)
    if missing := sorted(loading["missing_keys"]):  # they would be random
        raise ValueError(
            f"{source} lacks {len(missing)} weights of a {expected} ({', '.join(missing[:5])}, ...) and has "
            f"{len(loading['unexpected_keys'])} others ({', '.join(sorted(loading['unexpected_keys'])[:5])}, ...)."
        )
    return tower


# Here and not in the package, so that a model loaded with the code of a checkpoint is saved with it again.
CNN10Model.register_for_auto_class("AutoModel")
CNN10BertModel.register_for_auto_class("AutoModel")
CNN10ForAudioClassification.register_for_auto_class("AutoModelForAudioClassification")

__all__ = [
    "CNN10BertModel",
    "CNN10BertOutput",
    "CNN10BertPreTrainedModel",
    "CNN10ForAudioClassification",
    "CNN10Model",
    "CNN10PreTrainedModel",
    "contrastive_loss",
]
