"""Recipes that extend other recipes."""

import pytest

from modeling_cnn10bert.training.recipe import RecipeError, parse_recipe, read_recipe


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
