"""What a trial answered for each validation image, and whether two trials can be told apart by it."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cifar.system.files import new_file

_FILE = "validation.npz"
_LEVEL = 0.05  # how often two equally good trials are told apart by chance


@dataclass(frozen=True)
class Answers:
    """Predicted and true label of each validation image."""

    predictions: NDArray[np.int64]
    labels: NDArray[np.int64]

    @property
    def correct(self) -> NDArray[np.bool_]:
        right: NDArray[np.bool_] = self.predictions == self.labels
        return right


def save(directory: Path, predictions: NDArray[np.int64], labels: NDArray[np.int64]) -> None:
    with new_file(directory / _FILE) as temporary, temporary.open("wb") as file:
        smallest = np.min_scalar_type(int(max(labels.max(), predictions.max())))  # one byte for up to 256 classes
        np.savez_compressed(file, predictions=predictions.astype(smallest), labels=labels.astype(smallest))


def load(directory: Path) -> Answers | None:
    """What the trial in this directory left, None where that is nothing or damaged."""
    try:
        with (directory / _FILE).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return Answers(file["predictions"].astype(np.int64), file["labels"].astype(np.int64))
    except (OSError, KeyError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return None  # NumPy and zipfile name damage in many ways; a NotImplementedError is a RuntimeError


def is_tie(best: Answers, other: Answers) -> bool:
    """Whether the other's accuracy lies within what chance does between two equally good trials on the same images.

    Only the images on which one is right and the other wrong say anything (McNemar's test, exact): far fewer than all,
    so that pairs are told apart which each accuracy's own standard error would not tell apart.
    """
    only_best = int(np.count_nonzero(best.correct & ~other.correct))
    only_other = int(np.count_nonzero(other.correct & ~best.correct))
    return _chance(only_best, only_other) > _LEVEL


def may_tie(best: Answers, difference: float) -> bool:
    """Whether a trial whose accuracy is lower by that difference can tie with the best one, whatever its answers are.

    It can do no better than be right wherever the best one is wrong: the more images differ, the less it says.
    """
    only_other = int(np.count_nonzero(~best.correct))
    only_best = only_other + round(difference * len(best.labels))
    return _chance(only_best, only_other) > _LEVEL / 5  # a fifth: the test's steps are not quite even


def _chance(only_best: int, only_other: int) -> float:
    """That two equally good trials differ so much in the images on which only one of them is right: binomial, exact.

    SciPy has it too, but takes longer to import than a table of thousands of trials takes to print.
    """
    differing = only_best + only_other
    ways = term = 1
    for number in range(min(only_best, only_other)):
        term = term * (differing - number) // (number + 1)
        ways += term
    return min(1.0, 2 * ways / (1 << differing))


def confusion(answers: Sequence[Answers], classes: int) -> NDArray[np.int64]:
    """True x predicted class, summed over the networks."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    for some in answers:
        np.add.at(counts, (some.labels, some.predictions), 1)
    return counts
