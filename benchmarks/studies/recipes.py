"""`python -m benchmarks.studies.recipes IMAGES`: the defaults on few images: how many epochs, and which batch.

Subsets of CIFAR-10's training images, the same number of each class; accuracy on its 5,000 validation images. Nothing
is timed: it may run on a machine that is busy.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

import torch
from tqdm import tqdm

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report, mean_and_ends
from benchmarks.table.curves import evenly
from cifar.data import datasets
from cifar.data.datasets import Dataset, Splits
from cifar.training import defaults
from cifar.training.evaluation import evaluate
from cifar.training.hparams import Hparams
from cifar.training.train import Diverged, new_model, new_optimizer, train

_ALL_IMAGES = 45_000  # of CIFAR-10, without those to validate on: for so many the recipes were made
_FEW_VAL = 20  # images
_SEEDS = {200: 3, 2_000: 3, 20_000: 2}
# By images, what is tried: the power of how many times fewer they are, by which there are more epochs, and the steps of
# the optimizer, at least, for which a batch is halved.
_FEW = ((0.25, 100), (0.25, 400), (0.5, 100), (0.5, 400), (0.75, 400))
_TRIED = {200: _FEW, 2_000: _FEW, 20_000: ((0.5, 100), (0.5, 400))}
HEADER = ["network", "images", "recipe", "epochs", "batch size", "learning rate", "accuracy", "lowest", "highest"]


@dataclass(frozen=True)
class Recipe:
    network: str
    images: int
    name: str
    hparams: Hparams


@dataclass(frozen=True)
class Line:
    recipe: Recipe
    accuracies: list[float]

    def cells(self) -> list[str]:
        recipe, hparams = self.recipe, self.recipe.hparams
        told = [recipe.network, f"{recipe.images:,}", recipe.name, str(hparams.epochs), str(hparams.batch_size)]
        return [*told, f"{hparams.lr:.2g}", *mean_and_ends(self.accuracies)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.recipes", description=__doc__)
    parser.add_argument("images", type=int, choices=_SEEDS, help="to train on")
    images = parser.parse_args().images
    data_name = machine.choose_data()
    datasets.load(data_name)  # decoded once, by this process
    (RESULTS / "recipes").mkdir(exist_ok=True)
    facts = machine.describe(f"python -m benchmarks.studies.recipes {images}", data_name)
    report = Report(RESULTS / "recipes" / str(images), f"Recipes for {images:,} images", facts)
    report.table("Validation accuracy by seed", "recipes", HEADER, measure(data_name, images))
    return 0


def measure(data_name: str, images: int) -> Iterator[Line]:
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), load_images, (data_name, images)) as pool:
        for network in ("net", "fast"):
            for recipe in tqdm([*recipes(network, images)], f"{network}, {images:,}", file=sys.stderr, disable=None):
                trainings = [seeded(recipe.hparams, seed) for seed in range(_SEEDS[images])]
                yield Line(recipe, [*pool.map(accuracy_of, trainings)])


_loaded: tuple[Dataset, Splits]


def load_images(data_name: str, images: int) -> None:
    """Load the images, once per process."""
    global _loaded
    torch.set_num_threads(1)
    dataset = datasets.load(data_name)
    splits = datasets.split(dataset)
    _loaded = dataset, replace(splits, train=evenly(splits.train, dataset, images))


def accuracy_of(hparams: Hparams) -> float:
    """Of the last network; epochs on the way are evaluated on few images, since there are hundreds of them."""
    dataset, splits = _loaded
    model = new_model(hparams, dataset)
    try:
        for _ in train(
            model, new_optimizer(model, hparams), hparams, dataset, replace(splits, val=splits.val[:_FEW_VAL])
        ):
            pass
    except Diverged:
        return 1 / len(dataset.classes)
    return evaluate(model, dataset, splits.val).accuracy


def recipes(network: str, images: int) -> Iterator[Recipe]:
    whole = Hparams(model=network)
    yield Recipe(network, images, "as for CIFAR-10", whole)
    for power, steps in _TRIED[images]:
        epochs = round(whole.epochs * (_ALL_IMAGES / images) ** power)
        batch_size = whole.batch_size
        while batch_size > 4 and epochs * images < steps * batch_size:
            batch_size //= 2
        given = {"model": network, "epochs": epochs, "batch_size": batch_size}
        name = f"power {power}, at least {steps} steps"
        yield Recipe(network, images, name, defaults.for_budget(given, images))


def seeded(hparams: Hparams, seed: int) -> Hparams:
    return Hparams.from_params({**vars(hparams), "seed": seed})


if __name__ == "__main__":
    sys.exit(main())
