"""Before an experiment starts: everything checked, the data decoded, the machine measured, the claims taken."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import BaseFileLock

from cifar.data import datasets
from cifar.data.datasets import Dataset
from cifar.data.sources import absolute
from cifar.errors import Problems, RequestError
from cifar.search import config, forecast, search_space
from cifar.search.algorithms import resume_problem
from cifar.search.config import Overrides
from cifar.search.experiment import Action, Remembered, new_id, remembered
from cifar.search.forecast import Throughput
from cifar.search.progress import duration_text
from cifar.search.remote import hosts
from cifar.search.remote.hosts import HostInfo
from cifar.system import durations, locks, processes
from cifar.system.files import existing
from cifar.system.gpus import list_gpus
from cifar.system.ports import LOOPBACK, claim_port
from cifar.trials import database, store
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


@dataclass(frozen=True)
class Prepared:
    """An experiment that can start, and the claims that keep it so; as a context it gives them back."""

    config: Any
    action: Action
    id: str
    environment: dict[str, str]  # in which trials find their data
    port: int
    host: str
    claims: tuple[BaseFileLock, ...]
    about: Remembered

    def __enter__(self) -> Prepared:
        return self

    def __exit__(self, *_: object) -> None:
        locks.release(self.claims)

    @property
    def directory(self) -> Path:
        return Path(self.config.experiment_working_directory) / self.id


def check_new(request: Request) -> tuple[Any, str, list[HostInfo], tuple[int, BaseFileLock]]:
    """The config, the data's name, the hosts and the claimed port that a new experiment would have.

    Raises RequestError with every problem at once; nothing is written or started.
    """
    problems = Problems()
    loaded = problems.collect(lambda: config.load(request.config_path, request.overrides))
    name = _default_data(request.data)
    problems.collect(lambda: datasets.check(name))
    claimed = problems.collect(lambda: claim_port(request.port, request.host, bool(loaded and hosts.of(loaded))))
    infos: list[HostInfo] | None = []
    if loaded:
        problems.collect(lambda: refuse_full_disk(loaded))
        problems.collect(lambda: _refuse_auto_elsewhere(request, loaded))
        infos = problems.collect(lambda: _describe(request, loaded, problems))
    problems.raise_if_any()
    assert loaded and claimed and infos is not None
    return loaded, absolute(name), infos, claimed


def _describe(request: Request, loaded: Any, problems: Problems) -> list[HostInfo]:
    """What the hosts are like, after this project is installed there where that is asked for."""
    if request.install:
        problems.raise_if_any()  # it takes minutes, and changes them
        hosts.install(hosts.of(loaded))
    infos = hosts.describe(hosts.of(loaded))
    _refuse_few_gpus(loaded, infos)
    return infos


def _refuse_auto_elsewhere(request: Request, loaded: Any) -> None:
    if request.auto_concurrency and hosts.of(loaded):
        raise RequestError("--concurrency auto measures this machine alone; on hosts, say how many trials run in all")


def _refuse_few_gpus(loaded: Any, infos: list[HostInfo]) -> None:
    machines = {one.host.name: len(one.facts["gpus"]) for one in infos} or {"this machine": len(list_gpus())}
    wanted = forecast.processes_per_trial(loaded.trial_command)
    if few := [f"{name} shows {gpus}" for name, gpus in machines.items() if 0 < gpus < wanted]:
        raise RequestError(f"a trial of {wanted} processes needs a GPU for each, and {', '.join(few)}")


def prepare_new(request: Request) -> Prepared:
    """What a new experiment needs. Raises RequestError with every problem at once."""
    loaded, name, infos, (port, port_claim) = check_new(request)
    environment, images = datasets.hold(name)
    environment |= _make_ready(loaded, infos, environment)
    choose_concurrency(loaded, name, infos, request.auto_concurrency, loaded.max_trial_number)
    experiment_id = new_id()
    claim = locks.try_claim(f"experiment-{experiment_id}")
    assert claim is not None  # nobody else knows the id
    held = (claim, port_claim, images)
    about = Remembered(name, _relative(config.space_file(request.config_path), loaded))
    return Prepared(loaded, "create", experiment_id, environment, port, request.host, held, about)


def _relative(path: Path | None, loaded: Any) -> str | None:
    """As seen from where the experiments lie, so that it stays right when all is moved or copied."""
    return None if path is None else os.path.relpath(path, loaded.experiment_working_directory)


def prepare_resumed(request: Request, experiment_id: str) -> Prepared:
    """What an experiment needs that was stopped or cut off. Raises RequestError with every problem at once.

    Ends what a killed manager left: its tuner would drive the new one out, its trials write into the same files.
    """
    directory, claim = claim_stopped(request.config_path, experiment_id)
    problems = Problems()
    loaded = problems.collect(lambda: config.load_stored(directory, request.overrides))
    name = problems.collect(lambda: same_data(directory, request.data))
    if name:
        problems.collect(lambda: datasets.check(name))
    claimed = problems.collect(lambda: claim_port(request.port, request.host, bool(loaded and hosts.of(loaded))))
    infos: list[HostInfo] | None = []
    if loaded:
        problems.collect(lambda: refuse_full_disk(loaded))
        problems.collect(lambda: _refuse_to_repeat(directory, loaded))
        problems.collect(lambda: _refuse_auto_elsewhere(request, loaded))
        infos = problems.collect(lambda: _describe(request, loaded, problems))
    problems.raise_if_any()
    assert loaded and name and claimed and infos is not None
    processes.end(directory)
    trials = store.read_trials(directory)
    environment, images = datasets.hold(name)
    _refuse_changed_data(datasets.load(name), trials)
    environment["CIFAR_UNFIT_TRIALS"] = ",".join(_unfit(trials, loaded))
    about = remembered(directory) or Remembered(name)
    _tell_of_changed_space(directory, about, loaded)
    remaining = _count_remaining(loaded, trials)
    hosts.end([one.host for one in infos], directory.name)
    environment |= _make_ready(loaded, infos, environment)
    choose_concurrency(loaded, name, infos, request.auto_concurrency, remaining, store.read_seconds(directory))
    config.move_seed(loaded, len(trials))
    database.write_config(directory, loaded.json())
    port, port_claim = claimed
    held = (claim, port_claim, images)
    return Prepared(loaded, "resume", directory.name, environment, port, request.host, held, about)


def _unfit(trials: list[Trial], loaded: Any) -> list[str]:
    """Trials whose parameters the search space does not have: a tuner that heard of them again would fail."""
    unfit = [trial for trial in trials if not search_space.fits(trial.params, loaded.search_space)]
    if unfit:
        numbers = ", ".join(str(trial.number) for trial in unfit)
        print(f"the tuner will not hear of trials outside the search space: {numbers}", file=sys.stderr)
    return [trial.id for trial in unfit]


def _tell_of_changed_space(directory: Path, about: Remembered, loaded: Any) -> None:
    """Name a search space file that has been edited: the experiment goes on with the space that it began with."""
    if about.space_file is None:
        return
    path = Path(os.path.normpath(directory.parent / about.space_file))
    try:
        same = search_space.read(path) == loaded.search_space
    except RequestError:
        same = not path.exists()  # removed, it misleads nobody
    if not same:
        print(f"{path} differs from the experiment's search space, with which it goes on", file=sys.stderr)


def prepare_view(request: Request, experiment_id: str) -> Prepared:
    """What it takes to show a stopped experiment in NNI's web page."""
    directory, claim = claim_stopped(request.config_path, experiment_id)
    port, port_claim = claim_port(request.port, request.host)
    loaded = config.load_shown(directory)
    about = remembered(directory) or Remembered(_default_data(None))
    return Prepared(loaded, "view", directory.name, {}, port, request.host, (claim, port_claim), about)


