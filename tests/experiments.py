"""What the tests that run real experiments share."""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import yaml

from cifar.system import processes
from cifar.trials import store

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def project_config(tmp_path: Path, trial_command: str) -> dict[str, Any]:
    """The shipped experiment with another trial command, kept in tmp_path."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "config.yml").read_text())
    return config | {
        "searchSpaceFile": str(ROOT / "search_space.json"),
        "trialCodeDirectory": str(ROOT),
        "trialCommand": trial_command,
        "experimentWorkingDirectory": str(tmp_path / "experiments"),
    }


def change_config(path: Path, **changes: object) -> None:
    """Change a config file: no early stopping, so that every trial ends the same way; None leaves an option out."""
    config = yaml.safe_load(path.read_text()) | {"assessor": None} | changes
    path.write_text(yaml.safe_dump({name: value for name, value in config.items() if value is not None}))


class Search:
    """One `cifar` command as a user types it, in a home of its own."""

    def __init__(
        self, home: Path, arguments: tuple[str, ...], environment: dict[str, str], directory: Path = ROOT
    ) -> None:
        self._output = home / f"output-{time.monotonic_ns()}"
        # The claims lie below the home: other experiments on this machine must not touch them.
        own = {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "PYTHONUNBUFFERED": "1"}
        with self._output.with_suffix(".out").open("w") as out, self._output.with_suffix(".err").open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cifar", *arguments],
                env=os.environ | own | environment,
                cwd=directory,
                stdout=out,
                stderr=err,
            )
        self.experiments = home / "experiments"

    @property
    def out(self) -> str:
        return self._output.with_suffix(".out").read_text()

    @property
    def err(self) -> str:
        return self._output.with_suffix(".err").read_text()

    def wait(self, seconds: float = 120) -> int:
        return self.process.wait(seconds)

    def wait_for(self, text: str, seconds: float = 120) -> None:
        """Until stdout or stderr has `text`; fails where the command ends without it."""
        deadline = time.monotonic() + seconds
        while text not in self.out + self.err:
            assert self.process.poll() is None and time.monotonic() < deadline, self.out + self.err
            time.sleep(0.1)

    def wait_until_ended(self, trials: int) -> None:
        """Until at least so many trials have ended."""
        self.wait_for("web page http")
        while sum(trial.ended for trial in self.trials()) < trials:
            assert self.process.poll() is None, self.out + self.err
            time.sleep(0.1)

    def wait_until_started(self, trials: int) -> None:
        """Until at least so many trials have started."""
        self.wait_for("web page http")
        while len(self.trials()) < trials:
            assert self.process.poll() is None, self.out + self.err
            time.sleep(0.1)

    @property
    def id(self) -> str:
        found = re.search(r"^experiment (\w+), web page", self.err, re.MULTILINE)
        assert found, self.err
        return found[1]

    @property
    def directory(self) -> Path:
        return self.experiments / self.id

    def trials(self) -> list[store.Trial]:
        return store.read_trials(self.directory)

    def manager(self) -> psutil.Process:
        (manager,) = processes.find(self.directory, "manager")
        return manager


def database(search: Search, query: str) -> list[Any]:
    with closing(sqlite3.connect(search.directory / "db" / "nni.sqlite")) as connection:
        return connection.execute(query).fetchall()


def assert_numbered_and_paired(search: Search) -> None:
    """Every trial has a number and a parameter id of its own, and one result, which belongs to its parameters."""
    events = database(search, "select trialJobId, sequenceId, data from TrialJobEvent where data like '{%'")
    numbers = {(trial, number) for trial, number, _ in events}
    ids = {(json.loads(data)["parameter_id"], trial) for trial, _, data in events}
    trials = search.trials()
    assert sorted(number for _, number in numbers) == list(range(len(trials)))
    assert len(ids) == len(dict(ids)) == len(trials)
    recorded = {trial: json.loads(data)["parameters"] for trial, _, data in events}
    assert {trial.id: trial.params for trial in trials} == recorded
    finals = database(search, "select distinct trialJobId, data from MetricData where type = 'FINAL'")
    assert len(finals) == len(trials)


def assert_resumes(resumed: Search, trials: int) -> None:
    """To its end, with everything right."""
    assert resumed.wait() == 0, resumed.err
    assert f"{trials} trials: {trials} ok" in resumed.out
    assert_numbered_and_paired(resumed)


def descendants_of(experiments: Path) -> list[list[str]]:
    """Command lines of managers, tuners and trials of the experiments in a directory, whoever their parent is."""
    return [
        process.cmdline()
        for process in psutil.process_iter()
        if processes.is_alive(process) and str(experiments) in " ".join(_command_and_environment(process))
    ]


def _command_and_environment(process: psutil.Process) -> list[str]:
    try:
        environment = process.environ()
        names = ("NNI_OUTPUT_DIR", "NNI_LOG_DIRECTORY")
        return [*process.cmdline(), *(environment.get(name, "") for name in names)]
    except psutil.Error:
        return []


def held_claims(home: Path) -> list[str]:
    """Names of the locks that a living process holds."""
    locks = (home / ".cache" / "cifar-nni").glob("claims-*/*.lock")
    return [lock.name for lock in locks if subprocess.run(["flock", "-n", str(lock), "true"]).returncode != 0]


def nothing_is_left(home: Path) -> bool:
    """No process, listening port or lock of a search; asked right after it has ended."""
    assert descendants_of(home / "experiments") == []
    assert held_claims(home) == []
    return True


def wait_until_gone(home: Path, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while left := descendants_of(home / "experiments"):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


Start = Callable[..., Search]
