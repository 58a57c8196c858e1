"""Which trials the validation images cannot tell apart from the best."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np

from cifar.trials import layout
from cifar.trials.intervals import Interval
from cifar.trials.predictions import Predictions, load_predictions
from cifar.trials.store import Trial, best_first

_LEVEL = 0.05  # how often two equally good trials are told apart by chance


def ties(trials: list[Trial], experiment: Path) -> set[str]:
    """Trials that these validation images cannot tell apart from the best one, which is among them if there are any."""
    ranked = best_first(trials)
    if not ranked:
        return set()
    best = ranked[0]
    predictions = load_predictions(layout.trial_directory(experiment, best.id))
    # Of thousands of trials, few need a look into their files.
    near = itertools.takewhile(lambda trial: not predictions or may_tie(predictions, _behind(best, trial)), ranked)
    tied = {trial.id for trial in near if _ties_with(best, predictions, trial, experiment)}
    return tied if len(tied) > 1 else set()


def _behind(best: Trial, other: Trial) -> float:
    return (best.accuracy or 0.0) - (other.accuracy or 0.0)


def _ties_with(best: Trial, best_predictions: Predictions | None, other: Trial, experiment: Path) -> bool:
    """By their predictions; where these are gone, by their intervals, which leaves more ties."""
    predictions = load_predictions(layout.trial_directory(experiment, other.id))
    if best_predictions and predictions and len(best_predictions.labels) == len(predictions.labels):
        return is_tie(best_predictions, predictions)
    return best.interval is None or other.interval is None or _may_be_equal(best.interval, other.interval)


def _may_be_equal(better: Interval, other: Interval) -> bool:
    """Robert G. Newcombe, "Interval estimation for the difference between independent proportions", 1998, method 10."""
    return better.value - other.value <= math.hypot(better.value - better.low, other.high - other.value)


def is_tie(best: Predictions, other: Predictions) -> bool:
    """Whether the other's accuracy lies within what chance does between two equally good trials on the same images.

    Only the images on which one is right and the other wrong say anything (McNemar's test, exact): far fewer than all,
    so that pairs are told apart which each accuracy's own interval would not tell apart.
    """
    only_best = int(np.count_nonzero(best.correct & ~other.correct))
    only_other = int(np.count_nonzero(other.correct & ~best.correct))
    return _chance(only_best, only_other) > _LEVEL


def may_tie(best: Predictions, difference: float) -> bool:
    """Whether a trial whose accuracy is lower by that difference can tie with the best one, whatever it predicts.

    It can do no better than be right wherever the best one is wrong: the more images differ, the less it says.
    """
    only_other = int(np.count_nonzero(~best.correct))
    only_best = only_other + round(difference * len(best.labels))
    return _chance(only_best, only_other) > _LEVEL / 5  # a fifth: the test's steps are not quite even


def _chance(only_best: int, only_other: int) -> float:
    """That two equally good trials differ so much in the images on which only one of them is right: binomial, exact.

    SciPy has it too, but takes longer to import than a table of thousands of trials takes to print.
    """
    differing = only_best + only_other
    ways = term = 1
    for number in range(min(only_best, only_other)):
        term = term * (differing - number) // (number + 1)
        ways += term
    return min(1.0, 2 * ways / (1 << differing))
