"""The bounds between which a share lies, as far as the images can tell. ± means 95 % everywhere in this project."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

CHANCE = 0.95  # that an interval covers the truth
_95_PERCENT = 1.959964  # standard deviations of a normal distribution
_GRID, _SPREADS = 48, 500  # points of two numerical integrals

Sides = Literal["one", "two"]


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval; accuracies are fractions."""

    value: float
    low: float
    high: float

    @property
    def margin(self) -> float:
        """The longer of its two sides: near 0 and 1 they differ."""
        return max(self.value - self.low, self.high - self.value)

    def __str__(self) -> str:
        return f"{self.value:.1%} ± {self.margin:.1%}"


def wilson(share: float, images: float) -> Interval:
    """Of one network's accuracy, by the number of images that judged it. It makes no certainty of 36 right of 36.

    Edwin B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    square = _95_PERCENT**2
    centre = (share + square / (2 * images)) / (1 + square / images)
    half = _95_PERCENT / (1 + square / images) * math.sqrt(share * (1 - share) / images + square / (4 * images**2))
    # At 0 and 1 rounding could leave the share outside.
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


@functools.lru_cache
def dunnett(comparisons: int, freedom: float, sides: Sides = "two") -> float:
    """How many standard errors cover the differences of so many means from a common one, all at once, in 95 %.

    Of one comparison it is Student's t. Charles W. Dunnett, "A multiple comparison procedure for comparing several
    treatments with a control", 1955; one-sided against the best of all it is Jason Hsu's comparison, 1981.
    """
    from scipy.special import chdtri, ndtr, stdtrit  # scipy.stats takes much longer to import

    single = {"two": (1 + CHANCE) / 2, "one": CHANCE}[sides]
    low, high = float(stdtrit(freedom, single)), float(stdtrit(freedom, 1 - (1 - single) / comparisons))
    if comparisons == 1:
        return low
    places, weights = np.polynomial.hermite_e.hermegauss(_GRID)  # of the common mean, in standard errors
    spreads = np.sqrt(chdtri(freedom, (np.arange(_SPREADS) + 0.5) / _SPREADS) / freedom)[:, None]
    while high - low > 1e-4:
        quantile = (low + high) / 2
        reach = math.sqrt(2) * quantile * spreads
        within = ndtr(places + reach) - (ndtr(places - reach) if sides == "two" else 0.0)
        covered = (within**comparisons @ weights).mean() / weights.sum()
        low, high = (quantile, high) if covered < CHANCE else (low, quantile)
    return high
