"""Which configurations may be as good as the best one: chance in seeds and in images, and in being the best of many."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cifar.training.intervals import Interval, dunnett
from cifar.trials import layout
from cifar.trials.predictions import load_predictions
from cifar.trials.seed_noise import SeedNoise, metric_of, seed_noise
from cifar.trials.store import Trial, best_first


def ties(trials: list[Trial], experiment: Path, noise: SeedNoise | None = None) -> set[str]:
    """Trials whose configurations are not shown to be worse than that of the best one, which is among them if any are.

    Each is compared with the best (Hsu's comparison): the truly best one is left out in 5 % of searches at most.
    """
    ranked = best_first(trials)
    if len(ranked) < 2:
        return set()
    rule = _Rule(ranked, experiment, noise or seed_noise(trials, experiment))
    tied = {trial.id for trial in ranked if rule.ties(trial)}
    return tied if len(tied) > 1 else set()


def interval(trial: Trial, noise: SeedNoise) -> Interval | None:
    """Of a trial's configuration: over seeds, whose noise is known from elsewhere, and over images."""
    own = trial.interval
    if own is None:
        return None
    seeds = dunnett(1, noise.freedom) * math.sqrt(noise.variance / len(trial.trainings))
    low, high = math.hypot(own.value - own.low, seeds), math.hypot(own.high - own.value, seeds)
    return Interval(own.value, max(0.0, own.value - low), min(1.0, own.value + high))


@dataclass
class _Rule:
    """How far behind the best one a configuration may be."""

    ranked: list[Trial]
    experiment: Path
    noise: SeedNoise

    def __post_init__(self) -> None:
        self.best = self.ranked[0]
        self.quantile = dunnett(len(self.ranked) - 1, self.noise.freedom, "one")
        self.metric = metric_of(self.best)
        self.scores = self._scores(self.best)

    def ties(self, trial: Trial) -> bool:
        """Of thousands of trials few need a look into their files: chance in images is small, and has a bound."""
        behind = (self.best.accuracy or 0.0) - (trial.accuracy or 0.0)
        if trial is self.best or behind <= self._reach(trial, 0.0):
            return True
        return behind <= self._reach(trial, self._most()) and behind <= self._reach(trial, self._image_variance(trial))

    def _reach(self, trial: Trial, image_variance: float) -> float:
        seeds = 1 / len(self.best.trainings) + 1 / len(trial.trainings)
        return self.quantile * math.sqrt(seeds * self.noise.variance + image_variance)

    def _most(self) -> float:
        """No two networks differ more on images than one that is right half the time, and never where the best is."""
        if self.scores is None:
            return math.inf
        return float((self.scores.std() + self.scores.max() / 2) ** 2 / len(self.scores))

    def _image_variance(self, trial: Trial) -> float:
        """Of the difference on the same images; where predictions are gone, as if on others, which leaves more ties."""
        scores = self._scores(trial)
        if self.scores is not None and scores is not None and len(scores) == len(self.scores):
            return float((self.scores - scores).var() / len(scores))
        intervals = (self.best.interval, trial.interval)
        return sum((one.margin / dunnett(1, math.inf)) ** 2 for one in intervals if one)

    def _scores(self, trial: Trial) -> NDArray[np.float64] | None:
        """The mean over its trainings; None where the predictions of one are gone."""
        directories = [layout.trial_directory(self.experiment, training.id) for training in trial.trainings]
        scores = [found.scores(self.metric) for path in directories if (found := load_predictions(path))]
        whole = len(scores) == len(directories) and len({len(some) for some in scores}) == 1
        mean: NDArray[np.float64] | None = np.mean(scores, axis=0) if whole else None
        return mean
