from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cifar.leaderboard import leaderboard
from cifar.store import best_first, read_trials, trial_directory

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
    assert trials[0].standard_error == pytest.approx(0.04)


def test_a_trial_that_ended_by_a_slow_clock_before_it_began_has_ended(experiment: Path) -> None:
    """Its end is timed by the machine that it ran on, which may be another."""
    before = read_trials(experiment)
    with closing(sqlite3.connect(experiment / "db" / "nni.sqlite")) as connection, connection:
        connection.execute("update TrialJobEvent set timestamp = timestamp - 60 where event = 'SUCCEEDED'")
    assert read_trials(experiment) == before


def test_the_leaderboard_ranks_what_was_measured_and_counts_the_rest(experiment: Path) -> None:
    trials = read_trials(experiment)
    assert [trial.number for trial in best_first(trials)] == [1, 0]
    lines = leaderboard(trials, experiment).splitlines()
    assert lines[0].split() == [
        "No.",
        "trial",
        "accuracy",
        "tie",
        "width",
        "lr",
        "weights",
        "epochs",
        "seconds",
        "ended",
    ]
    assert lines[1].split() == ["1", "trial1", "90.0%", "±", "3.0%", "41", "0.1", "8", "1.5", "stopped_early"]
    assert lines[-1] == "5 trials: 1 ok, 1 stopped_early, 1 user_canceled, 1 diverged, 1 running"


def test_searched_names_stand_in_the_table_beside_numbers(experiment: Path) -> None:
    params = trial_directory(experiment, "trial1") / "params.json"
    params.write_text(json.dumps({"parameters": {"model": "wide", "lr": 0.1}}))
    lines = leaderboard(read_trials(experiment), experiment).splitlines()
    assert lines[0].split()[4:7] == ["model", "lr", "width"]
    assert lines[1].split()[5:8] == ["wide", "0.1", "8"]  # no width of its own: the next is its epochs


def test_an_experiment_that_has_not_begun_has_no_trials(tmp_path: Path) -> None:
    assert read_trials(tmp_path) == []
    (tmp_path / "db").mkdir()
    sqlite3.connect(tmp_path / "db" / "nni.sqlite").close()
    assert read_trials(tmp_path) == []
    assert leaderboard([], tmp_path) == "0 trials: none has begun"
