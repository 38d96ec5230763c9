"""Publish a saved model on the Hub in one commit, and check before training whether that is allowed."""

import contextlib
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_token,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session, validate_repo_id
from safetensors import SafetensorError, safe_open

from ..errors import PublishError
from ..masking import without_secrets
from ..model_folder import check_model_folder

FIELD = "hub_model_id"
# The Hub's client has no timeout. A request fails when no byte moves for so many seconds.
PATIENCE = 60
# Temporary statuses: timeouts, a concurrent commit, too many requests.
TEMPORARY = (408, 409, 412, 429)
WAITS = (1, 2, 4, 8)  # seconds between one try and the next
UPLOAD_PATIENCE = 300  # seconds; the Hub checks the files before it answers
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
CARD, FACTS = "README.md", "run_facts.json"
# Files of a folder that are published; those in the repository that the folder lacks are deleted. Not among them are
# pickles (training_args.bin), checkpoints, the training state, and run.json, which names folders of the machine.
MODEL_FILES = (
    *("config.json", WEIGHTS, INDEX, "model-*-of-*.safetensors", "*_cnn10bert.py"),
    *("processor_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.txt"),
    *("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"),
    *(FACTS, "data_facts.json", "all_results.json", "train_results.json", "eval_results.json", "test_results.json"),
    *("*_classes.csv", "curve.png"),
)
# Published too, but never deleted, because others may have written them in the repository.
TEXTS = (CARD, ".eval_results/*.yaml")


def check_access(
    name: str, *, token: str | None = None, private: bool | None = None, revision: str | None = None, field: str = FIELD
) -> str:
    """
    Check that a repository can be written to; a missing one is created, an existing one is not changed.

    Args:
        name: name of the repository; without an organization, it is the user's.
        token: by default the one in the environment, or the stored one.
        private: whether to create a private repository; if `True`, an existing one must be private.
        revision: the branch to write to, which may be missing.
        field: where the user wrote the name, for errors.

    Returns:
        The name with its namespace.

    Raises:
        PublishError: it cannot be written to.
    """
    api = connect(name, token, field)
    try:
        with patience(PATIENCE):
            return open_repository(api, name, private=private, revision=revision, field=field)
    except PublishError:
        raise
    except (HTTPError, OSError, ValueError) as error:
        advice = "; check the connection and try again" if is_temporary(error) else ""
        raise PublishError(f"{field} {name}: {reason(error, api)}{advice}") from error


def connect(name: str, token: str | None = None, field: str = FIELD) -> HfApi:
    """
    Make the Hub's client with the token to write with; this sends no request yet.

    Raises:
        PublishError: the name is not valid, there is no token, or offline mode is set.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise PublishError(
            f"{field}: found {name!r}, expected NAME or ORGANISATION/NAME ({error}); give another name"
        ) from error
    if constants.is_offline_mode():
        raise PublishError(
            f"{field} {name}: HF_HUB_OFFLINE is set, expected access to the Hub; unset it, or train without "
            "push_to_hub and publish later by `cnn10bert publish`"
        )
    given = token or get_token()
    if not given:
        raise PublishError(
            f"{field} {name}: found no token, expected one that may write; log in by `hf auth login`, or set HF_TOKEN"
        )
    if not given.isascii() or not given.isprintable() or " " in given:  # a header cannot hold it, and would print it
        raise PublishError(
            f"{_source(given)}: found characters that no token has, expected hf_...; log in by `hf auth login`"
        )
    return HfApi(endpoint=constants.ENDPOINT, token=given)


def open_repository(api: HfApi, name: str, *, private: bool | None, revision: str | None, field: str = FIELD) -> str:
    """
    Do the same as `check_access` with an existing client; temporary errors are raised unchanged.

    Raises:
        PublishError: the Hub refuses.
        HTTPError, OSError, ValueError: the Hub cannot be reached, or does not answer as it should.
    """
    user = _user(api)
    repo_id = name if "/" in name else f"{user['name']}/{name}"
    right = "write there"
    try:
        try:
            _ask_to_write(api, repo_id, revision)
        except RepositoryNotFoundError as error:
            if error.response.status_code in (401, 403):
                raise
            right = "create it"
            api.create_repo(repo_id, private=private, exist_ok=True)
            return repo_id
    except HfHubHTTPError as error:
        if error.response.status_code == 400 and right == "create it":
            raise PublishError(
                f"{field} {repo_id}: the Hub refuses the name ({reason(error, api)}); give another"
            ) from error
        if error.response.status_code not in (401, 403):
            raise
        organizations = ", ".join(organization["name"] for organization in user.get("orgs", []))
        who = user["name"] + (f", a member of {organizations}" if organizations else "")
        raise PublishError(
            f"{field} {repo_id}: found no right to {right} ({reason(error, api)}) by the token of {who}; give another "
            "name, or log in as somebody who may by `hf auth login`"
        ) from error
    if private and not api.model_info(repo_id, timeout=PATIENCE).private:
        raise PublishError(
            f"{field} {repo_id}: found a public repository, expected a private one; give another name, or make it "
            f"private at {api.endpoint}/{repo_id}/settings"
        )
    return repo_id


def is_temporary(error: Exception) -> bool:
    """Tell whether the same request may succeed a little later."""
    cause = _cause(error)
    if isinstance(cause, HfHubHTTPError):
        return cause.response.status_code in TEMPORARY or cause.response.status_code >= 500
    return isinstance(cause, (HTTPError, ConnectionError, TimeoutError, json.JSONDecodeError))


def reason(error: Exception, api: HfApi) -> str:
    """Describe an error in one line without the token."""
    cause = _cause(error)
    if isinstance(cause, HfHubHTTPError):
        said = cause.server_message or cause.response.reason_phrase
        text = f"{api.endpoint} answers {cause.response.status_code}: {said}"
    elif isinstance(cause, json.JSONDecodeError):
        text = f"{api.endpoint} does not answer as a Hub does (HF_ENDPOINT may say which one it is)"
    elif isinstance(cause, HTTPError):
        text = f"{api.endpoint} cannot be reached ({type(cause).__name__}: {cause})"
    elif isinstance(cause, (ConnectionError, TimeoutError)):  # of hf_xet, which sends large files
        text = f"sending to {api.endpoint} failed ({type(cause).__name__}: {cause})"
    else:
        text = str(cause)
    return " ".join(text.replace(api.token, "***").split())[:500]


@contextlib.contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Make requests of the Hub's client raise in the block when no byte moves for so long."""
    session = get_session()
    before, session.timeout = session.timeout, seconds
    try:
        yield
    finally:
        session.timeout = before


