from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from cifar.trials.predictions import Predictions, load_predictions, save_predictions
from cifar.trials.ties import is_tie, may_tie

LABELS = np.arange(1000) % 10


def answers(wrong: slice) -> Predictions:
    predictions = LABELS.copy()
    predictions[wrong] = (predictions[wrong] + 1) % 10
    return Predictions(predictions, LABELS)


def test_answers_come_back_as_they_were(tmp_path: Path) -> None:
    save_predictions(tmp_path, LABELS[::-1].copy(), LABELS)
    loaded = load_predictions(tmp_path)
    assert loaded is not None
    assert np.array_equal(loaded.predicted, LABELS[::-1])
    assert np.array_equal(loaded.labels, LABELS)
    assert (tmp_path / "validation.npz").stat().st_size < len(LABELS)


def test_many_classes_keep_their_numbers(tmp_path: Path) -> None:
    labels = np.arange(1000)
    save_predictions(tmp_path, labels, labels)
    loaded = load_predictions(tmp_path)
    assert loaded is not None
    assert loaded.correct.all()


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 no archive", b"text"])
def test_what_is_missing_or_damaged_is_none(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "validation.npz").write_bytes(content)
    assert load_predictions(tmp_path) is None


def test_only_images_on_which_two_differ_tell_them_apart() -> None:
    best = answers(slice(0, 300))
    assert is_tie(best, best)
    # 16 more wrong, all among the same images: each accuracy's standard error is 14 images, yet they differ.
    assert not is_tie(best, answers(slice(0, 316)))
    # 16 more wrong, but on other images altogether: 616 differ, and chance alone makes 25 of it.
    assert is_tie(best, answers(slice(300, 616)))


@pytest.mark.parametrize(("wrong", "tie"), [(5, True), (6, False)])  # heads 5 times of 5: p = 0.06; 6 of 6: 0.03
def test_few_images_tell_apart_what_chance_would_not(wrong: int, tie: bool) -> None:
    assert is_tie(answers(slice(0, 0)), answers(slice(0, wrong))) == tie


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_the_test_is_the_exact_binomial_one(only_best: int, only_other: int, both: int) -> None:
    """SciPy's own says the same."""
    best = answers(slice(0, both + only_other))
    other = answers(slice(only_other, both + only_other + only_best))
    differing = only_best + only_other
    expected = differing == 0 or binomtest(only_best, differing).pvalue > 0.05
    assert is_tie(best, other) == expected
    if only_best >= only_other and expected:  # what ties is not left out beforehand
        assert may_tie(best, (only_best - only_other) / 1000)
