"""Before anything long is begun: the name, the token and the right to write, each with a line that says what to do."""

import pytest
from huggingface_hub import constants

from modeling_cnn10bert.errors import PublishError
from modeling_cnn10bert.publishing import hub
from modeling_cnn10bert.publishing.hub import check_access


def refusal(*arguments, **options):
    """The one line of what is refused."""
    with pytest.raises(PublishError) as caught:
        check_access(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_missing_repository_is_made(online):
    assert check_access("org/new", private=True) == "org/new"
    assert online.repository("org/new").private
    assert check_access("mine") == "somebody/mine"


def test_a_repository_that_is_there_stays_as_it_is(online):
    repository = online.add_repository("org/there", {"README.md": b"# theirs"})
    assert check_access("org/there") == "org/there"
    assert check_access("org/there", revision="a-branch-to-be") == "org/there"
    assert len(repository.commits) == 1 and list(repository.branches) == ["main"]
    assert online.count("create") == online.count("commit") == online.count("upload") == 0


@pytest.mark.parametrize(
    "name", ["a/b/c", "", "two words", "org/.hidden", "org/a--b", "org/model.git", "org/modèle", "org/" + "x" * 97]
)
def test_a_name_that_is_none_is_told_without_asking(name, online):
    message = refusal(name)
    assert message.startswith(f"hub_model_id: found {name!r}, expected NAME or ORGANISATION/NAME")
    assert not online.requests


def test_a_name_that_the_hub_refuses_is_told(online):
    online.fail("create", 400)
    assert "the Hub refuses the name (" in refusal("org/reserved")


def test_no_token_is_told_without_asking(online, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    assert "found no token, expected one that may write; log in by `hf auth login`" in refusal("org/new")
    assert not online.requests


def test_a_stored_token_is_used(online, monkeypatch, tmp_path, token):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    (tmp_path / "token").write_text(token + "\n")
    assert check_access("org/new") == "org/new"
    (tmp_path / "token").write_text("hf_old")
    assert refusal("org/new").startswith("the stored token: found a token that")


@pytest.mark.parametrize("given", ["hf_unknown", "hf with blanks", "hf_ünknown", "hf_two\nlines"])
def test_a_token_that_nobody_knows_is_told_and_not_printed(given, online):
    message = refusal("org/new", token=given)
    assert message.startswith("hub_token: found") and given not in message
    assert "`hf auth login`" in message


def test_of_a_token_in_the_environment_the_variable_is_named(online, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_unknown")
    assert refusal("org/new").startswith("HF_TOKEN: found a token that")


def test_a_token_to_read_by_is_told(online, reading_token):
    message = refusal("org/new", token=reading_token)
    assert "found a token of somebody that may only read" in message and reading_token not in message
    assert online.count("create") == 0


@pytest.mark.parametrize("exists", [True, False], ids=["there", "missing"])
@pytest.mark.parametrize("namespace", ["closed", "elsewhere"])
def test_no_right_to_write_is_told_with_who_one_is(namespace, exists, online):
    if exists:
        online.add_repository(f"{namespace}/model")
    message = refusal(f"{namespace}/model")
    assert message.startswith(f"hub_model_id {namespace}/model: found no right to ")
    assert "answers 403" in message and "the token of somebody, a member of org, closed" in message


def test_a_token_for_some_namespaces_writes_there_only(online):
    online.add_user("careful", "hf_fine", role="fineGrained", namespaces=["careful"], org="write")
    assert check_access("careful/new", token="hf_fine") == "careful/new"
    assert "found no right to create it" in refusal("org/new", token="hf_fine")


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("route", ["preupload", "create"])
def test_a_refusal_of_the_hub_is_told(route, status, online):
    if route == "preupload":
        online.add_repository("org/model")
    online.fail(route, status)
    assert f"answers {status}: status {status} on demand" in refusal("org/model")


def test_a_public_repository_is_not_taken_for_a_private_one(online):
    online.add_repository("org/public")
    assert "found a public repository, expected a private one" in refusal("org/public", private=True)
    online.add_repository("org/private", private=True)
    assert check_access("org/private", private=True) == "org/private"


def test_a_hub_that_does_not_answer_is_told_as_such(online, token):
    online.stop()
    message = refusal("org/new")
    assert "cannot be reached (ConnectError" in message and "check the connection" in message


def test_a_hub_that_hangs_is_not_waited_for_for_ever(online, monkeypatch):
    monkeypatch.setattr(hub, "PATIENCE", 0.2)
    online.lock.acquire()  # it takes requests, and answers none
    try:
        assert "cannot be reached (ReadTimeout" in refusal("org/new")
    finally:
        online.lock.release()


def test_what_is_no_hub_is_told_as_such(online):
    online.fail("whoami", 404)
    assert "answers 404" in refusal("org/new")


def test_offline_is_told_at_once(online, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = refusal("org/new", field="--to")
    assert message.startswith("--to org/new: HF_HUB_OFFLINE is set, expected access to the Hub; unset it")
    assert not online.requests
