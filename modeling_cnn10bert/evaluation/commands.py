"""Run `cnn10bert evaluate`, `submit` and `score`."""

import csv
import io
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..bars import progress_bar
from ..errors import DataError, RetrievalError
from ..files import write_text
from ..processing_cnn10bert import caption_words
from ..retrieval.embedding import Embedder, load_embedder
from ..retrieval.moments import as_frame_embedder, context_frames, embed_frames, find_passages
from ..retrieval.scanning import is_recording
from .bootstrap import CONFIDENCE, RESAMPLES, check_bootstrap
from .evaluate import ModelEvaluation, embed_captions, embed_recordings, evaluate_model
from .metric import cosine_similarity
from .recordings import EvaluationSet, load_evaluation_set, load_unpaired_set
from .reports import markdown_table
from .submissions import (
    RANKS,
    is_ranked_output,
    read_dcase2026_queries,
    score_matrix,
    score_ranked_output,
    write_dcase2022,
    write_dcase2025,
    write_dcase2026,
)

FORMATS = ("dcase2022", "dcase2025", "dcase2026")
FOUND_SHOWN = 10  # recordings per query in ranks.csv
RESULTS, RANKS_TABLE, PICTURE = "results.json", "ranks.csv", "metrics.png"


def run_evaluate(
    model: str,
    dataset: str,
    *,
    split: str | None = None,
    sources: str | None = None,
    audio: str | None = None,
    out: str | None = None,
    device: str | None = None,
    dtype: str = "float32",
    bootstrap_resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
    skip_missing: bool = False,
    trust_remote_code: bool = False,
    revision: str | None = None,
    progress: bool = True,
) -> ModelEvaluation:
    """
    Evaluate a model on one split of a data set, print the metrics, and write results.json, ranks.csv and metrics.png.

    Args:
        model, device, dtype, trust_remote_code, revision: see `load_embedder`.
        dataset, split, sources, audio: see `load_evaluation_set`.
        out: the output folder, by default `runs/evaluation/MODEL-DATASET-SPLIT`. It must not hold an evaluation of
            another model or on another data set.
        bootstrap_resamples, confidence, seed: of the intervals, see `bootstrap_intervals`.
        skip_missing: leave out recordings that cannot be used; the results say how many.
        progress: whether to show progress bars.

    Raises:
        RetrievalError, DataError, AudioError: the model, the data set or a recording is faulty.
    """
    check_bootstrap(bootstrap_resamples, confidence)
    evaluation_set = load_evaluation_set(dataset, split=split, sources=sources, audio=audio)
    embedder = load_embedder(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code, revision=revision)
    folder = Path(out) if out else _default_folder(model, evaluation_set)
    about = {"dataset": evaluation_set.source, "split": evaluation_set.split}
    _refuse_another(folder, {**about, "fingerprint": embedder.identity.fingerprint})
    evaluation = evaluate_model(
        embedder,
        evaluation_set.recordings,
        resamples=bootstrap_resamples,
        confidence=confidence,
        seed=seed,
        skip_missing=skip_missing,
        progress=progress,
    )
    files = write_evaluation(evaluation, folder, **about)
    print(f"{embedder.identity.name} on {_named(evaluation_set)}:")
    print(f"{len(evaluation.recordings)} recordings, {len(evaluation.captions)} captions")
    print("in percent; t2a: text to audio, a2t: audio to text\n")
    print(evaluation.table())
    if evaluation.left_out:
        print(f"{len(evaluation.left_out)} of {len(evaluation_set.recordings)} recordings could not be used.")
    if evaluation.notes:
        print(f"{len(evaluation.notes)} recordings were used with a remark, see notes in {RESULTS}.")
    print("Written to", ", ".join(str(path) for path in files.values()))
    return evaluation


