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
"""Faster equivalents of functions in modeling_cnn10bert.py, for a CPU.

The model is written with plain functions. `faster_on_cpu` first tries the kernel of this file that is named after the
function. A kernel has the same signature and gives the same values and gradients up to rounding. Where it does not
apply, such as on an accelerator, it returns `NotImplemented`, and the plain function runs. It does not apply either to
modules with hooks or that a library has replaced, for example by an adapter or an offloaded layer: these are called.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_enabled = True


def use_cpu_kernels(enabled: bool) -> None:
    """Switch the kernels on (the default) or off. When off, every model of this process runs the plain functions.

    A checkpoint that was loaded with `trust_remote_code=True` has its own copy of this file, and of the switch.
    """
    global _enabled
    _enabled = enabled


def faster_on_cpu(plain: Callable) -> Callable:
    """Decorate `plain` to try the kernel `plain_on_cpu` first. Compiled and exported graphs contain `plain` alone."""
    kernel = globals()[f"{plain.__name__}_on_cpu"]

    @functools.wraps(plain)
    def call(*args, **kwargs):
        if not _enabled or torch.compiler.is_compiling():
            return plain(*args, **kwargs)
        result = kernel(*args, **kwargs)
        return plain(*args, **kwargs) if result is NotImplemented else result

    return call


def has_hooks(module: nn.Module) -> bool:
    """Tell whether calling `module` does more than its class's `forward`, because of hooks or a replaced method."""
    hooks = (module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks)
    return any(hooks) or "forward" in vars(module)


# --------------------------------------------------------------------------------------------------------- padding


def block_masks_on_cpu(mask: Tensor | None, num_blocks: int) -> list[None]:
    """Return no masks where nothing is padded. On an accelerator, looking at the mask would make the device wait."""
    if mask is None or mask.device.type != "cpu" or not bool(mask.all()):
        return NotImplemented
    return [None] * (num_blocks + 1)


# --------------------------------------------------------------------------------------------- batch normalization


