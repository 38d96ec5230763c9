"""A folder goes to the Hub in one commit, whole, also by a bad connection."""

import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from modeling_cnn10bert.errors import PublishError
from modeling_cnn10bert.publishing.hub import publish


def titles(repository):
    return [commit.title for commit in repository.commits]


def test_a_folder_becomes_a_repository_in_one_commit(online, model_folder):
    commit = publish(model_folder, "org/toy", message="A toy")
    repository = online.repository("org/toy")
    assert titles(repository) == ["initial commit", "A toy"]
    assert commit.oid == repository.branches["main"]
    assert set(repository.files) == {".gitattributes", *(path.name for path in model_folder.iterdir())}
    for path in model_folder.iterdir():
        assert repository.files[path.name] == path.read_bytes()
    assert repository.at("main").files["model.safetensors"].large
    assert not repository.private


def test_a_name_without_organisation_is_the_users(online, model_folder):
    publish(model_folder, "toy", private=True)
    assert online.repository("somebody/toy").private


def test_only_what_makes_a_model_is_published(online, model_folder):
    kept = {"all_results.json", "test_results.json", "curve.png", "test_classes.csv"}
    left = {
        "training_args.bin",
        "trainer_state.json",
        "optimizer.pt",
        "notes.txt",
        "my_script.py",
        "secrets.json",
        "run.json",
    }
    for name in kept | left:
        (model_folder / name).write_text(name)
    for folder in (".eval_results", "checkpoint-4", ".cache"):
        (model_folder / folder).mkdir()
    (model_folder / ".eval_results" / "clotho.yaml").write_text("- value: 1\n")
    for folder in ("checkpoint-4", ".cache"):
        shutil.copy(model_folder / "config.json", model_folder / folder)
    publish(model_folder, "org/toy")
    files = set(online.repository("org/toy").files)
    assert kept | {".eval_results/clotho.yaml"} <= files
    assert not files & left and not any(name.startswith(("checkpoint", ".cache")) for name in files)


def test_old_shards_go_and_foreign_files_stay(online, model_folder):
    foreign = {"LICENSE": b"mine", "notes/config.json": b"{}", ".eval_results/theirs.yaml": b"- value: 2\n"}
    ours = {"model.safetensors.index.json": b"{}", "model-00001-of-00002.safetensors": b"old"}
    repository = online.add_repository("org/toy", {**foreign, **ours})
    publish(model_folder, "org/toy")
    assert len(repository.commits) == 2
    assert foreign.keys() <= repository.files.keys() and not ours.keys() & repository.files.keys()


def test_shards_are_published_and_missed(online, model_folder):
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name in names:
        save_file({name: np.zeros(3, dtype=np.float32)}, model_folder / name)
    (model_folder / "model.safetensors").unlink()
    index = {"weight_map": dict(zip("ab", names, strict=True))}
    (model_folder / "model.safetensors.index.json").write_text(str(index).replace("'", '"'))
    publish(model_folder, "org/toy")
    assert set(names) <= set(online.repository("org/toy").files)
    (model_folder / names[1]).unlink()
    with pytest.raises(PublishError, match=f"found no {names[1]}, expected"):
        publish(model_folder, "org/toy")


def test_a_repository_that_is_as_the_folder_gets_no_second_commit(online, model_folder):
    first = publish(model_folder, "org/toy")
    assert publish(model_folder, "org/toy").oid == first.oid
    assert len(online.repository("org/toy").commits) == 2


def test_a_branch_is_made_and_main_stays(online, model_folder):
    publish(model_folder, "org/toy", revision="try")
    repository = online.repository("org/toy")
    assert set(repository.files) == {".gitattributes"}
    assert "model.safetensors" in repository.at("try").files


def test_a_folder_without_a_card_is_published_with_a_warning(online, model_folder, capsys):
    (model_folder / "README.md").unlink()
    repository = online.add_repository("org/toy", {"README.md": b"# theirs"})
    publish(model_folder, "org/toy")
    assert "warning: there is no README.md" in capsys.readouterr().err
    assert repository.files["README.md"] == b"# theirs"


# ------------------------------------------------------------------------------------------------- bad connections


