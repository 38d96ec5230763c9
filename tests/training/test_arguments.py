"""Recipes: YAML and command line together, the paper's defaults, and one clear error for what does not fit."""

from pathlib import Path

import pytest

from modeling_cnn10bert.errors import RecipeError
from modeling_cnn10bert.training.arguments import (
    ARGUMENT_CLASSES,
    NOT_OF_OURS,
    OPTIMIZERS,
    TAGGING_ARGUMENT_CLASSES,
    RetrievalTrainingArguments,
    TaggingTrainingArguments,
)
from modeling_cnn10bert.training.recipe import parse_recipe, read_recipe
from modeling_cnn10bert.training.trainer import KeyedTrainer

RECIPES = sorted((Path(__file__).resolve().parents[2] / "modeling_cnn10bert" / "recipes").glob("*.yaml"))


@pytest.fixture
def parse(tmp_path):
    """Parses a recipe of the given text and arguments, and joins the fields of all its parts."""

    def parse(text, *arguments):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return {name: value for part in parse_recipe([str(path), *arguments]) for name, value in vars(part).items()}

    return parse


def test_a_recipe_is_read_and_the_command_line_overrides_it(parse, tmp_path):
    fields = parse(
        f"""
        output_dir: {tmp_path}
        learning_rate: 2e-4
        hidden_sizes: [8, 16, 32, 64]
        bf16: false
        freeze_text_tower: true
        text_learning_rate: null
        max_train_samples: 7
        g_max: 3
        gradient_checkpointing_kwargs: {{"use_reentrant": false}}
        """,
        *("--learning_rate", "5e-4", "--w_t", "40", "--max_train_samples=9"),
    )
    assert fields["learning_rate"] == 5e-4
    assert fields["hidden_sizes"] == [8, 16, 32, 64]
    assert fields["freeze_text_tower"] is True
    assert fields["text_learning_rate"] is None
    assert (fields["max_train_samples"], fields["g_max"], fields["w_t"]) == (9, 3.0, 40)
    assert fields["gradient_checkpointing_kwargs"] == {"use_reentrant": False}


def test_fields_need_no_recipe():
    assert parse_recipe(["--output_dir", "somewhere"])[3].output_dir == "somewhere"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_project_parses(recipe):
    # bf16 asks for an accelerator
    arguments = [str(recipe), "--bf16", "false", "--use_cpu", "true"]
    if recipe.stem == "soundscapes_tagging":
        arguments += ["--manifests", "x", "--sources", "y"]
    classes = TAGGING_ARGUMENT_CLASSES if recipe.stem.endswith("tagging") else ARGUMENT_CLASSES
    *_, training = parse_recipe(arguments, argument_classes=classes)
    assert training.do_train and training.do_predict
    assert training.per_device_train_batch_size == training.total_train_batch_size


def test_the_recipes_are_there():
    assert {"demo", "soundscapes", "soundscapes_small"} <= {path.stem for path in RECIPES}


def test_the_defaults_are_those_of_section_6_4_of_the_paper():
    training = parse_recipe(["--output_dir", "x"])[3]
    assert (training.learning_rate, training.lr_decay_factor, training.lr_decay_epochs) == (1e-4, 3.0, 10)
    assert (training.num_train_epochs, training.per_device_train_batch_size) == (50, 30)
    assert training.learning_rate_schedule == "step"
    assert training.max_grad_norm == 0.0


def test_the_augmented_system_has_the_best_values_of_table_4_of_the_paper():
    recipe = next(path for path in RECIPES if path.stem == "clotho_augmented")
    fields = read_recipe(recipe)
    text = {"p_eda": 0.9936, "p_syn": 0.2962, "p_swp": 0.0085, "p_ins": 0.0269, "p_del": 0.1944, "p_bt": 0.1812}
    audio = {"n_f": 1, "w_f": 4, "n_t": 7, "w_t": 58, "g_max": 3, "ms_alpha": 0.8286}
    assert {name: fields[name] for name in text | audio} == text | audio
    assert 0 < fields["p_ms"] <= 1  # its best value is lost in our copy


