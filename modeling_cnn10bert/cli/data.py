"""Verbs that make data sets to train on."""

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import DataError, one_line
from .common import Commands, DeviceOption, app, command

if TYPE_CHECKING:
    from ..data.prepare import Preparation

DATA = "Data sets"
prepare = typer.Typer(cls=Commands, no_args_is_help=True)
app.add_typer(
    prepare,
    name="prepare",
    rich_help_panel=DATA,
    help="Prepare a data set for training. Run the same command again to resume. Unusable recordings are listed "
    "in OUT/skipped.csv.",
    epilog="Example:\n  cnn10bert prepare folder data/mine ~/sounds",
)

OutArgument = Annotated[str, typer.Argument(metavar="OUT", help="Folder to write the data set to.", show_default=False)]
ProcessesOption = Annotated[
    int | None, typer.Option("--num-proc", min=1, help="Number of decoding processes. By default, one per CPU core.")
]
StrictOption = Annotated[bool, typer.Option("--strict", help="Fail if a recording cannot be used.")]
PushOption = Annotated[
    str | None, typer.Option("--push-to-hub", metavar="REPO", help="Also upload it to the Hub as a private data set.")
]
YouTubeAudioOption = Annotated[
    Path, typer.Option("--audio", help="Folder of recordings named Y<youtube_id>.wav or <youtube_id>_<start>.wav.")
]
preparation = functools.partial(command, DATA, parent=prepare, bars=True, advice="continue with")


Translator = Literal["marian", "apertium"]


@preparation("prepare folder data/mine ~/sounds", "prepare folder data/mine NAME/DATASET --caption-column text")
def folder(
    out: OutArgument,
    source: Annotated[str, typer.Argument(help="Folder with metadata, saved data set, or Hub id.", show_default=False)],
    audio_column: Annotated[str, typer.Option("--audio-column", help="Audio column of a data set.")] = "audio",
    caption_column: Annotated[
        list[str] | None,
        typer.Option("--caption-column", help="Caption column. Can be repeated. By default, captions or caption."),
    ] = None,
    validation: Annotated[
        float, typer.Option("--validation", help="Fraction of the recordings for validation if that split is missing.")
    ] = 0.1,
    test: Annotated[
        float, typer.Option("--test", help="Fraction of the recordings for testing if that split is missing.")
    ] = 0.1,
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Accept recordings outside the source folder.")
    ] = False,
    num_proc: ProcessesOption = None,
    strict: StrictOption = False,
    push_to_hub: PushOption = None,
) -> None:
    """Prepare your own recordings and captions.

    The source folder contains metadata.csv or metadata.jsonl, with the columns
    file_name and caption or captions. Recordings in subfolders named train,
    validation and test stay in these splits. Each subfolder may have its own
    metadata file.
    """
    from ..data.prepare import prepare_dataset
    from ..data.recipes.audio_folder import own_recordings

    shares = {"validation": validation, "test": test}
    splits, columns = own_recordings(source, audio_column, caption_column or [], shares, allow_outside)
    _finish(prepare_dataset(splits, columns, out, _processes(num_proc), strict), push_to_hub)


@preparation("prepare clotho data/clotho", "prepare clotho data/clotho --archives ~/downloads")
def clotho(
    out: OutArgument,
    archives: Annotated[
        Path | None, typer.Option("--archives", help="Folder of downloaded archives. Missing ones are downloaded.")
    ] = None,
    audio: Annotated[
        Path | None,
        typer.Option("--audio", help="Folder with the extracted development, validation and evaluation folders."),
    ] = None,
    challenge_test: Annotated[
        bool, typer.Option("--challenge-test", help="Add the DCASE 2022 task 6b test set as split challenge_test.")
    ] = False,
    mirror: Annotated[str | None, typer.Option("--mirror", help="Server to download from instead of Zenodo.")] = None,
    num_proc: ProcessesOption = None,
    strict: StrictOption = False,
    push_to_hub: PushOption = None,
) -> None:
    """Download Clotho v2.1 (7 GB) from Zenodo and prepare it.

    The folders OUT/downloads and OUT/audio can be deleted afterwards.
    """
    from ..data.recipes.clotho import MIRROR, prepare_clotho

    if archives is not None and audio is not None:
        raise DataError("found both --archives and --audio, expected one of them; leave one out")
    result = prepare_clotho(
        out, archives, audio, challenge_test, mirror or MIRROR, num_proc=_processes(num_proc), strict=strict
    )
    _finish(result, push_to_hub)