def claim_stopped(config_path: Path, experiment_id: str) -> tuple[Path, BaseFileLock]:
    """The directory of an experiment that does not run, and a lock that keeps other commands from starting it."""
    directory = store.find(experiment_id, config.experiments_directory(config_path))
    if (own := store.read_id(directory)) != directory.name:
        raise RequestError(f"{directory} holds experiment {own}, which NNI knows by that name only: rename it to {own}")
    claim = locks.try_claim(f"experiment-{directory.name}")
    managers = processes.find(directory, "manager")
    if claim is None:
        raise RequestError(f"experiment {directory.name} is still running in another cifar search")
    if managers:
        way = f"its manager is process {managers[0].pid}, which nnictl stop {directory.name} ends"
        raise RequestError(f"experiment {directory.name} is still running; {way}")
    return directory, claim


def _count_remaining(loaded: Any, trials: list[Trial]) -> int | None:
    """Trials that are still to end, None where time alone bounds them."""
    wanted = loaded.max_trial_number
    return None if wanted is None else max(0, wanted - sum(trial.ended for trial in trials))


def _refuse_to_repeat(directory: Path, loaded: Any) -> None:
    if problem := resume_problem(loaded.tuner.name):
        raise RequestError(problem)
    trials = store.read_trials(directory)
    if trials and _count_remaining(loaded, trials) == 0:
        raise RequestError(f"experiment {directory.name} has ended its {len(trials)} trials; more need --max-trials")
    most, used = durations.seconds(loaded.max_experiment_duration), store.read_seconds(directory)
    if most is not None and used >= most:
        ran = f"it has run for {duration_text(used)} of {duration_text(most)}"
        raise RequestError(f"experiment {directory.name} has no time left: {ran}; more needs --duration")


