"""Real experiments: NNI's own manager, tuner and command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nni_node
import psutil
import pytest
import requests
import yaml
from experiments import BIN, ROOT, free_port, project_config

from cifar.trials import database, layout, store

SCRAMBLED = f"{sys.executable} {ROOT / 'tests' / 'scrambled_trial.py'}"


class NniExperiment:
    """One experiment started with nnictl, as a user does."""

    def __init__(self, config: dict[str, Any], home: Path, environment: dict[str, str]) -> None:
        self.port = free_port()
        self.environment = os.environ | environment | {"HOME": str(home), "PATH": f"{BIN}:{os.environ['PATH']}"}
        path = home / "config.yml"
        path.write_text(yaml.safe_dump(config))
        created = self.nnictl("create", "--config", str(path), "--port", str(self.port))
        assert created.returncode == 0, created.stdout + created.stderr
        assert created.stderr == ""  # no package's warnings
        self.id = self.get("experiment")["id"]
        self.directory = Path(config["experimentWorkingDirectory"]) / self.id
        self.find_manager()

    def find_manager(self) -> None:
        known = json.loads((Path(self.environment["HOME"]) / "nni-experiments" / ".experiment").read_text())
        self.manager = psutil.Process(known[self.id]["pid"])

    def nnictl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / "nnictl"), *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)

    def get(self, path: str) -> Any:
        return requests.get(f"http://127.0.0.1:{self.port}/api/v1/nni/{path}", timeout=10).json()

    def wait(self, seconds: float) -> str:
        """NNI's status once it is DONE, or as it is after so many seconds."""
        deadline = time.monotonic() + seconds
        while (status := str(self.get("check-status")["status"])) in ("RUNNING", "NO_MORE_TRIAL"):
            if time.monotonic() > deadline:
                break
            time.sleep(0.5)
        return status

    def stop(self) -> None:
        self.nnictl("stop", self.id)
        psutil.wait_procs([self.manager], timeout=20)
        assert not self.manager.is_running()


Start = Callable[..., NniExperiment]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[NniExperiment] = []

    def start_one(config: dict[str, Any], **environment: str) -> NniExperiment:
        started.append(NniExperiment(config, tmp_path, environment))
        return started[-1]

    yield start_one
    for experiment in started:
        experiment.stop()


def scrambled_config(tmp_path: Path, trials: int, *options: str) -> dict[str, Any]:
    return {
        "searchSpace": {"x": {"_type": "uniform", "_value": [0, 1]}},
        "trialCommand": " ".join([SCRAMBLED, *options]),
        "trialCodeDirectory": str(ROOT),
        "experimentWorkingDirectory": str(tmp_path / "experiments"),
        "trialConcurrency": 4,
        "maxTrialNumber": trials,
        "tuner": {"name": "TPE", "classArgs": {"optimize_mode": "maximize", "tpe_args": {"n_startup_jobs": 5}}},
        "trainingService": {"platform": "local"},
    }


def shown_params(experiment: NniExperiment, tmp_path: Path) -> dict[str, dict[str, float]]:
    """For each finished trial, x as each place shows it: what the trial used, and what NNI says it used."""
    exported = tmp_path / "export.json"
    experiment.nnictl("experiment", "export", experiment.id, "--type", "json", "--filename", str(exported))
    export = {row["trialJobId"]: row for row in json.loads(exported.read_text())}
    recorded = {row[1]: json.loads(row[4]) for row in database.events(experiment.directory, 0) if row[4]}
    shown = {}
    for job in experiment.get("trial-jobs"):
        if job["status"] != "SUCCEEDED":
            continue
        directory = layout.trial_directory(experiment.directory, job["trialJobId"])
        row = export[job["trialJobId"]]
        shown[job["trialJobId"]] = {
            "used": json.loads((directory / "params.json").read_text())["parameters"]["x"],
            "result": json.loads((directory / "result.json").read_text())["metrics"]["default"],
            "web API": json.loads(job["hyperParameters"][0])["parameters"]["x"],
            "web API, metric": float(json.loads(json.loads(job["finalMetricData"][0]["data"]))["default"]),
            "database": recorded[job["trialJobId"]]["parameters"]["x"],
            "export": json.loads(row["parameter"])["x"] if isinstance(row["parameter"], str) else row["parameter"]["x"],
        }
    return shown


def is_paired(shown: dict[str, float]) -> bool:
    return len(set(shown.values())) == 1


def test_what_nni_shows_is_what_ran(start: Start, tmp_path: Path) -> None:
    experiment = start(scrambled_config(tmp_path, trials=24))
    assert experiment.wait(180) == "DONE"
    shown = shown_params(experiment, tmp_path)
    assert len(shown) == 24
    assert [trial for trial, values in shown.items() if not is_paired(values)] == []
    overtaken = [
        trial
        for trial in shown
        if "another trial's" in (layout.trial_directory(experiment.directory, trial) / "trial.log").read_text()
    ]
    assert len(overtaken) >= 4  # the scrambling did its work