def run_submit(
    model: str,
    dataset: str | None = None,
    *,
    format: str,
    out: str,
    split: str | None = None,
    sources: str | None = None,
    captions: str | None = None,
    audio: str | None = None,
    device: str | None = None,
    dtype: str = "float32",
    trust_remote_code: bool = False,
    revision: str | None = None,
    progress: bool = True,
) -> Path:
    """
    Search the recordings of a data set by each of its captions and write the file in a challenge's submission format.

    Args:
        model, device, dtype, trust_remote_code, revision: see `load_embedder`.
        dataset, split, sources, audio: see `load_evaluation_set`; or, without `dataset`, `captions` and `audio`: see
            `load_unpaired_set`.
        format: `dcase2022`, `dcase2025` or `dcase2026`; the last takes no data set, see `_submit_moments`.
        out: the file; it must not exist yet.
        progress: whether to show progress bars.

    Returns:
        The file.

    Raises:
        RetrievalError, DataError, AudioError: the model, the data set or a recording is faulty. A recording that
            cannot be used is always an error, because no query could find it.
    """
    if format not in FORMATS:
        raise RetrievalError(f"format is {format!r}, expected {' or '.join(FORMATS)}")
    path = Path(out)
    if path.exists():
        raise RetrievalError(f"{path}: found it there already, expected a new file; name another, or move it away")
    if format == "dcase2026":
        if dataset is not None or split is not None or sources is not None or captions is None or audio is None:
            raise DataError(
                "expected captions (the challenge's JSON lines with qid, query and vid) and audio (the folder of its "
                "recordings) for dcase2026, and no data set"
            )
        embedder = load_embedder(
            model, device=device, dtype=dtype, trust_remote_code=trust_remote_code, revision=revision
        )
        return _submit_moments(embedder, Path(captions), Path(audio), path, progress)
    searched = _searched(dataset, split, sources, captions, audio)
    if format == "dcase2022" and len(searched.recordings) < RANKS:
        raise RetrievalError(
            f"{_named(searched)}: found {len(searched.recordings)} recordings, expected at least {RANKS}: the "
            "challenge ranks ten"
        )
    for recording in searched.recordings:
        if recording.absence:
            raise DataError(recording.absence)
    queries = searched.captions()
    if not queries:
        raise DataError(f"{_named(searched)}: found no caption, expected the queries; name a table of captions")
    if wordless := [query for query in queries if not caption_words(query)]:
        raise DataError(f"{_named(searched)}: found the query {wordless[0]!r}, expected one with a word; correct it")
    embedder = load_embedder(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code, revision=revision)
    text = embed_captions(embedder, queries, progress=progress)  # first, because it fails sooner
    names, embeds, _ = embed_recordings(embedder, searched.recordings, progress=progress)
    try:
        similarity = cosine_similarity(text, embeds)
    except ValueError as error:
        raise RetrievalError(
            f"{embedder.identity.name}: {error}; check the model, its training may have diverged"
        ) from error
    if format == "dcase2022":
        found = best_first(similarity, names, RANKS)
        write_dcase2022(path, queries, [[names[column] for column in columns] for columns in found])
    else:
        write_dcase2025(path, queries, names, similarity)
    for recording in searched.recordings:
        for note in dict.fromkeys(recording.notes):
            print(f"{recording.name}: {note}")
    print(f"{len(queries)} queries over {len(names)} recordings, as {format} has it, written to {path}")
    return path


def _submit_moments(embedder: Embedder, captions: Path, audio: Path, path: Path, progress: bool) -> Path:
    """
    Find the passages of each query in its recording, and write a submission of DCASE 2026 task 6.

    Args:
        captions: see `read_dcase2026_queries`.
        audio: folder of the recordings, each named by its `vid` with any ending.

    Raises:
        DataError: the queries are faulty, or a recording is missing.
        RetrievalError: the model has no embeddings of frames.
    """
    queries = read_dcase2026_queries(captions)
    frame_embedder = as_frame_embedder(embedder)
    found = {file.stem: file for file in sorted(audio.iterdir() if audio.is_dir() else ()) if is_recording(file.name)}
    if missing := sorted({query.vid for query in queries} - found.keys()):
        raise DataError(f"{audio}: found no recording {missing[0]!r} ({len(missing)} are missing); check the folder")
    texts = embed_captions(embedder, [query.query for query in queries], progress=progress)
    by_recording: dict[str, list[int]] = {}
    for number, query in enumerate(queries):
        by_recording.setdefault(query.vid, []).append(number)
    passages: dict[int, list[tuple[float, float]]] = {}
    for vid, numbers in progress_bar(by_recording.items(), desc="Moments", disable=not progress):
        context = context_frames(frame_embedder)
        frames, duration = embed_frames(found[vid], frame_embedder, context, level_normalized=True)
        seconds = frame_embedder.frame_samples / embedder.sampling_rate
        for number in numbers:
            spans = find_passages(frames @ texts[number], seconds, duration)
            passages[number] = [(passage.start, passage.end) for passage in spans]
    write_dcase2026(path, queries, [passages[number] for number in range(len(queries))])
    print(f"{len(queries)} queries over {len(by_recording)} recordings, as dcase2026 has it, written to {path}")
    return path


def run_score(output: str, captions: str) -> dict[str, float]:
    """
    Score a challenge's output file against the ground truth, and print the metrics.

    Args:
        output: a ranked output of DCASE 2022 or a matrix of DCASE 2025; its columns tell which.
        captions: see `score_ranked_output` and `score_matrix`.

    Raises:
        DataError: a file is missing or faulty, or the two do not belong together.
    """
    score = score_ranked_output if is_ranked_output(Path(output)) else score_matrix
    metrics = score(Path(output), Path(captions))
    rows = [[name, f"{value:.1f}" if name == "MedR" else f"{100 * value:.2f}"] for name, value in metrics.items()]
    print(markdown_table(["", "text to audio (%)"], rows))
    return metrics


