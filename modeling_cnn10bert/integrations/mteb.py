"""Score a checkpoint on mteb's tasks, and describe it in the form of mteb's registry of models.

mteb's tasks with audio form MAEB, the Massive Audio Embedding Benchmark. mteb loads a checkpoint with
sentence-transformers, and resamples its own recordings with torchaudio. `LocalTextToAudio` and `LocalAudioToText` are
tasks over a data set of ours. Their scores are those of `evaluate_model`.
"""

import functools
import os
import re
import typing
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from huggingface_hub import HfApi, ModelCard
from yaml import YAMLError

from ..data.entries import SAMPLING_RATE
from ..data.pairs import caption_key
from ..errors import AudioError, DataError, InputError, RetrievalError, one_line
from ..evaluation.evaluate import why_unusable
from ..evaluation.recordings import EvaluationSet, Recording, load_evaluation_set
from ..evaluation.reports import markdown_table
from ..files import write_text
from ..publishing.facts import earlier_data
from ..retrieval.embedding import BATCH_SIZE, load_embedder
from ..retrieval.identity import model_file

try:
    import mteb
    import torchaudio  # noqa: F401  # with which mteb resamples recordings
    from mteb.abstasks import AbsTask, AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import ModelMeta, SentenceTransformerEncoderWrapper
    from mteb.results import TaskResult
    from mteb.types import Licenses
    from sentence_transformers import SentenceTransformer
except ImportError as error:
    raise RetrievalError(
        f"a benchmark needs mteb and torchaudio, which cannot be imported ({one_line(error)}); install them: "
        'pip install "cnn10bert[mteb]"'
    ) from error

# Subtypes of mteb's retrieval tasks whose texts describe sounds. Those of the others are about speech or music.
SOUND_SUBTYPES = {"Environment Sound Retrieval", "Reasoning as Retrieval"}
# Training data of which mteb has tasks: their names begin with it.
DATA_IN_MTEB = ("Clotho", "AudioCaps", "AudioSet")
# Our metrics -> mteb's. They are equal for queries with at most ten relevant items.
METRICS = {"mAP@10": "map_at_10", "R@1": "hit_rate_at_1", "R@5": "hit_rate_at_5", "R@10": "hit_rate_at_10"}

CITATION = r"""@inproceedings{primus2022improving,
  title = {Improving Natural-Language-Based Audio Retrieval with Transfer Learning and Audio \& Text Augmentations},
  author = {Primus, Paul and Widmer, Gerhard},
  booktitle = {Detection and Classification of Acoustic Scenes and Events Workshop (DCASE)},
  year = {2022},
}"""
# Fields that mteb's contribution guide asks for and that a checkpoint may not tell.
ASKED_FOR = (
    "release_date",
    "license",
    "public_training_code",
    "public_training_data",
    "training_datasets",
    "reference",
)
ENTRY = """\
# The entry of {name} in mteb's registry of models.
#
# To bring its scores to mteb's leaderboard:
# 1. Publish the model on the Hub (cnn10bert publish), and write this entry again for its Hub id.
# 2. Fill in what is None, if it is known: {unknown}.
#    training_datasets are mteb's tasks on data that the model was trained on, their training splits included.
# 3. Save this file as mteb/models/model_implementations/cnn10bert_models.py in a fork of
#    https://github.com/embeddings-benchmark/mteb, and check it there with mteb mock-run -m {name}
# 4. Open a pull request with the list of mteb's guide (docs/contributing/adding_a_model.md):
#    - [ ] I have filled out the ModelMeta object to the extent possible
#    - [ ] I have ensured that my model can be loaded using
#      - [ ] `mteb.get_model(model_name, revision)` and
#      - [ ] `mteb.get_model_meta(model_name, revision)`
#    - [ ] I have tested the implementation works on a representative set of tasks.
#    - [ ] The model is public, i.e., is available either as an API or the weights are publicly available to download
#    - [ ] I reproduced results from the original paper (if applicable) on at least one benchmark, and I am including
#          the results in the PR description.
# 5. Send the scores that cnn10bert benchmark wrote to the repository of results:
#    mteb.ResultCache("runs/benchmark").submit_results("{name}", create_pr=False)
from mteb.models import ModelMeta, SentenceTransformerEncoderWrapper
from mteb.models.model_meta import ScoringFunction

{variable} = {source}
"""


# ------------------------------------------------------------------------------------------------------- the model


