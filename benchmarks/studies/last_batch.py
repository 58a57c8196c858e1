"""`python -m benchmarks.studies.last_batch`: what a last batch of few images costs, and how best to cut an epoch.

Subsets of CIFAR-10's training images, the same number of each class, of which batches of 64 leave 8 and 10 over;
accuracy on its 5,000 validation images, of narrow networks. Nothing is timed: it may run on a machine that is busy.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from unittest import mock

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report, mean_and_ends
from benchmarks.studies.recipes import accuracy_of, load_images, seeded
from cifar.data import datasets
from cifar.training import defaults, train
from cifar.training.hparams import Hparams

_IMAGES, _WIDTH, _BATCH, _SEEDS = (200, 970), 24, 64, 4
HEADER = ["images", "epochs", "how an epoch is cut", "batches", "accuracy", "lowest", "highest"]
Cut = Callable[[Tensor, int], list[tuple[Tensor, int]]]


def as_it_comes(order: Tensor, batch_size: int) -> list[tuple[Tensor, int]]:
    return [(order, batch_size)]


def all_alike(order: Tensor, batch_size: int) -> list[tuple[Tensor, int]]:
    """As many batches, of sizes that differ by one at most."""
    smaller, larger = divmod(len(order), -(-len(order) // batch_size))
    first = larger * (smaller + 1)
    return [(some, size) for some, size in ((order[:first], smaller + 1), (order[first:], smaller)) if len(some)]


def without_the_last(order: Tensor, batch_size: int) -> list[tuple[Tensor, int]]:
    """As torch's DataLoader with drop_last."""
    return [(order[: len(order) // batch_size * batch_size], batch_size)]


CUTS: dict[str, Cut] = {
    "as it comes": as_it_comes,
    "the last two batches alike": train.runs_of_batches,
    "all batches alike": all_alike,
    "without the last batch": without_the_last,
}


@dataclass(frozen=True)
class Line:
    images: int
    hparams: Hparams
    cut: str
    accuracies: list[float]

    def cells(self) -> list[str]:
        sizes = [
            str(len(some))
            for run, size in CUTS[self.cut](torch.arange(self.images), _BATCH)
            for some in run.split(size)
        ]
        told = ", ".join(sizes) if len(sizes) < 5 else f"{sizes[0]}, ..., {sizes[-2]}, {sizes[-1]}"
        return [str(self.images), str(self.hparams.epochs), self.cut, told, *mean_and_ends(self.accuracies)]


def main() -> int:
    argparse.ArgumentParser(prog="python -m benchmarks.studies.last_batch", description=__doc__).parse_args()
    data_name = machine.choose_data()
    datasets.load(data_name)  # decoded once, by this process
    facts = machine.describe("python -m benchmarks.studies.last_batch", data_name)
    report = Report(RESULTS / "last-batch", "A last batch of few images", facts)
    title = f"Validation accuracy of fast, width {_WIDTH}, {_SEEDS} seeds"
    report.table(title, "last batch", HEADER, (line for images in _IMAGES for line in measure(data_name, images)))
    return 0


def measure(data_name: str, images: int) -> Iterator[Line]:
    hparams = defaults.for_budget({"model": "fast", "width": _WIDTH, "batch_size": _BATCH}, images)
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), load_images, (data_name, images)) as pool:
        for cut in tqdm(CUTS, f"{images} images", file=sys.stderr, disable=None):
            trainings = [seeded(hparams, seed) for seed in range(_SEEDS)]
            yield Line(images, hparams, cut, [*pool.map(_cut_and_train, [cut] * _SEEDS, trainings)])


def _cut_and_train(cut: str, hparams: Hparams) -> float:
    with mock.patch.object(train, "runs_of_batches", CUTS[cut]):
        return accuracy_of(hparams)


if __name__ == "__main__":
    sys.exit(main())