def _searched(
    dataset: str | None, split: str | None, sources: str | None, captions: str | None, audio: str | None
) -> EvaluationSet:
    if dataset is not None:
        if captions is not None:
            raise DataError(
                f"found both the data set {dataset!r} and captions {captions!r}, expected one; a data set has its own"
            )
        return load_evaluation_set(dataset, split=split, sources=sources, audio=audio)
    if surplus := [name for name, value in (("split", split), ("sources", sources)) if value is not None]:
        raise DataError(f"{surplus[0]} is given, but queries and recordings of their own take none; leave it out")
    if captions is None or audio is None:
        raise DataError(
            "found no data set, expected one, or captions (a table of the queries, column caption) and audio (the "
            "folder of the recordings)"
        )
    return load_unpaired_set(captions, audio)


def _named(evaluation_set: EvaluationSet) -> str:
    return evaluation_set.source + (f", split {evaluation_set.split}" if evaluation_set.split else "")


def _default_folder(model: str, evaluation_set: EvaluationSet) -> Path:
    # A checkpoint's own name says little, so its run's name is put before it.
    folders = Path(model).resolve().parts[-2:] if os.path.isdir(model) else [model]
    source = Path(evaluation_set.source)
    parts = [*folders, source.stem if source.is_file() else source.name, evaluation_set.split]
    return Path("runs", "evaluation", "-".join(re.sub(r"[^\w.]+", "_", part) for part in parts if part))


def _refuse_another(folder: Path, about: dict[str, str]) -> None:
    """
    Raises:
        RetrievalError: the folder holds other results, which would be lost.
    """
    path = folder / RESULTS
    if not path.exists():
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        found = {"dataset": found["dataset"], "split": found["split"], "fingerprint": found["model"]["fingerprint"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RetrievalError(
            f"{path}: found a file that is no evaluation ({error!r}), expected none; name another folder"
        ) from error
    for name, value in about.items():
        if found[name] != value:
            what = "model" if name == "fingerprint" else name
            raise RetrievalError(
                f"{path}: found the evaluation of another {what} ({found[name]}, not {value}), expected none or one of "
                "this; name another folder"
            )


# ---------------------------------------------------------------------------------------------------------------- files


def write_evaluation(evaluation: ModelEvaluation, folder: str | os.PathLike, **about: Any) -> dict[str, Path]:
    """
    Write results.json, ranks.csv and metrics.png, each whole or not at all.

    ranks.csv has one line per query: the caption, its recording (`file_name`), the rank, and the first ten recordings
    found with their scores. The rank is that of the recording, or of the best of all recordings with the same caption;
    ties never improve it. Recordings with equal scores are sorted by name.

    Args:
        evaluation: the evaluation to write.
        folder: created if it does not exist.
        about: further fields of results.json, such as the data set.

    Returns:
        Name -> path of the file.
    """
    from .plots import plot_evaluation  # matplotlib

    folder = Path(folder)
    write_text(folder / RANKS_TABLE, _ranks_table(evaluation))
    plot_evaluation(evaluation, folder / PICTURE, title=_title(evaluation, about))
    # Written last: if it exists, so do the others.
    write_text(folder / RESULTS, json.dumps({**about, **evaluation.to_dict()}, indent=2, ensure_ascii=False) + "\n")
    return {name: folder / name for name in (RESULTS, RANKS_TABLE, PICTURE)}


def best_first(similarity: np.ndarray, names: Sequence[str], count: int) -> np.ndarray:
    """
    Return the columns [queries, count] of the best items of each query in [queries, items], best first.

    Items with equal scores are sorted by name.
    """
    by_name = np.array(sorted(range(len(names)), key=names.__getitem__))
    return by_name[np.argsort(-similarity[:, by_name], axis=1, kind="stable")[:, :count]]


def _title(evaluation: ModelEvaluation, about: dict[str, Any]) -> str:
    parts = [f"{name} {value}" if name == "split" else str(value) for name, value in about.items() if value]
    return " on ".join([evaluation.model.name, ", ".join(parts)] if parts else [evaluation.model.name])


def _ranks_table(evaluation: ModelEvaluation) -> str:
    ranked, names = evaluation.ranked, evaluation.recordings
    count = min(FOUND_SHOWN, len(names))
    found = best_first(ranked.similarity, names, count)
    scores = np.take_along_axis(ranked.similarity, found, axis=1)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    numbers = range(1, count + 1)
    header = ["caption", "file_name", "rank"]
    writer.writerow([*header, *(f"{what}_{number}" for number in numbers for what in ("file_name", "score"))])
    for caption, audio, rank, columns, cosines in zip(
        evaluation.captions, ranked.audio_of_text, ranked.text_to_audio, found, scores, strict=True
    ):
        cells = [cell for column, cosine in zip(columns, cosines, strict=True) for cell in (names[column], cosine)]
        writer.writerow([caption, names[audio], int(rank[0]), *(_cell(cell) for cell in cells)])
    return table.getvalue()


def _cell(value: str | np.float32) -> str:
    return value if isinstance(value, str) else f"{value:.6f}"
