"""Experiments whose files, space or trials change under their feet, with NNI's own manager and tuner."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pytest
import requests
import yaml
from experiments import ROOT, Search, Start, free_port, nothing_is_left

from cifar.analysis import report
from cifar.trials import store
from cifar.trials.seed_noise import seed_noise

pytestmark = pytest.mark.slow

SPACE = {"lr": {"_type": "uniform", "_value": [0.1, 0.4]}}


@pytest.fixture
def project(tmp_path: Path, quick_config_path: Path) -> Path:
    """A folder with a config, its search space file, its trial and its experiments, as a user has it."""
    folder = tmp_path / "project"
    folder.mkdir()
    config = yaml.safe_load(quick_config_path.read_text())
    del config["searchSpace"]
    config["tuner"]["classArgs"]["tpe_args"] = {"n_startup_jobs": 1}
    config |= {
        "searchSpaceFile": "space.json",
        "trialCodeDirectory": ".",
        "trialCommand": "python trial.py",
        "experimentWorkingDirectory": "experiments",
        "assessor": None,
    }
    (folder / "config.yml").write_text(yaml.safe_dump({name: value for name, value in config.items() if value}))
    (folder / "space.json").write_text(json.dumps(SPACE))
    quick = str(ROOT / "tests" / "quick_trial.py")
    (folder / "trial.py").write_text(
        f"import runpy, sys\nsys.path.insert(0, {str(ROOT)!r})\nrunpy.run_path({quick!r}, run_name='__main__')\n"
    )
    return folder


@pytest.fixture(autouse=True)
def all_ended() -> Iterator[None]:
    """Whatever a test comes to, nothing that it has started runs on."""
    yield
    while In.started:
        command = In.started.pop()
        if command.process.poll() is None:
            command.process.kill()  # its manager notices, and ends all the rest
            command.process.wait()


class In:
    """`cifar` commands in a project's folder."""

    started: ClassVar[list[Search]] = []

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder, self.home = folder, home

    def run(self, *arguments: str, **environment: str) -> Search:
        path = {"PYTHONPATH": str(ROOT)}
        command = Search(self.home, arguments, path | environment, self.folder)
        command.experiments = self.folder / "experiments"
        self.started.append(command)
        return command

    def search(self, *arguments: str, **environment: str) -> Search:
        return self.run("search", "--data", "digits", *arguments, **environment)


def lrs(search: Search) -> list[float]:
    return [float(trial.params["lr"]) for trial in search.trials()]


def edit(path: Path, low: float, high: float) -> None:
    path.write_text(json.dumps({"lr": {"_type": "uniform", "_value": [low, high]}}))


def test_a_search_space_that_is_edited_is_named_and_changes_nothing(project: Path, tmp_path: Path) -> None:
    here = In(project, tmp_path)
    first = here.search("--max-trials", "2", "--tuner", "Random")
    assert first.wait() == 0, first.err
    edit(project / "space.json", 0.5, 0.9)
    resumed = here.run("search", "--resume", first.id, "--max-trials", "5")
    assert resumed.wait() == 0, resumed.err
    assert f"{project / 'space.json'} differs from the experiment's search space, with which it goes on" in resumed.err
    assert all(0.1 <= lr <= 0.4 for lr in lrs(resumed))
    assert store.read_config(resumed.directory)["searchSpace"] == SPACE
    (project / "space.json").unlink()
    again = here.run("search", "--resume", first.id, "--max-trials", "6")
    assert again.wait() == 0, again.err
    assert len(lrs(again)) == 6
    assert nothing_is_left(tmp_path)


def test_a_copied_project_goes_on_in_the_copy_and_a_renamed_one_where_it_is(project: Path, tmp_path: Path) -> None:
    first = In(project, tmp_path).search("--max-trials", "2")
    assert first.wait() == 0, first.err
    copied = tmp_path / "copy of it"
    shutil.copytree(project, copied)
    (copied / "trial.py").write_text((copied / "trial.py").read_text() + "\n# the copy's own\n")
    resumed = In(copied, tmp_path).run("search", "--resume", first.id, "--max-trials", "4")
    assert resumed.wait() == 0, resumed.err
    assert [len(store.read_trials(folder / "experiments" / first.id)) for folder in (project, copied)] == [2, 4]
    assert store.read_config(resumed.directory)["trialCodeDirectory"] == str(copied)
    shown = In(copied, tmp_path).run("trials", first.id)
    assert shown.wait() == 0
    assert "4 trials: 4 ok" in shown.out

    renamed = project.rename(tmp_path / "renamed")
    moved = In(renamed, tmp_path).run("search", "--resume", first.id, "--max-trials", "3")
    assert moved.wait() == 0, moved.err
    assert "3 trials: 3 ok" in moved.out
    for name in ("space.json", "trial.py"):
        (renamed / name).unlink()
    port = free_port()
    page = In(renamed, tmp_path).run("search", "--ui-only", first.id, "--port", str(port))
    page.wait_for("the web page stays open until you press Ctrl-C")
    assert len(requests.get(f"http://127.0.0.1:{port}/api/v1/nni/trial-jobs", timeout=10).json()) == 3
    page.process.send_signal(signal.SIGINT)
    assert page.wait(30) == 0
    lost = In(renamed, tmp_path).run("search", "--resume", first.id, "--max-trials", "9")
    assert lost.wait() == 2
    assert "error: trialCommand: there is no file trial.py in " in lost.err