@pytest.mark.slow
def test_without_the_repair_the_same_experiment_shows_wrong_pairs(start: Start, tmp_path: Path) -> None:
    """The control: should this fail, NNI has mended itself or the proof above proves nothing."""
    experiment = start(scrambled_config(tmp_path, 24, "--without-repair"))
    assert experiment.wait(20) != "ERROR"  # it may be done, or have stalled
    shown = shown_params(experiment, tmp_path)
    assert [trial for trial, values in shown.items() if not is_paired(values)]


@pytest.mark.slow
def test_a_manager_that_pairs_needs_no_repair(start: Start, tmp_path: Path) -> None:
    pairing = {"NODE_OPTIONS": f"--require {ROOT / 'cifar' / 'search' / 'nni_patches' / 'pairing.js'}"}
    experiment = start(scrambled_config(tmp_path, 24, "--without-repair"), **pairing)
    assert experiment.wait(180) == "DONE"
    shown = shown_params(experiment, tmp_path)
    assert len(shown) == 24
    assert [trial for trial, values in shown.items() if not is_paired(values)] == []


def test_the_projects_own_search_runs_under_plain_nnictl(start: Start, tmp_path: Path, shared_cache: Path) -> None:
    config = project_config(tmp_path, "python trial.py --epochs 2 --lr 1") | {"maxTrialNumber": 4}
    experiment = start(config, CIFAR_DATA="digits", CIFAR_CACHE=str(shared_cache))
    assert experiment.wait(120) == "DONE"
    trials = store.read_trials(experiment.directory)
    assert [trial.nni_status for trial in trials] == ["SUCCEEDED"] * 4
    for trial in trials:
        assert trial.result is not None
        assert trial.result["params_are_recorded"]
        assert set(trial.params) == {"width", "lr", "momentum", "batch_size"}
        assert {name: trial.result["hparams"][name] for name in trial.params} == trial.params
        assert trial.result["threads"] <= max(1, len(os.sched_getaffinity(0)) // config["trialConcurrency"])


@pytest.mark.slow
def test_trials_continue_after_the_manager_was_killed(start: Start, tmp_path: Path, shared_cache: Path) -> None:
    epochs = 24
    config = project_config(tmp_path, f"python trial.py --epochs {epochs} --batch_size 16") | {
        "searchSpace": {"lr": {"_type": "loguniform", "_value": [0.001, 0.01]}},
        "maxTrialNumber": 2,
    }
    del config["searchSpaceFile"], config["assessor"]
    experiment = start(config, CIFAR_DATA="digits", CIFAR_CACHE=str(shared_cache))
    while not all(len(epochs_of(experiment, trial)) >= 2 for trial in wait_for_trials(experiment, 2)):
        time.sleep(0.2)
    before = {trial: (params_of(experiment, trial), epochs_of(experiment, trial)) for trial in trial_ids(experiment)}
    tuners = [child for child in experiment.manager.children() if "nni" in child.cmdline()]
    trial_processes = [child for child in experiment.manager.children() if child not in tuners]
    experiment.manager.kill()
    _, alive = psutil.wait_procs(trial_processes, timeout=60)
    assert alive == []
    for tuner in tuners:  # the orphan would connect to the new manager and drive the new tuner out
        tuner.kill()
    assert all(0 < len(epochs_of(experiment, trial)) < epochs for trial in before)  # cut off in the middle
    assert experiment.nnictl("resume", experiment.id, "--port", str(experiment.port)).returncode == 0
    experiment.find_manager()
    assert experiment.wait(120) == "DONE"
    trials = store.read_trials(experiment.directory)
    assert {trial.id: trial.params for trial in trials} == {trial: params for trial, (params, _) in before.items()}
    for trial in trials:
        assert trial.result is not None
        assert (trial.status, trial.result["epochs"]) == ("ok", epochs)
        trained = epochs_of(experiment, trial.id)
        assert trained == sorted(set(trained))  # none was trained twice
        assert not (layout.trial_directory(experiment.directory, trial.id) / "checkpoint.pt").exists()


def trial_ids(experiment: NniExperiment) -> list[str]:
    return [trial.id for trial in store.read_trials(experiment.directory)]


def wait_for_trials(experiment: NniExperiment, count: int) -> list[str]:
    while len(ids := trial_ids(experiment)) < count:
        time.sleep(0.2)
    return ids


def params_of(experiment: NniExperiment, trial: str) -> dict[str, float]:
    path = layout.trial_directory(experiment.directory, trial) / "params.json"
    params: dict[str, float] = json.loads(path.read_text())["parameters"]
    return params


def epochs_of(experiment: NniExperiment, trial: str) -> list[int]:
    """The epochs that a trial says it has trained, over all its starts."""
    path = layout.trial_directory(experiment.directory, trial) / "trial.log"
    text = path.read_text() if path.exists() else ""
    return [int(epoch) for epoch in re.findall(r"PRINT epoch (\d+)/", text)]


def test_preloaded_into_nnis_node_loopback_keeps_servers_on_this_machine() -> None:
    """As README has it for plain nnictl; under cifar search, test_run.py looks at the manager itself."""
    (package,) = nni_node.__path__
    script = (
        "const s = require('http').createServer().listen(0, () => { console.log(s.address().address); s.close(); })"
    )
    command = [
        f"{package}/node",
        "--require",
        str(ROOT / "cifar" / "search" / "nni_patches" / "loopback.js"),
        "-e",
        script,
    ]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "127.0.0.1\n"
