"""Clotho v2.1 (Drossos et al. 2020; Zenodo 4783391), and the DCASE 2022 task 6b test set (Zenodo 6590983).

Its files have oddities: two caption files end their lines with CRLF and one with LF, metadata is ISO-8859-1, names
begin with spaces or hold characters that some file systems refuse, and names and captions repeat between the splits.
"""

import html
import os
import pathlib
import re
import shutil
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

import datasets

from ...errors import DataError
from ...files import check_local_folder
from ..download import RemoteFile, download, extract
from ..entries import CAPTIONS, Entry, Source
from ..prepare import Preparation, preparation_folder, prepare_dataset, whole_preparation
from ..tables import has_word, read_rows

SPLITS = {"train": "development", "validation": "validation", "test": "evaluation"}  # ours -> Clotho's
CAPTION_COLUMNS = [f"caption_{number}" for number in range(1, 6)]
METADATA_COLUMNS = ("keywords", "sound_id", "sound_link", "start_end_samples", "manufacturer", "license")
NO_METADATA = dict.fromkeys(METADATA_COLUMNS, "")
FEATURES = datasets.Features({"captions": CAPTIONS, **dict.fromkeys(METADATA_COLUMNS, datasets.Value("string"))})


def clotho_entries(audio: pathlib.Path, tables: pathlib.Path) -> Source:
    """
    List the recordings of the splits whose folders are there, each with its five captions.

    Args:
        audio: folder that holds development, validation and evaluation, or some of them.
        tables: folder that holds clotho_captions_*.csv and, optionally, clotho_metadata_*.csv.

    Raises:
        DataError: a caption file is missing or faulty, or no folder of recordings is there.
    """
    if not any((audio / name).is_dir() for name in SPLITS.values()):
        raise DataError(
            f"{audio}: found none of the folders {', '.join(SPLITS.values())}, expected those that Clotho's archives "
            "extract to; name the folder that holds them"
        )
    splits = {}
    for split, name in SPLITS.items():
        if not (audio / name).is_dir():
            continue
        captions = read_captions(tables / f"clotho_captions_{name}.csv")
        metadata = read_metadata(tables / f"clotho_metadata_{name}.csv")
        files = match_recordings(captions, audio / name)
        splits[split] = [
            Entry(
                file_name=file_name,
                audio=files.get(file_name),
                columns={"captions": texts, **metadata.get(_loose(file_name), NO_METADATA)},
                absence=f"{file_name}: found no such file in {audio / name}; fetch the recordings again",
            )
            for file_name, texts in captions.items()
        ]
    return splits, FEATURES


def challenge_entries(audio: pathlib.Path, metadata: pathlib.Path) -> list[Entry]:
    """
    List the recordings of the challenge's own test set. They have no captions, because it was never published which
    caption describes which recording. retrieval_captions.csv holds the queries.

    Args:
        audio: the folder of its recordings.
        metadata: retrieval_audio_metadata.csv.
    """
    rows = read_metadata(metadata)
    return [
        Entry(path.name, path, {"captions": [], **rows.get(_loose(path.name), NO_METADATA)})
        for path in sorted(audio.glob("*.wav"))
    ]


def read_captions(path: pathlib.Path) -> dict[str, list[str]]:
    """
    Read a caption file: file name -> its five captions, both as the file has them, spaces included.

    Raises:
        DataError: the file is missing or faulty.
    """
    captions: dict[str, list[str]] = {}
    for number, row in read_rows(path, ["file_name", *CAPTION_COLUMNS]):
        texts = [row[column] for column in CAPTION_COLUMNS]
        if not all(map(has_word, texts)) or not row["file_name"].strip() or row["file_name"] in captions:
            raise DataError(
                f"{path}:{number}: found the file name {row['file_name']!r} with the captions {texts}, expected a name "
                "that no other line has, and five captions with a word; fetch the file again"
            )
        captions[row["file_name"]] = texts
    return captions


def read_metadata(path: pathlib.Path) -> dict[str, dict[str, str]]:
    """
    Read a metadata file: file name, made comparable -> the columns of its row.

    The result is empty if there is no file. Faulty lines are left out, so that no recording gets another one's license.
    """
    if not path.is_file():
        return {}
    rows = read_rows(path, ["file_name"], "iso-8859-1", faults=[])
    return {_loose(row["file_name"]): {name: row.get(name) or "" for name in METADATA_COLUMNS} for _, row in rows}


