"""Add back-translations to a prepared data set on disk.

The data set is a folder that `datasets` wrote (`save_to_disk` of one data set or of several splits), or a folder of
soundscape manifests. Finished translations are kept in a hidden folder next to it until the data set has them, so that
a killed run continues where it stopped.
"""

import contextlib
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
from ..files import finish_replacement, locked_folder, replaced_whole
from .recipes.soundscapes import REWRITE, SPLITS, manifest_lines
from .saved_tables import load_saved
from .tables import read_json

TEXTS = datasets.List(datasets.Value("string"))
WRITTEN_BY_DATASETS = ("state.json", "dataset_info.json", "data-*-of-*.arrow")
Variants = dict[str, dict[str, list[list[str]]]]  # split -> language -> for each recording, a variant of each caption


@dataclass
class VariantCounts:
    """
    Counts of the distinct captions that were translated to a language and back: all, unchanged and empty ones.

    An unchanged one has the same words. An empty one has none, and the caption itself is stored instead.
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
    Add the variants of every caption to a prepared data set; each distinct caption is translated once.

    After a kill, the same call continues after the last finished batch and ends with the same variants, because
    batches depend on all captions and `batch_size`, never on what is still missing.

    Args:
        folder: the data set; it is replaced as a whole, and everything else in it stays.
        languages: languages to translate to and back. Those that the data set already has are skipped; if recordings
            were added since, only their captions are translated.
        make_pair: language -> the translators from English and to English; called when there is work for them.
        splits: splits to translate. A single data set without splits is translated as a whole.
        batch_size: captions that are translated together.

    Returns:
        Language -> counts, for the languages that were missing.

    Raises:
        DataError: there is no such data set, it has no captions, a line of a manifest cannot be used, or another run
            works on it.
    """
    folder = Path(folder).resolve()
    finish_replacement(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: found no such folder, expected a prepared data set; check the path")
    work = folder.with_name(f".{folder.name}-back_translations")
    work.mkdir(exist_ok=True)
    with locked_folder(work) as locked:
        if locked is False:
            raise DataError(f"{folder}: found another run at work on it, expected none; wait for it")
        try:
            return _add(_open(folder, splits), languages, make_pair, batch_size, work)
        finally:
            with contextlib.suppress(OSError):  # not empty: it holds translations of a run that did not end
                work.rmdir()


def _add(
    prepared: "_SavedDatasets | _Manifests",
    languages: Sequence[str],
    make_pair: Callable[[str], tuple[Translator, Translator]],
    batch_size: int,
    work: Path,
) -> dict[str, VariantCounts]:
    variants: Variants = {split: {} for split in prepared.captions}
    counts = {}
    for language in dict.fromkeys(languages):
        missing = [split for split in prepared.captions if language not in prepared.languages[split]]
        if not missing:
            continue
        known = {text: variant for split in missing for text, variant in prepared.known(split, language).items()}
        captions = (text for split in missing for texts in prepared.captions[split] for text in texts)
        unique = [text for text in dict.fromkeys(captions) if text not in known]
        found = _translate(unique, language, *make_pair(language), batch_size, work)
        words = [(caption_words(text), caption_words(variant)) for text, variant in found.items()]
        counts[language] = VariantCounts(
            captions=len(words),
            unchanged=sum(before == after for before, after in words if after),
            empty=sum(not after for _, after in words),
        )
        known |= {text: variant if caption_words(variant) else text for text, variant in found.items()}
        for split in missing:
            variants[split][language] = [[known[text] for text in texts] for texts in prepared.captions[split]]
    if counts:
        prepared.write(variants)
    for language in counts:  # only now that the data set has them
        for progress in work.glob(f"progress-{language}-*.jsonl"):
            progress.unlink()
    return counts


# ----------------------------------------------------------------------------------------------------- translating


class Progress:
    """
    File of finished batches as JSON lines, each written at once. A line that a kill cut off is removed.

    Attributes:
        done: number of the batch -> its results.
    """

    def __init__(self, path: Path):
        self.done: dict[int, list[str]] = {}
        self._file = path.open("a+b")
        self._file.seek(0)
        end = 0
        for line in self._file:
            try:
                row = json.loads(line)
                piece, results = row["piece"], row["results"]
            except (ValueError, KeyError, TypeError):
                break
            if not line.endswith(b"\n"):
                break
            self.done[piece] = results
            end += len(line)
        self._file.truncate(end)

    def append(self, piece: int, results: list[str]) -> None:
        self.done[piece] = results
        self._file.write(json.dumps({"piece": piece, "results": results}).encode("ascii") + b"\n")
        self._file.flush()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()


def _translate(
    captions: list[str], language: str, forth: Translator, back: Translator, batch_size: int, work: Path
) -> dict[str, str]:
    """Translate captions and map each to its variant; batches that the progress file has are not translated again."""
    key = json.dumps([forth.identity, back.identity, batch_size, captions])
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    batches = length_batches(captions, batch_size)
    with Progress(work / f"progress-{language}-{digest}.jsonl") as progress:
        finished = sum(len(batches[number]) for number in progress.done)
        with tqdm(total=len(captions), initial=finished, unit=" captions", desc=f"By way of {language}") as bar:
            for number, batch in enumerate(batches):
                if number not in progress.done:
                    progress.append(number, round_trip([captions[position] for position in batch], forth, back))
                    bar.update(len(batch))
    return {
        captions[position]: variant
        for number, batch in enumerate(batches)
        for position, variant in zip(batch, progress.done[number], strict=True)
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


def _check_split(folder: Path, split: str, found: Sequence[str]) -> None:
    if split not in found:
        raise DataError(f"{folder}: found the splits {', '.join(found)}, expected {split}; choose with splits")


def _variant_of(pairs: Iterable[tuple[Sequence[str], Sequence[str] | None]]) -> dict[str, str]:
    """Map captions to variants, from those of each recording; `None` for a recording that has none."""
    return {text: variant for texts, known in pairs for text, variant in zip(texts, known or (), strict=False)}


class _SavedDatasets:
    """Read and write a folder of `Dataset.save_to_disk` or `DatasetDict.save_to_disk`, with a column per language."""

    def __init__(self, folder: Path, splits: Sequence[str]):
        self.folder = folder
        loaded = load_saved(folder)
        if isinstance(loaded, datasets.Dataset):
            loaded, splits = {"": loaded}, [""]
        self.datasets, self.captions, self.languages = {}, {}, {}
        for split in splits:
            _check_split(folder, split, list(loaded))
            dataset = self.datasets[split] = loaded[split]
            self.captions[split] = _captions_of(dataset, folder / split)
            names = back_translation_languages(dataset.column_names)
            self.languages[split] = [name for name in names if None not in self._variants(split, name)]

    def _variants(self, split: str, language: str) -> list[list[str] | None]:
        """Return the variants of each recording; `None` for a recording that was added since."""
        return self.datasets[split].with_format(None)[BACK_TRANSLATION_COLUMN.format(language=language)][:]

    def known(self, split: str, language: str) -> dict[str, str]:
        if language not in back_translation_languages(self.datasets[split].column_names):
            return {}
        return _variant_of(zip(self.captions[split], self._variants(split, language), strict=True))

    def write(self, variants: Variants) -> None:
        changed = {self.folder / split: split for split in self.datasets if variants[split]}

        def replaced_files(parent: str, names: list[str]) -> list[str]:
            patterns = WRITTEN_BY_DATASETS if Path(parent) in changed else ()
            return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]

        with replaced_whole(self.folder) as unfinished:
            # Other files in the folder are linked, not copied, because recordings may take hundreds of GB.
            shutil.copytree(self.folder, unfinished, symlinks=True, ignore=replaced_files, copy_function=_link_or_copy)
            for split in changed.values():
                dataset = self.datasets[split]
                for language, texts in variants[split].items():
                    name = BACK_TRANSLATION_COLUMN.format(language=language)
                    if name in dataset.column_names:
                        dataset = dataset.remove_columns([name])
                    dataset = dataset.add_column(name, texts, feature=TEXTS)
                dataset.save_to_disk(unfinished / split)


def _captions_of(dataset: datasets.Dataset, path: Path) -> list[list[str]]:
    prepare = "prepare the data set with a list of captions per recording"
    if "captions" not in dataset.column_names:
        raise DataError(f"{path}: column captions: found only {', '.join(dataset.column_names)}; {prepare}")
    captions = dataset.with_format(None)["captions"][:]
    for row, texts in enumerate(captions):
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise DataError(
                f"{path}: column captions: row {row}: found {reprlib.repr(texts)}, expected a list of texts; {prepare}"
            )
    return captions


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)


