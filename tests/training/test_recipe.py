"""Recipes that extend other recipes."""

import os
import tracemalloc

import pytest

from modeling_cnn10bert.errors import RecipeError
from modeling_cnn10bert.training.arguments import TAGGING_ARGUMENT_CLASSES, ModelArguments
from modeling_cnn10bert.training.recipe import parse_recipe, read_recipe
from reproduce.ladders import plan_table


@pytest.fixture
def write(tmp_path):
    """Writes recipes by their names and returns the path of the last."""

    def write(**recipes):
        for name, text in recipes.items():
            (tmp_path / f"{name}.yaml").parent.mkdir(exist_ok=True)
            (tmp_path / f"{name}.yaml").write_text(text)
        return tmp_path / f"{name}.yaml"

    return write


def test_a_recipe_takes_over_what_it_does_not_say_itself(write):
    path = write(
        base="g_max: 6\nw_f: 3\nn_t: 2\n",
        middle="extends: base.yaml\ng_max: 3\n",
        top="extends: middle.yaml\nw_f: 4\n",
    )
    augmentation = parse_recipe([str(path), "--n_t", "5"])[2]
    assert (augmentation.g_max, augmentation.w_f, augmentation.n_t) == (3, 4, 5)


def test_null_gives_a_field_back_its_default(write):
    path = write(base="g_max: 6\n", top="extends: base.yaml\ng_max: null\n")
    assert parse_recipe([str(path)])[2].g_max == 0


def test_the_path_is_relative_to_the_recipe_that_names_it(write, tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "base.yaml").write_text("g_max: 6\n")
    assert read_recipe(write(top="extends: below/base.yaml\n"))["g_max"] == 6


def test_the_output_folder_is_named_after_the_recipe_and_never_that_of_another(write):
    path = write(base="output_dir: runs/mine\n", top="extends: base.yaml\n")
    assert read_recipe(path)["output_dir"] == "runs/top"
    assert parse_recipe([str(path)])[3].output_dir == "runs/top"
    assert parse_recipe([str(path), "--output_dir", "elsewhere"])[3].output_dir == "elsewhere"
    assert read_recipe(path.with_name("base.yaml"))["output_dir"] == "runs/mine"


@pytest.mark.parametrize(
    ("recipes", "named"),
    [
        ({"top": "extends: nowhere.yaml"}, ["top.yaml", "extends", "nowhere.yaml"]),
        ({"top": "extends: [a.yaml, b.yaml]"}, ["top.yaml", "extends", "one other recipe"]),
        (
            {"base": "extends: top.yaml", "top": "extends: base.yaml"},
            ["base.yaml", "'top.yaml'", "extends this"],
        ),
        ({"top": "extends: top.yaml"}, ["top.yaml", "extends this recipe"]),
        ({"base": "learning_rat: 1", "top": "extends: base.yaml"}, ["base.yaml", "learning_rat", "learning_rate"]),
        ({"base": "w_f: wide", "top": "extends: base.yaml"}, ["base.yaml", "w_f", "wide"]),
    ],
    ids=["missing", "two", "circle", "itself", "unknown field", "wrong value"],
)
def test_what_does_not_fit_is_one_error_that_names_the_file(recipes, named, write):
    with pytest.raises(RecipeError) as error:
        parse_recipe([str(write(**recipes))])
    assert all(word in str(error.value) for word in named), error.value


def _explosion():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"g_max: 6\nw_f: 2\ng_max: 3\n", "the field 'g_max' twice"),
        (b"accelerator_config: {split_batches: true, split_batches: false}", "'split_batches' twice"),
        (_explosion().encode(), "repetition, *a0"),
        (b"hidden_sizes: &a [*a]", "repetition, *a"),
        (b"[" * 90_000, "more than 10 levels"),
        (b"? " * 40_000, "more than 10 levels"),
        (b"run_name: caf\xe9", "not a readable YAML file"),
        (b"run_name: \x00", "not a readable YAML file"),
        (b"run_name: 2022-99-99", "not a readable YAML file"),
        (b"run_name: !!python/object/apply:os.getcwd []", "not a readable YAML file"),
        (b"seed: " + b"9" * 5000, "not a readable YAML file"),
        (b"# " + b"x" * 200_000, "found 200002 bytes"),
        (b"", "found NoneType"),
        (b"g_max", "found str"),
        (b"[1, 2]: 3", "not a readable YAML file"),
        (b"1: 2", "unknown field 1"),
        (b"g_max: []", "empty list"),
        (b"do_train: []", "empty list"),
        (b"n_f: 1.5", "n_f is 1.5"),
        (b"n_f: true", "n_f is True"),
        (b"learning_rate: yes", "learning_rate is True"),
        (b"seed: 010", "found 010, which YAML reads as 8"),
        (b"max_steps: 1:30", "found 1:30, which YAML reads as 90"),
        (b"learning_rate: 1:30.5", "found 1:30.5, which YAML reads as 90.5"),
        (b"hidden_sizes: [4, [4]]", "hidden_sizes is [4, [4]]"),
        (b"do_train: 7", "do_train is 7"),
        (b"g_max: {a: 1}", "g_max is {'a': 1}"),
    ],
)
def test_a_recipe_that_means_nothing_is_refused_with_what_was_found(text, found, tmp_path):
    (tmp_path / "top.yaml").write_bytes(text)
    tracemalloc.start()
    with pytest.raises(RecipeError) as error:
        parse_recipe([str(tmp_path / "top.yaml")])
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()
    message = str(error.value)
    assert "top.yaml" in message and found in message and "\n" not in message and len(message) < 1500


