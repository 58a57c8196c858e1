"""Start, watch and stop an NNI experiment. NNI itself stays unmodified."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests
from filelock import BaseFileLock

from cifar import claims
from cifar.errors import RequestError
from cifar.nni_trial import bypass_proxies
from cifar.preflight import problems
from cifar.sources import absolute
from cifar.store import Trial, read_trials

_POLL_SECONDS = 1.0
_FIRST_PORT = 8080  # nnictl's own default


class Experiment:
    """A running experiment: its id, its directory and the address of its web page."""

    def __init__(self, nni_experiment: Any, port: int) -> None:
        self._nni = nni_experiment
        self.id: str = nni_experiment.id
        self.directory = Path(nni_experiment.config.experiment_working_directory) / self.id
        self.url = f"http://127.0.0.1:{port}"
        self.max_trials: int | None = nni_experiment.config.max_trial_number

    def status(self) -> str:
        """NNI's status, SILENT where the manager lives but does not answer, DEAD where it has ended."""
        try:
            answer = requests.get(f"{self.url}/api/v1/nni/check-status", timeout=10).json()
        except (requests.RequestException, ValueError):
            return "SILENT" if self._nni._proc.poll() is None else "DEAD"
        return str(answer["status"])

    def watch(self, interrupted: Callable[[], bool]) -> Iterator[Trial]:
        """Each trial as it ends, until the experiment has or the user wants no more."""
        seen: set[str] = set()
        over = False
        while not over:
            over = interrupted() or self._is_over()  # asked before the trials are read, so that none is missed
            for trial in read_trials(self.directory):
                if trial.ended and trial.id not in seen:
                    seen.add(trial.id)
                    yield trial
            if not over:
                time.sleep(_POLL_SECONDS)

    def _is_over(self) -> bool:
        status = self.status()
        if status == "TUNER_NO_MORE_TRIAL":  # a finite space ran out: NNI would stay here for ever
            return all(trial.ended for trial in read_trials(self.directory))
        return status in ("DONE", "ERROR", "STOPPED", "DEAD")

    def stop(self) -> None:
        """Stop running trials and the manager."""
        self._nni.stop()


@contextlib.contextmanager
def noting_interrupt() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed; pressed again, it interrupts at once.

    KeyboardInterrupt is lost where it strikes inside a destructor or a callback, so the first one is only noted.
    """
    noted = False

    def note(*_: object) -> None:
        nonlocal noted
        noted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    previous = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: noted
    finally:
        signal.signal(signal.SIGINT, previous)


def load_config(path: Path, max_trials: int | None) -> Any:
    """The experiment that `path` describes, as NNI's ExperimentConfig; RequestError where it describes none."""
    if max_trials is not None and max_trials < 1:
        raise RequestError(f"--max-trials must be at least 1, got {max_trials}")
    import nni.experiment  # takes a second, so not before it is needed

    nni.silence_stdout()
    logging.getLogger("nni").propagate = False  # the experiment's own log file keeps all of it
    try:
        config = nni.experiment.ExperimentConfig.load(path)
        if max_trials is not None:
            config.max_trial_number = max_trials
        config = config.canonical_copy()
    except Exception as error:  # NNI's readers raise nearly anything on a wrong config
        raise RequestError(f"{path} is no NNI experiment: {error}") from None
    if found := problems(config.json()):
        raise RequestError("\n".join(found))
    return config


def claim_port(asked: int | None) -> tuple[int, BaseFileLock]:
    """The port asked for, else the first free one from nnictl's default up, and a lock to hold while it is used.

    Without the lock, two searches that start at once would both find the port free, and NNI would then send both
    experiments to the manager that got it. Raises RequestError where the port is taken.
    """
    if asked is not None and not 1 <= asked <= 65535:
        raise RequestError(f"--port must be from 1 to 65535, got {asked}")
    candidates = range(_FIRST_PORT, _FIRST_PORT + 100) if asked is None else [asked]
    for port in candidates:
        lock = claims.try_claim(claims.directory() / f"port-{port}.lock")
        if lock is None:
            continue
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port, lock
        lock.release()
    raise RequestError(f"port {asked or f'{_FIRST_PORT} and the 99 after it'} is in use; choose another with --port")


def start(config: Any, data: str, port: int) -> Experiment:
    """Start an experiment, its web page reachable from this machine only.

    The trials inherit `data` through CIFAR_DATA, and this Python through PATH.
    """
    import nni.experiment

    bypass_proxies()
    os.environ["CIFAR_DATA"] = absolute(data)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    preload = f'--require "{Path(__file__).with_name("loopback.js")}"'
    os.environ["NODE_OPTIONS"] = f"{os.environ.get('NODE_OPTIONS', '')} {preload}".strip()
    experiment = nni.experiment.Experiment(config)
    try:
        experiment.start(port, run_mode=nni.experiment.RunMode.Detach)
    except Exception as error:  # NNI's launcher raises nearly anything, and has ended what it started
        raise RequestError(f"NNI could not start the experiment: {error}") from None
    return Experiment(experiment, port)
