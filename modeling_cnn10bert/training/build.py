"""From the arguments of a recipe to the trainer that runs it."""

from transformers import set_seed

from ..data.collator import RetrievalCollator
from ..data.pairs import SharedEpoch
from .arguments import AugmentationArguments, DataArguments, ModelArguments, RetrievalTrainingArguments
from .data import RecordingTables, evaluation_recordings, load_recordings, training_pairs
from .model import load_model_and_processor
from .trainer import RetrievalTrainer


def build_trainer(
    model_args: ModelArguments,
    data_args: DataArguments,
    augmentation_args: AugmentationArguments,
    training_args: RetrievalTrainingArguments,
    tables: RecordingTables | None = None,
) -> tuple[RetrievalTrainer, RecordingTables]:
    """
    Build the trainer of a recipe, which has the model, the validation set and, with `do_train`, the training pairs; and
    the recordings' tables.

    Sets all random seeds: fresh weights are drawn here.

    Args:
        model_args, data_args, augmentation_args, training_args: the parts of the recipe.
        tables: those of an earlier call with the same `data_args`, which need not be loaded again.

    Raises:
        RecipeError, ManifestError, AudioError: what is wrong with the arguments or with what they name.
    """
    set_seed(training_args.seed)
    model, processor = load_model_and_processor(model_args)
    feature_extractor = processor.feature_extractor
    if tables is None:
        with training_args.main_process_first(desc="preparing the recordings"):
            tables = load_recordings(data_args, feature_extractor, training_args.seed)
    epoch, pairs = SharedEpoch(), None
    if training_args.do_train:  # else nothing is asked of the augmentations' needs, such as WordNet
        pairs = training_pairs(
            tables,
            augmentation_args,
            feature_extractor,
            training_args.seed,
            epoch,
            training_args.captions_per_recording,
        )
    trainer = RetrievalTrainer(
        model=model,
        args=training_args,
        data_collator=RetrievalCollator(processor),
        train_dataset=pairs,
        eval_dataset=evaluation_recordings(tables.validation, feature_extractor),
        processing_class=processor,
        epoch=epoch,
    )
    return trainer, tables