@preparation("prepare audiocaps OUT --captions CAPTIONS_DIR --audio AUDIO_DIR")
def audiocaps(
    out: OutArgument,
    captions: Annotated[
        Path,
        typer.Option(
            "--captions",
            help="Folder with train.csv, val.csv and test.csv from github.com/cdjkim/audiocaps.",
            show_default=False,
        ),
    ],
    audio: YouTubeAudioOption,
    split: Annotated[
        list[str] | None, typer.Option("--split", help="Split to prepare. Can be repeated. By default, all splits.")
    ] = None,
    num_proc: ProcessesOption = None,
    strict: StrictOption = False,
    push_to_hub: PushOption = None,
) -> None:
    """Prepare AudioCaps from its caption files and a folder of its recordings."""
    from ..data.prepare import prepare_dataset
    from ..data.recipes.audiocaps import SPLITS, audiocaps_entries
    from ..data.recipes.youtube import YouTubeFolder

    if unknown := sorted(set(split or ()) - set(SPLITS)):
        raise DataError(f"--split: found {unknown[0]!r}, expected one of {', '.join(SPLITS)}")
    splits, columns = audiocaps_entries(captions, YouTubeFolder(audio))
    splits = {name: splits[name] for name in SPLITS if name in (split or SPLITS)}
    _finish(prepare_dataset(splits, columns, out, _processes(num_proc), strict), push_to_hub)


@preparation("prepare audioset OUT eval_segments.csv --audio DIR \\\n  --labels class_labels_indices.csv")
def audioset(
    out: OutArgument,
    segments: Annotated[
        list[Path],
        typer.Argument(help="Segment lists of AudioSet. NAME_segments.csv becomes the split NAME.", show_default=False),
    ],
    labels: Annotated[Path, typer.Option("--labels", help="AudioSet's class_labels_indices.csv.", show_default=False)],
    audio: YouTubeAudioOption,
    num_proc: ProcessesOption = None,
    strict: StrictOption = False,
) -> None:
    """Prepare AudioSet as shards for streaming."""
    from ..data.recipes.audioset import audioset_entries, prepare_audioset, read_labels
    from ..data.recipes.youtube import YouTubeFolder

    classes, recordings = read_labels(labels), YouTubeFolder(audio)
    splits = {
        path.stem.removesuffix("_segments").replace("-", "_"): audioset_entries(path, classes, recordings)
        for path in segments
    }
    _finish(prepare_audioset(splits, out, _processes(num_proc), strict))


@command(DATA, "back-translate data/clotho de fr es", bars=True, advice="continue with")
def back_translate(
    dataset: Annotated[
        str, typer.Argument(help="Folder of a prepared data set or of soundscape manifests.", show_default=False)
    ],
    languages: Annotated[
        list[str], typer.Argument(help="Intermediate languages, such as de fr es.", show_default=False)
    ],
    split: Annotated[
        list[str] | None, typer.Option("--split", help="Split to translate. Can be repeated. By default, train.")
    ] = None,
    translator: Annotated[
        Translator, typer.Option("--translator", help="marian uses opus-mt models, apertium uses rules (es only).")
    ] = "marian",
    models: Annotated[
        str | None, typer.Option("--models", help="Folder with models such as opus-mt-en-de. By default, from the Hub.")
    ] = None,
    num_beams: Annotated[
        int, typer.Option("--num-beams", min=1, help="Beam width of the translation. 1 is greedy search.")
    ] = 4,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Number of captions to translate at once.")
    ] = 32,
    device: DeviceOption = None,
) -> None:
    """Add back-translated captions to a data set, for training with p_bt above 0."""
    from ..augmentation.back_translation import (
        APERTIUM_PAIRS,
        LANGUAGES,
        apertium_pair,
        marian_pair,
        require_language,
    )
    from ..data.caption_variants import add_back_translations

    by_rules = translator == "apertium"
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
