"""What is wrong with an experiment before it starts: every problem at once, each in one sentence."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from cifar.errors import RequestError
from cifar.hparams import Hparams, command_hparams

WORKING_TUNERS = ("TPE", "Random", "GridSearch", "Evolution")
SEEDED_TUNERS = ("TPE", "Random")  # the others take no seed
# Tried with NNI 3.0 on today's numpy and scipy. A tuner's exception leaves the experiment RUNNING for ever.
_BROKEN_TUNERS = {
    "GP": "it fails with today's scipy once its random phase is over",
    "Metis": "it fails with today's scipy once its random phase is over",
    "Hyperband": "it fails on the first metric",
    "BOHB": "it fails on the first metric",
    "Anneal": "it needs a hyperopt that fails with today's numpy",
    "SMAC": "its package can no longer be built",
    "DNGO": "its package can no longer be built",
    "PPOTuner": "it needs tensorflow",
}
WORKING_ASSESSORS = ("Medianstop", "Curvefitting")
DURATION_RULE = "must be a number above 0 with a unit, as 90s, 30m, 2h or 1d"
_LOG_LEVELS = ("fatal", "error", "warning", "info", "debug", "trace")  # NNI's
_TPE_ARGS = ("constant_liar_type", "n_startup_jobs", "n_ei_candidates", "linear_forgetting", "prior_weight", "gamma")
_TPE_STARTUP_JOBS = 20  # NNI's default
_LARGEST = 1e12  # no hyperparameter needs more, and arithmetic on more overflows
_SAMPLERS = {  # number of values that each takes; None is any number
    "choice": None,
    "randint": 2,
    "uniform": 2,
    "loguniform": 2,
    "quniform": 3,
    "qloguniform": 3,
}


def problems(config: Mapping[str, Any]) -> list[str]:
    """Sentences about an experiment; none where all is well.

    The config has the names of config.yml, the search space under searchSpace, and has passed NNI's own checks.
    """
    space = config.get("searchSpace")
    return [
        *_space_problems(space),
        *_tuner_problems(config.get("tuner") or {}, config.get("maxTrialNumber")),
        *_assessor_problems(config.get("assessor") or {}),
        *_size_problems(space, config.get("maxTrialNumber")),
        *_command_problems(str(config.get("trialCommand", ""))),
        *_service_problems(config),
    ]


def value_problems(config: Any) -> Iterator[str]:
    """Sentences about values in an NNI ExperimentConfig, as it was read, at which NNI itself only stumbles."""
    for name, value in (("trialConcurrency", config.trial_concurrency), ("maxTrialNumber", config.max_trial_number)):
        if value is not None and (not isinstance(value, int) or value < 1):
            yield f"{name} must be an integer of at least 1, got {value!r}"
    durations = {"maxExperimentDuration": config.max_experiment_duration, "maxTrialDuration": config.max_trial_duration}
    for name, value in durations.items():
        if value is not None and not is_duration(value):
            yield f"{name} {DURATION_RULE}, got {value!r}"
    if config.log_level is not None and config.log_level not in _LOG_LEVELS:
        yield f"logLevel must be one of {', '.join(_LOG_LEVELS)}, got {config.log_level!r}"
    if not isinstance(getattr(config.tuner, "name", None), str):
        yield f"tuner must have a name, one of {', '.join(WORKING_TUNERS)}"
    if config.assessor is not None and not isinstance(getattr(config.assessor, "name", None), str):
        yield f"assessor must have a name, one of {', '.join(WORKING_ASSESSORS)}, or be left out"
    if config.search_space_file is not None:
        yield from _space_file_problems(Path(config._base_path, config.search_space_file))
    platform = getattr(config.training_service, "platform", None)
    if platform != "local":
        yield f"trainingService must have the platform local, got {platform!r}"


def _space_file_problems(path: Path) -> Iterator[str]:
    try:
        yaml.safe_load(path.read_bytes())  # as NNI reads it: JSON, or its superset YAML
    except OSError as error:
        yield f"searchSpaceFile {path} cannot be read: {error.strerror}"
    except (yaml.YAMLError, ValueError) as error:
        yield f"searchSpaceFile {path} is no JSON: {' '.join(str(error).split())}"


def is_duration(value: object) -> bool:
    """Whether it is what DURATION_RULE asks for."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)[smhd]", value) if isinstance(value, str) else None
    return float(match[1]) > 0 if match else isinstance(value, int) and value > 0


