"""From a plan to an experiment that can start: its data decoded, the machine measured, the claims taken."""

from __future__ import annotations

import contextlib
import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import BaseFileLock

from cifar.console import say
from cifar.data import datasets
from cifar.data.datasets import PreparedImages
from cifar.data.inspection import kept_together, mirrored, telling_apart, understood
from cifar.data.leaks import leaks
from cifar.data.sources import folder_of
from cifar.errors import RequestError
from cifar.search import budget, config, search_space, start
from cifar.search.algorithms import beginning_text, described
from cifar.search.concurrency import choose_concurrency, tell
from cifar.search.experiment import Action, new_id
from cifar.search.facts import SearchFacts, read_facts
from cifar.search.plan import Plan, Request, count_remaining, plan
from cifar.search.remote import hosts
from cifar.system import environment, locks, processes
from cifar.system.ports import claim_port
from cifar.training import augmentation
from cifar.training.defaults import for_data
from cifar.training.hparams import Hparams, command_hparams
from cifar.trials import database, store
from cifar.trials.leaderboard import param_text
from cifar.trials.store import Trial


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
    facts: SearchFacts

    def __enter__(self) -> Prepared:
        return self

    def __exit__(self, *_: object) -> None:
        locks.release(self.claims)

    @property
    def directory(self) -> Path:
        return Path(self.config.experiment_working_directory) / self.id


def prepare_new(request: Request, held: ExitStack) -> Prepared:
    """A new experiment; an MPS of its own ends with `held`. RequestError with every problem at once."""
    planned = plan(request)
    images, images_claim = datasets.hold(planned.data, planned.size)
    _tell_of_data(planned)
    command, variables = _equip(planned, images)
    name = config.name_of_search(planned.config, planned.data)
    ready = config.changed(planned.config, trial_command=command, name=name)
    to_train_on = len(datasets.split(datasets.load(planned.data, planned.size)).train)
    space_file = config.space_file(request.config_path)
    if request.time_limit is None:
        space_file = _fit_space(ready, space_file, to_train_on)
        _tell_of_search(ready)
    measured = config.changed(ready)
    measured.search_space = start.fitting_space(ready.search_space, command, to_train_on)
    choice = choose_concurrency(measured, planned.data, planned.hosts, request.auto_concurrency, held)
    ready = config.changed(ready, trial_concurrency=choice.concurrency)
    if request.time_limit is not None:
        ready = budget.fitted(ready, choice, request.time_limit, processes.seconds_here(), to_train_on)
        space_file = _fit_space(ready, space_file, to_train_on)
        _tell_of_search(ready)
    else:
        tell(ready, choice, ready.max_trial_number)
    ready = config.changed(ready, tuner_arguments=_beginning(ready, planned, to_train_on))
    experiment_id = new_id()
    claim = locks.try_claim(f"experiment-{experiment_id}")
    assert claim is not None  # nobody else knows the id
    facts = SearchFacts(planned.data, _relative(space_file, ready))
    claims = (claim, planned.port_claim, images_claim)
    return Prepared(ready, "create", experiment_id, variables | choice.mps, planned.port, request.host, claims, facts)


def _fit_space(ready: Any, space_file: Path | None, images: int) -> Path | None:
    """Give a search of few images the batch sizes that fit; returns the file that its space is from, None if moved."""
    fitting = start.fitting_space(ready.search_space, ready.trial_command, images)
    if fitting == ready.search_space:
        return space_file
    usual, now = (search_space.range_text(space["batch_size"]) for space in (ready.search_space, fitting))
    say(f"trials show few images: they get batch_size {now} instead of {usual}")
    ready.search_space = fitting
    return None


def _beginning(ready: Any, planned: Plan, images: int) -> dict[str, object]:
    """What the tuner is to begin with: the defaults for this budget and these data, then what its user knows."""
    if not config.begins_with_defaults(ready):
        return {}
    defaults = start.defaults_of(ready.search_space, ready.trial_command, images, planned.data)
    asked = [*planned.start_from, *ready.tuner.class_args.get("start_from", [])]
    known = start.within(asked, ready.search_space)
    for point, near in zip(asked, known, strict=True):
        if near != point:
            say(f"to start from: {_point(near)}, the nearest to {_point(point)} that this search has")
    return {"defaults": defaults, "start_from": start.completed(known, defaults)[1:]}


def _point(params: start.Params) -> str:
    return ",".join(f"{name}={param_text(value)}" for name, value in params.items())


def _tell_of_data(planned: Plan) -> None:
    """A search goes on with all of it: it validates on training images, and `cifar best` alone reads test images."""
    train = datasets.load(planned.data, planned.size)
    if folder := folder_of(planned.data):
        say("\n".join([understood(folder), *folder.why_left_out(), telling_apart(train)]))
    given, _ = command_hparams(planned.config.trial_command)
    hints = [kept_together(train), mirrored(train) if Hparams.from_params(given).flip else None]
    for hint in filter(None, hints):
        say(hint)
    with contextlib.suppress(RequestError):  # without test images there can be no leak
        for leak in leaks(train, datasets.load_test(planned.data, planned.size)):
            say(f"warning: {leak}")


def _tell_of_search(ready: Any) -> None:
    """Something to read while the machine is measured."""
    space = ", ".join(f"{name} {search_space.range_text(sampler)}" for name, sampler in ready.search_space.items())
    begins = beginning_text(described(ready.tuner), ready.max_trial_number)
    lines = [f"searching {space}", f"each trial: {ready.trial_command}", begins]
    say("\n".join(filter(None, lines)))


