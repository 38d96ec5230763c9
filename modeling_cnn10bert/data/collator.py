"""From transformed rows to a batch of the model: pads the log-mels, tokenises the captions."""

from typing import Any

import torch

from ..processing_cnn10bert import CNN10BertProcessor


class RetrievalCollator:
    """
    Joins rows of `log_mel` [T, n_mels], `captions` (one at training, all at evaluation) and `recording_id`.

    Returns `input_features` [B, T, n_mels], `input_features_mask` [B, T], `input_ids` and `attention_mask` [C, L],
    `recording_ids` [B], and `text_recording_ids` [C]: which recording each caption describes. Where the rows have
    `caption_keys`, these too [C]: equal for captions of the same words.
    """

    def __init__(self, processor: CNN10BertProcessor):
        self.processor = processor

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        features = self.processor.feature_extractor.pad(
            {"input_features": [row["log_mel"].numpy() for row in rows]}, padding=True, return_tensors="pt"
        )
        tokens = self.processor(text=[caption for row in rows for caption in row["captions"]], return_tensors="pt")
        batch = {
            "input_features": features["input_features"],
            "input_features_mask": features["attention_mask"],
            "input_ids": tokens["input_ids"],
            "attention_mask": tokens["attention_mask"],
            "recording_ids": torch.tensor([row["recording_id"] for row in rows]),
            "text_recording_ids": torch.tensor([row["recording_id"] for row in rows for _ in row["captions"]]),
        }
        if "caption_keys" in rows[0]:
            batch["caption_keys"] = torch.tensor([key for row in rows for key in row["caption_keys"]])
        return batch
