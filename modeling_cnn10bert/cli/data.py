"""Verbs that make data sets to train on."""

import enum
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DataError, one_line
from .common import Commands, app, command

if TYPE_CHECKING:
    from ..data.prepare import Preparation

DATA = "Data sets"
prepare = typer.Typer(cls=Commands, no_args_is_help=True)
app.add_typer(
    prepare,
    name="prepare",
    rich_help_panel=DATA,
    help="Prepare a data set to train on. Run again, a verb does what is missing; what cannot be used is listed in "
    "OUT/skipped.csv.",
)

OutArgument = Annotated[str, typer.Argument(metavar="OUT", help="Folder of the prepared data set.", show_default=False)]
ProcessesOption = Annotated[
    int | None, typer.Option("--num-proc", min=1, help="Processes that decode; by default, all cores.")
]
StrictOption = Annotated[bool, typer.Option("--strict", help="Fail where a recording would be left out.")]
PushOption = Annotated[
    str | None, typer.Option("--push-to-hub", metavar="REPO", help="Also upload it to the Hub, as a private data set.")
]


class Translator(str, enum.Enum):
    marian = "marian"
    apertium = "apertium"


@command(DATA, prepare, bars=True, advice="go on with")
def folder(
    out: OutArgument,
    source: Annotated[
        str, typer.Argument(help="Folder with metadata, data set on disk, or Hub id.", show_default=False)
    ],
    audio_column: Annotated[str, typer.Option("--audio-column", help="Column of a data set's recordings.")] = "audio",
    caption_column: Annotated[
        list[str] | None, typer.Option("--caption-column", help="Column of captions; can be repeated.")
    ] = None,
    validation: Annotated[
        float, typer.Option("--validation", help="Share of the recordings to draw if there is no such split.")
    ] = 0.1,
    test: Annotated[
        float, typer.Option("--test", help="Share of the recordings to draw if there is no such split.")
    ] = 0.1,
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Let rows name recordings outside SOURCE, which are stored too.")
    ] = False,
    num_proc: ProcessesOption = None,
    strict: StrictOption = False,
    push_to_hub: PushOption = None,
) -> None:
    """Your own recordings: a folder with metadata.csv or metadata.jsonl that has file_name and caption or captions.

    The folder may hold folders train, validation and test, each with its metadata, or one metadata file above them.
    """
    from ..data.prepare import prepare_dataset
    from ..data.recipes.audio_folder import own_recordings

    shares = {"validation": validation, "test": test}
    splits, columns = own_recordings(source, audio_column, caption_column or [], shares, allow_outside)
    _finish(prepare_dataset(splits, columns, out, _processes(num_proc), strict), push_to_hub)


@command(DATA, prepare, bars=True, advice="go on with")
def clotho(
    out: OutArgument,
    archives: Annotated[
        Path | None, typer.Option("--archives", help="Folder of downloaded archives; what is missing is downloaded.")
    ] = None,
    audio: Annotated[
        Path | None,
        typer.Option("--audio", help="Folder of the extracted folders development, validation and evaluation."),
    ] = None,
    challenge_test: Annotated[
        bool, typer.Option("--challenge-test", help="Add the test set of DCASE 2022 task 6b as split challenge_test.")
    ] = False,
    mirror: Annotated[str | None, typer.Option("--mirror", help="Server to download from instead of Zenodo.")] = None,
    num_proc: ProcessesOption = None,
    strict: StrictOption = False,
    push_to_hub: PushOption = None,
) -> None:
    """Clotho v2.1: downloads 7 GB from Zenodo to OUT/downloads, extracts them to OUT/audio, resamples.

    When it has ended, OUT/downloads and OUT/audio may be deleted.
    """
    from ..data.recipes.clotho import MIRROR, prepare_clotho

    if archives is not None and audio is not None:
        raise DataError("found both --archives and --audio, expected one of them; leave one out")
    result = prepare_clotho(
        out, archives, audio, challenge_test, mirror or MIRROR, num_proc=_processes(num_proc), strict=strict
    )
    _finish(result, push_to_hub)


@command(DATA, prepare, bars=True, advice="go on with")
def audiocaps(
    out: OutArgument,
    captions: Annotated[
        Path,
        typer.Option(
            "--captions",
            help="Folder of train.csv, val.csv and test.csv of github.com/cdjkim/audiocaps.",
            show_default=False,
        ),
    ],
    audio: Annotated[
        Path,
        typer.Option(
            "--audio", help="Folder of Y<youtube_id>.wav or <youtube_id>_<start>.wav at any depth.", show_default=False
        ),
    ],
    split: Annotated[
        list[str] | None, typer.Option("--split", help="Split to prepare; can be repeated; by default, all.")
    ] = None,
    num_proc: ProcessesOption = None,
    strict: StrictOption = False,
    push_to_hub: PushOption = None,
) -> None:
    """AudioCaps, from its caption files and a folder of the recordings that you have."""
    from ..data.prepare import prepare_dataset
    from ..data.recipes.audiocaps import SPLITS, audiocaps_entries
    from ..data.recipes.youtube import YouTubeFolder

    if unknown := sorted(set(split or ()) - set(SPLITS)):
        raise DataError(f"--split: found {unknown[0]!r}, expected one of {', '.join(SPLITS)}")
    splits, columns = audiocaps_entries(captions, YouTubeFolder(audio))
    splits = {name: splits[name] for name in SPLITS if name in (split or SPLITS)}
    _finish(prepare_dataset(splits, columns, out, _processes(num_proc), strict), push_to_hub)


