"""`python -m benchmarks.yardsticks.validation`: how long validation takes, and what its arithmetic does to accuracy.

Networks of `fast`, as a trial of a search trains them; after each epoch the same network validates in float32 and in
the arithmetic of its training, in batches of 512 and in those that a CPU gets, in turn, on one thread.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean, median
from typing import NamedTuple
from unittest.mock import patch

import torch

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report
from cifar.data import datasets
from cifar.data.datasets import Dataset, Splits
from cifar.training import augmentation, evaluation
from cifar.training.evaluation import Evaluation, evaluate
from cifar.training.hparams import Hparams
from cifar.training.models import Network
from cifar.training.steps import precision_on
from cifar.training.train import new_model, new_optimizer, train

_WIDTHS, _EPOCHS, _EPOCH_IMAGES, _LARGE_BATCH = (24, 64), 6, 10_000, 512
HEADER = [
    "width",
    "seconds to train on 10,000 images",
    "to validate in float32, batches of 512",
    "in float32",
    "as it is",
    "median ratio of the first to the last",
    "from, to",
    "accuracy less that in float32, of each epoch",
    "other labels",
    "quiet",
]


class Look(NamedTuple):
    """Seconds of one epoch's training and of its validation, in three ways; accuracy as it is less that in float32."""

    training: float
    large: float
    float32: float
    as_it_is: float
    difference: float
    other_labels: float


@dataclass(frozen=True)
class Measured:
    """What each epoch showed."""

    width: int
    looks: list[Look]
    quiet: bool

    @property
    def ratios(self) -> list[float]:
        _, large, _, as_it_is, _, _ = zip(*self.looks, strict=True)
        return [slow / quick for slow, quick in zip(large, as_it_is, strict=True)]

    @property
    def differences(self) -> list[float]:
        *_, differences, _ = zip(*self.looks, strict=True)
        return list(differences)

    def cells(self) -> list[str]:
        *seconds, differences, other_labels = zip(*self.looks, strict=True)
        return [
            str(self.width),
            *(f"{median(some):.2f}" for some in seconds),
            f"{median(self.ratios):.2f}",
            f"{min(self.ratios):.2f} to {max(self.ratios):.2f}",
            " ".join(f"{100 * difference:+.2f}" for difference in differences) + " points",
            f"{fmean(other_labels):.2%}",
            "yes" if self.quiet else "no",
        ]


def main() -> int:
    images = machine.choose_data()
    torch.set_num_threads(1)
    dataset = datasets.load(images)
    facts = machine.describe("python -m benchmarks.yardsticks.validation", images)
    report = Report(RESULTS / "validation", "Validation in the arithmetic of training", facts)
    report.table("An epoch of a trial, and its validation", "networks", HEADER, (measure(w, dataset) for w in _WIDTHS))
    return 0


def measure(width: int, dataset: Dataset) -> Measured:
    asked = Hparams(model="fast", width=width, epochs=_EPOCHS, images_per_epoch=_EPOCH_IMAGES)
    hparams = augmentation.fitting(asked, dataset.name)
    looks, quiet = machine.when_quiet(lambda: list(_looks(hparams, dataset)))
    return Measured(width, looks, quiet)


def _looks(hparams: Hparams, dataset: Dataset) -> Iterator[Look]:
    splits, model = datasets.split(dataset), new_model(hparams, dataset)
    precision = precision_on(dataset.images.device, hparams)
    for epoch in train(model, new_optimizer(model, hparams), hparams, dataset, splits):
        with patch.object(evaluation, "_BATCH_ON_CPU", _LARGE_BATCH):
            large, _ = _timed(model, dataset, splits, "float32")
        float32, exact = _timed(model, dataset, splits, "float32")
        as_it_is, found = _timed(model, dataset, splits, precision)
        training = hparams.epoch_images(len(splits.train)) / epoch.metrics.images_per_second
        other_labels = (found.predictions != exact.predictions).float().mean().item()
        yield Look(training, large, float32, as_it_is, found.accuracy - exact.accuracy, other_labels)


def _timed(model: Network, dataset: Dataset, splits: Splits, precision: str) -> tuple[float, Evaluation]:
    began = time.perf_counter()
    found = evaluate(model, dataset, splits.val, precision=precision)
    return time.perf_counter() - began, found


if __name__ == "__main__":
    sys.exit(main())
