"""Transformed rows become a batch of the model."""

import pytest
import torch

from modeling_cnn10bert.data.pairs import RetrievalCollator


@pytest.fixture
def rows():
    return [
        {"log_mel": torch.full((20, 64), -10.0), "captions": ["A dog barks!"], "recording_id": 7},
        {"log_mel": torch.full((32, 64), -20.0), "captions": ["the rain", "sound of the rain"], "recording_id": 3},
    ]


def test_log_mels_are_padded_and_masked(rows, processor):
    batch = RetrievalCollator(processor)(rows)
    assert batch["input_features"].shape == (2, 32, 64)
    assert batch["input_features_mask"].sum(dim=1).tolist() == [20, 32]
    assert (batch["input_features"][0, :20] == -10).all()
    assert (batch["input_features"][1] == -20).all()


def test_every_caption_knows_its_recording(rows, processor):
    batch = RetrievalCollator(processor)(rows)
    assert batch["recording_ids"].tolist() == [7, 3]
    assert batch["text_recording_ids"].tolist() == [7, 3, 3]
    words = processor.tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
    assert words[1:] == ["the rain", "sound of the rain"]
    assert batch["attention_mask"].sum(dim=1).tolist()[1:] == [4, 6]  # [CLS] and [SEP] count


def test_a_long_caption_is_cut_to_32_tokens(rows, processor):
    rows[0]["captions"] = ["dog " * 50]
    assert RetrievalCollator(processor)(rows)["input_ids"].shape == (3, 32)


def test_keys_of_captions_are_joined_to_a_tensor_of_64_bits(rows, processor):
    rows[0]["caption_keys"], rows[1]["caption_keys"] = [-(2**63)], [2**63 - 1, 5]
    assert RetrievalCollator(processor)(rows)["caption_keys"].tolist() == [-(2**63), 2**63 - 1, 5]


def test_the_batch_is_what_the_model_takes(rows, processor, tiny_model):
    model = tiny_model(text={"vocab_size": len(processor.tokenizer)})
    batch = RetrievalCollator(processor)(rows)
    ids = {name: batch.pop(name) for name in ("recording_ids", "text_recording_ids")}
    assert model(**batch).logits_per_audio.shape == (2, 3)
    assert all(value.dtype == torch.int64 for value in ids.values())
