"""`python -m benchmarks.studies.colours IMAGES`: what training images of changing colours are worth, and for how long.

A subset of CIFAR-10's training images, the same number of each class; accuracy on its 5,000 validation images. Seconds
are those of one core, also where others are busy.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

from tqdm import tqdm

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report, mean_and_ends
from benchmarks.studies.recipes import load_images
from benchmarks.studies.width import trained_with_seeds
from cifar.data import datasets
from cifar.training import defaults
from cifar.training.hparams import Hparams

_SEEDS = 2
_FAST: dict[str, Any] = {"model": "fast"}
_NET = {"model": "net", "schedule": "triangular", "flip": True, "translate": 2}
_SIZES: dict[int, list[tuple[dict[str, Any], int, tuple[int, ...]]]] = {  # by images: network, width and epochs
    200: [(_FAST, 32, (39, 75, 150))],
    2_000: [(_FAST, 32, (5, 11, 22, 47, 94)), (_FAST, 64, (22, 47)), (_NET, 30, (47, 94))],
    20_000: [(_FAST, 32, (12, 24))],
}
_SHARES = (0.0, 0.5)
HEADER = ["network", "images", "width", "epochs", "colours change by", "accuracy", "lowest", "highest", "seconds"]


@dataclass(frozen=True)
class Line:
    hparams: Hparams
    images: int
    accuracies: list[float]
    seconds: float  # of a core

    def cells(self) -> list[str]:
        hparams = self.hparams
        sizes = [f"{self.images:,}", str(hparams.width), str(hparams.epochs), f"{hparams.color_jitter:.0%}"]
        return [hparams.model, *sizes, *mean_and_ends(self.accuracies), f"{self.seconds:.0f}"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.colours", description=__doc__)
    parser.add_argument("images", type=int, choices=_SIZES, help="to train on")
    images = parser.parse_args().images
    data_name = machine.choose_data()
    datasets.load(data_name)  # decoded once, by this process
    (RESULTS / "colours").mkdir(exist_ok=True)
    facts = machine.describe(f"python -m benchmarks.studies.colours {images}", data_name)
    report = Report(RESULTS / "colours" / str(images), f"Training images of changing colours, {images:,}", facts)
    report.table(f"Validation accuracy, {_SEEDS} seeds", "colours", HEADER, measure(data_name, images))
    return 0


def measure(data_name: str, images: int) -> Iterator[Line]:
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), load_images, (data_name, images)) as pool:
        for hparams in tqdm([*_trained(images)], f"{images:,} images", file=sys.stderr, disable=None):
            yield Line(hparams, images, *trained_with_seeds(pool, hparams, _SEEDS))


def _trained(images: int) -> Iterator[Hparams]:
    for given, width, lengths in _SIZES[images]:
        for epochs in lengths:
            usual = defaults.for_budget({**given, "width": width, "epochs": epochs}, images)
            yield from (replace(usual, color_jitter=share) for share in _SHARES)


if __name__ == "__main__":
    sys.exit(main())
