"""Start, ask and stop an NNI experiment. NNI itself stays unmodified."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import requests

from cifar.errors import RequestError
from cifar.search.remote import host as machine
from cifar.search.remote import hosts
from cifar.search.trial_command import trial_path
from cifar.system import environment as names
from cifar.system import processes
from cifar.system.durations import seconds
from cifar.trials import layout, store, top_models
from cifar.trials.nni_client import bypass_proxies

Action = Literal["create", "resume", "view"]

_PATCHES = Path(__file__).with_name("nni_patches")
_SERVER_SECONDS = 90.0  # to start, on a busy machine
_STOP_SECONDS = 60.0  # NNI's own limit, after which it gives up


class Experiment:
    """A running experiment: its id, its directory and the address of its web page."""

    def __init__(self, nni_experiment: Any, port: int, log_starts: dict[str, int]) -> None:
        self._nni = nni_experiment
        self.log_starts = log_starts  # bytes that earlier runs have left in each log file
        config = nni_experiment.config
        self.id: str = nni_experiment.id
        self.directory = Path(config.experiment_working_directory) / self.id
        self.url = f"http://127.0.0.1:{port}"
        self.has_hosts = bool(machine.of(config))
        self._max_trials: int | None = config.max_trial_number
        self.max_seconds = seconds(config.max_experiment_duration)

    @property
    def max_trials(self) -> int | None:
        """How many trials are wanted; the user may change it in the web page."""
        stored = store.read_config(self.directory)
        return stored.get("maxTrialNumber") if stored else self._max_trials

    def proposed(self) -> int | None:
        """How many trials the tuner has proposed so far, those that still wait included; None without an answer."""
        profile = self._ask("experiment")
        return None if profile is None else int(profile["nextSequenceId"])

    def status(self) -> str:
        """NNI's status, SILENT where the manager lives but does not answer, DEAD where it has ended."""
        answer = self._ask("check-status")
        if answer is None:
            return "SILENT" if self._nni._proc.poll() is None else "DEAD"
        return str(answer["status"])

    def errors(self) -> list[str]:
        """What the manager itself says went wrong."""
        answer = self._ask("check-status") or {}
        return [str(error) for error in answer.get("errors", [])]

    def stop(self) -> None:
        """Stop tuner, trials and manager: asked first, so that trials note where they stand, then ended."""
        with contextlib.suppress(requests.RequestException, subprocess.TimeoutExpired):
            requests.delete(f"{self.url}/api/v1/nni/experiment", timeout=10)
            self._nni._proc.wait(_STOP_SECONDS)
        processes.end(self.directory)
        self._nni._stop_logging()

    def _ask(self, path: str) -> Any:
        try:
            return requests.get(f"{self.url}/api/v1/nni/{path}", timeout=10).json()
        except (requests.RequestException, ValueError):
            return None


@contextlib.contextmanager
def running(
    config: Any, action: Action, experiment_id: str, environment: dict[str, str], port: int, host: str
) -> Iterator[Experiment]:
    """Run an experiment, its web page on this machine alone unless `host` says otherwise, while the block lasts.

    The trials inherit `environment`, and this Python through PATH. When the block ends all that was started is stopped,
    and at once where the user insists by a KeyboardInterrupt.
    """
    directory = Path(config.experiment_working_directory) / experiment_id
    try:
        experiment = _start(config, action, experiment_id, environment, port, host)
        yield experiment
        experiment.stop()
        hosts.end(machine.of(config), experiment_id)
        top_models.drop_others(directory)
    except BaseException as error:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # this takes no second more, and nothing may interrupt it
        processes.end(directory, at_once=isinstance(error, KeyboardInterrupt))
        hosts.end(machine.of(config), experiment_id)
        raise


def _start(
    config: Any, action: Action, experiment_id: str, environment: dict[str, str], port: int, host: str
) -> Experiment:
    import nni.experiment
    from nni.experiment import launcher

    _set_environment(environment, host)
    directory = Path(config.experiment_working_directory) / experiment_id
    launcher._check_rest_server = partial(_wait_for_server, directory)
    log_starts = {path.name: path.stat().st_size for path in layout.logs(directory).glob("*.log")}
    experiment = nni.experiment.Experiment(config, experiment_id)
    experiment._action = action
    try:
        experiment.start(port, run_mode=nni.experiment.RunMode.Detach)
    except Exception as error:  # NNI's launcher raises nearly anything
        log = layout.manager_errors(directory)
        said = [line for line in log.read_text().splitlines() if "Error" in line] if log.exists() else []
        processes.end(directory, at_once=True)
        if action == "create":
            shutil.rmtree(directory, ignore_errors=True)  # it holds nothing but this failure
        raise RequestError(f"NNI could not start the experiment: {' '.join([*said[-1:], str(error)])}") from None
    return Experiment(experiment, port, log_starts)


def _wait_for_server(experiment: Path, port: int, url_prefix: str | None = None) -> None:
    """Until the manager's server answers, or the manager has ended: NNI itself gives it three seconds."""
    from nni.experiment import rest

    deadline = time.monotonic() + _SERVER_SECONDS
    while time.monotonic() < deadline and processes.find(experiment, "manager"):
        with contextlib.suppress(Exception):  # NNI's client raises nearly anything
            rest.get(port, "/check-status", url_prefix)
            return
        time.sleep(0.5)
    rest.get(port, "/check-status", url_prefix)


def _set_environment(environment: dict[str, str], host: str) -> None:
    bypass_proxies()
    os.environ.update(environment)
    os.environ[names.HOST] = host
    os.environ["PATH"] = trial_path()
    patches = [f'--require "{path}"' for path in sorted(_PATCHES.glob("*.js"))]
    os.environ["NODE_OPTIONS"] = " ".join([os.environ.get("NODE_OPTIONS", ""), *patches]).strip()


def new_id() -> str:
    """An id for an experiment that begins."""
    from nni.experiment import management

    return str(management.generate_experiment_id())