def _relative(path: Path | None, loaded: Any) -> str | None:
    """As seen from where the experiments lie, so that it stays right when all is moved or copied."""
    return None if path is None else os.path.relpath(path, loaded.experiment_working_directory)


def prepare_resumed(request: Request, held: ExitStack, experiment_id: str) -> Prepared:
    """One more run of an experiment that was stopped or cut off. RequestError with every problem at once.

    Ends what a killed manager left: its tuner would drive the new one out, its trials write into the same files.
    """
    directory, claim = claim_stopped(request.config_path, experiment_id)
    planned = plan(request, directory)
    processes.end(directory)
    trials = store.read_trials(directory)
    images, images_claim = datasets.hold(planned.data, planned.size)
    store.refuse_other_data(trials, images.fingerprint)
    _refuse_other_defaults(trials, planned)
    facts = read_facts(directory) or SearchFacts(planned.data)
    _tell_of_changed_space(directory, facts, planned.config)
    hosts.end([info.host for info in planned.hosts], directory.name)
    command, variables = _equip(planned, images)
    variables[environment.UNFIT_TRIALS] = ",".join(_unfit(trials, planned.config))
    ready = config.changed(planned.config, trial_command=command)
    remaining, used = count_remaining(ready, trials), store.read_seconds(directory)
    choice = choose_concurrency(ready, planned.data, planned.hosts, request.auto_concurrency, held)
    tell(ready, choice, remaining, used)
    begun = [trial.params for trial in trials if not trial.ended]
    arguments = {"begun": begun} if config.begins_with_defaults(ready) else {}
    ready = config.changed(
        ready, trial_concurrency=choice.concurrency, seed_moved_by=len(trials), tuner_arguments=arguments
    )
    database.write_config(directory, ready.json())
    claims = (claim, planned.port_claim, images_claim)
    return Prepared(ready, "resume", directory.name, variables | choice.mps, planned.port, request.host, claims, facts)


def prepare_view(request: Request, experiment_id: str) -> Prepared:
    """A stopped experiment, to be shown in NNI's web page."""
    directory, claim = claim_stopped(request.config_path, experiment_id)
    port, port_claim = claim_port(request.port, request.host)
    facts = read_facts(directory) or SearchFacts(datasets.default_data())
    loaded = config.load_shown(directory)
    return Prepared(loaded, "view", directory.name, {}, port, request.host, (claim, port_claim), facts)


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


def _equip(planned: Plan, images: PreparedImages) -> tuple[str, dict[str, str]]:
    """Give the hosts what trials need there; returns the trial command, and the variables of NNI's manager."""
    command, variables = str(planned.config.trial_command), images.environment(planned.data)
    if not planned.hosts:
        return command, variables
    idle = len(planned.hosts) - len(hosts.shares(planned.hosts, planned.config.trial_concurrency))
    if idle:
        print(f"warning: {idle} of the hosts get no trial: --concurrency counts over all of them", file=sys.stderr)
    for info in planned.hosts:
        print(hosts.summary(info), file=sys.stderr)
    there = hosts.send_images(planned.hosts, images)
    command = hosts.with_environment(command, there.environment(planned.data))
    return command, variables | hosts.environment(planned.hosts)


def _unfit(trials: list[Trial], loaded: Any) -> list[str]:
    """Trials whose parameters the search space does not have: a tuner that heard of them again would fail."""
    unfit = [trial for trial in trials if not search_space.fits(trial.params, loaded.search_space)]
    if unfit:
        numbers = ", ".join(str(trial.number) for trial in unfit)
        print(f"the tuner will not hear of trials outside the search space: {numbers}", file=sys.stderr)
    return [trial.id for trial in unfit]


def _refuse_other_defaults(trials: list[Trial], planned: Plan) -> None:
    """RequestError where this version would train a trial otherwise than the version did that ran it."""
    given, _ = command_hparams(planned.config.trial_command)
    for trial in trials:
        known = _whole((trial.result or {}).get("hparams", {}))
        now = _hparams_now({**given, **trial.params}, trial.data.get("train_images"), planned.data)
        for name in known.keys() & now.keys():
            if known[name] != now[name]:
                raise RequestError(
                    f"trial {trial.number} was trained with {name} {known[name]}, this version would train it with "
                    f"{now[name]}: further trials would not compare; begin a new search"
                )


def _whole(known: dict[str, object]) -> dict[str, object]:
    """With the defaults of hyperparameters that an earlier version did not have."""
    return {**vars(Hparams.from_params({"model": known["model"]})), **known} if "model" in known else known


def _hparams_now(params: dict[str, object], images: int | None, data_name: str) -> dict[str, object]:
    """With which a trial of these parameters trains; {} where an earlier version, or another script, does not say."""
    if images is None:
        return {}
    try:
        return vars(augmentation.fitting(for_data(params, images), data_name))
    except RequestError:  # of a trial outside the search space
        return {}


def _tell_of_changed_space(directory: Path, facts: SearchFacts, loaded: Any) -> None:
    """Name a search space file that has been edited: the experiment goes on with the space that it began with."""
    if facts.space_file is None:
        return
    path = Path(os.path.normpath(directory.parent / facts.space_file))
    try:
        same = search_space.read(path) == loaded.search_space
    except RequestError:
        same = not path.exists()  # removed, it misleads nobody
    if not same:
        print(f"{path} differs from the experiment's search space, with which it goes on", file=sys.stderr)
