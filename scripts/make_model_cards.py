"""Write model_cards/, one card for each of the paper's own systems of table 3, from the template of every run's card.

    python scripts/make_model_cards.py

Their figures are the paper's, and each card says so: no run of this project has produced them. They are not in the
cards' metadata, because a `model-index` reports scores of published weights and these cards have none. A run of one of
the recipes writes a card of its own, with its own figures, to its output folder.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import yaml_dump

from modeling_cnn10bert import CNN10BertConfig, CNN10BertModel, CNN10FeatureExtractor
from modeling_cnn10bert.evaluation.reports import TABLE_METRICS, markdown_table
from modeling_cnn10bert.files import write_text
from modeling_cnn10bert.processing_cnn10bert import MAX_CAPTION_TOKENS
from modeling_cnn10bert.publishing.card import DATASETS, LICENCES, card_data, render_card
from modeling_cnn10bert.publishing.facts import parameters_of, published_fields
from modeling_cnn10bert.training.arguments import RetrievalTrainingArguments
from modeling_cnn10bert.training.recipe import RECIPES, RUNS, read_recipe
from reproduce.ladders import TABLES, Row
from reproduce.prerequisites import MADE_BY
from reproduce.run_queue import REPOSITORY

CARDS = REPOSITORY / "model_cards"
TEXT_MODEL = "google-bert/bert-base-uncased"
AUGMENTATIONS = {  # field that switches it on -> its description
    "g_max": "gain",
    "p_ms": "Freq-MixStyle",
    "n_t": "SpecAugment",
    "p_bt": "back-translation",
    "p_eda": "EDA",
}


def main() -> None:
    for name, text in paper_cards().items():
        write_text(CARDS / name, text)
        print(CARDS / name)


def paper_cards() -> dict[str, str]:
    """Return file name -> card for each row of table 3 that a recipe trains."""
    with torch.device("meta"):
        model = CNN10BertModel(CNN10BertConfig())
    return {f"{row.recipe}.md": _card(row, model) for row in TABLES[3, "clotho"] if row.recipe}


def _card(row: Row, model: CNN10BertModel) -> str:
    fields, folder = read_recipe(RECIPES / f"{row.recipe}.yaml"), str(RUNS / row.recipe)
    sizes = {
        "audio": parameters_of(model.audio_model, model.audio_projection)["parameters"],
        "text": parameters_of(model.text_model, model.text_projection)["parameters"],
    }
    extractor = CNN10FeatureExtractor()
    card = render_card(
        card_data(
            row.recipe,
            datasets=[name for source in _sources(fields) for name in DATASETS[source]],
            base_models=[TEXT_MODEL],
        ),
        title=f"Language-based audio retrieval on Clotho: {row.name}",
        model_id=folder,
        model={
            "embedding_dim": model.config.projection_dim,
            "sampling_rate": extractor.sampling_rate,
            "num_mel_bins": extractor.feature_size,
            "max_caption_tokens": MAX_CAPTION_TOKENS,
        },
        weights=False,
        results=markdown_table(["**the paper's**, in percent", *TABLE_METRICS], [["text to audio", *row.paper]]),
        results_note=(
            f"The row “{row.name}” of the paper's table 3: Clotho v2.1's test set, 1,045 recordings with five captions "
            "each, mean of three runs, for mAP@10 with its standard deviation. The paper has no figures from "
            "audio to text. Where and why `cnn10bert` differs from the paper is in its docs/deviations.md."
        ),
        how=_how(fields, sizes),
        recipe=yaml_dump(published_fields(fields), sort_keys=False).strip(),
        commands="\n".join(dict.fromkeys(_commands(row.recipe))),
        folders_left_out=False,
        data_notes=[LICENCES[source] for source in _sources(fields)],
        known_sounds="",
    )
    return str(card)


def _how(fields: Mapping[str, Any], sizes: Mapping[str, int]) -> list[tuple[str, str]]:
    defaults = RetrievalTrainingArguments
    rate = fields.get("learning_rate", defaults.learning_rate)
    used = [what for field, what in AUGMENTATIONS.items() if fields.get(field)]
    return [
        ("training data", "Clotho v2.1: 3,839 recordings, each with five captions; 1,045 more for validation"),
        ("started from", _start(fields)),
        ("parameters", f"audio tower {sizes['audio']:,}; text tower {sizes['text']:,}, each with its head"),
        (
            "training",
            f"{defaults.num_train_epochs} epochs, {defaults.total_train_batch_size} pairs of a caption and a recording "
            f"per step; Adam, learning rate {rate:g}, divided by {defaults.lr_decay_factor:g} every "
            f"{defaults.lr_decay_epochs} epochs; the weights of the epoch with the best validation "
            f"{defaults.metric_for_best_model}",
        ),
        ("augmentation", ", ".join(used) or "none"),
        *([("set by us", "`p_ms`: its best value is lost in our copy of the paper's table 4")] if used else []),
    ]


def _start(fields: Mapping[str, Any]) -> str:
    if start := fields.get("model_name_or_path"):
        recipe = Path(start).name
        before = _start(read_recipe(RECIPES / f"{recipe}.yaml"))
        return f"what `{recipe}` trains on AudioCaps at ten times the learning rate, which starts from {before}"
    audio = "CNN10 pretrained on AudioSet (PANNs)" if "audio_model_name_or_path" in fields else "random weights"
    text = f"[{TEXT_MODEL}](https://huggingface.co/{TEXT_MODEL})"
    return f"audio tower: {audio}; text tower: {text}; projection heads: random weights"


def _commands(recipe: str) -> list[str]:
    """List all commands to the trained model; commands that two pretrainings share are repeated."""
    fields = read_recipe(RECIPES / f"{recipe}.yaml")
    commands = _commands(Path(fields["model_name_or_path"]).name) if "model_name_or_path" in fields else []
    commands.append(MADE_BY[fields["dataset_name"]])
    if "audio_model_name_or_path" in fields:
        commands.append(MADE_BY[fields["audio_model_name_or_path"]])
    if fields.get("p_syn"):
        commands.append("python -m nltk.downloader wordnet")
    if fields.get("p_bt"):
        commands.append(f"cnn10bert back-translate {fields['dataset_name']} de fr es")
    return [*commands, f"cnn10bert train {recipe}"]


def _sources(fields: Mapping[str, Any]) -> list[str]:
    """List the training data of a row, those of its pretrained models first."""
    from_panns = "audio_model_name_or_path" in fields or "model_name_or_path" in fields
    used = {
        "BERT": True,
        "AudioSet": from_panns,
        "PANNs": from_panns,
        "AudioCaps": "model_name_or_path" in fields,
        "Clotho": True,
    }
    return [source for source, is_used in used.items() if is_used]


if __name__ == "__main__":
    main()
