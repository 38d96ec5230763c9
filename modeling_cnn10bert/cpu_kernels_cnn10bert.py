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
"""Ways of the models that are faster on a CPU."""

import torch
from torch.nn import functional as F

TOKENS_IN_A_ROW = 48  # about four captions, on a CPU, see `CNN10BertModel._run_text_model`
# When and how a CPU convolves in tiles, see `convolve_in_tiles`.
WIDE = 64 * 128  # channels in times channels out
MANY_CELLS = 512  # of the clips of a batch; below, it takes longer to transform the weights
CACHED_VALUES = 32_768  # tiles times channels of a chunk, of each of which there are 36 numbers
# The matrices of F(4x4, 3x3) for the points 0, 1, -1, 2, -2 and infinity (Lavin & Gray, 2016).
_OF_INPUT = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0]]
_OF_INPUT += [[0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]
_OF_WEIGHTS = [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]
_OF_OUTPUT = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
TILES_OF_INPUT, TILES_OF_WEIGHTS, TILES_OF_OUTPUT = (
    torch.kron(matrix, matrix).float()
    for matrix in (
        torch.tensor(_OF_INPUT, dtype=torch.float64, device="cpu"),
        torch.tensor(_OF_WEIGHTS, dtype=torch.float64, device="cpu") / 24,
        torch.tensor(_OF_OUTPUT, dtype=torch.float64, device="cpu"),
    )
)


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """float16 and bfloat16 become float32, float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def by_channel(values: torch.Tensor) -> torch.Tensor:
    """[C] to [1, C, 1, 1]."""
    return values.view(1, -1, 1, 1)


class NormaliseValidFrames(torch.autograd.Function):
    """
    Batch normalisation [B, C, T, F] by the statistics of the frames where `mask` [B, 1, T, 1] is 1; 0 elsewhere.

    Returns the mean and the biased variance [C] beside it, without gradients. It passes over its input less often than
    autograd does over the same formula.
    """

    @staticmethod
    def forward(ctx, hidden_states, mask, weight, bias, eps):
        dtype = at_least_float32(weight[:0]).dtype
        valid = mask.to(hidden_states.dtype)
        count = mask.sum(dtype=dtype) * hidden_states.shape[-1]
        centred = hidden_states * valid
        mean = centred.sum(dim=(0, 2, 3), dtype=dtype) / count
        centred.addcmul_(valid, by_channel(-mean).to(valid.dtype))
        variance = centred.square().sum(dim=(0, 2, 3), dtype=dtype) / count
        scale = torch.rsqrt(variance + eps) * weight
        output = (centred * by_channel(scale).to(valid.dtype)).addcmul_(valid, by_channel(bias).to(valid.dtype))
        ctx.save_for_backward(centred, valid, count, weight, variance)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return output, mean, variance

    @staticmethod
    def backward(ctx, gradient, *_):
        centred, valid, count, weight, variance = ctx.saved_tensors
        weights, no_mean = weight.to(variance.dtype), torch.zeros_like(variance)
        # As if the statistics were constants, and then what they add, on the valid frames.
        result, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient * valid, centred, weights, no_mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        inverse = torch.rsqrt(variance + ctx.eps)
        by_value = by_channel(-weights * inverse.square() * of_weight / count)
        constant = by_channel(-weights * inverse * of_bias / count)
        result.addcmul_(centred, by_value.to(valid.dtype)).addcmul_(valid, constant.to(valid.dtype))
        return result, None, of_weight.to(weight.dtype), of_bias.to(weight.dtype), None


def pays_in_tiles(hidden_states: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether `convolve_in_tiles` is the faster way: on a CPU, in float32, where it is arithmetic that takes time."""
    plain = hidden_states.device.type == "cpu" and hidden_states.dtype == weight.dtype == torch.float32
    if not plain or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return False
    return weight.shape[0] * weight.shape[1] >= WIDE and hidden_states[:, 0].numel() >= MANY_CELLS


def convolve_in_tiles(hidden_states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """
    A 3x3 convolution with a padding of 1 by Winograd's F(4x4, 3x3), which takes a quarter of the products.

    [B, C, T, F] to [B, O, T, F]. Of each 6x6 cells it makes 36 sums, multiplies these by as many of the weights, and
    makes sums of the products that are 4x4 cells of the result (Lavin & Gray, 2016).
    """
    batch_size, channels_in, frames, bins = hidden_states.shape
    channels = weight.shape[0]
    rows, columns = -(-frames // 4), -(-bins // 4)  # of tiles
    weights = TILES_OF_WEIGHTS @ weight.permute(2, 3, 1, 0).reshape(9, -1)
    weights = weights.view(36, channels_in, channels)
    cells = F.pad(hidden_states.permute(0, 2, 3, 1), (0, 0, 1, 4 * columns + 1 - bins, 1, 4 * rows + 1 - frames))
    of_clip, of_frame, of_bin, of_channel = cells.stride()
    tiles = cells.as_strided(
        (batch_size, 6, 6, rows, columns, channels_in),
        (of_clip, of_frame, of_bin, 4 * of_frame, 4 * of_bin, of_channel),
    )
    output = hidden_states.new_empty(batch_size, rows, 4, columns, 4, channels)
    # So many rows of tiles at once that all stays in a core's cache.
    at_once = max(1, CACHED_VALUES // (columns * max(channels_in, channels)))
    for tiles_of_clip, output_of_clip in zip(tiles, output.permute(0, 2, 4, 1, 3, 5), strict=True):
        for first in range(0, rows, at_once):
            some = tiles_of_clip[:, :, first : first + at_once].reshape(36, -1)
            products = (TILES_OF_INPUT @ some).view(36, -1, channels_in) @ weights
            sums = (TILES_OF_OUTPUT @ products.view(36, -1)).view(4, 4, -1, columns, channels)
            torch.add(sums, bias, out=output_of_clip[:, :, first : first + at_once])
    output = output.view(batch_size, 4 * rows, 4 * columns, channels)[:, :frames, :bins]
    return output.permute(0, 3, 1, 2)


def deal_into_rows(lengths: torch.Tensor, caption: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Lays captions of so many tokens `lengths` [B] one behind another in rows that are about equally long.

    Returns the row and the column [N] of each token, given the `caption` [N] that it is of, in order.
    """
    sizes = lengths.tolist()
    filled = [0] * max(1, round(sum(sizes) / max(TOKENS_IN_A_ROW, *sizes)))
    rows, starts = [0] * len(sizes), [0] * len(sizes)
    for index in sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True):
        rows[index] = filled.index(min(filled))
        starts[index] = filled[rows[index]]
        filled[rows[index]] += sizes[index]
    # Of the tokens of all captions, counted through: where a caption's first goes, less its number.
    shift = torch.tensor(starts) - lengths.cumsum(0) + lengths
    return torch.tensor(rows)[caption], torch.arange(len(caption)) + shift[caption]
