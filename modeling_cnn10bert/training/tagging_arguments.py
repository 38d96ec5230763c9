"""The fields of a recipe of `scripts/train_tagging.py`; the defaults are those of PANNs (Kong et al. 2020)."""

from dataclasses import dataclass, field

from ..data.tagging import MIXUP_DOMAINS
from .arguments import DataArguments, KeyedTrainingArguments, check_network


@dataclass
class TaggerArguments:
    """Which tagger is trained: by default PANNs' Cnn10."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "A saved tagger to continue from, of the same classes: a folder or a Hub id."}
    )
    hidden_sizes: list[int] = field(
        default_factory=lambda: [64, 128, 256, 512], metadata={"help": "Channels of each block."}
    )
    time_pooling: str = field(
        default="sum",
        metadata={"help": "Sum of mean and maximum over time, or their average.", "choices": ["sum", "average"]},
    )
    block_dropout: float = field(default=0.2, metadata={"help": "Dropout after each block."})
    head_dropout: float = field(default=0.5, metadata={"help": "Dropout before each linear layer of the head."})
    num_mel_bins: int = field(default=64, metadata={"help": "Mel bins of the log-mel."})
    n_fft: int = field(default=1024, metadata={"help": "Window of the log-mel, in samples."})
    hop_length: int = field(default=320, metadata={"help": "Hop of the log-mel, in samples."})

    def __post_init__(self):
        check_network(self)


@dataclass
class TaggingDataArguments(DataArguments):
    """What it is trained and scored on, and how clips are drawn and mixed."""

    dataset_name: str | None = field(
        default=None, metadata={"help": "Folder written by scripts/prepare_audioset.py, or by its like."}
    )
    labels: str | None = field(
        default=None, metadata={"help": "AudioSet's class_labels_indices.csv, which names the classes of dataset_name."}
    )
    train_split: str = field(default="unbalanced_train", metadata={"help": "Split of dataset_name to train on."})
    validation_split: str = field(default="balanced_train", metadata={"help": "Split of dataset_name to choose by."})
    test_split: str = field(default="eval", metadata={"help": "Split of dataset_name to report."})
    class_balanced: bool = field(default=True, metadata={"help": "Draw a class first, then a clip of it."})
    mixup_alpha: float = field(
        default=1.0, metadata={"help": "Mixup: parameter of the Beta distribution; 0 switches it off."}
    )
    mixup_domain: str = field(
        default="power",
        metadata={
            "help": "What is mixed: power spectra, or waveforms, which needs dataset_name without cache_features.",
            "choices": list(MIXUP_DOMAINS),
        },
    )

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.mixup_alpha < float("inf"):
            raise ValueError(f"mixup_alpha must be a finite number and not negative, found {self.mixup_alpha}")
        if bool(self.dataset_name) == bool(self.manifests or self.sources):
            raise ValueError(
                "give either dataset_name (a folder written by scripts/prepare_audioset.py), or manifests and sources "
                "(soundscapes)"
            )
        if bool(self.manifests) != bool(self.sources):
            missing = "sources" if self.manifests else "manifests"
            raise ValueError(f"field {missing} is not set, but soundscapes need both manifests and sources")
        if self.mixup_domain == "waveform" and (self.manifests or self.cache_features):
            raise ValueError(
                "mixup_domain is waveform, but there are cached log-mels only; use dataset_name with "
                "cache_features false, or mixup_domain power"
            )


@dataclass
class TaggingTrainingArguments(KeyedTrainingArguments):
    """Training of a tagger: Adam with amsgrad at a constant 1e-3, batches of 32, 600,000 steps."""

    METRICS = ("mAP", "mAUC", "loss")
    LOWER_IS_BETTER = ("loss",)

    learning_rate: float = field(default=1e-3, metadata={"help": "Initial (step) or highest (one_cycle) rate."})
    learning_rate_schedule: str = field(
        default="constant",
        metadata={"help": "constant, step, one_cycle, or another schedule of transformers."},
    )
    amsgrad: bool = field(default=True, metadata={"help": "Adam's variant of that name (Reddi et al. 2018)."})
    max_steps: int = field(default=600_000, metadata={"help": "Optimiser steps; -1 goes by num_train_epochs."})
    metric_for_best_model: str | None = field(default="mAP", metadata={"help": "Validation metric of the best model."})

    def __post_init__(self):
        super().__post_init__()
        if self.amsgrad and not self.optim.startswith("adamw"):
            raise ValueError(f"amsgrad is a variant of Adam, but optim is {self.optim.value}; set amsgrad to false")
        if self.train_sampling_strategy != "random":
            raise ValueError(
                f"train_sampling_strategy is {self.train_sampling_strategy!r}, but clips are drawn at random by class; "
                "leave it at random"
            )


TAGGING_ARGUMENT_CLASSES = (TaggerArguments, TaggingDataArguments, TaggingTrainingArguments)