@pytest.mark.parametrize("name", ["{id}-old", "my best run"])
def test_a_renamed_experiment_is_read_and_to_be_resumed_named_again(project: Path, tmp_path: Path, name: str) -> None:
    here = In(project, tmp_path)
    first = here.search("--max-trials", "2")
    assert first.wait() == 0, first.err
    renamed = first.directory.rename(first.directory.with_name(name.format(id=first.id)))
    shown = here.run("trials", renamed.name)
    assert shown.wait() == 0, shown.err
    assert "2 trials: 2 ok" in shown.out
    for option in ("--resume", "--ui-only"):
        refused = here.run("search", option, renamed.name)
        assert refused.wait() == 2
        expected = (
            f"error: {renamed} holds experiment {first.id}, which NNI knows by that name only: rename it to {first.id}"
        )
        assert refused.err.splitlines() == [expected]


def test_trials_that_do_not_fit_the_space_stop_neither_report_nor_resume(project: Path, tmp_path: Path) -> None:
    """Those that a button of NNI's page starts: with a value that the space does not have, or one that is missing."""
    config = yaml.safe_load((project / "config.yml").read_text())
    config["tuner"]["classArgs"]["tpe_args"] = {
        "n_startup_jobs": 4
    }  # with choices TPE needs some good and some bad ones
    (project / "config.yml").write_text(yaml.safe_dump(config))
    space: dict[str, Any] = SPACE | {"batch_size": {"_type": "choice", "_value": [16, 32, 64]}}
    (project / "space.json").write_text(json.dumps(space))
    here, port = In(project, tmp_path), free_port()
    first = here.search("--max-trials", "8", "--port", str(port), CIFAR_TEST_SECONDS="0.5")
    first.wait_until_ended(1)
    url = f"http://127.0.0.1:{port}/api/v1/nni/trial-jobs"
    for params in ({"lr": 0.2, "batch_size": 9}, {"lr": 0.3}):
        assert requests.post(url, json=params, timeout=10).ok
    for nothing in ("{}", "[1, 2]"):
        headers = {"Content-Type": "application/json"}
        assert not requests.post(url, data=nothing, headers=headers, timeout=10).ok
    assert first.wait() == 0, first.err
    unfit = [trial for trial in first.trials() if trial.by_hand]
    assert len(unfit) == 2
    trials = store.read_trials(first.directory)
    about = report._about_search(first.directory, trials, seed_noise(trials, first.directory))
    assert "2 trials have parameters that the search space does not give" in about["warnings"][0]
    resumed = here.run("search", "--resume", first.id, "--max-trials", "12")
    assert resumed.wait() == 0, resumed.err
    numbers = ", ".join(str(trial.number) for trial in unfit)
    assert f"the tuner will not hear of trials outside the search space: {numbers}" in resumed.err
    assert "12 trials: 12 ok" in resumed.out
    log = (resumed.directory / "log" / "dispatcher.log").read_text()
    assert "Replayed 6 FINISHED trials" in log
    assert nothing_is_left(tmp_path)


@pytest.mark.parametrize("tuner", ["GridSearch", "TPE"])
def test_every_point_of_a_finite_space_is_tried(project: Path, tmp_path: Path, tuner: str) -> None:
    (project / "space.json").write_text(json.dumps({"lr": {"_type": "choice", "_value": [0.1, 0.2, 0.3, 0.4, 0.5]}}))
    config = yaml.safe_load((project / "config.yml").read_text())
    config["tuner"]["classArgs"]["tpe_args"] = {"n_startup_jobs": 3}
    del config["maxTrialNumber"]
    (project / "config.yml").write_text(yaml.safe_dump(config))
    one = In(project, tmp_path).search("--duration", "10m", "--tuner", tuner)
    assert one.wait() == 0, one.err
    assert sorted(lrs(one)) == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert nothing_is_left(tmp_path)