def _space_problems(space: Any) -> Iterator[str]:
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
            yield from _value_problems(name, sampler)


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


def _value_problems(name: str, sampler: Mapping[str, Any]) -> Iterator[str]:
    """Rules of the hyperparameter that samples of its range, or its choices, break."""
    for value in _samples(sampler):
        try:
            Hparams.from_params({name: value} if name != "accumulate" else {name: value, "batch_size": 2**20})
        except RequestError as error:
            yield f"search space: {error}"


def _samples(sampler: Mapping[str, Any]) -> list[Any]:
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


def tuner_problem(name: object) -> str | None:
    """Why a tuner of this name cannot be used, None where it can."""
    if name in WORKING_TUNERS:
        return None
    reason = f": {_BROKEN_TUNERS[name]}" if name in _BROKEN_TUNERS else ""
    return f"tuner {name!r} does not work here{reason}; choose one of {', '.join(WORKING_TUNERS)}"


def _tuner_problems(tuner: Mapping[str, Any], max_trials: int | None) -> Iterator[str]:
    name, arguments = tuner.get("name"), tuner.get("classArgs") or {}
    if problem := tuner_problem(name):
        yield problem
        return
    if name != "Random" and arguments.get("optimize_mode", "maximize") != "maximize":
        yield f"tuner: optimize_mode must be maximize, as accuracy is reported, got {arguments['optimize_mode']!r}"
    if name == "TPE":
        yield from _tpe_problems(arguments.get("tpe_args") or {}, max_trials)


def _tpe_problems(arguments: Mapping[str, Any], max_trials: int | None) -> Iterator[str]:
    for name in arguments:
        if name not in _TPE_ARGS:
            yield f"tuner: unknown tpe_args name {name!r}; known are {', '.join(_TPE_ARGS)}"
    startup = arguments.get("n_startup_jobs", _TPE_STARTUP_JOBS)
    if not isinstance(startup, int) or startup < 1:
        yield f"tuner: n_startup_jobs must be an integer of at least 1, got {startup!r}"
    elif max_trials is not None and max_trials <= startup:
        yield (
            f"tuner: with {max_trials} trials TPE never leaves its random phase of {startup}; "
            f"run more trials, set tpe_args n_startup_jobs below {max_trials}, or choose the Random tuner"
        )


def _assessor_problems(assessor: Mapping[str, Any]) -> Iterator[str]:
    name = assessor.get("name")
    if name is not None and name not in WORKING_ASSESSORS:
        yield f"assessor must be one of {', '.join(WORKING_ASSESSORS)} or none, got {name!r}"


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


def _command_problems(command: str) -> Iterator[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        yield f"trialCommand cannot be read: {error}, got {command!r}"
        return
    if not words or set(command) & set(";&|<>`\n"):
        yield f"trialCommand must be one simple command, so that NNI's stop signal reaches the trial, got {command!r}"
    try:
        Hparams.from_params(command_hparams(command))
    except RequestError as error:
        yield f"trialCommand: {error}"


def _service_problems(config: Mapping[str, Any]) -> Iterator[str]:
    service = config.get("trainingService") or {}
    if config.get("trialGpuNumber") is not None or service.get("trialGpuNumber") is not None:
        yield "trialGpuNumber must not be set: NNI 3.0's GPU scheduler starves or floods the machine; trials choose"
