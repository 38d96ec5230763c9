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

import torch
from torch import nn
from torch.nn import functional as F
from transformers import BertConfig, BertModel, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, auto_docstring, can_return_tuple
from transformers.utils.generic import is_flash_attention_requested, maybe_autocast
from transformers.utils.output_capturing import capture_outputs

from .configuration_cnn10bert import CNN10BertConfig, CNN10Config
from .cpu_kernels_cnn10bert import (
    NormaliseValidFrames,
    at_least_float32,
    by_channel,
    convolve_in_tiles,
    deal_into_rows,
    pays_in_tiles,
)

MAX_LOGIT_SCALE = 100.0  # a learned temperature never falls below 0.01, as in CLIP


def contrastive_loss(
    logits_per_audio: torch.Tensor,
    audio_recording_ids: torch.Tensor | None = None,
    text_recording_ids: torch.Tensor | None = None,
    positives: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    NT-Xent in both directions, averaged (section 3 of Primus & Widmer, 2022).

    Rows and columns of the same recording are positives, of which every row and column needs one. For each direction
    it is the mean over rows of the mean over the row's positives of `-log_softmax`. With distinct recordings this is
    the paper's loss exactly.

    Args:
        logits_per_audio (`torch.Tensor` of shape `(num_audios, num_captions)`):
            Cosine similarities divided by the temperature.
        audio_recording_ids (`torch.Tensor` of shape `(num_audios,)`, *optional*):
            Which recording each row is. Without ids, caption i belongs to audio i alone.
        text_recording_ids (`torch.Tensor` of shape `(num_captions,)`, *optional*):
            Which recording each column describes; by default as the rows.
        positives (`torch.Tensor` of shape `(num_audios, num_captions)`, *optional*):
            Which captions are positives of which audios, in place of the recording ids.

    Returns:
        `torch.Tensor` of shape `()`: the loss in float32, or in float64 for float64 logits.

    Raises:
        ValueError: recording ids that do not fit the logits.
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
    logits_per_audio = at_least_float32(logits_per_audio)
    positives = positives.to(logits_per_audio.dtype)

    def one_direction(logits: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
        log_probabilities = F.log_softmax(logits, dim=-1)
        return -((log_probabilities * positives).sum(dim=-1) / positives.sum(dim=-1)).mean()

    return (one_direction(logits_per_audio, positives) + one_direction(logits_per_audio.T, positives.T)) / 2


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
        L2-normalised embeddings of the recordings, float32.
    text_embeds (`torch.Tensor` of shape `(num_captions, projection_dim)`):
        L2-normalised embeddings of the captions, float32.
    audio_model_output (`BaseModelOutputWithPooling`):
        Output of the audio network.
    text_model_output (`BaseModelOutputWithPooling`):
        Output of the text network.
    """

    loss: torch.FloatTensor | None = None
    logits_per_audio: torch.FloatTensor | None = None
    logits_per_text: torch.FloatTensor | None = None
    audio_embeds: torch.FloatTensor | None = None
    text_embeds: torch.FloatTensor | None = None
    audio_model_output: BaseModelOutputWithPooling | None = None
    text_model_output: BaseModelOutputWithPooling | None = None

    def to_tuple(self) -> tuple:
        return tuple(value.to_tuple() if isinstance(value, ModelOutput) else value for value in self.values())


class CNN10BatchNorm(nn.BatchNorm2d):
    """
    Batch normalisation whose training statistics count the valid frames only.

    In training it returns the statistics of the batch beside the result, and leaves it to the caller to take them into
    the running ones. So a layer that gradient checkpointing runs twice still counts its batch once.
    """

    def forward(
        self, hidden_states: torch.Tensor, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]:
        """`hidden_states` [B, C, T, F] and `mask` [B, 1, T, 1], 1 on valid frames; in training the others become 0."""
        if not self.training:
            output = F.batch_norm(
                hidden_states, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
            return output, None
        if mask is None:
            mean, variance = torch.zeros_like(self.running_mean), torch.ones_like(self.running_var)
            # With a momentum of 1 the "running" statistics are those of this batch.
            output = F.batch_norm(hidden_states, mean, variance, self.weight, self.bias, True, 1.0, self.eps)
            return output, (mean, variance)
        return self._forward_masked(hidden_states, mask)

    def _forward_masked(self, hidden_states, mask):
        # CODEPATH: what `NormaliseValidFrames` spares by hand, a compiler spares by itself.
        if not torch.compiler.is_compiling():
            output, mean, variance = NormaliseValidFrames.apply(hidden_states, mask, self.weight, self.bias, self.eps)
        else:
            values = at_least_float32(hidden_states)
            valid = mask.to(values.dtype)
            count = valid.sum() * hidden_states.shape[-1]
            mean = (values * valid).sum(dim=(0, 2, 3)) / count
            centred = values - by_channel(mean)
            variance = (centred.square() * valid).sum(dim=(0, 2, 3)) / count
            scale = torch.rsqrt(variance + self.eps) * self.weight.to(values.dtype)
            output = (centred * by_channel(scale) + by_channel(self.bias.to(values.dtype))) * valid
            output = output.to(hidden_states.dtype)
        # Like PyTorch, normalise by the biased variance and track the unbiased one.
        count = mask.sum() * hidden_states.shape[-1]
        unbiased = variance.detach() * count / (count - 1).clamp(min=1)
        return output, (mean.detach(), unbiased)

    def scale_and_shift(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What evaluation multiplies each channel by and then adds to it: [C] each, in float32 at least."""
        scale = at_least_float32(self.weight) * torch.rsqrt(at_least_float32(self.running_var) + self.eps)
        return scale, at_least_float32(self.bias) - at_least_float32(self.running_mean) * scale

    @torch.no_grad()
    def update_running_statistics(self, statistics: tuple[torch.Tensor, torch.Tensor] | None) -> None:
        """Takes the mean and variance [C] of a training batch into the running ones, `None` changes nothing."""
        if statistics is not None:
            mean, variance = statistics
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)
            self.num_batches_tracked.add_(1)


class CNN10Block(GradientCheckpointingLayer):
    """Two 3x3 convolutions, each with batch normalisation and ReLU, then 2x2 average pooling (table 2 of the paper)."""

    def __init__(self, config: CNN10Config, block_index: int):
        super().__init__()
        in_channels = config.hidden_sizes[block_index - 1] if block_index > 0 else 1
        out_channels = config.hidden_sizes[block_index]
        norm = {"eps": config.batch_norm_eps, "momentum": config.batch_norm_momentum}
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.norm1 = CNN10BatchNorm(out_channels, **norm)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.norm2 = CNN10BatchNorm(out_channels, **norm)
        self.dropout = nn.Dropout(config.block_dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        mask: torch.Tensor | None = None,
        pooled_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, tuple]:
        """[B, C_in, T, F] to [B, C_out, T // 2, F // 2] and the batch statistics of both normalisations.

        `mask` [B, 1, T, 1] and `pooled_mask` [B, 1, T // 2, 1] are 1 on valid frames; without them all are.
        """
        hidden_states, statistics1 = _convolve(self.conv1, self.norm1, hidden_states, mask)
        # In training, the normalisation leaves zeros in the padding.
        hidden_states = _zero_padding(F.relu_(hidden_states), None if self.norm1.training else mask)
        hidden_states, statistics2 = _convolve(self.conv2, self.norm2, hidden_states, mask)
        # A pooled frame is valid where both of its frames are, so zeroing before the pooling too would change nothing.
        hidden_states = _zero_padding(F.avg_pool2d(F.relu_(hidden_states), kernel_size=2), pooled_mask)
        return self.dropout(hidden_states), (statistics1, statistics2)

    def update_running_statistics(self, statistics: tuple) -> None:
        """Takes the statistics that `forward` returned into both normalisations."""
        self.norm1.update_running_statistics(statistics[0])
        self.norm2.update_running_statistics(statistics[1])


def _convolve(
    conv: nn.Conv2d, norm: CNN10BatchNorm, hidden_states: torch.Tensor, mask: torch.Tensor | None
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]:
    """A convolution and its normalisation, which in evaluation is one: its weights are scaled, not its output."""
    # An exported network keeps both: whoever runs it joins them, and quantisation looks for plain weights.
    if norm.training or torch.compiler.is_compiling():
        return norm(conv(hidden_states), mask)
    scale, shift = norm.scale_and_shift()
    dtype = conv.weight.dtype
    weight = (conv.weight * scale.view(-1, 1, 1, 1)).to(dtype, memory_format=torch.preserve_format)
    if pays_in_tiles(hidden_states, weight):
        return convolve_in_tiles(hidden_states, weight, shift), None
    return F.conv2d(hidden_states, weight, shift.to(dtype), padding=conv.padding), None


def _zero_padding(hidden_states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Zeroes the frames behind the end of each clip: to a convolution they then are what its own zero padding is."""
    return hidden_states if mask is None else hidden_states * mask.to(hidden_states.dtype)


def _network_dtype(model: PreTrainedModel) -> torch.dtype:
    """The precision in which a model is saved and comes back; its input normalisation, its first, stays in float32."""
    parameters = (value for name, value in model.named_parameters() if "input_norm." not in name)
    return next(value.dtype for value in parameters if value.is_floating_point())


@auto_docstring(custom_intro="Weight initialisation and loading of the CNN10 models.")
class CNN10PreTrainedModel(PreTrainedModel):
    config: CNN10Config
    config_class = CNN10Config
    base_model_prefix = "cnn10"
    main_input_name = "input_features"
    input_modalities = ("audio",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["CNN10Block"]
    _can_record_outputs = {"hidden_states": CNN10Block}
    # It has no attention; in a retrieval model it is handed the text network's choice.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # Of a retrieval model, whose audio network is taken alone; `from_pretrained` finds it.
    _keys_to_ignore_on_load_unexpected = [r"^(text_model|text_projection|audio_projection)\.", r"^logit_scale$"]
    # Its input are decibels down to -100, which bfloat16 would round to half a decibel.
    _keep_in_fp32_modules_strict = ["input_norm"]

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the network; that of the input normalisation says nothing, see `_network_dtype`."""
        return _network_dtype(self)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, **kwargs):
        """As every model's; of a retrieval model, [`CNN10BertModel`], it takes the audio network, without its head."""
        if pretrained_model_name_or_path is None or "key_mapping" in kwargs or kwargs.get("state_dict") is not None:
            return super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        of_the_hub = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
        source = {name: kwargs[name] for name in of_the_hub if name in kwargs}
        try:
            found = PreTrainedConfig.get_config_dict(pretrained_model_name_or_path, **source)[0]
        except OSError:  # the base class says what is wrong, or was given a configuration
            found = {}
        if "audio_config" not in found:
            return super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        kwargs["key_mapping"] = {r"^audio_model\.": "cnn10." if cls is not CNN10Model else ""}
        loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model._weight_conversions = None  # else it would be saved under the names that it had in the retrieval model
        return loaded

    @torch.no_grad()
    def _init_weights(self, module):
        """Xavier-uniform weights and zero biases, as PANNs; the base class does the normalisations."""
        super()._init_weights(module)
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            init.xavier_uniform_(module.weight)


@auto_docstring(
    custom_intro="""
    The audio network of Primus & Widmer (2022): log-mel in, one embedding a clip out.

    A clip's embedding is the same alone, in any batch and at any padding: padded frames are zeroed after the input
    normalisation and after every convolution, normalisation and pooling, and never counted.
    """
)
class CNN10Model(CNN10PreTrainedModel):
    def __init__(self, config: CNN10Config):
        super().__init__(config)
        self.input_norm = CNN10BatchNorm(
            config.num_mel_bins,
            eps=config.batch_norm_eps,
            momentum=config.batch_norm_momentum,
            dtype=torch.promote_types(torch.get_default_dtype(), torch.float32),  # `from_config` sets the default
        )
        self.blocks = nn.ModuleList([CNN10Block(config, index) for index in range(len(config.hidden_sizes))])
        self.post_init()

    @capture_outputs(tie_last_hidden_states=False)
    @auto_docstring
    def forward(
        self,
        input_features: torch.Tensor,
        input_features_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPooling:
        r"""
        input_features (`torch.Tensor` of shape `(batch_size, num_frames, num_mel_bins)`):
            Log-mel spectrograms in dB, from [`CNN10FeatureExtractor`].
        input_features_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*):
            1 on the frames of the clip, 0 on padding behind them. Without it every frame is valid.

        Returns:
            [`BaseModelOutputWithPooling`]: `last_hidden_state` `(batch_size, num_frames // 16, hidden_size)` is the
            mean over frequency of the last block, `pooler_output` `(batch_size, hidden_size)` its pooling over time,
            `hidden_states` the input and the output of the blocks, `(batch_size, channels, frames, mel bins)`.

        Raises:
            ValueError: another number of mel bins than the configuration's, too few frames, or a mask that does not
                fit.

        Example:

        ```python
        >>> import numpy as np
        >>> from modeling_cnn10bert import CNN10Config, CNN10FeatureExtractor, CNN10Model

        >>> inputs = CNN10FeatureExtractor()(np.zeros(32_000), sampling_rate=32_000, return_tensors="pt")
        >>> CNN10Model(CNN10Config()).eval()(**inputs).pooler_output.shape
        torch.Size([1, 512])
        ```"""
        self._check_shapes(input_features, input_features_mask)
        masks = self._masks(input_features, input_features_mask)

        hidden_states = self._normalise_input(input_features, masks[0])
        for block, mask, pooled_mask in zip(self.blocks, masks[:-1], masks[1:], strict=True):
            hidden_states, statistics = block(hidden_states, mask, pooled_mask)
            block.update_running_statistics(statistics)

        frames = hidden_states.mean(dim=3).transpose(1, 2)  # [B, T // 16, C]
        return BaseModelOutputWithPooling(
            last_hidden_state=frames,
            pooler_output=self._pool_over_time(frames, masks[-1]),
        )

    def _check_shapes(self, input_features: torch.Tensor, mask: torch.Tensor | None) -> None:
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
                f"input_features_mask must be {tuple(input_features.shape[:2])} as input_features is "
                f"{tuple(input_features.shape)}, found {tuple(mask.shape)}. Pass the mask of the same call of the "
                "feature extractor."
            )

    def _masks(self, input_features: torch.Tensor, mask: torch.Tensor | None) -> list[torch.Tensor | None]:
        """A mask [B, 1, T, 1] for the input and for the output of each block; `None` where nothing is padded."""
        if mask is not None and mask.device.type == "cpu" and not torch.compiler.is_compiling() and bool(mask.all()):
            mask = None  # elsewhere, looking at the mask would make the device wait
        if mask is None:
            return [None] * (len(self.blocks) + 1)
        lengths, num_frames, masks = mask.sum(dim=1), input_features.shape[1], []
        for _ in range(len(self.blocks) + 1):
            positions = torch.arange(num_frames, device=mask.device)
            masks.append((positions < lengths[:, None])[:, None, :, None])
            num_frames, lengths = num_frames // 2, (lengths // 2).clamp(min=1)
        return masks

    def _normalise_input(self, input_features: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Batch normalisation of each mel bin (section 6.1): [B, T, F] to [B, 1, T, F] in the network's precision."""
        bins = input_features.to(self.input_norm.weight.dtype).transpose(1, 2).unsqueeze(3)  # [B, F, T, 1]
        bins, statistics = self.input_norm(bins, mask)
        self.input_norm.update_running_statistics(statistics)
        hidden_states = _zero_padding(bins, mask).permute(0, 3, 2, 1)
        return hidden_states.to(self.blocks[0].conv1.weight.dtype)

    def _pool_over_time(self, frames: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Mean and maximum over the valid frames, averaged (the paper) or summed (PANNs): [B, T, C] to [B, C]."""
        if mask is None:
            mean, maximum = frames.mean(dim=1), frames.amax(dim=1)
        else:
            valid = mask[:, 0]  # [B, T, 1]
            mean = (frames * valid).sum(dim=1) / valid.sum(dim=1)
            maximum = frames.masked_fill(~valid, torch.finfo(frames.dtype).min).amax(dim=1)
        # CODEPATH: the paper's models average, checkpoints converted from PANNs sum.
        return (mean + maximum) / 2 if self.config.time_pooling == "average" else mean + maximum


@auto_docstring(custom_intro="CNN10 with PANNs' tagging head: dropout, linear, ReLU, dropout, linear.")
class CNN10ForAudioClassification(CNN10PreTrainedModel):
    def __init__(self, config: CNN10Config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.cnn10 = CNN10Model(config)
        self.dropout = nn.Dropout(config.head_dropout)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        input_features: torch.Tensor,
        input_features_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | SequenceClassifierOutput:
        r"""
        input_features (`torch.Tensor` of shape `(batch_size, num_frames, num_mel_bins)`):
            Log-mel spectrograms in dB, from [`CNN10FeatureExtractor`].
        input_features_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*):
            1 on the frames of the clip, 0 on padding behind them.
        labels (`torch.Tensor`, *optional*):
            Class indices `(batch_size,)` for `config.problem_type="single_label_classification"`, or 0 and 1
            `(batch_size, num_labels)` for `"multi_label_classification"` (binary cross-entropy).

        Returns:
            [`SequenceClassifierOutput`] with `logits` `(batch_size, num_labels)`.
        """
        outputs = self.cnn10(input_features, input_features_mask, return_dict=True, **kwargs)
        hidden_states = F.relu(self.dense(self.dropout(outputs.pooler_output)))
        logits = self.classifier(self.dropout(hidden_states))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels, logits, self.config, **kwargs)
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)


class CNN10BertProjection(nn.Module):
    """Projection head of a tower: linear, ReLU, linear (sections 6.2 and 6.3 of the paper)."""

    def __init__(self, config: CNN10BertConfig, tower_config: PreTrainedConfig):
        super().__init__()
        self.dense = nn.Linear(tower_config.hidden_size, config.projection_hidden_size)
        self.out = nn.Linear(config.projection_hidden_size, config.projection_dim)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """[B, hidden_size] to [B, projection_dim], normalised in float32 where the network runs in less."""
        projected = self.out(F.relu(self.dense(pooled)))
        return F.normalize(at_least_float32(projected), dim=-1)


@auto_docstring(custom_intro="Weight initialisation and loading of the retrieval model.")
class CNN10BertPreTrainedModel(PreTrainedModel):
    config: CNN10BertConfig
    config_class = CNN10BertConfig
    base_model_prefix = "cnn10bert"
    main_input_name = "input_features"
    input_modalities = ("audio", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["CNN10Block"]

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the network; that of the input normalisation says nothing, see `_network_dtype`."""
        return _network_dtype(self)

    @torch.no_grad()
    def _init_weights(self, module):
        """The projection heads start as PyTorch's linear layers do, the temperature as configured."""
        super()._init_weights(module)
        # The towers initialise their own layers, so these are the heads'. Matching `CNN10BertProjection` would not do:
        # of models outside its source tree, transformers visits only the modules that hold parameters themselves.
        if isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            init.uniform_(module.weight, -bound, bound)
            init.uniform_(module.bias, -bound, bound)
        # CODEPATH: the default recipe fixes the temperature; models with a learned one hold it as a parameter.
        elif isinstance(module, CNN10BertModel) and self.config.learnable_temperature:
            init.constant_(module.logit_scale, math.log(1 / self.config.temperature))


@auto_docstring(
    custom_intro="""
    The retrieval system of Primus & Widmer (2022): recordings and captions in one embedding space.

    A tower, or a layer of the text network, without trainable parameters stays in evaluation mode while the rest
    trains, so that freezing one freezes its dropout and its running statistics too.
    """
)
class CNN10BertModel(CNN10BertPreTrainedModel):
    def __init__(self, config: CNN10BertConfig):
        super().__init__(config)
        self.audio_model = CNN10Model(config.audio_config)
        self.audio_projection = CNN10BertProjection(config, config.audio_config)
        self.text_model = BertModel(config.text_config, add_pooling_layer=False)
        self.text_projection = CNN10BertProjection(config, config.text_config)
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
        Joins two pretrained towers under fresh projection heads (sections 6.2 and 6.3 of the paper).

        Args:
            audio_model (`str`, `os.PathLike` or [`CNN10Config`]):
                Folder or Hub id of a [`CNN10Model`] or [`CNN10ForAudioClassification`], of which the network below
                the head is taken; a configuration starts it from random weights.
            text_model (`str`, `os.PathLike` or [`BertConfig`]):
                Folder or Hub id of a BERT; a configuration starts it from random weights.
            audio_fields (`dict`, *optional*):
                Fields of [`CNN10Config`] in which the audio tower differs from its checkpoint, such as
                `{"time_pooling": "average"}` for one of PANNs, which sums.
            config_fields:
                Fields of [`CNN10BertConfig`], such as `text_pooling="mean"`.

        Returns:
            [`CNN10BertModel`] in float32, in evaluation mode like everything that is loaded.

        Raises:
            ValueError: a checkpoint of another type of model, or one that lacks weights of the tower.
        """
        audio = _load_tower(CNN10Model, audio_model, **(audio_fields or {}))
        text = _load_tower(BertModel, text_model, add_pooling_layer=False)
        config = CNN10BertConfig(
            audio_config=_architecture(audio.config), text_config=_architecture(text.config), **config_fields
        )
        model = cls(config)
        model.audio_model.load_state_dict(audio.state_dict())
        model.text_model.load_state_dict(text.state_dict())
        return model.eval()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_model.set_input_embeddings(value)

    def train(self, mode: bool = True):
        super().train(mode)
        text = self.text_model
        for part in (self.audio_model, text, text.embeddings, *text.encoder.layer):
            if not any(parameter.requires_grad for parameter in part.parameters()):
                part.eval()
        return self

    def freeze_audio_tower(self) -> None:
        """Freezes the audio network; its projection head keeps learning."""
        self.audio_model.requires_grad_(False).eval()

    def freeze_text_tower(self) -> None:
        """Freezes the text network; its projection head keeps learning."""
        self.text_model.requires_grad_(False).eval()

    def freeze_text_layers(self, num_layers: int) -> None:
        """Freezes the embeddings and the first `num_layers` layers of the text network, their dropout too.

        Raises:
            ValueError: the text network has fewer layers.
        """
        layers = self.text_model.encoder.layer
        if not 0 <= num_layers <= len(layers):
            raise ValueError(f"the text network has {len(layers)} layers, found {num_layers} to freeze")
        for part in (self.text_model.embeddings, *layers[:num_layers]):
            part.requires_grad_(False).eval()

    @can_return_tuple
    @auto_docstring(custom_intro="Embeds recordings.")
    def get_audio_features(
        self,
        input_features: torch.Tensor,
        input_features_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPooling:
        r"""
        input_features (`torch.Tensor` of shape `(batch_size, num_frames, num_mel_bins)`):
            Log-mel spectrograms in dB.
        input_features_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*):
            1 on the frames of the clip, 0 on padding behind them.

        Returns:
            [`BaseModelOutputWithPooling`]: `pooler_output` `(batch_size, projection_dim)` is the L2-normalised
            embedding, float32.
        """
        outputs = self.audio_model(input_features, input_features_mask, return_dict=True, **kwargs)
        outputs.pooler_output = self.audio_projection(outputs.pooler_output)
        return outputs

    @can_return_tuple
    @auto_docstring(custom_intro="Embeds captions.")
    def get_text_features(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPooling:
        r"""
        input_ids (`torch.Tensor` of shape `(batch_size, sequence_length)`):
            Tokens of the captions.
        attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
            1 on tokens, 0 on padding.

        Returns:
            [`BaseModelOutputWithPooling`]: `pooler_output` `(batch_size, projection_dim)` is the L2-normalised
            embedding, float32.
        """
        outputs = self._run_text_model(input_ids, attention_mask, **kwargs)
        pooled = self._pool_tokens(outputs.last_hidden_state, attention_mask)
        outputs.pooler_output = self.text_projection(pooled)
        return outputs

    def _run_text_model(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, **kwargs
    ) -> BaseModelOutputWithPooling:
        """
        The text network's output. On a CPU, rows of several captions without padding go through it.

        Padding costs a CPU as much as words, and nearly half of a batch of captions is padding. Elsewhere looking at
        the lengths would make the device wait.
        """
        config = self.text_model.config
        plain = attention_mask is None or input_ids.device.type != "cpu" or torch.compiler.is_compiling()
        plain = plain or is_flash_attention_requested(config)  # takes no mask that says which tokens are strangers
        if plain or kwargs or config.output_hidden_states or config.output_attentions or bool(attention_mask.all()):
            return self.text_model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **kwargs)
        caption, position = attention_mask.nonzero(as_tuple=True)  # of every token, [N]
        row, column = deal_into_rows(caption.bincount(minlength=len(input_ids)), caption)
        rows, columns = int(row.amax()) + 1, int(column.amax()) + 1
        place = row * columns + column

        def in_rows(values: torch.Tensor, filling: int) -> torch.Tensor:
            return values.new_full((rows * columns,), filling).index_copy(0, place, values).view(rows, columns)

        owner = in_rows(caption, -1)
        strangers = owner[:, None, :, None] != owner[:, None, None, :]  # a token attends to those of its caption alone
        mask = torch.zeros(strangers.shape, dtype=self.text_model.dtype)
        outputs = self.text_model(
            input_ids=in_rows(input_ids[caption, position], 0),
            attention_mask=mask.masked_fill(strangers, torch.finfo(mask.dtype).min),
            position_ids=in_rows(position, 0),
            return_dict=True,
        )
        tokens = outputs.last_hidden_state.flatten(0, 1).index_select(0, place)  # [N, H]
        hidden_states = tokens.new_zeros(input_ids.numel(), tokens.shape[1])
        hidden_states = hidden_states.index_copy(0, caption * input_ids.shape[1] + position, tokens)
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states.view(*input_ids.shape, -1))

    def _pool_tokens(self, tokens: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """The [CLS] vector (section 6.3), or the mean over the caption's tokens: [B, L, H] to [B, H]."""
        # CODEPATH: "cls" is the paper's, "mean" suits sentence encoders such as MiniLM, trained with it.
        if self.config.text_pooling == "cls":
            return tokens[:, 0]
        if attention_mask is None:
            return tokens.mean(dim=1)
        valid = attention_mask[:, :, None].to(tokens.dtype)
        return (tokens * valid).sum(dim=1) / valid.sum(dim=1)

    def similarity(self, audio_embeds: torch.Tensor, text_embeds: torch.Tensor) -> torch.Tensor:
        """Cosine similarities divided by the temperature, in float32 at least: [A, D] and [C, D] to [A, C]."""
        # CODEPATH: as in `_init_weights`.
        if self.config.learnable_temperature:
            scale = at_least_float32(self.logit_scale).exp().clamp(max=MAX_LOGIT_SCALE)
        else:
            scale = 1 / self.config.temperature
        # In bfloat16 a temperature of 0.05 would leave a rounding error of 0.08 on a logit.
        with maybe_autocast(device_type=audio_embeds.device.type, enabled=False):
            return (at_least_float32(audio_embeds) @ at_least_float32(text_embeds).T) * scale

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        input_ids: torch.Tensor,
        input_features: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        recording_ids: torch.Tensor | None = None,
        return_loss: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | CNN10BertOutput:
        r"""
        input_ids (`torch.Tensor` of shape `(num_captions, sequence_length)`):
            Tokens of the captions.
        input_features (`torch.Tensor` of shape `(num_audios, num_frames, num_mel_bins)`):
            Log-mel spectrograms in dB.
        attention_mask (`torch.Tensor` of shape `(num_captions, sequence_length)`, *optional*):
            1 on tokens, 0 on padding.
        input_features_mask (`torch.Tensor` of shape `(num_audios, num_frames)`, *optional*):
            1 on the frames of the clip, 0 on padding behind them.
        recording_ids (`torch.Tensor` of shape `(num_audios,)`, *optional*):
            Which recording row i, audio and caption, is of; rows of one recording are positives of each other.
        return_loss (`bool`, *optional*):
            Whether to return the contrastive loss, for which there must be a caption to every audio.

        Returns:
            [`CNN10BertOutput`].

        Example:

        ```python
        >>> import numpy as np
        >>> from transformers import AutoModel, AutoProcessor

        >>> model = AutoModel.from_pretrained("runs/demo", trust_remote_code=True)
        >>> processor = AutoProcessor.from_pretrained("runs/demo", trust_remote_code=True)
        >>> audio = np.zeros(32_000)
        >>> inputs = processor(
        ...     text=["a siren wails", "a bell rings"], audio=audio, sampling_rate=32_000, return_tensors="pt"
        ... )
        >>> model(**inputs).logits_per_audio.shape
        torch.Size([1, 2])
        ```"""
        audio_outputs = self.get_audio_features(input_features, input_features_mask, return_dict=True, **kwargs)
        text_outputs = self.get_text_features(input_ids, attention_mask, return_dict=True, **kwargs)
        audio_embeds, text_embeds = audio_outputs.pooler_output, text_outputs.pooler_output
        logits_per_audio = self.similarity(audio_embeds, text_embeds)
        return CNN10BertOutput(
            loss=contrastive_loss(logits_per_audio, recording_ids) if return_loss else None,
            logits_per_audio=logits_per_audio,
            logits_per_text=logits_per_audio.T,
            audio_embeds=audio_embeds,
            text_embeds=text_embeds,
            audio_model_output=audio_outputs,
            text_model_output=text_outputs,
        )


def _load_tower(model_class: type[PreTrainedModel], source, **kwargs) -> PreTrainedModel:
    """A tower in float32: pretrained from a folder or Hub id, or of random weights from a configuration."""
    if not isinstance(source, (str, os.PathLike)):
        return model_class(source, **kwargs)
    # Not by AutoConfig, which would ask whether to trust the code of an audio checkpoint: the classes are here.
    found, expected = PreTrainedConfig.get_config_dict(source)[0].get("model_type"), model_class.config_class.model_type
    if found != expected:
        raise ValueError(f"{source} holds a model of type {found!r}, but this tower is a {expected!r}.")
    tower, loading = model_class.from_pretrained(source, dtype=torch.float32, output_loading_info=True, **kwargs)
    if missing := sorted(loading["missing_keys"]):  # else they would silently be random
        raise ValueError(
            f"{source} lacks {len(missing)} weights of a {expected} ({', '.join(missing[:5])}, ...) and has "
            f"{len(loading['unexpected_keys'])} others ({', '.join(sorted(loading['unexpected_keys'])[:5])}, ...)."
        )
    return tower


def _architecture(config: PreTrainedConfig) -> dict:
    """The fields that describe the network, without those that describe the checkpoint it came from."""
    of_the_checkpoint = {"architectures", "auto_map", "dtype", "id2label", "label2id", "problem_type", "_name_or_path"}
    return {name: value for name, value in config.to_dict().items() if name not in of_the_checkpoint}


# Here and not in the package, so that what is saved where this file came with a checkpoint carries it on.
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