def test_a_database_that_is_held_for_a_while_costs_no_search(project: Path, tmp_path: Path) -> None:
    one = In(project, tmp_path).search("--max-trials", "12", CIFAR_TEST_SECONDS="0.5")
    one.wait_until_ended(2)
    with closing(sqlite3.connect(one.directory / "db" / "nni.sqlite", timeout=30)) as connection:
        connection.execute("begin exclusive")
        time.sleep(15)
        connection.rollback()
    assert one.wait() == 0, one.err
    assert "12 trials: 12 ok" in one.out
    assert nothing_is_left(tmp_path)


def test_a_database_that_is_held_for_good_is_named(project: Path, tmp_path: Path) -> None:
    one = In(project, tmp_path).search("--max-trials", "12", CIFAR_TEST_SECONDS="0.5")
    one.wait_until_ended(2)
    with closing(sqlite3.connect(one.directory / "db" / "nni.sqlite", timeout=30)) as connection:
        connection.execute("begin exclusive")
        one.wait_for("another program has held ")
        connection.rollback()
    assert one.wait() == 1, one.err
    assert "Traceback" not in one.err
    assert f"resume with: cifar search --resume {one.id}" in one.err
    assert nothing_is_left(tmp_path)


def test_a_tuner_that_starts_slowly_is_waited_for(project: Path, tmp_path: Path) -> None:
    """NNI gives it ten seconds, which a busy machine may need for its imports."""
    (tmp_path / "slow").mkdir()
    delay = "import sys, time\nif '--exp_params' in sys.orig_argv: time.sleep(15)\n"
    (tmp_path / "slow" / "sitecustomize.py").write_text(delay)
    one = In(project, tmp_path).search("--max-trials", "2", PYTHONPATH=f"{tmp_path / 'slow'}:{ROOT}")
    assert one.wait() == 0, one.err
    assert "2 trials: 2 ok" in one.out


def test_a_server_that_starts_slowly_is_waited_for(project: Path, tmp_path: Path) -> None:
    """NNI gives it three seconds."""
    wait = "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 12000)"
    delay = f"if (process.argv.includes('--experiment-id')) {wait};"
    (tmp_path / "slow.js").write_text(delay)
    one = In(project, tmp_path).search(
        "--max-trials", "2", "--tuner", "Random", NODE_OPTIONS=f"--require {tmp_path / 'slow.js'}"
    )
    assert one.wait() == 0, one.err
    assert "2 trials: 2 ok" in one.out


def test_a_limit_that_is_raised_after_the_end_lets_the_search_go_on(project: Path, tmp_path: Path) -> None:
    port = free_port()
    one = In(project, tmp_path).search("--max-trials", "3", "--port", str(port), "--keep-open")
    one.wait_for("the web page stays open until you press Ctrl-C")
    url = f"http://127.0.0.1:{port}/api/v1/nni/experiment"
    wanted = requests.get(url, timeout=10).json()
    wanted["params"]["maxTrialNumber"] = 6
    assert requests.put(f"{url}?update_type=MAX_TRIAL_NUM", json=wanted, timeout=10).ok
    one.wait_for("a limit was raised in the web page: the search goes on")
    one.wait_for("6 trials: 6 ok")
    one.process.send_signal(signal.SIGINT)
    assert one.wait(30) == 0


def test_a_trial_that_takes_too_long_says_so_and_is_foreseen(project: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((project / "config.yml").read_text())
    (project / "config.yml").write_text(yaml.safe_dump(config | {"maxTrialDuration": "4s", "trialConcurrency": 1}))
    one = In(project, tmp_path).search("--max-trials", "3", CIFAR_TEST_SECONDS="30")
    assert one.wait() in (0, 1), one.err
    assert {trial.reason for trial in one.trials()} == {"ended by maxTrialDuration, 4s, before it had a result"}


def test_a_search_without_time_is_not_resumed(project: Path, tmp_path: Path, search: Start) -> None:
    here = In(project, tmp_path)
    first = here.search("--max-trials", "500", "--duration", "6s", CIFAR_TEST_SECONDS="0.5")
    assert first.wait() == 0, first.err
    refused = here.run("search", "--resume", first.id)
    assert refused.wait() == 2
    assert f"error: experiment {first.id} has used its time: it has run for " in refused.err
    assert refused.err.rstrip().endswith("--duration gives it more")
