"""NNI's tuners and assessors: which work today, and which arguments they take."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cifar.system.files import is_directory

WORKING_TUNERS = ("TPE", "Random", "GridSearch", "Evolution")
GUIDED_TPE = "cifar.search.guided_tpe.GuidedTpe"  # of config.yml: a TPE too
REPEATING_TPE = "cifar.search.tuner.RepeatingTpe"  # of experiments of earlier versions
EARLY_DISCARD = "cifar.search.assessor.EarlyDiscard"
_OWN_NAMES = {GUIDED_TPE: "TPE", REPEATING_TPE: "TPE", EARLY_DISCARD: "EarlyDiscard"}
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
TPE_STARTUP_JOBS, TPE_GAMMA, TPE_FORGETTING = 20, 0.25, 25  # NNI's defaults
GUIDED_STARTUP_JOBS = 6  # and this project's
_LEAST_STARTUP_JOBS = 2  # TPE compares better ones with others

_IMPORT_SECONDS = 60.0
# As NNI would, in a process of its own: imports the class, and says in one line why it cannot be used.
_TRY = """
import importlib, inspect, json, sys
kind, directory, class_name, arguments = json.loads(sys.argv[1])
sys.path.append(directory)
module, _, name = class_name.rpartition(".")
try:
    made = getattr(importlib.import_module(module), name)
    from nni.assessor import Assessor
    from nni.tuner import Tuner
    base = {"tuner": Tuner, "assessor": Assessor}[kind]
    if not (isinstance(made, type) and issubclass(made, base)):
        sys.exit(f"it is no {base.__module__}.{base.__name__}")
    inspect.signature(made).bind(**arguments)
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""

Rule = tuple[Callable[[Any], bool], str]


def _is_integer(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


_MODE: Rule = (lambda value: value == "maximize", "must be maximize, as accuracy is reported")
_COUNT: Rule = (lambda value: _is_integer(value, 1), "must be an integer of at least 1")
_FROM_0: Rule = (lambda value: _is_integer(value, 0), "must be an integer of at least 0")
_ABOVE_0: Rule = (
    lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf"),
    "must be a number above 0",
)
_SEED: Rule = (lambda value: value is None or _is_integer(value, 0), _FROM_0[1])
_LIAR: Rule = (lambda value: value in (None, "best", "worst", "mean"), "must be best, worst, mean or null")
_MAPPING: Rule = (lambda value: isinstance(value, Mapping), "must hold names and values")
_MAPPINGS: Rule = (
    lambda value: isinstance(value, list) and all(isinstance(one, Mapping) for one in value),
    "must be a list of names and values",
)
_SHARE: Rule = (
    lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1,
    "must be a number above 0 and at most 1",
)
_NUMBER_FROM_0: Rule = (
    lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf"),
    "must be a number of at least 0",
)

# With a name or a value outside these, the algorithm fails in its own process, seconds after the start or later.
_ARGUMENTS: dict[str, dict[str, Rule]] = {
    "TPE": {"optimize_mode": _MODE, "seed": _SEED, "tpe_args": _MAPPING},
    "Random": {"optimize_mode": _MODE, "seed": _SEED},
    "GridSearch": {"optimize_mode": _MODE},
    "Evolution": {"optimize_mode": _MODE, "population_size": _COUNT},
    "Medianstop": {"optimize_mode": _MODE, "start_step": _FROM_0},
    "EarlyDiscard": {
        "optimize_mode": _MODE,
        "keep": _SHARE,
        "slack": _NUMBER_FROM_0,
        "start_step": _COUNT,
        "warm_up": _COUNT,
    },
    "Curvefitting": {"epoch_num": _COUNT, "start_step": _COUNT, "threshold": _ABOVE_0, "gap": _COUNT},
}
_GUIDED_ARGUMENTS: dict[str, Rule] = {"defaults": _MAPPING, "start_from": _MAPPINGS, "begun": _MAPPINGS}
_TPE_ARGUMENTS: dict[str, Rule] = {
    "constant_liar_type": _LIAR,
    "n_startup_jobs": _COUNT,
    "n_ei_candidates": _COUNT,
    "linear_forgetting": _COUNT,
    "prior_weight": _ABOVE_0,
    "gamma": _ABOVE_0,
}


def described(algorithm: Any) -> dict[str, Any]:
    """A tuner or an assessor of an NNI config, or None, with the names of config.yml."""
    names = {"name": "name", "className": "class_name", "classArgs": "class_args"}
    return {name: getattr(algorithm, nni_name, None) for name, nni_name in names.items()}


def name_of(algorithm: Mapping[str, Any]) -> Any:
    """The name of a config's tuner or assessor; this project's own have one too, with NNI's for what adds to NNI's."""
    return algorithm.get("name") or _OWN_NAMES.get(str(algorithm.get("className")))


def is_own(algorithm: Mapping[str, Any]) -> bool:
    return algorithm.get("name") is None and algorithm.get("className") in _OWN_NAMES


def is_guided(tuner: Mapping[str, Any]) -> bool:
    """Whether it begins with defaults, and near them, instead of at random."""
    return is_own(tuner) and tuner["className"] == GUIDED_TPE


def tuner_problem(name: object) -> str | None:
    """Why a tuner of this name cannot be used, None where it can."""
    if name in WORKING_TUNERS:
        return None
    reason = f": {_BROKEN_TUNERS[str(name)]}" if name in _BROKEN_TUNERS else ""
    return f"tuner {name!r} does not work here{reason}; choose one of {', '.join(WORKING_TUNERS)}"


def custom_problem(kind: str, directory: Path, class_name: str, arguments: Mapping[str, Any]) -> str | None:
    """Why a tuner or an assessor of the user's own cannot be used, None where it can. Its module is imported."""
    if "." not in class_name:
        return f"{kind}: className must be MODULE.CLASS, got {class_name!r}"
    if not is_directory(directory):
        return f"{kind}: codeDirectory must be a directory, got {str(directory)!r}"
    asked = json.dumps([kind, str(directory), class_name, arguments])
    command = [sys.executable, "-c", _TRY, asked]
    try:
        tried = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_IMPORT_SECONDS)
    except subprocess.TimeoutExpired:
        return f"{kind}: {class_name} in {directory} is not imported within {_IMPORT_SECONDS:.0f} seconds"
    if tried.returncode == 0:
        return None
    said = tried.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {tried.returncode}"]
    return f"{kind}: {class_name} in {directory} cannot be used: {said[0]}"