def match_recordings(names: Iterable[str], folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """
    Map each name to its file in `folder`; a name without a file is left out.

    A file of exactly that name comes first. The remaining names and files may differ in spaces around the stem, in HTML
    entities, in characters that a file system refuses, and in the form of accents, as long as only one name and one
    file then match.
    """
    names = list(names)
    on_disk = {path.name: path for path in folder.iterdir() if path.is_file()} if folder.is_dir() else {}
    found = {name: on_disk[name] for name in names if name in on_disk}
    wanted, free = defaultdict(list), defaultdict(list)
    for name in [name for name in names if name not in found]:
        wanted[_loose(name)].append(name)
    for name in on_disk.keys() - found.keys():
        free[_loose(name)].append(name)
    for key, candidates in wanted.items():
        if len(candidates) == len(free[key]) == 1:
            found[candidates[0]] = on_disk[free[key][0]]
    return found


def _loose(name: str) -> str:
    """Normalize a file name to the form that all its forms on disk share."""
    stem, dot, suffix = unicodedata.normalize("NFC", html.unescape(name)).rpartition(".")
    return re.sub(r'[\\/:*?"<>|]', "_", stem.strip()) + dot + suffix.strip().lower()


# -------------------------------------------------------------------------------------------------------- fetching

MIRROR = "https://zenodo.org"
RECORD, CHALLENGE_RECORD = 4783391, 6590983
MD5_OF_RECORD = {
    "clotho_audio_development.7z": "c8b05bc7acdb13895bb3c6a29608667e",
    "clotho_audio_validation.7z": "7dba730be08bada48bd15dc4e668df59",
    "clotho_audio_evaluation.7z": "4569624ccadf96223f19cb59fe4f849f",
    "clotho_captions_development.csv": "d4090b39ce9f2491908eebf4d5b09bae",
    "clotho_captions_validation.csv": "5879e023032b22a2c930aaa0528bead4",
    "clotho_captions_evaluation.csv": "1b16b9e57cf7bdb7f13a13802aeb57e2",
    "clotho_metadata_development.csv": "170d20935ecfdf161ce1bb154118cda5",
    "clotho_metadata_validation.csv": "2e010427c56b1ce6008b0f03f41048ce",
    "clotho_metadata_evaluation.csv": "13946f054d4e1bf48079813aac61bf77",
}
MD5_OF_CHALLENGE_RECORD = {
    "retrieval_audio.7z": "24102395fd757c462421a483fba5c407",
    "retrieval_audio_metadata.csv": "1301db07acbf1e4fabc467eb54e0d353",
    "retrieval_captions.csv": "f9e810118be00c64ea8cd7557816d4fe",
}


def fetch_tables(folders: Sequence[pathlib.Path], mirror: str = MIRROR) -> pathlib.Path:
    """
    Find the folder of Clotho's caption and metadata files: the first of the folders that has them all, or else the
    last, into which they are downloaded.

    Raises:
        DataError: a file cannot be downloaded, or is not the published one.
    """
    names = [name for name in MD5_OF_RECORD if name.endswith(".csv")]
    folder = next((folder for folder in folders if all((folder / name).is_file() for name in names)), folders[-1])
    for name in names:
        fetch(name, [folder], mirror)
    return folder


def fetch_audio(
    audio: pathlib.Path, folders: Sequence[pathlib.Path], mirror: str = MIRROR, challenge: bool = False
) -> None:
    """
    Extract the recordings of each split to a folder in `audio`, from archives that are in one of the folders, or are
    downloaded to the last of them.

    Raises:
        DataError: an archive cannot be downloaded, is not the published one, or cannot be extracted.
    """
    wanted = {name: f"clotho_audio_{name}.7z" for name in SPLITS.values()}
    if challenge:
        wanted["test"] = "retrieval_audio.7z"
    for name, archive in wanted.items():
        if not (audio / name).is_dir():
            extract(fetch(archive, folders, mirror), audio / name)


def fetch(name: str, folders: Sequence[pathlib.Path], mirror: str = MIRROR) -> pathlib.Path:
    """Return one of the published files, verified: from the first folder that has it, or downloaded to the last."""
    folder = next((folder for folder in folders if (folder / name).is_file()), folders[-1])
    record, md5_of = (RECORD, MD5_OF_RECORD) if name in MD5_OF_RECORD else (CHALLENGE_RECORD, MD5_OF_CHALLENGE_RECORD)
    url = f"{mirror}/records/{record}/files/{name}?download=1"
    return download(RemoteFile(name, url, md5_of[name]), folder)


def prepare_clotho(
    out: str | os.PathLike,
    archives: pathlib.Path | None = None,
    audio: pathlib.Path | None = None,
    challenge_test: bool = False,
    mirror: str = MIRROR,
    *,
    num_proc: int = 1,
    strict: bool = False,
) -> Preparation:
    """
    Download, extract and prepare Clotho. A second run does what is missing.

    Args:
        out: folder of the data set. Downloads go to its folders `downloads` and `audio`.
        archives: folder of archives that were downloaded before.
        audio: folder of archives that were extracted before; nothing but missing tables is downloaded.
        challenge_test: whether to add the test set of DCASE 2022 task 6b, as split `challenge_test`.
        mirror: server that has Zenodo's files.
        num_proc, strict: see `prepare_dataset`.

    Raises:
        DataError: see `fetch_audio` and `prepare_dataset`.
    """
    check_local_folder(out, "OUT", DataError)
    out = pathlib.Path(out)
    done = whole_preparation(out)
    wanted = {*SPLITS, *(["challenge_test"] if challenge_test else [])}
    if done and not done.skipped and wanted <= set(done.listed) and not audio:
        return done

    with preparation_folder(out):
        downloads = [archives, out / "downloads"] if archives else [out / "downloads"]
        tables = audio if audio and any(audio.glob("clotho_captions_*.csv")) else fetch_tables(downloads, mirror)
        if not audio:
            fetch_audio(out / "audio", downloads, mirror, challenge_test)
        recordings = audio or out / "audio"
        splits, columns = clotho_entries(recordings, tables)
        if challenge_test:
            metadata = fetch("retrieval_audio_metadata.csv", downloads, mirror)
            splits["challenge_test"] = challenge_entries(recordings / "test", metadata)
            shutil.copy(fetch("retrieval_captions.csv", downloads, mirror), out)
    return prepare_dataset(splits, columns, out, num_proc, strict)
