"""What tables 3 and 5 of the paper need, and in which order."""

import shutil
from pathlib import Path

import pytest

from modeling_cnn10bert.errors import RecipeError
from modeling_cnn10bert.training.recipe import read_recipe
from reproduce.ladders import TABLES, plan_table

RECIPES = Path(__file__).resolve().parents[2] / "modeling_cnn10bert" / "recipes"
PAPER = RECIPES.parents[2] / "shared" / "paper" / "primus_widmer_2022.md"
ROWS_OF_5 = [
    "augmented",
    "no_audio_augmentation",
    "no_text_augmentation",
    "no_spec_augment",
    "no_freq_mixstyle",
    "no_gain",
    "no_back_translation",
    "no_eda",
]


@pytest.fixture
def recipes(tmp_path):
    """A copy of the project's recipes."""
    return shutil.copytree(RECIPES, tmp_path / "recipes")


def _names(plan):
    return [step.name for step in plan.steps]


def _needs(plan):
    return {step.name: set(step.needs) for step in plan.steps if step.needs}


def test_table_3_of_clotho_pretrains_on_audiocaps_once_and_fine_tunes_every_seed():
    plan = plan_table(3, "clotho", 2, RECIPES)
    assert _names(plan) == [
        "clotho_baseline-seed0",
        "clotho_audioset-seed0",
        "clotho_augmented-seed0",
        "audiocaps_pretraining",
        "clotho_audiocaps-seed0",
        "clotho_baseline-seed1",
        "clotho_audioset-seed1",
        "clotho_augmented-seed1",
        "clotho_audiocaps-seed1",
    ]
    assert _needs(plan) == {f"clotho_audiocaps-seed{seed}": {"audiocaps_pretraining"} for seed in (0, 1)}
    runs = {run.name: run for run in plan.runs}
    assert runs["clotho_audiocaps-seed1"].starts_from == {"model_name_or_path": "audiocaps_pretraining"}
    assert {name: run.seed for name, run in runs.items()} == {
        name: 1 if name.endswith("seed1") else 0 for name in _names(plan)
    }


def test_table_3_of_soundscapes_puts_each_pretraining_before_what_starts_from_it(recipes):
    plan = plan_table(3, "soundscapes", 3, recipes)
    assert _names(plan)[:7] == [
        "soundscapes_baseline-seed0",
        "soundscapes_tagging",
        "soundscapes_tagged-seed0",
        "soundscapes_augmented-seed0",
        "synthetic_pretraining_scenes",
        "synthetic_pretraining",
        "soundscapes_synthetic-seed0",
    ]
    assert len(set(_names(plan))) == len(_names(plan)) == 3 + 3 * 4
    tagging, synthetic = "soundscapes_tagging", "synthetic_pretraining"
    expected = {synthetic: {tagging, "synthetic_pretraining_scenes"}}
    for seed in range(3):
        expected[f"soundscapes_tagged-seed{seed}"] = expected[f"soundscapes_augmented-seed{seed}"] = {tagging}
        expected[f"soundscapes_synthetic-seed{seed}"] = {tagging, synthetic}
    assert _needs(plan) == expected
    scripts = {run.name: run.script for run in plan.runs}
    assert scripts.pop(tagging) == "scripts/train_tagging.py"
    assert set(scripts.values()) == {"train_retrieval.py"}


@pytest.mark.parametrize("ladder", ["clotho", "soundscapes"])
def test_table_5_has_a_row_an_ablation_and_shares_its_first_with_table_3(ladder, recipes):
    plan = plan_table(5, ladder, 3, recipes)
    rows = [run.name for row in plan.rows for run in plan.runs_of(row)]
    assert rows == [f"{ladder}_{recipe}-seed{seed}" for recipe in ROWS_OF_5 for seed in range(3)]
    assert set(_names(plan)) - set(rows) == ({"soundscapes_tagging"} if ladder == "soundscapes" else set())
    shared = set(rows) & set(_names(plan_table(3, ladder, 3, recipes)))
    assert shared == {f"{ladder}_augmented-seed{seed}" for seed in range(3)}


