"""Back-translations for a prepared data set on disk.

That is a folder which `datasets` wrote (`save_to_disk` of one data set or of several splits), or a folder of soundscape
manifests. The work resumes after a kill, and the data set is never half written: see `translation_job.py`.
"""

import fnmatch
import hashlib
import json
import os
import reprlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
from tqdm import tqdm

from ..augmentation.back_translation import (
    BACK_TRANSLATION_COLUMN,
    Translator,
    back_translation_languages,
    length_batches,
    round_trip,
)
from ..augmentation.eda import caption_words
from ..errors import DataError
from .recipes.soundscapes import REWRITE, SPLITS, manifest_lines
from .saved_tables import load_saved
from .tables import read_json
from .translation_job import Progress, Workshop

TEXTS = datasets.List(datasets.Value("string"))
Variants = dict[str, dict[str, list[list[str]]]]  # split -> language -> for each recording, a variant of each caption


@dataclass
class VariantCounts:
    """
    Of the different captions that went by way of a language: all, those that came back unchanged, and those empty.

    Unchanged is what has the same words, empty what has none: then the caption itself is stored.
    """

    captions: int
    unchanged: int
    empty: int


def add_back_translations(
    folder: str | os.PathLike,
    languages: Sequence[str],
    make_pair: Callable[[str], tuple[Translator, Translator]],
    splits: Sequence[str] = ("train",),
    batch_size: int = 32,
) -> dict[str, VariantCounts]:
    """
    Adds the variants of every caption to a prepared data set; each different caption is translated once.

    After a kill, the same call goes on behind the last finished batch and ends with the same variants: which captions
    are a batch depends on all captions and `batch_size`, never on what is still missing.

    Args:
        folder: the data set; it is exchanged in place, everything else in it stays.
        languages: by way of which; those that the data set has already are left alone, and where recordings were added
            since, only their captions are translated.
        make_pair: language -> the translators from English and to English; called when there is work for them.
        splits: what to translate. A single data set without splits is translated as a whole.
        batch_size: captions that are translated together.

    Returns:
        Language -> counts, for the languages that were missing.

    Raises:
        DataError: no captions in the data set, or it is not one.
        DataError: no such folder, or another run is at work on it.
        DataError: a line of a manifest cannot be used.
    """
    folder = Path(folder).resolve()
    with Workshop.beside(folder, "back_translations") as workshop:
        prepared = _open(folder, splits)
        variants: Variants = {split: {} for split in prepared.captions}
        counts = {}
        for language in dict.fromkeys(languages):
            missing = [split for split in prepared.captions if language not in prepared.languages[split]]
            if not missing:
                continue
            known = {text: variant for split in missing for text, variant in prepared.known(split, language).items()}
            texts = (text for split in missing for texts in prepared.captions[split] for text in texts)
            unique = [text for text in dict.fromkeys(texts) if text not in known]
            variant_of = _translate(unique, language, *make_pair(language), batch_size, workshop)
            counts[language] = _count(variant_of)
            filled = known | {text: variant if caption_words(variant) else text for text, variant in variant_of.items()}
            for split in missing:
                variants[split][language] = [[filled[text] for text in texts] for texts in prepared.captions[split]]
        if counts:
            prepared.write(variants, workshop)
            for language in counts:
                for progress in workshop.folder.glob(f"progress-{language}-*.jsonl"):
                    progress.unlink()
    return counts


def _count(variant_of: dict[str, str]) -> VariantCounts:
    empty = sum(not caption_words(variant) for variant in variant_of.values())
    unchanged = sum(
        caption_words(variant) == caption_words(text) for text, variant in variant_of.items() if caption_words(variant)
    )
    return VariantCounts(len(variant_of), unchanged, empty)


# ----------------------------------------------------------------------------------------------------- translating


def _translate(
    captions: list[str], language: str, forth: Translator, back: Translator, batch_size: int, workshop: Workshop
) -> dict[str, str]:
    """Caption -> variant; batches that the progress file has are not translated again."""
    key = json.dumps([forth.identity, back.identity, batch_size, captions])
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    batches = length_batches(captions, batch_size)
    with Progress(workshop.folder / f"progress-{language}-{digest}.jsonl") as progress:
        done = progress.done
        finished = sum(len(batches[number]) for number in done)
        with tqdm(total=len(captions), initial=finished, unit=" captions", desc=f"By way of {language}") as bar:
            for number, batch in enumerate(batches):
                if number not in done:
                    progress.append(number, round_trip([captions[position] for position in batch], forth, back))
                    bar.update(len(batch))
    return {
        captions[position]: variant
        for number, batch in enumerate(batches)
        for position, variant in zip(batch, done[number], strict=True)
    }


# --------------------------------------------------------------------------------------------------- the data sets


def _open(folder: Path, splits: Sequence[str]) -> "_SavedDatasets | _Manifests":
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return _SavedDatasets(folder, splits)
    if any((folder / f"{split}.jsonl").is_file() for split in SPLITS):
        return _Manifests(folder, splits)
    raise DataError(
        f"{folder}: found no prepared data set, expected a folder written by `save_to_disk` of datasets, or one with "
        "train.jsonl; check the path"
    )


def _no_split(folder: Path, split: str, found: Sequence[str]) -> DataError:
    return DataError(f"{folder}: found the splits {', '.join(found)}, expected {split}; choose with splits")


