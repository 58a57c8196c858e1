"""The experiment to run: config.yml, or the config of a stopped experiment, with the command line's overrides."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from cifar.errors import Problems, RequestError
from cifar.search import search_space
from cifar.search.algorithms import SEEDED_TUNERS, described, is_guided, name_of, shortened, tuner_problem
from cifar.search.preflight import problems
from cifar.search.remote.host import Host
from cifar.search.trial_command import expanded, script_of, with_options
from cifar.system import durations, places
from cifar.training.hparams import SAME_FOR_ALL, Hparams, command_model, option, present_name
from cifar.trials import store


@dataclass(frozen=True)
class Overrides:
    """Values of the command line that replace those of config.yml; None replaces nothing."""

    name: str | None = None
    tuner: str | None = None
    max_trials: int | None = None
    duration: str | None = None  # a number and a unit, as 90s, 30m, 2h or 1d
    concurrency: int | None = None
    hparams: Mapping[str, object] = field(default_factory=dict)  # of every trial; the seed is the tuner's too
    no_early_stopping: bool | None = None
    hosts: tuple[Host, ...] | None = None
    gpus_per_trial: int | None = None


_MANY = 2**20
_FIXED_ON_RESUME = ("name", "tuner", "no_early_stopping", "gpus_per_trial")


def load(path: Path, overrides: Overrides, has_limits: bool = True) -> Any:
    """The experiment that `path` describes, as NNI's ExperimentConfig with all defaults filled in.

    Without its limits of trials and time where it is to have others. RequestError, with a line for each problem, where
    it cannot run.
    """

    def read(found: Problems) -> Any:
        loaded = _read(path, found)
        if not has_limits:
            loaded.max_trial_number = loaded.max_experiment_duration = None
        return loaded

    return _checked(read, overrides, list(_problems(overrides)))


def load_stored(experiment: Path, overrides: Overrides) -> Any:
    """The experiment that ran in this directory, for one more run of it. RequestError where it cannot run."""
    fixed = [*(name for name in _FIXED_ON_RESUME if getattr(overrides, name) is not None), *overrides.hparams]
    why = "cannot change in a resumed experiment: its trials would not compare"
    found = [f"--{name.replace('_', '-')} {why}" for name in fixed]
    return _checked(lambda _: _stored(experiment), overrides, [*found, *_problems(overrides)])


def load_shown(experiment: Path) -> Any:
    """The experiment that ran in this directory, to be shown only, for which none of its other files is needed."""
    config = _stored(experiment)
    _set_code_directory(config, experiment)
    return _canonical(config)


@contextlib.contextmanager
def _naming_nnis_errors(what: str) -> Iterator[None]:
    """Around NNI's own readers, which raise nearly anything on a wrong config."""
    try:
        yield
    except Exception as error:
        raise RequestError(f"{what}: {_one_line(error)}") from None


def _read(path: Path, found: Problems) -> Any:
    nni_experiment = _nni_experiment()
    try:
        with _naming_nnis_errors(f"{path} is no NNI experiment"):
            text = path.read_bytes()  # where it cannot be read, the system says it best
            config = nni_experiment.ExperimentConfig.load(path)
    finally:
        nni_experiment.config.utils.unset_base_path()  # NNI leaves it set after an error, and then reads nothing more
    found.collect(lambda: _refuse_misread_numbers(path, text))
    if isinstance(config.trial_command, str):  # a block of YAML ends with a line's end
        config.trial_command = config.trial_command.replace("\\\n", " ").strip()
    for name, attribute in (
        ("experimentWorkingDirectory", "experiment_working_directory"),
        ("trialCodeDirectory", "trial_code_directory"),
    ):
        if (place := getattr(config, attribute)) is not None:
            setattr(config, attribute, found.collect(lambda name=name, place=place: _expanded(name, place)))  # type: ignore[misc]
    found.collect(lambda: _read_space(config))
    return config


def _read_space(config: Any) -> None:
    """Put the search space into the config, so that the same space is checked, runs, and is resumed."""
    if config.search_space_file is None:
        return
    if config.search_space is not None:
        raise RequestError("searchSpace and searchSpaceFile are both there, and NNI takes the file: keep one of them")
    config.search_space = search_space.read(
        Path(config._base_path, _expanded("searchSpaceFile", config.search_space_file))
    )
    config.search_space_file = None


def _expanded(name: str, path: object) -> str:
    text = expanded(str(path))
    if "\0" in text:
        raise RequestError(f"{name} must be a path, got {str(path)!r}")
    if "$" in text:
        raise RequestError(f"{name} names a variable that is not set, got {str(path)!r}")
    return text


