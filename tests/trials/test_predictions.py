from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifar.trials.predictions import Predictions, load_predictions, save_predictions

LABELS = np.arange(1000) % 10


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


@given(st.lists(st.integers(0, 3), min_size=1, max_size=50), st.integers(0, 2**31))
def test_the_mean_of_its_scores_is_the_metric(classes: list[int], seed: int) -> None:
    labels = np.asarray(classes, dtype=np.int64)
    predictions = Predictions(np.random.RandomState(seed).randint(0, 4, len(labels)), labels)
    shares = [predictions.correct[labels == label].mean() for label in np.unique(labels)]
    assert predictions.scores("balanced_accuracy").mean() == pytest.approx(np.mean(shares))
    assert predictions.scores("accuracy").mean() == pytest.approx(predictions.correct.mean())
