"""scripts/reproduce_tables.py: from the runs to the table, and from nothing to both."""

import importlib.util
import json
import os
import shutil
from pathlib import Path

import datasets
import pytest
from huggingface_hub import constants
from matplotlib.image import imread

from modeling_cnn10bert.errors import RecipeError
from reproduce import ladders, prerequisites, run_cost, run_queue
from reproduce.ladders import TABLES, plan_table

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "modeling_cnn10bert" / "recipes"
DCASE = ["golden_metrics/dcase2022_baseline_output.csv", "clotho/clotho_captions_evaluation.csv"]


@pytest.fixture(scope="module")
def script():
    """The module scripts/reproduce_tables.py."""
    spec = importlib.util.spec_from_file_location("reproduce_tables", ROOT / "scripts" / "reproduce_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _finish(run, seconds=100.0, steps=50, resumed=False, **results):
    """Leaves in runs/tables what a finished run leaves; the other metrics are the double of mAP@10."""
    folder = Path("runs/tables") / run.name
    folder.mkdir(parents=True)
    record = {**run_queue.record_of(run, 1), "resumed": resumed}
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": steps}))
    value = results.pop("mAP")
    metrics = {"test_mAP@10": value, **{f"test_R@{k}": 2 * value for k in (1, 5, 10)}, "train_runtime": seconds}
    (folder / "all_results.json").write_text(json.dumps(metrics))
    return folder


@pytest.fixture
def some_finished():
    """Of table 3 of Clotho: three runs of the baseline, one of the second row, none of the others."""
    runs = {run.name: run for run in plan_table(3, "clotho", 3, RECIPES).runs}
    for seed, value in enumerate((0.12, 0.13, 0.11)):
        _finish(runs[f"clotho_baseline-seed{seed}"], mAP=value)
    _finish(runs["clotho_audioset-seed0"], seconds=300.0, mAP=0.2280)
    return runs


def _cells(text, name):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {name} ")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


# ----------------------------------------------------------------------------------------------------------- report


def test_the_table_has_mean_and_deviation_beside_the_figures_of_the_paper(script, some_finished, capsys):
    script.main(["--table", "3", "--only_report"])
    text = Path("runs/tables/table3_clotho.md").read_text()
    # 0.12, 0.13, 0.11: the mean is 0.12, the squares of the deviations add up to 0.0002, half of which is 0.01 squared.
    double = "24.00 ± 2.00"
    expected = [double, "6.63", double, "20.06", double, "31.52", "12.00 ± 1.00", "12.53 ± 0.08", "3 of 3"]
    assert _cells(text, "baseline") == expected
    assert _cells(text, "+ AudioSet pretraining")[-3:] == ["22.80", "22.80 ± 0.29", "1 of 3"]
    assert _cells(text, "+ augmentations")[-3:] == ["–", "24.27 ± 0.19", "0 of 3"]
    assert _cells(text, "DCASE baseline") == ["–", "3.50", "–", "11.50", "–", "19.50", "–", "7.50 ± 0.00", "–"]
    assert "Pretraining was done once, with seed 0" in text and "audiocaps_pretraining" in text
    assert imread("runs/tables/table3_clotho.png").shape[1] == 990
    assert "12.00 ± 1.00" in capsys.readouterr().out
    assert {path.name for path in Path("runs/tables").iterdir() if path.is_file()} == {
        "table3_clotho.md",
        "table3_clotho.png",
    }


def test_a_table_of_soundscapes_has_no_figures_of_the_paper(script, tmp_path):
    run = plan_table(5, "soundscapes", 1, RECIPES).runs_of(TABLES[5, "soundscapes"][0])[0]
    _finish(run, mAP=0.65)
    script.main(["--table", "5", "--ladder", "soundscapes", "--seeds", "1", "--only_report", "--output", "out"])
    text = Path("out/table5_soundscapes.md").read_text()
    assert _cells(text, "SMBO") == ["130.00", "130.00", "130.00", "65.00", "1 of 1"]
    assert "paper" not in text.partition("Test set")[0] and "soundscapes_tagging" in text


def test_the_dcase_baseline_is_scored_from_its_published_output(script, shared_data):
    output, captions = (shared_data / name for name in DCASE)
    script.main(f"--table 3 --only_report --dcase_output {output} --clotho_captions {captions}".split())
    text = Path("runs/tables/table3_clotho.md").read_text()
    expected = ["3.16", "3.50", "10.95", "11.50", "18.83", "19.50", "6.79", "7.50 ± 0.00", "–"]
    assert _cells(text, "DCASE baseline") == expected
    assert "its published ranked output" in text


def test_a_run_made_with_other_fields_is_never_reported(script, some_finished):
    with pytest.raises(RecipeError, match="clotho_baseline-seed0 was made with max_steps nothing .now 10."):
        script.main(["--table", "3", "--only_report", "--max_steps", "10"])
    assert not Path("runs/tables/table3_clotho.md").exists()


# --------------------------------------------------------------------------------------------------------- dry runs


def test_a_dry_run_says_what_is_to_be_done_and_what_it_costs_and_does_nothing(script, some_finished, capsys):
    before = sorted(Path().rglob("*"))
    script.main(["--table", "3", "--dry_run"])
    out = capsys.readouterr().out
    assert _cells(out, "clotho_baseline-seed0")[-1] == "finished"
    assert _cells(out, "audiocaps_pretraining") == ["unknown", "unknown", "to do"]
    assert "to do: 9 of 13, an unknown number of optimizer steps" in out
    missing = [line.removeprefix("missing: ") for line in out.splitlines() if line.startswith("missing: ")]
    assert {line.partition(",")[0].partition("; ")[0] for line in missing if "WordNet" not in line} == {
        "data/clotho: found no such folder",
        "data/clotho: found no back-translations",
        "data/audiocaps: found no such folder",
        "data/audiocaps: found no back-translations",
        "models/cnn10_audioset: found no such folder",
        "text_model_name_or_path bert-base-uncased: found it neither as a folder nor in the cache of the Hub",
    }
    assert sorted(Path().rglob("*")) == before


def test_the_cost_is_the_steps_times_the_seconds_a_step_of_finished_runs(script, capsys):
    given = ["--max_steps", "1800"]
    runs = {run.name: run for run in plan_table(3, "clotho", 2, RECIPES, given).runs}
    _finish(runs["clotho_baseline-seed0"], seconds=3600.0, steps=1800, mAP=0.1)  # 2 s a step
    _finish(runs["clotho_audioset-seed0"], seconds=1.0, steps=1800, resumed=True, mAP=0.1)  # of its last part
    script.main(["--table", "3", "--seeds", "2", "--dry_run", *given])
    out = capsys.readouterr().out
    assert _cells(out, "clotho_augmented-seed1") == ["1800", "1.00", "to do"]
    assert "to do: 7 of 9, 12600 optimizer steps, about 7.0 h by 1 at once" in out
    script.main(["--table", "3", "--seeds", "2", "--dry_run", "--jobs", "2", "--seconds_per_step", "0.2", *given])
    assert "12600 optimizer steps, about 21 min by 2 at once" in capsys.readouterr().out


def test_steps_are_counted_from_the_pairs(soundscapes, tmp_path):
    # 40 scenes of 5 captions in 4 renderings are 800 pairs: 26 batches of 30, three times.
    fields = {"manifests": str(soundscapes), "sources": "S", "renderings": 4, "num_train_epochs": 3}
    run = ladders.Run("r", Path("r.yaml"), "train_retrieval.py", 0, fields, (), {}, ())
    assert run_cost.optimiser_steps(run) == 78
    run.fields["max_train_samples"] = 10  # scenes: 200 pairs, 6 batches
    assert run_cost.optimiser_steps(run) == 18
    run.fields["manifests"] = str(tmp_path / "nowhere")
    assert run_cost.optimiser_steps(run) is None


# ------------------------------------------------------------------------------------------------------- bad inputs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--table 4", "argument --table: invalid choice: .*4"),
        ("--table 3 --ladder esc10", "argument --ladder: invalid choice: 'esc10'"),
        ("--table 3 --seeds 0", "argument --seeds: found 0, expected at least 1"),
        ("--table 3 --seed 1", "--seed cannot be given to all runs: --seeds N"),
        ("--table 3 --dcase_output x.csv", "found one of --dcase_output and --clotho_captions, expected both"),
        ("--table 3", "data/clotho: found no such folder, expected what `cnn10bert prepare clotho .*5 more"),
        ("--table 3 --only_report --dcase_output x --clotho_captions y", "x: found .*No such file"),
    ],
)
def test_bad_input_is_one_line_that_names_it_before_anything_starts(options, message, script, monkeypatch):
    monkeypatch.setattr(prerequisites, "find_wordnet", lambda: None)
    with pytest.raises(ValueError, match=message) as raised:
        script.main(options.split())
    assert "\n" not in str(raised.value)
    assert not list(Path().iterdir())


