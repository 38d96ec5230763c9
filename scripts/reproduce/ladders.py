"""Plan tables 3 and 5 of the paper: their rows, and the runs that a table needs."""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modeling_cnn10bert.errors import RecipeError
from modeling_cnn10bert.masking import without_secrets
from modeling_cnn10bert.training.arguments import ARGUMENT_CLASSES, TAGGING_ARGUMENT_CLASSES
from modeling_cnn10bert.training.recipe import RUNS, check_recipe, read_recipe

PRETRAINING_SEED = 0
TRAINING, TAGGING = "train_retrieval.py", "scripts/train_tagging.py"
TAGGING_RECIPES = ("soundscapes_tagging",)
SYNTHETIC_RECIPES = ("synthetic_pretraining",)  # their scenes are made if missing
# Fields that the plan sets itself, and that cannot be given for all runs.
PLANNED_FIELDS = {
    "seed": "--seeds N takes the seeds 0 to N-1",
    "output_dir": "--runs DIR holds the folders of all runs",
    "hub_token": "the environment variable HF_TOKEN holds it",
    "resume_from_checkpoint": "an interrupted run is always resumed",
    "dataset_name": "each recipe names its own",
    "model_name_or_path": "each recipe names its own",
    "audio_model_name_or_path": "each recipe names its own",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: as in the paper.
        recipe: name of the recipe whose runs it summarizes; `None` for a system of others.
        paper: the paper's R@1, R@5, R@10 and mAP@10, as printed; empty if the paper has no such row.
    """

    name: str
    recipe: str | None
    paper: tuple[str, ...] = ()


_ABLATIONS = {
    "SMBO": ("augmented", ("14.50", "37.24", "51.04", "24.27 ± 0.19")),
    "no audio aug": ("no_audio_augmentation", ("13.88", "36.94", "51.06", "23.74 ± 0.16")),
    "no text aug": ("no_text_augmentation", ("13.12", "35.77", "49.25", "22.91 ± 0.08")),
    "no SpeAugment": ("no_spec_augment", ("13.50", "36.60", "50.91", "23.53 ± 0.20")),
    "no FreqMixStyle": ("no_freq_mixstyle", ("13.61", "36.91", "50.69", "23.62 ± 0.14")),
    "no Gain Augment": ("no_gain", ("14.84", "37.81", "50.95", "24.05 ± 0.26")),
    "no BT": ("no_back_translation", ("13.61", "36.38", "50.00", "23.43 ± 0.18")),
    "no EDA": ("no_eda", ("13.33", "37.02", "49.94", "23.27 ± 0.03")),
}

# (number of the table, ladder) -> its rows. The paper has no figures for soundscapes.
TABLES: dict[tuple[int, str], tuple[Row, ...]] = {
    (3, "clotho"): (
        Row("DCASE baseline", None, ("3.50", "11.50", "19.50", "7.50 ± 0.00")),
        Row("baseline", "clotho_baseline", ("6.63", "20.06", "31.52", "12.53 ± 0.08")),
        Row("+ AudioSet pretraining", "clotho_audioset", ("13.18", "35.30", "48.61", "22.80 ± 0.29")),
        Row("+ augmentations", "clotho_augmented", ("14.50", "37.24", "51.04", "24.27 ± 0.19")),
        Row("+ AudioCaps pretraining", "clotho_audiocaps", ("14.34", "38.12", "52.04", "24.57 ± 0.15")),
    ),
    (3, "soundscapes"): (
        Row("random start", "soundscapes_baseline"),
        Row("+ tag pretraining", "soundscapes_tagged"),
        Row("+ augmentations", "soundscapes_augmented"),
        Row("+ synthetic pretraining", "soundscapes_synthetic"),
    ),
    (5, "clotho"): tuple(Row(name, f"clotho_{recipe}", paper) for name, (recipe, paper) in _ABLATIONS.items()),
    (5, "soundscapes"): tuple(Row(name, f"soundscapes_{recipe}") for name, (recipe, _) in _ABLATIONS.items()),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run of a recipe.

    Attributes:
        name: name of its folder among the runs.
        recipe: the recipe's file.
        script: script that runs it, relative to the repository.
        seed: seed of the run.
        fields: fields of the recipe and of all runs, with their values.
        arguments: the fields of all runs as command-line arguments.
        starts_from: field -> name of the run whose folder it uses.
        needs: names of the steps that it depends on.
    """

    name: str
    recipe: Path
    script: str
    seed: int
    fields: Mapping[str, Any]
    arguments: tuple[str, ...]
    starts_from: Mapping[str, str]
    needs: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Synthesis:
    """Synthetic scenes that a run uses, made if missing."""

    name: str
    folder: Path
    needs: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Plan:
    """The steps for a table.

    Attributes:
        rows: rows of the table.
        steps: all steps, each after those that it needs; the rows with the first seed come first.
        seeds: number of seeds per row.
    """

    rows: tuple[Row, ...]
    steps: tuple[Run | Synthesis, ...]
    seeds: int

    @property
    def runs(self) -> list[Run]:
        """Return the steps that train."""
        return [step for step in self.steps if isinstance(step, Run)]

    def runs_of(self, row: Row) -> list[Run]:
        """Return the runs that a row summarizes, ordered by seed."""
        return [run for run in self.runs if run.name in {run_name(row.recipe, seed) for seed in range(self.seeds)}]


def run_name(recipe: str | None, seed: int) -> str:
    """Return the name of a row's run; a pretraining, which is made once, has the name of its recipe."""
    return f"{recipe}-seed{seed}"


def plan_table(table: int, ladder: str, seeds: int, recipes: Path, given: Sequence[str] = ()) -> Plan:
    """
    Plan a table: a run for each row and seed, and before them the pretrainings that their recipes start from.

    If a field is the output folder of another recipe, `runs/<its name>`, that recipe's run is a pretraining, which is
    made once, with seed 0.

    Args:
        table: 3 or 5.
        ladder: `clotho` or `soundscapes`.
        seeds: number of seeds, starting at 0.
        recipes: the folder of the recipes.
        given: `--field value ...` for all runs. A recipe that names its own `manifests` keeps them; the tagging run
            gets only the fields that it knows.

    Raises:
        RecipeError: there is no such table, a recipe cannot be read, a field is unknown or not allowed, two rows would
            be the same run, or a row's run has no test.
    """
    if (table, ladder) not in TABLES or seeds < 1:
        raise RecipeError(
            f"found table {table} of {ladder} with {seeds} seeds, expected table 3 or 5 of clotho or soundscapes with "
            "at least 1"
        )
    planner = _Planner(recipes, _fields_of(given))
    rows = TABLES[table, ladder]
    for seed in range(seeds):
        for row in rows:
            if row.recipe is not None:
                planner.add(row.recipe, seed)
    plan = Plan(rows, tuple(planner.steps.values()), seeds)
    _check_rows(plan, given)
    return plan


class _Planner:
    """Collects steps, each once and after those that it needs."""

    def __init__(self, recipes: Path, given: Mapping[str, list[str]]):
        self.recipes, self.given = recipes, given
        self.steps: dict[str, Run | Synthesis] = {}

    def add(self, recipe: str, seed: int | None = None) -> str:
        """Add the run of a recipe and return its name; without a seed, it is a pretraining."""
        name = recipe if seed is None else run_name(recipe, seed)
        if name in self.steps:
            return name
        path = self.recipes / f"{recipe}.yaml"
        own = read_recipe(path)
        classes = TAGGING_ARGUMENT_CLASSES if recipe in TAGGING_RECIPES else ARGUMENT_CLASSES
        given = {field: words for field, words in self.given.items() if self._is_for(field, recipe, own)}
        arguments = tuple(word for field, words in given.items() for word in (f"--{field}", *words))
        check_recipe(path, classes, arguments)
        pretrainings = {
            field: Path(value).name
            for field, value in own.items()
            if field != "output_dir" and isinstance(value, str) and Path(value).parent == RUNS
        }
        starts_from = {field: self.add(other) for field, other in pretrainings.items()}
        needs = [*starts_from.values()]
        if recipe in SYNTHETIC_RECIPES and "manifests" in own:
            synthesis = Synthesis(f"{recipe}_scenes", Path(own["manifests"]))
            needs.append(self.steps.setdefault(synthesis.name, synthesis).name)
        self.steps[name] = Run(
            name=name,
            recipe=path,
            script=TAGGING if recipe in TAGGING_RECIPES else TRAINING,
            seed=PRETRAINING_SEED if seed is None else seed,
            fields={**own, **{field: _value(words) for field, words in given.items()}},
            arguments=arguments,
            starts_from=starts_from,
            needs=tuple(needs),
        )
        return name

    @staticmethod
    def _is_for(field: str, recipe: str, own: Mapping[str, Any]) -> bool:
        if field in ("manifests", "sources"):
            return "manifests" not in own
        tagging = any(field in cls.__dataclass_fields__ for cls in TAGGING_ARGUMENT_CLASSES)
        return recipe not in TAGGING_RECIPES or tagging


def _fields_of(words: Sequence[str]) -> dict[str, list[str]]:
    """Parse `--field value ... --other=value` to field -> its values.

    Raises:
        RecipeError: a word belongs to no field, or a field is unknown or set by the plan.
    """
    fields: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            name, equals, value = word.removeprefix("--").partition("=")
            fields[name] = [value] if equals else []
        elif not fields:
            raise RecipeError(f"found {word!r}, expected --field value ...; --help lists the options")
        else:
            fields[name].append(word)
    known = {name for cls in ARGUMENT_CLASSES for name in cls.__dataclass_fields__}
    for name in fields:
        if name in PLANNED_FIELDS:
            raise RecipeError(f"--{name} cannot be given to all runs: {PLANNED_FIELDS[name]}")
        if name.removeprefix("no_") not in known:
            close = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else "train_retrieval.py --help lists all fields"
            raise RecipeError(f"unknown field --{name}; {hint}")
    return fields


def _value(words: list[str]) -> Any:
    """Parse command-line words to values with the types of YAML."""
    if len(words) != 1:
        return [_value([word]) for word in words] or True
    for read in (int, float):
        try:
            return read(words[0])
        except ValueError:
            pass
    return {"true": True, "false": False}.get(words[0].lower(), words[0])


def _check_rows(plan: Plan, given: Sequence[str]) -> None:
    seen: list[tuple[Row, dict[str, Any]]] = []
    words = " with " + " ".join(without_secrets(given)) if given else ""
    for row in plan.rows:
        for run in plan.runs_of(row)[:1]:
            if not run.fields.get("do_predict"):
                raise RecipeError(f"{run.recipe}: field do_predict is off, but a row of a table is what a test finds")
            fields = {name: value for name, value in run.fields.items() if name != "output_dir"}
            for other, others in seen:
                if others == fields:
                    raise RecipeError(
                        f"rows {other.name!r} and {row.name!r} would be the same run{words}; "
                        "let them differ in the field that tells them apart"
                    )
            seen.append((row, fields))
