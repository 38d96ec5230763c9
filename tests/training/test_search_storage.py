"""What the processes of a search share: keyed draws, a storage, living and dead trials, and whose study it is."""

import contextlib
import itertools
import sqlite3
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState

from modeling_cnn10bert.errors import RecipeError
from modeling_cnn10bert.training import search as searching
from modeling_cnn10bert.training.search import (
    Liveness,
    SearchArguments,
    is_surplus,
    open_storage,
    open_study,
    storage_faults,
    storage_name,
)
from modeling_cnn10bert.training.search_results import claim_study
from modeling_cnn10bert.training.search_space import TABLE_4, KeyedTPESampler, suggest


def _new_study(seed=0, n_startup_trials=10, storage=None):
    return optuna.create_study(
        direction="maximize",
        sampler=KeyedTPESampler(seed, n_startup_trials),
        storage=storage,
        study_name="study",
        load_if_exists=True,
    )


def _draws(study, count, value=lambda number: float(number)):
    """The values that the next trials draw; each is complete before the next one begins."""
    draws = []
    for _ in range(count):
        trial = study.ask()
        draws.append(suggest(trial, TABLE_4))
        outcome = value(trial.number)
        study.tell(trial, outcome, state=TrialState.FAIL if outcome is None else None)
    return draws


def test_no_two_trials_draw_the_same_also_when_each_is_of_another_process():
    together = _draws(_new_study(), 15)
    storage = optuna.storages.InMemoryStorage()
    apart = [_draws(_new_study(storage=storage), 1)[0] for _ in range(15)]  # each has a sampler of its own
    assert apart == together
    for one, other in itertools.combinations(together, 2):
        assert all(one[name] != other[name] for name in ("p_eda", "p_syn", "p_bt", "p_ms"))
    assert _draws(_new_study(seed=1), 1) != together[:1]


def test_the_estimator_begins_after_the_complete_trials_that_it_needs():
    every_third_fails = _new_study(n_startup_trials=4)
    drawn = _draws(every_third_fails, 9, lambda number: None if number % 3 == 2 else 1.0 * number)
    at_random = _draws(_new_study(n_startup_trials=99), 9)
    same = [one == other for one, other in zip(drawn, at_random, strict=True)]
    assert same == [True] * 5 + [False] * 4  # of 0, 1, 2, 3, 4 one failed


def test_the_estimator_searches_where_trials_were_good():
    study = _new_study(n_startup_trials=10)
    for _ in range(40):
        trial = study.ask()
        study.tell(trial, -abs(suggest(trial, TABLE_4)["p_ms"] - 0.25))
    drawn = [trial.params["p_ms"] for trial in study.trials]
    assert sum(abs(value - 0.25) < 0.1 for value in drawn[10:]) > 15  # at random, 6 of 30


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///folder/study.db", "sqlite:///folder/study.db"),
        ("postgresql://me:secret@host:5432/studies", "postgresql+psycopg://me:***@host:5432/studies"),
        ("postgres://me:secret@host/studies", "postgresql+psycopg://me:***@host/studies"),
        ("postgresql+psycopg://host/studies?user=me&password=secret", "postgresql+psycopg://host/studies"),
        ("mysql://me:secret@host/studies", "mysql+pymysql://me:***@host/studies"),
    ],
)
def test_a_plain_url_picks_a_driver_and_no_password_is_shown(url, shown):
    assert storage_name(url) == shown


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("me:secret@host", "expected sqlite:///FILE"),
        ("oracal://me:secret@host/studies", "expected sqlite:///FILE"),
        ("sqlite://", "in memory"),
        ("sqlite:////no/such/folder/study.db", "/no/such/folder/study.db cannot be used .*unable to open"),
        (
            "postgresql://me:secret@127.0.0.1:1/studies?application_name=secret",
            r"me:\*\*\*@127.0.0.1:1/studies cannot be used",
        ),
    ],
)
def test_a_storage_that_cannot_be_used_is_one_line_without_its_password(url, message, monkeypatch):
    if url.startswith("postgresql"):
        pytest.importorskip("psycopg")
    monkeypatch.setattr(searching.time, "sleep", lambda seconds: None)
    with pytest.raises(RecipeError, match=message) as error:
        open_storage(url)
    assert "secret" not in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(searching.time, "sleep", lambda seconds: None)
    (tmp_path / "notes.db").write_text("my notes, not a database" * 100)
    with pytest.raises(RecipeError, match="not a database"):
        open_storage(f"sqlite:///{tmp_path / 'notes.db'}")
    assert (tmp_path / "notes.db").read_text() == "my notes, not a database" * 100


