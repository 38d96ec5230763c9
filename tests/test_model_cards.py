"""model_cards/: the cards of the paper's four own systems."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from modeling_cnn10bert.training.recipe import RECIPES, read_recipe

ROOT = Path(__file__).resolve().parents[1]
# Table 3 of the paper: R@1, R@5, R@10, mAP@10.
PAPER = {
    "clotho_baseline": ("6.63", "20.06", "31.52", "12.53 ± 0.08"),
    "clotho_audioset": ("13.18", "35.30", "48.61", "22.80 ± 0.29"),
    "clotho_augmented": ("14.50", "37.24", "51.04", "24.27 ± 0.19"),
    "clotho_audiocaps": ("14.34", "38.12", "52.04", "24.57 ± 0.15"),
}


@pytest.fixture(scope="module")
def generated():
    """File name -> card, as scripts/make_model_cards.py writes it now."""
    spec = importlib.util.spec_from_file_location("make_model_cards", ROOT / "scripts" / "make_model_cards.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.paper_cards()


@pytest.fixture(params=PAPER)
def recipe(request):
    return request.param


@pytest.fixture
def text(recipe):
    return (ROOT / "model_cards" / f"{recipe}.md").read_text(encoding="utf-8")


def test_the_committed_cards_are_what_the_script_writes(generated):
    committed = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "model_cards").glob("clotho_*.md")}
    assert committed == generated, "run: python scripts/make_model_cards.py"
    assert committed.keys() == {f"{recipe}.md" for recipe in PAPER}


def test_a_card_has_the_paper_s_figures_and_says_whose_they_are(recipe, text):
    [row] = [line for line in text.splitlines() if line.startswith("| text to audio ")]
    assert tuple(cell.strip() for cell in row.split("|")[2:-1]) == PAPER[recipe]
    assert "| **the paper's**, in percent |" in text
    assert "no run of this project has produced them" in text


def test_no_machine_takes_the_paper_s_figures_for_ours(text):
    data = ModelCard(text).data
    assert data.eval_results is None
    assert data.base_model == ["google-bert/bert-base-uncased"]
    assert (data.license, data.library_name) == ("apache-2.0", "transformers")


def test_the_commands_of_a_card_are_there_and_end_with_its_recipe(recipe, text):
    [block] = [block for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) if "cnn10bert train" in block]
    lines = block.strip().splitlines()
    assert lines[-1] == f"cnn10bert train {recipe}"
    trained = [line.removeprefix("cnn10bert train ") for line in lines if line.startswith("cnn10bert train ")]
    assert all((RECIPES / f"{name}.yaml").is_file() for name in trained)


def test_the_recipe_of_a_card_is_the_one_in_the_repository(recipe, text):
    [block] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    fields = read_recipe(RECIPES / f"{recipe}.yaml")
    assert yaml.safe_load(block) == {name: value for name, value in fields.items() if name != "output_dir"}


def test_the_licences_are_those_of_the_data_that_a_system_was_trained_on(recipe, text):
    licences = text[text.index("## Data and licences") : text.index("## Limits")]
    assert "- Clotho v2.1 (" in licences
    assert ("- AudioSet, " in licences) == (recipe != "clotho_baseline")
    assert ("- AudioCaps: " in licences) == (recipe == "clotho_audiocaps")


def test_no_place_was_left_empty(text):
    assert "{{ " not in text
    assert "{%" not in text
    assert "More Information Needed" not in text
    assert "None" not in text


def test_the_sizes_of_the_splits_are_those_of_the_official_files(shared_data, text):
    import csv

    sizes = {}
    for split in ("development", "validation", "evaluation"):
        with (shared_data / "clotho" / f"clotho_captions_{split}.csv").open(encoding="utf-8", newline="") as file:
            sizes[split] = len(list(csv.DictReader(file)))
    assert (
        f"Clotho v2.1: {sizes['development']:,} recordings, each with five captions; {sizes['validation']:,} more"
        in text
    )
    assert f"Clotho v2.1's test set, {sizes['evaluation']:,} recordings" in text