@pytest.mark.parametrize("route", ["whoami", "create", "validate", "info", "commit"])
def test_a_hub_that_fails_twice_is_asked_again(route, online, model_folder, capsys):
    online.fail(route, 500, times=2)
    publish(model_folder, "org/toy")
    assert len(online.repository("org/toy").commits) == 2
    assert capsys.readouterr().err.count("answers 500: status 500 on demand; trying again in 0.01 s") == 2


def test_an_upload_that_is_cut_goes_on(online, model_folder):
    online.cut("upload", after=1000)
    publish(model_folder, "org/toy")
    repository = online.repository("org/toy")
    assert len(repository.commits) == 2
    assert repository.files["model.safetensors"] == (model_folder / "model.safetensors").read_bytes()


def test_a_commit_whose_answer_is_lost_is_not_made_twice(online, model_folder):
    online.cut_answer("commit")
    commit = publish(model_folder, "org/toy")
    assert len(online.repository("org/toy").commits) == 2
    assert commit.oid == online.repository("org/toy").branches["main"]
    assert online.count("upload") == 1  # and what had arrived was not sent again


def test_a_commit_of_somebody_else_that_comes_between_is_kept(online, model_folder):
    online.fail("commit", 412)
    publish(model_folder, "org/toy")
    assert len(online.repository("org/toy").commits) == 2


def test_what_has_arrived_is_not_sent_again_by_the_next_call(online, model_folder):
    online.fail("commit", 500, times=5)
    with pytest.raises(PublishError, match="answers 500: status 500 on demand"):
        publish(model_folder, "org/toy")
    assert online.count("upload") == 1 and len(online.repository("org/toy").commits) == 1
    publish(model_folder, "org/toy")
    assert online.count("upload") == 1 and len(online.repository("org/toy").commits) == 2


def test_a_hub_that_is_gone_ends_with_the_command_that_publishes(online, model_folder):
    online.die_at("info")
    with pytest.raises(PublishError) as caught:
        publish(model_folder, "org/toy", private=True, revision="try")
    message = str(caught.value)
    assert "cannot be reached (ConnectError" in message and "\n" not in message
    assert message.endswith(
        f"; the model is whole in {model_folder}; publish it by "
        f"`cnn10bert publish {model_folder} --to org/toy --private --revision try`"
    )


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_not_asked_again(status, online, model_folder, capsys):
    online.add_repository("org/toy")
    online.fail("commit", status)
    with pytest.raises(PublishError, match=f"answers {status}: status {status} on demand; the model is whole"):
        publish(model_folder, "org/toy")
    assert online.count("commit") == 1
    assert "trying again" not in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "processor_config.json"])
def test_a_folder_without_a_whole_model_is_refused_before_the_hub_is_asked(name, online, model_folder):
    (model_folder / name).unlink()
    with pytest.raises(PublishError, match=f"found no {name}, expected the folder of a finished run"):
        publish(model_folder, "org/toy")
    assert not online.requests


def test_weights_that_were_not_written_to_their_end_are_refused(online, model_folder):
    weights = (model_folder / "model.safetensors").read_bytes()
    (model_folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(PublishError, match="found no whole model.safetensors"):
        publish(model_folder, "org/toy")


def test_a_folder_that_is_not_there_is_named(online, tmp_path):
    with pytest.raises(PublishError, match="nowhere: found no such folder"):
        publish(tmp_path / "nowhere", "org/toy")


def test_a_card_that_the_hub_cannot_read_is_named(online, model_folder):
    (model_folder / "README.md").write_text("---\nlicense: [\n---\n")
    with pytest.raises(PublishError, match="Invalid metadata in README.md"):
        publish(model_folder, "org/toy")
    assert len(online.repository("org/toy").commits) == 1


def test_a_token_in_a_file_is_never_published(online, model_folder, token):
    (model_folder / "all_results.json").write_text(f'{{"argv": ["--hub_token", "{token}"]}}')
    with pytest.raises(PublishError, match="all_results.json: found your token in it") as caught:
        publish(model_folder, "org/toy")
    assert token not in str(caught.value)
    assert not online.requests


def test_a_file_that_the_repository_ignores_is_missed(online, model_folder):
    online.add_repository("org/toy", {".gitignore": b"*.png\nvocab.txt\ntokenizer.json\n"})
    with pytest.raises(PublishError, match="found no tokenizer.json there after the commit.*gitignore"):
        publish(model_folder, "org/toy")