def _user(api: HfApi) -> dict:
    try:
        user = api.whoami()
    except HfHubHTTPError as error:
        if error.response.status_code != 401:
            raise
        raise PublishError(
            f"{_source(api.token)}: found a token that {api.endpoint} does not know (401), expected one that may "
            f"write; make one at {api.endpoint}/settings/tokens and log in by `hf auth login`"
        ) from error
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise PublishError(
            f"{_source(api.token)}: found a token of {user['name']} that may only read, expected one that may write; "
            f"make one at {api.endpoint}/settings/tokens and log in by `hf auth login`"
        )
    return user


def _ask_to_write(api: HfApi, repo_id: str, revision: str | None) -> None:
    """
    Ask how a file would be uploaded; the Hub answers only if we may write, and nothing changes.

    An empty file is never uploaded before its commit.
    """
    file = CommitOperationAdd("README.md", b"")
    try:
        api.preupload_lfs_files(repo_id, [file], revision=revision)
    except RevisionNotFoundError:  # publishing creates the branch
        if revision is None:
            raise
        _ask_to_write(api, repo_id, None)


def _source(token: str) -> str:
    """Say where a token comes from."""
    if token != get_token():
        return "hub_token"
    names = [name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(name)]
    return names[0] if names else "the stored token"


def _cause(error: BaseException) -> BaseException:
    """Return the error of the connection or of the Hub that caused an error, or the error itself."""
    if isinstance(error, ValueError) and not isinstance(error, (HTTPError, json.JSONDecodeError)):
        return error  # such as one about a card, which says more than its cause
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (HTTPError, ConnectionError, TimeoutError, json.JSONDecodeError)):
            return cause
        cause = cause.__cause__
    return error


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
    Update a repository to the contents of a folder in one commit: model, processor, code, card and results.

    Temporary errors are retried after a wait; files that have arrived are not sent again. If nothing differs, there is
    no commit. Other files of the repository stay.

    Args:
        folder: folder of a finished run, or of any saved model.
        name: name of the repository; without an organization, it is the user's. It is created if missing.
        token: by default the one in the environment, or the stored one.
        private: whether to create a private repository.
        revision: the branch, by default main. It is created if missing.
        message: commit message.
        field: where the user wrote the name, for errors.

    Returns:
        The commit that holds the model now.

    Raises:
        PublishError: the folder has no complete model, or it could not be published; the folder is not changed.
    """
    folder = Path(folder)
    files = files_to_publish(folder)
    try:
        api = connect(name, token, field)
        for path in files.values():
            if path.suffix != ".safetensors" and api.token.encode() in path.read_bytes():
                raise PublishError(
                    f"{path}: found your token in it, expected none in what is published; remove it there"
                )
        if CARD not in files:
            _say(f"warning: there is no {CARD}: the repository gets no card, or keeps the one that it has")
        waits = iter(WAITS)
        while True:
            try:
                with patience(UPLOAD_PATIENCE):
                    repo_id = open_repository(api, name, private=private, revision=revision, field=field)
                    return _publish_once(api, files, repo_id, revision, message)
            except PublishError:
                raise
            except (HTTPError, OSError, ValueError, RuntimeError) as error:
                wait = next(waits, None) if is_temporary(error) else None
                if wait is None:
                    raise PublishError(f"{field} {name}: {reason(error, api)}") from error
                _say(f"{reason(error, api)}; trying again in {wait} s")
                time.sleep(wait)
    except PublishError as error:
        again = publish_command(folder, name, private, revision)
        raise PublishError(f"{error}; the model is whole in {folder}; publish it by `{again}`") from error


def publish_command(folder: str | Path, name: str, private: bool | None, revision: str | None) -> str:
    """Return the command line that publishes a folder."""
    command = f"cnn10bert publish {shlex.quote(str(folder))} --to {shlex.quote(name)}"
    return command + (" --private" if private else "") + (f" --revision {shlex.quote(revision)}" if revision else "")


def files_to_publish(folder: Path) -> dict[str, Path]:
    """
    Map names in the repository to files of the folder.

    Raises:
        PublishError: the folder has no complete model.
    """
    if not folder.is_dir():
        raise PublishError(f"{folder}: found no such folder, expected that of a finished run or of a saved model")
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    missing += _missing_weights(folder)
    if not any((folder / f"{kind}_config.json").is_file() for kind in ("processor", "preprocessor")):
        missing.append("processor_config.json")
    if missing:
        raise PublishError(
            f"{folder}: found no {', '.join(missing)}, expected the folder of a finished run or of a saved model with "
            "its processor; to continue an interrupted run, set resume_from_checkpoint true"
        )
    check_model_folder(folder, PublishError)
    paths = sorted(path for pattern in (*MODEL_FILES, *TEXTS) for path in folder.glob(pattern) if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in paths}


def _missing_weights(folder: Path) -> list[str]:
    """List the files of weights that are missing or incomplete."""
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


def _publish_once(api: HfApi, files: dict[str, Path], repo_id: str, revision: str | None, message: str) -> CommitInfo:
    """
    Make one commit, or none if nothing differs.

    Its parent is the commit that was compared, so the Hub refuses it if there was another commit in between.
    """
    if FACTS in files:
        _name_in_card(files[FACTS].parent, repo_id)
    if revision is not None:
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    before = api.model_info(repo_id, revision=revision, timeout=PATIENCE)
    there = {file.rfilename for file in before.siblings or ()}
    size = sum(path.stat().st_size for path in files.values())
    url = f"{api.endpoint}/{repo_id}"
    _say(f"publishing {len(files)} files ({size / 1e6:.1f} MB) to {url}")
    operations = [CommitOperationAdd(name, path) for name, path in files.items()]
    # Delete published files that the folder lacks, such as an old shard.
    operations += [
        CommitOperationDelete(name)
        for name in sorted(there - files.keys())
        if "/" not in name and any(fnmatchcase(name, pattern) for pattern in MODEL_FILES)
    ]
    commit = api.create_commit(
        repo_id, operations, commit_message=message, revision=revision, parent_commit=before.sha, num_threads=2
    )
    after = api.model_info(repo_id, revision=commit.oid, timeout=PATIENCE)
    if lost := sorted(files.keys() - {file.rfilename for file in after.siblings or ()}):
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
    """Rewrite the card of a run if it opens the model by another name; a manually edited card stays."""
    from ..evaluation.reports import read_results
    from .card import card_of_run, write_card_of_run  # needs torch

    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    if facts["model_id"] == repo_id:
        return
    fault = None
    try:
        results, named = read_results(folder, []), {"name": repo_id.rsplit("/", 1)[-1], "model_id": repo_id}
        written = (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else None
        if written in (str(card_of_run(facts, results)), None):
            write_card_of_run(folder, repo_id)
        elif written != str(card_of_run(facts | named, results)):
            fault = "was changed by hand"
    except Exception as error:  # faulty facts must not prevent publishing the model
        fault = f"could not be written again ({type(error).__name__}: {error})"
    if fault:
        _say(f"warning: {folder / CARD} {fault}: see that it opens the model as {repo_id}")


def _say(line: str) -> None:
    print(without_secrets(line), file=sys.stderr, flush=True)


def repository_name(hub_model_id: str | None, folder: str | Path) -> str:
    """Return `hub_model_id`, or else the name of the output folder."""
    return hub_model_id or Path(folder).absolute().name