def model_meta(model: str, *, revision: str | None = None, trust_remote_code: bool = False) -> ModelMeta:
    """
    Describe a checkpoint for mteb.

    A model on the Hub has its id as name and its commit as revision. A folder has its last two parts as name and the
    fingerprint of its weights as revision, so that mteb stores the scores of different weights apart.

    Args:
        model: folder or Hub id of a `CNN10BertModel`.
        revision: branch, tag or commit on the Hub.
        trust_remote_code: whether to run code that comes with a model.

    Raises:
        RetrievalError: the model cannot be loaded, or is of another kind.
    """
    embedder = load_embedder(
        model, device="cpu", backend="torch", revision=revision, trust_remote_code=trust_remote_code
    )
    network, config = embedder.model, embedder.model.config
    if config.model_type != "cnn10bert":
        raise RetrievalError(
            f"{model}: found a model of the kind {config.model_type}, expected a cnn10bert; score other models with "
            "`mteb run`"
        )
    on_hub = not os.path.isdir(model)
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    return ModelMeta(
        loader=SentenceTransformerEncoderWrapper,
        loader_kwargs={"trust_remote_code": True, "target_sampling_rate": embedder.sampling_rate},
        name=model if on_hub else "/".join(["local", *Path(model).resolve().parts[1:]][-2:]),
        revision=embedder.identity.revision or embedder.identity.fingerprint,
        release_date=_release_date(model) if on_hub else None,
        languages=["eng-Latn"],
        n_parameters=num_parameters,
        n_embedding_parameters=network.text_model.embeddings.word_embeddings.weight.numel(),
        memory_usage_mb=round(num_parameters * 4 / 2**20),
        max_tokens=embedder.processor.tokenizer.model_max_length,
        embed_dim=config.projection_dim,
        license=_license(model, revision),
        open_weights=True,
        public_training_code=None,
        public_training_data=None,
        framework=["Sentence Transformers", "PyTorch", "Transformers", "safetensors"],
        reference=f"https://huggingface.co/{model}" if on_hub else None,
        similarity_fn_name="cosine",
        use_instructions=False,
        training_datasets=_training_tasks(model),
        modalities=["audio", "text"],
        citation=CITATION,
    )


def load_model(
    model: str, meta: ModelMeta, *, device: str | None = None, trust_remote_code: bool = False
) -> SentenceTransformerEncoderWrapper:
    """Load a checkpoint as mteb does by its entry; `meta` is its `model_meta`, which checks it."""
    revision = None if os.path.isdir(model) else meta.revision
    network = SentenceTransformer(model, device=device, revision=revision, trust_remote_code=trust_remote_code)
    encoder = SentenceTransformerEncoderWrapper(
        network, target_sampling_rate=meta.loader_kwargs["target_sampling_rate"]
    )
    encoder.mteb_model_meta = meta
    return encoder


def write_entry(meta: ModelMeta, path: str | os.PathLike) -> None:
    """Write the module that adds a model to mteb's registry, with the steps of mteb's guide as comments."""
    code = ENTRY.format(
        name=meta.name,
        unknown=", ".join(name for name in ASKED_FOR if getattr(meta, name) is None) or "nothing",
        variable=re.sub(r"\W", "_", f"model_{meta.name.split('/')[-1]}".lower()),
        source=meta.to_python(),
    )
    write_text(path, code)


def _release_date(model: str) -> str | None:
    """Return the day of the first commit of a repository on the Hub; `None` if the Hub does not tell it."""
    try:
        return HfApi().list_repo_commits(model)[-1].created_at.date().isoformat()
    except Exception:  # the Hub and the network raise anything
        return None


def _license(model: str, revision: str | None) -> str | None:
    """Return the license in a model's card, if mteb knows it."""
    card = model_file(model, "README.md", revision)
    try:
        license = getattr(ModelCard.load(card, ignore_metadata_errors=True).data, "license", None) if card else None
    except (OSError, ValueError, TypeError, AttributeError, YAMLError):  # metadata of any form
        return None
    return license if license in typing.get_args(Licenses) else None


def _training_tasks(model: str) -> set[str] | None:
    """List mteb's tasks on the data that a model was trained on; `None` if not all of its data are known."""
    tasks = mteb.get_tasks(modalities=["audio"], exclude_superseded=False)
    names: set[str] = set()
    for data in earlier_data(model, {"name": model, "hub_id": None}):
        if data.get("source") in DATA_IN_MTEB:
            names |= {task.metadata.name for task in tasks if task.metadata.name.startswith(data["source"])}
        elif data.get("source") != "BERT" and not data.get("synthetic"):
            return None
    return names


# ------------------------------------------------------------------------------------------------------- the tasks


