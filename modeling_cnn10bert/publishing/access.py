"""Whether a repository of the Hub can be written to: asked before anything long is begun."""

import contextlib
import json
import os
from collections.abc import Iterator

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session, validate_repo_id

FIELD = "--hub_model_id"
# The Hub's client waits for ever. A request in which no byte moves for so many seconds is at an end.
PATIENCE = 60
# Statuses that pass by themselves: timeouts, another commit that came between, too many requests.
TEMPORARY = (408, 409, 412, 429)


class PublishError(Exception):
    """A model cannot be published; the message is one line: what was found, what was expected, what to do."""


def check_access(
    name: str, *, token: str | None = None, private: bool | None = None, revision: str | None = None, field: str = FIELD
) -> str:
    """
    Makes sure that a repository can be written to; one that is missing is created, one that is there stays as it is.

    Args:
        name: of the repository; without an organisation, it is the user's.
        token: by default that of the environment, or the stored one.
        private: of a repository that is created; one that is there must be so if it is `True`.
        revision: the branch to write to, which may be missing.
        field: where the user wrote the name, for errors.

    Returns:
        The name with its namespace.

    Raises:
        PublishError: why it cannot be written to.
    """
    api = connect(name, token, field)
    try:
        with patience(PATIENCE):
            return open_repository(api, name, private=private, revision=revision, field=field)
    except (HTTPError, OSError, ValueError) as error:
        advice = "; check the connection and try again" if is_temporary(error) else ""
        raise PublishError(f"{field} {name}: {reason(error, api)}{advice}") from error


def connect(name: str, token: str | None = None, field: str = FIELD) -> HfApi:
    """
    The Hub's client with the token to write by; nothing is asked of the Hub yet.

    Raises:
        PublishError: the name is no repository's, there is no token, or the Hub must not be asked.
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
            "--push_to_hub and publish later by `cnn10bert publish`"
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
    As `check_access`, of a connection; what may pass by itself is raised as it is.

    Raises:
        PublishError: the Hub refuses.
        HTTPError, OSError, ValueError: the Hub cannot be reached, or does not answer as it should.
    """
    user = _user(api)
    repo_id = name if "/" in name else f"{user['name']}/{name}"
    try:
        _ask_to_write(api, repo_id, revision)
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise PublishError(
                f"{field} {repo_id}: found no right to write there ({reason(error, api)}) by the token of "
                f"{_who(user)}; give another name, or log in as somebody who may by `hf auth login`"
            ) from error
        if not isinstance(error, RepositoryNotFoundError):
            raise
        _create(api, repo_id, private, user, field)
        return repo_id
    if private and not api.model_info(repo_id, timeout=PATIENCE).private:
        raise PublishError(
            f"{field} {repo_id}: found a public repository, expected a private one; give another name, or make it "
            f"private at {api.endpoint}/{repo_id}/settings"
        )
    return repo_id


def is_temporary(error: Exception) -> bool:
    """Whether the same request may well succeed a little later."""
    cause = _cause(error)
    if isinstance(cause, HfHubHTTPError):
        return cause.response.status_code in TEMPORARY or cause.response.status_code >= 500
    return isinstance(cause, (HTTPError, ConnectionError, TimeoutError, json.JSONDecodeError))


def reason(error: Exception, api: HfApi) -> str:
    """What went wrong, in one line without the token."""
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
    """Within it, a request of the Hub's client in which no byte moves for so long raises."""
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
    Asks how a file would be uploaded, which is told only to those who may write, and changes nothing.

    An empty file is never uploaded ahead of its commit.
    """
    file = CommitOperationAdd("README.md", b"")
    try:
        api.preupload_lfs_files(repo_id, [file], revision=revision)
    except RevisionNotFoundError:  # a branch that publishing makes
        if revision is None:
            raise
        _ask_to_write(api, repo_id, None)


def _create(api: HfApi, repo_id: str, private: bool | None, user: dict, field: str) -> None:
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
    except HfHubHTTPError as error:
        if error.response.status_code == 400:
            raise PublishError(
                f"{field} {repo_id}: the Hub refuses the name ({reason(error, api)}); give another"
            ) from error
        if error.response.status_code not in (401, 403):
            raise
        raise PublishError(
            f"{field} {repo_id}: found no right to create it ({reason(error, api)}) by the token of {_who(user)}; "
            "give another name, or log in as somebody who may by `hf auth login`"
        ) from error


def _who(user: dict) -> str:
    """The user and the organisations that the Hub tells of."""
    organisations = [organisation["name"] for organisation in user.get("orgs", [])]
    return user["name"] + (f", a member of {', '.join(organisations)}" if organisations else "")


def _source(token: str) -> str:
    """Where a token comes from."""
    if token != get_token():
        return "--hub_token"
    names = [name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(name)]
    return names[0] if names else "the stored token"


def _cause(error: BaseException) -> BaseException:
    """What of the connection or of the Hub an error comes from, or the error itself."""
    if isinstance(error, ValueError) and not isinstance(error, (HTTPError, json.JSONDecodeError)):
        return error  # such as of a card: it tells more than the answer that it comes from
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (HTTPError, ConnectionError, TimeoutError, json.JSONDecodeError)):
            return cause
        cause = cause.__cause__
    return error
