"""Searches the hyperparameters of the augmentations, as section 6.5 of the paper does: table 4's ranges, 110 trials.

    python scripts/search_hyperparameters.py RECIPE.yaml [--field value ...] [--storage sqlite:///study.db]

The same command goes on with a search that was killed, and takes part in one that runs: start it once per device, with
CUDA_VISIBLE_DEVICES. On several machines, give all the same --storage postgresql://USER:PASSWORD@HOST/DATABASE.

OUTPUT_DIR gets trials.csv, history.png, slices.png, importance.png, and best.yaml, the recipe of the best trial for
train_retrieval.py. `--help` lists all fields.
"""

from pathlib import Path

import optuna
from transformers.utils import logging

from modeling_cnn10bert.training.arguments import ARGUMENT_CLASSES, field_defaults
from modeling_cnn10bert.training.command_line import run
from modeling_cnn10bert.training.recipe import given_fields, parse_recipe
from modeling_cnn10bert.training.run_folder import locked
from modeling_cnn10bert.training.search import (
    SearchArguments,
    SearchTrainingArguments,
    build_search_trainer,
    open_study,
    run_search,
    storage_faults,
    storage_name,
)
from modeling_cnn10bert.training.search_results import (
    SearchResults,
    best_trial,
    claim_folder,
    claim_study,
    relevant_fields,
)
from modeling_cnn10bert.training.search_space import ranges

CLASSES = (*ARGUMENT_CLASSES[:-1], SearchTrainingArguments, SearchArguments)


def main(argv: list[str] | None = None) -> optuna.Study:
    """Runs one search to its end; returns its study."""
    *recipe, search_args = parse_recipe(argv, description=__doc__, argument_classes=CLASSES)
    training_args = recipe[-1]
    given = given_fields(argv, CLASSES)
    logging.set_verbosity(training_args.get_process_log_level())
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # a line of our own tells about each trial
    folder = Path(training_args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    search_args.storage = search_args.storage or f"sqlite:///{folder / 'study.db'}"
    search_args.study_name = search_args.study_name or folder.resolve().name

    trainer = build_search_trainer(*recipe, search_args)
    with storage_faults(search_args.storage):
        study, storage = open_study(search_args, training_args)
        with locked(folder):  # a training holds it to its end, and begins in no folder of a search
            claim_folder(folder, search_args.storage, study)
        fields = relevant_fields(given, trainer.space, training_args)
        claim_study(study, {"space": ranges(trainer.space), "fields": fields}, field_defaults(CLASSES))
        results = SearchResults(folder, given, trainer.space, training_args, search_args.n_trials)
        print(
            f"study {study.study_name} in {storage_name(search_args.storage)}: {', '.join(trainer.space)}", flush=True
        )
        try:
            run_search(trainer, study, storage, results.after_trial)
        finally:
            results.write(study)
    best = best_trial(study.trials)
    print(f"best: trial {best.number}, validation mAP@10 {best.value:.4f}; {folder / 'best.yaml'}")
    return study


if __name__ == "__main__":
    run(main)