def _make_ready(loaded: Any, infos: list[HostInfo], environment: dict[str, str]) -> dict[str, str]:
    """Give the hosts what trials need there; returns what NNI's manager must know of them."""
    if not infos:
        return {}
    idle = len(infos) - len(hosts.shares(infos, loaded.trial_concurrency))
    if idle:
        print(f"warning: {idle} of the hosts get no trial: --concurrency counts over all of them", file=sys.stderr)
    for one in infos:
        print(hosts.summary(one), file=sys.stderr)
    fingerprint, entry = environment[datasets.PREPARED].split(" ", 1)
    place = hosts.send_data(infos, Path(entry), fingerprint)
    remote = environment | {datasets.PREPARED: f"{fingerprint} {place}"}
    loaded.trial_command = hosts.with_environment(loaded.trial_command, remote)
    loaded.training_service.trial_command = loaded.trial_command  # NNI has copied it there
    return hosts.environment(infos)


def choose_concurrency(
    loaded: Any,
    name: str,
    infos: list[HostInfo],
    auto: bool,
    trials: int | None,
    seconds_used: float = 0.0,
) -> None:
    """Measure how fast trials will be, say how long all will take, and set how many run at once where that is free."""
    space, command = loaded.search_space, loaded.trial_command
    if (number := forecast.processes_per_trial(command)) > 1:
        print(f"trials of {number} processes each are not measured: how long they take will show", file=sys.stderr)
        return
    print(f"measuring how fast {'the hosts are' if infos else 'this machine is'}", file=sys.stderr)
    if infos:
        rate = hosts.measure(infos, space, command, loaded.trial_concurrency)
    elif auto:
        rate = forecast.best(list(forecast.throughputs(space, command, name, forecast.concurrencies())))
        loaded.trial_concurrency = rate.concurrency
    else:
        rate = next(forecast.throughputs(space, command, name, [loaded.trial_concurrency]))
    max_seconds = durations.seconds(loaded.max_experiment_duration)
    left = None if max_seconds is None else max(0.0, max_seconds - seconds_used)
    most = durations.seconds(loaded.max_trial_duration)
    if most is not None and rate.trial_seconds > most:
        needed = duration_text(rate.trial_seconds)
        print(f"maxTrialDuration will end trials early: a mean one needs {needed}", file=sys.stderr)
    print(forecast_line(rate.cut_off(most), trials, left), file=sys.stderr)


def forecast_line(rate: Throughput, trials: int | None, max_seconds: float | None) -> str:
    """About how long a search takes; early stopping saves an unknown part of it."""
    bounds = [] if trials is None else [trials * 3600 / rate.trials_per_hour]
    bounds += [] if max_seconds is None else [max_seconds + rate.trial_seconds]
    total = f"about {duration_text(min(bounds))} if none is stopped early" if bounds else "without an end"
    count = "trials" if trials is None else f"{trials} trials"
    return f"{count}, {rate.concurrency} at once, {duration_text(rate.trial_seconds)} each: {total}"


def refuse_full_disk(loaded: Any) -> None:
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


def _default_data(asked: str | None) -> str:
    return asked or os.environ.get("CIFAR_DATA") or "cifar10"


def same_data(directory: Path, asked: str | None) -> str:
    """What the experiment was about from its start; trials on other data would not compare."""
    used = [trial.data["name"] for trial in store.read_trials(directory) if "name" in trial.data]
    about = remembered(directory)
    known = about.data if about else next(iter(used), None)  # NNI's own command has it not remembered
    if known and Path(known).is_absolute() and (beside := config.moved(directory, known)).is_dir():
        known = str(beside)  # also of a folder that was moved or copied together with the experiment
    if known is not None and asked is not None and absolute(asked) != absolute(known):
        raise RequestError(f"experiment {directory.name} is about --data {known}; on {asked} it would not compare")
    return absolute(known or _default_data(asked))


def _refuse_changed_data(dataset: Dataset, trials: list[Trial]) -> None:
    for trial in trials:
        if trial.data.get("fingerprint", dataset.fingerprint) != dataset.fingerprint:
            raise RequestError(f"data {dataset.name} has changed since trial {trial.number}; they would not compare")