def masked_batch_norm_on_cpu(
    hidden_states: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize the valid frames of [B, C, T, F] with fewer passes over memory than autograd makes."""
    if hidden_states.device.type != "cpu":
        return NotImplemented
    if mask is not None:
        return _MaskedBatchNorm.apply(hidden_states, mask, weight, bias, eps)
    mean, variance = torch.zeros_like(weight), torch.ones_like(weight)
    # With a momentum of 1, the running statistics are those of this batch.
    output = F.batch_norm(hidden_states, mean, variance, weight, bias, training=True, momentum=1.0, eps=eps)
    return output, mean.detach(), variance.detach()


class _MaskedBatchNorm(torch.autograd.Function):
    """Batch normalization of valid frames with its gradient by hand."""

    @staticmethod
    def forward(ctx, hidden_states, mask, weight, bias, eps):
        dtype = torch.promote_types(weight.dtype, torch.float32)
        valid = mask.to(hidden_states.dtype)
        count = mask.sum(dtype=dtype) * hidden_states.shape[3]
        centered = hidden_states * valid
        mean = centered.sum(dim=(0, 2, 3), dtype=dtype) / count
        centered.addcmul_(valid, -mean.to(valid.dtype)[:, None, None])
        variance = centered.square().sum(dim=(0, 2, 3), dtype=dtype) / count
        scale = torch.rsqrt(variance + eps) * weight
        output = centered * scale.to(valid.dtype)[:, None, None]
        output.addcmul_(valid, bias.to(valid.dtype)[:, None, None])
        ctx.save_for_backward(centered, valid, count, weight, variance)
        ctx.eps = eps
        unbiased = variance * count / (count - 1).clamp(min=1)
        ctx.mark_non_differentiable(mean, unbiased)
        return output, mean, unbiased

    @staticmethod
    def backward(ctx, gradient, *_):
        centered, valid, count, weight, variance = ctx.saved_tensors
        weights, no_mean = weight.to(variance.dtype), torch.zeros_like(variance)
        # The gradient as if the statistics were constants, then what the statistics add on the valid frames.
        result, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient * valid, centered, weights, no_mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        inverse = torch.rsqrt(variance + ctx.eps)
        by_value = -weights * inverse.square() * of_weight / count
        constant = -weights * inverse * of_bias / count
        result.addcmul_(centered, by_value.to(valid.dtype)[:, None, None])
        result.addcmul_(valid, constant.to(valid.dtype)[:, None, None])
        return result, None, of_weight.to(weight.dtype), of_bias.to(weight.dtype), None


# ----------------------------------------------------------------------------------------------------- convolution

# F(4x4, 3x3) for the points 0, 1, -1, 2, -2 and infinity (Lavin & Gray, 2016), and when it is used.
MIN_CHANNELS = 64 * 128  # channels in times channels out: below, memory takes the time and not arithmetic
MIN_CELLS = 512  # frames times bins of a batch: below, transforming the weights takes longer
CHUNK_VALUES = 32_768  # tiles times channels of a chunk, which then stays in a core's cache
_INPUT = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0]]
_INPUT += [[0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]
_WEIGHTS = [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]
_OUTPUT = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


def conv_norm_relu_on_cpu(conv: nn.Conv2d, norm: nn.BatchNorm2d, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
    """Convolve in evaluation mode with weights that the normalization has scaled, instead of scaling the output."""
    if norm.training or hidden_states.device.type != "cpu":
        return NotImplemented
    if type(conv) is not nn.Conv2d or has_hooks(conv) or has_hooks(norm):
        return NotImplemented
    dtype = torch.promote_types(norm.weight.dtype, torch.float32)
    mean, variance = norm.get_buffer("running_mean").to(dtype), norm.get_buffer("running_var").to(dtype)
    scale = norm.weight.to(dtype) * torch.rsqrt(variance + norm.eps)
    shift = norm.bias.to(dtype) - mean * scale
    weight = (conv.weight * scale[:, None, None, None]).to(conv.weight.dtype, memory_format=torch.preserve_format)
    if _tiles_are_faster(hidden_states, weight):
        hidden_states = conv3x3_in_tiles(hidden_states, weight, shift)
    else:
        hidden_states = F.conv2d(hidden_states, weight, shift.to(weight.dtype), padding=conv.padding)
    hidden_states = F.relu_(hidden_states)
    return hidden_states if mask is None else hidden_states * mask.to(hidden_states.dtype)


def _tiles_are_faster(hidden_states: Tensor, weight: Tensor) -> bool:
    if not hidden_states.dtype == weight.dtype == torch.float32:
        return False
    if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return False
    return weight.shape[0] * weight.shape[1] >= MIN_CHANNELS and hidden_states[:, 0].numel() >= MIN_CELLS


def conv3x3_in_tiles(hidden_states: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """
    Convolve with a padding of 1 by Winograd's F(4x4, 3x3), which needs a quarter of the products (Lavin & Gray, 2016).

    A tile of 6x6 cells becomes 36 sums, each is multiplied by one of 36 sums of the weights, and sums of the products
    are 4x4 cells of the result.

    Args:
        hidden_states: [B, C, T, F] float32.
        weight: [O, C, 3, 3].
        bias: [O].

    Returns:
        [B, O, T, F].
    """
    batch_size, channels_in, frames, bins = hidden_states.shape
    channels = weight.shape[0]
    rows, columns = -(-frames // 4), -(-bins // 4)  # of tiles
    of_input, of_weights, of_output = (_both_axes(matrix) for matrix in (_INPUT, _WEIGHTS, _OUTPUT))
    weights = (of_weights / 576) @ weight.permute(2, 3, 1, 0).reshape(9, -1)
    weights = weights.view(36, channels_in, channels)
    cells = F.pad(hidden_states.permute(0, 2, 3, 1), (0, 0, 1, 4 * columns + 1 - bins, 1, 4 * rows + 1 - frames))
    clip_stride, frame_stride, bin_stride, channel_stride = cells.stride()
    tiles = cells.as_strided(
        (batch_size, 6, 6, rows, columns, channels_in),
        (clip_stride, frame_stride, bin_stride, 4 * frame_stride, 4 * bin_stride, channel_stride),
    )
    output = hidden_states.new_empty(batch_size, rows, 4, columns, 4, channels)
    chunk_rows = max(1, CHUNK_VALUES // (columns * max(channels_in, channels)))
    for clip_tiles, clip_output in zip(tiles, output.permute(0, 2, 4, 1, 3, 5), strict=True):
        for first in range(0, rows, chunk_rows):
            chunk = clip_tiles[:, :, first : first + chunk_rows].reshape(36, -1)
            products = (of_input @ chunk).view(36, -1, channels_in) @ weights
            sums = (of_output @ products.view(36, -1)).view(4, 4, -1, columns, channels)
            torch.add(sums, bias, out=clip_output[:, :, first : first + chunk_rows])
    output = output.view(batch_size, 4 * rows, 4 * columns, channels)[:, :frames, :bins]
    return output.permute(0, 3, 1, 2)


def _both_axes(matrix: list[list[int]]) -> Tensor:
    """Make the transformation of a flattened tile that applies `matrix` to its rows and to its columns."""
    factor = torch.tensor(matrix, dtype=torch.float32, device="cpu")
    return torch.kron(factor, factor)


# -------------------------------------------------------------------------------------------------------- captions

ROW_TOKENS = 48  # about four captions


def encode_captions_on_cpu(text_model: Any, input_ids: Tensor, attention_mask: Tensor | None, **kwargs):
    """Run the text network on rows that hold several captions, as padding costs a CPU as much as words do.

    The vectors of padding are 0. Nearly half of a random batch of captions is padding.
    """
    config = text_model.config
    if attention_mask is None or input_ids.device.type != "cpu" or bool(attention_mask.all()):
        return NotImplemented
    if kwargs or config.output_hidden_states or config.output_attentions:
        return NotImplemented
    if "flash" in (config._attn_implementation or ""):  # takes no mask that keeps captions of a row apart
        return NotImplemented
    if any(map(has_hooks, text_model.modules())):  # which expect one caption per row
        return NotImplemented
    caption, position = attention_mask.nonzero(as_tuple=True)  # of each token, [N]
    row, column = _assign_rows(caption.bincount(minlength=len(input_ids)), caption)
    num_rows, num_columns = int(row.amax()) + 1, int(column.amax()) + 1
    place = row * num_columns + column

    def in_rows(values: Tensor, padding: int) -> Tensor:
        return values.new_full((num_rows * num_columns,), padding).index_copy(0, place, values).view(num_rows, -1)

    captions = in_rows(caption, -1)
    different_caption = captions[:, None, :, None] != captions[:, None, None, :]
    mask = torch.zeros(different_caption.shape, dtype=text_model.dtype)
    outputs = text_model(
        input_ids=in_rows(input_ids[caption, position], 0),
        attention_mask=mask.masked_fill(different_caption, torch.finfo(mask.dtype).min),
        position_ids=in_rows(position, 0),
        return_dict=True,
    )
    tokens = outputs.last_hidden_state.flatten(0, 1).index_select(0, place)  # [N, H]
    hidden_states = tokens.new_zeros(input_ids.numel(), tokens.shape[1])
    hidden_states = hidden_states.index_copy(0, caption * input_ids.shape[1] + position, tokens)
    outputs.last_hidden_state = hidden_states.view(*input_ids.shape, -1)
    return outputs


def _assign_rows(lengths: Tensor, caption: Tensor) -> tuple[Tensor, Tensor]:
    """
    Place captions of `lengths` [B] tokens one after another in rows of about the same length.

    Returns the row and the column [N] of each token, given the `caption` [N] that each belongs to, in ascending order.
    """
    sizes = lengths.tolist()
    filled = [0] * max(1, round(sum(sizes) / max(ROW_TOKENS, *sizes)))
    rows, starts = [0] * len(sizes), [0] * len(sizes)
    # The longest first, each to the row that is the shortest so far.
    for index in sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True):
        rows[index] = filled.index(min(filled))
        starts[index] = filled[rows[index]]
        filled[rows[index]] += sizes[index]
    # A token's column is its caption's start plus its number within the caption.
    shift = torch.tensor(starts) - lengths.cumsum(0) + lengths
    return torch.tensor(rows)[caption], torch.arange(len(caption)) + shift[caption]
