"""What a search will do, checked before anything is written or started: every problem at once."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import BaseFileLock

from cifar.data import datasets
from cifar.data.sizes import SIZE
from cifar.data.sources import absolute
from cifar.errors import Problems, RequestError
from cifar.search import config, forecast, start
from cifar.search.algorithms import resume_problem
from cifar.search.config import Overrides
from cifar.search.facts import same_data
from cifar.search.remote import host, hosts
from cifar.search.remote.hosts import HostInfo
from cifar.search.remote.install import install
from cifar.search.start import Params
from cifar.system import durations
from cifar.system.durations import duration_text
from cifar.system.files import existing
from cifar.system.gpus import list_gpus
from cifar.system.ports import LOOPBACK, claim_port
from cifar.training.hparams import command_size
from cifar.trials import store
from cifar.trials.store import Trial

_RESERVE_BYTES = 64 * 2**20  # of disk, which others may take meanwhile
_UNBOUNDED_TRIALS = 1000  # assumed for the disk where time alone bounds a search


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    config_path: Path
    overrides: Overrides
    data: str | None = None
    auto_concurrency: bool = False
    port: int | None = None
    host: str = LOOPBACK
    install: bool = False
    start_from: tuple[str, ...] = ()  # points of the search space, or experiments
    time_limit: float | None = None  # seconds of a fit, of which the search has a part


@dataclass(frozen=True)
class Plan:
    """A search that can begin, or go on where it stopped: its config, its data, its machines, and a port for it."""

    config: Any  # NNI's ExperimentConfig, with all defaults filled in
    data: str
    hosts: list[HostInfo]
    port: int
    port_claim: BaseFileLock
    start_from: list[Params]

    @property
    def size(self) -> int:
        """Pixels a side of the images."""
        return command_size(self.config.trial_command)


def plan(request: Request, experiment: Path | None = None) -> Plan:
    """The plan of a new search, or of one more run of the experiment in this directory.

    RequestError with every problem at once.
    """
    problems = Problems()
    if experiment is None:
        has_limits = request.time_limit is None
        loaded = problems.collect(lambda: config.load(request.config_path, request.overrides, has_limits))
        data = problems.collect(lambda: datasets.default_data(request.data))
    else:
        loaded = problems.collect(lambda: config.load_stored(experiment, request.overrides))
        data = problems.collect(lambda: same_data(experiment, request.data))
    if data is not None:
        size = problems.collect(lambda: command_size(loaded.trial_command)) if loaded else None
        problems.collect(lambda: datasets.check(data, size or SIZE))
    runs_elsewhere = bool(loaded and host.of(loaded))
    claimed = problems.collect(lambda: claim_port(request.port, request.host, with_next=runs_elsewhere))
    infos: list[HostInfo] | None = []
    start_from: list[Params] | None = []
    if loaded:
        problems.collect(lambda: _refuse_full_disk(loaded))
        problems.collect(lambda: _refuse_auto_elsewhere(request, runs_elsewhere))
        if experiment is not None:
            problems.collect(lambda: _refuse_to_repeat(experiment, loaded))
        start_from = problems.collect(lambda: _start(request, loaded, experiment))
        infos = problems.collect(lambda: _describe_hosts(request, loaded, problems))
    problems.raise_if_any()
    assert loaded and data is not None and infos is not None and claimed and start_from is not None
    return Plan(loaded, absolute(data), infos, *claimed, start_from)


def _start(request: Request, loaded: Any, experiment: Path | None) -> list[Params]:
    if request.start_from and experiment is not None:
        raise RequestError("--start-from is for a new search; NNI's page can add a trial to this one")
    if request.start_from and not config.begins_with_defaults(loaded):
        raise RequestError(
            "--start-from needs the tuner of the shipped config.yml, which begins with points it is given"
        )
    experiments = Path(loaded.experiment_working_directory)
    return start.points(request.start_from, loaded.search_space, loaded.trial_command, experiments)


def _describe_hosts(request: Request, loaded: Any, problems: Problems) -> list[HostInfo]:
    """What the hosts are like, after this project is installed there where that is asked for."""
    if request.install:
        problems.raise_if_any()  # it takes minutes, and changes them
        install(host.of(loaded))
    infos = hosts.describe(host.of(loaded))
    _refuse_few_gpus(loaded, infos)
    return infos


def _refuse_auto_elsewhere(request: Request, runs_elsewhere: bool) -> None:
    if request.auto_concurrency and runs_elsewhere:
        raise RequestError("--concurrency auto measures this machine alone; on hosts, say how many trials run in all")


def _refuse_few_gpus(loaded: Any, infos: list[HostInfo]) -> None:
    machines = {info.host.name: len(info.facts["gpus"]) for info in infos} or {"this machine": len(list_gpus())}
    wanted = forecast.processes_per_trial(loaded.trial_command)
    if few := [f"{name} shows {gpus}" for name, gpus in machines.items() if 0 < gpus < wanted]:
        raise RequestError(f"a trial of {wanted} processes needs a GPU for each, and {', '.join(few)}")


def _refuse_to_repeat(experiment: Path, loaded: Any) -> None:
    if problem := resume_problem(loaded.tuner.name):
        raise RequestError(problem)
    trials = store.read_trials(experiment)
    if trials and count_remaining(loaded, trials) == 0:
        more = f"--max-trials {2 * len(trials)} would add as many"
        raise RequestError(f"experiment {experiment.name} has finished its {len(trials)} trials; {more}")
    most, used = durations.seconds(loaded.max_experiment_duration), store.read_seconds(experiment)
    if most is not None and used >= most:
        ran = f"it has run for {duration_text(used)} of {duration_text(most)}"
        raise RequestError(f"experiment {experiment.name} has used its time: {ran}; --duration gives it more")


def count_remaining(loaded: Any, trials: list[Trial]) -> int | None:
    """Trials that are still to end, None where time alone bounds them."""
    wanted = loaded.max_trial_number
    return None if wanted is None else max(0, wanted - sum(trial.ended for trial in trials))


def _refuse_full_disk(loaded: Any) -> None:
    """RequestError where the experiment's files do not fit, or may not be written."""
    place = existing(Path(loaded.experiment_working_directory))
    needed, free = disk_bytes(loaded) + _RESERVE_BYTES, shutil.disk_usage(place).free
    if free < needed:
        have = f"{free / 2**20:.0f} are free in {place}"
        raise RequestError(f"no disk space: the search needs {needed / 2**20:.0f} MB, {have}")
    if not os.access(place, os.W_OK):
        raise RequestError(f"the experiment's files cannot be written: no permission in {place}")


def disk_bytes(loaded: Any) -> int:
    """What the experiment will write, about."""
    biggest = forecast.largest(loaded.search_space, loaded.trial_command)
    return forecast.disk_bytes(biggest, loaded.max_trial_number or _UNBOUNDED_TRIALS, loaded.trial_concurrency)
