"""Means and their intervals: how much of a figure may be chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cifar.trials.intervals import Interval
from cifar.trials.predictions import Predictions

_CHANCE = 0.95  # that an interval covers the true mean
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Mean:
    """A mean over seeds and images, and half the width of the interval that covers the chance in both."""

    value: float
    margin: float

    def __str__(self) -> str:
        return f"{self.value:.1%} ± {self.margin:.1%}"


def mean(values: NDArray[np.float64]) -> Mean:
    """The mean and its 95 % interval of seeds x images: 1 where right and 0 where wrong, or differences of such."""
    from scipy.stats import t

    seeds, images = values.shape
    of_images = values.mean(0).std(ddof=1) / math.sqrt(images)
    of_seeds = values.mean(1).std(ddof=1) / math.sqrt(seeds) if seeds > 1 else 0.0
    error = math.hypot(of_images, of_seeds)
    # Few seeds leave the error itself uncertain (Welch and Satterthwaite); thousands of images do not.
    freedom = (seeds - 1) * (error / of_seeds) ** 4 if of_seeds > 0 else images - 1
    margin = float(t.ppf((1 + _CHANCE) / 2, freedom) * error)
    return Mean(float(values.mean()), min(margin, 1.0))  # two seeds may leave all open


def correct(predictions: Sequence[Predictions]) -> NDArray[np.float64]:
    """Seeds x images, 1 where right."""
    return np.stack([some.correct for some in predictions]).astype(np.float64)


def bootstrap_gain(drawn: NDArray[np.float64], proposed: NDArray[np.float64]) -> tuple[Interval, Interval]:
    """By how much the mean and the best of equally many of `proposed` are above those of `drawn`."""
    generator = np.random.default_rng(0)
    samples = [generator.choice(some, (_RESAMPLES, len(some))) for some in (drawn, proposed)]
    means = samples[1].mean(1) - samples[0].mean(1)
    equally_many = min(len(drawn), len(proposed))
    bests = samples[1][:, :equally_many].max(1) - samples[0][:, :equally_many].max(1)
    return _interval(proposed.mean() - drawn.mean(), means), _interval(float(bests.mean()), bests)


def _interval(value: float, resampled: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Interval(float(value), float(low), float(high))
