"""Whether some classes have so many more images than others that the accuracy alone says little."""

from __future__ import annotations

_UNEVEN = 1.5  # times its even share that the largest class has


def is_uneven(largest_class_share: float, classes: int) -> bool:
    return largest_class_share * classes >= _UNEVEN
