"""What comes after a search, and after an answer: commands to copy, with about how long each takes."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from statistics import fmean

from cifar.console import say_next
from cifar.system.durations import duration_text
from cifar.trials import layout, store
from cifar.trials.store import Trial, best_first
from cifar.trials.ties import ties

_SEEDS, _MOST_LEADERS = 3, 5  # of `cifar best`, unless it is told otherwise


def after_search(experiment: Path, config: Path | None) -> None:
    """Nothing where no trial has finished."""
    trials = store.read_trials(experiment)
    if not best_first(trials):
        return
    where = f" --config {shlex.quote(str(config))}" if config else ""
    at_once = int(store.read_config(experiment).get("trialConcurrency", 1))
    best_takes = _time_of_best(trials, experiment, at_once)
    more = f"cifar search{where} --resume {experiment.name} --max-trials {2 * len(trials)}"
    say_next(
        [
            (
                f"cifar best {experiment.name}{where}",
                f"which is best, how sure: {best_takes}",
            ),
            (f"cifar report {experiment.name}{where}", "all of it on one web page: seconds"),
            (more, f"as many trials again: {duration_text(store.read_seconds(experiment))}"),
        ]
    )


def _time_of_best(trials: list[Trial], experiment: Path, at_once: int) -> str:
    """The leaders and the defaults train with new seeds, then the winner does."""
    tied = ties(trials, experiment)
    leaders = [trial for trial in best_first(trials) if trial.id in tied][:_MOST_LEADERS] or best_first(trials)[:1]
    each = fmean(float((trial.result or {}).get("seconds", 0.0)) for trial in leaders)
    rounds = math.ceil((len(leaders) + 1) * _SEEDS / at_once) + math.ceil(_SEEDS / at_once)
    return f"about {duration_text(rounds * each)}"


def after_answer(experiment: Path, config: Path | None) -> None:
    """A report, and what the model is for."""
    where = f" --config {shlex.quote(str(config))}" if config else ""
    model = shlex.quote(str(layout.best_model(experiment)))
    say_next(
        [
            (f"cifar report {experiment.name}{where}", "all of it on one web page: seconds"),
            (f"cifar predict {model} PICTURE", "what is in a picture: seconds"),
            (f"cifar export {model} best.onnx", "the model for other programs: seconds"),
        ]
    )
