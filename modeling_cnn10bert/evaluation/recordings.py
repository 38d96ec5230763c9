"""Load recordings and captions for an evaluation from any data set."""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..data.audio_io import load_audio
from ..data.entries import Entry, StoredAudio
from ..data.recipes.audio_folder import METADATA_FILES, OTHER_NAMES_OF_SPLITS, own_recordings
from ..data.recipes.clotho import match_recordings, read_captions
from ..data.recipes.soundscapes import SPLITS, Scene, SourceBank, read_manifest, render
from ..data.recordings_table import load_prepared_split
from ..data.saved_tables import without_decoding
from ..data.tables import read_rows
from ..errors import DataError
from ..files import is_path
from ..processing_cnn10bert import caption_words
from ..retrieval.scanning import ENDINGS

FORMS = (
    "a prepared data set (its folder, or its Hub id), a folder of soundscape manifests (train.jsonl, validation.jsonl, "
    "test.jsonl), a CSV file of captions (file_name, caption_1 to caption_5) with the folder of its recordings, or a "
    "folder with metadata.csv or metadata.jsonl"
)


@dataclasses.dataclass(frozen=True)
class Recording:
    """
    A recording with its captions.

    Attributes:
        name: file name or scene id, unique in the set.
        captions: empty if its captions are not known.
        load: sampling rate in Hz -> waveform [samples] float32, one channel.

            Raises AudioError: the recording cannot be used.
        absence: why the recording is missing, such as a file that was not found; otherwise empty.
        notes: remarks on it, set when it is loaded, see `load_audio`.
    """

    name: str
    captions: tuple[str, ...]
    load: Callable[[int], np.ndarray]
    absence: str = ""
    notes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """
    Queries and the recordings that they search.

    Attributes:
        source: name of the data set as given.
        split: name of the split; empty if there are none.
        recordings: with unique names.
        queries: captions without known recordings; empty if `recordings` have captions.

    Captions and names are exactly as in the source, spaces included, because a challenge finds its queries by them.
    """

    source: str
    split: str
    recordings: list[Recording]
    queries: tuple[str, ...] = ()

    def captions(self) -> list[str]:
        """Return all queries, in the order of the recordings if these have captions."""
        return list(self.queries) or [caption for recording in self.recordings for caption in recording.captions]


def load_evaluation_set(
    dataset: str | os.PathLike,
    *,
    split: str | None = None,
    sources: str | os.PathLike | None = None,
    audio: str | os.PathLike | None = None,
) -> EvaluationSet:
    """
    Load the recordings of one split of a data set, each with its captions.

    Args:
        dataset: one of
            * a prepared data set: the folder that cnn10bert prepare wrote, or its Hub id;
            * a folder of soundscape manifests, with `sources`;
            * a CSV file of captions like Clotho's (file_name, caption_1 to caption_5), with `audio`;
            * a folder with metadata.csv or metadata.jsonl, or with folders train, validation and test that have one.
        split: by default `test`, or the only split.
        sources: the recordings that scenes are mixed from; by default the folder `sources` next to the manifests.
        audio: the folder of the recordings of a CSV file.

    Raises:
        DataError: there is no such data set or split, or its captions, metadata or manifests are faulty.
    """
    path, name = Path(dataset), os.fspath(dataset)
    no_csv = path.is_file() and path.suffix.lower() != ".csv"
    no_hub_id = is_path(name) or path.suffix.lower() == ".csv"
    if no_csv or (no_hub_id and not path.exists()):
        found = "a file that is no CSV file" if no_csv else "no such file or folder"
        raise DataError(f"{name}: found {found}, expected {FORMS}")
    if path.is_file():
        _refuse("a CSV file of captions", sources=sources, split=split)
        return _of_caption_file(path, audio)
    has_manifests = path.is_dir() and any((path / f"{known}.jsonl").is_file() for known in SPLITS)
    if has_manifests and not (path / "dataset_dict.json").is_file():
        _refuse("a folder of soundscape manifests", audio=audio)
        splits = [known for known in SPLITS if (path / f"{known}.jsonl").is_file()]
        return _of_manifests(path, split or (splits[0] if len(splits) == 1 else "test"), sources)
    _refuse("a data set with its recordings", sources=sources, audio=audio)
    if path.is_dir() and not (path / "dataset_dict.json").is_file():
        return _of_folder(path, split)
    return _of_prepared(name, split)


def load_unpaired_set(captions: str | os.PathLike, audio: str | os.PathLike) -> EvaluationSet:
    """
    Load queries and recordings without known pairs, such as the test set of DCASE 2022 task 6b.

    Args:
        captions: CSV file with the column `caption`, one query per line, as retrieval_captions.csv.
        audio: the folder of the recordings; its subfolders are ignored.

    Raises:
        DataError: the file cannot be read, a line has no caption, or the folder has no recording.
    """
    captions, audio = Path(captions), Path(audio)
    queries = []
    for number, row in read_rows(captions, ["caption"]):
        if not caption_words(row["caption"]):
            raise DataError(
                f"{captions}:{number}: found the caption {row['caption']!r}, expected one with a word; correct the line"
            )
        queries.append(row["caption"])  # with its spaces, as the challenge compares it
    if not queries:
        raise DataError(f"{captions}: found no query, expected one per line; fetch the file again")
    files = sorted(path for path in _files_of(audio) if path.suffix[1:].lower() in ENDINGS)
    if not files:
        raise DataError(
            f"{audio}: found no recording, expected those that are searched; name the folder that holds them itself"
        )
    recordings = [_of_file(path.name, path, ()) for path in files]
    return EvaluationSet(f"{captions}, {audio}", "", _checked(recordings, str(audio)), tuple(queries))