@command(DATA, prepare, bars=True, advice="go on with")
def audioset(
    out: OutArgument,
    segments: Annotated[
        list[Path],
        typer.Argument(help="Segment files; NAME_segments.csv becomes the split NAME.", show_default=False),
    ],
    labels: Annotated[Path, typer.Option("--labels", help="class_labels_indices.csv.", show_default=False)],
    audio: Annotated[
        Path,
        typer.Option(
            "--audio", help="Folder of Y<youtube_id>.wav or <youtube_id>_<start>.wav at any depth.", show_default=False
        ),
    ],
    num_proc: ProcessesOption = None,
    strict: StrictOption = False,
) -> None:
    """AudioSet, as shards to stream from."""
    from ..data.recipes.audioset import audioset_entries, prepare_audioset, read_labels
    from ..data.recipes.youtube import YouTubeFolder

    classes, recordings = read_labels(labels), YouTubeFolder(audio)
    splits = {
        path.stem.removesuffix("_segments").replace("-", "_"): audioset_entries(path, classes, recordings)
        for path in segments
    }
    _finish(prepare_audioset(splits, out, _processes(num_proc), strict))


@command(DATA, bars=True, advice="go on with")
def back_translate(
    dataset: Annotated[
        str, typer.Argument(help="Folder of a prepared data set or of soundscape manifests.", show_default=False)
    ],
    languages: Annotated[list[str], typer.Argument(help="Such as de fr es.", show_default=False)],
    split: Annotated[
        list[str] | None, typer.Option("--split", help="Split to translate; can be repeated; by default train.")
    ] = None,
    translator: Annotated[
        Translator, typer.Option("--translator", help="opus-mt's MarianMT models, or apertium's rules (es only).")
    ] = Translator.marian,
    models: Annotated[
        str | None, typer.Option("--models", help="Folder of opus-mt-en-de, opus-mt-de-en, ...; by default the Hub's.")
    ] = None,
    num_beams: Annotated[int, typer.Option("--num-beams", min=1, help="Width of the beam search; 1 is greedy.")] = 4,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Captions translated together.")] = 32,
    device: Annotated[
        str | None, typer.Option("--device", help="Device of the models; by default a GPU if there is one.")
    ] = None,
) -> None:
    """Add back-translations of its captions to a data set, for training with p_bt above 0."""
    from ..augmentation.back_translation import (
        APERTIUM_PAIRS,
        LANGUAGES,
        apertium_pair,
        marian_pair,
        require_language,
    )
    from ..data.caption_variants import add_back_translations

    by_rules = translator is Translator.apertium
    for language in languages:  # before the first hour of work, not after it
        require_language(language, tuple(APERTIUM_PAIRS) if by_rules else LANGUAGES)

    def make_pair(language: str):
        return apertium_pair(language) if by_rules else marian_pair(language, models, num_beams, device)

    counts = add_back_translations(dataset, languages, make_pair, split or ["train"], batch_size)
    for language in dict.fromkeys(languages):
        if (count := counts.get(language)) is None:
            typer.echo(f"{language}: already there, nothing to do")
        else:
            typer.echo(
                f"{language}: {count.captions} different captions, {count.unchanged} came back unchanged, "
                f"{count.empty} empty (the caption itself is stored)"
            )


def _processes(num_proc: int | None) -> int:
    return num_proc or len(os.sched_getaffinity(0))


def _finish(result: "Preparation", push_to_hub: str | None = None) -> None:
    """
    Print what was prepared, and upload it if asked to.

    Raises:
        DataError: it could not be uploaded; what was prepared stays.
    """
    typer.echo(str(result))
    if not push_to_hub:
        return
    import datasets

    try:  # private: most recordings may be used, but not be given on
        datasets.load_from_disk(result.folder).push_to_hub(push_to_hub, private=True)
    except Exception as error:  # of the Hub, the connection or the HTTP library of the day: what is whole stays
        raise DataError(
            f"{result.folder} is prepared, but could not be uploaded to {push_to_hub} ({one_line(error)}); check the "
            "name and your login (`hf auth login`), and run the command again: it only uploads"
        ) from error
