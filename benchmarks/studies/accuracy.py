"""`python -m benchmarks.studies.accuracy`: the tutorial's loop beside `cifar` after the same epochs, several seeds.

Nothing is timed: it may run on a machine that is busy.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from statistics import fmean, variance

import torch
from scipy.stats import t as student
from tqdm import tqdm

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report
from benchmarks.shared.tutorial import Tutorial
from cifar.data import datasets
from cifar.data.datasets import Dataset, Splits
from cifar.training.hparams import Hparams
from cifar.training.train import new_model, new_optimizer, train


@dataclass(frozen=True)
class Case:
    """A configuration, and how many of the training images it sees."""

    name: str
    hparams: Hparams
    images: int
    seeds: int = 20


# Learning rates that bring each batch size as far in two epochs as 0.001 brings batches of four.
CASES = [
    Case("width 6, batch 4", Hparams(batch_size=4, lr=0.001, epochs=2), 45_000),
    Case("width 6, batch 64", Hparams(batch_size=64, lr=0.01, epochs=2), 45_000),
    Case("wide, batch 64", Hparams(model="wide", batch_size=64, lr=0.01, epochs=2), 10_000),
    Case(
        "wide, batch 64, precision bfloat16",
        Hparams(model="wide", batch_size=64, lr=0.01, epochs=2, precision="bfloat16"),
        10_000,
    ),
]
MARGIN = 0.01  # accuracy: what is nearer than this counts as equal
HEADER = ["work", "seeds", "tutorial", "cifar", "difference (90 %)", "equal within 1 point"]


@dataclass(frozen=True)
class Compared:
    """Validation accuracies, one per seed and way."""

    name: str
    tutorial: list[float]
    ours: list[float]

    def cells(self) -> list[str]:
        difference = fmean(self.ours) - fmean(self.tutorial)
        margin = equivalence_margin(self.ours, self.tutorial)
        return [
            self.name,
            str(len(self.ours)),
            f"{fmean(self.tutorial):.1%}",
            f"{fmean(self.ours):.1%}",
            f"{100 * difference:+.1f} ± {100 * margin:.1f} points",
            "shown" if abs(difference) + margin <= MARGIN else "not shown: too few seeds",
        ]


def equivalence_margin(first: list[float], second: list[float]) -> float:
    """Half of the 90 % interval of a difference: where it lies within ± MARGIN, two one-sided tests at 5 % show that
    the means are equal to MARGIN (Welch)."""
    parts = [variance(some) / len(some) for some in (first, second)]
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(some) - 1) for part, some in zip(parts, (first, second), strict=True)
    )
    return float(student.ppf(0.95, freedom)) * math.sqrt(sum(parts))


def main() -> int:
    data_name = machine.choose_data()
    datasets.load(data_name)
    facts = machine.describe("python -m benchmarks.studies.accuracy", data_name)
    report = Report(RESULTS / "accuracy", "Accuracy beside the tutorial's loop", facts)
    compared = (compare(case, data_name) for case in CASES)
    report.table("Validation accuracy after two epochs", "accuracy", HEADER, compared)
    return 0


def compare(case: Case, data_name: str) -> Compared:
    images = datasets.load(data_name)
    splits = datasets.split(images)
    shuffled = splits.train[torch.randperm(len(splits.train), generator=torch.Generator().manual_seed(0))]
    splits = replace(splits, train=shuffled[: case.images])
    tutorial, ours = list[float](), list[float]()
    for seed in tqdm(range(case.seeds), case.name, file=sys.stderr, disable=None):
        hparams = replace(case.hparams, seed=seed)
        tutorial.append(_tutorial(hparams, images, splits))
        ours.append(_ours(hparams, images, splits))
    return Compared(case.name, tutorial, ours)


def _tutorial(hparams: Hparams, images: Dataset, splits: Splits) -> float:
    trial = Tutorial(hparams, images, splits.train, torch.device("cpu"))
    for _ in range(hparams.epochs):
        trial.train_epoch()
    return trial.accuracy(images, splits.val)


def _ours(hparams: Hparams, images: Dataset, splits: Splits) -> float:
    model = new_model(hparams, images)
    *_, last = train(model, new_optimizer(model, hparams), hparams, images, splits)
    return last.metrics.accuracy


if __name__ == "__main__":
    sys.exit(main())