def _refuse(what: str, **options: str | os.PathLike | None) -> None:
    for name, value in options.items():
        if value is not None:
            raise DataError(f"{name} is {os.fspath(value)!r}, but {what} takes none; leave it out")


def _files_of(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: found no such folder, expected the recordings in it; check the path")
    return [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]


def _of_file(name: str, path: Path, captions: Sequence[str], absence: str = "") -> Recording:
    notes: list[str] = []
    return Recording(name, tuple(captions), functools.partial(load_audio, path, notes=notes), absence, notes)


def _checked(recordings: list[Recording], where: str) -> list[Recording]:
    """
    Raises:
        DataError: there is none, two have the same name, or a name cannot be written to a results file.
    """
    if not recordings:
        raise DataError(f"{where}: found no recording, expected at least one")
    seen = set()
    for recording in recordings:
        if recording.name in seen:
            raise DataError(f"{where}: found the name {recording.name!r} twice, expected it once; correct it")
        seen.add(recording.name)
        if recording.name != recording.name.encode(errors="replace").decode():
            raise DataError(f"{where}: found the name {recording.name!r}, expected UTF-8; rename the file")
    return recordings


# --------------------------------------------------------------------------------------------------- the four forms


def _of_caption_file(path: Path, audio: str | os.PathLike | None) -> EvaluationSet:
    if audio is None:
        raise DataError(f"{path} holds captions only; name the folder of their recordings as audio")
    captions, folder = read_captions(path), Path(audio)
    _files_of(folder)  # raises if there is no such folder
    files = match_recordings(captions, folder)
    recordings = [
        _of_file(name, files.get(name, folder / name), texts, "" if name in files else _not_in(name, folder))
        for name, texts in captions.items()
    ]
    return EvaluationSet(str(path), "", _checked(recordings, str(path)))


def _not_in(name: str, folder: Path) -> str:
    return f"{name}: found no such file in {folder}; fetch the recordings again, or name the folder that has them"


def _of_manifests(folder: Path, split: str, sources: str | os.PathLike | None) -> EvaluationSet:
    sources = folder / "sources" if sources is None else sources
    banks: dict[int, SourceBank] = {}

    def load(scene: Scene, sampling_rate: int) -> np.ndarray:
        return render(scene, banks.setdefault(sampling_rate, SourceBank(sources, sampling_rate)))

    scenes = read_manifest(folder / f"{split}.jsonl", sources)
    recordings = [Recording(scene.id, scene.captions, functools.partial(load, scene)) for scene in scenes]
    return EvaluationSet(str(folder), split, _checked(recordings, str(folder)))


def _of_folder(folder: Path, split: str | None) -> EvaluationSet:
    if not (folder / "state.json").is_file() and not any(
        (parent / name).is_file()
        for parent in (folder, *(child for child in folder.iterdir() if child.is_dir()))
        for name in METADATA_FILES
    ):
        raise DataError(f"{folder}: found none of the forms of a data set, expected {FORMS}")
    listed, _ = own_recordings(str(folder), allow_outside=True)  # they are only read, not published
    splits = {name: entries for name, entries in listed.items() if entries}
    if not splits:
        raise DataError(f"{folder}: found metadata of no recording, expected one line per recording; write them")
    wanted = OTHER_NAMES_OF_SPLITS.get(split, split) if split else None
    wanted = wanted or (next(iter(splits)) if len(splits) == 1 else "test")
    if wanted not in splits:
        raise DataError(f"{folder}: found the splits {', '.join(splits)}, expected {wanted}; name one of them")
    return EvaluationSet(str(folder), wanted, _checked([_of_entry(entry) for entry in splits[wanted]], str(folder)))


def _of_entry(entry: Entry) -> Recording:
    captions = tuple(entry.columns["captions"] or ())
    if isinstance(entry.audio, StoredAudio):
        notes: list[str] = []
        load = functools.partial(entry.audio.load, entry.file_name, notes=notes)
        return Recording(entry.file_name, captions, load, notes=notes)
    if entry.audio is None:
        return _of_file(entry.file_name, Path(entry.file_name), captions, entry.absence)
    absence = "" if entry.audio.is_file() else _not_in(entry.audio.name, entry.audio.parent)
    return _of_file(entry.file_name, entry.audio, captions, absence)


def _of_prepared(name: str, split: str | None) -> EvaluationSet:
    split, table = load_prepared_split(name, split)
    table = without_decoding(table)
    columns, audio = table.select_columns(["file_name", "captions"]), table.select_columns(["audio"])
    recordings = [
        _of_entry(Entry(row["file_name"], StoredAudio(audio, number, "audio"), {"captions": row["captions"]}))
        for number, row in enumerate(columns)
    ]
    return EvaluationSet(name, split, _checked(recordings, name))