def test_a_trial_without_heartbeats_is_dead_and_one_with_them_alive(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path / 'study.db'}")
    study = _new_study(storage=storage)
    alive, dead = study.ask(), study.ask()  # neither has a heartbeat: both may just have begun
    liveness = Liveness(study, storage)
    assert liveness.counts() == (0, 2)
    with sqlite3.connect(tmp_path / "study.db") as database:
        database.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour')")
    storage.record_heartbeat(alive._trial_id)  # as its process does
    assert liveness.counts() == (0, 1)
    assert [trial.state.name for trial in study.trials] == ["RUNNING", "FAIL", "WAITING"]  # to be repeated
    study.tell(alive, 0.5)
    assert liveness.counts() == (1, 0)
    assert dead.number == 1


def _search_of_killed_trials(database, killed, complete):
    """The values and scores of the complete trials of a search in one process, which was killed in some trials."""
    storage = open_storage(f"sqlite:///{database}")
    study = _new_study(n_startup_trials=4, storage=storage)
    for number in range(len(killed) + complete):
        trial = study.ask()
        if number not in killed:
            study.tell(trial, -abs(suggest(trial, TABLE_4)["p_ms"] - 0.25))
            continue
        if number % 2:  # others are killed before they have drawn
            suggest(trial, TABLE_4)
        liveness = Liveness(study, storage)  # of the process that goes on
        assert liveness.counts()[1] == 1 and not liveness.is_settled()
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour')")
            connection.commit()
        assert liveness.counts()[1] == 0 and liveness.is_settled()
    return [(trial.params, trial.value) for trial in study.trials if trial.state == TrialState.COMPLETE]


def test_a_search_that_is_killed_ends_with_the_trials_of_an_uninterrupted_one(tmp_path):
    whole = _search_of_killed_trials(tmp_path / "whole.db", (), 8)
    assert _search_of_killed_trials(tmp_path / "killed.db", (0, 3, 4, 7, 9), 8) == whole


def test_a_trial_that_is_killed_between_two_draws_is_repeated_with_all_of_its_values(tmp_path):
    [whole] = _draws(_new_study(), 1)
    study = _new_study(storage=open_storage(f"sqlite:///{tmp_path / 'study.db'}"))
    suggest(study.ask(), dict(list(TABLE_4.items())[3:5]))
    with contextlib.closing(sqlite3.connect(tmp_path / "study.db")) as connection:
        connection.execute("INSERT INTO trial_heartbeats (trial_id, heartbeat) VALUES (1, datetime('now', '-1 hour'))")
        connection.commit()
    optuna.storages.fail_stale_trials(study)
    assert _draws(study, 1) == [whole]


def test_a_trial_whose_process_is_killed_each_time_is_given_up(tmp_path):
    whole = _search_of_killed_trials(tmp_path / "whole.db", (), 3)
    assert _search_of_killed_trials(tmp_path / "killed.db", (0, 1, 2), 2) == whole[1:]


def test_a_process_waits_no_longer_than_it_takes_to_find_a_trial_dead(tmp_path, monkeypatch):
    storage = open_storage(f"sqlite:///{tmp_path / 'study.db'}")
    study = _new_study(storage=storage)
    study.ask()
    now = searching.time.monotonic()
    liveness = Liveness(study, storage)
    assert liveness.counts() == (0, 1) and not liveness.is_settled()
    monkeypatch.setattr(searching.time, "monotonic", lambda: now + 60)
    assert liveness.is_settled()


