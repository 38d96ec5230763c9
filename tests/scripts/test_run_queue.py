"""A plan is worked through once: what has finished stays, what was interrupted is resumed, faults are named."""

import dataclasses
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from modeling_cnn10bert.errors import RecipeError
from reproduce import run_queue
from reproduce.ladders import Run, Synthesis
from reproduce.run_queue import check_folder, command_of, is_finished, outstanding, work_through

# Stands for train_retrieval.py: notes how it was called, and does what the file `orders/<name of the run>` says.
SCRIPT = """
import json, pathlib, sys, time
words = sys.argv[1:]
folder = pathlib.Path(words[words.index("--output_dir") + 1])
with open("calls", "a") as calls:
    calls.write(json.dumps(words) + "\\n")
order = pathlib.Path("orders") / folder.name
match order.read_text() if order.is_file() else "":
    case "fail":
        print("error: the recording x.wav is broken")
        sys.exit(1)
    case "wait":
        (folder / "checkpoint-5").mkdir()
        time.sleep(600)
    case "nothing":
        sys.exit(0)
(folder / "all_results.json").write_text('{"train_runtime": 3.0, "test_mAP@10": 0.5}')
"""


@pytest.fixture(autouse=True)
def repository(tmp_path, monkeypatch):
    """A folder whose train_retrieval.py is the script above; the tests run in it."""
    (tmp_path / "train_retrieval.py").write_text(SCRIPT)
    (tmp_path / "orders").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_queue, "REPOSITORY", tmp_path)
    return tmp_path


def _run(name, needs=(), **fields):
    return Run(
        name=name,
        recipe=Path(f"{name}.yaml"),
        script="train_retrieval.py",
        seed=1,
        fields={"do_train": True, "do_predict": True, "learning_rate": 0.1, **fields},
        arguments=("--max_steps", "10"),
        starts_from=dict(zip(["model_name_or_path"], needs, strict=False)),
        needs=tuple(needs),
    )


def _called():
    calls = Path("calls").read_text().splitlines() if Path("calls").is_file() else []
    return [Path(words[words.index("--output_dir") + 1]).name for words in map(json.loads, calls)]


RUNS = Path("runs")


def test_runs_come_behind_what_they_need_and_none_comes_twice():
    steps = [_run("pretraining"), _run("first", ["pretraining"]), _run("second", ["pretraining"])]
    work_through(steps, RUNS, jobs=3)
    assert _called()[0] == "pretraining" and sorted(_called()[1:]) == ["first", "second"]
    work_through(steps, RUNS)
    assert len(_called()) == 3
    assert all(is_finished(step, RUNS) for step in steps) and not outstanding(steps, RUNS)


def test_a_run_is_told_its_seed_its_folder_and_its_pretrained_model():
    work_through([_run("pretraining"), _run("first", ["pretraining"])], RUNS)
    words = json.loads(Path("calls").read_text().splitlines()[1])
    assert words[0] == "first.yaml"
    given = dict(zip(words[1::2], words[2::2], strict=True))
    assert given == {
        "--max_steps": "10",
        "--model_name_or_path": "runs/pretraining",
        "--seed": "1",
        "--output_dir": "runs/first",
        "--resume_from_checkpoint": "true",
    }


def test_what_only_finished_runs_needed_is_not_made_again():
    steps = [_run("pretraining"), _run("first", ["pretraining"])]
    work_through(steps[1:], RUNS)
    work_through(steps, RUNS)
    assert _called() == ["first"]


def test_several_devices_go_through_accelerate():
    words = command_of(_run("first"), RUNS, num_processes=4)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "4"]
    assert words[:6] == launch and words[8].endswith("train_retrieval.py")


def test_a_failed_run_stops_the_rest_and_names_its_log_and_the_same_call_goes_on():
    steps = [_run("first"), _run("second"), _run("third")]
    (Path("orders") / "second").write_text("fail")
    for _ in range(2):
        message = r"^second failed \(exit status 1\): the recording x.wav is broken; see runs/second.log"
        with pytest.raises(RecipeError, match=message):
            work_through(steps, RUNS)
    assert _called() == ["first", "second", "second"]
    (Path("orders") / "second").write_text("nothing")
    with pytest.raises(RecipeError, match=r"second failed \(it left no results\)"):
        work_through(steps, RUNS)
    (Path("orders") / "second").unlink()
    work_through(steps, RUNS)
    assert _called()[-2:] == ["second", "third"]
    assert (RUNS / "second.log").read_text().count("is broken") == 2  # nothing of a log is lost


def test_a_failure_ends_the_runs_beside_it():
    (Path("orders") / "first").write_text("wait")
    (Path("orders") / "second").write_text("fail")
    with pytest.raises(RecipeError, match="second failed"):
        work_through([_run("first"), _run("second")], RUNS, jobs=2)
    os.close(run_queue._lock(RUNS / "first"))  # which nobody holds any more


