"""`python -m benchmarks.studies.width`: on few images, what pays more: a longer training, or a wider network?

A subset of CIFAR-10's training images, the same number of each class; accuracy on its 5,000 validation images. Seconds
are those of one core, also where others are busy.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from statistics import fmean
from typing import Any

from tqdm import tqdm

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report, mean_and_ends
from benchmarks.studies.recipes import accuracy_of, load_images, seeded
from cifar.data import datasets
from cifar.training import defaults
from cifar.training.hparams import Hparams

_IMAGES = 2_000
_SEEDS = 2
_SIZES = {  # widths and epochs
    "net": ((6, 9), (6, 47), (16, 21), (16, 47), (30, 21), (30, 47), (30, 100), (60, 47)),
    "fast": ((32, 22), (32, 47), (64, 11), (64, 22), (64, 47), (128, 11), (128, 22)),
}
# The recipe of fast; for net, what its search trains at about its best.
_GIVEN: dict[str, dict[str, Any]] = {
    "net": {"schedule": "triangular", "flip": True, "translate": 2, "batch_size": 32, "lr": 0.05},
    "fast": {},
}
HEADER = ["network", "images", "width", "epochs", "batch size", "accuracy", "lowest", "highest", "seconds of a core"]


@dataclass(frozen=True)
class Line:
    network: str
    images: int
    width: int
    epochs: int
    batch_size: int
    accuracies: list[float]
    seconds: float

    def cells(self) -> list[str]:
        sizes = map(str, [self.width, self.epochs, self.batch_size])
        return [self.network, f"{self.images:,}", *sizes, *mean_and_ends(self.accuracies), f"{self.seconds:.0f}"]


def main() -> int:
    argparse.ArgumentParser(prog="python -m benchmarks.studies.width", description=__doc__).parse_args()
    data_name = machine.choose_data()
    datasets.load(data_name)  # decoded once, by this process
    facts = machine.describe("python -m benchmarks.studies.width", data_name)
    report = Report(RESULTS / "width", f"Longer or wider, on {_IMAGES:,} images", facts)
    report.table(f"Validation accuracy, {_SEEDS} seeds", "widths", HEADER, measure(data_name))
    return 0


def measure(data_name: str) -> Iterator[Line]:
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), load_images, (data_name, _IMAGES)) as pool:
        for network, sizes in _SIZES.items():
            for width, epochs in tqdm(sizes, network, file=sys.stderr, disable=None):
                given = {"model": network, "width": width, "epochs": epochs, **_GIVEN[network]}
                hparams = defaults.for_budget(given, _IMAGES)
                found = trained_with_seeds(pool, hparams, _SEEDS)
                yield Line(network, _IMAGES, width, epochs, hparams.batch_size, *found)


def trained_with_seeds(pool: ProcessPoolExecutor, hparams: Hparams, seeds: int) -> tuple[list[float], float]:
    """The accuracies of trainings with so many seeds, and the mean of their seconds of a core."""
    found = [*pool.map(_timed, [seeded(hparams, seed) for seed in range(seeds)])]
    return [accuracy for accuracy, _ in found], fmean(took for _, took in found)


def _timed(hparams: Hparams) -> tuple[float, float]:
    began = time.process_time()
    return accuracy_of(hparams), time.process_time() - began


if __name__ == "__main__":
    sys.exit(main())
