"""Contrastive batches beyond memory: the cached gradients of Gao et al. (2021), for both towers.

A batch is embedded in chunks without keeping anything for the backward pass; the loss over all embeddings gives each
of them its gradient; then each chunk is embedded again and passes its embeddings' gradients on to the weights. So
memory holds one chunk at a time, and the gradients are those of the whole batch, for half as much computing again.

Dropout draws alike both times. Batch normalization that learns takes the statistics of a chunk, not of the batch: only
where it stays in evaluation mode, as in a frozen tower, are the gradients exactly those of the whole batch.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.utils.checkpoint import get_device_states, set_device_states


class RandomDraws:
    """Keeps the states of the random number generators of the CPU and of a tensor's device."""

    def __init__(self, tensor: torch.Tensor):
        self.cpu = torch.get_rng_state()
        self.device_type = tensor.device.type
        self.devices, self.states = get_device_states(tensor)

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        """Draw within the block what was drawn after the states were taken."""
        options = {"device_type": self.device_type} if self.devices else {}
        with torch.random.fork_rng(self.devices, **options):
            torch.set_rng_state(self.cpu)
            set_device_states(self.devices, self.states, **options)
            yield


@contextlib.contextmanager
def kept_buffers(model: nn.Module) -> Iterator[None]:
    """Undo whatever happens in the block to the buffers of a model, such as running statistics."""
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
    Add the gradients of a batch's loss to the weights, with the memory of one of its chunks.

    Args:
        model: returns `audio_embeds` [A, D] and `text_embeds` [C, D].
        inputs: its arguments, a row a recording or a caption.
        num_chunks: at most as many as recordings, and as captions.
        loss_of: the loss of all `audio_embeds` and `text_embeds`.
        other_weights: those which that loss depends on beside the embeddings, such as a learned temperature.
        backward: is called once a chunk.
        no_sync: within it, `backward` leaves the gradients of several processes apart; the last chunk's joins them.

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
            # Its gradients are the chunk's share of those of the loss.
            share = (outputs.audio_embeds * of_audio).sum() + (outputs.text_embeds * of_text).sum()
            if is_last:
                share = share + sum((w * gradient).sum() for w, gradient in zip(other_weights, others, strict=True))
            backward(share)
    return loss.detach()
