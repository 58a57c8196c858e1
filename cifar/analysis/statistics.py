"""Means and their intervals: how much of a figure may be chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cifar.training.hparams import Hparams
from cifar.training.intervals import CHANCE, Interval, Sides, dunnett
from cifar.trials.predictions import Predictions
from cifar.trials.seed_noise import interaction, known_variance

# Images that an interval adds: of a mean (Agresti and Coull, 1998), and of a difference (Agresti and Min, 2005).
_TWO_RIGHT_TWO_WRONG, _ONE_EACH = (1.0, 1.0, 0.0, 0.0), (1.0, -1.0)
# Degrees of freedom that a spread is to have at least, from what is known of other trainings where its own seeds do not
# give as many. The fewer they are, the less it flatters where seeds do twice as much as to those (results/chance.md).
_ENOUGH_FREEDOM = 4.0
_RESAMPLES = 10_000
_ORDERS = 1_000  # of trials one after the other


@dataclass(frozen=True)
class Mean:
    """A mean over seeds and images, and half the width of the interval that covers the chance in both."""

    value: float
    margin: float

    def __str__(self) -> str:
        return f"{self.value:.1%} ± {self.margin:.1%}"


@dataclass(frozen=True)
class SeedSpread:
    """How much trainings with different seeds differ: the mean square between seeds, and its degrees of freedom.

    `variance` is that of the accuracy over seeds, without what seeds and images have together, and less sure.
    """

    mean_square: float
    freedom: float
    variance: float
    freedom_of_variance: float


def pooled_spread(groups: Sequence[NDArray[np.float64]]) -> SeedSpread:
    """Of several configurations, each seeds x images, with equally many of both: few seeds of one say little of it."""
    repeated = [values for values in groups if len(values) > 1]
    if not repeated:
        return SeedSpread(0.0, 0.0, 0.0, 0.0)
    images = repeated[0].shape[1]
    square = float(np.mean([images * values.mean(1).var(ddof=1) for values in repeated]))
    together = float(np.mean([interaction(values) for values in repeated]))
    freedom, alone = sum(len(values) - 1 for values in repeated), max(square - together, 0.0)
    return SeedSpread(square, freedom, alone / images, freedom * (alone / square) ** 2 if square else 0.0)


def pooled_with(groups: Sequence[NDArray[np.float64]], known: SeedSpread) -> SeedSpread:
    """The spread of several configurations, pooled with what trainings like these have shown on other images."""
    own, images = pooled_spread(groups), groups[0].shape[1]
    carried = images * known.variance + float(np.mean([interaction(values) for values in groups]))
    freedom = own.freedom + known.freedom_of_variance
    square = (own.freedom * own.mean_square + known.freedom_of_variance * carried) / max(freedom, 1.0)
    return replace(known, mean_square=square, freedom=freedom)


def pooled_with_recipes(groups: Sequence[NDArray[np.float64]], hparams: Hparams) -> SeedSpread:
    """The spread of several configurations; where their few seeds leave it open, recipes like theirs fill it up."""
    lacking = max(0.0, _ENOUGH_FREEDOM - pooled_spread(groups).freedom)
    known = known_variance(vars(hparams), float(np.mean([values.mean() for values in groups])))
    return pooled_with(groups, SeedSpread(0.0, 0.0, known, lacking))


def mean(values: NDArray[np.float64], spread: SeedSpread | None = None) -> Mean:
    """The mean and its 95 % interval of seeds x images: 1 where right and 0 where wrong.

    `spread` is that of its own seeds where none is given. Of one seed it is that network's alone.
    """
    return _mean(values, spread or pooled_spread([values]), _TWO_RIGHT_TWO_WRONG, lambda freedom: dunnett(1, freedom))


def difference(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    spread: SeedSpread,
    comparisons: int = 1,
    sides: Sides = "two",
) -> Mean:
    """By how much the first of two configurations is better, judged by the same images; `spread` is that of either.

    Of several comparisons with a common other one all intervals hold together, with a chance of 95 %.
    """
    doubled = replace(spread, mean_square=2 * spread.mean_square)
    return _mean(first - second, doubled, _ONE_EACH, lambda freedom: dunnett(comparisons, freedom, sides))


def _mean(
    values: NDArray[np.float64], spread: SeedSpread, more_images: Sequence[float], quantile: Callable[[float], float]
) -> Mean:
    """Analysis of variance with seeds and images both drawn at random.

    Means over images differ by seeds and by what seeds and images have together, and means over seeds by images and the
    same again: it is counted once. `more_images` are added, since 36 of 36 is no certainty.
    """
    seeds, centre = len(values), float(values.mean())
    values = np.concatenate([values, np.tile(more_images, (seeds, 1))], axis=1)
    images = values.shape[1]
    between_images = seeds * values.mean(0).var(ddof=1)
    together = interaction(values)
    parts = np.array([spread.mean_square, max(between_images - together, 0.0)]) / (seeds * images)
    variance = parts.sum()
    # Few seeds leave the variance itself uncertain (Welch and Satterthwaite); thousands of images do not.
    uncertain = (parts**2 / [max(spread.freedom, 1), images - 1]).sum()
    freedom = variance**2 / uncertain if uncertain > 0 else images - 1
    margin = quantile(round(float(freedom), 1)) * math.sqrt(variance)
    return Mean(centre, min(margin + abs(values.mean() - centre), 1.0))  # two seeds may leave all open


def scores(predictions: Sequence[Predictions], metric: str = "accuracy") -> NDArray[np.float64]:
    """Seeds x images; their mean is the metric, an accuracy or a balanced one."""
    return np.stack([some.scores(metric) for some in predictions])


def gains(drawn: NDArray[np.float64], proposed: NDArray[np.float64]) -> tuple[Interval, Interval]:
    """By how much the mean and the best of equally many of `proposed` are above those of `drawn`.

    The intervals are those of resampling, about values that resampling does not bias.
    """
    generator = np.random.default_rng(0)
    samples = [generator.choice(some, (_RESAMPLES, len(some))) for some in (drawn, proposed)]
    equally_many = min(len(drawn), len(proposed))
    means = [some.mean(1) for some in samples]
    bests = [expected_best(some, equally_many) for some in samples]
    best = expected_best(proposed, equally_many) - expected_best(drawn, equally_many)
    return _interval(proposed.mean() - drawn.mean(), means[1] - means[0]), _interval(float(best), bests[1] - bests[0])


def gain_in_equal_seconds(
    drawn: NDArray[np.float64], proposed: NDArray[np.float64], seconds: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> Interval:
    """By how much the best of `proposed` is above that of `drawn`, trained one after the other for as long as the
    shorter of both took in all; `seconds` are those of each trial."""
    generator, budget = np.random.default_rng(0), min(float(some.sum()) for some in seconds)
    kinds = [*zip((drawn, proposed), seconds, strict=True)]

    def best(resample: bool) -> float:
        found = []
        for values, took in kinds:
            some = generator.integers(len(values), size=len(values)) if resample else np.arange(len(values))
            found.append(_best_within(values[some], took[some], budget, generator, _ORDERS if not resample else 50))
        return found[1] - found[0]

    return _interval(best(resample=False), np.array([best(resample=True) for _ in range(_ORDERS)]))


def _best_within(
    values: NDArray[np.float64],
    seconds: NDArray[np.float64],
    budget: float,
    generator: np.random.Generator,
    orders: int,
) -> float:
    """The mean over random orders of the best value of those that end within the budget, the first in any case."""
    order = generator.permuted(np.tile(np.arange(len(values)), (orders, 1)), axis=1)
    within = seconds[order].cumsum(1) <= budget * (1 + 1e-9)
    within[:, 0] = True
    return float(np.where(within, values[order], -np.inf).max(1).mean())


def expected_best(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """The expected highest of `count` values drawn without replacement, along the last axis; it has no bias."""
    total = values.shape[-1]
    chances = np.array([math.comb(rank, count - 1) for rank in range(total)]) / math.comb(total, count)
    return np.sort(values, axis=-1) @ chances


def holm(chances: Mapping[str, float], level: float = 1 - CHANCE) -> set[str]:
    """Which of several tests reject, where any false rejection of all of them is to have a chance of `level` at most.

    Sture Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    rejected = set[str]()
    for left, (name, chance) in zip(
        range(len(chances), 0, -1), sorted(chances.items(), key=lambda item: item[1]), strict=True
    ):
        if chance * left > level:
            break
        rejected.add(name)
    return rejected


def _interval(value: float, resampled: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(resampled, [0.025, 0.975]) + (value - resampled.mean())
    return Interval(float(value), float(low), float(high))
