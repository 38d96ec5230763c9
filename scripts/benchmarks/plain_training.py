"""Plain training loop of typical research code as a reference; only the initial weights are from this package.

float32 at PyTorch's default TF32 settings, eager; waveforms in memory, zero-padded in random batches; STFT and mel in
the model, recomputed for every batch; batch normalization includes padding; one Adam step per batch.
"""

import copy
import time
from pathlib import Path

import numpy as np
import torch
import torchaudio
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerFast

from modeling_cnn10bert import CNN10BertModel, CNN10FeatureExtractor
from modeling_cnn10bert.augmentation.eda import EDA, vocabulary
from modeling_cnn10bert.training.arguments import AugmentationArguments
from modeling_cnn10bert.training.build import load_model_and_processor
from modeling_cnn10bert.training.recipe import parse_recipe

from .features import torchaudio_log_mel
from .harness import Round, synchronize
from .inputs import read_waveforms

MAX_TOKENS = 32


# ----------------------------------------------------------------------------------------------------------- model


class PlainBlock(nn.Module):
    """Two convolutions with batch normalization and ReLU, then average pooling."""

    def __init__(self, channels_in: int, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        return F.avg_pool2d(x, 2)


class PlainModel(nn.Module):
    """
    The network of a `CNN10BertModel`, with its weights, on waveforms and without masks.

    Args:
        model: the model whose weights are copied.
        extractor: the extractor whose log-mel it computes, by torchaudio.
        augmentation: augmentation of the log-mels of a batch in training, or `None`.
    """

    def __init__(
        self, model: CNN10BertModel, extractor: CNN10FeatureExtractor, augmentation: AugmentationArguments | None = None
    ):
        super().__init__()
        config = model.config
        self.temperature, self.text_pooling = config.temperature, config.text_pooling
        self.augmentation = augmentation
        self.log_mel = torchaudio_log_mel(extractor)
        if augmentation is not None:
            self.time_mask = torchaudio.transforms.TimeMasking(augmentation.w_t, iid_masks=True)
            self.frequency_mask = torchaudio.transforms.FrequencyMasking(augmentation.w_f, iid_masks=True)
        audio = model.audio_model
        self.input_norm = nn.BatchNorm2d(extractor.feature_size)
        widths = [1, *config.audio_config.hidden_sizes]
        self.blocks = nn.ModuleList(PlainBlock(*pair) for pair in zip(widths, widths[1:], strict=False))
        self.audio_head = _head(model.audio_projection)
        self.text_model = copy.deepcopy(model.text_model)
        self.text_head = _head(model.text_projection)
        self.input_norm.load_state_dict(audio.input_norm.state_dict())
        for mine, theirs in zip(self.blocks, audio.blocks, strict=True):
            mine.load_state_dict(theirs.state_dict())

    def forward(
        self, waveforms: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed zero-padded waveforms [B, samples] and captions [B, L], each as [B, D]."""
        x = self.log_mel(waveforms)  # [B, n_mels, T]
        if self.training and self.augmentation is not None and self.augmentation.p_ms:
            x = self.mix_style(x)
        x = self.input_norm(x[:, :, :, None]).permute(0, 3, 1, 2)  # [B, 1, n_mels, T]
        if self.training and self.augmentation is not None:
            for _ in range(self.augmentation.n_t):
                x = self.time_mask(x)
            for _ in range(self.augmentation.n_f):
                x = self.frequency_mask(x)
        x = x.transpose(2, 3)  # [B, 1, T, n_mels]
        for block in self.blocks:
            x = block(x)
        x = x.mean(dim=3)  # [B, C, T // 16]
        audio = self.audio_head((x.mean(dim=2) + x.amax(dim=2)) / 2)
        tokens = self.text_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        if self.text_pooling == "cls":
            text = tokens[:, 0]
        else:
            valid = attention_mask[:, :, None]
            text = (tokens * valid).sum(dim=1) / valid.sum(dim=1)
        return F.normalize(audio, dim=-1), F.normalize(self.text_head(text), dim=-1)

    def mix_style(self, x: torch.Tensor) -> torch.Tensor:
        """Apply Freq-MixStyle with another clip of the batch as partner."""
        alpha = torch.tensor(float(self.augmentation.ms_alpha))
        weight = torch.distributions.Beta(alpha, alpha).sample((len(x), 1, 1)).to(x.device)
        weight = torch.maximum(weight, 1 - weight)
        chosen = torch.rand(len(x), 1, 1, device=x.device) < self.augmentation.p_ms
        mean, std = x.mean(dim=2, keepdim=True), x.std(dim=2, keepdim=True) + 1e-6
        partner = torch.randperm(len(x), device=x.device)
        mixed_mean = weight * mean + (1 - weight) * mean[partner]
        mixed_std = weight * std + (1 - weight) * std[partner]
        return torch.where(chosen, (x - mean) / std * mixed_std + mixed_mean, x)

    def loss(self, audio: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Compute NT-Xent in both directions, caption i belonging to recording i alone."""
        logits = audio @ text.T / self.temperature
        targets = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def _head(projection: nn.Module) -> nn.Sequential:
    return nn.Sequential(copy.deepcopy(projection.dense), nn.ReLU(), copy.deepcopy(projection.out))


# ------------------------------------------------------------------------------------------------------------ data


class PlainPairs(Dataset):
    """Each caption with its waveform; gain and EDA are drawn each time."""

    def __init__(
        self, waveforms: list[np.ndarray], captions: list[list[str]], g_max: float = 0.0, eda: EDA | None = None
    ):
        self.waveforms = waveforms
        self.pairs = [(row, caption) for row, texts in enumerate(captions) for caption in texts]
        self.g_max, self.eda = g_max, eda
        self.rng = np.random.default_rng()

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, str]:
        row, caption = self.pairs[index]
        waveform = torch.from_numpy(self.waveforms[row])
        if self.g_max:
            waveform = waveform * 10 ** (self.rng.uniform(-self.g_max, self.g_max) / 20)
        return waveform, caption if self.eda is None else self.eda(caption, self.rng)


class PlainCollator:
    """Pads the waveforms with zeros and tokenizes the captions."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self.tokenizer = tokenizer

    def __call__(self, rows: list[tuple[torch.Tensor, str]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        waveforms = nn.utils.rnn.pad_sequence([waveform for waveform, _ in rows], batch_first=True)
        tokens = self.tokenizer(
            [caption for _, caption in rows],
            padding=True,
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
        )
        return waveforms, tokens["input_ids"], tokens["attention_mask"]


# ------------------------------------------------------------------------------------------------------------ loop


def build_plain(arguments: tuple[str, ...], waveforms: Path, steps: int, warm_up_steps: int) -> Round:
    """Build a round of the plain loop with the values of the recipe; the first few steps do not count."""
    torch.manual_seed(0)
    model_args, _, augmentation, training = parse_recipe(list(arguments))
    device = training.device
    ours, processor = load_model_and_processor(model_args)
    model = PlainModel(ours, processor.feature_extractor, augmentation).to(device).train()
    recordings, captions = read_waveforms(waveforms)
    eda = None
    if augmentation.p_eda:
        words = vocabulary(caption for texts in captions for caption in texts)
        probabilities = {name: getattr(augmentation, name) for name in ("p_eda", "p_swp", "p_ins", "p_del")}
        eda = EDA(**probabilities, p_syn=0.0, vocabulary=words, synonyms={})
    loader = DataLoader(
        PlainPairs(recordings, captions, augmentation.g_max, eda),
        batch_size=training.total_train_batch_size,
        shuffle=True,
        drop_last=True,
        collate_fn=PlainCollator(processor.tokenizer),
        num_workers=training.dataloader_num_workers,
        persistent_workers=training.dataloader_num_workers > 0,
        pin_memory=device.type == "cuda",
    )
    of_text = set(model.text_model.parameters())
    groups = [{"params": [parameter for parameter in model.parameters() if parameter not in of_text]}]
    text = [parameter for parameter in model.text_model.parameters() if parameter.requires_grad]
    if text:
        groups.append({"params": text, "lr": training.text_learning_rate or training.learning_rate})
    optimizer = torch.optim.Adam(groups, lr=training.learning_rate)

    def run() -> dict[str, float]:
        done, started = 0, 0.0
        while done < steps + warm_up_steps:
            for batch in loader:
                audio, text = model(*(tensor.to(device, non_blocking=True) for tensor in batch))
                loss = model.loss(audio, text)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                done += 1
                if done == warm_up_steps:
                    synchronize(device)
                    started = time.perf_counter()
                if done == steps + warm_up_steps:
                    break
        synchronize(device)
        return {"seconds": (time.perf_counter() - started) / steps, "loss": loss.item()}

    return run