ERRORS = {
    "an unknown field": ("learning_rat: 0.1", ["recipe.yaml", "learning_rat", "0.1", "learning_rate"]),
    "a number that is none": ("learning_rate: fast", ["recipe.yaml", "learning_rate", "fast", "float"]),
    "an integer that is none": ("w_f: 2.5", ["recipe.yaml", "w_f", "2.5", "int"]),
    "a truth value that is none": ("do_train: perhaps", ["recipe.yaml", "do_train", "perhaps"]),
    "a list for one value": ("learning_rate: [0.1, 0.2]", ["recipe.yaml", "learning_rate", "[0.1, 0.2]"]),
    "a choice that is none": ("text_pooling: max", ["recipe.yaml", "text_pooling", "max", "cls", "mean"]),
    "no mapping": ("- learning_rate", ["recipe.yaml", "list", "field: value"]),
    "nothing": ("", ["recipe.yaml", "NoneType", "field: value"]),
    "no YAML": ("a: [1", ["recipe.yaml", "YAML"]),
    "a schedule that nobody knows": ("learning_rate_schedule: stairs", ["learning_rate_schedule", "stairs", "step"]),
    "a negative gain": ("g_max: -3", ["g_max", "-3"]),
    "a negative number of stripes": ("n_t: -1", ["n_t", "-1"]),
    "a negative width": ("w_f: -8", ["w_f", "-8"]),
    "a probability above one": ("p_eda: 1.01", ["p_eda", "1.01", "[0, 1]"]),
    "a probability below nothing": ("p_ms: -0.1", ["p_ms", "-0.1", "[0, 1]"]),
    "a probability that is no number": ("p_del: .nan", ["p_del", "nan", "[0, 1]"]),
    "a negative alpha": ("ms_alpha: -0.5", ["ms_alpha", "-0.5"]),
    "an infinite gain": ("g_max: .inf", ["g_max", "inf"]),
    "a small negative number": ("g_max: -1.0e-5", ["g_max", "-1e-05"]),
    "a dropout of everything": ("text_dropout: 1", ["text_dropout", "1.0", "less than 1"]),
    "no samples": ("max_train_samples: 0", ["max_train_samples", "0", "at least 1"]),
    "a dropped last batch": ("dataloader_drop_last: true", ["dataloader_drop_last"]),
    "unused columns removed": ("remove_unused_columns: true", ["remove_unused_columns"]),
    "a cache whose name is read as an address": ("cache_dir: a::b/cache", ["cache_dir a::b/cache", "'::'"]),
    "a data set whose name is read as an address": ("dataset_name: data::set", ["dataset_name data::set", "'::'"]),
    "an output folder on a server": ("output_dir: s3://bucket/run", ["output_dir s3://bucket/run", "'://'"]),
    "a negative seed": ("seed: -1", ["seed must be from 0", "-1"]),
    "a seed beyond 32 bits": ("data_seed: 4294967296", ["data_seed must be from 0", "4294967296"]),
    "another order of the pairs": ("train_sampling_strategy: sequential", ["train_sampling_strategy", "sequential"]),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_does_not_fit_is_one_error_that_names_it(case, parse):
    text, named = ERRORS[case]
    with pytest.raises(RecipeError) as error:
        parse(text)
    message = str(error.value)
    assert all(word in message for word in named), message
    assert len(message) < 600


def test_a_missing_file_and_an_unknown_option_are_errors_that_name_them(parse):
    with pytest.raises(RecipeError, match="nowhere.yaml"):
        parse_recipe(["nowhere.yaml"])
    with pytest.raises(RecipeError, match="--learning_rats"):
        parse("w_f: 1", "--learning_rats", "1")
    with pytest.raises(RecipeError, match="learning_rate.*'fast'"):
        parse("w_f: 1", "--learning_rate", "fast")


@pytest.mark.parametrize(("name", "expected"), [("mAP@10", True), ("eval_a2t_R@1", True), ("MedR", False)])
def test_whether_more_is_better_follows_from_the_metric(name, expected, tmp_path):
    assert RetrievalTrainingArguments(output_dir=tmp_path, metric_for_best_model=name).greater_is_better is expected
    given = {"output_dir": tmp_path, "metric_for_best_model": name}
    assert RetrievalTrainingArguments(**given, greater_is_better=expected).greater_is_better is expected
    with pytest.raises(ValueError, match=f"greater_is_better is {not expected}, but .* leave greater_is_better out"):
        RetrievalTrainingArguments(**given, greater_is_better=not expected)


@pytest.mark.parametrize("name", ["loss", "mAP@5", "mAP"])
def test_a_metric_that_no_evaluation_gives_is_an_error_before_training(name, tmp_path):
    with pytest.raises(ValueError, match=f"must be one of R@1, .*, a2t_MedR, found {name}"):
        RetrievalTrainingArguments(output_dir=tmp_path, metric_for_best_model=name)


@pytest.mark.parametrize(("processes", "devices", "share"), [(2, 0, 15), (3, 1, 10), (1, 2, 15), (30, 1, 1)])
def test_thirty_pairs_are_shared_by_all_devices(processes, devices, share, monkeypatch, tmp_path):
    monkeypatch.setattr(RetrievalTrainingArguments, "world_size", property(lambda self: processes))
    monkeypatch.setattr(RetrievalTrainingArguments, "n_gpu", property(lambda self: devices))
    assert RetrievalTrainingArguments(output_dir=tmp_path).per_device_train_batch_size == share


@pytest.mark.parametrize("processes", [4, 31])
def test_a_batch_that_the_processes_cannot_share_is_an_error(processes, monkeypatch, tmp_path):
    monkeypatch.setattr(RetrievalTrainingArguments, "world_size", property(lambda self: processes))
    with pytest.raises(ValueError, match=f"total_train_batch_size is 30, which {processes} processes cannot share"):
        RetrievalTrainingArguments(output_dir=tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"captions_per_recording": 0}, "captions_per_recording must be at least 1, found 0"),
        ({"captions_per_recording": 4}, "captions_per_recording is 4, but a process takes 30 pairs of a step"),
        ({"contrastive_cache_chunk": 0}, "contrastive_cache_chunk must be at least 1"),
        ({"captions_per_recording": 5, "contrastive_cache_chunk": 3}, "must be at least 5, .* found 3"),
    ],
)
def test_what_a_batch_is_made_of_must_fit_it(fields, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        RetrievalTrainingArguments(output_dir=tmp_path, **fields)


# ----------------------------------------------------------------------------------- what would be waited for in vain

REFUSED = {
    "lr_scheduler_type": "linear",  # transformers' default, which is none of ours
    "lr_scheduler_kwargs": {"num_cycles": 2},
    "optim_args": "momentum=0.9",
    "optim_target_modules": "attn",
    "liger_kernel_config": {"rope": True},
    "include_for_metrics": ["inputs"],
    "accelerator_config": {"split_batches": True},
    "parallelism_config": object(),
    "fsdp": "full_shard",
    "fsdp_config": {"xla": True},
    "deepspeed": "deepspeed.json",
    "dataloader_in_order": False,
    "eval_do_concat_batches": False,
    "label_names": ["labels"],
    "length_column_name": "frames",
    **dict.fromkeys(("label_smoothing_factor", "neftune_noise_alpha"), 0.1),
}


@pytest.mark.parametrize("name", NOT_OF_OURS)
@pytest.mark.parametrize("arguments", [RetrievalTrainingArguments, TaggingTrainingArguments])
def test_a_field_that_would_have_no_effect_is_refused_with_what_to_do(name, arguments, tmp_path):
    with pytest.raises(ValueError, match=f"^{name} must be left out, found .*: .+") as error:
        arguments(output_dir=str(tmp_path), use_cpu=True, **{name: REFUSED.get(name, True)})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_sharded_training_is_refused_however_it_was_asked_for(variable, tmp_path, monkeypatch):
    monkeypatch.setenv(variable, "true")
    with pytest.raises(ValueError, match=f"{variable} must be left unset, found true: processes share batches"):
        RetrievalTrainingArguments(output_dir=str(tmp_path), use_cpu=True)


def test_a_recipe_says_so_in_one_line(parse):
    with pytest.raises(RecipeError, match="lr_scheduler_type must be left out, found linear: set learning_rate_sched"):
        parse("output_dir: x", "--lr_scheduler_type", "linear")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"learning_rate_schedule": "reduce_lr_on_plateau"}, "learning_rate_schedule must be one of step, .*plateau"),
        ({"learning_rate_schedule": "cosine_with_min_lr"}, "learning_rate_schedule must be one of step, .*min_lr"),
        ({"optim": "galore_adamw"}, "optim must be one of adamw_torch, .*found 'galore_adamw'"),
        ({"warmup_steps": 0.1}, "warmup_steps is 0.1, but learning_rate_schedule step has no warmup"),
        ({"warmup_steps": 5, "learning_rate_schedule": "constant"}, "warmup_steps is 5, .* constant has no warmup"),
        (
            {"lr_decay_epochs": 3, "learning_rate_schedule": "linear"},
            "lr_decay_epochs is 3, but only .* step",
        ),
        ({"lr_decay_factor": 2, "learning_rate_schedule": "cosine"}, "lr_decay_factor is 2, but only .* step"),
        ({"fp16": True}, "fp16 must be off where a CPU trains; set bf16"),
        ({"report_to": "nowhere"}, "report_to must be one of none, .*found 'nowhere'"),
        (
            {"per_device_train_batch_size": 8, "total_train_batch_size": 32},
            "total_train_batch_size is 32, but per_device_train_batch_size 8 makes 8 on 1 devices",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_what_else_would_be_waited_for_in_vain_is_refused(fields, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        RetrievalTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **fields)


def test_the_batch_of_a_process_makes_that_of_all(tmp_path):
    arguments = RetrievalTrainingArguments(output_dir=str(tmp_path), use_cpu=True, per_device_train_batch_size=8)
    assert arguments.total_train_batch_size == 8


def test_an_optimizer_without_amsgrad_is_refused_with_it(tmp_path):
    with pytest.raises(ValueError, match="optim is sgd; set amsgrad to false"):
        TaggingTrainingArguments(output_dir=str(tmp_path), use_cpu=True, optim="sgd")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_is_the_one_of_its_name(name, tmp_path):
    arguments = RetrievalTrainingArguments(output_dir=str(tmp_path), use_cpu=True, optim=name)
    made, options = KeyedTrainer.get_optimizer_cls_and_kwargs(arguments)
    assert made.__name__.lower() == name.split("_")[0] and options["lr"] == 1e-4