def find_tasks(names: Sequence[str] = ()) -> list[AbsTask]:
    """
    Find tasks in mteb's registry.

    Args:
        names: names of tasks or of benchmarks, such as `ClothoT2ARetrieval.v2` or `MAEB`. By default, the retrieval
            tasks between English texts and recordings of sounds, in both directions, in their newest versions.

    Raises:
        RetrievalError: no task or benchmark has the name, or a task needs images or videos.
    """
    if not names:
        tasks = mteb.get_tasks(languages=["eng"], categories=["t2a", "a2t"], task_types=["Any2AnyRetrieval"])
        return [task for task in tasks if SOUND_SUBTYPES & set(task.metadata.task_subtypes or ())]
    found: list[AbsTask] = []
    for name in names:
        try:
            found += [mteb.get_task(name)]
        except KeyError as no_task:
            try:
                found += mteb.get_benchmark(name).tasks
            except KeyError:
                raise RetrievalError(
                    f"{name}: found no task or benchmark of this name in mteb ({no_task.args[0]}); choose one of "
                    "`mteb available-tasks` or `mteb available-benchmarks`"
                ) from no_task
    for task in found:
        if not set(task.metadata.modalities) <= {"audio", "text"}:
            kinds = ", ".join(task.metadata.modalities)
            raise RetrievalError(
                f"{task.metadata.name}: found a task with {kinds}, expected one with audio or text only"
            )
    return list({task.metadata.name: task for task in found}.values())


class _LocalRetrieval(AbsTaskRetrieval):
    """
    A retrieval task over a data set of ours.

    As in `rank_both_directions`, captions with the same words share their recordings. A recording is decoded when its
    batch is embedded.

    Args:
        evaluation_set: recordings with captions.

    Raises:
        AudioError: a recording is missing, or has no caption, or one without a word.
    """

    category: str
    suffix: str

    def __init__(self, evaluation_set: EvaluationSet):
        for recording in evaluation_set.recordings:
            if reason := why_unusable(recording):
                raise AudioError(reason)
        self.recordings = evaluation_set.recordings
        source, split = Path(evaluation_set.source), evaluation_set.split or "test"
        name = source.stem if source.is_file() else source.resolve().name
        self._metadata = TaskMetadata(
            name=f"{name}-{split}-{self.suffix}",
            description="Retrieval between the captions and the recordings of a local data set.",
            dataset={"path": name, "revision": "local"},
            type="Any2AnyRetrieval",
            category=self.category,
            modalities=["text", "audio"],
            eval_splits=[split],
            eval_langs=["eng-Latn"],
            main_score="map_at_10",
        )
        super().__init__()

    @property
    def metadata(self) -> TaskMetadata:  # `unload_data` deletes an attribute of this name
        return self._metadata

    def load_data(self, **kwargs: Any) -> None:
        """Set the queries, the documents, and the relevant documents of each query."""
        pairs = [(recording.name, caption) for recording in self.recordings for caption in recording.captions]
        ids = [f"caption {number}" for number in range(len(pairs))]
        texts = datasets.Dataset.from_dict({"id": ids, "text": [caption for _, caption in pairs]})
        audio = datasets.Dataset.from_dict(
            {"id": [recording.name for recording in self.recordings], "audio": list(range(len(self.recordings)))}
        ).with_transform(functools.partial(_decode, self.recordings), columns=["audio"], output_all_columns=True)
        # Captions with the same words are equally right for the recordings of all of them.
        names_of, ids_of = defaultdict(set), defaultdict(set)
        for id, (name, caption) in zip(ids, pairs, strict=True):
            names_of[caption_key(caption)].add(name)
            ids_of[caption_key(caption)].add(id)
        relevant: dict[str, dict[str, int]] = defaultdict(dict)
        for id, (name, caption) in zip(ids, pairs, strict=True):
            if self.category == "t2a":
                relevant[id] |= dict.fromkeys(names_of[caption_key(caption)], 1)
            else:
                relevant[name] |= dict.fromkeys(ids_of[caption_key(caption)], 1)
        queries, corpus = (texts, audio) if self.category == "t2a" else (audio, texts)
        split = {"queries": queries, "corpus": corpus, "relevant_docs": dict(relevant), "top_ranked": None}
        self.dataset = {"default": {self.metadata.eval_splits[0]: split}}
        self.data_loaded = True


class LocalTextToAudio(_LocalRetrieval):
    """Find the recording of each caption; see `_LocalRetrieval`."""

    category, suffix = "t2a", "T2ARetrieval"


class LocalAudioToText(_LocalRetrieval):
    """Find the captions of each recording; see `_LocalRetrieval`."""

    category, suffix = "a2t", "A2TRetrieval"


def _decode(recordings: Sequence[Recording], batch: dict[str, list[int]]) -> dict[str, list[dict[str, Any]]]:
    waveforms = [recordings[number].load(SAMPLING_RATE) for number in batch["audio"]]
    return {"audio": [{"array": waveform, "sampling_rate": SAMPLING_RATE} for waveform in waveforms]}


