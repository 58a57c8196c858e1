from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifar.analysis.confirm import Candidate, decide, new_seeds
from cifar.analysis.statistics import mean
from cifar.trials.predictions import Predictions
from cifar.trials.store import Trial

LABELS = np.zeros(2000, dtype=np.int64)


def candidate(number: int, accuracies: list[float], seconds: float) -> Candidate:
    """Right on images of its own, so that candidates differ on more than chance would let them."""
    predictions = []
    for seed, accuracy in enumerate(accuracies):
        right = np.random.RandomState(100 * number + seed).permutation(len(LABELS)) < accuracy * len(LABELS)
        predictions.append(Predictions((~right).astype(np.int64), LABELS))
    return Candidate(Trial(f"trial{number}", number, "SUCCEEDED", {}, None), predictions, seconds)


def test_a_clear_best_wins_however_slow() -> None:
    best, worse = candidate(0, [0.80, 0.81, 0.80], 100.0), candidate(1, [0.60, 0.61, 0.60], 1.0)
    winner, tied = decide([worse, best])
    assert winner is best
    assert tied == [best]


def test_among_ties_the_quickest_wins() -> None:
    slow, quick = candidate(0, [0.80, 0.81, 0.80], 100.0), candidate(1, [0.80, 0.80, 0.81], 1.0)
    winner, tied = decide([slow, quick])
    assert winner is quick
    assert len(tied) == 2


def test_among_those_as_quick_the_most_accurate_wins() -> None:
    better, luckier = candidate(0, [0.81, 0.80, 0.81], 10.5), candidate(1, [0.80, 0.80, 0.80], 10.0)
    winner, tied = decide([luckier, better])
    assert winner is better
    assert len(tied) == 2


def test_seeds_that_differ_widely_widen_the_interval() -> None:
    steady, unsteady = candidate(0, [0.7] * 3, 1.0), candidate(1, [0.6, 0.7, 0.8], 1.0)
    assert steady.accuracy.value == pytest.approx(unsteady.accuracy.value)
    assert unsteady.accuracy.margin > 3 * steady.accuracy.margin


def test_seeds_that_agree_leave_the_chance_of_the_images() -> None:
    found = mean(np.repeat([[1.0] * 700 + [0.0] * 300], 5, axis=0))
    assert found.margin == pytest.approx(1.96 * (0.7 * 0.3 / 1000) ** 0.5, rel=0.01)


@given(st.integers(1, 6), st.integers(2, 50), st.integers(0, 2**31))
def test_an_interval_is_finite_whatever_the_answers(seeds: int, images: int, seed: int) -> None:
    found = mean(np.random.RandomState(seed).randint(0, 2, (seeds, images)).astype(np.float64))
    assert 0 <= found.value <= 1
    assert 0 <= found.margin < np.inf


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Networks that are right with probability 0.7 more or less, on images of which some are hard."""
    generator, covered = np.random.default_rng(0), 0
    for _ in range(400):
        ease = generator.normal(0, 0.1, (1, 400)) + generator.normal(0, 0.02, (5, 1))
        found = mean((generator.random((5, 400)) < 0.7 + ease).astype(np.float64))
        covered += abs(found.value - 0.7) <= found.margin
    assert covered / 400 >= 0.93


def test_seeds_that_the_search_has_used_are_not_new() -> None:
    def with_seed(seed: int) -> Trial:
        return Trial("a", 0, "SUCCEEDED", {}, {"hparams": {"seed": seed}})

    assert new_seeds([with_seed(0), Trial("b", 1, "FAILED", {}, None)], 3) == [1000, 1001, 1002]
    assert new_seeds([with_seed(1000), with_seed(1002)], 3) == [1001, 1003, 1004]
