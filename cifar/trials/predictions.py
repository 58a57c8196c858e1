"""The label that a trial predicted for each validation image."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cifar.system.files import new_file
from cifar.trials import layout


@dataclass(frozen=True)
class Predictions:
    """Predicted and true label of each validation image."""

    predicted: NDArray[np.int64]
    labels: NDArray[np.int64]

    @property
    def correct(self) -> NDArray[np.bool_]:
        right: NDArray[np.bool_] = self.predicted == self.labels
        return right

    def scores(self, metric: str) -> NDArray[np.float64]:
        """A figure per image whose mean is the metric: 0 where wrong, 1 where right, balanced more in small classes."""
        if metric != "balanced_accuracy":
            return self.correct.astype(np.float64)
        images = np.bincount(self.labels)
        weights = len(self.labels) / (np.count_nonzero(images) * np.maximum(images, 1))
        return self.correct * weights[self.labels]


def save_predictions(directory: Path, predictions: NDArray[np.int64], labels: NDArray[np.int64]) -> None:
    with new_file(directory / layout.PREDICTIONS) as temporary, temporary.open("wb") as file:
        smallest = np.min_scalar_type(int(max(labels.max(), predictions.max())))  # one byte for up to 256 classes
        np.savez_compressed(file, predictions=predictions.astype(smallest), labels=labels.astype(smallest))


def load_predictions(directory: Path) -> Predictions | None:
    """What the trial in this directory left, None where that is nothing or damaged."""
    try:
        with (directory / layout.PREDICTIONS).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return Predictions(file["predictions"].astype(np.int64), file["labels"].astype(np.int64))
    except (OSError, KeyError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return None  # NumPy and zipfile name damage in many ways; a NotImplementedError is a RuntimeError


def confusion_matrix(predictions: Sequence[Predictions], classes: int) -> NDArray[np.int64]:
    """True x predicted class, summed over the networks."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    for some in predictions:
        np.add.at(counts, (some.labels, some.predicted), 1)
    return counts
