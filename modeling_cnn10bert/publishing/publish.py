"""Publishes a saved model on the Hub, whole or not at all."""

import json
import shlex
import sys
import time
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HTTPError
from safetensors import SafetensorError, safe_open

from ..masking import without_secrets
from ..model_folder import check_model_folder
from .access import FIELD, PATIENCE, PublishError, connect, is_temporary, open_repository, patience, reason

WAITS = (1, 2, 4, 8)  # seconds between one try and the next
UPLOAD_PATIENCE = 300  # seconds; the Hub looks at what it is given before it answers
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
CARD, FACTS = "README.md", "run_facts.json"
# What is published of a folder; of such files, those in the repository that the folder lacks are deleted. Never a
# pickle (training_args.bin), a checkpoint, the state of a training, or run.json, which names folders of the machine.
MODEL_FILES = (
    "config.json",
    WEIGHTS,
    INDEX,
    "model-*-of-*.safetensors",
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "*_cnn10bert.py",
    "run_facts.json",
    "data_facts.json",
    "all_results.json",
    "train_results.json",
    "eval_results.json",
    "test_results.json",
    "*_classes.csv",
    "curve.png",
)
# Published too, but never deleted: others may have written them in the repository.
TEXTS = (CARD, ".eval_results/*.yaml")


def publish(
    folder: str | Path,
    name: str,
    *,
    token: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    message: str = "Publish the model",
    field: str = FIELD,
) -> CommitInfo:
    """
    Brings a repository to the state of a folder in one commit: model, processor, code, card and results.

    A fault that may pass is waited for and tried again; what has arrived is not sent again. A repository that already
    is as the folder gets no commit. Files of the repository that are none of ours stay.

    Args:
        folder: of a finished run, or of any saved model.
        name: of the repository; without an organisation, it is the user's. It is made if missing.
        token: by default that of the environment, or the stored one.
        private: of a repository that is made.
        revision: the branch, by default main. It is made if missing.
        message: of the commit.
        field: where the user wrote the name, for errors.

    Returns:
        The commit that holds the model now.

    Raises:
        PublishError: the folder holds no whole model, or it could not be published; what is in the folder stays.
    """
    folder = Path(folder)
    files = files_to_publish(folder)
    try:
        api = connect(name, token, field)
        _refuse_the_token(files, api.token)
        return _publish_persistently(api, files, name, private, revision, message, field)
    except PublishError as error:
        again = f"cnn10bert publish {shlex.quote(str(folder))} --to {shlex.quote(name)}"
        again += (" --private" if private else "") + (f" --revision {shlex.quote(revision)}" if revision else "")
        raise PublishError(f"{error}; the model is whole in {folder}; publish it by `{again}`") from error


def files_to_publish(folder: Path) -> dict[str, Path]:
    """
    Name in the repository -> file of the folder.

    Raises:
        PublishError: the folder holds no whole model.
    """
    if not folder.is_dir():
        raise PublishError(f"{folder}: found no such folder, expected that of a finished run or of a saved model")
    missing = [
        *([] if (folder / "config.json").is_file() else ["config.json"]),
        *_missing_weights(folder),
        *([] if any((folder / f"{kind}_config.json").is_file() for kind in ("processor", "preprocessor")) else
          ["processor_config.json"]),
    ]  # fmt: skip
    if missing:
        raise PublishError(
            f"{folder}: found no {', '.join(missing)}, expected the folder of a finished run or of a saved model with "
            "its processor; a run that was interrupted goes on with --resume_from_checkpoint true"
        )
    check_model_folder(folder, PublishError)
    paths = sorted(path for pattern in (*MODEL_FILES, *TEXTS) for path in folder.glob(pattern) if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in paths}


def _missing_weights(folder: Path) -> list[str]:
    """The files of weights that are not there, or were not written to their end."""
    names = [WEIGHTS]
    if (folder / INDEX).is_file():
        try:
            names = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError):
            return [f"whole {INDEX}"]
    missing = []
    for name in names:
        try:
            with safe_open(folder / name, framework="np"):
                pass
        except FileNotFoundError:
            missing.append(name)
        except SafetensorError:
            missing.append(f"whole {name}")
    return missing


