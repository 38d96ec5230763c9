"""Pretrains the audio tower as a tagger, as a recipe says, and scores it by class.

    python scripts/train_tagging.py RECIPE.yaml [--field value ...]
    accelerate launch [...] scripts/train_tagging.py RECIPE.yaml [--field value ...]

`--help` lists all fields. Leaves in OUTPUT_DIR the tagger, which train_retrieval.py starts from by
`--audio_model_name_or_path OUTPUT_DIR`, all_results.json, curve.png, and the scores by class in test_classes.csv.
"""

from pathlib import Path

from transformers.utils import logging

from modeling_cnn10bert.evaluation.tagging import score_classes, write_class_scores
from modeling_cnn10bert.publishing.preflight import check_before_training
from modeling_cnn10bert.training.command_line import run
from modeling_cnn10bert.training.recipe import parse_recipe
from modeling_cnn10bert.training.run_folder import checkpoint_to_resume
from modeling_cnn10bert.training.tagging import TaggingTables, TaggingTrainer, build_tagging_trainer, evaluation_clips
from modeling_cnn10bert.training.tagging_arguments import TAGGING_ARGUMENT_CLASSES


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Runs one recipe; returns the metrics of all its parts."""
    tagger_args, data_args, training_args = parse_recipe(argv, __doc__, TAGGING_ARGUMENT_CLASSES)
    logging.set_verbosity(training_args.get_process_log_level())
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
    if training_args.push_to_hub:
        trainer.push_to_hub()
    return results


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
    run(main)