@pytest.mark.parametrize("ladder", ["clotho", "soundscapes"])
@pytest.mark.parametrize(
    ("recipe", "change"),
    [
        ("no_audio_augmentation", {"augment_audio": False}),
        ("no_text_augmentation", {"augment_text": False}),
        ("no_spec_augment", {"n_f": 0, "n_t": 0}),
        ("no_freq_mixstyle", {"p_ms": 0}),
        ("no_gain", {"g_max": 0}),
        ("no_back_translation", {"p_bt": 0}),
        ("no_eda", {"p_eda": 0}),
    ],
)
def test_an_ablation_differs_from_the_augmented_run_in_its_augmentation_alone(ladder, recipe, change):
    whole, ablated = (read_recipe(RECIPES / f"{ladder}_{name}.yaml") for name in ("augmented", recipe))
    assert {name: value for name, value in ablated.items() if whole.get(name) != value} == {
        **change,
        "output_dir": f"runs/{ladder}_{recipe}",
    }
    assert whole.keys() <= ablated.keys()


def test_the_figures_of_the_paper_are_those_that_it_prints():
    if not PAPER.is_file():
        pytest.skip(f"the paper is not at {PAPER}")
    text = PAPER.read_text(encoding="utf-8")
    printed = {}
    for number, start in ((3, "DCASE baseline\t"), (5, "SMBO\t")):
        lines = text[text.index(start) : text.index(f"Table {number}:")].strip().splitlines()
        printed[number] = {name: tuple(figures) for name, *figures in (line.split("\t") for line in lines)}
    assert len(printed[3]) == 5 and len(printed[5]) == 8
    assert {n: {row.name: row.paper for row in TABLES[n, "clotho"]} for n in (3, 5)} == printed
    assert not any(row.paper for n in (3, 5) for row in TABLES[n, "soundscapes"])


def test_given_fields_go_to_the_runs_that_they_are_for(recipes):
    scenes = ["--manifests", "M", "--sources", "S"]
    length, model = ["--max_steps", "10", "--bf16"], ["--p_syn", "0", "--hidden_sizes", "4", "4", "8", "8"]
    given = ["--manifests=M", *scenes[2:], *length, *model]
    runs = {run.name: run for run in plan_table(3, "soundscapes", 1, recipes, given).runs}
    assert runs["soundscapes_baseline-seed0"].arguments == (*scenes, *length, *model)
    # Synthetic scenes stay synthetic; the tagging knows no augmentation, but has the widths of the network above it.
    assert runs["synthetic_pretraining"].arguments == (*length, *model)
    assert runs["synthetic_pretraining"].fields["manifests"] == "data/synthetic"
    assert runs["soundscapes_tagging"].arguments == (*scenes, *length, *model[2:])
    fields = runs["soundscapes_baseline-seed0"].fields
    assert [fields[name] for name in ("max_steps", "hidden_sizes", "bf16")] == [10, [4, 4, 8, 8], True]


@pytest.mark.parametrize(
    ("table", "given", "message"),
    [
        (4, "", "found table 4 of clotho with 1 seeds, expected table 3 or 5"),
        (5, "--p_bt 0", "rows 'SMBO' and 'no BT' would be the same run with --p_bt 0"),
        (5, "--seed 3", "--seed cannot be given to all runs: --seeds N"),
        (5, "--dataset_name x", "--dataset_name cannot be given to all runs: each recipe names its own"),
        (5, "--max_stpes 3", "unknown field --max_stpes; did you mean max_steps"),
        (5, "12", "found '12', expected --field value"),
        (3, "--do_predict false", "clotho_baseline.yaml: field do_predict is off"),
    ],
)
def test_what_cannot_be_planned_is_an_error_that_names_it(table, given, message):
    with pytest.raises(RecipeError, match=message):
        plan_table(table, "clotho", 1, RECIPES, given.split())


def test_a_recipe_that_is_missing_is_named(recipes):
    (recipes / "soundscapes_tagging.yaml").unlink()
    with pytest.raises(RecipeError, match=r"soundscapes_tagging\.yaml: not a readable YAML file"):
        plan_table(3, "soundscapes", 1, recipes)
