"""A model whose weights are sharded over two processes (FSDP2) or lie on disk computes the same."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload, disk_offload

from modeling_cnn10bert import CNN10BertModel


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(40) < torch.tensor([40, 21, 33, 40])[:, None]).int()
    return {
        "input_features": (-40 + 15 * torch.randn(4, 40, 64, generator=generator)) * mask[:, :, None],
        "input_features_mask": mask,
        "input_ids": torch.randint(5, 50, (4, 9), generator=generator),
        "attention_mask": (torch.arange(9) < torch.tensor([9, 3, 6, 8])[:, None]).int(),
    }


def test_a_sharded_model_has_the_embeddings_and_gradients_of_a_whole_one(tiny_model, batch, tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path / "model")
    torch.save(batch, tmp_path / "batch.pt")
    outputs = model(**batch, return_loss=True)
    outputs.loss.backward()
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    script = [str(Path(__file__).with_name("sharded_model.py")), str(tmp_path)]
    completed = subprocess.run(
        [*launch, "--rdzv-endpoint", "localhost:0", *script], capture_output=True, text=True, timeout=300
    )
    assert completed.returncode == 0, completed.stderr
    for rank in range(2):
        found = torch.load(tmp_path / f"rank{rank}.pt")
        assert found["largest_share"] < 1  # every weight is sharded
        torch.testing.assert_close(found["loss"], outputs.loss.detach(), atol=1e-5, rtol=0)
        torch.testing.assert_close(found["audio_embeds"], outputs.audio_embeds.detach(), atol=1e-6, rtol=0)
        torch.testing.assert_close(found["text_embeds"], outputs.text_embeds.detach(), atol=1e-6, rtol=0)
        gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
        assert found["gradients"].keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(found["gradients"][name], gradient, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("where", ["cpu", "disk", "device_map"])
def test_an_offloaded_model_has_the_same_embeddings(tiny_model, batch, tmp_path, where):
    model = tiny_model()
    expected = model(**batch)
    if where == "cpu":
        cpu_offload(model, execution_device="cpu")
    elif where == "disk":
        disk_offload(model, tmp_path / "offloaded", execution_device="cpu")
    else:
        model.save_pretrained(tmp_path / "model")
        places = {"audio_model": "disk", "audio_projection": "cpu", "text_model": "disk", "text_projection": "cpu"}
        model = CNN10BertModel.from_pretrained(
            tmp_path / "model", device_map=places, offload_folder=tmp_path / "offloaded"
        ).eval()
    assert model.audio_model.blocks[0].conv1.weight.device.type == "meta"
    outputs = model(**batch)
    torch.testing.assert_close(outputs.audio_embeds, expected.audio_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(outputs.text_embeds, expected.text_embeds, atol=1e-5, rtol=0)
    alone = model.get_audio_features(batch["input_features"], batch["input_features_mask"]).pooler_output
    torch.testing.assert_close(alone, expected.audio_embeds, atol=1e-5, rtol=0)