def _fifo(folder):
    os.mkfifo(folder / "base.yaml")


def _folder(folder):
    (folder / "base.yaml").mkdir()


def _device(folder):
    (folder / "base.yaml").symlink_to("/dev/zero")


def _gigabytes(folder):
    with (folder / "base.yaml").open("wb") as file:
        file.truncate(4 * 2**30)


def _circle_of_links(folder):
    (folder / "base.yaml").symlink_to(folder / "base.yaml")


@pytest.mark.parametrize("make", [_fifo, _folder, _device, _gigabytes, _circle_of_links])
@pytest.mark.parametrize("name", ["top", "base"])
def test_what_is_no_file_of_a_recipe_is_not_opened(name, make, write):
    top = write(top="extends: base.yaml\n")
    make(top.parent)
    with pytest.raises(RecipeError, match=r"base\.yaml: not a readable YAML file"):
        parse_recipe([str(top.with_name(f"{name}.yaml"))])


def test_a_chain_of_recipes_ends(write):
    recipes = {f"r{number}": f"extends: r{number - 1}.yaml\n" for number in range(1, 1500)}
    top = write(r0="g_max: 6\n", **recipes)
    with pytest.raises(RecipeError, match="a chain of more than 20 recipes by the field extends"):
        read_recipe(top)
    assert read_recipe(top.with_name("r20.yaml"))["g_max"] == 6


def test_a_circle_of_recipes_under_other_names_is_found(write):
    top = write(top="extends: link.yaml\n")
    top.with_name("link.yaml").symlink_to(top)
    with pytest.raises(RecipeError, match="which extends this recipe"):
        read_recipe(top)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("learning_rate", value) for value in (".nan", ".inf", "-1e-3")),
        *(("temperature", value) for value in ("0", "-0.05", ".nan", ".inf")),
        *(("hop_length", value) for value in ("0", "-320")),
        *(("hidden_sizes", value) for value in ("[0, 4]", "[4, -4]")),
        *(("weight_decay", ".nan"), ("text_learning_rate", ".inf"), ("lr_decay_factor", "0"), ("lr_decay_epochs", "0")),
        *(("n_fft", "0"), ("num_mel_bins", "0"), ("projection_dim", "0"), ("projection_hidden_size", "-1")),
        *(("block_dropout", "1"), ("text_dropout", ".nan"), ("freeze_text_layers", "-1"), ("max_speed", ".nan")),
        *(("total_train_batch_size", "0"), ("per_device_eval_batch_size", "0"), ("num_train_epochs", "-.inf")),
        *(("max_grad_norm", "-1"), ("adam_beta1", "1"), ("warmup_steps", ".nan"), ("gradient_accumulation_steps", "0")),
    ],
)  # fmt: skip
def test_a_number_out_of_its_range_is_refused_before_any_work(field, value, write):
    with pytest.raises(RecipeError, match=rf"{field} must be .*found") as error:
        parse_recipe([str(write(top=f"{field}: {value}\n"))])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["hop_length: 0", "head_dropout: 1.5", "learning_rate: .nan", "num_mel_bins: 8"])
def test_the_recipe_of_a_tagger_has_the_same_ranges(text, write):
    path = write(top=f"{text}\ndataset_name: data\nuse_cpu: true\n")
    with pytest.raises(RecipeError, match=f"{text.partition(':')[0]} must be .*found"):
        parse_recipe([str(path)], argument_classes=TAGGING_ARGUMENT_CLASSES)


def test_a_boolean_is_no_number_in_python_either():
    with pytest.raises(ValueError, match="hop_length must be a number, found True"):
        ModelArguments(hop_length=True)


def test_a_secret_of_a_recipe_is_in_no_error(write):
    with pytest.raises(RecipeError, match="hub_token") as error:
        parse_recipe([str(write(top="hub_token: [planted-token, planted-token]\n"))])
    assert "planted-token" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "given", "named"),
    [("manifests: [a, b]", (), "manifests"), ("g_max: loud", (), "g_max"), ("g_max: 3", ("--sources",), "sources")],
)
def test_the_recipes_of_a_table_are_checked_when_it_is_planned(text, given, named, write):
    path = write(soundscapes_baseline=f"{text}\n")
    with pytest.raises(RecipeError, match=named):
        plan_table(3, "soundscapes", 1, path.parent, given)