def test_of_trials_begun_at_once_exactly_the_wanted_ones_go_on():
    study = _new_study()
    first, second, third = (study.ask() for _ in range(3))
    assert [is_surplus(study, trial.number, wanted=2) for trial in (first, second, third)] == [False, False, True]
    study.tell(first, state=TrialState.FAIL)
    study.tell(second, 0.5)
    assert not is_surplus(study, third.number, wanted=2)


DESCRIPTION = {"space": {"p_eda": [0.0, 1.0], "n_f": [0, 1]}, "fields": {"seed": 3, "learning_rate": 1e-3}}
DEFAULTS = {"learning_rate": 1e-4, "num_train_epochs": 50, "seed": 42}


def test_the_same_search_goes_on_also_where_it_spells_a_default_out():
    study = _new_study()
    claim_study(study, DESCRIPTION, DEFAULTS)
    claim_study(study, {**DESCRIPTION, "fields": {**DESCRIPTION["fields"], "num_train_epochs": 50.0}}, DEFAULTS)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"fields": {"seed": 3}}, "field learning_rate was 0.001, is 0.0001"),
        ({"fields": {**DESCRIPTION["fields"], "seed": 4}}, "field seed was 3, is 4"),
        ({"space": {"p_eda": [0.0, 1.0]}}, r"range of n_f was \[0, 1\], is None"),
        ({"space": {**DESCRIPTION["space"], "p_eda": [0.0, 0.5]}}, "range of p_eda"),
    ],
)
def test_another_search_is_told_what_differs(change, named):
    study = _new_study()
    claim_study(study, DESCRIPTION, DEFAULTS)
    with pytest.raises(RecipeError, match=named):
        claim_study(study, {**DESCRIPTION, **change}, DEFAULTS)
    claim_study(study, DESCRIPTION, DEFAULTS)


def test_a_study_of_something_else_is_not_taken_over():
    study = _new_study()
    _draws(study, 1)
    with pytest.raises(RecipeError, match="holds trials of something else"):
        claim_study(study, DESCRIPTION, DEFAULTS)


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE studies",
        "UPDATE study_user_attributes SET value_json='{'",
        "UPDATE study_user_attributes SET value_json='[]'",
        """UPDATE study_user_attributes SET value_json='{"space": 5}'""",
        "UPDATE study_directions SET direction='MINIMIZE'",
        "UPDATE trials SET state='WHAT'",
        "UPDATE trials SET datetime_start='x'",
        "UPDATE trial_params SET distribution_json='{'",
        "DELETE FROM trial_values",
        "ALTER TABLE trials RENAME COLUMN number TO position",
    ],
)
def test_a_study_that_was_edited_by_hand_is_one_line(statement, tmp_path, monkeypatch):
    monkeypatch.setattr(searching, "ATTEMPTS", 1)
    url = f"sqlite:///{tmp_path / 'study.db'}"
    arguments, training = SearchArguments(storage=url, study_name="edited"), SimpleNamespace(seed=0)
    study, _ = open_study(arguments, training)
    claim_study(study, DESCRIPTION, DEFAULTS)
    trial = study.ask()
    trial.suggest_float("g_max", 0, 6)
    study.tell(trial, 0.5)
    claim_study(open_study(arguments, training)[0], DESCRIPTION, DEFAULTS)
    with contextlib.closing(sqlite3.connect(tmp_path / "study.db")) as database:
        database.execute(statement)
        database.commit()
    with pytest.raises(RecipeError) as error, storage_faults(url):
        claim_study(open_study(arguments, training)[0], DESCRIPTION, DEFAULTS)
    assert "\n" not in str(error.value) and ("edited" in str(error.value) or "study.db" in str(error.value))
