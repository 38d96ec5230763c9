"""Contrastive batches that exceed memory, by the cached gradients of Gao et al. (2021), for both towers.

First, the batch is embedded in chunks without a graph. Second, the loss over all embeddings gives their gradients.
Third, each chunk is embedded again and passes the gradients of its embeddings on to the weights. So memory holds one
chunk at a time and the gradients are those of the whole batch, at 1.5 times the computation.

Dropout is the same in both passes. Batch normalization in training mode uses the statistics of a chunk, not of the
batch, so the gradients are exactly those of the whole batch only if it is in evaluation mode, as in a frozen tower.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.utils.checkpoint import get_device_states, set_device_states


class RandomDraws:
    """Hold the states of the random number generators of the CPU and of a tensor's device."""

    def __init__(self, tensor: torch.Tensor):
        self.cpu = torch.get_rng_state()
        self.device_type = tensor.device.type
        self.devices, self.states = get_device_states(tensor)

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        """Repeat in the block the draws that followed the saved states."""
        options = {"device_type": self.device_type} if self.devices else {}
        with torch.random.fork_rng(self.devices, **options):
            torch.set_rng_state(self.cpu)
            set_device_states(self.devices, self.states, **options)
            yield


@contextlib.contextmanager
def kept_buffers(model: nn.Module) -> Iterator[None]:
    """Undo changes in the block to the buffers of a model, such as running statistics."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        for name, buffer in model.named_buffers():
            buffer.copy_(before[name])


def backward_in_chunks(
    model: nn.Module,
    inputs: dict[str, torch.Tensor],
    num_chunks: int,
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    other_weights: list[nn.Parameter],
    backward: Callable[[torch.Tensor], None],
    no_sync: Callable[[], contextlib.AbstractContextManager],
) -> torch.Tensor:
    """
    Add the gradients of a batch's loss to the weights, using the memory of one chunk.

    Args:
        model: returns `audio_embeds` [A, D] and `text_embeds` [C, D].
        inputs: its arguments, one row per recording or caption.
        num_chunks: at most the number of recordings and of captions.
        loss_of: computes the loss of all `audio_embeds` and `text_embeds`.
        other_weights: further weights that the loss depends on, such as a learned temperature.
        backward: called once per chunk.
        no_sync: context in which `backward` does not synchronize processes; it is not used for the last chunk.

    Returns:
        `torch.Tensor` of shape `()`: the loss.
    """
    chunks = [
        dict(zip(inputs, parts, strict=True))
        for parts in zip(*(tensor.tensor_split(num_chunks) for tensor in inputs.values()), strict=True)
    ]
    draws, embeds = [], []
    with torch.no_grad(), kept_buffers(model):
        for chunk in chunks:
            draws.append(RandomDraws(next(iter(chunk.values()))))
            outputs = model(**chunk)
            embeds.append((outputs.audio_embeds, outputs.text_embeds))
    audio, text = (torch.cat(of_a_tower).requires_grad_() for of_a_tower in zip(*embeds, strict=True))
    loss = loss_of(audio, text)
    audio_gradient, text_gradient, *others = torch.autograd.grad(loss, [audio, text, *other_weights])
    gradients = zip(audio_gradient.tensor_split(num_chunks), text_gradient.tensor_split(num_chunks), strict=True)
    for number, (chunk, drawn, (of_audio, of_text)) in enumerate(zip(chunks, draws, gradients, strict=True)):
        is_last = number == num_chunks - 1
        with contextlib.nullcontext() if is_last else no_sync():
            with drawn.again():
                outputs = model(**chunk)
            # The gradients of this product are the chunk's share of the loss's gradients.
            share = (outputs.audio_embeds * of_audio).sum() + (outputs.text_embeds * of_text).sum()
            if is_last:
                share = share + sum((w * gradient).sum() for w, gradient in zip(other_weights, others, strict=True))
            backward(share)
    return loss.detach()
