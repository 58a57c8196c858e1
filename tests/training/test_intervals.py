from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from cifar.training.intervals import wilson


@given(images=st.integers(1, 10_000), data=st.data())
def test_an_accuracys_interval_is_scipys(images: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, images))
    ours, theirs = wilson(right / images, images), binomtest(right, images).proportion_ci(method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-6)
    assert 0 <= ours.low <= ours.value <= ours.high <= 1


@pytest.mark.parametrize("images", [36, 100, 1_000, 10_000])
@pytest.mark.parametrize("true", [0.1, 0.5, 0.7, 0.9, 0.97])
def test_an_interval_covers_the_true_accuracy_in_95_percent_of_cases(images: int, true: float) -> None:
    covered = sum(
        binom.pmf(right, images, true)
        for right in range(images + 1)
        if wilson(right / images, images).low <= true <= wilson(right / images, images).high
    )
    assert 0.93 <= covered <= 0.98


def test_all_right_of_few_is_no_certainty() -> None:
    few = wilson(1.0, 36)
    assert str(few) == "100.0% ± 9.6%"
    assert few.high == 1.0
