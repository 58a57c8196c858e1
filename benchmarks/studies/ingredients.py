"""`python -m benchmarks.studies.ingredients`: what each ingredient of fast's recipe is worth, switched off alone.

A small network on a small budget, the five epochs of 15,000 images that searches/fast gives its trials. Nothing is
timed: it may run on a machine that is busy.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from scipy.stats import t as student
from tqdm import tqdm

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report, standard_error
from cifar.data import datasets
from cifar.data.datasets import Dataset
from cifar.training.hparams import Hparams
from cifar.training.train import new_model, new_optimizer, train

_RECIPE = Hparams(model="fast", width=16, batch_size=256, lr=0.4, epochs=5, images_per_epoch=15_000)
_SEEDS = 3
WITHOUT: dict[str, dict[str, Any]] = {
    "the triangular learning rate": {"schedule": "constant"},
    "weight decay": {"weight_decay": 0.0},
    "Nesterov's momentum": {"nesterov": False},
    "label smoothing": {"label_smoothing": 0.0},
    "mirrored training images": {"flip": False},
    "shifted training images": {"translate": 0},
    "the average of parameters": {"lookahead_decay": 0.0},
    "mirror images in evaluation": {"tta_flip": False},
    "bfloat16 (float32 instead)": {"precision": "float32"},
}
HEADER = ["without", "flag", "validation accuracy", "the ingredient is worth"]


@dataclass(frozen=True)
class Compared:
    """Validation accuracies, one per seed, of the whole recipe and of the recipe without one ingredient."""

    name: str
    without: dict[str, Any]
    recipe: list[float]
    accuracies: list[float]

    def cells(self) -> list[str]:
        gains = [100 * (whole - part) for whole, part in zip(self.recipe, self.accuracies, strict=True)]
        return [
            self.name,
            " ".join(map(_flag, self.without.items())),
            f"{fmean(self.accuracies):.1%} ± {_margin(self.accuracies):.1%}",
            f"{fmean(gains):+.1f} ± {_margin(gains):.1f} points" if self.without else "",
        ]


def _margin(values: list[float]) -> float:
    """Half of the 95 % interval of the mean over the seeds."""
    return float(student.ppf(0.975, len(values) - 1)) * standard_error(values)


def main() -> int:
    data_name = machine.choose_data()
    dataset = datasets.load(data_name)
    facts = machine.describe("python -m benchmarks.studies.ingredients", data_name)
    report = Report(RESULTS / "ingredients", "What each ingredient of the network fast is worth", facts)
    title = (
        f"Width {_RECIPE.width}, batch {_RECIPE.batch_size}, {_RECIPE.epochs} epochs of "
        f"{_RECIPE.images_per_epoch:,} images, {_SEEDS} seeds, each paired; intervals of 95 % over the seeds"
    )
    report.table(title, "ingredients", HEADER, compare(dataset))
    return 0


def compare(dataset: Dataset) -> Iterator[Compared]:
    recipe = _accuracies(_RECIPE, dataset, "recipe")
    yield Compared("nothing: the whole recipe", {}, recipe, recipe)
    for name, without in WITHOUT.items():
        yield Compared(name, without, recipe, _accuracies(replace(_RECIPE, **without), dataset, name))


def _accuracies(hparams: Hparams, dataset: Dataset, name: str) -> list[float]:
    splits, accuracies = datasets.split(dataset), list[float]()
    for seed in tqdm(range(_SEEDS), name, file=sys.stderr, disable=None):
        seeded = replace(hparams, seed=seed)
        model = new_model(seeded, dataset)
        *_, last = train(model, new_optimizer(model, seeded), seeded, dataset, splits)
        accuracies.append(last.metrics.accuracy)
    return accuracies


def _flag(value: tuple[str, Any]) -> str:
    name = value[0].replace("_", "-")
    return f"`--no-{name}`" if value[1] is False else f"`--{name} {value[1]}`"


if __name__ == "__main__":
    sys.exit(main())
