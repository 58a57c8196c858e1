from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_experiments as fake
import pytest

from cifar.system.files import read_json
from cifar.training.intervals import wilson
from cifar.trials import database, store
from cifar.trials.layout import trial_directory
from cifar.trials.leaderboard import leaderboard
from cifar.trials.store import best_first, read_trials

SCHEMA = """create table TrialJobEvent (timestamp integer, trialJobId text, event text, data text, logPath text,
sequenceId integer, message text, environmentId text)"""


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """An experiment as NNI keeps it: trial 0 ok, 1 stopped early, 2 killed, 3 diverged, 4 running."""
    (tmp_path / "db").mkdir()
    with closing(sqlite3.connect(tmp_path / "db" / "nni.sqlite")) as connection, connection:
        connection.execute(SCHEMA)
        for number, event in enumerate(["SUCCEEDED", "SUCCEEDED", "USER_CANCELED", "SUCCEEDED", None]):
            data = json.dumps({"parameter_id": number, "parameters": {"width": 4.0 + number, "lr": 0.1}})
            insert = "insert into TrialJobEvent values (?, ?, ?, ?, '', ?, '', '')"
            connection.execute(insert, (10 * number, f"trial{number}", "RUNNING", data, number))
            if event:
                connection.execute(insert, (10 * number + 15, f"trial{number}", event, None, number))
        connection.execute(insert, (99, "trial4", "ADD_RESUMED", "", None))  # what a resume adds is no end of it
    write_result(tmp_path, 0, status="ok", default=0.8)
    write_result(tmp_path, 1, status="stopped_early", default=0.9)
    write_result(tmp_path, 3, status="diverged", default=0.1)
    return tmp_path


def write_result(experiment: Path, number: int, status: str, default: float) -> None:
    directory = trial_directory(experiment, f"trial{number}")
    directory.mkdir(parents=True)
    result: dict[str, Any] = {
        "status": status,
        "reason": "",
        "metrics": {"default": default},
        "epochs": 8,
        "seconds": 1.5,
    }
    (directory / "result.json").write_text(json.dumps(result | {"data": {"val_images": 100}}))
    (directory / "params.json").write_text(json.dumps({"parameters": {"width": 40.0 + number, "lr": 0.1}}))


def test_trials_are_what_they_wrote_else_what_nni_knows(experiment: Path) -> None:
    trials = read_trials(experiment)
    assert [trial.number for trial in trials] == [0, 1, 2, 3, 4]
    assert [trial.status for trial in trials] == ["ok", "stopped_early", "user_canceled", "diverged", "running"]
    assert [trial.ended for trial in trials] == [True, True, True, True, False]
    assert [trial.params["width"] for trial in trials] == [40.0, 41.0, 6.0, 43.0, 8.0]
    assert trials[0].interval == wilson(0.8, 100)


def test_a_trial_that_ended_by_a_slow_clock_before_it_began_has_ended(experiment: Path) -> None:
    """Its end is timed by the machine that it ran on, which may be another."""
    before = [replace(trial, changed=0) for trial in read_trials(experiment)]
    with closing(sqlite3.connect(experiment / "db" / "nni.sqlite")) as connection, connection:
        connection.execute("update TrialJobEvent set timestamp = timestamp - 60 where event = 'SUCCEEDED'")
    assert [replace(trial, changed=0) for trial in read_trials(experiment)] == before


def test_the_leaderboard_ranks_what_was_measured_and_counts_the_rest(experiment: Path) -> None:
    trials = read_trials(experiment)
    assert [trial.number for trial in best_first(trials)] == [1, 0]
    lines = leaderboard(trials, experiment).splitlines()
    assert lines[0].split() == [
        "No.",
        "trial",
        "accuracy",
        "±",
        "95%",
        "tie",
        "width",
        "lr",
        "parameters",
        "epochs",
        "seconds",
        "ended",
    ]
    assert lines[1].split() == ["1", "trial1", "90.0%", "±", "8.0%", "=", "41", "0.1", "8", "1.5", "stopped_early"]
    assert lines[-1] == "5 trials: 1 ok, 1 stopped_early, 1 user_canceled, 1 diverged, 1 running"


def test_searched_names_stand_in_the_table_beside_numbers(experiment: Path) -> None:
    params = trial_directory(experiment, "trial1") / "params.json"
    params.write_text(json.dumps({"parameters": {"model": "wide", "lr": 0.1}}))
    lines = leaderboard(read_trials(experiment), experiment).splitlines()
    assert lines[0].split()[6:9] == ["model", "lr", "width"]
    assert lines[1].split()[5:9] == ["=", "wide", "0.1", "8"]  # no width of its own: the next is its epochs


def test_an_experiment_that_has_not_begun_has_no_trials(tmp_path: Path) -> None:
    assert read_trials(tmp_path) == []
    (tmp_path / "db").mkdir()
    sqlite3.connect(tmp_path / "db" / "nni.sqlite").close()
    assert read_trials(tmp_path) == []
    assert leaderboard([], tmp_path) == "0 trials: none has begun"


