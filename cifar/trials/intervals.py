"""The bounds between which a share lies, as far as the images can tell. ± means 95 % everywhere in this project."""

from __future__ import annotations

import math
from dataclasses import dataclass

_95_PERCENT = 1.959964  # standard deviations of a normal distribution


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


def wilson(share: float, images: int) -> Interval:
    """Of one network's accuracy, by the number of images that judged it. It makes no certainty of 36 right of 36.

    Edwin B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    square = _95_PERCENT**2
    centre = (share + square / (2 * images)) / (1 + square / images)
    half = _95_PERCENT / (1 + square / images) * math.sqrt(share * (1 - share) / images + square / (4 * images**2))
    # At 0 and 1 rounding could leave the share outside.
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))
