"""`python -m benchmarks.yardsticks.denormals`: trainings in which a CPU takes numbers below 1e-38 as zero, and without.

Momentum of a unit that no longer learns fades by a factor at each step, and so comes to numbers for which a CPU needs
many times as long. The same training runs with and without them, in alternating pairs, on one thread.
"""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from statistics import median
from unittest.mock import patch

import torch

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report
from cifar.data import datasets
from cifar.data.datasets import Dataset
from cifar.training import augmentation
from cifar.training.hparams import Hparams
from cifar.training.train import new_model, new_optimizer, train

_PAIRS = 3
_NET = Hparams(width=12, lr=0.009, momentum=0.89, batch_size=4, schedule="triangular", flip=True, translate=2)
HEADER = ["training", "seconds with", "seconds without", "median ratio", "from, to", "accuracy with, without", "quiet"]


@dataclass(frozen=True)
class Training:
    name: str
    data_name: str
    hparams: Hparams


@dataclass(frozen=True)
class Measured:
    """Seconds of each pair, with numbers below 1e-38 and without; accuracies are those of the last epoch."""

    name: str
    kept: list[float]
    flushed: list[float]
    accuracies: tuple[float, float]
    quiet: bool

    @property
    def ratios(self) -> list[float]:
        return [kept / flushed for kept, flushed in zip(self.kept, self.flushed, strict=True)]

    def cells(self) -> list[str]:
        seconds = f"{median(self.kept):.1f}", f"{median(self.flushed):.1f}"
        spread = f"{min(self.ratios):.2f} to {max(self.ratios):.2f}"
        accuracies = ", ".join(f"{accuracy:.2%}" for accuracy in self.accuracies)
        return [self.name, *seconds, f"{median(self.ratios):.2f}", spread, accuracies, "yes" if self.quiet else "no"]


def main() -> int:
    images = machine.choose_data()
    torch.set_num_threads(1)
    trainings = [
        Training("the tutorial's, 2 epochs", images, Hparams()),
        Training("batch 4, 8 epochs of 10,000 images", images, replace(_NET, epochs=8, images_per_epoch=10_000)),
        Training("batch 4, 60 epochs of the digits", "digits", replace(_NET, epochs=60)),
        Training("batch 16, 60 epochs of the digits", "digits", replace(_NET, epochs=60, batch_size=16)),
    ]
    facts = machine.describe("python -m benchmarks.yardsticks.denormals", images)
    report = Report(RESULTS / "denormals", "Numbers below 1e-38", facts)
    report.table("A training with them, and without", "trainings", HEADER, map(measure, trainings))
    return 0


def measure(training: Training) -> Measured:
    dataset = datasets.load(training.data_name)
    hparams = augmentation.fitting(training.hparams, training.data_name)
    kept, flushed, quiet = list[tuple[float, float]](), list[tuple[float, float]](), True
    for _ in range(_PAIRS):
        pair, was_quiet = machine.when_quiet(lambda: [_train(hparams, dataset, flush) for flush in (False, True)])
        quiet = quiet and was_quiet
        kept.append(pair[0])
        flushed.append(pair[1])
    accuracies = kept[-1][1], flushed[-1][1]
    return Measured(training.name, [took for took, _ in kept], [took for took, _ in flushed], accuracies, quiet)


def _train(hparams: Hparams, dataset: Dataset, flush: bool) -> tuple[float, float]:
    """Seconds, and the accuracy of the last epoch."""
    model, splits = new_model(hparams, dataset), datasets.split(dataset)
    with nullcontext() if flush else patch.object(torch, "set_flush_denormal"):  # training sets it
        began = time.perf_counter()
        *_, last = train(model, new_optimizer(model, hparams), hparams, dataset, splits)
        return time.perf_counter() - began, last.metrics.accuracy


if __name__ == "__main__":
    sys.exit(main())