def test_a_reader_reads_what_is_new_and_no_file_twice(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = store.Reader(experiment)
    assert reader.trials() == read_trials(experiment)
    opened = list[Path]()

    def noted(path: Path) -> dict[str, Any] | None:
        opened.append(path)
        return read_json(path)

    monkeypatch.setattr(store, "read_json", noted)
    assert [trial.number for trial in reader.trials()] == [0, 1, 2, 3, 4]
    assert {path.parent.name for path in opened} == {"trial4"}  # which runs
    write_result(experiment, 4, status="ok", default=0.7)
    with closing(sqlite3.connect(experiment / "db" / "nni.sqlite")) as connection, connection:
        row = (200, "trial4", "SUCCEEDED", None, 4)
        connection.execute("insert into TrialJobEvent values (?, ?, ?, ?, '', ?, '', '')", row)
    assert reader.trials()[-1].accuracy == 0.7
    monkeypatch.undo()
    assert reader.trials() == read_trials(experiment)


def test_a_database_that_another_program_holds_is_waited_for_then_named(
    experiment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_WAIT_SECONDS", 0.5)
    with closing(sqlite3.connect(experiment / "db" / "nni.sqlite", check_same_thread=False)) as connection:
        connection.execute("begin exclusive")
        with pytest.raises(
            database.DatabaseHeld, match=r"another program has held .*nni\.sqlite for 0 seconds: a browser of"
        ):
            read_trials(experiment)
        monkeypatch.setattr(database, "_WAIT_SECONDS", 30.0)
        release = threading.Timer(1.0, connection.rollback)
        release.start()
        assert len(read_trials(experiment)) == 5
        release.join()


def test_why_a_trial_has_no_result_is_never_a_stray_line(experiment: Path) -> None:
    directory = trial_directory(experiment, "trial2")
    directory.mkdir(parents=True)
    (directory / "trial.stderr").write_text("KeyboardInterrupt\n")
    assert read_trials(experiment)[2].reason == "ended from outside before it had a result"
    with closing(sqlite3.connect(experiment / "db" / "nni.sqlite")) as connection, connection:
        connection.execute("update TrialJobEvent set event = 'FAILED' where event = 'USER_CANCELED'")
    error = "ModuleNotFoundError: No module named 'x'"
    (directory / "trial.stderr").write_text(f"Traceback\n{error}\nwarning: something that came later\n")
    assert read_trials(experiment)[2].reason == error
    (directory / "trial.stderr").write_text("/bin/bash: line 1: pyhton: command not found\n")
    assert read_trials(experiment)[2].reason == "/bin/bash: line 1: pyhton: command not found"


def test_of_a_copied_project_the_copy_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NNI's own list has the original under the same id."""
    monkeypatch.setenv("HOME", str(tmp_path))
    original, copied = (fake.make(tmp_path / name / "experiments" / "abcd1234", []) for name in ("original", "copy"))
    (tmp_path / "nni-experiments").mkdir()
    listed = {"abcd1234": {"logDir": str(original.parent)}}
    (tmp_path / "nni-experiments" / ".experiment").write_text(json.dumps(listed))
    assert store.find("abcd1234", copied.parent) == copied
    assert store.find("abcd", copied.parent) == copied
    assert store.find("abcd1234", tmp_path) == original  # where there is no other
    copied.rename(copied.with_name("abcd1234-old"))
    assert store.find("abcd1234", copied.parent).name == "abcd1234-old"
    assert store.read_id(copied.with_name("abcd1234-old")) == "abcd1234"


@pytest.mark.parametrize("sent", [{}, [1, 2], [["lr", 0.1]], "text", None])
def test_a_trial_that_somebody_started_with_anything_is_a_trial(experiment: Path, sent: object) -> None:
    data = json.dumps({"parameter_id": None, "parameter_source": "customized", "parameters": sent})
    with closing(sqlite3.connect(experiment / "db" / "nni.sqlite")) as connection, connection:
        insert = "insert into TrialJobEvent values (?, ?, ?, ?, '', ?, '', '')"
        connection.execute(insert, (100, "trial5", "WAITING", data, 5))
        connection.execute(insert, (101, "trial5", "FAILED", None, 5))
    *_, trial = read_trials(experiment)
    assert (trial.params, trial.by_hand, trial.failed) == ({}, True, True)
    assert "5 trials" not in leaderboard(read_trials(experiment), experiment)


def test_the_latest_epoch_of_each_trial_is_read_once(tmp_path: Path) -> None:
    experiment = fake.make(tmp_path / "made", [{"accuracy": 0.8, "epochs": 4}, {"accuracy": 0.5, "epochs": 1}])
    reader = store.EpochReader(experiment)
    assert reader.latest() == {"trial0": (4, 0.8), "trial1": (1, 0.5)}
    with closing(sqlite3.connect(experiment / "db" / "nni.sqlite")) as connection, connection:
        fake.add_trial(connection, experiment, 2, accuracy=0.6, epochs=2)
        connection.execute("update MetricData set data = 'gone' where trialJobId = 'trial0'")
        connection.execute("insert into MetricData values (1, 'other', 'x', 'PERIODICAL', 0, '\"0.5\"')")
        connection.execute("insert into MetricData values (1, 'more', 'x', 'PERIODICAL', 0, '\"{}\"')")
    assert reader.latest() == {"trial0": (4, 0.8), "trial1": (1, 0.5), "trial2": (2, 0.6)}
