"""What `test_sharded.py` starts as two processes: each writes what the sharded model computed to FOLDER/rank<n>.pt."""

import sys
from pathlib import Path

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from modeling_cnn10bert import CNN10BertModel

folder = Path(sys.argv[1])
distributed.init_process_group("gloo")
mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
model = CNN10BertModel.from_pretrained(folder / "model").eval()
for layer in (*model.audio_model.blocks, *model.text_model.encoder.layer):
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
shares = [parameter.to_local().numel() / parameter.numel() for parameter in model.parameters()]

batch = torch.load(folder / "batch.pt")
outputs = model(**batch, return_loss=True)
outputs.loss.backward()
gradients = {name: p.grad.full_tensor() for name, p in model.named_parameters() if p.grad is not None}
audio = model(**{name: batch[name] for name in ("input_features", "input_features_mask")}).audio_embeds
text = model(**{name: batch[name] for name in ("input_ids", "attention_mask")}).text_embeds
results = {
    "largest_share": max(shares),
    "loss": outputs.loss.detach(),
    "audio_embeds": audio.detach(),
    "text_embeds": text.detach(),
    "gradients": gradients,
}
torch.save(results, folder / f"rank{distributed.get_rank()}.pt")
distributed.destroy_process_group()