def test_a_killed_run_is_resumed_and_half_a_file_of_results_is_put_aside(repository):
    (Path("orders") / "first").write_text("wait")
    process = run_queue.start(_run("first"), RUNS)
    while not (RUNS / "first" / "checkpoint-5").is_dir():
        assert process.poll() is None
        time.sleep(0.01)
    # The lock is the process's own: it keeps others out also when the program that started it is gone.
    with pytest.raises(RecipeError, match="runs/first: found another process at work"):
        work_through([_run("first")], RUNS)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (RUNS / "first" / "all_results.json").write_text('{"test_mAP@10": 0.')
    (Path("orders") / "first").unlink()
    assert json.loads((RUNS / "first" / "run.json").read_text())["resumed"] is False
    work_through([_run("first")], RUNS)
    assert is_finished(_run("first"), RUNS)
    assert json.loads((RUNS / "first" / "run.json").read_text())["resumed"] is True
    assert (RUNS / "first" / "all_results.json.broken").is_file()


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_that_was_made_with_other_fields_is_an_error_that_names_them(finished):
    if finished:
        work_through([_run("first", g_max=3)], RUNS)
    else:
        (Path("orders") / "first").write_text("fail")
        with pytest.raises(RecipeError):
            work_through([_run("first", g_max=3)], RUNS)
    other = _run("first", learning_rate=0.2)
    message = r"runs/first was made with g_max 3 \(now nothing\), learning_rate 0.1 \(now 0.2\); give the same fields"
    with pytest.raises(RecipeError, match=message):
        check_folder(other, RUNS, 1)
    with pytest.raises(RecipeError, match="num_processes 1 .now 2."):
        check_folder(_run("first", g_max=3), RUNS, 2)
    check_folder(_run("first", g_max=3, cache_dir="elsewhere", preprocessing_num_workers=2), RUNS, 1)


def test_a_run_of_unknown_fields_is_not_taken_for_one_of_the_table():
    (RUNS / "first" / "checkpoint-5").mkdir(parents=True)
    with pytest.raises(RecipeError, match=r"runs/first: found a run without run.json"):
        check_folder(_run("first"), RUNS, 1)
    with pytest.raises(RecipeError, match=r"runs/first: found a run without run.json"):
        work_through([_run("first")], RUNS)
    assert _called() == []


@pytest.mark.parametrize(
    ("results", "finished"),
    [('{"test_mAP@10": 0.5}', True), ('{"train_loss": 1, "eval_mAP@10": 0.5}', False), ('{"test_mAP@1', False)],
)
def test_a_run_has_finished_when_it_was_tested(results, finished):
    (RUNS / "first").mkdir(parents=True)
    (RUNS / "first" / "all_results.json").write_text(results)
    assert is_finished(_run("first"), RUNS) is finished


def test_synthetic_scenes_are_made_once(monkeypatch):
    scenes = Synthesis("scenes", Path("data") / "synthetic")
    assert command_of(scenes, RUNS)[1:] == [
        str(run_queue.REPOSITORY / "scripts/demo/synthesizers.py"),
        "data/synthetic",
    ]
    commands = {"scenes": [sys.executable, "-c", "import os; os.makedirs('data/synthetic')"]}
    monkeypatch.setattr(run_queue, "command_of", lambda step, *rest: commands.get(step.name) or command_of(step, *rest))
    steps = [scenes, dataclasses.replace(_run("pretraining"), needs=("scenes",))]
    work_through(steps, RUNS)
    assert scenes.folder.is_dir() and _called() == ["pretraining"]
    commands["scenes"] = [sys.executable, "-c", "raise SystemExit(1)"]
    work_through(steps, RUNS)


def test_what_another_program_finished_meanwhile_is_taken_as_it_is():
    steps, finished = [_run("first"), _run("second")], []

    def finish_second(step):
        (RUNS / "second").mkdir()
        (RUNS / "second" / "all_results.json").write_text('{"test_mAP@10": 0.5}')

    work_through(steps, RUNS, on_start=finish_second, on_finish=lambda step: finished.append(step.name))
    assert _called() == ["first"] and finished == ["first", "second"]


def test_a_token_of_a_recipe_is_not_recorded_and_an_old_record_of_one_still_fits(repository):
    run = _run("a", hub_token="planted-token", g_max=6)
    record = run_queue.record_of(run, 1)
    assert "planted-token" not in json.dumps(record) and record["fields"]["g_max"] == 6
    folder = repository / "runs" / "a"
    folder.mkdir(parents=True)
    record["fields"]["hub_token"] = "an-older-token"
    (folder / "run.json").write_text(json.dumps(record))
    check_folder(run, repository / "runs", 1)
    with pytest.raises(RecipeError, match="g_max 6") as error:
        check_folder(_run("a", g_max=3), repository / "runs", 1)
    assert "older-token" not in str(error.value)


def test_the_log_of_a_run_and_the_error_that_quotes_it_hold_no_secret(repository):
    (repository / "train_retrieval.py").write_text(
        "import sys; sys.exit('error: cannot reach http://me:planted-word@host')"
    )
    run = dataclasses.replace(_run("a"), arguments=("--hub_token", "planted-word"))
    with pytest.raises(RecipeError, match=r"http://\*\*\*@host") as error:
        work_through([run], repository / "runs")
    assert "planted-word" not in str(error.value)
    assert "--hub_token ***" in (repository / "runs" / "a.log").read_text()


@pytest.mark.parametrize("text", ["[]", "5", "[" * 100_000, '{"fields": []}', "{}"], ids=lambda text: text[:20])
def test_a_record_or_results_that_were_edited_are_told_or_made_again(text, repository):
    folder = repository / "runs" / "a"
    folder.mkdir(parents=True)
    (folder / "all_results.json").write_text(text)
    (folder / "run.json").write_text(text)
    assert not is_finished(_run("a"), repository / "runs")
    with pytest.raises(RecipeError, match="found a run without run.json"):
        check_folder(_run("a"), repository / "runs", 1)