def _refuse_the_token(files: dict[str, Path], token: str) -> None:
    for name, path in files.items():
        if not name.endswith(".safetensors") and token.encode() in path.read_bytes():
            raise PublishError(f"{path}: found your token in it, expected none in what is published; remove it there")


def _publish_persistently(
    api: HfApi,
    files: dict[str, Path],
    name: str,
    private: bool | None,
    revision: str | None,
    message: str,
    field: str,
) -> CommitInfo:
    """Tries until it is done, or until a fault is no passing one."""
    if CARD not in files:
        _say(f"warning: there is no {CARD}: the repository gets no card, or keeps the one that it has")
    for wait in (*WAITS, None):
        try:
            with patience(UPLOAD_PATIENCE):
                repo_id = open_repository(api, name, private=private, revision=revision, field=field)
                return _publish_once(api, files, repo_id, revision, message)
        except (HTTPError, OSError, ValueError, RuntimeError) as error:
            if wait is None or not is_temporary(error):
                raise PublishError(f"{field} {name}: {reason(error, api)}") from error
            _say(f"{reason(error, api)}; trying again in {wait} s")
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def _publish_once(api: HfApi, files: dict[str, Path], repo_id: str, revision: str | None, message: str) -> CommitInfo:
    """
    One commit, or none where nothing differs.

    Its parent is the commit that was looked at: if somebody else's comes between, the Hub refuses ours.
    """
    if FACTS in files:
        _name_in_card(files[FACTS].parent, repo_id)
    if revision is not None:
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    before = api.model_info(repo_id, revision=revision, timeout=PATIENCE)
    size = sum(path.stat().st_size for path in files.values())
    url = f"{api.endpoint}/{repo_id}"
    _say(f"publishing {len(files)} files ({size / 1e6:.1f} MB) to {url}")
    operations = [CommitOperationAdd(name, path) for name, path in files.items()]
    operations += [CommitOperationDelete(name) for name in stale_files(_names(before), files)]
    commit = api.create_commit(
        repo_id, operations, commit_message=message, revision=revision, parent_commit=before.sha, num_threads=2
    )
    after = api.model_info(repo_id, revision=commit.oid, timeout=PATIENCE)
    if lost := sorted(files.keys() - set(_names(after))):
        raise PublishError(
            f"{url}: found no {', '.join(lost)} there after the commit, expected all that was sent; does the "
            "repository's .gitignore name them?"
        )
    if commit.oid == before.sha:
        _say(f"{url} is already as the folder, at commit {commit.oid}")
    else:
        _say(f"published {url} by commit {commit.oid}")
    return commit


def _name_in_card(folder: Path, repo_id: str) -> None:
    """
    Writes the card of a run again where it opens the model by another name; one that was changed by hand stays.
    """
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    if facts["model_id"] == repo_id:
        return
    try:
        _write_card_again(folder, facts, repo_id)
    except Exception as error:  # whatever is wrong with the facts, the model is to be published
        _say(
            f"warning: {folder / CARD} could not be written again ({type(error).__name__}: {error}): see that it opens "
            f"the model as {repo_id}"
        )


def _write_card_again(folder: Path, facts: dict, repo_id: str) -> None:
    from ..evaluation.reports import read_results
    from .card import card_of_run, write_card_of_run  # which needs torch

    results, named = read_results(folder, []), {"name": repo_id.rsplit("/", 1)[-1], "model_id": repo_id}
    written = (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else None
    if written in (str(card_of_run(facts, results)), None):
        write_card_of_run(folder, repo_id)
    elif written != str(card_of_run(facts | named, results)):
        _say(f"warning: {folder / CARD} was changed by hand: see that it opens the model as {repo_id}")


def stale_files(names: Iterable[str], files: Iterable[str]) -> list[str]:
    """Of the names in a repository, those of our kind that what is published now lacks, such as an old shard."""
    files = set(files)
    return [name for name in names if name not in files and any(_matches(name, pattern) for pattern in MODEL_FILES)]


def _matches(name: str, pattern: str) -> bool:
    return "/" not in name and PurePosixPath(name).match(pattern)


def _names(info) -> list[str]:
    return [file.rfilename for file in info.siblings or ()]


def _say(line: str) -> None:
    print(without_secrets(line), file=sys.stderr, flush=True)