def _missing(**fields):
    run = ladders.Run("r", Path("r.yaml"), "train_retrieval.py", 0, fields, (), {}, ())
    return prerequisites.missing_prerequisites([run])


def test_what_is_missing_is_named_with_what_makes_it(soundscapes, text_folder, monkeypatch):
    scenes = {"manifests": str(soundscapes), "sources": str(soundscapes / "sources")}
    scenes |= {"text_model_name_or_path": str(text_folder)}
    assert _missing(**scenes) == []
    (line,) = _missing(text_model_name_or_path=str(text_folder))
    assert line.startswith("found no --manifests and --sources")
    (line,) = _missing(**scenes | {"manifests": "nowhere"})
    assert line.startswith("--manifests nowhere: found no train.jsonl, validation.jsonl, test.jsonl")
    (line,) = _missing(**scenes | {"sources": "nowhere"})
    assert line.startswith("--sources nowhere: found no such folder")
    (line,) = _missing(**scenes, audio_model_name_or_path="models/cnn10_audioset")
    assert "cnn10bert convert-panns models/cnn10_audioset" in line
    (line,) = _missing(**scenes, p_bt=0.2)
    assert "found no back-translations" in line and "cnn10bert back-translate" in line
    assert _missing(**scenes, p_bt=0.2, augment_text=False) == []
    (scene, texts) = _missing(**scenes | {"manifests": "nowhere"}, p_bt=0.2), "no back-translations"
    assert len(scene) == 1 and texts not in scene[0]  # of what is not there, that is all


