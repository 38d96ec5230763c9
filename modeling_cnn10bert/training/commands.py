"""The commands that train, from the words of a command line to the files of a run."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import optuna
from transformers import TrainingArguments
from transformers.utils import logging

from ..evaluation.tagging import score_classes, write_class_scores
from ..publishing.facts import (
    DATA_FACTS,
    code_version,
    earlier_data,
    hub_id,
    tagging_facts,
    without_folders,
    write_data_facts,
)
from ..registration import register
from .arguments import ARGUMENT_CLASSES, TAGGING_ARGUMENT_CLASSES, field_defaults
from .build import build_trainer, evaluation_recordings
from .publish import check_before_training, finish_run, write_model_card
from .recipe import given_fields, parse_recipe
from .run_folder import checkpoint_to_resume, locked, sole_run
from .search import (
    SearchArguments,
    SearchTrainingArguments,
    build_search_trainer,
    open_study,
    run_search,
    storage_faults,
    storage_name,
)
from .search_results import SearchResults, best_trial, claim_folder, claim_study, relevant_fields
from .search_space import ranges
from .tagging import build_tagging_trainer, evaluation_clips

SEARCH_ARGUMENT_CLASSES = (*ARGUMENT_CLASSES[:-1], SearchTrainingArguments, SearchArguments)


@contextlib.contextmanager
def _begin(arguments: TrainingArguments) -> Iterator[str | None]:
    """Hold the output folder for a training that may be published, and yield the checkpoint that it continues from."""
    register()
    logging.set_verbosity(arguments.get_process_log_level())
    with sole_run(arguments):
        checkpoint = checkpoint_to_resume(arguments) if arguments.do_train else None
        check_before_training(arguments)
        yield checkpoint


def train(argv: list[str] | None = None) -> dict[str, float]:
    """Train a retrieval model from a recipe and evaluate it.

        cnn10bert train RECIPE [--field value ...]
        accelerate launch [...] train_retrieval.py RECIPE [--field value ...]

    RECIPE is a YAML file or a name that `cnn10bert recipes` lists. All fields that
    a recipe or the command line can set are listed below. OUTPUT_DIR will contain
    the model, its model card README.md, all_results.json and curve.png.
    --push_to_hub publishes it after the run. Write access to the Hub is checked
    before the run.

    Examples:
        cnn10bert train soundscapes_small --dataset_name data/mine
        cnn10bert train clotho_baseline --output_dir runs/seed_1 --seed 1
        cnn10bert train clotho_baseline --resume_from_checkpoint true
    """
    model_args, data_args, augmentation_args, training_args = parse_recipe(argv, train.__doc__)
    with _begin(training_args) as checkpoint:
        code = code_version()
        trainer, tables = build_trainer(model_args, data_args, augmentation_args, training_args)

        def score(recordings, prefix: str) -> dict[str, float]:
            metrics = trainer.evaluate(recordings, metric_key_prefix=prefix)
            trainer.log_metrics(prefix, metrics)
            trainer.save_metrics(prefix, metrics)
            return metrics

        results = {}
        if training_args.do_train:
            results |= trainer.train_and_save(checkpoint)
        if training_args.do_eval:
            results |= score(None, "eval")
        if training_args.do_predict:
            test = evaluation_recordings(tables.test, trainer.processing_class.feature_extractor)
            results |= score(test, "test")
        finish_run(trainer, lambda: write_model_card(trainer, tables, argv, code=code), "the model card")
        return results


def train_tagger(argv: list[str] | None = None) -> dict[str, float]:
    """Pretrain the audio tower on audio tagging and evaluate it per class.

        cnn10bert train-tagger RECIPE [--field value ...]
        accelerate launch [...] scripts/train_tagging.py RECIPE [--field value ...]

    All fields that a recipe or the command line can set are listed below.
    OUTPUT_DIR will contain the tagger, all_results.json, curve.png and
    test_classes.csv. To train a retrieval model from it, use
    --audio_model_name_or_path OUTPUT_DIR.

    Examples:
        cnn10bert train-tagger audioset_tagging --labels class_labels_indices.csv
    """
    tagger_args, data_args, training_args = parse_recipe(argv, train_tagger.__doc__, TAGGING_ARGUMENT_CLASSES)
    with _begin(training_args) as checkpoint:
        trainer, tables = build_tagging_trainer(tagger_args, data_args, training_args)

        def score(table, prefix: str) -> dict[str, float]:
            clips = evaluation_clips(table, trainer.processing_class, len(tables.classes))
            output = trainer.predict(clips, metric_key_prefix=prefix)
            trainer.log_metrics(prefix, output.metrics)
            trainer.save_metrics(prefix, output.metrics)
            if trainer.is_world_process_zero():
                classes = score_classes(output.predictions, output.label_ids, tables.classes)
                write_class_scores(classes, Path(training_args.output_dir) / f"{prefix}_classes.csv")
            return output.metrics

        def write_facts() -> None:
            """Leave what the tagger was trained on, for the cards of the models that start from it."""
            start, before = tagger_args.model_name_or_path, []
            if start:
                before = earlier_data(start, {"name": without_folders(start), "hub_id": hub_id(start)})
            own = tagging_facts(vars(data_args), vars(tables), len(tables.classes))
            write_data_facts(training_args.output_dir, [*before, own])

        results = {}
        if training_args.do_train:
            results |= trainer.train_and_save(checkpoint)
        if training_args.do_eval:
            results |= score(tables.validation, "eval")
        if training_args.do_predict:
            results |= score(tables.test, "test")
        finish_run(trainer, write_facts, DATA_FACTS)
        return results


def search_hyperparameters(argv: list[str] | None = None) -> optuna.Study:
    """Search the hyperparameters of the augmentations (section 6.5 of the paper).

        cnn10bert search-hyperparameters RECIPE [--field value ...]

    Run the same command again to resume a search. To use several devices, start it
    once per device with CUDA_VISIBLE_DEVICES. Processes with the same --storage
    share the trials. All fields are listed below. OUTPUT_DIR will contain
    trials.csv, history.png, slices.png, importance.png and best.yaml. best.yaml is
    the recipe of the best trial, for `cnn10bert train`.

    Examples:
        cnn10bert search-hyperparameters clotho_augmented --output_dir runs/search
        cnn10bert search-hyperparameters clotho_augmented --output_dir runs/search \\
            --storage postgresql://USER:PASSWORD@HOST/DATABASE
    """
    *recipe, search_args = parse_recipe(argv, search_hyperparameters.__doc__, SEARCH_ARGUMENT_CLASSES)
    register()
    training_args = recipe[-1]
    given = given_fields(argv, SEARCH_ARGUMENT_CLASSES)
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
        claim_study(study, {"space": ranges(trainer.space), "fields": fields}, field_defaults(SEARCH_ARGUMENT_CLASSES))
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