class _Manifests:
    """Read and write a folder of soundscape manifests; every line gets its variants under `back_translations`."""

    def __init__(self, folder: Path, splits: Sequence[str]):
        self.folder = folder
        self.rows, self.captions, self.languages = {}, {}, {}
        for split in splits:
            path = folder / f"{split}.jsonl"
            _check_split(folder, split, [name for name in SPLITS if (folder / f"{name}.jsonl").is_file()])
            rows = [_manifest_row(path, number, line) for number, line in manifest_lines(path)]
            self.rows[split] = rows
            self.captions[split] = [row["captions"] for row in rows]
            present = [set(row.get("back_translations", {})) for row in rows]
            self.languages[split] = sorted(set.intersection(*present)) if present else []

    def known(self, split: str, language: str) -> dict[str, str]:
        return _variant_of(
            (row["captions"], row.get("back_translations", {}).get(language)) for row in self.rows[split]
        )

    def write(self, variants: Variants) -> None:
        for split, by_language in variants.items():
            if not by_language:
                continue
            path = (self.folder / f"{split}.jsonl").resolve()  # a link stays one
            with replaced_whole(path) as unfinished:
                with unfinished.open("w", encoding="utf-8") as file:
                    for number, row in enumerate(self.rows[split]):
                        old = row.get("back_translations", {})
                        new = {language: texts[number] for language, texts in by_language.items()}
                        file.write(json.dumps(row | {"back_translations": old | new}) + "\n")
                shutil.copymode(path, unfinished)


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
