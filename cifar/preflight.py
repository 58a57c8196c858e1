"""What is wrong with an experiment before it starts: every problem at once, each in one sentence."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import yaml

from cifar import hosts
from cifar.algorithms import assessor_problems, tuner_problems
from cifar.errors import Problems, RequestError
from cifar.hparams import Hparams, command_hparams

DURATION_RULE = "must be a number above 0 with a unit, as 90s, 30m, 2h or 1d"
_LOG_LEVELS = ("fatal", "error", "warning", "info", "debug", "trace")  # NNI's
_LARGEST = 1e12  # no hyperparameter needs more, and arithmetic on more overflows
_SAMPLERS = {  # number of values that each takes; None is any number
    "choice": None,
    "randint": 2,
    "uniform": 2,
    "loguniform": 2,
    "quniform": 3,
    "qloguniform": 3,
}


def problems(config: Any) -> list[str]:
    """Sentences about an NNI ExperimentConfig, as it was read or as NNI completed it; none where all is well."""
    max_trials = config.max_trial_number if _is_count(config.max_trial_number) else None
    command = config.trial_command
    return [
        *_value_problems(config),
        *_space_problems(config, max_trials),
        *tuner_problems(_mapping(config.tuner), max_trials),
        *assessor_problems(_mapping(config.assessor)),
        *_command_problems(command if isinstance(command, str) else "", _code_directory(config)),
        *_service_problems(config),
    ]


def _space(config: Any) -> Any:
    """The search space, wherever it is written. RequestError where its file cannot be read."""
    if config.search_space_file is None or config.search_space is not None:
        return config.search_space
    path = _resolved(config, config.search_space_file)
    try:
        return yaml.safe_load(path.read_bytes())  # as NNI reads it: JSON, or its superset YAML
    except OSError as error:
        raise RequestError(f"searchSpaceFile {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise RequestError(f"searchSpaceFile {path} is no JSON: {' '.join(str(error).split())}") from None


def _mapping(algorithm: Any) -> dict[str, Any]:
    """A tuner or an assessor with the names of config.yml."""
    return {"name": getattr(algorithm, "name", None), "classArgs": getattr(algorithm, "class_args", None)}


def _code_directory(config: Any) -> Path:
    return _resolved(config, config.trial_code_directory)


def _resolved(config: Any, path: Any) -> Path:
    return Path(config._base_path, Path(str(path)).expanduser())


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _value_problems(config: Any) -> Iterator[str]:
    """At these values NNI itself only stumbles."""
    for name, value in (("trialConcurrency", config.trial_concurrency), ("maxTrialNumber", config.max_trial_number)):
        if value is not None and not _is_count(value):
            yield f"{name} must be an integer of at least 1, got {value!r}"
    durations = {"maxExperimentDuration": config.max_experiment_duration, "maxTrialDuration": config.max_trial_duration}
    for name, value in durations.items():
        if value is not None and not is_duration(value):
            yield f"{name} {DURATION_RULE}, got {value!r}"
    if config.log_level is not None and config.log_level not in _LOG_LEVELS:
        yield f"logLevel must be one of {', '.join(_LOG_LEVELS)}, got {config.log_level!r}"
    if not _code_directory(config).is_dir():
        yield f"trialCodeDirectory must be a directory, got {config.trial_code_directory!r}"


def is_duration(value: object) -> bool:
    """Whether it is what DURATION_RULE asks for."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)[smhd]", value) if isinstance(value, str) else None
    return float(match[1]) > 0 if match else isinstance(value, int) and value > 0


def _space_problems(config: Any, max_trials: int | None) -> Iterator[str]:
    try:
        space = _space(config)
    except RequestError as error:
        yield str(error)
    else:
        yield from _name_problems(space)
        yield from _size_problems(space, max_trials)


def _name_problems(space: Any) -> Iterator[str]:
    if not isinstance(space, Mapping) or not space:
        yield "the search space must be an object that names at least one hyperparameter"
        return
    known = [spec.name for spec in fields(Hparams)]
    for name, sampler in space.items():
        if name not in known:
            yield f"search space: unknown hyperparameter {name!r}; known are {', '.join(known)}"
        elif problem := _sampler_problem(sampler):
            yield f"search space: {name} {problem}"
        else:
            yield from _sample_problems(name, sampler)


def _sampler_problem(sampler: Any) -> str | None:
    kind, values = (sampler.get("_type"), sampler.get("_value")) if isinstance(sampler, Mapping) else (None, None)
    if not isinstance(kind, str) or kind not in _SAMPLERS:
        return f"must have one of the types {', '.join(_SAMPLERS)}, got {kind!r}"
    count = _SAMPLERS[kind]
    if not isinstance(values, list) or not values or count not in (None, len(values)):
        return f"must have a list of {count or 'at least 1'} values for {kind}, got {values!r}"
    if kind != "choice":
        return _range_problem(kind, values)
    return None


