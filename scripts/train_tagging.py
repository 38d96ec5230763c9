"""Pretrains the audio tower as a tagger, as a recipe says, and scores it by class.

    python scripts/train_tagging.py RECIPE.yaml [--field value ...]
    accelerate launch [...] scripts/train_tagging.py RECIPE.yaml [--field value ...]

`--help` lists all fields. Leaves in OUTPUT_DIR the tagger, which train_retrieval.py starts from by
`--audio_model_name_or_path OUTPUT_DIR`, all_results.json, curve.png, and the scores by class in test_classes.csv.
"""

from pathlib import Path

from transformers.utils import logging

from modeling_cnn10bert.evaluation.tagging import score_classes, write_class_scores
from modeling_cnn10bert.publishing.facts import (
    DATA_FACTS,
    earlier_data,
    hub_id,
    tagging_facts,
    without_folders,
    write_data_facts,
)
from modeling_cnn10bert.training.arguments import (
    TAGGING_ARGUMENT_CLASSES,
    TaggerArguments,
    TaggingDataArguments,
    TaggingTrainingArguments,
)
from modeling_cnn10bert.training.command_line import RESUME, run
from modeling_cnn10bert.training.publish import check_before_training, finish_run
from modeling_cnn10bert.training.recipe import parse_recipe
from modeling_cnn10bert.training.run_folder import checkpoint_to_resume, sole_run
from modeling_cnn10bert.training.tagging import TaggingTables, TaggingTrainer, build_tagging_trainer, evaluation_clips


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Runs one recipe; returns the metrics of all its parts."""
    *parts, training_args = parse_recipe(argv, __doc__, TAGGING_ARGUMENT_CLASSES)
    logging.set_verbosity(training_args.get_process_log_level())
    with sole_run(training_args):
        return _train_and_score(*parts, training_args)


def _train_and_score(
    tagger_args: TaggerArguments, data_args: TaggingDataArguments, training_args: TaggingTrainingArguments
) -> dict[str, float]:
    checkpoint = checkpoint_to_resume(training_args) if training_args.do_train else None
    check_before_training(training_args)
    trainer, tables = build_tagging_trainer(tagger_args, data_args, training_args)

    results = {}
    if training_args.do_train:
        results |= trainer.train_and_save(checkpoint)
    if training_args.do_eval:
        results |= _score(trainer, tables, "validation", "eval")
    if training_args.do_predict:
        results |= _score(trainer, tables, "test", "test")
    finish_run(trainer, lambda: _write_data_facts(tagger_args, data_args, training_args, tables), DATA_FACTS)
    return results


def _write_data_facts(
    tagger_args: TaggerArguments,
    data_args: TaggingDataArguments,
    training_args: TaggingTrainingArguments,
    tables: TaggingTables,
) -> None:
    """Leave what the tagger was trained on, for the cards of the models that start from it."""
    start, before = tagger_args.model_name_or_path, []
    if start:
        before = earlier_data(start, {"name": without_folders(start), "hub_id": hub_id(start)})
    write_data_facts(
        training_args.output_dir, [*before, tagging_facts(vars(data_args), vars(tables), len(tables.classes))]
    )


def _score(trainer: TaggingTrainer, tables: TaggingTables, split: str, prefix: str) -> dict[str, float]:
    clips = evaluation_clips(getattr(tables, split), trainer.processing_class, len(tables.classes))
    output = trainer.predict(clips, metric_key_prefix=prefix)
    trainer.log_metrics(prefix, output.metrics)
    trainer.save_metrics(prefix, output.metrics)
    if trainer.is_world_process_zero():
        classes = score_classes(output.predictions, output.label_ids, tables.classes)
        write_class_scores(classes, Path(trainer.args.output_dir) / f"{prefix}_classes.csv")
    return output.metrics


if __name__ == "__main__":
    run(main, RESUME)