def _refuse_misread_numbers(path: Path, text: bytes) -> None:
    """RequestError for what YAML takes for another number than anybody means: 1:30 for 90, and 010 for 8."""
    problems = list[str]()
    for token in yaml.scan(text, yaml.SafeLoader):
        if isinstance(token, yaml.ScalarToken) and token.plain and re.fullmatch(r"[-+]?[\d:]+", token.value):
            read = yaml.safe_load(token.value)
            if isinstance(read, int) and re.search(r":|^[-+]?0\d", token.value):
                where = f"{path}, line {token.start_mark.line + 1}"
                problems.append(
                    f"{where}: YAML reads {token.value} as {read}; write a duration as 90s or 30m, a name in quotes"
                )
    if problems:
        raise RequestError("\n".join(problems))


def _stored(experiment: Path) -> Any:
    """What its manager saved, except where its files lie: they may have been moved, or copied."""
    stored = store.read_config(experiment)
    if not {"trialCodeDirectory", "trialCommand"} <= stored.keys():
        raise RequestError(f"{experiment} cannot go on: NNI has kept no whole config of it")
    if stored.get("searchSpace"):
        stored.pop("searchSpaceFile", None)  # it may have been edited since
    with _naming_nnis_errors(f"{experiment} cannot go on"):
        config = _nni_experiment().ExperimentConfig(**stored)
    config.experiment_working_directory = experiment.parent
    _set_code_directory(config, _code_directory(experiment, stored))
    for algorithm in (config.tuner, config.assessor):
        code = getattr(algorithm, "code_directory", None)
        if code is not None and (beside := moved(experiment, str(code))).is_dir():
            algorithm.code_directory = str(beside)
    return config


def _set_code_directory(config: Any, directory: Path) -> None:
    for place in (config, config.training_service):  # NNI has copied it there
        place.trial_code_directory = str(directory)


def _code_directory(experiment: Path, stored: dict[str, Any]) -> Path:
    """Where the trial's script is now: beside the experiment, else where it was."""
    was = Path(stored["trialCodeDirectory"])
    script = script_of(stored["trialCommand"].split())
    beside = moved(experiment, str(was))
    return beside if beside.is_dir() and (script is None or (beside / script).is_file()) else was


def moved(experiment: Path, path: str) -> Path:
    """Where a path of an experiment's lies now, if it still lies beside it as when the experiment began."""
    began = store.read_config(experiment).get("experimentWorkingDirectory", str(experiment.parent))
    return Path(os.path.normpath(experiment.parent / os.path.relpath(path, began)))


def space_file(path: Path) -> Path | None:
    """The search space file that a config names."""
    content = yaml.safe_load(path.read_bytes())
    name = content.get("searchSpaceFile")
    return None if name is None else path.absolute().parent / expanded(str(name))


def _checked(read: Callable[[Problems], Any], overrides: Overrides, found: list[str]) -> Any:
    """The config that `read` returns, overridden. RequestError with the problems `found` before and all others."""
    own = Problems()
    try:
        config = read(own)
        found = [*found, *own.found]
        if not found:
            _apply(overrides, config)
        found = [*found, *problems(config)]
        config = config if found else _canonical(config)
    except RequestError as error:
        raise RequestError("\n".join([*found, str(error)])) from None
    if found:
        raise RequestError("\n".join(found))
    return config


def experiments_directory(path: Path) -> Path:
    """Where the experiments that `path` describes lie, whatever else may be wrong with it."""
    try:
        content = yaml.safe_load(path.read_bytes())
        place = Path(expanded(content.get("experimentWorkingDirectory", "~/nni-experiments")))
    except (OSError, yaml.YAMLError, AttributeError, TypeError, RuntimeError):  # NNI's own list may know the experiment
        place = Path("nni-experiments")
    return path.parent.joinpath(place).resolve()


def changed(
    config: Any,
    trial_command: str | None = None,
    trial_concurrency: int | None = None,
    name: str | None = None,
    seed_moved_by: int = 0,
    tuner_arguments: Mapping[str, object] = MappingProxyType({}),
) -> Any:
    """A copy of an experiment's config with other values.

    With its own seed a resumed experiment's tuner would propose its first trials once more.
    """
    config = copy.deepcopy(config)
    if trial_command is not None:
        config.trial_command = config.training_service.trial_command = trial_command  # NNI has copied it there
    if trial_concurrency is not None:
        config.trial_concurrency = trial_concurrency
    if name is not None:
        config.experiment_name = name
    arguments = config.tuner.class_args = {**(config.tuner.class_args or {}), **tuner_arguments}
    if seed_moved_by and "seed" in arguments:
        config.tuner.class_args = {**arguments, "seed": arguments["seed"] + seed_moved_by}
    return config


def name_of_search(config: Any, data_name: str) -> str:
    """As its user named it, else after data, network and tuner."""
    model = command_model(config.trial_command)
    return config.experiment_name or f"{Path(data_name).name}, {model}, {_tuner_name(config)}"


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _nni_experiment() -> Any:
    _refuse_useless_home()
    import nni.experiment  # takes a second, so not before it is needed

    nni.silence_stdout()
    logging.getLogger("nni").propagate = False  # the experiment's own log file keeps all of it
    return nni.experiment


