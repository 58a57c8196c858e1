"""What guessing would get: where classes are uneven the accuracy alone says little."""

from __future__ import annotations

_UNEVEN = 1.5  # times its even share that the largest class has


def is_uneven(largest_class_share: float, classes: int) -> bool:
    return largest_class_share * classes >= _UNEVEN


def why_useless(predicted_classes: int | None, value: float, metric: str, largest_share: float, classes: int) -> str:
    """Why a network is not better than guessing, by its accuracy or balanced accuracy; "" where it is."""
    if predicted_classes == 1:
        return f"every image it is judged by gets the same class; guessing the largest class gets {largest_share:.1%}"
    guessing, which = (largest_share, " the largest class") if metric == "accuracy" else (1 / classes, "")
    return f"no better than guessing{which}, {guessing:.1%}" if value <= guessing else ""