# ------------------------------------------------------------------------------------------------------ the scores


def run(
    model: SentenceTransformerEncoderWrapper,
    tasks: Sequence[AbsTask],
    folder: str | os.PathLike,
    *,
    overwrite: bool = False,
    progress: bool = True,
) -> list[TaskResult]:
    """
    Score a model on tasks and store the scores in a cache folder of mteb.

    Args:
        model: from `load_model`.
        tasks: from `find_tasks`, or local ones.
        folder: the scores go to `results/NAME/REVISION/TASK.json` in it.
        overwrite: whether to score again what is stored there.
        progress: whether to show mteb's progress bars.

    Raises:
        DataError: the data of a task cannot be loaded, such as without a network.
        RetrievalError: the model does not take an input of a task, such as an empty text. The other tasks are scored
            and stored before.
    """
    results: list[TaskResult] = []
    refused: dict[str, str] = {}
    cache = mteb.ResultCache(folder)
    for task in tasks:
        name = task.metadata.name
        if overwrite or cache.load_task_result(name, model.mteb_model_meta) is None:
            _load_data(task)
        try:
            # On CUDA, convolutions would round float32 to TF32's 10 bits.
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                scored = mteb.evaluate(
                    model,
                    task,
                    cache=cache,
                    overwrite_strategy="always" if overwrite else "only-missing",
                    encode_kwargs={"batch_size": BATCH_SIZE, "show_progress_bar": progress},
                    show_progress_bar=progress,
                )
            results += scored.task_results
        except InputError:
            raise
        except ValueError as error:  # of the processor, such as for an empty text
            refused[name] = one_line(error)
        if task.data_loaded:
            task.unload_data()
    if refused:
        others = f"; the scores of the other {len(results)} tasks are in {os.fspath(folder)}" if results else ""
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        raise RetrievalError(f"the model cannot be scored on {len(refused)} of {len(tasks)} tasks ({reasons}){others}")
    return results


def _load_data(task: AbsTask) -> None:
    try:
        task.load_data()
    except Exception as error:  # data sets, the Hub and the network raise anything
        raise DataError(
            f"{task.metadata.name}: its data cannot be loaded ({type(error).__name__}: {one_line(error)[:300]}); mteb "
            "downloads them from the Hub, so check the network, and that the Hub gives you access to them"
        ) from error


def scores_table(results: Sequence[TaskResult]) -> str:
    """Return a table of each task's main score, and for retrieval of mAP@10 and R@1, R@5 and R@10, in percent."""
    rows = []
    for result in results:
        scores = [scores for split in result.scores.values() for scores in split]
        columns = [[of[name] for of in scores if name in of] for name in METRICS.values()]
        means = [f"{100 * sum(column) / len(column):.2f}" if column else "" for column in columns]
        rows.append([result.task_name, f"{100 * result.get_score():.2f}", *means])
    return markdown_table(["", "main score", *METRICS], rows)


def run_benchmark(
    model: str,
    *,
    tasks: Sequence[str] = (),
    data: str | None = None,
    split: str | None = None,
    sources: str | None = None,
    audio: str | None = None,
    out: str | os.PathLike = "runs/benchmark",
    device: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> list[TaskResult]:
    """
    Score a model on mteb's tasks or on a data set of ours, and print the scores.

    Args:
        model, device, revision, trust_remote_code: see `load_model`.
        tasks: see `find_tasks`. With `data`, there are none by default.
        data, split, sources, audio: a data set of ours, see `load_evaluation_set`.
        out: folder of the scores. Those of `data` go to `local` in it, because they are not for mteb's leaderboard.
        progress: whether to show mteb's progress bars.

    Raises:
        InputError: the model, a task or the data set is faulty or cannot be loaded.
    """
    registered = find_tasks(tasks) if tasks or data is None else []
    local: list[AbsTask] = []
    if data is not None:
        evaluation_set = load_evaluation_set(data, split=split, sources=sources, audio=audio)
        local = [LocalTextToAudio(evaluation_set), LocalAudioToText(evaluation_set)]
    for name, value in {"split": split, "sources": sources, "audio": audio}.items():
        if data is None and value is not None:
            raise DataError(f"{name} is {value!r}, but mteb's tasks have their own data; leave it out, or give data")
    meta = model_meta(model, revision=revision, trust_remote_code=trust_remote_code)
    encoder = load_model(model, meta, device=device, trust_remote_code=trust_remote_code)
    results = run(encoder, local, Path(out) / "local", overwrite=True, progress=progress)
    results += run(encoder, registered, out, progress=progress)
    print(f"{meta.name}, revision {meta.revision[:12]}, in percent:\n")
    print(scores_table(results))
    print(f"Written to {out}")
    return results