def _range_problem(kind: str, values: list[Any]) -> str | None:
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) <= _LARGEST for v in values):
        return f"must have numbers up to {_LARGEST:g} as values for {kind}, got {values!r}"
    low, high = values[:2]
    if not low < high:
        return f"must have its low end below its high end, got {values!r}"
    if "log" in kind and low <= 0:
        return f"must lie above 0 for {kind}, got {values!r}"
    if len(values) == 3 and not 1 / _LARGEST <= values[2] <= high - low:
        return f"must have a step above 0 and at most as wide as the range, got {values!r}"
    return None


def _sample_problems(name: str, sampler: Mapping[str, Any]) -> Iterator[str]:
    """Rules of the hyperparameter that samples of its range, or its choices, break."""
    for value in sampled_values(sampler):
        try:
            Hparams.from_params({name: value} if name != "accumulate" else {name: value, "batch_size": 2**20})
        except RequestError as error:
            yield f"search space: {error}"


def sampled_values(sampler: Mapping[str, Any]) -> list[Any]:
    """All choices; of a range both ends and, since whole ends may hide that it is continuous, a value between."""
    kind, values = sampler["_type"], sampler["_value"]
    if kind == "choice":
        return list(values)
    if kind == "randint":
        return [values[0], values[1] - 1]  # the upper end is excluded
    if kind in ("quniform", "qloguniform"):
        low, high, step = values
        multiple = math.ceil(low / step) * step  # samples are multiples of the step, cut to the range
        return list(dict.fromkeys([low, min(multiple, high), min(multiple + step, high), high]))
    low, high = (float(value) for value in values)
    return [low, low + (high - low) / math.pi, high]


def _size_problems(space: Any, max_trials: int | None) -> Iterator[str]:
    if not isinstance(space, Mapping) or max_trials is None:
        return
    if not space or any(_sampler_problem(sampler) for sampler in space.values()):
        return
    points = math.prod(_points(sampler) for sampler in space.values())
    if points < max_trials:
        yield f"the search space has only {points:.0f} points, fewer than the {max_trials} trials; NNI would never end"


def _points(sampler: Mapping[str, Any]) -> float:
    """How many values a sampler can give."""
    kind, values = sampler["_type"], sampler["_value"]
    if kind == "choice":
        return float(len({json.dumps(value) for value in values}))
    if kind == "randint":
        return float(values[1]) - float(values[0])
    if kind in ("quniform", "qloguniform"):
        low, high, step = (float(value) for value in values)
        return math.floor((high - low) / step) + 1.0
    return math.inf


def _command_problems(command: str, directory: Path) -> Iterator[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        yield f"trialCommand cannot be read: {error}, got {command!r}"
        return
    if not words or set(command) & set(";&|<>`\n"):
        yield f"trialCommand must be one simple command, so that NNI's stop signal reaches the trial, got {command!r}"
    script = next((word for word in words if word.endswith(".py")), None)
    if script and directory.is_dir() and not Path(directory, script).is_file():
        yield f"trialCommand: there is no file {script} in {directory}"
    own = words[words.index(script) :] if script else words  # before it stand those of the launcher
    names = [word.split("=")[0] for word in own if word.startswith("--")]
    if "--data" in names:
        yield "trialCommand must not name --data: what is checked and measured would be other data; give it to cifar"
    try:
        hparams, others = command_hparams(command)
        Hparams.from_params(hparams)
    except RequestError as error:
        yield f"trialCommand: {error}"
    else:
        unknown = [name for name in names if name in others and name != "--data"]
        if unknown and script and Path(script).name == "trial.py":
            yield f"trialCommand: trial.py has no option {', '.join(unknown)}"


def _service_problems(config: Any) -> Iterator[str]:
    service = config.training_service
    platform = getattr(service, "platform", None)
    if platform not in ("local", "remote"):
        yield f"trainingService must have the platform local or remote, got {platform!r}"
    yield from _machine_problems(getattr(service, "machine_list", None) or [])
    if config.trial_gpu_number is not None or getattr(service, "trial_gpu_number", None) not in (None, MISSING):
        yield "trialGpuNumber must not be set: NNI 3.0's GPU scheduler starves or floods the machine; trials choose"


def _machine_problems(machines: list[Any]) -> Iterator[str]:
    for machine in machines:
        if machine.password is not None or getattr(machine, "ssh_passphrase", None) is not None:
            yield f"machineList: {machine.host} must have an sshKeyFile without a passphrase: NNI's page would show it"
        if not machine.python_path:
            yield f"machineList: {machine.host} must have a pythonPath, the directory of the Python for its trials"
    problems = Problems()
    entries = [hosts.entry(machine) for machine in machines if machine.python_path]
    problems.of(lambda: hosts.checked(entries))
    yield from problems.found
