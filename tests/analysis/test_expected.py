from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifar.analysis.expected import expected

SPACE: dict[str, Any] = {
    "width": {"_type": "qloguniform", "_value": [4, 32, 2]},
    "lr": {"_type": "loguniform", "_value": [0.001, 0.1]},
    "optimizer": {"_type": "choice", "_value": ["sgd", "adam"]},
}


def at(width: float, lr: float, optimizer: str = "sgd") -> dict[str, Any]:
    return {"width": width, "lr": lr, "optimizer": optimizer}


def test_a_lucky_trial_is_not_the_best_where_images_are_few_and_is_where_there_are_thousands() -> None:
    good = [at(24, lr) for lr in (0.010, 0.012, 0.014, 0.016)]
    bad = [at(6, lr) for lr in (0.001, 0.002, 0.004)]
    accuracies = [0.65, 0.66, 0.65, 0.66, 0.58, 0.57, 0.58, 0.67]
    few, many = (expected(SPACE, [*good, *bad, at(4, 0.1)], accuracies, n).accuracies for n in (200, 5_000))
    assert np.argmax(few) < 4
    assert np.argmax(many) == 7


def test_another_choice_is_another_place() -> None:
    same = [at(16, 0.01), at(16, 0.01), at(16, 0.01)]
    one = expected(SPACE, [*same, at(16, 0.01)], [0.5, 0.5, 0.5, 0.7], 200).accuracies
    other = expected(SPACE, [*same, at(16, 0.01, "adam")], [0.5, 0.5, 0.5, 0.7], 200).accuracies
    assert one[3] == pytest.approx(one[0])
    assert other[3] > other[0] + 0.02


@given(
    st.lists(st.tuples(st.floats(4, 32), st.floats(0.001, 0.1), st.floats(0, 1)), min_size=1, max_size=12),
    st.integers(1, 10**5),
)
def test_whatever_the_trials_are_each_has_a_figure_near_those_found(
    trials: list[tuple[float, float, float]], val_images: int
) -> None:
    accuracies = [accuracy for _, _, accuracy in trials]
    known = expected(SPACE, [at(width, lr) for width, lr, _ in trials], accuracies, val_images)
    assert known.accuracies.shape == (len(trials),)
    assert min(accuracies) - 0.2 <= known.accuracies.min() <= known.accuracies.max() <= max(accuracies) + 0.2
    last, even, none = len(trials) - 1, [1.0] * len(trials), [0.0] * len(trials)
    assert 0 <= known.chance_below(0, last, even, none) <= 1
    assert known.chance_below(0, last, even, none) + known.chance_below(last, 0, even, none) == pytest.approx(1.0)


def test_how_likely_one_is_better_rises_with_the_images_and_with_what_it_is_to_gain() -> None:
    params, accuracies = [at(8, 0.01), at(24, 0.01)], [0.60, 0.62]
    few, many = (expected(SPACE, params, accuracies, n) for n in (200, 20_000))
    even, none = [1.0, 1.0], [0.0, 0.0]
    assert 0.5 < few.chance_below(1, 0, even, none) < many.chance_below(1, 0, even, none)
    assert few.chance_below(1, 0, [1.0, 0.8], none) > 0.9
    assert few.chance_below(1, 0, [0.8, 1.0], none) < 0.1
    assert 0.5 < many.chance_below(1, 0, even, [0.2, 0.2]) < many.chance_below(1, 0, even, none) - 0.2
