"""NNI's tuners and assessors: which work today, and which arguments they take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

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
TPE_STARTUP_JOBS = 20  # NNI's default

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

# With a name or a value outside these, the algorithm fails in its own process, seconds after the start or later.
_ARGUMENTS: dict[str, dict[str, Rule]] = {
    "TPE": {"optimize_mode": _MODE, "seed": _SEED, "tpe_args": _MAPPING},
    "Random": {"optimize_mode": _MODE, "seed": _SEED},
    "GridSearch": {"optimize_mode": _MODE},
    "Evolution": {"optimize_mode": _MODE, "population_size": _COUNT},
    "Medianstop": {"optimize_mode": _MODE, "start_step": _FROM_0},
    "Curvefitting": {"epoch_num": _COUNT, "start_step": _COUNT, "threshold": _ABOVE_0, "gap": _COUNT},
}
_TPE_ARGUMENTS: dict[str, Rule] = {
    "constant_liar_type": _LIAR,
    "n_startup_jobs": _COUNT,
    "n_ei_candidates": _COUNT,
    "linear_forgetting": _COUNT,
    "prior_weight": _ABOVE_0,
    "gamma": _ABOVE_0,
}


def tuner_problem(name: object) -> str | None:
    """Why a tuner of this name cannot be used, None where it can."""
    if name in WORKING_TUNERS:
        return None
    reason = f": {_BROKEN_TUNERS[str(name)]}" if name in _BROKEN_TUNERS else ""
    return f"tuner {name!r} does not work here{reason}; choose one of {', '.join(WORKING_TUNERS)}"


def resume_problem(tuner: str) -> str | None:
    """Why an experiment with this tuner cannot be resumed, None where it can."""
    if tuner == "GridSearch":
        return "a grid search cannot be resumed: NNI would try points a second time, and others never"
    return None


def tuner_problems(tuner: Mapping[str, Any], max_trials: int | None) -> Iterator[str]:
    """Sentences about a config's tuner. `max_trials` None is any number."""
    name, arguments = tuner.get("name"), tuner.get("classArgs") or {}
    if problem := tuner_problem(name):
        yield problem
        return
    found = list(_argument_problems(f"tuner {name}", arguments, _ARGUMENTS[str(name)]))
    if not found and name == "TPE":
        found = list(_tpe_problems(arguments.get("tpe_args", {}), max_trials))
    yield from found


def assessor_problems(assessor: Mapping[str, Any]) -> Iterator[str]:
    """Sentences about a config's assessor; {} is none."""
    name = assessor.get("name")
    if name in WORKING_ASSESSORS:
        yield from _argument_problems(f"assessor {name}", assessor.get("classArgs") or {}, _ARGUMENTS[str(name)])
    elif name is not None:
        yield f"assessor must be one of {', '.join(WORKING_ASSESSORS)} or none, got {name!r}"


def _tpe_problems(arguments: Mapping[str, Any], max_trials: int | None) -> Iterator[str]:
    found = list(_argument_problems("tuner TPE, tpe_args", arguments, _TPE_ARGUMENTS))
    yield from found
    startup = arguments.get("n_startup_jobs", TPE_STARTUP_JOBS)
    if not found and max_trials is not None and max_trials <= startup:
        yield (
            f"tuner: with {max_trials} trials TPE never leaves its random phase of {startup}; "
            f"run more trials, set tpe_args n_startup_jobs below {max_trials}, or choose the Random tuner"
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
