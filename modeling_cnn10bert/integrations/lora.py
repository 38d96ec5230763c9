"""Train low-rank matrices instead of whole networks (LoRA, Hu et al. 2021), with PEFT.

A layer W becomes W + B A, where W is frozen and A and B have a small rank. In the text network, these are the queries
and values of the attention; in the audio network, the convolutions. The projection heads are trained in full. The rest
is frozen, including batch normalization: its weights and its running statistics stay those of the base, so that the
adapter and the base are the whole model.
"""

import copy
import os
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import ProcessorMixin

from ..files import replaced_whole
from ..modeling_cnn10bert import CNN10BertModel

ADAPTER, BASE = "adapter", "base"  # folders of a run
HEADS = ["audio_projection", "text_projection"]


def add_lora(model: CNN10BertModel, rank: int, *, audio: bool = False, first_text_layer: int = 0) -> PeftModel:
    """
    Freeze a model except for its projection heads, and add trainable matrices of a rank.

    Args:
        model: is changed in place.
        rank: rank of the matrices. Their product is scaled by 2, whatever the rank.
        audio: whether to add them to the convolutions too.
        first_text_layer: layer of the text network from which on they are added.
    """
    layers = "|".join(map(str, range(first_text_layer, len(model.text_model.encoder.layer))))
    targets = rf"text_model\.encoder\.layer\.({layers})\.attention\.self\.(query|value)"
    if audio:
        targets += r"|audio_model\.blocks\.\d+\.conv[12]"
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, modules_to_save=HEADS)
    return get_peft_model(model, config)


def name_base(model: PeftModel, processor: ProcessorMixin, base: str | None, run: str | os.PathLike) -> None:
    """Record which model the adapter is trained on; without a name, save that model to the folder of the run."""
    if base is None:
        base = os.path.join(run, BASE)
        with replaced_whole(base) as unfinished:
            copy.deepcopy(model).unload().save_pretrained(unfinished)
            processor.save_pretrained(unfinished)
    model.peft_config["default"].base_model_name_or_path = os.path.abspath(base) if os.path.isdir(base) else base


def save_and_merge(model: PeftModel, run: str | os.PathLike, *, is_saved: bool = True) -> CNN10BertModel:
    """
    Save the adapter to the folder of the run, and return the model with the matrices added to its weights.

    Its weights that changed require gradients, and no others.
    """
    if is_saved:
        with replaced_whole(Path(run) / ADAPTER) as unfinished:
            model.save_pretrained(unfinished)
            (unfinished / "README.md").unlink(missing_ok=True)  # an empty form; the card of the run is the model's
    changed = [layer.get_base_layer().weight for layer in model.modules() if isinstance(layer, LoraLayer)]
    merged = model.merge_and_unload()
    for weight in changed:
        weight.requires_grad_()
    return merged


__all__ = ["ADAPTER", "BASE", "add_lora", "name_base", "save_and_merge"]