def test_back_translations_must_be_there_for_every_caption(soundscapes, text_folder, tmp_path):
    given = {"text_model_name_or_path": str(text_folder), "p_bt": 0.2}
    variants = {
        "back_translations_de": [["a dog"], ["rain", None]],
        "back_translations_fr": [["a dog"], ["rain", "it"]],
    }
    table = datasets.Dataset.from_dict({"captions": [["dog"], ["rain", "it rains"]], **variants})
    datasets.DatasetDict(train=table).save_to_disk(tmp_path / "own")
    (line,) = _missing(dataset_name=str(tmp_path / "own"), **given)
    assert f"{tmp_path / 'own'}: found no back-translations of 1 of 2 recordings" in line
    assert f"`cnn10bert back-translate {tmp_path / 'own'} de fr es`" in line
    datasets.DatasetDict(train=table.remove_columns("back_translations_de")).save_to_disk(tmp_path / "whole")
    assert _missing(dataset_name=str(tmp_path / "whole"), **given) == []

    manifests = shutil.copytree(soundscapes, tmp_path / "scenes")
    lines = (manifests / "train.jsonl").read_text().splitlines()
    with_texts = json.loads(lines[0]) | {"back_translations": {"de": ["a dog"] * 5}}
    (manifests / "train.jsonl").write_text("\n".join([json.dumps(with_texts), *lines[1:]]))
    (line,) = _missing(manifests=str(manifests), sources=str(soundscapes / "sources"), **given)
    assert "found no back-translations of 39 of 40 recordings" in line


def test_a_model_that_cannot_be_had_is_named(soundscapes, text_folder, monkeypatch):
    scenes = {"manifests": str(soundscapes), "sources": str(soundscapes / "sources")}
    (line,) = _missing(**scenes, text_model_name_or_path="bert-base-uncased")  # the tests are offline
    assert "neither as a folder nor in the cache of the Hub" in line and "`hf download bert-base-uncased`" in line
    (line,) = _missing(**scenes, text_model_name_or_path="/nowhere/bert")
    assert line.startswith("text_model_name_or_path /nowhere/bert: found no such folder")
    (line,) = _missing(**scenes, text_model_name_or_path=str(text_folder), audio_model_name_or_path="../cnn10")
    assert line.startswith("audio_model_name_or_path ../cnn10: found no such folder")
    assert _missing(**scenes, model_name_or_path=str(text_folder)) == []  # brings its own text tower
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # it may be there, which only asking would tell
    assert _missing(**scenes, text_model_name_or_path="bert-base-uncased") == []


# --------------------------------------------------------------------------------------------------------- for real


def test_a_row_from_nothing_to_the_table(script, write_recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(TABLES, (5, "soundscapes"), TABLES[5, "soundscapes"][:1])  # a process takes seconds to start
    recipe = write_recipe(tmp_path / "recipes" / "soundscapes_augmented.yaml", max_steps=2, save_strategy="no")
    words = f"--table 5 --ladder soundscapes --seeds 1 --recipes {recipe.parent}".split()
    monkeypatch.setenv("HF_TOKEN", "")
    script.main([*words, "--hub_token", "planted-token"])
    assert os.environ["HF_TOKEN"] == "planted-token"  # which the runs inherit
    said = capsys.readouterr()
    left = b"".join(path.read_bytes() for path in Path("runs").rglob("*") if path.is_file())
    assert b"planted-token" not in left and "planted-token" not in said.out + said.err
    lines = said.out.splitlines()
    assert lines[:2] == [
        "soundscapes_augmented-seed0: started, see runs/tables/soundscapes_augmented-seed0.log",
        "soundscapes_augmented-seed0: finished, 1 of 1",
    ]
    run = Path("runs/tables/soundscapes_augmented-seed0")
    results = json.loads((run / "all_results.json").read_text())
    text = Path("runs/tables/table5_soundscapes.md").read_text()
    assert _cells(text, "SMBO")[-2:] == [f"{100 * results['test_mAP@10']:.2f}", "1 of 1"]
    before = {path: path.stat().st_mtime_ns for path in run.iterdir()}
    script.main(words)
    assert {path: path.stat().st_mtime_ns for path in run.iterdir()} == before
