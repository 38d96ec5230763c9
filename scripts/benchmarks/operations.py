"""The floating-point operations and the bytes of a training step, counted from the shapes.

A multiply-add is two operations, as torch's FlopCounterMode counts; only matrix products and convolutions count. Bytes
are those that must pass between processor and memory when everything else is kept in caches: a convolution reads its
input once and writes its output once, a batch normalisation, whose statistics need all of its input, reads and writes
again. Padding does not count.
"""

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from transformers import BertConfig

from modeling_cnn10bert import CNN10BertConfig, CNN10Config

from .machine import Limit

OPTIMIZER_BYTES = 7 * 4  # of a trained weight: itself, its gradient and Adam's two moments read, all but one written


@dataclasses.dataclass(frozen=True)
class Operations:
    """Floating-point operations and bytes of something, forward and backward."""

    forward: float
    backward: float
    bytes: float

    def __mul__(self, times: float) -> "Operations":
        return Operations(self.forward * times, self.backward * times, self.bytes * times)

    def least_seconds(self, limit: Limit) -> float:
        """What no way of computing it on this device falls below: by its arithmetic or by its memory."""
        return max((self.forward + self.backward) / limit.rate, self.bytes / limit.bandwidth)


def step_operations(
    config: CNN10BertConfig,
    frames: Sequence[int],
    tokens: Sequence[int],
    *,
    frozen_layers: int | None = None,
    frozen_text: bool = False,
    value_bytes: int = 4,
) -> list[Operations]:
    """
    Those of a training step, layer by layer.

    Args:
        config: of the model.
        frames: of each recording of the batch.
        tokens: of each caption, [CLS] and [SEP] included.
        frozen_layers: so many layers of the text network, and its embeddings, do not learn.
        frozen_text: none of the text network learns.
        value_bytes: of a value of an activation, 2 where it is in bfloat16.
    """
    found: list[Operations] = []
    for length, count in collections.Counter(frames).items():
        found += [operation * count for operation in audio_operations(config.audio_config, length, value_bytes)]
    frozen = config.text_config.num_hidden_layers if frozen_text else frozen_layers
    for length, count in collections.Counter(tokens).items():
        found += [operation * count for operation in text_operations(config.text_config, length, frozen, value_bytes)]
    hidden, dimension = config.projection_hidden_size, config.projection_dim
    for rows, width, learns in (
        (len(frames), config.audio_config.hidden_size, True),
        (len(tokens), config.text_config.hidden_size, not frozen_text),
    ):
        found.append(_linear(rows, width, hidden, value_bytes, input_gradient=learns))
        found.append(_linear(rows, hidden, dimension, value_bytes))
    similarity = 2.0 * len(frames) * len(tokens) * dimension
    return [*found, Operations(similarity, 2 * similarity, 0.0)]


def optimizer_operations(num_weights: int) -> Operations:
    """Those of Adam for so many trained weights, in float32."""
    return Operations(0.0, 0.0, OPTIMIZER_BYTES * num_weights)


def audio_operations(config: CNN10Config, frames: int, value_bytes: int) -> Iterator[Operations]:
    """Those of the convolutions of one recording, each with its normalisation."""
    bins, channels_in = config.num_mel_bins, 1
    for channels in config.hidden_sizes:
        for width, pooled in ((channels_in, False), (channels, True)):
            cells = frames * bins
            forward = 2.0 * 9 * cells * width * channels
            # Input read, output written; output read, normalised and rectified, a quarter of it written if pooled.
            values = width + channels + channels + channels / (4 if pooled else 1)
            # Backward: the convolution reads its input, and the gradient of its output twice, and writes that of its
            # input; the normalisation reads gradient and input twice, for its sums and to use them, and writes.
            values += width + 2 * channels + width + 2 * (channels / (4 if pooled else 1) + channels) + channels
            yield Operations(forward, 2 * forward, values * cells * value_bytes)
            channels_in = channels
        frames, bins = frames // 2, bins // 2


def text_operations(
    config: BertConfig, tokens: int, frozen_layers: int | None, value_bytes: int
) -> Iterator[Operations]:
    """Those of the layers of BERT for one caption; the weights' bytes are left out, as a batch reads them once."""
    width, inner = config.hidden_size, config.intermediate_size
    frozen = frozen_layers or 0
    for number in range(config.num_hidden_layers):
        learns = number >= frozen
        # Below the first layer that learns, nothing needs a gradient.
        first = frozen_layers is not None and number == frozen
        products = [
            *[(width, width, not first)] * 3,
            (width, width, True),
            (width, inner, True),
            (inner, width, True),
        ]
        for size_in, size_out, input_gradient in products:
            yield _linear(tokens, size_in, size_out, value_bytes, input_gradient=input_gradient, learns=learns)
        attention = 2.0 * 2 * tokens**2 * width
        yield Operations(attention, 2 * attention if learns else 0.0, 0.0)


def _linear(
    rows: int, size_in: int, size_out: int, value_bytes: int, *, input_gradient: bool = True, learns: bool = True
) -> Operations:
    forward = 2.0 * rows * size_in * size_out
    backward = forward * (1 + input_gradient) if learns else 0.0
    values = rows * (size_in + size_out) * (1 + 2 * learns)
    return Operations(forward, backward, values * value_bytes)


def total(operations: Iterable[Operations]) -> Operations:
    operations = list(operations)
    return Operations(
        sum(one.forward for one in operations),
        sum(one.backward for one in operations),
        sum(one.bytes for one in operations),
    )
