from __future__ import annotations

import pytest

from cifar.data.balance import why_useless


@pytest.mark.parametrize(
    ("predicted", "value", "metric", "expected"),
    [
        (1, 0.7, "accuracy", "every image it is judged by gets the same class; guessing the largest class gets 70.0%"),
        (2, 0.7, "accuracy", "no better than guessing the largest class, 70.0%"),
        (2, 0.701, "accuracy", ""),
        (2, 0.25, "balanced_accuracy", "no better than guessing, 25.0%"),
        (4, 0.26, "balanced_accuracy", ""),
        (None, 0.8, "accuracy", ""),
    ],
)
def test_what_is_no_better_than_guessing_is_called_that(
    predicted: int | None, value: float, metric: str, expected: str
) -> None:
    assert why_useless(predicted, value, metric, largest_share=0.7, classes=4) == expected
