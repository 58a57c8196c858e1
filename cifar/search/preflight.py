"""What is wrong with an experiment before it starts: every problem at once, each in one sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from cifar.errors import Problems, RequestError
from cifar.search.algorithms import (
    TPE_FORGETTING,
    TPE_GAMMA,
    TPE_STARTUP_JOBS,
    assessor_problems,
    custom_problem,
    described,
    is_guided,
    is_own,
    name_of,
    tuner_problems,
)
from cifar.search.remote import host
from cifar.search.search_space import end_problem, fits, is_categorical, points, sampled_values, sampler_problem
from cifar.search.trial_command import command_problems, expanded
from cifar.system import durations
from cifar.system.files import is_directory
from cifar.training.hparams import SAME_FOR_ALL, Hparams, present_name

_LOG_LEVELS = ("fatal", "error", "warning", "info", "debug", "trace")  # NNI's


def problems(config: Any) -> list[str]:
    """Sentences about an NNI ExperimentConfig, as it was read or as NNI completed it; none where all is well."""
    max_trials = config.max_trial_number if _is_count(config.max_trial_number) else None
    command, is_local = config.trial_command, getattr(config.training_service, "platform", None) == "local"
    return [
        *_value_problems(config),
        *_space_problems(config, max_trials),
        *tuner_problems(described(config.tuner), max_trials),
        *assessor_problems(described(config.assessor)),
        *_split_problems(config),
        *_start_problems(config),
        *_custom_problems(config),
        *command_problems(command if isinstance(command, str) else "", _code_directory(config), is_local),
        *_service_problems(config),
    ]


def _split_problems(config: Any) -> Iterator[str]:
    """NNI's TPE fails on choices while it takes all trials for good, and has no bad ones to compare them with."""
    tuner, space = described(config.tuner), config.search_space
    arguments = (tuner["classArgs"] or {}).get("tpe_args") or {} if isinstance(tuner["classArgs"], Mapping) else {}
    if (
        name_of(tuner) != "TPE"
        or is_guided(tuner)
        or not isinstance(space, Mapping)
        or not isinstance(arguments, Mapping)
    ):
        return
    jobs, gamma = arguments.get("n_startup_jobs", TPE_STARTUP_JOBS), arguments.get("gamma", TPE_GAMMA)
    choices = [name for name, one in space.items() if is_categorical(one)]
    if choices and _is_count(jobs) and isinstance(gamma, (int, float)) and 0 < gamma < 1e6:
        remembered = arguments.get("linear_forgetting", TPE_FORGETTING)
        good = min(math.ceil(gamma * math.sqrt(jobs)), remembered if _is_count(remembered) else TPE_FORGETTING)
        if good >= jobs:
            yield (
                f"tuner: after {jobs} trials TPE with gamma {gamma:g} calls all of them good, and then fails on "
                f"{choices[0]}, which has choices: raise tpe_args n_startup_jobs"
            )


def _start_problems(config: Any) -> Iterator[str]:
    """Points to begin with that the tuner would leave out, since the search space does not have them."""
    tuner, space = described(config.tuner), config.search_space
    points = (tuner["classArgs"] or {}).get("start_from") if isinstance(tuner["classArgs"], Mapping | None) else None
    if not is_guided(tuner) or not isinstance(points, list) or not _is_sound(space):
        return
    for point in (one for one in points if isinstance(one, Mapping)):
        if unknown := [name for name in point if name not in space]:
            yield f"tuner: start_from has {dict(point)}, and the search space no {unknown[0]}"
        elif not fits(point, {name: space[name] for name in point}):
            yield f"tuner: start_from has {dict(point)}, which lies outside the search space"


def _custom_problems(config: Any) -> Iterator[str]:
    """What is wrong with a tuner or an assessor of the user's own."""
    for kind in ("tuner", "assessor"):
        algorithm = getattr(config, kind)
        if is_own(described(algorithm)):
            continue
        class_name, code = getattr(algorithm, "class_name", None), getattr(algorithm, "code_directory", None)
        arguments = getattr(algorithm, "class_args", None) or {}
        if class_name is None and code is None:
            continue
        if not isinstance(class_name, str) or code is None or not isinstance(arguments, Mapping):
            yield f"{kind}: one of your own needs className, codeDirectory and, if any, classArgs with names and values"
        elif problem := custom_problem(kind, _resolved(config, code), class_name, arguments):
            yield problem


def _code_directory(config: Any) -> Path:
    return _resolved(config, config.trial_code_directory)


def _resolved(config: Any, path: Any) -> Path:
    return Path(config._base_path, expanded(str(path)))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _value_problems(config: Any) -> Iterator[str]:
    """Values that NNI accepts, and stumbles over later."""
    for name, value in (("trialConcurrency", config.trial_concurrency), ("maxTrialNumber", config.max_trial_number)):
        if value is not None and not _is_count(value):
            yield f"{name} must be an integer of at least 1, got {value!r}"
    limits = {"maxExperimentDuration": config.max_experiment_duration, "maxTrialDuration": config.max_trial_duration}
    for name, value in limits.items():
        if value is not None and not durations.is_duration(value):
            yield f"{name} {durations.RULE}, got {value!r}"
    if config.log_level is not None and config.log_level not in _LOG_LEVELS:
        yield f"logLevel must be one of {', '.join(_LOG_LEVELS)}, got {config.log_level!r}"
    if not is_directory(_code_directory(config)):
        yield f"trialCodeDirectory must be a directory, got {config.trial_code_directory!r}"


def _space_problems(config: Any, max_trials: int | None) -> Iterator[str]:
    if config.search_space is None and config.search_space_file is not None:
        return  # it could not be read
    yield from _name_problems(config.search_space)
    yield from _size_problems(config.search_space, max_trials)


def _name_problems(space: Any) -> Iterator[str]:
    if not isinstance(space, Mapping) or not space:
        yield "the search space must be an object that names at least one hyperparameter"
        return
    known = [spec.name for spec in fields(Hparams)]
    for name, sampler in space.items():
        if present_name(name) in SAME_FOR_ALL:
            why = "must be the same for all trials, or they would not compare"
            yield f"search space: {name} {why}: give it as --{name}"
        elif present_name(name) not in known:
            yield f"search space: unknown hyperparameter {name!r}; known are {', '.join(known)}"
        elif problem := sampler_problem(sampler):
            yield f"search space: {name} {problem}"
        else:
            yield from _sample_problems(name, sampler)


def _sample_problems(name: str, sampler: Mapping[str, Any]) -> Iterator[str]:
    """Rules of the hyperparameter that samples of its range, or its choices, break."""
    for value in sampled_values(sampler):
        try:
            Hparams.from_params({"batch_size": 2**20, name: value})  # so many may be split into any number
        except RequestError as error:
            yield f"search space: {error}"


def _size_problems(space: Any, max_trials: int | None) -> Iterator[str]:
    if not _is_sound(space):
        return
    number = math.prod(points(sampler) for sampler in space.values())
    if max_trials is not None and number < max_trials:
        yield f"the search space has only {number:.0f} points, fewer than the {max_trials} trials; NNI would never end"
    if number < math.inf:
        for name, sampler in space.items():
            if problem := end_problem(sampler):
                yield f"search space: {name} {problem}"


def _is_sound(space: Any) -> bool:
    return isinstance(space, Mapping) and bool(space) and not any(map(sampler_problem, space.values()))


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
    entries = [host.entry(machine) for machine in machines if machine.python_path]
    problems.collect(lambda: host.checked(entries))
    yield from problems.found
