"""`python -m benchmarks.studies.budgets`: how much better networks of several widths become, the longer they train.

The tutorial's network with a falling rate, images mirrored and moved, on all of CIFAR-10's training images; accuracy on
its 5,000 validation images. What a search's small trials promise for a long training follows from this. Nothing is
timed: it may run on a machine that is busy.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from tqdm import tqdm

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report
from benchmarks.studies.recipes import accuracy_of, load_images
from cifar.analysis.training_time import budget_of
from cifar.data import datasets
from cifar.training import defaults
from cifar.training.hparams import Hparams

_IMAGES = 45_000
_SHORT = 40_000  # images shown, as a trial of a short search
_TIMES = (1, 4, 16, 48)
_MOST_TIMES = {32: 16}  # by width, what there is time for
_BASE: dict[str, Any] = {"schedule": "triangular", "flip": True, "translate": 2}
# Besides the defaults, of width 6: what short searches find about best, with smaller steps in a longer training.
_FOUND: dict[str, Any] = {"batch_size": 16, "momentum": 0.7}
_LR, _LR_POWER = 0.06, 0.25
_FOUND_WIDTHS = (10, 16, 32)
HEADER = ["width", "batch size", "learning rate", "images shown", "epochs", "accuracy", "error"]


@dataclass(frozen=True)
class Line:
    hparams: Hparams
    accuracy: float

    def cells(self) -> list[str]:
        hparams = self.hparams
        shown = f"{hparams.epochs * hparams.epoch_images(_IMAGES):,}"
        sizes = [str(hparams.width), str(hparams.batch_size), f"{hparams.lr:.2g}", shown, str(hparams.epochs)]
        return [*sizes, f"{self.accuracy:.1%}", f"{1 - self.accuracy:.3f}"]


def main() -> int:
    argparse.ArgumentParser(prog="python -m benchmarks.studies.budgets", description=__doc__).parse_args()
    data_name = machine.choose_data()
    datasets.load(data_name)  # decoded once, by this process
    facts = machine.describe("python -m benchmarks.studies.budgets", data_name)
    report = Report(RESULTS / "budgets", "Longer trainings of narrow and wide networks", facts)
    report.table("Validation accuracy, one seed", "budgets", HEADER, measure(data_name))
    return 0


def measure(data_name: str) -> list[Line]:
    """The longest trainings first, so that both cores end together; the shortest first in the table."""
    trainings = sorted(trained(), key=lambda hparams: -hparams.width * hparams.epochs)
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), load_images, (data_name, _IMAGES)) as pool:
        accuracies = pool.map(accuracy_of, trainings)
        known = [*tqdm(accuracies, "trainings", len(trainings), file=sys.stderr, disable=None)]
    lines = [Line(hparams, accuracy) for hparams, accuracy in zip(trainings, known, strict=True)]
    return sorted(lines, key=lambda line: (line.hparams.width, line.hparams.epochs, line.hparams.images_per_epoch))


def trained() -> Iterator[Hparams]:
    for times in _TIMES:
        epochs, images = budget_of(_SHORT * times, _IMAGES)
        budget = {**_BASE, "epochs": epochs, "images_per_epoch": images}
        yield defaults.for_budget(budget, _IMAGES)
        for width in _FOUND_WIDTHS:
            if times <= _MOST_TIMES.get(width, times):
                lr = _LR * times**-_LR_POWER
                yield defaults.for_budget({**budget, **_FOUND, "width": width, "lr": lr}, _IMAGES)


if __name__ == "__main__":
    sys.exit(main())
