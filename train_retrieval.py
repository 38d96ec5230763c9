"""Trains a retrieval model as a recipe says, and scores it.

    python train_retrieval.py RECIPE.yaml [--field value ...]
    accelerate launch [...] train_retrieval.py RECIPE.yaml [--field value ...]

`--help` lists all fields. Results go to OUTPUT_DIR/all_results.json, the loss and metric curve to OUTPUT_DIR/curve.png,
the model card to OUTPUT_DIR/README.md. `--push_to_hub` publishes the folder when all is done; whether that may be is
asked before anything else.
"""

from transformers.utils import logging

from modeling_cnn10bert.publishing.facts import code_version
from modeling_cnn10bert.training.arguments import (
    AugmentationArguments,
    DataArguments,
    ModelArguments,
    RetrievalTrainingArguments,
)
from modeling_cnn10bert.training.build import build_trainer, evaluation_recordings
from modeling_cnn10bert.training.command_line import RESUME, run
from modeling_cnn10bert.training.publish import check_before_training, finish_run, write_model_card
from modeling_cnn10bert.training.recipe import parse_recipe
from modeling_cnn10bert.training.run_folder import checkpoint_to_resume, sole_run
from modeling_cnn10bert.training.trainer import RetrievalTrainer


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Runs one recipe; returns the metrics of all its parts."""
    *parts, training_args = parse_recipe(argv, description=__doc__)
    logging.set_verbosity(training_args.get_process_log_level())
    with sole_run(training_args):
        return _train_and_score(*parts, training_args, argv)


def _train_and_score(
    model_args: ModelArguments,
    data_args: DataArguments,
    augmentation_args: AugmentationArguments,
    training_args: RetrievalTrainingArguments,
    argv: list[str] | None,
) -> dict[str, float]:
    checkpoint = checkpoint_to_resume(training_args) if training_args.do_train else None
    check_before_training(training_args)
    code = code_version()
    trainer, tables = build_trainer(model_args, data_args, augmentation_args, training_args)

    results = {}
    if training_args.do_train:
        results |= trainer.train_and_save(checkpoint)
    if training_args.do_eval:
        results |= _score(trainer, None, "eval")
    if training_args.do_predict:
        results |= _score(
            trainer, evaluation_recordings(tables.test, trainer.processing_class.feature_extractor), "test"
        )
    finish_run(trainer, lambda: write_model_card(trainer, tables, argv, code=code), "the model card")
    return results


def _score(trainer: RetrievalTrainer, recordings, prefix: str) -> dict[str, float]:
    metrics = trainer.evaluate(recordings, metric_key_prefix=prefix)
    trainer.log_metrics(prefix, metrics)
    trainer.save_metrics(prefix, metrics)
    return metrics


if __name__ == "__main__":
    run(main, RESUME)
