"""How the error of a network falls as it becomes wider and sees more images: what small trials say of long ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

_UNIT = 40_000  # images shown, of a small trial


@dataclass(frozen=True)
class Growth:
    """The usual error of a kind of network, a sum: it is too narrow, and it has seen too few images.

    The first falls with a power of the width, the second with one of the images that it has been shown
    (arXiv:2203.15556). An image that is shown again teaches less, and after some ten times hardly anything
    (arXiv:2305.16264).
    """

    narrow: float  # of width 1
    width_power: float
    unseen: float  # after 40,000 images
    shown_power: float
    repeats: float  # epochs after which 1/e of what the images can teach is left

    def error(self, width: int, shown: float, images: int) -> float:
        """After so many images shown, of so many that there are."""
        taught = images * self.repeats * -math.expm1(-shown / images / self.repeats)
        return float(self.narrow * width**-self.width_power + self.unseen * (taught / _UNIT) ** -self.shown_power)

    def enough(self, images: int) -> float:
        """Of how many images shown more are wasted."""
        return 6 * self.repeats * images


# Fitted to trainings on 200 to 45,000 images, of which they differ by 4 and 5 % of the error (results/growth.md).
GROWTHS = {
    "net": Growth(0.616, 0.795, 0.342, 0.339, 12.0),
    "fast": Growth(1.83, 1.19, 0.198, 0.383, 15.3),
}


def growth_of(model: str) -> Growth:
    """Of the tutorial's networks one for all."""
    return GROWTHS.get(model, GROWTHS["net"])