def _refuse_useless_home() -> None:
    """NNI keeps its list of experiments there, and says little where it cannot."""
    home = places.home()
    if not os.access(home, os.W_OK | os.X_OK):
        raise RequestError(
            f"NNI keeps a list of experiments in your home directory, and {home} is not writable: set HOME"
        )


def _canonical(config: Any) -> Any:
    # Links resolved: an experiment's processes are recognised by the path of its directory.
    if config.training_service.platform == "remote":
        config.nni_manager_ip = "127.0.0.1"  # NNI asks for one, and nni_patches/tunnel.js needs none
    with _naming_nnis_errors("the experiment's config cannot be completed"):
        config = config.canonical_copy()
    config.experiment_working_directory = str(Path(config.experiment_working_directory).resolve())
    return config


def _problems(overrides: Overrides) -> Iterator[str]:
    for name in ("max_trials", "concurrency", "gpus_per_trial"):
        value = getattr(overrides, name)
        if value is not None and value < 1:
            yield f"--{name.replace('_', '-')} must be at least 1, got {value}"
    for name, value in overrides.hparams.items():
        try:
            Hparams.from_params({"batch_size": _MANY, name: value})  # which the number of micro-batches must not exceed
        except RequestError as error:
            yield f"--{error}"
    if overrides.duration is not None and not durations.is_duration(overrides.duration):
        yield f"--duration {durations.RULE}, got {overrides.duration!r}"
    if overrides.name is not None and not overrides.name.strip():
        yield f"--name must not be empty, got {overrides.name!r}"
    if overrides.tuner is not None and (problem := tuner_problem(overrides.tuner)):
        yield problem


def _apply(overrides: Overrides, config: Any) -> None:
    names = {
        "name": "experiment_name",
        "max_trials": "max_trial_number",
        "duration": "max_experiment_duration",
        "concurrency": "trial_concurrency",
    }
    for name, nni_name in names.items():
        if getattr(overrides, name) is not None:
            setattr(config, nni_name, getattr(overrides, name))
    _apply_tuner(overrides, config)
    if overrides.gpus_per_trial is not None and config.trial_command:
        config.trial_command = _in_processes(config.trial_command, overrides.gpus_per_trial)
    if overrides.no_early_stopping:
        config.assessor = None
    if overrides.hosts is not None:
        services = _nni_experiment().config
        machines = [services.RemoteMachineConfig(**host.machine()) for host in overrides.hosts]
        config.training_service = services.RemoteConfig(machine_list=machines)
    if overrides.hparams and isinstance(config.trial_command, str):
        _apply_hparams(overrides.hparams, config)


def _apply_hparams(hparams: Mapping[str, object], config: Any) -> None:
    """RequestError where the tuner would replace one."""
    space = config.search_space if isinstance(config.search_space, Mapping) else {}
    searched = {present_name(name) for name in space} & hparams.keys() - set(SAME_FOR_ALL)
    if searched:
        name = min(searched)
        given = option(name, hparams[name])
        how = f"begin with it by --start-from {name}={hparams[name]}, or take {name} out of the search space"
        raise RequestError(f"{given}: {name} is searched; {how}")
    config.trial_command = with_options(config.trial_command, hparams)


def _in_processes(command: str, number: int) -> str:
    """A trial command for so many processes, which train one network; each takes a GPU where there are any."""
    begins = re.match(r"(\S*/)?python[\d.]*\s+(?=[^-\s])", command)
    if not begins:
        raise RequestError(f"--gpus-per-trial needs a trialCommand that begins with python SCRIPT, got {command!r}")
    return f"torchrun --standalone --nproc-per-node {number} {command[begins.end() :]}"


def _apply_tuner(overrides: Overrides, config: Any) -> None:
    if overrides.tuner is not None and overrides.tuner != _tuner_name(config):
        algorithm = _nni_experiment().config.AlgorithmConfig
        config.tuner = algorithm(name=overrides.tuner, class_args={"optimize_mode": "maximize"})
    if "seed" in overrides.hparams and _tuner_name(config) in SEEDED_TUNERS:
        config.tuner.class_args = {**(config.tuner.class_args or {}), "seed": overrides.hparams["seed"]}
    if _tuner_name(config) == "TPE" and isinstance(config.max_trial_number, int):
        asked = overrides.max_trials is not None
        config.tuner.class_args = shortened(described(config.tuner), config.max_trial_number, at_any_rate=asked)


def _tuner_name(config: Any) -> Any:
    return name_of(described(config.tuner))


def begins_with_defaults(config: Any) -> bool:
    return is_guided(described(config.tuner))
