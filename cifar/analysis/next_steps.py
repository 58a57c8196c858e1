"""What comes after a search, and after an answer: commands to copy, with about how long each takes."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from statistics import fmean

from cifar.analysis.configurations import MOST_LEADERS
from cifar.search.algorithms import resume_problem
from cifar.system.durations import duration_text
from cifar.system.files import short
from cifar.trials import layout, store
from cifar.trials.store import Trial, best_first
from cifar.trials.ties import ties

Steps = list[tuple[str, str]]

_SEEDS = 3  # of `cifar best`, unless it is told otherwise


def after_search(experiment: Path, trials: list[Trial], config: Path | None) -> Steps:
    """Nothing where no trial has finished."""
    steps = confirm_or_go_on(experiment, trials, config)
    return [*steps[:1], _report(experiment, config), *steps[1:]] if steps else []


def confirm_or_go_on(experiment: Path, trials: list[Trial], config: Path | None = None) -> Steps:
    """What a report of a search leads to."""
    if not best_first(trials):
        return []
    where = _where(config)
    confirm = f"cifar best {experiment.name}{where}", f"which is best, how sure: {_time_of_best(trials, experiment)}"
    if resume_problem(str((store.read_config(experiment).get("tuner") or {}).get("name"))):
        return [confirm]
    more = f"cifar search{where} --resume {experiment.name} --max-trials {2 * len(trials)}"
    return [confirm, (more, f"as many trials again: about {duration_text(store.read_seconds(experiment))}")]


def after_best(experiment: Path, config: Path | None) -> Steps:
    return [_report(experiment, config), *uses_of(layout.best_model(experiment))]


def uses_of(model: Path) -> Steps:
    """What a model is for."""
    path = shlex.quote(short(model))
    return [
        (f"cifar predict {path} PICTURE", "what is in a picture: seconds"),
        (f"cifar export {path} best.onnx", "the model for other programs: seconds"),
    ]


def _report(experiment: Path, config: Path | None) -> tuple[str, str]:
    return f"cifar report {experiment.name}{_where(config)}", "all of it on one web page: seconds"


def _where(config: Path | None) -> str:
    return f" --config {shlex.quote(str(config))}" if config else ""


def _time_of_best(trials: list[Trial], experiment: Path) -> str:
    """The leaders and the defaults train with new seeds, then the winner does."""
    at_once = int(store.read_config(experiment).get("trialConcurrency", 1))
    tied = ties(trials, experiment)
    leaders = [trial for trial in best_first(trials) if trial.id in tied][:MOST_LEADERS] or best_first(trials)[:1]
    each = fmean(float((trial.result or {}).get("seconds", 0.0)) for trial in leaders)
    rounds = math.ceil((len(leaders) + 1) * _SEEDS / at_once) + math.ceil(_SEEDS / at_once)
    return f"about {duration_text(rounds * each)}"