def resume_problem(tuner: str) -> str | None:
    """Why an experiment with this tuner cannot be resumed, None where it can."""
    if tuner == "GridSearch":
        return "a grid search cannot be resumed: NNI would try points a second time, and others never"
    return None


def tuner_problems(tuner: Mapping[str, Any], max_trials: int | None) -> Iterator[str]:
    """Sentences about a config's tuner. `max_trials` None is any number."""
    name, arguments = name_of(tuner), tuner.get("classArgs") or {}
    if name is None and tuner.get("className"):
        return  # custom_problem is asked
    if name is None:
        yield f"tuner must be there; choose one of {', '.join(WORKING_TUNERS)}"
        return
    if problem := tuner_problem(name):
        yield problem
        return
    known = _ARGUMENTS[str(name)] | (_GUIDED_ARGUMENTS if is_guided(tuner) else {})
    found = list(_argument_problems(f"tuner {name}", arguments, known))
    if not found and name == "TPE":
        found = list(_tpe_problems(arguments.get("tpe_args", {}), max_trials, _startup_jobs(tuner)))
    yield from found


def assessor_problems(assessor: Mapping[str, Any]) -> Iterator[str]:
    """Sentences about a config's assessor; {} is none."""
    name = name_of(assessor)
    if name is None and assessor.get("className"):
        return  # custom_problem is asked
    if name in WORKING_ASSESSORS or is_own(assessor):
        yield from _argument_problems(f"assessor {name}", assessor.get("classArgs") or {}, _ARGUMENTS[str(name)])
    elif name is not None:
        yield f"assessor must be one of {', '.join(WORKING_ASSESSORS)} or none, got {name!r}"


def shortened(tuner: Mapping[str, Any], max_trials: int, at_any_rate: bool = True) -> Any:
    """The arguments of a tuner of so few trials: TPE's random phase is a quarter of them at most.

    One that a config states stays as it is, unless it is to be shorter at any rate.
    """
    arguments = tuner.get("classArgs")
    tpe_args = (arguments or {}).get("tpe_args", {}) if isinstance(arguments, Mapping | None) else None
    if name_of(tuner) != "TPE" or not isinstance(tpe_args, Mapping):
        return arguments
    startup = tpe_args.get("n_startup_jobs", _startup_jobs(tuner))
    fewer = max(_LEAST_STARTUP_JOBS, max_trials // 4)
    stays = "n_startup_jobs" in tpe_args and not at_any_rate
    if stays or not _is_integer(startup, 1) or startup <= fewer:
        return arguments
    return {**(arguments or {}), "tpe_args": {**tpe_args, "n_startup_jobs": fewer}}


def beginning_text(tuner: Mapping[str, Any], max_trials: int | None) -> str:
    """What a tuner does before it has learned something, as a sentence; "" where that is all it does."""
    if name_of(tuner) != "TPE":
        return ""
    arguments = (tuner.get("classArgs") or {}).get("tpe_args") or {}
    number = arguments.get("n_startup_jobs", _startup_jobs(tuner))
    named = "the points to start from, " if (tuner.get("classArgs") or {}).get("start_from") else ""
    begins = f"the defaults, {named}points near them and random ones" if is_guided(tuner) else "random points"
    usual = _startup_jobs(tuner)
    fewer = f" instead of {usual}, since there are {max_trials} in all" if max_trials and number < usual else ""
    return f"TPE begins with {begins}, until it knows {number} trials{fewer}"


def _startup_jobs(tuner: Mapping[str, Any]) -> int:
    """How many random proposals a TPE makes that is not told how many."""
    return GUIDED_STARTUP_JOBS if is_guided(tuner) else TPE_STARTUP_JOBS


def _tpe_problems(arguments: Mapping[str, Any], max_trials: int | None, startup_jobs: int) -> Iterator[str]:
    found = list(_argument_problems("tuner TPE, tpe_args", arguments, _TPE_ARGUMENTS))
    yield from found
    startup = arguments.get("n_startup_jobs", startup_jobs) if not found else 0
    if max_trials is not None and max_trials <= startup:
        few = "1 trial is" if max_trials == 1 else f"{max_trials} trials are"
        yield (
            f"tuner: {few} too few for TPE, which learns after {startup}: "
            f"run more, set tpe_args n_startup_jobs below {max_trials}, or choose the Random tuner"
        )


def _argument_problems(owner: str, arguments: Any, rules: Mapping[str, Rule]) -> Iterator[str]:
    if not isinstance(arguments, Mapping):
        yield f"{owner}: its arguments {_MAPPING[1]}, got {arguments!r}"
        return
    for name, value in arguments.items():
        if name not in rules:
            yield f"{owner}: unknown argument {name!r}; known are {', '.join(rules)}"
        elif not rules[name][0](value):
            yield f"{owner}: {name} {rules[name][1]}, got {value!r}"