class _SavedDatasets:
    """A folder of `Dataset.save_to_disk` or `DatasetDict.save_to_disk`; new columns are named by language."""

    def __init__(self, folder: Path, splits: Sequence[str]):
        self.folder = folder
        loaded = load_saved(folder)
        single = isinstance(loaded, datasets.Dataset)
        self.datasets = {"": loaded} if single else {split: loaded.get(split) for split in splits}
        self.captions, self.languages = {}, {}
        for split, dataset in self.datasets.items():
            if dataset is None:
                raise _no_split(folder, split, list(loaded))
            self.captions[split] = self._captions(split, dataset)
            names = back_translation_languages(dataset.column_names)
            self.languages[split] = [name for name in names if None not in self._variants(split, name)]

    def _variants(self, split: str, language: str) -> list[list[str] | None]:
        """Of each recording; `None` for one that was added since."""
        return self.datasets[split].with_format(None)[BACK_TRANSLATION_COLUMN.format(language=language)][:]

    def known(self, split: str, language: str) -> dict[str, str]:
        """Caption -> variant, of the recordings that have them."""
        if language not in back_translation_languages(self.datasets[split].column_names):
            return {}
        pairs = zip(self.captions[split], self._variants(split, language), strict=True)
        return _flat((texts, variants) for texts, variants in pairs if variants is not None)

    def _captions(self, split: str, dataset: datasets.Dataset) -> list[list[str]]:
        within = f"{self.folder / split}: column captions"
        prepare = "prepare the data set with a list of captions a recording"
        if "captions" not in dataset.column_names:
            raise DataError(f"{within}: found only {', '.join(dataset.column_names)}; {prepare}")
        captions = dataset.with_format(None)["captions"][:]
        for row, texts in enumerate(captions):
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise DataError(
                    f"{within}: row {row}: found {reprlib.repr(texts)}, expected a list of texts; {prepare}"
                )
        return captions

    def write(self, variants: Variants, workshop: Workshop) -> None:
        """The whole folder anew, with all files that are not the changed data sets', then exchanged at once."""
        unfinished = workshop.empty("unfinished")
        changed = {split: dataset for split, dataset in self.datasets.items() if variants[split]}
        parents = {self.folder / split for split in changed}
        shutil.copytree(
            self.folder,
            unfinished,
            symlinks=True,
            ignore=lambda parent, names: _written_by_datasets(names) if Path(parent) in parents else (),
            copy_function=_link_or_copy,
        )
        for split, dataset in changed.items():
            for language, texts in variants[split].items():
                name = BACK_TRANSLATION_COLUMN.format(language=language)
                if name in dataset.column_names:
                    dataset = dataset.remove_columns([name])
                dataset = dataset.add_column(name, texts, feature=TEXTS)
            dataset.save_to_disk(unfinished / split)
        workshop.exchange(unfinished)


def _flat(pairs: Iterable[tuple[Sequence[str], Sequence[str]]]) -> dict[str, str]:
    """Captions and variants of recordings -> caption -> variant."""
    return {text: variant for texts, variants in pairs for text, variant in zip(texts, variants, strict=False)}


def _written_by_datasets(names: list[str]) -> list[str]:
    return [
        name
        for name in names
        if name in ("state.json", "dataset_info.json") or fnmatch.fnmatch(name, "data-*-of-*.arrow")
    ]


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)


class _Manifests:
    """A folder of soundscape manifests; every line gets its variants under `back_translations`."""

    def __init__(self, folder: Path, splits: Sequence[str]):
        self.folder = folder
        self.rows, self.captions, self.languages = {}, {}, {}
        for split in splits:
            path = folder / f"{split}.jsonl"
            if not path.is_file():
                raise _no_split(folder, split, [split for split in SPLITS if (folder / f"{split}.jsonl").is_file()])
            rows = [_manifest_row(path, number, line) for number, line in manifest_lines(path)]
            self.rows[split] = rows
            self.captions[split] = [row["captions"] for row in rows]
            present = [set(row.get("back_translations", {})) for row in rows]
            self.languages[split] = sorted(set.intersection(*present)) if present else []

    def known(self, split: str, language: str) -> dict[str, str]:
        """Caption -> variant, of the scenes that have them."""
        have = (row for row in self.rows[split] if language in row.get("back_translations", {}))
        return _flat((row["captions"], row["back_translations"][language]) for row in have)

    def write(self, variants: Variants, workshop: Workshop) -> None:
        """Each manifest anew, exchanged at once."""
        for split, by_language in variants.items():
            if by_language:
                path = (self.folder / f"{split}.jsonl").resolve()  # a link stays one
                unfinished = path.with_name(f".{path.name}.unfinished")
                with unfinished.open("w", encoding="utf-8") as file:
                    for number, row in enumerate(self.rows[split]):
                        old = row.get("back_translations", {})
                        new = {language: texts[number] for language, texts in by_language.items()}
                        file.write(json.dumps(row | {"back_translations": old | new}) + "\n")
                shutil.copymode(path, unfinished)
                unfinished.replace(path)


def _manifest_row(path: Path, number: int, line: str) -> dict:
    try:
        row = read_json(line)
        captions = row["captions"]
        usable = isinstance(captions, list) and all(isinstance(text, str) for text in captions)
        usable = usable and isinstance(row.get("back_translations", {}), dict)
    except (ValueError, RecursionError, KeyError, TypeError):
        usable = False
    if not usable:
        raise DataError(
            f"{path}:{number}: captions: found {reprlib.repr(line)}, expected one JSON object with a list of captions; "
            f"{REWRITE}"
        )
    return row
